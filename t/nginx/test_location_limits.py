"""apikey_limit of a location: by key, owner and variable, on top of the key's own limits, all or none; require=; share=."""

import pytest

from harness.waiting import wait_until

BUCKET = "rate=3r/h burst=3"


def location(upstream, *lines, path="/", more=""):
    return f'location {path} {{ apikey "api"; apikey_scope any; {" ".join(lines)} {more} proxy_pass {upstream.url}; }}'


def statuses(server, count, path="/", **more):
    return [server.status(path, **more) for _ in range(count)]


def test_by_key_is_the_default(registry, nginx, upstream):
    key, other = registry.key(publish=False), registry.key()
    server = nginx(location(upstream, f"apikey_limit {BUCKET};"))
    assert statuses(server, 5, key=key) == [200] * 3 + [429] * 2
    assert statuses(server, 3, key=other) == [200] * 3, "another key of the same owner has its own"


def test_by_owner(registry, nginx, upstream):
    key, other, stranger = registry.key(), registry.key(), registry.key("somebody else")
    server = nginx(location(upstream, f"apikey_limit {BUCKET} by=owner;"))
    assert statuses(server, 2, key=key) + statuses(server, 2, key=other) == [200, 200, 200, 429]
    assert server.status(key=stranger) == 200


def test_by_a_variable_and_by_address_where_it_is_empty(registry, nginx, upstream):
    key, other = registry.key(), registry.key("somebody else")
    server = nginx(location(upstream, "apikey_limit rate=1r/h by=$arg_tenant;"))
    assert [server.status(path, key=who) for path, who in
            [("/?tenant=a", key), ("/?tenant=a", other), ("/?tenant=b", other), ("/", key), ("/", other),
             ("/?tenant=", key)]] == [200, 429, 200, 200, 429, 429]


def test_the_anonymous_are_known_by_their_address(registry, nginx, upstream):
    key = registry.key()
    server = nginx(f'location / {{ apikey "api" optional; apikey_scope any; apikey_limit rate=1r/h; proxy_pass {upstream.url}; }}')
    assert [server.status(), server.status(), server.status(key=key), server.status(key=key)] == [200, 429, 200, 429]
    # Two workers write the log, in whatever order.
    outcomes = sorted(entry["outcome"] for entry in server.logged(4))
    assert outcomes == ["anonymous", "ok", "rate_limited", "rate_limited"]


def test_the_anonymous_pay_the_cost_and_need_what_is_required(registry, nginx, upstream):
    registry.key()
    open_location = 'location {} {{ apikey "api" optional; apikey_scope any; {} proxy_pass ' + upstream.url + "; }}"
    server = nginx(open_location.format("/dear", "apikey_limit rate=1r/h burst=9; apikey_cost 4;")
                   + open_location.format("/free", "apikey_limit rate=1r/h; apikey_cost 0;")
                   + open_location.format("/tokens", "apikey_limit require=tokens;")
                   + open_location.format("/dry", "apikey_limit rate=1r/h; apikey_dry_run limits;"))
    assert statuses(server, 3, "/dear") == [200, 200, 429]
    assert statuses(server, 3, "/free") == [200] * 3
    assert server.status("/tokens") == 429
    assert statuses(server, 2, "/dry") == [200, 200]
    dry = [entry["outcome"] for entry in server.logged(9) if entry["uri"] == "/dry"]
    assert sorted(dry) == ["anonymous", "rate_limited_dry_run"]


def test_all_or_none_with_the_limits_of_the_key(registry, nginx, upstream):
    registry.plan("small", "--quota", "5/day", rate="4/h", burst=4)
    key = registry.key(plan="small")
    server = nginx(location(upstream, "apikey_limit rate=2r/h burst=2;", path="/tight")
                   + location(upstream, path="/wide") + 'location = /me { apikey "api"; apikey_whoami; }')
    assert statuses(server, 6, "/tight", key=key) == [200] * 2 + [429] * 4
    left = {limit["name"]: limit["remaining"] for limit in server.get("/me", key=key).json()["limits"]}
    assert left == {"rate": 2, "day": 3}, "a refused request costs nothing"
    assert statuses(server, 3, "/wide", key=key) == [200, 200, 429]


