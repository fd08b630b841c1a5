"""Usage for billing, with a real nginx: every client request of a recognised key is counted once, whatever happens to
nginx; apikey_usage answers on unix sockets only; keyloader collects what was counted."""

import json
import os
import random
import signal
import threading

import httpx
import pytest

from harness.keys import make_key
from harness.slow_upstream import SlowUpstream
from harness.state import StateDir, state_file
from harness.waiting import wait_until

HOUR = 3600
LOCATIONS = """
location / { apikey "api"; apikey_scope any; empty_gif; }
location /orders { apikey "api"; apikey_scope orders:read; empty_gif; }
"""


class Billing:
    """An nginx with apikey_usage where keyloader looks for it."""

    def __init__(self, nginx, registry, locations=LOCATIONS, **parts):
        self.registry = registry
        self.socket = registry.dir / "usage.sock"
        listening = f"server {{ listen unix:{self.socket}; access_log off; location = /usage {{ apikey_usage; }} }}"
        parts["http"] = parts.get("http", "") + listening
        self.server = nginx(locations, **parts)

    def ask(self, method="GET", query=""):
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(self.socket)), trust_env=False) as client:
            return client.request(method, f"http://localhost/usage{query}", timeout=10)

    def lines(self, query=""):
        answer = self.ask(query=query)
        assert answer.status_code == 200, answer.text
        assert answer.headers["Content-Type"] == "application/x-ndjson"
        return [json.loads(line) for line in answer.text.splitlines()]

    def head(self):
        return self.lines()[0]

    def counted(self, name="admitted", query="", **of):
        rows = [line for line in self.lines(query) if "row" in line]
        return sum(row.get(name, 0) for row in rows if of.items() <= row.items())

    def wait_for(self, count, name="admitted", **of):
        """Requests are counted after their answer is sent."""
        wait_until(lambda: self.counted(name, **of) == count, what=f"{name} of {count}")

    def usage(self, *arguments):
        return self.registry.json("usage", *arguments)


@pytest.fixture
def billing(registry, nginx):
    registry.key("nobody")
    return Billing(nginx, registry)


def test_what_is_counted_and_what_is_not(registry, nginx):
    registry.plan("slow", rate="1/h", burst=2)
    good, test, slow = registry.key(scope="orders:read"), registry.key(env="test"), registry.key(plan="slow")
    revoked = registry.key()
    registry.revoke(revoked)
    billing = Billing(nginx, registry)
    server = billing.server
    for path, key, status, times in [
            ("/", good, 200, 3), ("/orders", good, 200, 2), ("/orders", test, 403, 4), ("/orders", slow, 403, 1),
            ("/", slow, 200, 2), ("/", slow, 429, 3), ("/", revoked, 401, 5), ("/", None, 401, 2),
            ("/", "ak_live_wrong", 401, 2)]:
        assert [server.status(path, key=key) for _ in range(times)] == [status] * times
    billing.wait_for(5, key=good.id)
    billing.wait_for(5, "refused_revoked", key=revoked.id)
    assert billing.counted(key=slow.id) == 2
    assert billing.counted("refused_rate_limited", key=slow.id) == 3
    assert billing.counted("refused_scope", key=slow.id) == 1
    assert billing.counted("refused_wrong_environment", key=test.id) == 4
    assert billing.counted() == billing.counted("cost") == 7
    assert billing.counted("refunded") == 0
    assert {line["key"] for line in billing.lines() if "row" in line} == {good.id, test.id, slow.id, revoked.id}


def test_bytes_and_upstream_seconds(registry, nginx, upstream):
    key = registry.key()
    billing = Billing(nginx, registry, 'location / { apikey "api"; apikey_scope any; proxy_pass %s; '
                      'add_header X-Padding "%s"; }' % (upstream.url, "x" * 500))
    upstream.answers["/long"] = (200, {}, b"y" * 100_000)
    received = 0
    for path in ("/", "/long"):
        connection = billing.server.raw(f"GET {path} HTTP/1.0\r\nX-API-Key: {key.secret}\r\n\r\n".encode())
        received += len(connection)
    billing.wait_for(2)
    assert billing.counted("bytes") == received > 100_500
    assert 0 <= billing.counted("upstream_us") < 20_000_000


