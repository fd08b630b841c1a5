"""The rate of a plan or key: exact over all workers, kept over reload and new snapshots, told in headers."""

import threading
import time

import pytest

LOCATION = 'location / {{ apikey "api"; apikey_scope any; proxy_pass {0}; }}'


def statuses(server, key, count):
    return [server.status(key=key) for _ in range(count)]


def test_the_plans_rate(registry, nginx, upstream):
    registry.plan("small", rate="3/h", burst=3)
    key, other = registry.key(plan="small", publish=False), registry.key(plan="small")
    server = nginx(LOCATION.format(upstream.url))
    assert statuses(server, key, 5) == [200] * 3 + [429] * 2
    assert statuses(server, other, 4) == [200] * 3 + [429], "another key has its own bucket"


def test_a_keys_own_rate_replaces_its_plans(registry, nginx, upstream):
    registry.plan("small", rate="3/h", burst=3)
    key = registry.key(plan="small", rate="5/h", burst=5)
    server = nginx(LOCATION.format(upstream.url))
    assert statuses(server, key, 6) == [200] * 5 + [429]


def test_without_a_plan_there_is_no_limit(registry, nginx, upstream):
    key = registry.key()
    server = nginx(LOCATION.format(upstream.url))
    answers = [server.get(key=key) for _ in range(30)]
    assert {answer.status_code for answer in answers} == {200}
    assert "X-RateLimit-Limit" not in answers[0].headers


def test_headers(registry, nginx, upstream):
    key = registry.key(rate="60/h", burst=2)
    server = nginx(LOCATION.format(upstream.url))
    answers = [server.get(key=key) for _ in range(3)]
    told = [(int(a.headers["X-RateLimit-Limit"]), int(a.headers["X-RateLimit-Remaining"])) for a in answers]
    assert told == [(2, 1), (2, 0), (2, 0)]
    resets = [int(a.headers["X-RateLimit-Reset"]) for a in answers]
    # One token comes every 60 seconds; less what a slow test took, rounded up.
    assert 59 <= resets[0] <= 61 and 119 <= resets[1] <= 121
    assert 58 <= int(answers[2].headers["Retry-After"]) <= 61
    assert answers[2].headers["Cache-Control"] == "no-store"
    assert answers[2].json()["status"] == 429
    logged = next(line for line in server.logged(3) if line["status"] == "429")
    assert (logged["outcome"], logged["limit"], logged["remaining"]) == ("rate_limited", "2", "0")


def test_headers_can_be_off(registry, nginx, upstream):
    key = registry.key(rate="60/h", burst=1)
    server = nginx(LOCATION.format(upstream.url), server="apikey_ratelimit_headers off;")
    passed, refused = server.get(key=key), server.get(key=key)
    assert (passed.status_code, refused.status_code) == (200, 429)
    for answer in (passed, refused):
        assert not [name for name in answer.headers if name.lower().startswith("x-ratelimit")]
    assert int(refused.headers["Retry-After"]) >= 1


def test_tokens_come_back_at_the_rate(registry, nginx, upstream):
    key = registry.key(rate="20/s", burst=1)
    server = nginx(LOCATION.format(upstream.url))
    started, admitted = time.monotonic(), 0
    while admitted < 11:
        admitted += server.status(key=key) == 200
    assert time.monotonic() - started >= 0.5 - 0.01, "more than rate·t + burst were admitted"


def test_exact_over_all_workers_at_once(registry, nginx, upstream):
    key = registry.key(rate="1/h", burst=50)
    server = nginx(LOCATION.format(upstream.url), workers=4)
    seen, lock = [], threading.Lock()

    def client():
        for _ in range(20):
            status = server.status(key=key)
            with lock:
                seen.append(status)

    threads = [threading.Thread(target=client) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (seen.count(200), seen.count(429)) == (50, 110)
    assert server.metric("apikey_limited_total") == 110


def test_survives_reload(registry, nginx, upstream):
    key = registry.key(rate="1/h", burst=4)
    server = nginx(LOCATION.format(upstream.url))
    assert statuses(server, key, 3) == [200] * 3
    server.reload()
    assert statuses(server, key, 2) == [200, 429]


def test_survives_a_new_snapshot_and_follows_a_changed_rate(registry, nginx, upstream):
    key = registry.key(rate="1/h", burst=4)
    server = nginx(LOCATION.format(upstream.url))
    assert statuses(server, key, 3) == [200] * 3
    registry.key("somebody-else")
    server.wait_for_generation(registry.generation())
    assert statuses(server, key, 2) == [200, 429]
    registry.run("key", "set", key.id, "--rate", "1/h", "--burst", "6")
    server.wait_for_generation(registry.generation())
    assert statuses(server, key, 3) == [200, 200, 429], "two more tokens, no reset"


@pytest.mark.parametrize("workers", [1, 2])
def test_limited_is_counted_by_plan_and_limit(registry, nginx, upstream, workers):
    registry.plan("small", rate="1/h", burst=1)
    key = registry.key(plan="small")
    server = nginx(LOCATION.format(upstream.url), workers=workers)
    assert statuses(server, key, 4) == [200] + [429] * 3
    assert server.metric("apikey_limited_total", plan="small") == 3
