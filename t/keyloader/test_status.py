"""keyloader status: registry, published snapshot and each nginx on one screen; exit code 3 where they differ."""

import json
import os
import re
import shutil

from harness.fake_node import FENCED


def test_without_an_nginx(keyloader, runtime):
    keyloader("key", "create", "--owner", "web", "--create-owner", "--expires", "10d")
    shown = keyloader("status").stdout
    assert re.search(r"^registry +[0-9a-f]{32} in .*: generation 2, no change since$", shown, re.MULTILINE)
    assert re.search(r"^keys +1 key: 1 active; 1 of the active ones ends within 14 days$", shown, re.MULTILINE)
    assert re.search(r"^published +generation 2 with 1 key, \d{4}-", shown, re.MULTILINE)
    assert re.search(r"^nginx +no nginx is known that reads this directory's keys.mdb$", shown, re.MULTILINE)
    assert re.search(r"^usage +never collected$", shown, re.MULTILINE)
    assert keyloader.json("status")["active"] is None


def test_keys_are_counted_by_state(keyloader, runtime):
    made = [keyloader.json("key", "create", "--owner", "web", "--create-owner", "--no-publish")["id"] for _ in range(4)]
    keyloader("key", "revoke", made[0], "--no-publish")
    keyloader("key", "suspend", made[1], "--no-publish")
    assert json.loads(keyloader("status", "--json", status=3).stdout)["keys"]["states"] == {
        "active": 2, "revoked": 1, "suspended": 1}
    keyloader("owner", "suspend", "web")
    assert keyloader.json("status")["keys"]["states"] == {"revoked": 1, "suspended": 3}


def test_what_is_not_published(keyloader, runtime):
    keyloader("plan", "create", "a", "--no-publish")
    done = keyloader("status", status=3)
    assert "with changes since" in done.stdout
    assert done.stderr == ("keyloader: the registry has changes that are not published: run `keyloader publish`\n")


def test_an_nginx_that_uses_it(keyloader, nginx):
    shown = keyloader("status").stdout
    assert re.search(r"^nginx +nginx \(pid 4242\) uses generation 1 since \d{4}-", shown, re.MULTILINE)
    assert "workers 4243, 4244: generation 1, open" in shown
    of_nginx = keyloader.json("status")["nginx"][0]
    assert (of_nginx["pid"], of_nginx["live"], of_nginx["module"], of_nginx["nginx"]) == (4242, True, "0.1.0", "1.22.1")
    assert [worker["state"] for worker in of_nginx["stores"][0]["workers"]] == ["open", "open"]
    assert keyloader.json("status")["active"] is True


def test_an_nginx_that_refused_it(keyloader, nginx):
    keyloader("plan", "create", "a", "--no-wait")
    shown = keyloader.json("snapshot", "show")
    nginx.refuse(shown["sha256"], "it is not to my taste")
    done = keyloader("status", status=3)
    assert "last refused a file at" in done.stdout and "it is not to my taste" in done.stdout
    assert "generation 2 is published, but nginx (pid 4242) still uses generation 1: it is not to my taste" in done.stderr
    report = json.loads(keyloader("status", "--json", status=3).stdout)
    assert report["active"] is False and len(report["problems"]) == 1
    assert report["nginx"][0]["stores"][0]["last_refusal"]["sentence"] == "it is not to my taste"


def test_a_fenced_worker_is_shown(keyloader, nginx):
    nginx.acknowledge(1, 1, FENCED)
    assert "worker 4244: generation 1, fenced" in keyloader("status").stdout


def test_a_stopped_nginx(keyloader, nginx):
    nginx.die()
    done = keyloader("status", status=3)
    assert "nginx (pid 4242, gone) uses generation 1" in done.stdout and "is not running" in done.stderr


def test_an_nginx_nobody_can_see(keyloader, nginx):
    keyloader("plan", "create", "a", "--no-wait")
    nginx.die()
    nginx.state.unlink()
    assert "nobody can see what that nginx does" in keyloader("status", status=3).stdout


def test_a_damaged_snapshot(keyloader, runtime):
    with open(keyloader.snapshot, "r+b") as file:
        file.seek(5000)
        file.write(b"\xff" * 64)
    done = keyloader("status", status=3)
    assert "cannot be used" in done.stdout and "run `keyloader publish`" in done.stderr


def test_another_registrys_snapshot(keyloader, runtime, tmp_path):
    other = tmp_path / "other"
    keyloader("--dir", str(other), "init")
    os.replace(other / "keys.mdb", keyloader.snapshot)
    assert "keys.mdb is from another registry" in keyloader("status", status=3).stderr


def test_an_older_copy_of_the_registry(keyloader, runtime, tmp_path):
    shutil.copytree(keyloader.dir, tmp_path / "old")
    keyloader("plan", "create", "a")
    shutil.copy(keyloader.snapshot, tmp_path / "old" / "keys.mdb")
    said = keyloader.beside("old")("status", status=3).stderr
    assert "keys.mdb is generation 2, and the registry ends at generation 1: it is an older copy" in said


def test_a_node_with_a_snapshot_only(keyloader, nginx):
    for path in keyloader.dir.glob("registry.db*"):
        path.unlink()
    shown = keyloader("status").stdout
    assert f"none in {keyloader.dir}: this node has only a snapshot" in shown
    assert "uses generation 1" in shown and keyloader.json("status")["registry"] is None
    said = keyloader.refused("key", "list")
    assert f"there is no registry in {keyloader.dir}, only a snapshot" in said and "from a backup" in said


def test_nothing_at_all(keyloader, tmp_path):
    assert "there is no registry" in keyloader("--dir", str(tmp_path / "none"), "status", status=1).stderr


def test_a_rollback_is_shown(keyloader, runtime):
    keyloader("plan", "create", "a")
    keyloader("snapshot", "rollback")
    done = keyloader("status", status=3)
    assert re.search(r"^published +generation 3 .* \(rolled back to the content of 1\)$", done.stdout, re.MULTILINE)
    assert "no change since" not in done.stdout
    assert "generation 3 was rolled back to the content of 1" in done.stderr and "`keyloader publish`" in done.stderr
    report = json.loads(keyloader("status", "--json", status=3).stdout)
    assert (report["published"]["rolled_back_to"], report["registry"]["is_rolled_back"]) == (1, True)
    keyloader("publish")
    report = keyloader.json("status")
    assert (report["published"]["rolled_back_to"], report["registry"]["is_rolled_back"]) == (None, False)


def test_a_lost_registry(keyloader, runtime):
    (keyloader.dir / "registry.db").unlink()
    done = keyloader("status", status=3)
    assert f"none in {keyloader.dir}: it was lost" in done.stdout
    assert "bring registry.db back from a backup" in done.stderr


def test_a_node_has_peppers_and_no_registry(keyloader, runtime):
    keyloader("pepper", "create", "p1")
    for path in keyloader.dir.glob("registry.db*"):
        path.unlink()
    assert "this node has only a snapshot" in keyloader("status").stdout
