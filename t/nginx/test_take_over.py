"""The way back: another registry, another history or a lower generation is taken by a permission for that very file,
once, and what nginx knew before a restart still holds. A refusal is kept with all that says why."""

import time

import pytest

from harness.state import StateDir, grant, state_file, store_row
from harness.store import LOCATION, Generations, Store
from harness.written import OTHER_REGISTRY, REGISTRY, Written, make_keys

COMMAND = "keyloader publish --take-over --reason"
SEAL = slice(-4096 + 24, -4096 + 56)


@pytest.fixture
def store(place):
    return Store(place)


@pytest.fixture
def written(place):
    return Written(place)


def node_store(server):
    return store_row(state_file(server.pid_path))


def serve(nginx, store, **parts):
    server = nginx(LOCATION, store=store.path, workers=3, **parts)
    server.wait_for_generation(1)
    return server


def statuses(server, keys):
    return [{server.status(key=key) for _ in range(6)} for key in keys]


OTHERS = {
    "another registry": lambda written, keys: (written(3, keys[2:4], registry=OTHER_REGISTRY), OTHER_REGISTRY, 3),
    "a lower generation": lambda written, keys: (written(4, keys[2:4], counters=(9, 7)), REGISTRY, 4),
    "another history": lambda written, keys: (written(9, keys[2:4], counters=(3, 1)), REGISTRY, 9),
}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("name", OTHERS)
def test_by_a_permission(nginx, store, written, name, when):
    keys = make_keys(6)
    store.put(written(8, keys[:2], counters=(8, 6)))
    server = serve(nginx, store)
    other, registry, generation = OTHERS[name](written, keys)
    if when == "after":  # the very same file is looked at again
        store.put(other)
        server.wait_for_log(f"is not taken: .*{COMMAND}.*; generation 8 stays active")
        assert statuses(server, keys[1:3]) == [{200}, {401}]
    grant(server.pid_path, other[SEAL], registry, generation)
    if when == "before":
        store.put(other)
    server.wait_for_log(f"generation {generation} with 2 keys is active, .*by a permission")
    assert statuses(server, keys[1:4]) == [{401}, {200}, {200}]
    assert server.metric("apikey_snapshot_adoptions_total", result="taken_over") == 1
    adopted = node_store(server).adopted
    assert (adopted["registry"], adopted["highest"]) == (registry, generation)
    # From here on this is the registry, the history and the generation to follow.
    counters = {"counters": (adopted["active"]["added"] + 1, adopted["active"]["removed"])} if registry == REGISTRY else {}
    store.put(written(generation + 1, keys[2:5], registry=registry, **counters))
    server.wait_for_generation(generation + 1)
    assert statuses(server, [keys[4]]) == [{200}]


def test_a_permission_is_for_one_file_and_once(nginx, store, written):
    keys = make_keys(4)
    store.put(written(8, keys[:2]))
    server = serve(nginx, store)
    first, second = (written(3, keys[2:], registry=OTHER_REGISTRY, **extra) for extra in ({}, {"k0": {"expires": 2**32}}))
    grant(server.pid_path, first[SEAL], OTHER_REGISTRY, 3)
    store.put(second)
    server.wait_for_log("is not taken: .*another registry")
    assert statuses(server, [keys[2]]) == [{401}]
    store.put(first)
    server.wait_for_log("by a permission")
    back = written(9, keys[:2])
    grant(server.pid_path, back[SEAL], REGISTRY, 9)
    store.put(back)
    server.wait_for_generation(9)
    store.put(first)  # its permission was used
    server.wait_for_log("is not taken: .*another registry.*; generation 9 stays active")
    assert statuses(server, keys[1:3]) == [{200}, {401}]