def test_an_internal_redirect_and_a_subrequest_are_one_request(registry, nginx):
    key = registry.key()
    billing = Billing(nginx, registry, """
        location / { apikey "api"; apikey_scope any; try_files /absent /elsewhere; }
        location /elsewhere { apikey "api"; apikey_scope any; empty_gif; }
        location = /verify { internal; apikey "api"; apikey_scope any; apikey_verify; }
        location /asked { auth_request /verify; empty_gif; }
    """)
    assert billing.server.status("/x", key=key) == 200
    billing.wait_for(1)
    assert billing.server.status("/asked", key=key) == 200
    billing.wait_for(2)


def test_what_a_page_includes_does_not_change_what_it_costs(registry, nginx, place, upstream):
    key = registry.key()
    (place / "html").mkdir()
    (place / "html" / "page").write_text('<!--# include virtual="/verify" --><!--# include virtual="/me" -->')
    upstream.answers["/told"] = (200, {"X-Tokens": "70"}, (place / "html" / "page").read_bytes())
    billing = Billing(nginx, registry, f"""
        root {place}/html; ssi on; ssi_types *; apikey "api"; apikey_scope any;
        location = /page {{ apikey_cost 600; }}
        location = /told {{ apikey_cost 600 response=$upstream_http_x_tokens; proxy_pass {upstream.url}; }}
        location = /verify {{ apikey_verify; }}
        location = /me {{ apikey_whoami; }}
    """)
    assert billing.server.status("/page", key=key) == 200
    billing.wait_for(1)
    assert billing.counted("cost") == 600
    assert billing.server.status("/told", key=key) == 200
    billing.wait_for(2)
    assert billing.counted("cost") == 670


def test_whoami_is_free(registry, nginx):
    key = registry.key()
    billing = Billing(nginx, registry, """
        location / { apikey "api"; apikey_scope any; apikey_cost 1; empty_gif; }
        location = /me { apikey "api"; apikey_scope any; apikey_whoami; }
        location = /dear-me { apikey "api"; apikey_scope any; apikey_cost 100; apikey_whoami; }
        location = /asked { auth_request /me; empty_gif; }
    """)
    for path in ["/me"] * 7 + ["/"] * 2 + ["/dear-me", "/asked"]:
        assert billing.server.status(path, key=key) == 200
    billing.wait_for(11)
    assert billing.counted("cost") == 2


def test_what_dry_run_would_refuse_is_admitted(registry, nginx):
    registry.plan("slow", rate="1/h", burst=1)
    key = registry.key(plan="slow")
    billing = Billing(nginx, registry, 'location / { apikey "api"; apikey_scope any; apikey_dry_run on; empty_gif; }')
    assert [billing.server.status(key=key) for _ in range(3)] == [200] * 3
    billing.wait_for(3)
    assert billing.counted("refused_rate_limited") == 0


def test_what_was_charged_in_the_end_and_what_was_given_back(registry, nginx, upstream):
    key = registry.key()
    billing = Billing(nginx, registry, f"""
        location / {{ apikey "api"; apikey_scope any; proxy_pass {upstream.url};
                      apikey_cost 100 response=$upstream_http_x_tokens of=tokens; apikey_cost 1; apikey_refund 502; }}
        location /free {{ apikey "api"; apikey_scope any; apikey_cost 0; empty_gif; }}
    """)
    for path, status, tokens in (("/a", 200, "7"), ("/b", 200, "12345"), ("/c", 200, "no number"), ("/d", 502, "9")):
        upstream.answers[path] = (status, {"X-Tokens": tokens}, b"")
        assert billing.server.status(path, key=key) == status
    assert billing.server.status("/free", key=key) == 200
    billing.wait_for(5)
    assert billing.counted("cost") == 7 + 12345 + 100 + 100
    assert billing.counted("refunded") == 100


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_only_unix_sockets_are_answered(registry, nginx, method):
    registry.key()
    server = nginx("location = /usage { apikey_usage; }")
    assert server.request(method, "/usage").status_code == 403
    assert server.error_log().count("apikey_usage answers on unix sockets only") == 1


