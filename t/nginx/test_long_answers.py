"""Requests that take long do not hold back new snapshots, and are logged as who they were."""

import threading

import pytest

from harness.slow_upstream import SlowUpstream
from harness.waiting import wait_until

GENERATIONS = 12
MANY = 67  # more than a worker holds open at a time


HEADS = {
    "waiting-for-the-upstream": b"",
    "stream": b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\ndata: 1\n\n",
    "long-body": b"HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\nConnection: close\r\n\r\n" + b"x" * 4999996,
}


@pytest.mark.parametrize("kind", HEADS)
def test_a_revoked_key_is_refused_however_many_requests_are_in_progress(registry, nginx, kind):
    registry.plan("gold", rate="1000/h")
    count = MANY if kind == "waiting-for-the-upstream" else GENERATIONS
    keys = [registry.key(f"owner{i}", plan="gold", publish=False) for i in range(count)]
    victim = registry.key("victim")
    upstream = SlowUpstream(HEADS[kind])
    server = nginx(f"""
        apikey "api"; apikey_scope any;
        location /slow {{ proxy_pass {upstream.url}; proxy_buffering off; }}
        location /fast {{ return 200 "$apikey_status"; }}
        location /quick {{ apikey_verify; }}
    """, workers=1)
    threads, statuses = [], []
    for i, key in enumerate(keys):
        thread = threading.Thread(target=lambda key=key: statuses.append(server.status("/slow", key=key)))
        thread.start()
        threads.append(thread)
        wait_until(lambda i=i: upstream.waiting == i + 1, what="the upstream's turn")
        registry.key("next")
        assert server.status("/quick", key=victim) == 200
    registry.revoke(victim)
    assert server.status("/quick", key=victim) == 401
    is_full = "requests in progress still use" in server.error_log()
    assert is_full == (count == MANY), "there was room for all generations: the test tests nothing"
    upstream.finish()
    for thread in threads:
        thread.join(20)
    upstream.close()
    assert statuses == [200] * count
    logged = {(entry["id"], entry["owner"], entry["plan"], entry["outcome"], entry["limit"])
              for entry in server.logged(count) if entry["uri"] == "/slow"}
    assert logged == {(key.id, f"owner{i}", "gold", "ok", "1000") for i, key in enumerate(keys)}
