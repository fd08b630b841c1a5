"""Whoever owns the directory owns all that is in it: root becomes that user, and `init --user` gives it to another."""

import grp
import json
import os
import pwd
import re
import shutil
import signal
import socket
import stat
import subprocess
from datetime import datetime, timedelta, timezone

import pytest
from test_command_line import EXPECTED

from harness.fake_node import FakeNode
from harness.paths import CAN_MOUNT, IS_ROOT, KEYLOADER
from harness.waiting import wait_until

pytestmark = pytest.mark.skipif(not IS_ROOT, reason="only root becomes another user")
OWNER = pwd.getpwnam("daemon")  # a user of every machine, in no group of nginx's
GROUP = "www-data"
GID = grp.getgrnam(GROUP).gr_gid


@pytest.fixture
def fresh(bare, place):
    """No directory yet, where other users can get to."""
    return type(bare)(place / "node")


@pytest.fixture
def owned(fresh):
    """A directory of another user, with everything that can be in one."""
    fresh("init", "--user", OWNER.pw_name, "--group", GROUP, "--pepper", "p1")
    fresh("owner", "create", "acme", "--quota", "1000/month", "--no-publish")
    fresh.made = [fresh.key()]
    return fresh


@pytest.fixture
def roots(fresh):
    """The same, of root, as earlier versions made it."""
    fresh("init", "--group", "games", "--pepper", "p1")  # not the one that init takes by itself
    fresh.key()
    fresh("usage", "--by", "owner")
    (fresh.dir / "nodes").mkdir(mode=0o755)
    (fresh.dir / "nodes" / "x.json.new").write_text("{}")
    return fresh


def tree(tool):
    return [tool.dir, *sorted(tool.dir.rglob("*"))]


def not_of(tool, uid=OWNER.pw_uid):
    return [str(path) for path in tree(tool) if path.lstat().st_uid != uid]


def modes(tool):
    return {str(path.relative_to(tool.dir)): (oct(stat.S_IMODE(path.lstat().st_mode)), path.lstat().st_gid)
            for path in tree(tool)}


def as_user(tool, *arguments, uid=65534, gid=65534, groups=()):
    return subprocess.run([KEYLOADER, *arguments], env=tool.environment(), cwd="/", capture_output=True, text=True,
                          check=False, user=uid, group=gid, extra_groups=list(groups), stdin=subprocess.DEVNULL)


# -- nothing of root's is left behind