def test_methods_and_arguments(billing):
    assert billing.ask("HEAD").status_code == 200 and billing.ask("HEAD").content == b""
    for method in ("PUT", "DELETE", "OPTIONS"):
        assert billing.ask(method).status_code == 405
    for query in ("?from=", "?from=x", "?from=-1", "?to=1", "?from=1&x=2", "?from=99999999999999999999"):
        answer = billing.ask(query=query)
        assert answer.status_code == 400 and "from=<slot>" in answer.json()["error"]
    assert [len(billing.lines(query)) for query in ("?from=0", "?from=18446744073709551615")] == [2, 2]


def test_an_hour_that_may_still_be_counted_in_is_not_forgotten(billing, registry):
    key = registry.key()
    billing.server.wait_for_generation(registry.generation())
    assert billing.server.status(key=key) == 200
    billing.wait_for(1)
    instance, now = billing.head()["instance"], billing.head()["now"]
    this_hour = now // HOUR * HOUR
    for hour in (this_hour, this_hour + HOUR, (now - 600) // HOUR * HOUR):
        answer = billing.ask("POST", f"?acknowledge={instance}:{hour}")
        assert answer.status_code == 409 and "ten minutes" in answer.json()["error"]
    answer = billing.ask("POST", f"?acknowledge={'0' * 32}:{this_hour - 5 * HOUR}")
    assert answer.status_code == 409 and "another instance" in answer.json()["error"]
    for query in ("", "?acknowledge=", f"?acknowledge={instance}", f"?acknowledge={instance}:",
                  f"?acknowledge={instance}:{this_hour - HOUR + 1}", f"?acknowledge={instance[1:]}:0",
                  f"?acknowledge=x{instance[1:]}:0", f"?acknowledge={instance}:-3600", f"?from={instance}:3600"):
        assert billing.ask("POST", query).status_code == 400, query
    last = (now - 600) // HOUR * HOUR - HOUR
    for _ in range(2):
        answer = billing.ask("POST", f"?acknowledge={instance}:{last}")
        assert answer.status_code == 200 and answer.json() == {"acknowledged_to": last + HOUR}
    assert billing.head()["acknowledged_to"] == last + HOUR
    assert billing.counted() == 1


def test_a_table_larger_than_one_answer(registry, nginx):
    rng = random.Random(1)
    keys = [make_key(rng) for _ in range(1100)]
    lines = "".join(json.dumps({"key": key, "owner": "many", "scopes": ["a:b"]}) + "\n" for key in keys)
    registry.run("import", "-", "--format", "ndjson", "--create-owners", stdin=lines)
    billing = Billing(nginx, registry)
    served = 0
    for begin in range(0, 1100, 100):
        pipeline = "".join(f"GET / HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\n\r\n" for key in keys[begin:begin + 99])
        last = f"GET / HTTP/1.0\r\nX-API-Key: {keys[begin + 99]}\r\n\r\n"
        served += billing.server.raw((pipeline + last).encode()).count(b"200 OK")
    assert served == 1100
    first = billing.lines()
    assert first[-1]["rows"] == 1000
    wait_until(lambda: billing.counted() + billing.counted(query=f"?from={billing.lines()[-1]['next']}") == 1100)
    shown = billing.usage()
    assert shown["total"]["admitted"] == len(shown["keys"]) == 1100


def test_metrics(billing, registry):
    server = billing.server
    assert server.metric("apikey_usage_slots") > 10_000
    assert server.metric("apikey_usage_slots_used") == server.metric("apikey_usage_overflow_total") == 0
    key = registry.key()
    server.wait_for_generation(registry.generation())
    server.status(key=key)
    wait_until(lambda: server.metric("apikey_usage_slots_used") == 1)


class Load:
    """Requests by several threads until it is told to stop; `admitted` says for certain how many were answered."""

    def __init__(self, server, keys, threads=4):
        self.server, self.keys = server, keys
        self.answered = {key.id: 0 for key in keys}
        self.unsure = 0
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(threads)]
        for thread in self._threads:
            thread.start()

    def _run(self, n):
        rng = random.Random(n)
        while not self._stop.is_set():
            key = rng.choice(self.keys)
            try:
                status = self.server.status(key=key)
            except httpx.HTTPError:
                with self._lock:
                    self.unsure += 1
                continue
            assert status == 200
            with self._lock:
                self.answered[key.id] += 1

    def total(self):
        with self._lock:
            return sum(self.answered.values())

    def wait_for(self, more):
        until = self.total() + more
        wait_until(lambda: self.total() >= until, 30, "requests")

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_exact_over_workers_reloads_and_collections(registry, nginx):
    keys = [registry.key("acme" if n % 2 else "zeta") for n in range(6)]
    billing = Billing(nginx, registry, workers=4)
    load = Load(billing.server, keys)
    for _ in range(3):
        load.wait_for(100)
        billing.server.reload(wait_for_old=False)
        billing.usage("collect")
    load.wait_for(100)
    load.stop()
    billing.wait_for(load.total() + load.unsure)
    assert load.unsure == 0
    shown = billing.usage()
    assert {line["key"]: line["admitted"] for line in shown["keys"]} == load.answered
    owners = {line["owner"]: line["admitted"] for line in shown["owners"]}
    assert owners == {owner: sum(load.answered[key.id] for key in keys[start::2])
                      for owner, start in (("zeta", 0), ("acme", 1))}
    assert billing.head()["gaps"] == []