def test_a_permission_of_another_store(nginx, store, written):
    keys = make_keys(4)
    store.put(written(8, keys[:2]))
    server = serve(nginx, store)
    other = written(3, keys[2:], registry=OTHER_REGISTRY)
    grant(server.pid_path, other[SEAL], OTHER_REGISTRY, 3, store=node_store(server).key + 1)
    store.put(other)
    server.wait_for_log("is not taken: .*another registry")
    assert statuses(server, keys[1:3]) == [{200}, {401}]


def test_a_permission_that_was_not_needed_is_not_left(nginx, store, written):
    """Else the file could come back by it, when something newer is in use."""
    keys = make_keys(4)
    store.put(written(8, keys[:2]))
    server = serve(nginx, store)
    next_file = written(9, keys[:3], counters=(9, 6))
    grant(server.pid_path, next_file[SEAL], REGISTRY, 9)
    store.put(next_file)
    server.wait_for_generation(9)
    store.put(written(10, keys[1:3], counters=(9, 7)))
    server.wait_for_generation(10)
    store.put(next_file)
    server.wait_for_log("generation 9 is not higher than .*; generation 10 stays active")
    assert statuses(server, keys[:2]) == [{401}, {200}]


def test_a_permission_for_what_never_came_ends_with_the_next(nginx, store, written):
    keys = make_keys(4)
    store.put(written(8, keys[:2]))
    server = serve(nginx, store)
    never = written(3, keys[2:], registry=OTHER_REGISTRY)
    grant(server.pid_path, never[SEAL], OTHER_REGISTRY, 3)
    time.sleep(1.1)  # a snapshot says in which second it was made
    store.put(written(9, keys[:2]))
    server.wait_for_generation(9)
    store.put(never)
    server.wait_for_log("is not taken: .*another registry.*; generation 9 stays active")


def test_a_permission_that_is_written_again_and_again(nginx, store, written):
    """Who may write the inbox lets nobody verify without end, and nothing in a second time."""
    keys = make_keys(4)
    store.put(written(8, keys[:2]))
    server = serve(nginx, store)
    # As a veto it may not take over: the permission is found, tried and left.
    other = written(3, keys[2:], registry=OTHER_REGISTRY, requires="later")
    grant(server.pid_path, other[SEAL], OTHER_REGISTRY, 3)
    store.put(other)
    server.wait_for_log("is not taken: .*another registry")
    # Each worker tries it once.
    settled = {"refused": server.metric("apikey_snapshot_adoptions_total", result="refused")}
    time.sleep(3)  # three looks of every worker; nothing tells of one that finds nothing
    after = server.metric("apikey_snapshot_adoptions_total", result="refused")
    assert after <= settled["refused"] + 3


def test_a_permission_that_lies_about_the_file(nginx, store, written):
    keys = make_keys(4)
    store.put(written(8, keys[:2]))
    server = serve(nginx, store)
    other = written(3, keys[2:], registry=OTHER_REGISTRY)
    grant(server.pid_path, other[SEAL], REGISTRY, 3)
    store.put(other)
    server.wait_for_log("is not taken: .*another registry")
    assert statuses(server, [keys[2]]) == [{401}]


def test_what_nginx_cannot_decide_by_does_not_take_over(nginx, store, written):
    """As a veto it would lock everybody out."""
    keys = make_keys(4)
    store.put(written(8, keys[:2]))
    server = serve(nginx, store)
    other = written(3, keys[2:], registry=OTHER_REGISTRY, requires="later")
    grant(server.pid_path, other[SEAL], OTHER_REGISTRY, 3)
    store.put(other)
    server.wait_for_log("is not taken: .*another registry")
    assert statuses(server, keys[:2]) == [{200}, {200}]


