"""conf/examples/ai-gateway.conf in front of a stand-in that streams, fails, compresses and keeps its usage to itself: what
is left of the month is what the answers said, to the token.
"""

import gzip
import random
import threading

import pytest

from harness.chat import Chat, completion, cut, events
from harness.example import ExampleServer, make_keys
from harness.paths import REPOSITORY
from harness.waiting import wait_until

EXAMPLE = REPOSITORY / "conf" / "examples" / "ai-gateway.conf"
PATH = "/v1/chat/completions"
RESERVE, MONTH, REQUESTS, AT_ONCE = 40, 2_000_000, 60, 10


@pytest.fixture
def chat():
    server = Chat()
    yield server
    server.close()


class Gateway:
    """The example with its stand-in replaced by ours, and the key of its plan `team`."""

    def __init__(self, place, registry, nginx, chat):
        text = EXAMPLE.read_text()
        self.keys = make_keys(text, registry)
        self.registry = registry
        prefix = place / "gateway"
        prefix.mkdir()
        address = "http://unix:/run/chat-stand-in.sock"
        assert text.count(address) == 1
        self.server = ExampleServer(prefix, text.replace(address, chat.url), registry, chat.url)
        nginx.all.append(self.server)
        self.server.start()
        self.server.wait_for_generation(registry.generation())

    def headers(self, key="team"):
        return {"Authorization": f"Bearer {self.keys[key]}"}

    def ended(self) -> int:
        path = self.server.access_log_path
        return path.read_text().count(PATH) if path.exists() else 0

    def ask(self, key="team", **more):
        """One request; it is settled when its line is in the access log."""
        before = self.ended()
        answer = self.server.request("POST", PATH, headers={**self.headers(key), **more}, content=b'{"messages":[]}')
        wait_until(lambda: self.ended() > before, what="the line of the request in the access log")
        return answer

    def left(self, key="team") -> dict:
        limits = self.server.get("/whoami", headers=self.headers(key)).json()["limits"]
        return {limit["name"]: limit["remaining"] for limit in limits}


@pytest.fixture
def gateway(place, registry, nginx, chat):
    return Gateway(place, registry, nginx, chat)


def test_the_limits_of_a_team(gateway):
    assert gateway.left() == {"rate": REQUESTS, "tokens": 90_000, "tokens.month": MONTH, "concurrency": AT_ONCE}


def test_all_limits_are_settled(gateway, chat):
    chat.answer(completion(500))
    assert gateway.ask().status_code == 200
    left = gateway.left()
    assert left["tokens.month"] == MONTH - 500
    assert 90_000 - 500 <= left["tokens"] <= 90_000, "1500 tokens come back each second"
    assert left["concurrency"] == AT_ONCE


def plain(rng, chat):
    total = rng.randrange(0, 3000)
    chat.answer(completion(total))
    return total


def streamed(rng, chat):
    total = rng.randrange(0, 3000)
    chat.stream(cut(events(total, rng.choice(["\n", "\r\n", "\r"])), rng.choice([1, 3, 64, 5000])))
    return total


def compressed(rng, chat):
    chat.answer(gzip.compress(completion(999)), headers={"Content-Encoding": "gzip"})
    return RESERVE


def silent(rng, chat):
    body = rng.choice([completion(None), b'{"error":"busy"}', b"<html>usage</html>", b""])
    chat.answer(body)
    return RESERVE


def silent_stream(rng, chat):
    chat.stream(cut(events(None), 100))
    return RESERVE


def failed(rng, chat):
    chat.answer(completion(999), status=rng.choice([502, 503, 504]))
    return 0


def refused_by_the_model(rng, chat):
    chat.answer(b'{"error":{"message":"too long"},"usage":{"total_tokens":3}}', status=400)
    return 3


@pytest.mark.parametrize("seed", [1, 2])
def test_the_sum_of_a_day(gateway, chat, seed):
    rng = random.Random(seed)
    used, misses = 0, 0
    for _ in range(45):
        kind = rng.choice([plain, streamed, streamed, compressed, silent, silent_stream, failed, refused_by_the_model])
        used += kind(rng, chat)
        misses += kind in (compressed, silent, silent_stream)
        answer = gateway.ask()
        assert answer.status_code == chat.status
        assert gateway.left()["tokens.month"] == MONTH - used, kind.__name__
    assert gateway.server.metric("apikey_cost_misses_total") == misses
    assert gateway.server.metric("apikey_requests_total", outcome="ok") >= 45


