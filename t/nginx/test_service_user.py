"""The user that owns the directory and runs the timers: neither root nor nginx, in the group of nginx's workers.

How keyloader gives it the directory, and that root leaves nothing of its own there: t/keyloader/test_owner_of_directory.py.
"""

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


@pytest.fixture
def with_pepper(place, registry, nginx):
    key = registry.init_with("--pepper", "p1").key("acme")
    (place / "run").mkdir(mode=0o755)
    server = nginx(LOCATION, store_args=f"pepper=p1:{registry.dir}/peppers/p1",
                   http=f"apikey_zone zone=apikey:2m runtime={place / 'run'};")
    assert server.status(key=key) == 200
    return server, key


def owners(registry):
    return {path.lstat().st_uid for path in (registry.dir, *registry.dir.rglob("*")) if path.parent.name != "nodes"}


def test_nginx_serves_while_the_directory_changes_hands(registry, with_pepper):
    """It takes snapshots and reads peppers of the owner of the directory, before and after a reload."""
    server, key = with_pepper
    keys = [key]
    for user in (SERVICE.pw_name, SERVICE.pw_name, "root"):
        registry.run("init", "--user", user)
        assert owners(registry) == {pwd.getpwnam(user).pw_uid}
        assert [server.status(key=each) for each in keys] == [200] * len(keys)
        keys.append(registry.key("acme"))
        server.wait_for_generation(registry.generation())
        server.reload()
        registry.run("usage", "collect")
        assert [server.status(key=each) for each in keys] == [200] * len(keys)
        assert owners(registry) == {pwd.getpwnam(user).pw_uid}
    registry.run("init", "--user", SERVICE.pw_name)
    done = registry.revoke(keys[-1], "--wait", "30s")
    assert done.returncode == 0 and "active in nginx" in done.stdout + done.stderr
    assert server.status(key=keys[-1]) == 401


def test_a_pepper_of_somebody_else_is_refused(registry, with_pepper):
    server, _ = with_pepper
    registry.run("init", "--user", SERVICE.pw_name)
    assert server.check()[0]
    os.chown(registry.dir / "peppers" / "p1", pwd.getpwnam("nobody").pw_uid, -1)
    server.allow_log("belongs to user")
    is_right, said = server.check()
    assert not is_right and f"who does not own the directory of \"{registry.snapshot}\" either" in said