RUNS = {
    "init": "init --pepper p1",
    "find": "find",
    "status": "status",
    "doctor": "doctor",
    "why": "why 0123456789abcdef0123456789abcdef --log {place}/apikey.log",
    "locations": "locations",
    "check": "check {key0} GET http://localhost/orders/",
    "publish": "publish",
    "import": "import {place}/keys.csv --format csv --create-owners",
    "completion": "completion bash",
    "manual": "manual",
    "help": "help",
    "version": "version",
    "pepper.create": "pepper create p2",
    "pepper.list": "pepper list",
    "owner.create": "owner create bob --email bob@example.org",
    "owner.list": "owner list",
    "owner.show": "owner show acme",
    "owner.set": "owner set acme --team shop",
    "owner.suspend": "owner suspend bob --yes",
    "owner.resume": "owner resume bob",
    "owner.delete": "owner delete bob --yes",
    "owner.erase": "owner erase bob --reason asked --yes",
    "plan.create": "plan create gold --rate 99/s",
    "plan.set": "plan set gold --rate 98/s",
    "plan.list": "plan list",
    "plan.show": "plan show gold",
    "plan.delete": "plan delete gold",
    "role.create": "role create writer --scope orders:write",
    "role.set": "role set writer --scope orders:create",
    "role.list": "role list",
    "role.delete": "role delete writer",
    "admin.create": "admin create --owner acme --role view",
    "admin.set": "admin set {key0} --role view --reason test",
    "admin.list": "admin list",
    "admin.adopt": "admin adopt {key0} --reason test",
    "policy.set": "policy set --key-name * --reason test",
    "policy.show": "policy show",
    "policy.test": "policy test --owner acme --as local",
    "approval.list": "approval list",
    "approval.show": "approval show 1",
    "approval.approve": "approval approve 1",
    "approval.refuse": "approval refuse 1",
    "key.create": "key create --owner acme --scope orders:read",
    "key.list": "key list",
    "key.show": "key show {key0}",
    "key.set": "key set {key0} --name laptop",
    "key.suspend": "key suspend {key1}",
    "key.resume": "key resume {key1}",
    "key.revoke": "key revoke {key2}",
    "key.delete": "key delete {key3} --yes",
    "snapshot.show": "snapshot show",
    "snapshot.verify": "snapshot verify",
    "snapshot.list": "snapshot list",
    "snapshot.rollback": "snapshot rollback --allow-shrink",
    "snapshot.seal": "snapshot seal {place}/closed/copy.mdb --out {dir}/sealed.mdb",
    "snapshot.install": "snapshot install --take-over {place}/closed/copy.mdb",
    "quota.grant": "quota grant --owner acme --amount 100 --reason test",
    "quota.reset": "quota reset --owner acme",
    "quota.show": "quota show {key0}",
    "audit.list": "audit list",
    "audit.verify": "audit verify",
    "audit.revert": "audit revert {owner_set}",
    "registry.show": "registry show",
    "registry.set": "registry set --prefix acme",
    "registry.adopt": "registry adopt --reason moved",
    "node.list": "node list",
    "node.prune": "node prune --yes",
    "usage": "usage --by owner",
    "usage.collect": "usage collect --quiet",
    "usage.statement": "usage statement --owner acme --month {month}",
    "usage.prune": "usage prune --before 2026-01-01 --yes",
    "usage.merge": "usage merge {place}/closed/other.ndjson",
    "audit.archive": "audit archive {dir}/old.ndjson --before {now}",  # last: others need the entries
}
# These need an nginx: t/nginx/test_service_user.py. What they refuse they refuse after they have looked at the directory.
MAY_REFUSE = {"why", "check", "locations", "usage.collect", "approval.show", "approval.approve", "approval.refuse"}


def prepare(place, owned):
    """What the commands need: files of root's in a directory that is closed to everybody else, and some keys."""
    owned.made += [owned.key("acme", "--no-publish") for _ in range(3)]
    (place / "closed").mkdir(mode=0o700)
    shutil.copy(owned.snapshot, place / "closed" / "copy.mdb")
    for name, text in (("closed/other.ndjson", ""), ("apikey.log", ""),
                       ("keys.csv", "key,owner\nlegacy-key-0123456789abcdef,new\n")):
        (place / name).write_text(text)
        (place / name).chmod(0o600)
    names = {f"key{number}": made["id"] for number, made in enumerate(owned.made)}
    return names | {"place": place, "dir": owned.dir, "now": second_after_the_first_entry(owned),
                    "month": f"{datetime.now(timezone.utc):%Y-%m}"}


def second_after_the_first_entry(tool):
    first = datetime.fromisoformat(tool.audit()[0]["time"].replace("Z", "+00:00")) + timedelta(seconds=1)
    wait_until(lambda: datetime.now(timezone.utc) > first, what="the next second")
    return f"{first:%Y-%m-%dT%H:%M:%SZ}"


def test_every_command_is_run_below():
    assert set(EXPECTED) <= set(RUNS)


