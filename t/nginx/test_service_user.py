"""The user that owns the directory and runs the timers: neither root nor nginx, in the group of nginx's workers."""

import grp
import json
import os
import pwd
import re
import subprocess

import pytest

from harness.paths import CAN_MOUNT, IS_ROOT, KEYLOADER, REPOSITORY, worker_user

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


@pytest.mark.skipif(not CAN_MOUNT, reason="needs mounts of its own")
def test_it_collects_where_the_unit_lets_it_write(place, registry, server, as_service):
    """ProtectSystem=strict makes all read-only but what ReadWritePaths= names: both places have to be named."""
    unit = (REPOSITORY / "packaging/systemd/keyloader-usage-collect.service.in").read_text()
    assert "ProtectSystem=strict\n" in unit
    named = re.search(r"^ReadWritePaths=(.*)$", unit, re.MULTILINE)[1].replace("-/", "/").split()
    places = {"/var/lib/apikey": registry.dir, "/run/apikey": place / "run"}
    mounts = "".join(f'mount --bind "{path}" "{path}" && mount -o remount,bind,{"rw" if name in named else "ro"} "{path}" && '
                     for name, path in places.items())
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", f'{mounts} exec setpriv --reuid "$1" --regid "$2" --groups "$3" "$4" --dir "$5" '
         "usage collect --quiet", "sh", str(SERVICE.pw_uid), str(SERVICE.pw_gid), str(grp.getgrnam(worker_user()).gr_gid),
         KEYLOADER, registry.dir], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_it_changes_is_active_in_roots_nginx(server, as_service):
    running, key = server
    done = as_service("key", "revoke", key.id, "--wait", "30s")
    assert done.returncode == 0 and "active in nginx" in done.stdout + done.stderr, done.stdout + done.stderr
    assert running.status(key=key) == 401