def test_a_name_makes_two_locations_share_and_without_one_each_has_its_own(registry, nginx, upstream):
    key = registry.key()
    line = "apikey_limit rate=2r/h burst=2{};"
    server = nginx(location(upstream, line.format(" name=both"), path="/a")
                   + location(upstream, line.format(" name=both"), path="/b")
                   + location(upstream, line.format(""), path="/c") + location(upstream, line.format(""), path="/d"))
    assert [server.status(path, key=key) for path in ("/a", "/b", "/a", "/b")] == [200, 200, 429, 429]
    assert [server.status(path, key=key) for path in ("/c", "/c", "/c", "/d", "/d", "/d")] == [200, 200, 429] * 2
    refused = server.get("/a", key=key)
    assert refused.json()["limit"] == "both"
    assert server.get("/c", key=key).json()["limit"] == "/c"


def test_inner_levels_replace_outer_ones(registry, nginx, upstream):
    key = registry.key()
    server = nginx(location(upstream, path="/outer")
                   + location(upstream, "apikey_limit rate=2r/h burst=2;", path="/inner"),
                   server="apikey_limit rate=1r/h name=outer;")
    assert statuses(server, 2, "/outer", key=key) == [200, 429]
    assert statuses(server, 3, "/inner", key=key) == [200, 200, 429]


def test_a_redirected_request_is_charged_once_and_new_limits_are_taken(registry, nginx, upstream):
    registry.plan("small", rate="4/h", burst=4)
    key = registry.key(plan="small")
    server = nginx('location /start { apikey "api"; apikey_scope any; apikey_limit rate=3r/h burst=3 name=first; '
                   "try_files /none @there; }"
                   'location @there { apikey "api"; apikey_scope any; apikey_limit rate=2r/h burst=2 name=second; '
                   f"proxy_pass {upstream.url}; }}"
                   'location = /me { apikey "api"; apikey_whoami; }')
    assert statuses(server, 3, "/start", key=key) == [200, 200, 429]
    # Each was decided twice and charged once; the third, refused in its second pass, has got everything back.
    wait_until(lambda: server.get("/me", key=key).json()["limits"][0]["remaining"] == 2, what="two of four left")


def test_a_required_limit(registry, nginx, upstream):
    registry.plan("tokens", "--rate", "tokens=5/h", "--burst", "tokens=5")
    with_limit, without = registry.key(plan="tokens"), registry.key()
    server = nginx(location(upstream, "apikey_limit require=tokens;"))
    assert server.status(key=with_limit) == 200
    refused = server.get(key=without)
    assert refused.status_code == 429
    assert refused.headers["X-RateLimit-Limit"] == "0" and refused.headers["X-RateLimit-Remaining"] == "0"
    assert refused.headers["Retry-After"] == "86400"
    assert refused.json()["limit"] == "tokens"


def test_a_share_of_every_limit(registry, nginx, upstream):
    registry.plan("small", "--quota", "90/day", "--concurrency", "30", rate="60/h", burst=30)
    key = registry.key(plan="small")
    server = nginx(location(upstream, "apikey_limit rate=30r/h burst=9 name=here;", path="/x")
                   + 'location = /me { apikey "api"; apikey_whoami; apikey_limit rate=30r/h burst=9 name=here; }',
                   http="apikey_zone zone=apikey:4m share=1/3;")
    limits = {limit["name"]: limit["limit"] for limit in server.get("/me", key=key).json()["limits"]}
    assert limits == {"rate": 10, "day": 30, "concurrency": 10, "here": 3}
    assert statuses(server, 4, "/x", key=key) == [200] * 3 + [429]
    # A third of 30 an hour: one comes back every six minutes, the fourth has to wait for it.
    assert 350 <= int(server.get("/x", key=key).headers["Retry-After"]) <= 360


def test_limits_outlive_reload_and_a_new_snapshot(registry, nginx, upstream):
    key = registry.key()
    server = nginx(location(upstream, f"apikey_limit {BUCKET};"))
    assert statuses(server, 2, key=key) == [200, 200]
    server.reload()
    registry.key()
    server.wait_for_generation(registry.generation())
    assert statuses(server, 2, key=key) == [200, 429]