def test_requests_that_outlive_many_snapshots_are_counted_for_their_owner(registry, nginx):
    """Those that take long have to let go of the snapshot in which their key was found."""
    keys = [registry.key(f"owner{n}", publish=False) for n in range(12)]
    registry.key("other")
    upstream = SlowUpstream()
    billing = Billing(nginx, registry, f"""
        location / {{ apikey "api"; apikey_scope any; proxy_pass {upstream.url}; }}
        location /quick {{ apikey "api"; apikey_scope any; apikey_verify; }}
    """, workers=1)
    threads = []
    for n, key in enumerate(keys):
        threads.append(threading.Thread(target=billing.server.status, kwargs={"key": key}))
        threads[-1].start()
        wait_until(lambda n=n: upstream.waiting == n + 1, what="the upstream's turn")
        fresh = registry.key("other")
        wait_until(lambda key=fresh: billing.server.status("/quick", key=key) == 200, what="the new snapshot")
    upstream.finish()
    for thread in threads:
        thread.join()
    owners = {f"owner{n}": 1 for n in range(12)}
    wait_until(lambda: {**owners, "other": 12}.items() <= {
        line["owner"]: line["admitted"] for line in billing.usage()["owners"]}.items(), what="all owners' requests")
    upstream.close()


def test_a_restart_keeps_counts_and_instance(registry, billing):
    key = registry.key()
    billing.server.wait_for_generation(registry.generation())
    assert [billing.server.status(key=key) for _ in range(5)] == [200] * 5
    billing.wait_for(5)
    before = billing.head()
    billing.server.quit()
    billing.server.start()
    billing.server.wait_for_generation(registry.generation())
    after = billing.head()
    assert (after["instance"], after["created"], after["gaps"]) == (before["instance"], before["created"], [])
    assert billing.server.status(key=key) == 200
    billing.wait_for(6)
    assert billing.usage()["total"]["admitted"] == 6


def test_a_kill_of_every_process(registry, nginx):
    keys = [registry.key() for _ in range(4)]
    billing = Billing(nginx, registry, workers=4)
    before = billing.head()
    answered = unsure = 0
    for _ in range(3):
        load = Load(billing.server, keys)
        load.wait_for(100)
        billing.server.kill_all()
        billing.socket.unlink()
        load.stop()
        answered, unsure = answered + load.total(), unsure + load.unsure
        billing.server.start()
    # What was answered is counted, but for what each killed worker had not got to yet.
    assert answered - 3 * 4 <= billing.counted() <= answered + unsure
    assert billing.usage()["total"]["admitted"] == billing.counted()
    assert (billing.head()["instance"], billing.head()["gaps"]) == (before["instance"], [])


