"""A sound snapshot that needs what this nginx lacks only takes away: revocations and suspensions always get through."""

import os
import random
import re
import signal

import pytest

from harness.keys import make_key
from harness.registry import KeyloaderError
from harness.store import LOCATION, Store
from harness.waiting import wait_until
from harness.written import Written, make_keys


@pytest.fixture
def store(place):
    return Store(place)


@pytest.fixture
def written(place):
    return Written(place)


def wait_for_veto(server, generation):
    wait_until(lambda: server.metric("apikey_snapshot_veto_generation") == generation, what=f"the veto of {generation}")


def stranger(seed=77):
    """Well-formed, and nobody's."""
    return make_key(random.Random(seed))


def all_statuses(server, key, count=12):
    return {server.status(key=key) for _ in range(count)}


def test_a_pepper_that_nginx_does_not_have(nginx, registry):
    """`pepper create`, one new key, a revocation, before the operator adds the pepper to apikey_store. Only what takes
    something away is published then."""
    good, leaver, sleeper, first = (registry.key(owner) for owner in ("a", "b", "c", "d"))
    server = nginx(LOCATION, workers=3)
    decides = registry.generation()
    registry.run("pepper", "create", "p2")
    new = registry.key("a", publish=False)
    refused = registry.run("publish", check=False)
    assert refused.returncode == 1 and 'does not know the pepper "p2"' in refused.stderr
    registry.revoke(first)
    wait_for_veto(server, registry.generation())
    assert all_statuses(server, first) == {401}
    server.wait_for_log(r'needs "hmac-sha256:p2", which this nginx does not have \(add pepper=<id>:<file>')
    assert server.metric("apikey_snapshot_generation") == decides
    assert server.metric("apikey_snapshot_adoptions_total", result="veto") == 1
    assert all_statuses(server, good) == {200}
    # Nobody can tell a key of the new pepper from a wrong one.
    assert all_statuses(server, new) == {503}
    assert all_statuses(server, stranger()) == {503}
    assert server.get(key=new).headers["Retry-After"]

    registry.revoke(leaver)
    wait_for_veto(server, registry.generation())
    assert all_statuses(server, leaver) == {401}
    registry.run("owner", "suspend", "c")
    wait_for_veto(server, registry.generation())
    assert all_statuses(server, sleeper) == {401}
    assert all_statuses(server, good) == {200}

    server.reload(store=f"apikey_store {registry.snapshot} pepper=p2:{registry.dir}/peppers/p2;")
    server.wait_for_generation(registry.generation())
    assert server.metric("apikey_snapshot_veto_generation") == 0
    assert all_statuses(server, new) == {200}
    assert all_statuses(server, stranger()) == {401}
    assert all_statuses(server, leaver) == {401}


def test_a_feature_that_this_version_does_not_have(nginx, store, written):
    keys = make_keys(4)
    store.put(written(1, keys[:3], k2={"revoked": True}))
    server = nginx(LOCATION, store=store.path, workers=3)
    server.wait_for_generation(1)
    store.put(written(2, keys[1:], requires="base2 later", k0={"expires": 1000}))
    wait_for_veto(server, 2)
    server.wait_for_log('needs "base2", which this nginx does not have .install a newer module')
    assert all_statuses(server, keys[0]) == {401}, "deleted"
    assert all_statuses(server, keys[1]) == {401}, "expired in the newer one"
    assert all_statuses(server, keys[2]) == {401}, "resumed in the newer one, which gives nothing"
    assert all_statuses(server, keys[3]) == {503}, "new"
    assert all_statuses(server, stranger()) == {401}, "all its digest methods are known, so this is no key"


def test_records_of_a_version_to_come(nginx, store, written):
    """Flags and bindings that this version does not know keep nothing from being revoked."""
    keys = make_keys(3)
    store.put(written(1, keys))
    server = nginx(LOCATION, store=store.path, workers=3)
    server.wait_for_generation(1)
    unknown = {"more_flags": 0x80, "bindings_hex": "63020102"}
    store.put(written(2, keys, requires="deny", k0=unknown | {"revoked": True}, k1=unknown | {"expires": 1000},
                      k2=unknown))
    wait_for_veto(server, 2)
    assert [all_statuses(server, key) for key in keys] == [{401}, {401}, {200}]
    with pytest.raises(KeyloaderError, match="does not check"):
        written(3, keys, k0=unknown)  # without saying that it needs more


