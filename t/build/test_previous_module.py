"""The module of before snapshot format 2 beside the keyloader of today, and the module of today with files of before.

Nodes are upgraded first, then the publisher; whoever does it the other way round on one machine loses nothing.
"""

import os
import re
import shutil
import subprocess

import pytest

from harness.paths import BUILD, IS_ROOT, MODULE, NGINX, REPOSITORY, worker_user
from harness.registry import KeyloaderError, run_keyloader
from harness.store import LOCATION, Store
from harness.waiting import wait_until
from harness.written import Written, make_keys

PREVIOUS = "06c5cf032b2f"  # the last commit that knows format 1 only
SENTENCE = "reads snapshot format 1 only; keys.mdb is written in format 1 until it is replaced"


def sh(script, **variables):
    done = subprocess.run(["bash", "-euc", script], cwd=REPOSITORY, capture_output=True, text=True, check=False,
                          env=os.environ | {name: str(value) for name, value in variables.items()})
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


def git(*arguments):
    return subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def previous(tmp_path_factory):
    """The module of PREVIOUS for the installed nginx. Stays in the build folder: it never changes."""
    if not MODULE:
        pytest.skip("nginx was built with the module inside")
    nginx_version = subprocess.run([NGINX, "-v"], capture_output=True, text=True, check=True).stderr.split("/")[-1]
    built = BUILD / "previous" / f"{PREVIOUS}-nginx-{nginx_version.strip()}.so"
    if built.exists():
        return built
    if git("cat-file", "-e", f"{PREVIOUS}^{{commit}}").returncode != 0:
        # Nobody can build it then; a repository with its whole history has it.
        assert git("rev-parse", "--is-shallow-repository").stdout.strip() != "false", f"{PREVIOUS} is not in this repository"
        pytest.skip(f"{PREVIOUS} is not in this copy of the repository (git fetch --unshallow)")
    folder = tmp_path_factory.mktemp("previous")
    sh("""git archive "$COMMIT" | tar -x -C "$FOLDER"
          cmake -G Ninja -S "$FOLDER" -B "$FOLDER/build" -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_FLAGS_DEBUG='-O0 -g0' \
              -DAPIKEY_TESTS=OFF >"$FOLDER/cmake.log" 2>&1 || { cat "$FOLDER/cmake.log"; false; }
          cmake --build "$FOLDER/build" -j "$(nproc)" --target ngx_http_apikey_module >"$FOLDER/build.log" 2>&1 ||
              { tail -n 40 "$FOLDER/build.log"; false; }
          mkdir -p "$(dirname "$BUILT")"
          mv "$FOLDER/build/ngx_http_apikey_module.so" "$BUILT"
       """, COMMIT=PREVIOUS, FOLDER=folder, BUILT=built)
    return built


@pytest.fixture
def store(place):
    return Store(place)


@pytest.fixture
def written(place):
    return Written(place)


def with_module(nginx, module, **parts):
    server = nginx.make(LOCATION, **parts)
    server.module = module
    server.write_config()
    return server.start()


def snapshot_format(registry):
    return registry.json("snapshot", "show")["format"]


def test_the_module_of_before_refuses_what_it_cannot_read(nginx, previous, store, written):
    keys = make_keys(2)
    store.put(written(1, keys, format=1))
    server = with_module(nginx, previous, store=store.path)
    server.wait_for_generation(1)
    store.put(written(2, keys[:1], format=2))
    server.wait_for_log("is not taken: snapshot format 2; this build reads format 1")
    assert [server.status(key=key) for key in keys] == [200, 200]
    store.put(written(3, keys[1:], format=1, k0={"revoked": True}))
    server.wait_for_generation(3)
    assert [server.status(key=key) for key in keys] == [401, 401]


