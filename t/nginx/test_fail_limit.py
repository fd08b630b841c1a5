"""Failed attempts per client address: over budget they are answered 429, while good keys pass, also from there."""

import random

import pytest

from harness.keys import make_key

WRONG = make_key(random.Random(7))


def location(upstream, *lines, path="/", optional=""):
    return f'location {path} {{ apikey "api"{optional}; apikey_scope any; {" ".join(lines)} proxy_pass {upstream.url}; }}'


LIMIT = "apikey_fail_limit rate=6r/h burst=3;"


def test_over_budget_every_failure_is_throttled_and_good_keys_pass(registry, nginx, upstream):
    good, revoked = registry.key(), registry.key()
    registry.revoke(revoked)
    server = nginx(location(upstream, LIMIT))
    attempts = [server.status(key=key) for key in (WRONG, "no key at all", revoked, WRONG, "x", revoked)]
    assert attempts == [401, 401, 401, 429, 429, 429]
    assert [server.status(key=good) for _ in range(3)] == [200] * 3
    assert server.status() == 401, "no credential is no attempt"
    refused = server.get(key=WRONG)
    assert refused.json()["type"] == "urn:apikey:problem:throttled"
    assert 590 <= int(refused.headers["Retry-After"]) <= 600
    assert refused.headers["Cache-Control"] == "no-store"
    assert not [name for name in refused.headers if name.lower().startswith("x-ratelimit")]


def test_what_is_throttled_looks_the_same_for_every_reason(registry, nginx, upstream):
    revoked = registry.key()
    registry.revoke(revoked)
    server = nginx(location(upstream, "apikey_fail_limit rate=1r/h;"))
    server.get(key=WRONG)
    answers = [server.get(key=key) for key in (WRONG, "x", revoked)]
    same = [(a.status_code, {k: v for k, v in a.headers.items() if k != "date"},
             {k: v for k, v in a.json().items() if k != "instance"}) for a in answers]
    assert same[0] == same[1] == same[2]


def test_a_missing_key_costs_nothing(registry, nginx, upstream):
    registry.key()
    server = nginx(location(upstream, "apikey_fail_limit rate=1r/h;"))
    assert [server.status() for _ in range(5)] == [401] * 5
    assert server.status(key=WRONG) == 401
    assert server.status(key=WRONG) == 429


def test_each_address_has_its_own_budget_and_ipv6_by_64(registry, nginx, upstream):
    good = registry.key()
    server = nginx(location(upstream, "apikey_fail_limit rate=1r/h;"),
                   server="set_real_ip_from 127.0.0.1; real_ip_header X-Real-IP;")

    def attempt(address, key=WRONG):
        return server.status(key=key, headers={"X-Real-IP": address})

    assert [attempt("192.0.2.1"), attempt("192.0.2.1"), attempt("192.0.2.2")] == [401, 429, 401]
    assert [attempt("2001:db8::1"), attempt("2001:db8::ffff:1"), attempt("2001:db8:0:1::1")] == [401, 429, 401]
    assert attempt("192.0.2.1", good) == 200


def test_it_is_counted_and_logged_once_an_address_and_minute(registry, nginx, upstream):
    registry.key()
    server = nginx(location(upstream, "apikey_fail_limit rate=1r/h;"), workers=2)
    assert [server.status(key=WRONG) for _ in range(6)] == [401] + [429] * 5
    assert sorted(entry["outcome"] for entry in server.logged(6)) == ["throttled"] * 5 + ["unknown"]
    assert server.metric("apikey_requests_total", outcome="throttled") == 5
    assert server.error_log().count("apikey: throttled: too many failed attempts from 127.0.0.1") == 1
    assert WRONG not in server.error_log()


def test_block_all_does_not_even_look(registry, nginx, upstream):
    good = registry.key()
    server = nginx(location(upstream, "apikey_fail_limit rate=1r/h burst=2 block=all;"))
    assert server.status(key=good) == 200
    assert [server.status(key=WRONG) for _ in range(2)] == [401, 401]
    seen = len(upstream.requests)
    assert server.status(key=good) == 429
    assert server.last_logged()["outcome"] == "throttled"
    assert len(upstream.requests) == seen