def test_a_later_veto_replaces_it_and_a_later_file_ends_it(nginx, store, written):
    keys = make_keys(3)
    store.put(written(1, keys))
    server = nginx(LOCATION, store=store.path, workers=3)
    server.wait_for_generation(1)
    for generation in range(2, 8):
        revoked = {f"k{generation % 3}": {"revoked": True}}
        store.put(written(generation, keys, requires="later", **revoked))
        wait_for_veto(server, generation)
        for i, key in enumerate(keys):
            assert all_statuses(server, key, 6) == {401 if i == generation % 3 else 200}
    store.put(written(8, keys))
    server.wait_for_generation(8)
    assert server.metric("apikey_snapshot_veto_generation") == 0
    assert [server.status(key=key) for key in keys] == [200] * 3
    wait_until(lambda: server.metric("apikey_worker_generation_skew") == 0)
    wait_until(lambda: all(open_copies(pid) == 1 for pid in server.workers()), what="old copies closed")


def open_copies(pid):
    with open(f"/proc/{pid}/maps", encoding="ascii", errors="replace") as maps:
        return len({line.split()[4] for line in maps if "apikey-snapshot" in line})


def test_a_wrong_push_does_not_veto(nginx, store, written):
    """Nor does an old file that is put back: what is not sound is refused, whatever it needs."""
    keys = make_keys(8)
    first = written(1, keys)
    store.put(first)
    server = nginx(LOCATION, store=store.path)
    server.wait_for_generation(1)
    store.put(written(2, keys[:1], requires="later"))
    server.wait_for_log("is not taken: 1 keys would replace 8")
    store.put(written(3, keys, requires="later", k0={"revoked": True}))
    wait_for_veto(server, 3)
    store.put(first)
    server.wait_for_log("is not taken: generation 1 is not higher than generation 3")
    assert server.status(key=keys[0]) == 401
    assert server.status(key=keys[1]) == 200


def test_nothing_but_a_veto(nginx, store, written):
    keys = make_keys(2)
    store.put(written(1, keys, requires="later"))
    server = nginx(LOCATION, store=store.path)
    wait_for_veto(server, 1)
    server.wait_for_log("there is no other snapshot, so requests are answered with 503")
    assert server.metric("apikey_snapshot_generation") == 0
    assert all_statuses(server, keys[0], 6) == {503}
    store.put(written(2, keys))
    server.wait_for_generation(2)
    assert all_statuses(server, keys[0], 6) == {200}


@pytest.mark.parametrize("memory", ["private", "mapped"])
def test_workers_that_start_later_have_both(nginx, store, written, memory):
    keys = make_keys(3)
    store.put(written(1, keys))
    server = nginx(LOCATION, store=store.path, store_args=f"memory={memory}", workers=3)
    server.allow_log("exited on signal 9")
    server.wait_for_generation(1)
    store.put(written(2, keys, requires="later", k0={"revoked": True}))
    wait_for_veto(server, 2)

    def right():
        return all_statuses(server, keys[0], 9) == {401} and all_statuses(server, keys[1], 9) == {200}

    assert right()
    before = server.workers()
    os.kill(before[0], signal.SIGKILL)
    wait_until(lambda: len(server.workers()) == 3 and server.workers() != before)
    assert right()
    server.reload()
    assert right()
    assert not re.search("cannot be opened by this worker", server.error_log())


def test_on_error_allow_is_not_about_a_veto(nginx, store, registry):
    """Else one new pepper would open the door to whoever sends anything."""
    good = registry.key("a")
    store.put(registry.snapshot.read_bytes())
    server = nginx(LOCATION, store=store.path, store_args="on_error=allow")
    server.wait_for_generation(registry.generation())
    registry.run("pepper", "create", "p2")
    new = registry.key("a")
    store.put(registry.snapshot.read_bytes())
    wait_for_veto(server, registry.generation())
    assert all_statuses(server, good, 6) == {200}
    assert all_statuses(server, new, 6) == {503}
    assert all_statuses(server, stranger(), 6) == {503}
    assert server.last_logged("/")["outcome"] == "unavailable"
