"""Quotas of plans, keys and owners, in force in nginx: amounts, resets, grants, changes, and what is told of them."""

import datetime

import pytest

LOCATION = ('location / {{ apikey "api"; apikey_scope any; proxy_pass {0}; }}'
            'location = /me {{ apikey "api"; apikey_whoami; }}')


def statuses(server, key, count):
    return [server.status(key=key) for _ in range(count)]


def limits_of(server, key):
    return {limit["name"]: limit for limit in server.get("/me", key=key).json()["limits"]}


def seconds_left_of_month():
    now = datetime.datetime.now(datetime.timezone.utc)
    first = (now.replace(day=1, hour=0, minute=0, second=0, microsecond=0) + datetime.timedelta(days=32)).replace(day=1)
    return (first - now).total_seconds()


@pytest.fixture(name="serve")
def _serve(registry, nginx, upstream):
    def serve(**parts):
        return nginx(LOCATION.format(upstream.url), workers=2, **parts)
    return serve


def test_a_month_of_a_plan(registry, serve):
    registry.plan("small", "--quota", "3/month")
    key, other = registry.key(plan="small", publish=False), registry.key(plan="small")
    server = serve()
    passed = server.get(key=key)
    assert (passed.headers["X-RateLimit-Limit"], passed.headers["X-RateLimit-Remaining"]) == ("3", "2")
    assert abs(int(passed.headers["X-RateLimit-Reset"]) - seconds_left_of_month()) < 5
    assert statuses(server, key, 4) == [200, 200, 429, 429]
    refused = server.get(key=key)
    assert refused.json()["type"] == "urn:apikey:problem:quota-exceeded" and refused.json()["limit"] == "month"
    assert refused.headers["Retry-After"] == refused.headers["X-RateLimit-Reset"]
    assert statuses(server, other, 3) == [200] * 3, "another key has its own"


def test_an_owners_quota_is_shared_by_all_its_keys(registry, serve):
    registry.owner("acme", "--quota", "3/day")
    key, other, stranger = registry.key("acme"), registry.key("acme"), registry.key("someone")
    server = serve()
    assert statuses(server, key, 2) + statuses(server, other, 2) == [200, 200, 200, 429]
    assert server.status(key=stranger) == 200
    assert limits_of(server, other)["owner.day"]["remaining"] == 0


def test_another_amount_keeps_what_was_used(registry, serve):
    registry.plan("small", "--quota", "5/day")
    key = registry.key(plan="small")
    server = serve()
    assert statuses(server, key, 4) == [200] * 4
    registry.run("plan", "set", "small", "--quota", "10/day")
    server.wait_for_generation(registry.generation())
    assert limits_of(server, key)["day"] == {"name": "day", "kind": "quota", "limit": 10, "remaining": 6,
                                             "reset": limits_of(server, key)["day"]["reset"]}
    registry.run("plan", "set", "small", "--quota", "3/day")
    server.wait_for_generation(registry.generation())
    assert statuses(server, key, 1) == [429]
    registry.run("plan", "set", "small", "--quota", "5/day")
    server.wait_for_generation(registry.generation())
    assert statuses(server, key, 2) == [200, 429]


def test_a_reset_begins_the_window_anew(registry, serve):
    registry.plan("small", "--quota", "2/day", "--rolling-quota", "trial=3/30d")
    key = registry.key(plan="small")
    server = serve()
    assert statuses(server, key, 3) == [200, 200, 429]
    registry.run("quota", "reset", key.id, "--name", "day", "--reason", "support case 4711")
    server.wait_for_generation(registry.generation())
    assert statuses(server, key, 2) == [200, 429], "the rolling quota has one left"
    registry.run("quota", "reset", key.id, "--name", "trial")
    server.wait_for_generation(registry.generation())
    left = limits_of(server, key)
    assert (left["day"]["remaining"], left["trial"]["remaining"]) == (1, 3)
    actions = [entry["action"] for entry in registry.json("audit", "list")]
    assert actions.count("quota.reset") == 2


def test_a_grant_adds_to_the_current_window(registry, serve):
    registry.owner("acme", "--quota", "2/day")
    registry.plan("small", "--quota", "1/month")
    key, plain = registry.key("acme"), registry.key("someone", plan="small")
    server = serve()
    assert statuses(server, key, 3) == [200, 200, 429]
    registry.run("quota", "grant", "--owner", "acme", "--amount", "2")
    registry.run("quota", "grant", plain.id, "--amount", "3")
    server.wait_for_generation(registry.generation())
    assert statuses(server, key, 3) == [200, 200, 429]
    assert statuses(server, plain, 5) == [200] * 4 + [429]
    assert limits_of(server, plain)["month"]["limit"] == 4


def test_a_rolling_quota(registry, serve):
    registry.plan("trial", "--rolling-quota", "trial=4/30d")
    key = registry.key(plan="trial")
    server = serve()
    answers = [server.get(key=key) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200] * 4 + [429]
    # One of four comes back every 7.5 days.
    assert abs(int(answers[4].headers["Retry-After"]) - 7.5 * 86400) <= 2
    assert abs(int(answers[4].headers["X-RateLimit-Reset"]) - 30 * 86400) <= 2
    # What is granted is there at once, and makes nothing come back faster.
    registry.run("quota", "grant", key.id, "--amount", "2")
    server.wait_for_generation(registry.generation())
    answers = [server.get(key=key) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert abs(int(answers[2].headers["Retry-After"]) - 7.5 * 86400) <= 2


def test_it_outlives_a_reload_and_kill_of_a_worker(registry, serve):
    registry.plan("small", "--quota", "4/day")
    key = registry.key(plan="small")
    server = serve()
    assert statuses(server, key, 3) == [200] * 3
    server.reload()
    assert statuses(server, key, 2) == [200, 429]