@pytest.mark.parametrize("how", ["quit", "kill -9", "reboot"])
def test_the_highest_generation_survives(nginx, store, registry, place, how):
    """Revoke, put the file from before in place, restart: the revoked key stays refused."""
    state = StateDir(place)
    made = Generations(registry, 2)
    leaver = made.keys[0]
    store.put(made.snapshots[1])
    parts = dict(http=f"apikey_zone zone=apikey:1m state={state.dir};")
    server = nginx(LOCATION, store=store.path, workers=2, **parts)
    server.wait_for_generation(made.number(1))
    assert server.status(key=leaver) == 200
    registry.revoke(leaver)
    store.put(registry.snapshot.read_bytes())
    server.wait_for_generation(registry.generation())
    saved = time.time()
    if how == "kill -9":
        state.wait_for_save(server, saved)
        server.kill_all()
    else:
        server.quit()
    if how == "reboot":
        state_file(server.pid_path).unlink()
    store.put(made.snapshots[1])
    server.start()
    server.wait_for_log(f"is not taken: generation {made.number(1)} is not higher than .*{COMMAND}.*no active snapshot")
    assert {server.status(key=leaver) for _ in range(6)} == {503}
    store.put(registry.snapshot.read_bytes())
    server.wait_for_generation(registry.generation())
    assert server.status(key=leaver) == 401
    assert server.status(key=made.keys[1]) == 200


def test_a_restart_with_the_same_file(nginx, store, written):
    keys = make_keys(2)
    store.put(written(5, keys))
    server = serve(nginx, store)
    server.quit()
    server.start()
    server.wait_for_generation(5)
    assert statuses(server, keys) == [{200}, {200}]
    assert "is not taken" not in server.error_log()


def test_a_restart_under_a_veto(nginx, store, written):
    """Nothing decides then, but the file that vetoed is still the one to follow."""
    keys = make_keys(2)
    store.put(written(5, keys))
    server = serve(nginx, store)
    store.put(written(6, keys, requires="later", k0={"revoked": True}))
    server.wait_for_log("goes on deciding")
    server.quit()
    server.start()
    server.wait_for_log("there is no other snapshot")
    assert statuses(server, keys) == [{503}, {503}]
    store.put(written(5, keys))
    server.wait_for_log("generation 5 is not higher than generation 6")
    store.put(written(7, keys, k0={"revoked": True}))
    server.wait_for_generation(7)
    assert statuses(server, keys) == [{401}, {200}]


def test_a_refusal_is_kept_with_what_says_why(nginx, store, written):
    keys = make_keys(4)
    store.put(written(5, keys))
    server = serve(nginx, store, store_args="min_keep=90%")
    wrong = written(6, keys[:3])
    store.put(wrong)
    server.wait_for_log("is not taken: 3 keys would replace 4")
    first = node_store(server).refusal
    assert first["inode"] == store.path.stat().st_ino
    assert (first["generation"], first["result"], first["registry"]) == (6, "refused", REGISTRY)
    assert first["seal"] == wrong[SEAL].hex()
    assert abs(first["wall_us"] / 1e6 - time.time()) < 60
    assert first["sentence"].startswith("3 keys would replace 4")
    # It is judged again by a new configuration, and that is what the refusal says then.
    server.reload(store=f"apikey_store {store.path} min_keep=80%;")
    server.wait_for_log("(?s)is not taken.*is not taken")
    second = node_store(server).refusal
    assert second["configuration"] > first["configuration"]
    server.reload(store=f"apikey_store {store.path} min_keep=70%;")
    server.wait_for_generation(6)


def test_a_refusal_of_what_cannot_be_read(nginx, store, written):
    """It is kept too, though it is tried again."""
    keys = make_keys(2)
    store.put(written(5, keys))
    server = serve(nginx, store)
    store.put(b"nonsense")
    server.wait_for_log("is not taken: ")
    refusal = node_store(server).refusal
    assert (refusal["result"], refusal["generation"], refusal["seal"]) == ("damaged", 0, "0" * 64)
    store.put(written(6, keys), mode=0o000)
    server.wait_for_log("is not taken: it cannot be opened")
    refusal = node_store(server).refusal
    assert refusal["result"] == "unreadable" and "Permission denied" in refusal["sentence"]
    store.path.chmod(0o640)
    server.wait_for_generation(6)
