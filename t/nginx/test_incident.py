"""keyloader why, and the receipt of a revocation, against a real nginx."""

import json
import re
import threading

import pytest

from harness.example import apikey_log
from harness.slow_upstream import SlowUpstream
from harness.waiting import wait_until


@pytest.fixture
def slow():
    server = SlowUpstream()
    yield server
    server.close()


def rows(text):
    return dict(re.split(r"  +", part, maxsplit=1) for part in text.splitlines())


@pytest.fixture
def log(place):
    return place / "apikey.log"


def wait_for(log, instance):
    wait_until(lambda: log.exists() and instance in log.read_text(), what="the line of the request")


def test_from_the_body_of_a_refusal_to_who_caused_it(registry, nginx, log):
    key = registry.key("acme", name="till 4", scope="orders:read")
    server = nginx('location /orders { apikey "api"; apikey_scope orders:read; empty_gif; }', http=apikey_log(log))
    registry.revoke(key, "--reason", "leak")
    server.wait_for_generation(registry.generation())
    instance = server.get("/orders", key=key).json()["instance"]
    wait_for(log, instance)
    for path in (log, server.error_log_path):
        said = rows(registry.run("why", instance, "--log", path).stdout)
        assert said["key"] == f'{key.id} of acme, "till 4"'
        assert said["location"] == "/orders"
        assert said["cause"].startswith("revoked by ") and said["cause"].endswith(", reason: leak")
    said = registry.json("why", instance, "--log", log)
    assert said["generation"] == str(registry.generation()) and said["status"] == "401"
    assert said["cause"]["object"] == key.id


def test_what_is_no_key_of_the_registry(registry, nginx, log):
    registry.key()
    server = nginx('location / { apikey "api"; apikey_scope any; empty_gif; }', http=apikey_log(log))
    secret = "ak_live_not-a-key-of-anybody"
    instance = server.get(key=secret).json()["instance"]
    wait_for(log, instance)
    for path in (log, server.error_log_path):
        done = registry.run("why", instance, "--log", path)
        assert rows(done.stdout)["key"] == "none of the registry was presented"
        assert secret not in done.stdout + done.stderr


@pytest.mark.parametrize("concurrency", ["5", None])
def test_the_receipt_of_a_revocation(registry, nginx, slow, concurrency):
    key = registry.key("acme", **({"concurrency": concurrency} if concurrency else {}))
    other = registry.key("acme", concurrency="5")
    server = nginx(f'location / {{ apikey "api"; apikey_scope any; proxy_pass {slow.url}; }}')
    answers = []
    asking = [threading.Thread(target=lambda each=each: answers.append(server.status(key=each)))
              for each in (key, key, other)]
    for thread in asking:
        thread.start()
    wait_until(lambda: slow.waiting == 3, what="the requests at the upstream")
    try:
        said = json.loads(registry.run("key", "revoke", key.id, "--wait", "30s", "--json").stdout)
        again = registry.run("key", "revoke", key.id, "--wait", "30s").stdout
        assert server.status(key=key) == 401
    finally:
        slow.finish()
        for thread in asking:
            thread.join()
    assert answers == [200] * 3, "what began before ends as usual"
    assert said["active"] is True
    receipt = said["receipt"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", receipt["refused_since"])
    name = f"nginx (pid {server.master})"
    assert receipt["nginx"] == [{"nginx": name, "running": 2 if concurrency else None}]
    assert receipt["not_counted"] == ([] if concurrency else [key.id])
    lines = again.splitlines()
    if concurrency:
        assert re.fullmatch(rf"no new request with it is let in since \S+Z; 2 that began before are still running in "
                            rf"{re.escape(name)}", lines[-1])
    else:
        assert re.fullmatch(r"no new request with it is let in since \S+Z", lines[-2])
        assert lines[-1] == ("requests that began before may still be running: nginx counts those in flight only of "
                             "keys with a limit of concurrency")
    # When they have ended, the receipt says so.
    if concurrency:
        def none_left():
            done = registry.run("key", "revoke", key.id, "--wait", "30s", "--json")
            return json.loads(done.stdout)["receipt"]["nginx"][0]["running"] == 0
        wait_until(none_left, what="the end of the requests")


def test_no_receipt_where_nothing_is_active(registry):
    key = registry.key()
    done = registry.run("key", "revoke", key.id, "--wait", "1s", "--json", check=False)
    assert done.returncode == 3 and "receipt" not in json.loads(done.stdout)