def test_block_all_hides_the_key_all_the_same(registry, nginx, upstream):
    good = registry.key()
    server = nginx(location(upstream, "apikey_fail_limit rate=1r/h block=all;", "apikey_from header:X-API-Key query:k;",
                            "error_page 429 = @open;")
                   + f"location @open {{ apikey off; proxy_pass {upstream.url}; }}")
    server.status(key=WRONG)
    upstream.clear()
    assert server.status("/?k=" + good.secret, key=good) == 200, "what error_page shows"
    assert good.secret not in upstream.last.text()
    assert good.secret not in server.error_log()


def test_block_all_refuses_nobody_who_shows_no_key(registry, nginx, upstream):
    good = registry.key()
    blocking = "apikey_fail_limit rate=1r/h block=all;"
    server = nginx(location(upstream, path="/open", optional=" optional") + location(upstream)
                   + location(upstream, "apikey_from query:k;", path="/query", optional=" optional"), server=blocking)
    assert server.status(key=WRONG) == 401
    assert [server.status("/open"), server.status("/query"), server.status()] == [200, 200, 401]
    lines = sorted((line["uri"], line["outcome"]) for line in server.logged(4))
    assert lines == [("/", "missing"), ("/", "unknown"), ("/open", "anonymous"), ("/query", "anonymous")]
    assert [server.status("/open", key=good), server.status("/query?k=" + good.secret), server.status(key=good)] == [429] * 3
    headers = {"Origin": "https://a.example", "Access-Control-Request-Method": "PUT"}
    assert server.request("OPTIONS", "/", headers=headers).status_code == 200


@pytest.mark.parametrize("early", ["", "set $early $apikey_owner;"])
def test_block_all_judges_the_address_that_realip_says_in_the_location(registry, nginx, upstream, early):
    good = registry.key()
    real = "set_real_ip_from 127.0.0.1; real_ip_header X-Real-IP;"
    server = nginx(location(upstream, "apikey_fail_limit rate=1r/h block=all;", real, early))

    def attempt(address, key):
        return server.status(key=key, headers={"X-Real-IP": address})

    assert [attempt("192.0.2.1", WRONG), attempt("192.0.2.1", good), attempt("192.0.2.2", good)] == [401, 429, 200]
    # The proxy's own address has not failed, and when it has, its clients have not.
    assert server.status(key=WRONG) == 401
    assert [server.status(key=good), attempt("192.0.2.2", good)] == [429, 200]


def test_block_all_does_not_cut_off_who_was_let_in_by_an_earlier_pass(registry, nginx, upstream):
    good = registry.key()
    blocking = "apikey_fail_limit rate=1r/h block=all;"
    server = nginx(f'location /first {{ apikey "api"; apikey_scope any; try_files /none @second; }}'
                   f'location @second {{ apikey "api"; apikey_scope any; {blocking} proxy_pass {upstream.url}; }}'
                   + location(upstream, blocking))
    assert server.status(key=WRONG) == 401
    assert server.status("/first", key=good) == 200, "it was looked up where nobody blocks"
    assert server.status(key=good) == 429


def test_it_survives_a_reload_and_can_be_off_further_in(registry, nginx, upstream):
    registry.key()
    server = nginx(location(upstream, path="/a") + location(upstream, "apikey_fail_limit off;", path="/b"),
                   server="apikey_fail_limit rate=1r/h;")
    assert [server.status("/a", key=WRONG), server.status("/a", key=WRONG)] == [401, 429]
    server.reload()
    assert [server.status("/a", key=WRONG), server.status("/b", key=WRONG)] == [429, 401]


@pytest.mark.parametrize("line, needle", [
    ("apikey_fail_limit burst=3;", "rate="), ("apikey_fail_limit rate=0r/s;", "is not a rate"),
    ("apikey_fail_limit rate=1r/s burst=0;", "would admit nothing"), ("apikey_fail_limit rate=1r/s block=some;", "not known"),
    ("apikey_fail_limit rate=1r/s; apikey_fail_limit off;", "duplicate"),
])
def test_mistakes(registry, nginx, upstream, line, needle):
    registry.key()
    server = nginx.make(location(upstream, line))
    good, said = server.check()
    assert not good and "apikey_fail_limit" in said and needle in said