def test_no_command_of_root_leaves_anything_of_roots(place, owned):
    names = prepare(place, owned)
    assert not_of(owned) == []
    lines = {command: RUNS[command] for command in RUNS if command in EXPECTED} | {"at Tab": "complete-words owner show a"}
    for command, line in lines.items():
        names["owner_set"] = owned.audit("--action", "owner.set")[-1]["seq"] if command == "audit.revert" else None
        if command == "snapshot.install":  # an older one is refused
            shutil.move(owned.snapshot, place / "closed" / "copy.mdb")
        words = line.format(**names).split()
        done = subprocess.run([KEYLOADER, *words], env=owned.environment(), capture_output=True, text=True, check=False,
                              input=owned.made[0]["key"], timeout=60)
        assert done.returncode == 0 or (command in MAY_REFUSE and done.returncode == 1), (line, done.stderr)
        assert not_of(owned) == [], line
        open_to_others = [path for path in tree(owned) if stat.S_IMODE(path.lstat().st_mode) & 0o007]
        assert open_to_others == [], line
    for name, mode, group in ((".", 0o2750, GID), ("history", 0o2750, GID), ("registry.db", 0o600, None),
                              ("usage.db", 0o600, None), ("peppers", 0o2700, None), ("peppers/p2", 0o600, None),
                              ("keys.mdb", 0o640, GID), ("publish.lock", 0o600, None)):
        found = (owned.dir / name).stat()
        assert (stat.S_IMODE(found.st_mode) | (mode & 0o2000), group or found.st_gid) == (mode, found.st_gid), name
    owned("audit", "verify")


def test_the_audit_knows_who_it_was(owned):
    done = subprocess.run([KEYLOADER, "owner", "create", "jane"], capture_output=True, text=True, check=True,
                          env={**owned.environment(), "SUDO_USER": "jane", "SUDO_UID": "1000"})
    assert "created owner jane" in done.stdout
    entry = owned.audit("--object", "jane")[0]
    assert entry["actor"] == {"uid": 0, "user": "root", "sudo_user": "jane", "sudo_uid": "1000"}


def test_the_process_has_no_way_back(owned):
    """While it waits for its input every id is the owner's, and of root's rights only reading is kept, not used."""
    running = owned.start("import", "-", "--format", "csv", stdin=subprocess.PIPE)
    running.stdin.write("key,owner\n" + "legacy-key-0123456789abcdef,acme\n" * 3000)  # more than a pipe holds: it has begun
    running.stdin.flush()
    status = dict(re.findall(r"^(\w+):\t(.*)$", open(f"/proc/{running.pid}/status", encoding="ascii").read(), re.MULTILINE))
    running.stdin.close()
    running.wait()
    running.stdout.close()
    running.stderr.close()
    assert status["Uid"].split() == [str(OWNER.pw_uid)] * 4
    assert status["Gid"].split() == [str(OWNER.pw_gid)] * 4
    assert str(GID) in status["Groups"].split() and "0" not in status["Groups"].split()
    assert int(status["CapPrm"], 16) & ~(1 << 2) == 0 and int(status["CapEff"], 16) == 0
    assert int(status["CapInh"], 16) == 0 and status["NoNewPrivs"] == "1"


def test_a_link_in_the_directory_leads_nowhere(owned, place):
    """Its owner may put one there; root's keyloader writes and takes nothing behind it."""
    target = place / "roots"
    target.mkdir(mode=0o700)
    (target / "secret").write_text("0" * 64)
    shutil.rmtree(owned.dir / "history")
    (owned.dir / "history").symlink_to(target)
    (owned.dir / "keys.mdb").unlink()
    (owned.dir / "keys.mdb").symlink_to(target / "secret")
    for arguments in (["publish"], ["snapshot", "show"], ["init"], ["status"]):
        done = subprocess.run([KEYLOADER, *arguments], env=owned.environment(), capture_output=True, text=True, check=False)
        assert "0000" not in done.stdout + done.stderr
    assert sorted(os.listdir(target)) == ["secret"] and target.stat().st_mode & 0o7777 == 0o700
    assert target.stat().st_gid == 0 and (target / "secret").read_text() == "0" * 64


def test_where_the_owner_may_not_write_is_said(owned, place):
    (place / "closed").mkdir(mode=0o700)
    said = owned.refused("audit", "archive", place / "closed" / "old", "--before",
                         second_after_the_first_entry(owned))
    assert f"Permission denied; keyloader works as {OWNER.pw_name}, the owner of {owned.dir}" in said
    (place / "closed" / "way").mkdir()
    shutil.move(owned.dir, place / "closed" / "way" / "node")
    hidden = type(owned)(place / "closed" / "way" / "node")
    assert f"belongs to {OWNER.pw_name}, who may not get to it" in hidden.refused("key", "list")


