"""A chain of intended additions and deletions is accepted in whatever order nginx looks; a wrong push or a copy of the
registry that has gone its own way never is."""

import itertools

import pytest

from harness.store import LOCATION, Store
from harness.waiting import wait_until
from harness.written import OTHER_REGISTRY, Written, make_keys


@pytest.fixture
def store(place):
    return Store(place)


@pytest.fixture
def written(place):
    return Written(place)


def seen_by_nginx(steps):
    """Every way in which nginx may miss some of the steps, but the last."""
    middle = range(1, len(steps) - 1)
    for count in range(len(steps) - 1):
        for chosen in itertools.combinations(middle, count):
            yield [steps[0], *(steps[i] for i in chosen), steps[-1]]


def serve(nginx, store, first, min_keep=None):
    store.put(first)
    server = nginx(LOCATION, store=store.path, store_args=f"min_keep={min_keep}" if min_keep else "")
    server.wait_for_generation(1)
    return server


def test_four_keys_and_min_keep_80(nginx, store, written):
    """One of four is deleted, another is revoked. 75 % are left, and that is what was meant."""
    keys = make_keys(4)
    steps = [written(1, keys, counters=(4, 0)), written(2, keys[1:], counters=(4, 1)),
             written(3, keys[1:], counters=(4, 1), k0={"revoked": True})]
    for seen in seen_by_nginx(steps):
        server = serve(nginx, store, seen[0], "80%")
        for data in seen[1:]:
            store.put(data)
            server.wait_for_generation(2 if data is steps[1] else 3)
        assert [server.status(key=key) for key in keys] == [401, 401, 200, 200]
        assert "is not taken" not in server.error_log()
        server.stop()


def test_ten_six_four_and_a_revocation(nginx, store, written):
    """Two deletions before nginx has looked, then a revocation, with the default of 50 %."""
    keys = make_keys(10)
    server = serve(nginx, store, written(1, keys, counters=(10, 0)))
    written(2, keys[:6], counters=(10, 4))
    store.put(written(4, keys[:4], counters=(10, 6), k0={"revoked": True}))
    server.wait_for_generation(4)
    assert [server.status(key=key) for key in keys[:5]] == [401, 200, 200, 200, 401]


def test_many_added_and_many_removed(nginx, store, written):
    keys = make_keys(40)
    server = serve(nginx, store, written(1, keys[:20], counters=(20, 0)), "90%")
    store.put(written(9, keys[19:22], counters=(22, 19)))
    server.wait_for_generation(9)
    assert [server.status(key=keys[i]) for i in (0, 18, 19, 21)] == [401, 401, 200, 200]


def test_to_nothing(nginx, store, written):
    keys = make_keys(2)
    server = serve(nginx, store, written(1, keys, counters=(2, 0)), "100%")
    store.put(written(2, [], counters=(2, 2)))
    server.wait_for_generation(2)
    assert server.status(key=keys[0]) == 401


WRONG = {
    "a copy of the registry that added less": dict(counters=(5, 2), count=3, says="has added 5 keys"),
    "a copy of the registry that removed less": dict(counters=(9, 3), count=6, says="has removed 3 keys"),
    "a new registry of the same name": dict(counters=(1, 0), count=1, says="gone its own way"),
    "a file without counters, shrunken": dict(counters=None, count=1, says="1 keys would replace"),
    "another registry": dict(counters=(6, 4), count=2, registry=OTHER_REGISTRY, says="another registry"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_push(nginx, store, written, name):
    wrong = WRONG[name]
    keys = make_keys(12)
    server = serve(nginx, store, written(1, keys[:4], counters=(8, 4)))
    store.put(written(7, keys[:wrong["count"]], counters=wrong["counters"],
                      **{"registry": wrong["registry"]} if "registry" in wrong else {}))
    server.wait_for_log(f"is not taken: .*{wrong['says']}.*; generation 1 stays active")
    assert [server.status(key=key) for key in keys[:4]] == [200] * 4
    # And what is right after it is taken.
    store.put(written(8, keys[1:5], counters=(9, 5)))
    server.wait_for_generation(8)
    assert server.status(key=keys[0]) == 401


def test_files_without_counters_follow_the_rule_of_before(nginx, store, written):
    keys = make_keys(4)
    server = serve(nginx, store, written(1, keys))
    store.put(written(2, keys[:2]))
    server.wait_for_generation(2)
    store.put(written(3, []))
    server.wait_for_log("is not taken: 0 keys would replace 2")
    store.put(written(4, keys[:2], counters=(30, 28)))  # the publisher was upgraded meanwhile
    server.wait_for_generation(4)
    wait_until(lambda: server.status(key=keys[0]) == 200)
