"""A file that is no good snapshot is refused with a sentence and counted; the last good one stays in service."""

import os

import pytest

from harness.store import LOCATION, PAGE, flip, reseal

# What becomes of a good, newer snapshot; how the refusal is counted; what the log says of it.
BAD = {
    "cut in half": (lambda data: data[:len(data) // 2], "damaged", "seal"),
    "one page short": (lambda data: data[:-PAGE], "damaged", "seal"),
    "a few bytes": (lambda data: data[:100], "damaged", ""),
    "one bit flipped": (lambda data: flip(data, len(data) // 2), "damaged", "SHA-256"),
    "a bit of the seal flipped": (lambda data: flip(data, len(data) - PAGE + 30), "damaged", "SHA-256"),
    "a page of zeros, sealed again": (lambda data: reseal(data[:3 * PAGE] + bytes(PAGE) + data[4 * PAGE:]), "damaged",
                                      ""),
    "all zeros": (lambda data: bytes(len(data)), "damaged", ""),
    "noise": (lambda data: os.urandom(len(data)), "damaged", ""),
    "text": (lambda data: b"key,owner\n" * 1000, "damaged", ""),
    "another format version": (lambda data: reseal(data, version=99), "unsupported", "99"),
}


@pytest.mark.parametrize("name", BAD)
def test_the_last_good_one_stays(nginx, store, made, name):
    spoil, result, sentence = BAD[name]
    store.put(made.snapshots[0])
    server = nginx(LOCATION, store=store.path)
    server.wait_for_generation(made.number(0))
    before = server.workers()

    store.put(spoil(made.snapshots[1]))
    server.wait_for_log(rf"is not taken: .*{sentence}.*; generation {made.number(0)} stays active")
    assert server.metric("apikey_snapshot_adoptions_total", result=result) == 1
    assert server.metric("apikey_snapshot_generation") == made.number(0)
    assert [server.status(key=made.keys[0]) for _ in range(6)] == [200] * 6
    assert server.status(key=made.keys[1]) == 401, "nothing of the refused file is in service"

    store.put(made.snapshots[2])
    server.wait_for_generation(made.number(2))
    assert server.status(key=made.keys[1]) == 200
    assert server.workers() == before, "a worker died"


@pytest.mark.parametrize("name", BAD)
def test_a_start_with_it_answers_503(nginx, store, made, name):
    store.put(BAD[name][0](made.snapshots[0]))
    server = nginx(LOCATION, store=store.path)
    server.wait_for_log("is not taken: .*; there is no active snapshot")
    answer = server.get(key=made.keys[0])
    assert answer.status_code == 503 and int(answer.headers["Retry-After"]) >= 1
    store.put(made.snapshots[1])
    server.wait_for_generation(made.number(1))
    assert server.status(key=made.keys[0]) == 200


def test_it_is_refused_once(nginx, store, made):
    store.put(made.snapshots[0])
    server = nginx(LOCATION, store=store.path, workers=3)
    server.wait_for_generation(made.number(0))
    store.put(made.snapshots[1][:5000])
    server.wait_for_log("is not taken")
    store.put(made.snapshots[1])  # by the time this is in service, every worker has looked at the bad one
    server.wait_for_generation(made.number(1))
    assert server.error_log().count("is not taken") == 1
    assert server.metric("apikey_snapshot_adoptions_total", result="damaged") == 1


def test_a_missing_file(nginx, store, made):
    store.put(made.snapshots[0])
    server = nginx(LOCATION, store=store.path)
    server.wait_for_generation(made.number(0))
    store.path.unlink()
    server.wait_for_log(rf"has vanished; generation {made.number(0)} stays active")
    assert server.status(key=made.keys[0]) == 200
    store.put(made.snapshots[1])
    server.wait_for_generation(made.number(1))


def test_an_empty_file_is_one_nobody_has_written_yet(nginx, store, made):
    store.put(b"")
    server = nginx(LOCATION, store=store.path)
    server.wait_for_log("there is no snapshot yet")
    assert server.status(key=made.keys[0]) == 503
    store.put(made.snapshots[0])
    server.wait_for_generation(made.number(0))


def test_an_older_one(nginx, store, made):
    store.put(made.snapshots[1])
    server = nginx(LOCATION, store=store.path)
    server.wait_for_generation(made.number(1))
    store.put(made.snapshots[0])
    server.wait_for_log(f"generation {made.number(0)} is not higher than generation {made.number(1)}")
    assert server.metric("apikey_snapshot_adoptions_total", result="refused") == 1
    assert server.status(key=made.keys[1]) == 200


def test_the_same_content_again_changes_nothing(nginx, store, made):
    store.put(made.snapshots[0])
    server = nginx(LOCATION, store=store.path)
    server.wait_for_generation(made.number(0))
    store.put(made.snapshots[0])
    store.put(made.snapshots[1])
    server.wait_for_generation(made.number(1))
    assert "is not taken" not in server.error_log()