def test_node_memory_that_only_root_may_see(owned, place, monkeypatch):
    """As in /dev/shm/apikey-0: it is found, read, written to and removed."""
    monkeypatch.setenv("APIKEY_RUNTIME", str(place / "run"))
    node = FakeNode(place / "run", owned.snapshot, methods="sha256 hmac-sha256:p1")
    os.chown(node.inbox, -1, GID)
    (place / "run").chmod(0o700)
    node.take(owned)
    assert owned.json("status")["active"] is True
    assert [path.name for path in (owned.dir / "nodes").iterdir()] != [] and not_of(owned) == []
    assert owned("key", "set", owned.made[0]["id"], "--name", "x", "--no-wait").returncode == 0
    node.die()
    assert str(node.state) in owned("node", "prune", "--yes").stdout
    assert os.listdir(place / "run") == [] and os.listdir(owned.dir / "nodes") == []
    node.close()


# -- init --user

def test_a_directory_of_root_is_taken_over_and_back(roots):
    before, generation = modes(roots), roots.generation()
    said = roots("init", "--user", OWNER.pw_name).stdout
    assert re.search(rf"gave \d+ files and directories in {roots.dir} to {OWNER.pw_name}\n", said)
    assert not_of(roots) == [] and modes(roots) == before and roots.generation() == generation
    entry = roots.audit("--action", "registry.owner")[-1]
    assert (entry["before"], entry["after"], entry["actor"]["user"]) == ({"user": "root"}, {"user": OWNER.pw_name}, "root")
    again = roots("init", "--user", OWNER.pw_name).stdout
    assert f"and what is in it belong to {OWNER.pw_name} already" in again
    assert len(roots.audit("--action", "registry.owner")) == 1 and not_of(roots) == []
    assert roots.json("init", "--user", "root")["user"] == "root"
    assert not_of(roots, 0) == [] and modes(roots) == before
    assert len(roots.audit("--action", "registry.owner")) == 2
    roots("audit", "verify")
    assert roots.json("status")["problems"] == []


def test_what_an_earlier_version_left_is_mended(owned):
    """Root published into the directory of another user: keys.mdb and its second name in history/ are root's."""
    for path in (owned.snapshot, owned.dir / "registry.db-wal", owned.dir / "publish.lock"):
        os.chown(path, 0, -1)
    found = [one for one in json.loads(owned.start("doctor", "--json").communicate()[0]) if one["check"] == "file-owners"]
    assert found[0]["result"] == "wrong" and "keys.mdb (root)" in found[0]["sentence"]
    assert f"not to {OWNER.pw_name}, who owns the directory" in found[0]["sentence"]
    command = re.search("`keyloader (.*)`", found[0]["remedy"])[1]
    owned(*command.split())
    assert not_of(owned) == []
    found = [one for one in json.loads(owned.start("doctor", "--json").communicate()[0]) if one["check"] == "file-owners"]
    assert [one["result"] for one in found] == ["fine"]


def test_links_are_not_followed(roots, place):
    (place / "foreign").write_text("x")
    (place / "elsewhere").mkdir()
    (place / "elsewhere" / "file").write_text("x")
    (roots.dir / "usage.db-x").symlink_to(place / "foreign")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(roots.dir / "usage.sock"))
        roots("init", "--user", OWNER.pw_name)
    for path in (place / "foreign", place / "elsewhere", place / "elsewhere" / "file", roots.dir / "usage.sock"):
        assert path.lstat().st_uid == 0, path
    (place / "link").symlink_to(roots.dir)
    assert "is not a directory" in roots.refused("--dir", place / "link", "init", "--user", "root")
    assert roots.dir.stat().st_uid == OWNER.pw_uid


