"""A node without a registry is fed by `keyloader snapshot install -`; what is wrong is refused with a sentence.

Whatever is refused, the node's nginx goes on with what it has.
"""

import os
import random
import shutil

import pytest

from harness.keys import make_key
from harness.paths import IS_ROOT, worker_user
from harness.registry import Registry, run_keyloader

LOCATION = 'location / {{ apikey "api"; apikey_scope any; proxy_pass {0}; }}'


class Node:
    """A second machine: a directory and an nginx, and only what a snapshot brings."""

    def __init__(self, path, nginx, upstream):
        self.dir = path
        path.mkdir(mode=0o750)
        if IS_ROOT:
            shutil.chown(path, group=worker_user())
            path.chmod(0o2750)
        self.server = nginx(LOCATION.format(upstream.url), store=path / "keys.mdb")

    def install(self, content: bytes, *arguments):
        return run_keyloader(self.dir, "snapshot", "install", "-", *arguments, stdin=content, check=False)


@pytest.fixture
def node(place, nginx, upstream):
    return Node(place / "second", nginx, upstream)


@pytest.fixture
def fed(registry, node):
    """A node that serves the first registry's keys."""
    node.keys = [registry.key(f"owner{number}", publish=False) for number in range(10)]
    registry.publish()
    node.older = registry.snapshot.read_bytes()
    registry.key("latest")
    node.content = registry.snapshot.read_bytes()
    done = node.install(node.content)
    assert done.returncode == 0, done.stderr
    node.generation = registry.generation()
    node.server.wait_for_generation(node.generation)
    return node


def test_an_empty_node_answers_503_and_then_serves(registry, node):
    key = registry.key("alice")
    refused = node.server.get("/", key=key)
    assert refused.status_code == 503
    assert int(refused.headers["Retry-After"]) >= 1
    assert node.server.status("/") == 401
    assert node.install(registry.snapshot.read_bytes()).returncode == 0
    node.server.wait_for_generation(registry.generation())
    assert node.server.status("/", key=key) == 200
    assert sorted(path.name for path in node.dir.iterdir() if path.suffix == ".db") == [], "a node has no registry"


def test_a_revocation_is_pushed(registry, fed):
    assert fed.server.status(key=fed.keys[0]) == 200
    registry.revoke(fed.keys[0])
    assert fed.install(registry.snapshot.read_bytes()).returncode == 0
    fed.server.wait_for_generation(registry.generation())
    assert fed.server.status(key=fed.keys[0]) == 401
    assert fed.server.status(key=fed.keys[1]) == 200


def test_installing_the_same_again_changes_nothing(fed):
    fed.install(fed.content)
    assert fed.server.status(key=fed.keys[0]) == 200
    assert (fed.dir / "keys.mdb").read_bytes() == fed.content


def another_registrys(fed, registry, place):
    other = Registry(place / "other")
    for number in range(20):
        other.key(f"owner{number}", publish=False)
    for _ in range(20):
        other.publish()
    return other.snapshot.read_bytes()


def older(fed, registry, place):
    return fed.older


def cut_off(fed, registry, place):
    registry.key("more")
    return registry.snapshot.read_bytes()[:-5000]


def empty(fed, registry, place):
    return b""


def flipped(fed, registry, place):
    registry.key("more")
    content = bytearray(registry.snapshot.read_bytes())
    content[random.Random(5).randrange(len(content))] ^= 0x10
    return bytes(content)


def something_else(fed, registry, place):
    return make_key(random.Random(1)).encode() * 1000


@pytest.mark.parametrize("make,needle", [
    (another_registrys, "registry"), (older, "generation"), (cut_off, ""), (empty, ""), (flipped, ""),
    (something_else, ""),
], ids=lambda value: getattr(value, "__name__", ""))
def test_what_is_wrong_is_refused_and_service_goes_on(fed, registry, place, make, needle):
    content = make(fed, registry, place)
    done = fed.install(content)
    assert done.returncode == 1
    sentence = done.stderr.strip()
    assert sentence.startswith("keyloader: ") and len(sentence.split()) >= 5, sentence
    assert needle in sentence
    assert "ak_live" not in sentence
    assert (fed.dir / "keys.mdb").read_bytes() == fed.content
    leftovers = [name for name in os.listdir(fed.dir) if name.startswith("keys.mdb.")]
    assert leftovers == []
    assert fed.server.metric("apikey_snapshot_generation") == fed.generation
    assert [fed.server.status(key=key) for key in fed.keys] == [200] * 10


def test_deletions_that_were_meant_need_no_word(fed, registry):
    """However many: the registry counted them."""
    for key in fed.keys[:8]:
        registry.run("key", "delete", key.id, "--no-publish")
    registry.publish()
    done = fed.install(registry.snapshot.read_bytes())
    assert done.returncode == 0, done.stderr
    fed.server.wait_for_generation(registry.generation())
    assert [fed.server.status(key=key) for key in fed.keys] == [401] * 8 + [200] * 2
