"""A revoked key is refused by every worker within 100 ms of the command's return, with 100,000 keys and no reload."""

import random
import statistics
import threading
import time

import httpx
import pytest

from harness.keys import make_key
from harness.waiting import wait_until

COUNT = 100_000
WORKERS = 4
ROUNDS = 7
BOUND_S = 0.100
WORST_S = 0.500  # a single round may meet a busy machine; a look once a second would not pass


class Watcher:
    """One kept-alive connection to one worker, asking with one key again and again."""

    def __init__(self, client, worker):
        self.client, self.worker = client, worker
        self.answers = []  # (when the request was sent, status)

    def ask(self, secret):
        sent = time.monotonic()
        answer = self.client.get("/", headers={"X-API-Key": secret})
        assert answer.headers["X-Worker"] == self.worker, "the connection moved to another worker"
        self.answers.append((sent, answer.status_code))
        return answer.status_code

    def ask_until_refused(self, secret):
        deadline = time.monotonic() + 20
        while self.ask(secret) == 200 and time.monotonic() < deadline:
            time.sleep(0.005)


def connect_to_every_worker(server):
    found = {}

    def one_more():
        client = httpx.Client(base_url=server.url, trust_env=False, timeout=20,
                              limits=httpx.Limits(keepalive_expiry=None))  # a new connection may go to another worker
        worker = client.get("/").headers["X-Worker"]
        if worker in found:
            client.close()
        else:
            found[worker] = Watcher(client, worker)
        return len(found) == WORKERS

    wait_until(one_more, 30, "a connection to every worker")
    return list(found.values())


@pytest.fixture
def many_keys(registry, place):
    rng = random.Random(3)
    path = place / "keys.csv"
    path.write_text("key,owner\n" + "".join(f"{make_key(rng)},owner{n % 100}\n" for n in range(COUNT)))
    registry.run("import", path, "--format", "csv", "--create-owners", timeout=300)


def test_live_at_every_worker_within_the_bound(registry, nginx, place, many_keys):
    (place / "index.html").write_text("ok")
    keys = [registry.key("leaver") for _ in range(ROUNDS)]
    server = nginx(f"""
        root {place}; keepalive_requests 1000000; access_log off;
        location / {{ apikey "api"; apikey_scope any; add_header X-Worker $pid always; }}
    """, workers=WORKERS, listen=" reuseport")
    watchers = connect_to_every_worker(server)
    processes = server.workers()
    latencies = []
    for key in keys:
        assert [watcher.ask(key.secret) for watcher in watchers] == [200] * WORKERS
        threads = [threading.Thread(target=watcher.ask_until_refused, args=(key.secret,)) for watcher in watchers]
        for thread in threads:
            thread.start()
        registry.revoke(key)
        returned = time.monotonic()
        for thread in threads:
            thread.join(30)
        late = [sent - returned for watcher in watchers for sent, status in watcher.answers if status == 200]
        latencies.append(max(late))
        for watcher in watchers:
            assert watcher.answers[-1][1] == 401
            watcher.answers.clear()
    for watcher in watchers:
        watcher.client.close()
    assert server.workers() == processes, "no worker was replaced"
    assert statistics.median(latencies) < BOUND_S, f"last answer 200 after the command's return: {latencies} s"
    assert max(latencies) < WORST_S, f"last answer 200 after the command's return: {latencies} s"