def owners_and_modes(tool):
    return {path: (path.lstat().st_uid, path.lstat().st_gid, path.lstat().st_mode) for path in tree(tool)}


@pytest.mark.parametrize("name", ["history", "peppers", "nodes"])
def test_a_link_that_the_owner_left_is_refused(owned, place, name):
    """Root's keyloader would follow it from then on."""
    (place / "elsewhere").mkdir()
    shutil.rmtree(owned.dir / name, ignore_errors=True)
    (owned.dir / name).symlink_to(place / "elsewhere")
    before = owners_and_modes(owned)
    said = owned.refused("init", "--user", "root")
    assert f"{owned.dir / name} is a link, and keyloader would follow it" in said and "nothing was changed" in said
    assert owners_and_modes(owned) == before


@pytest.mark.parametrize("name", ["usage.db", "history/1.mdb", "peppers/p9"])
def test_a_pipe_that_the_owner_left_is_refused(owned, name):
    (owned.dir / name).unlink(missing_ok=True)
    os.mkfifo(owned.dir / name)
    before = owners_and_modes(owned)
    assert f"{owned.dir / name} is a named pipe" in owned.refused("init", "--user", "root")
    assert owners_and_modes(owned) == before


def test_the_former_owner_keeps_no_right_to_write(owned):
    paths = [owned.dir, owned.dir / "history", owned.dir / "peppers", owned.dir / "peppers" / "p1", owned.snapshot,
             owned.dir / "registry.db"]
    before = modes(owned)
    for path in paths:
        path.chmod(path.stat().st_mode | 0o022)
    owned("init", "--user", "root")
    assert not_of(owned, 0) == [] and modes(owned) == before


@pytest.mark.parametrize("name", ["registry.db", "keys.mdb", "peppers/p1"])
def test_a_file_that_the_former_owner_has_elsewhere_too_is_refused(owned, place, name):
    """He could go on writing it there."""
    os.link(owned.dir / name, place / "mine")
    before = owners_and_modes(owned)
    said = owned.refused("init", "--user", "root")
    assert "another name outside of the directory, so it is not given to root" in said
    assert owners_and_modes(owned) == before
    owned("init", "--user", OWNER.pw_name)  # it is his already
    (place / "mine").unlink()
    owned("init", "--user", "root")
    assert not_of(owned, 0) == []


@pytest.mark.parametrize("there", [True, False])
def test_a_place_that_the_user_cannot_get_to_is_refused_before_anything_is_changed(roots, place, there):
    (place / "closed").mkdir(mode=0o700)
    (place / "closed" / "way").mkdir(mode=0o755)
    if there:
        shutil.move(roots.dir, place / "closed" / "way" / "node")
    hidden = type(roots)(place / "closed" / "way" / "node")
    before = owners_and_modes(hidden) if there else None
    for more in ([], ["--dry-run"], ["--dir", f"{hidden.dir}/"]):
        said = hidden.refused("init", "--user", OWNER.pw_name, *more)
        assert f"is not given to {OWNER.pw_name}, who may not get to it: a directory above it is closed" in said
        assert "nothing was changed" in said
        assert (owners_and_modes(hidden) if there else hidden.dir.exists()) == (before or False)
    (place / "closed").chmod(0o711)
    hidden("init", "--user", OWNER.pw_name)
    assert not_of(hidden) == []