def test_beside_it_keyloader_writes_format_1(nginx, previous, registry):
    """And everything gets through as before: new keys, revocations, a rollback."""
    first, second = registry.key("a"), registry.key("b")
    assert snapshot_format(registry) == 2
    server = with_module(nginx, previous)
    server.wait_for_log("is not taken: snapshot format 2; this build reads format 1")
    done = registry.run("publish")  # nothing has changed but who reads it
    assert SENTENCE in done.stderr and re.search(r"nginx \(pid \d+\)", done.stderr)
    assert snapshot_format(registry) == 1
    assert [server.status(key=key) for key in (first, second)] == [200, 200]
    done = registry.run("key", "revoke", first.id)  # ends with 0: it is active
    assert done.stderr.count(SENTENCE) == 1
    assert snapshot_format(registry) == 1
    assert [server.status(key=key) for key in (first, second)] == [401, 200]
    assert server.status(key=registry.key("c")) == 200
    registry.run("snapshot", "rollback")
    assert snapshot_format(registry) == 1
    registry.run("publish")

    status = registry.run("status")
    assert SENTENCE in status.stdout
    assert registry.json("status")["nginx"][0]["stores"][0]["newest_format"] == 1
    doctor = registry.run("doctor", check=False)
    assert SENTENCE in doctor.stdout + doctor.stderr

    server.stop()
    done = registry.run("key", "create", "--owner", "d", "--create-owner")
    assert SENTENCE not in done.stderr
    assert snapshot_format(registry) == 2


def test_installing_beside_it(nginx, previous, written, place):
    """A node with the module of before refuses the file before it takes the place of one that decides."""
    keys = make_keys(2)
    node = make_node(place)
    assert install(node, written(1, keys, format=1)).returncode == 0
    server = with_module(nginx, previous, store=node / "keys.mdb")
    server.wait_for_generation(1)
    refused = install(node, written(2, keys, format=2))
    assert refused.returncode == 1
    assert re.search(r"nginx \(pid \d+\) reads snapshot format 1 only, this one has format 2", refused.stderr)
    assert server.status(key=keys[0]) == 200
    assert install(node, written(3, keys, format=1, k0={"revoked": True})).returncode == 0
    assert server.status(key=keys[0]) == 401


def make_node(place):
    """A directory that has no registry."""
    node = place / "other"
    node.mkdir(mode=0o750)
    if IS_ROOT:
        shutil.chown(node, group=worker_user())
        node.chmod(0o2750)
    return node


def install(node, data):
    return run_keyloader(node, "snapshot", "install", "-", stdin=data, check=False)


def test_the_order_of_an_upgrade(nginx, previous, registry):
    """The module first, by a restart; the next change brings format 2, and not even a request is lost to it."""
    key, leaver = registry.key("a"), registry.key("b")
    server = with_module(nginx, previous)
    registry.run("publish")
    server.wait_for_generation(registry.generation())
    server.quit()
    server.module = MODULE
    server.write_config()
    server.start()
    server.wait_for_generation(registry.generation())
    assert snapshot_format(registry) == 1
    assert server.status(key=key) == 200
    done = registry.run("key", "revoke", leaver.id)
    assert SENTENCE not in done.stderr
    assert snapshot_format(registry) == 2
    assert [server.status(key=one) for one in (key, leaver)] == [200, 401]
    assert registry.json("status")["nginx"][0]["stores"][0]["newest_format"] == 2


def test_and_the_way_back(nginx, previous, registry):
    """Downgraded, it refuses the file of format 2; `publish` writes one that it reads."""
    key = registry.key("a")
    server = nginx(LOCATION)
    assert server.status(key=key) == 200
    server.quit()
    server.module = previous
    server.write_config()
    server.start()
    server.wait_for_log("is not taken: snapshot format 2; this build reads format 1")
    registry.run("publish")
    server.wait_for_generation(registry.generation())
    assert server.status(key=key) == 200


def test_a_feature_that_a_node_lacks_is_named(nginx, written, place):
    """As a pepper it lacks: the file goes out, because its revocations count there."""
    keys = make_keys(2)
    node = make_node(place)
    install(node, written(1, keys))
    server = nginx(LOCATION, store=node / "keys.mdb")
    server.wait_for_generation(1)
    done = install(node, written(2, keys, requires="later", k0={"revoked": True}))
    assert re.search(r'nginx \(pid \d+\) does not know the feature "later"', done.stderr)
    wait_until(lambda: server.metric("apikey_snapshot_veto_generation") == 2)
    assert [server.status(key=key) for key in keys] == [401, 200]


@pytest.mark.parametrize("version", [1, 2])
def test_a_later_format_is_refused(nginx, store, written, version):
    keys = make_keys(1)
    store.put(written(1, keys, format=version))
    server = nginx(LOCATION, store=store.path)
    server.wait_for_generation(1)
    with pytest.raises(KeyloaderError, match="the snapshot has format 3; this build reads formats 1 and 2"):
        written(2, keys, format=3)
    assert server.status(key=keys[0]) == 200
