"""The user that owns the directory and runs the timers: neither root nor nginx, in the group of nginx's workers."""

import grp
import json
import os
import pwd
import subprocess

import pytest

from harness.paths import IS_ROOT, KEYLOADER, worker_user

pytestmark = pytest.mark.skipif(not IS_ROOT, reason="only root can give the directory to another user")
LOCATION = 'location / { apikey "api"; apikey_scope any; empty_gif; }'
SERVICE = pwd.getpwnam("daemon")


@pytest.fixture
def server(place, registry, nginx):
    """Node memory lies where systemd's RuntimeDirectory= would be: everybody may pass, the files are root's and the group's."""
    key = registry.key("acme")
    (place / "run").mkdir(mode=0o755)
    server = nginx(LOCATION, http=f"apikey_zone zone=apikey:2m runtime={place / 'run'};")
    assert server.status(key=key) == 200
    return server, key


@pytest.fixture
def as_service(registry, server):
    """Runs keyloader as the directory's owner."""
    for path in (registry.dir, *registry.dir.rglob("*")):
        os.lchown(path, SERVICE.pw_uid, -1)

    def run(*arguments):
        return subprocess.run([KEYLOADER, "--dir", registry.dir, *map(str, arguments)], capture_output=True, text=True,
                              check=False, user=SERVICE.pw_uid, group=SERVICE.pw_gid,
                              extra_groups=[grp.getgrnam(worker_user()).gr_gid], stdin=subprocess.DEVNULL)

    return run


def test_it_collects_what_roots_nginx_counted(server, as_service):
    done = as_service("usage", "collect", "--quiet")
    assert done.returncode == 0 and done.stdout + done.stderr == "", done.stderr
    counted = json.loads(as_service("usage", "--from", "today", "--json").stdout)
    assert counted["total"]["admitted"] == 1


def test_what_it_changes_is_active_in_roots_nginx(server, as_service):
    running, key = server
    done = as_service("key", "revoke", key.id, "--wait", "30s")
    assert done.returncode == 0 and "active in nginx" in done.stdout + done.stderr, done.stdout + done.stderr
    assert running.status(key=key) == 401