def cut_the_power(billing):
    billing.server.kill_all()
    billing.socket.unlink()
    state_file(billing.server.pid_path).unlink()


def spend(billing, key, count):
    before = billing.counted()
    assert [billing.server.status(key=key) for _ in range(count)] == [200] * count
    billing.wait_for(before + count)


def test_a_power_cut_takes_nothing_that_was_saved_or_collected(registry, nginx, place):
    state = StateDir(place)
    key = registry.key()
    billing = Billing(nginx, registry, http=f"apikey_zone zone=apikey:2m state={state.dir};")
    instance = billing.head()["instance"]
    spend(billing, key, 20)
    state.wait_for_save(billing.server)
    cut_the_power(billing)
    billing.server.start()
    billing.server.wait_for_generation(registry.generation())
    assert billing.head()["instance"] == instance and len(billing.head()["gaps"]) == 1
    spend(billing, key, 3)
    assert billing.usage()["total"]["admitted"] == 23
    # Collected, but not saved any more: it is neither lost nor, counted in new rows from now on, doubled.
    spend(billing, key, 5)
    assert billing.usage()["total"]["admitted"] == 28
    cut_the_power(billing)
    billing.server.start()
    billing.server.wait_for_generation(registry.generation())
    spend(billing, key, 2)
    shown = billing.usage()
    assert shown["total"]["admitted"] == 30
    # Two cuts within one second leave the same window.
    assert {doubt["kind"] for doubt in shown["may_be_short"]} == {"restored", "incomplete"}


def test_without_a_checkpoint_the_loss_is_told(registry, nginx):
    key = registry.key()
    billing = Billing(nginx, registry)
    spend(billing, key, 5)
    billing.usage("collect")
    instance = billing.head()["instance"]
    cut_the_power(billing)
    billing.server.start()
    billing.server.wait_for_generation(registry.generation())
    assert billing.head()["instance"] != instance
    spend(billing, key, 2)
    shown = billing.usage()
    assert shown["total"]["admitted"] == 7
    assert [doubt["kind"] for doubt in shown["may_be_short"]] == ["replaced", "incomplete"]


@pytest.mark.parametrize("sizes", [("2m", "4m"), ("4m", "2m")], ids=["larger", "smaller"])
def test_another_size_carries_counts_over(registry, nginx, sizes):
    key = registry.key()
    billing = Billing(nginx, registry, http=f"apikey_zone zone=apikey:{sizes[0]};")
    spend(billing, key, 4)
    billing.usage("collect")
    changed = billing.server.parts["http"].replace(f"apikey:{sizes[0]}", f"apikey:{sizes[1]}")
    billing.server.reload(http=changed)
    spend(billing, key, 3)
    assert billing.usage()["total"]["admitted"] == 7


def test_a_killed_worker_loses_no_more_than_what_it_had_not_answered(registry, nginx):
    keys = [registry.key() for _ in range(3)]
    billing = Billing(nginx, registry, workers=4)
    billing.server.allow_log("exited on signal 9")
    load = Load(billing.server, keys)
    killed = 0
    for _ in range(4):
        load.wait_for(80)
        workers = billing.server.workers()
        os.kill(workers[0], signal.SIGKILL)
        killed += 1
        wait_until(lambda old=workers: len(set(billing.server.workers()) - {old[0]}) == 4, what="another worker")
    load.stop()
    answered = load.total()
    # A request is counted right after its answer was sent: one of each killed worker may have been caught in between.
    wait_until(lambda: billing.counted() >= answered - killed, what="all counts")
    assert answered - killed <= billing.counted() <= answered + load.unsure


def test_collecting_from_node_memory_asks_nginx_to_forget(billing, registry):
    """Only nginx's own processes write its counts; keyloader's wish lies in the inbox."""
    assert billing.head()["acknowledged_to"] == 0
    done = registry.run("usage", "collect")
    assert "from nginx (pid" in done.stdout
    wait_until(lambda: billing.head()["acknowledged_to"] > 0, what="that nginx forgets what was collected")
    now = billing.head()["now"]
    assert billing.head()["acknowledged_to"] in {(at - 600) // HOUR * HOUR for at in (now - 60, now)}
