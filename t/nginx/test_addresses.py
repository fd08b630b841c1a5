"""The client's address is the one that realip has found, also where realip is written in a location, and however early a
variable asks for the key.

A location's realip runs in the preaccess phase, behind extraction: what was judged before it must not count.
"""

import random

import pytest

from harness.keys import make_key

WRONG = make_key(random.Random(7))
REALIP = "set_real_ip_from 127.0.0.1; real_ip_header X-Real-IP;"
EARLY = "set $early $apikey_owner; set $earlier $apikey_status;"


def location(upstream, *lines, path="/", optional=""):
    return (f'location {path} {{ {REALIP} apikey "api"{optional}; apikey_scope any; {" ".join(lines)} '
            f"proxy_pass {upstream.url}; }}")


def attempt(server, address, key, path="/"):
    return server.status(path, key=key, headers={"X-Real-IP": address})


@pytest.mark.parametrize("early", ["", EARLY], ids=["", "read early"])
def test_a_binding_judges_the_true_address(registry, nginx, upstream, early):
    key = registry.key("alice", "--allow-ip", "192.0.2.0/24")
    local = registry.key("bob", "--allow-ip", "127.0.0.1")
    server = nginx(location(upstream, early, 'add_header X-Status "$apikey_status $apikey_owner" always;'))
    for address, who, status in (("192.0.2.7", key, 200), ("192.0.3.7", key, 403), ("192.0.2.7", local, 403)):
        answer = server.get(key=who, headers={"X-Real-IP": address})
        assert answer.status_code == status, address
        shown = answer.headers["X-Status"].split()
        assert shown[0] == ("ok" if status == 200 else "wrong_address")
    assert [entry["outcome"] for entry in server.logged(3)] == ["ok", "wrong_address", "wrong_address"]


@pytest.mark.parametrize("early", ["", EARLY], ids=["", "read early"])
def test_block_all_judges_the_true_address(registry, nginx, upstream, early):
    good = registry.key()
    server = nginx(location(upstream, early, "apikey_fail_limit rate=1r/h burst=2 block=all;"))
    assert [attempt(server, "192.0.2.1", WRONG) for _ in range(3)] == [401, 401, 429]
    assert attempt(server, "192.0.2.1", good) == 429, "nobody is looked up any more for that address"
    assert attempt(server, "192.0.2.2", good) == 200
    assert attempt(server, "192.0.2.2", WRONG) == 401


def test_block_all_hides_the_key_it_does_not_look_up(registry, nginx, upstream):
    good = registry.key()
    server = nginx(location(upstream, "apikey_fail_limit rate=1r/h burst=1 block=all;", "error_page 429 = @other;")
                   + f"location @other {{ apikey off; proxy_pass {upstream.url}; }}")
    assert attempt(server, "192.0.2.1", WRONG) == 401
    upstream.requests.clear()
    attempt(server, "192.0.2.1", good)
    assert upstream.requests and not any(good.secret in request.text() for request in upstream.requests)


@pytest.mark.parametrize("early", ["", EARLY], ids=["", "read early"])
def test_a_limit_by_address_counts_the_true_address(registry, nginx, upstream, early):
    """Of the anonymous, where a variable is empty, and by the address as nginx gives it."""
    key = registry.key()
    server = nginx(location(upstream, early, "apikey_limit rate=1r/h;", path="/anonymous", optional=" optional")
                   + location(upstream, early, "apikey_limit rate=1r/h by=$arg_tenant;", path="/tenant")
                   + location(upstream, early and "set $a $remote_addr; set $b $binary_remote_addr;",
                              "apikey_limit rate=1r/h by=$remote_addr;", path="/text")
                   + location(upstream, early and "set $a $remote_addr; set $b $binary_remote_addr;",
                              "apikey_limit rate=1r/h by=$binary_remote_addr;", path="/binary"))
    for path, who in (("/anonymous", None), ("/tenant", key), ("/text", key), ("/binary", key)):
        assert [attempt(server, address, who, path) for address in ("192.0.2.1", "192.0.2.2", "192.0.2.1")] == \
            [200, 200, 429]