@pytest.mark.parametrize("header", ["off", "x", "draft"])
def test_the_same_headers_on_pass_and_refusal(registry, nginx, upstream, header):
    key = registry.key(rate="3600/h", burst=2)
    server = nginx(location(upstream, "apikey_limit rate=1r/h name=slow;", f"apikey_ratelimit_headers {header};"))
    passed, refused = server.get(key=key), server.get(key=key)
    assert (passed.status_code, refused.status_code) == (200, 429)
    names = [{name.lower() for name in answer.headers if "ratelimit" in name.lower()} for answer in (passed, refused)]
    assert names[0] == names[1] == {"off": set(), "draft": {"ratelimit", "ratelimit-policy"},
                                    "x": {"x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"}}[header]


def test_draft_headers_list_every_policy(registry, nginx, upstream):
    registry.plan("full", "--quota", "1000/day", "--rolling-quota", "trial=50/30d", "--concurrency", "7", rate="100/s",
                  burst=200)
    key = registry.key(plan="full")
    server = nginx(location(upstream, "apikey_limit rate=6r/m burst=3 name=here;", "apikey_ratelimit_headers draft;"))
    headers = server.get(key=key).headers
    policies = dict(item.split(";", 1) for item in headers["RateLimit-Policy"].split(", "))
    assert policies == {'"rate"': "q=200;w=2", '"day"': "q=1000;w=86400", '"trial"': "q=50;w=2592000",
                        '"concurrency"': 'q=7;qu="concurrent-requests"', '"here"': "q=3;w=30"}
    state = dict(item.split(";", 1) for item in headers["RateLimit"].split(", "))
    assert set(state) == set(policies)
    assert state['"here"'] == "r=2;t=10"
    assert state['"day"'].startswith("r=999;t=") and 0 < int(state['"day"'].split("t=")[1]) <= 86400
    assert state['"trial"'].startswith("r=49;t=") and state['"concurrency"'] == "r=6"


def test_draft_headers_without_a_key(registry, nginx, upstream):
    registry.key()
    server = nginx('location / { apikey "api" optional; apikey_scope any; apikey_ratelimit_headers draft; '
                   f"apikey_limit rate=6r/m burst=3 name=here; proxy_pass {upstream.url}; }}")
    headers = server.get().headers
    assert (headers["RateLimit-Policy"], headers["RateLimit"]) == ('"here";q=3;w=30', '"here";r=2;t=10')


def test_requests_in_flight_are_told_only_where_they_refuse(registry, nginx, upstream):
    registry.plan("wide", "--concurrency", "20", rate="100/s", burst=200)
    key = registry.key(plan="wide")
    headers = nginx(location(upstream)).get(key=key).headers
    assert (headers["X-RateLimit-Limit"], headers["X-RateLimit-Remaining"]) == ("200", "199")


def test_retry_after_names_the_first_second_that_passes(registry, nginx, upstream):
    key = registry.key(rate="1/s", burst=1)
    server = nginx(location(upstream))
    assert server.status(key=key) == 200
    refused = server.get(key=key)
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1"), "one second, exactly, not two"
    slow = registry.key(rate="360/h", burst=1)
    server.wait_for_generation(registry.generation())
    assert server.status(key=slow) == 200
    refused = server.get(key=slow)
    assert (refused.headers["Retry-After"], refused.headers["X-RateLimit-Reset"]) == ("10", "10")


def test_the_metric_names_plan_and_limit(registry, nginx, upstream):
    registry.plan("tiny", "--quota", "1/day")
    key = registry.key(plan="tiny")
    server = nginx(location(upstream))
    assert statuses(server, 3, key=key) == [200, 429, 429]
    assert server.get(key=key).json()["type"] == "urn:apikey:problem:quota-exceeded"
    server.logged(4)
    assert server.metric("apikey_limited_total", plan="tiny", limit="day") == 3
    assert server.metric("apikey_requests_total", outcome="quota_exceeded") == 3