def test_many_at_once(gateway, chat):
    chat.stream(cut(events(123), 50))
    before = gateway.ended()

    def client():
        for _ in range(5):
            assert gateway.server.request("POST", PATH, headers=gateway.headers()).status_code == 200

    threads = [threading.Thread(target=client) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_until(lambda: gateway.ended() == before + 40, what="40 lines in the access log")
    assert gateway.left()["tokens.month"] == MONTH - 40 * 123


def test_streams_at_once(gateway, chat):
    gate = threading.Event()
    start = events(25)[:30]
    chat.stream([start, gate, events(25)[30:]])
    streams = []
    try:
        for number in range(AT_ONCE):
            stream = gateway.server.stream("POST", PATH, headers=gateway.headers())
            answer = stream.__enter__()
            streams.append((stream, answer.iter_raw()))
            assert (answer.status_code, next(streams[-1][1])) == (200, start)
            assert gateway.left()["concurrency"] == AT_ONCE - number - 1
        refused = gateway.ask()
        assert (refused.status_code, refused.json()["status"]) == (429, 429)
        assert gateway.left()["tokens.month"] == MONTH - AT_ONCE * RESERVE, "the refused one has reserved nothing"
        gate.set()
        for _, rest in streams:
            b"".join(rest)
    finally:
        gate.set()
        for stream, _ in streams:
            stream.__exit__(None, None, None)
    wait_until(lambda: gateway.left()["concurrency"] == AT_ONCE, what="all streams ended")
    assert gateway.left()["tokens.month"] == MONTH - AT_ONCE * 25


def test_a_client_that_leaves_pays_the_reserve_and_frees_its_place(gateway, chat):
    gate = threading.Event()
    chat.stream([events(700)[:30], gate, *cut(events(700)[30:], 10)])
    with gateway.server.stream("POST", PATH, headers=gateway.headers()) as answer:
        seen = answer.iter_raw()
        next(seen)
        assert gateway.left()["concurrency"] == AT_ONCE - 1
    wait_until(lambda: gateway.ended() == 1, what="the end of the request")
    gate.set()
    wait_until(lambda: gateway.left()["concurrency"] == AT_ONCE, what="the place to be free")
    assert gateway.left()["tokens.month"] == MONTH - RESERVE


def test_the_end_of_a_month(gateway, chat):
    gateway.keys["small"] = gateway.registry.key("acme", quota="tokens.month=100/month").secret
    gateway.server.wait_for_generation(gateway.registry.generation())
    chat.answer(completion(90))
    assert [gateway.ask("small").status_code for _ in range(2)] == [200, 429], "10 are left and 40 are to be reserved"
    assert gateway.left("small")["tokens.month"] == 10


def test_the_last_answer_of_a_month_may_go_below_nothing(gateway, chat):
    gateway.keys["small"] = gateway.registry.key("acme", quota="tokens.month=100/month").secret
    gateway.server.wait_for_generation(gateway.registry.generation())
    chat.answer(completion(5000))
    assert [gateway.ask("small").status_code for _ in range(3)] == [200, 429, 429]
    gateway.registry.run("key", "set", gateway.registry.json("find", stdin=gateway.keys["small"])["id"],
                         "--quota", "tokens.month=5100/month")
    gateway.server.wait_for_generation(gateway.registry.generation())
    assert gateway.left("small")["tokens.month"] == 100, "5000 were used, not 100"
    chat.answer(completion(1))
    assert gateway.ask("small").status_code == 200


def test_minutes_are_counted_in_requests(gateway, chat):
    chat.answer(completion(1))
    statuses = [gateway.server.request("POST", PATH, headers=gateway.headers()).status_code
                for _ in range(REQUESTS + 3)]
    assert statuses[:REQUESTS] == [200] * REQUESTS and 429 in statuses[REQUESTS:]