# What the former owner may do, or the machine, while root takes the directory over.
IN_BETWEEN = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int fchownat(int directory, const char* name, uid_t user, gid_t group, int flags) {
  static int calls;
  if (getenv("KILL_AT") && ++calls == atoi(getenv("KILL_AT"))) kill(getpid(), SIGKILL);
  return ((int (*)(int, const char*, uid_t, gid_t, int))dlsym(RTLD_NEXT, "fchownat"))(directory, name, user, group, flags);
}
static int open_it(int directory, const char* name, int flags) {
  int fd = ((int (*)(int, const char*, int, ...))dlsym(RTLD_NEXT, "openat"))(directory, name, flags, 0);
  if (getenv("RENAME") && strcmp(name, "history") == 0) {
    unsetenv("RENAME");
    if (renameat(directory, "history", directory, "nodes") != 0) abort();
  }
  return fd;
}
int openat(int directory, const char* name, int flags, ...) { return open_it(directory, name, flags); }
int __openat_2(int directory, const char* name, int flags) { return open_it(directory, name, flags); }
"""


@pytest.fixture
def in_between(place):
    (place / "between.c").write_text(IN_BETWEEN)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", place / "between.so", place / "between.c", "-ldl"], check=True)
    return {"LD_PRELOAD": str(place / "between.so")}


def test_a_directory_that_is_renamed_meanwhile_is_not_entered_twice(owned, place, in_between):
    """Its files would be counted twice, and one with another name outside taken for one without."""
    (place / "shadow").write_text("x")
    os.link(place / "shadow", owned.dir / "history" / "99.mdb")
    done = subprocess.run([KEYLOADER, "init", "--user", "games"], env={**owned.environment(), **in_between, "RENAME": "1"},
                          capture_output=True, text=True, check=False)
    assert done.returncode == 1 and re.search("(history|nodes) was renamed or replaced while this looked at it", done.stderr)
    assert (place / "shadow").stat().st_uid == 0 and owned.dir.stat().st_uid == OWNER.pw_uid
    assert not_of(owned) == [str(owned.dir / "nodes" / "99.mdb")]


def distrusted(tool):
    """What nginx would not take: of nobody it trusts (ngx_http_apikey_conf_pepper.cpp, …_candidate.cpp)."""
    return [path.name for path in (tool.snapshot, *(tool.dir / "peppers").iterdir())
            if path.stat().st_uid not in (0, tool.dir.stat().st_uid)]


@pytest.mark.parametrize("user", [OWNER.pw_name, "root"])
def test_nginx_starts_wherever_a_take_over_is_killed(roots, place, in_between, user):
    if user == "root":
        roots("init", "--user", OWNER.pw_name)
    former, uid = pwd.getpwuid(roots.dir.stat().st_uid).pw_name, pwd.getpwnam(user).pw_uid
    told = len(roots.audit("--action", "registry.owner"))
    shutil.copytree(roots.dir, place / "kept")
    kept = {path.relative_to(roots.dir): path.stat() for path in tree(roots)}
    for at in range(1, 200):
        for name, was in kept.items():
            os.chown(roots.dir / name, was.st_uid, was.st_gid)
        run = subprocess.run([KEYLOADER, "init", "--user", user], capture_output=True, check=False,
                             env={**roots.environment(), **in_between, "KILL_AT": str(at)})
        if run.returncode == 0:
            break
        assert run.returncode == -signal.SIGKILL and distrusted(roots) == [], at
    else:
        raise AssertionError("it never came to an end")
    assert at > len(kept) and not_of(roots, uid) == []
    assert len(roots.audit("--action", "registry.owner")) == told + 1


def test_what_was_left_half_done_is_completed_and_told(roots, in_between):
    for last in (False, True):  # before the directory is given, and behind it
        at = len(tree(roots)) + 5 if last else 2
        subprocess.run([KEYLOADER, "init", "--user", OWNER.pw_name], env={**roots.environment(), **in_between, "KILL_AT": str(at)},
                       check=False, capture_output=True)
        assert (roots.dir.stat().st_uid == OWNER.pw_uid) is last and not_of(roots) != []
        roots("init", "--user", OWNER.pw_name)
        assert not_of(roots) == []
        entry = roots.audit("--action", "registry.owner")[-1]
        assert (entry["before"], entry["after"]) == ({"user": "root"}, {"user": OWNER.pw_name}), at
        roots("init", "--user", "root")
    assert len(roots.audit("--action", "registry.owner")) == 4


def test_a_hard_link_to_a_file_of_others_is_refused(owned, place):
    (place / "shadow").write_text("x")
    os.link(place / "shadow", owned.dir / "history" / "99.mdb")
    os.link(place / "shadow", owned.dir / "history" / "98.mdb")
    before = {path: path.lstat().st_uid for path in tree(owned)}
    said = owned.refused("init", "--user", OWNER.pw_name)
    assert re.search(r"history/9[89].mdb belongs to root and has another name outside of the directory", said)
    assert {path: path.lstat().st_uid for path in tree(owned)} == before and (place / "shadow").stat().st_uid == 0
    (place / "shadow").unlink()
    owned("init", "--user", OWNER.pw_name)
    assert not_of(owned) == []


def test_a_user_that_there_is_not(fresh):
    said = fresh.refused("init", "--user", "nosuchuser")
    assert 'no user "nosuchuser"' in said and "`adduser --system --no-create-home --group nosuchuser`" in said
    assert "into the group of nginx's workers with `adduser nosuchuser www-data`" in said
    assert not fresh.dir.exists()


def test_a_directory_that_is_not_ours_is_not_given_away(fresh):
    fresh.dir.mkdir()
    (fresh.dir / "nodes").mkdir()
    (fresh.dir / "passwd").write_text("")
    assert "holds passwd, and neither registry.db nor keys.mdb" in fresh.refused("init", "--user", OWNER.pw_name)
    assert [path.lstat().st_uid for path in (fresh.dir, fresh.dir / "passwd")] == [0, 0]
    (fresh.dir / "passwd").unlink()
    fresh("init", "--user", OWNER.pw_name)
    assert not_of(fresh) == []


def test_only_root_gives_away(owned):
    done = as_user(owned, "init", "--user", "nobody")
    assert done.returncode == 1 and "only root can give" in done.stderr
    assert f"`sudo keyloader --dir {owned.dir} init --user nobody`" in done.stderr
    assert not_of(owned) == []


def test_a_dry_run_changes_nothing(roots):
    before = {path: path.lstat().st_uid for path in tree(roots)}
    said = roots("init", "--user", OWNER.pw_name, "--dry-run").stdout
    assert f"gave the directory to {OWNER.pw_name}" in said
    assert {path: path.lstat().st_uid for path in tree(roots)} == before


def test_a_node_without_a_registry(roots):
    node = roots.beside("second")
    node.dir.mkdir()
    node("snapshot", "install", roots.snapshot)
    assert f"to {OWNER.pw_name}" in node("init", "--user", OWNER.pw_name).stdout
    assert not_of(node) == [] and not (node.dir / "registry.db").exists()
    roots.key()
    node("snapshot", "install", roots.snapshot)
    assert not_of(node) == []


def test_groups_of_root_still_can_be_given(owned):
    said = owned("init", "--reader-group", "games").stdout
    assert "the group games can read registry.db and usage.db; `keyloader init --reader-group none` takes that back" in said
    assert (owned.dir / "registry.db").stat().st_gid == grp.getgrnam("games").gr_gid
    assert as_user(owned, "key", "list", groups=[grp.getgrnam("games").gr_gid]).returncode == 0
    owned("init", "--group", "games")
    assert owned.dir.stat().st_gid == grp.getgrnam("games").gr_gid and not_of(owned) == []


@pytest.mark.skipif(not CAN_MOUNT, reason="needs mounts of its own")
def test_doctor_knows_the_user_of_the_package(roots, place):
    (place / "passwd").write_text(open("/etc/passwd", encoding="utf-8").read() + "apikey:x:998:998::/:/usr/sbin/nologin\n")
    done = subprocess.run(["unshare", "-m", "sh", "-c", f'mount --bind {place}/passwd /etc/passwd && exec {KEYLOADER} doctor'],
                          env=roots.environment(), capture_output=True, text=True, check=False)
    assert f"notice directory-user: {roots.dir} belongs to root, and there is a user apikey" in done.stdout
    assert f"Run `keyloader --dir {roots.dir} init --user apikey` as root" in done.stdout
    assert "directory-user" not in roots.start("doctor").communicate()[0]
