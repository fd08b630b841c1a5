"""What `nginx -t` warns of and takes all the same: files that are not there or not readable for workers, directives
beside ours that let everybody in."""

import grp
import os
import re

import pytest

from harness.paths import IS_ROOT, worker_user

LOCATION = 'location / { apikey "api"; apikey_scope any; empty_gif; }'


def warnings(server):
    """Lines of nginx -t that warn, without their place. The configuration is right."""
    is_right, said = server.check()
    assert is_right, said
    return [re.sub(r" in \S+:\d+$", "", line.partition("[warn] ")[2])
            for line in said.splitlines() if "[warn]" in line]


def group_of(path):
    return grp.getgrgid(path.stat().st_gid).gr_name


def test_nothing_to_warn_of(nginx):
    assert warnings(nginx.make(LOCATION)) == []


@pytest.mark.parametrize("path", ["nowhere/keys.mdb", "keys.mbd"])
def test_no_snapshot_there(nginx, place, path):
    said = warnings(nginx.make(LOCATION, store=f"{place}/{path}"))
    assert said == [f'apikey_store: there is no snapshot "{place}/{path}" yet, so requests will be answered with 503 '
                    "until keyloader init or keyloader snapshot install makes it"]


def test_a_directory_for_a_snapshot(nginx, place):
    (place / "keys").mkdir()
    said = warnings(nginx.make(LOCATION, store=f"{place}/keys"))
    assert len(said) == 1 and f'"{place}/keys" is not a file, write the path of the snapshot' in said[0]


def test_the_registry_for_a_snapshot(nginx, registry):
    path = registry.dir / "registry.db"
    path.chmod(0o644)
    said = warnings(nginx.make(LOCATION, store=str(path)))
    assert said == [f'apikey_store: "{path}" is a registry, not a snapshot, write the path of keys.mdb beside it']


if IS_ROOT:
    @pytest.mark.parametrize("what", ["the directory", "the file"])
    def test_workers_may_not_read_it(nginx, registry, what):
        barrier = registry.dir if what == "the directory" else registry.snapshot
        os.chown(barrier, 0, 0)
        said = warnings(nginx.make(LOCATION))
        assert len(said) == 1 and said[0].startswith(
            f'apikey_store: "{registry.snapshot}": workers run as "{worker_user()}" and may not read "{barrier}" '
            "(group root), so requests will be answered with 503")

    def test_workers_may_read_it_by_a_group_that_is_not_their_first(nginx, registry):
        server = nginx.make(LOCATION)
        config = server.config_path.read_text()
        server.config_path.write_text(config.replace(f"user {worker_user()};", f"user nobody {group_of(registry.dir)};"))
        assert warnings(server) == []
        server.config_path.write_text(config.replace(f"user {worker_user()};", "user nobody nogroup;"))
        assert 'workers run as "nobody" and may not read' in warnings(server)[0]

    def test_the_user_nginx_was_built_with(nginx, registry):
        """Nobody wrote `user`."""
        server = nginx.make(LOCATION)
        server.config_path.write_text(server.config_path.read_text().replace(f"user {worker_user()};", ""))
        os.chown(registry.dir, 0, 0)
        assert re.search(r'workers run as "[a-z-]+" and may not read', warnings(server)[0])


def test_a_state_directory_that_is_not_there(nginx, place):
    said = warnings(nginx.make(LOCATION, http=f"apikey_zone zone=apikey:2m state={place}/none;"))
    assert len(said) == 1 and f'there is no directory "{place}/none", so quotas will not survive a reboot' in said[0]


@pytest.mark.parametrize("word", ["on", "yes", "true"])
def test_a_realm_that_is_a_switch(nginx, word):
    said = warnings(nginx.make(f"location / {{ apikey {word}; apikey_scope any; empty_gif; }}"))
    assert len(said) == 1 and f'"{word}" is the realm that clients are shown' in said[0]


RETURN = 'apikey: "/a" answers everybody: nginx runs its "return" before it asks for a key'


@pytest.mark.parametrize("inside,warns", [
    ("return 200;", True), ("return 200 text;", True), ("return 301 /b;", True), ("return http://x/;", True),
    ("if ($arg_x) { return 403; } empty_gif;", False), ("set $x 1; empty_gif;", False), ("empty_gif;", False)])
def test_return_beside_apikey(nginx, inside, warns):
    said = warnings(nginx.make(f'location /a {{ apikey "api"; apikey_scope any; {inside} }}'))
    assert [line[:len(RETURN)] for line in said] == ([RETURN] if warns else [])
