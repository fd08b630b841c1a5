"""What keyloader reads in node memory: when a change is active, what it says when it is not, and what it refuses to publish.

The nginx here is only its node memory (harness/fake_node.py); t/nginx/test_node_push.py has a real one.
"""

import json
import os
import subprocess
import time

import pytest

from harness.fake_node import FENCED, OPEN, UNCHECKED, VETOED, WORKER_ROWS, FakeNode
from harness.paths import IS_ROOT, KEYLOADER
from harness.state import announcement
from harness.waiting import wait_until


def published(keyloader, generation):
    wait_until(lambda: keyloader.generation() == generation, what=f"generation {generation}")


def end(child):
    out, err = child.communicate(timeout=90)
    return child.returncode, out, err


def run(keyloader, nginx, *words, play):
    """`play`: what nginx does once the change is published. RETURNS: exit code, output, errors."""
    before = keyloader.generation()
    child = keyloader.start(*words)
    published(keyloader, before + 1)
    shown = keyloader.json("snapshot", "show")
    play(shown["generation"], shown["registry_id"], shown["sha256"])
    return end(child)


def run_again(keyloader, *words, play):
    """The same for what stays so: `play` is over before a second run of the command begins to wait."""
    keyloader(*words, "--no-wait")
    shown = keyloader.json("snapshot", "show")
    play(shown["generation"], shown["registry_id"], shown["sha256"])
    return end(keyloader.start(*words, "--wait", "1s"))


def test_active_when_every_worker_has_acknowledged(keyloader, nginx):
    child = keyloader.start("plan", "create", "a", "--wait", "60s")
    published(keyloader, 2)
    shown = keyloader.json("snapshot", "show")
    nginx.adopt(2, shown["registry_id"], shown["sha256"])
    for row in range(2):
        time.sleep(0.2)  # that it does not end before; nothing tells when it has looked
        assert child.poll() is None
        nginx.acknowledge(row, 2)
    assert end(child)[0] == 0


def test_words_and_json(keyloader, nginx):
    def take(*_):
        nginx.take(keyloader)
    code, out, err = run(keyloader, nginx, "plan", "create", "a", "--wait", "60s", play=take)
    assert (code, err) == (0, "")
    assert out == "created plan a: unlimited\npublished generation 2 (0 keys); active in nginx (pid 4242)\n"
    code, out, err = run(keyloader, nginx, "plan", "create", "b", "--wait", "60s", "--json", play=take)
    answer = json.loads(out)
    assert (code, err, answer["generation"], answer["active"]) == (0, "", 3, True) and "problem" not in answer


@pytest.mark.parametrize("state", [OPEN, FENCED])
def test_a_fenced_worker_counts(keyloader, nginx, state):
    def play(generation, registry, seal):
        nginx.adopt(generation, registry, seal)
        nginx.acknowledge(0, generation)
        nginx.acknowledge(1, generation, state)
    assert run(keyloader, nginx, "plan", "create", "a", "--wait", "60s", play=play)[0] == 0


def test_a_worker_that_lets_everything_pass_does_not_count(keyloader, nginx):
    """on_error=allow: it cannot open the snapshot, and decides nothing."""
    def play(generation, registry, seal):
        nginx.adopt(generation, registry, seal)
        nginx.acknowledge(0, generation)
        nginx.acknowledge(1, generation, UNCHECKED)
    code, _, err = run_again(keyloader, "plan", "create", "a", play=play)
    assert code == 3 and "worker (pid 4244) that cannot open it and lets requests pass unchecked" in err


def test_workers_that_nobody_can_see(keyloader, runtime):
    """All rows are taken: there may be one more, without a row."""
    node = FakeNode(runtime, keyloader.snapshot, workers=range(5000, 5000 + WORKER_ROWS))
    node.take(keyloader)
    take = lambda *_: node.take(keyloader)  # noqa: E731
    code, _, err = run_again(keyloader, "plan", "create", "a", play=take)
    assert code == 3 and f"all {WORKER_ROWS} rows for workers are taken" in err
    node.worker_gone(WORKER_ROWS - 1)
    assert run(keyloader, node, "plan", "create", "b", "--wait", "60s", play=take)[0] == 0
    node.close()


def announce(keyloader, state):
    (keyloader.dir / "nodes").mkdir(mode=0o755, exist_ok=True)
    (keyloader.dir / "nodes" / "x.json").write_text(json.dumps({"state": str(state), "store": str(keyloader.snapshot)}))


def test_what_is_announced_and_cannot_be_read_is_not_active(keyloader, tmp_path):
    """An nginx in a container whose files are not to be seen from here."""
    place = tmp_path / "hidden" / "api.state"
    announce(keyloader, place)
    done = keyloader("plan", "create", "a", "--wait", "1s", status=3)
    assert f"{place} is announced in nodes/ of this directory, but it is not there" in done.stderr
    place.parent.mkdir()
    place.write_bytes(b"x" * 8192)
    sentence = keyloader("plan", "create", "b", "--wait", "1s", status=3).stderr
    assert str(place) in sentence and "nobody can see what that nginx does" in sentence
    # Nor is it told to take anything over.
    before = keyloader.snapshot.read_bytes()
    assert "nothing was published" in keyloader.refused("publish", "--take-over", "--reason", "restored")
    assert keyloader.snapshot.read_bytes() == before
    # It stays until it is known to be gone.
    assert str(place) not in keyloader("node", "prune", "--yes").stdout
    place.unlink()
    assert "--yes" in keyloader.refused("node", "prune", status=2)
    assert f"removed the announcement of {place}" in keyloader("node", "prune", "--yes").stdout
    keyloader("plan", "create", "c")


def test_an_nginx_that_starts_while_keyloader_waits_counts(keyloader, nginx, runtime):
    """The binary upgrade, or a restart: its file is another one."""
    replaced = {}

    def play(*_):
        nginx.die()
        nginx.state.unlink()
        replaced["node"] = FakeNode(runtime, keyloader.snapshot, pid=5252)
        time.sleep(0.3)  # that it is seen without the change
        replaced["node"].take(keyloader)
    code, out, _ = run(keyloader, nginx, "plan", "create", "a", "--wait", "60s", play=play)
    assert code == 0 and "active in nginx (pid 5252)" in out
    replaced["node"].close()


def test_an_nginx_that_is_stopped_is_not_active(keyloader, nginx):
    nginx.die()
    refused = keyloader("plan", "create", "a", status=3).stderr
    assert refused == ("keyloader: generation 2 (0 keys) is published, but nginx (pid 4242), which reads it, is not "
                       "running and will take it at the next start\n")
    made = keyloader("key", "create", "--owner", "web", "--create-owner")
    assert made.stdout.startswith("ak_live_") and "is not running" in made.stderr, "the key is made: exit code 0"
    assert "is not running" in keyloader("plan", "create", "b", "--wait", "1s", status=3).stderr
    keyloader("node", "prune", "--yes")
    assert "no running nginx is known" in keyloader("plan", "create", "c").stdout


def test_waiting_where_no_nginx_is_known(keyloader, runtime):
    """--wait was written: anything but active is exit code 3, and an nginx that is started meanwhile counts."""
    assert "no running nginx is known" in keyloader("plan", "create", "a", "--wait", "1s", status=3).stderr
    child = keyloader.start("plan", "create", "b", "--wait", "60s")
    published(keyloader, 3)
    node = FakeNode(runtime, keyloader.snapshot)
    node.take(keyloader)
    code, out, _ = end(child)
    assert code == 0 and "active in nginx (pid 4242)" in out
    node.close()


def test_a_stopped_nginx_does_not_count_beside_one_that_runs(keyloader, nginx, runtime):
    second = FakeNode(runtime, keyloader.snapshot, name="api-aaaaaaaaaaaaaaaa", pid=5252, workers=(5253,))
    second.die()
    code, out, _ = run(keyloader, nginx, "plan", "create", "a", "--wait", "60s", play=lambda *_: nginx.take(keyloader))
    assert code == 0 and out.endswith("active in nginx (pid 4242)\n")
    second.close()


def test_an_announcement_follows_no_link(keyloader, nginx, tmp_path):
    """The directory may belong to somebody with fewer rights than ours."""
    other = tmp_path / "other"
    other.mkdir()
    (keyloader.dir / "nodes").symlink_to(other)
    keyloader("plan", "create", "a", "--no-wait")
    assert list(other.iterdir()) == []
    (keyloader.dir / "nodes").unlink()
    (keyloader.dir / "nodes").mkdir(mode=0o755)
    victim = other / "victim"
    victim.write_text("untouched")
    (keyloader.dir / "nodes" / announcement(nginx.state)).symlink_to(victim)
    (keyloader.dir / "nodes" / (announcement(nginx.state) + ".new")).symlink_to(victim)
    keyloader("plan", "create", "b", "--no-wait")
    assert victim.read_text() == "untouched"


def test_a_worker_that_hangs_is_named(keyloader, nginx):
    def play(generation, registry, seal):
        nginx.adopt(generation, registry, seal)
        nginx.acknowledge(0, generation)
    code, out, err = run_again(keyloader, "plan", "create", "a", play=play)
    assert (code, out) == (3, "plan a exists already, just like this: unlimited\n")
    assert err.startswith("keyloader: generation 2 (0 keys) is published, but nginx (pid 4242) has a worker (pid 4244)")


def test_a_worker_that_is_gone_does_not_count(keyloader, nginx):
    nginx.worker_gone(1)

    def play(generation, registry, seal):
        nginx.adopt(generation, registry, seal)
        nginx.acknowledge(0, generation)
    assert run(keyloader, nginx, "plan", "create", "a", "--wait", "60s", play=play)[0] == 0


def test_an_acknowledgement_of_another_registrys_higher_generation_does_not_count(keyloader, nginx):
    def play(generation, registry, seal):
        nginx.adopt(generation, registry, seal)
        for row in range(2):
            nginx.acknowledge(row, 500, change=1)
    assert run_again(keyloader, "plan", "create", "a", play=play)[0] == 3


def test_nothing_happens(keyloader, nginx):
    began = time.monotonic()
    done = keyloader("plan", "create", "a", status=3)
    assert 2 <= time.monotonic() - began < 30
    assert "is published, but nginx (pid 4242) still uses generation 1" in done.stderr
    answer = json.loads(keyloader("plan", "create", "b", "--json", "--wait", "1s", status=3).stdout)
    assert (answer["generation"], answer["active"], answer["name"]) == (3, False, "b") and "still uses" in answer["problem"]
    assert "not waited" in keyloader("plan", "create", "c", "--no-wait").stdout
    # A second time there is nothing to change, but it is not active either.
    assert "generation 4" in keyloader("plan", "create", "c", "--wait", "1s", status=3).stderr


def test_a_refusal_ends_the_wait_with_its_sentence(keyloader, nginx):
    began = time.monotonic()
    code, _, err = run(keyloader, nginx, "plan", "create", "a", "--wait", "50s",
                       play=lambda _, __, seal: nginx.refuse(seal, "too few keys\x1b[31m"))
    assert code == 3 and time.monotonic() - began < 40
    assert "nginx (pid 4242) still uses generation 1: too few keys\\x1b[31m" in err


@pytest.mark.parametrize("about", ["another file", "an older configuration", "a misfortune of one worker"])
def test_what_is_no_refusal(keyloader, nginx, about):
    def play(generation, registry, seal):
        nginx.refuse("ab" * 32 if about == "another file" else seal, "no",
                     result=6 if about == "a misfortune of one worker" else 1,
                     configuration=0 if about == "an older configuration" else 1)
        time.sleep(0.2)
        nginx.take(keyloader)
    assert run(keyloader, nginx, "plan", "create", "a", "--wait", "60s", play=play)[0] == 0


def test_verifying_prolongs_the_wait(keyloader, nginx):
    def play(*_):
        for _ in range(60):
            nginx.verifying()
            time.sleep(0.1)
        nginx.verifying(False)
        nginx.take(keyloader)
    assert run(keyloader, nginx, "plan", "create", "a", "--wait", "4s", play=play)[0] == 0


def test_a_veto_counts_for_restrictions_only(keyloader, nginx):
    first, second = keyloader.key("acme", "--no-wait")["id"], keyloader.key("acme", "--no-wait")["id"]
    nginx.take(keyloader)

    def play(generation, registry, seal):
        nginx.veto(generation, registry, "hmac-sha256:2027", seal)
        for row in range(2):
            nginx.acknowledge(row, generation, VETOED)
    for words in (["key", "revoke", first], ["key", "suspend", second], ["owner", "suspend", "acme"], ["key", "delete", first]):
        assert run(keyloader, nginx, *words, "--wait", "60s", play=play)[0] == 0, words
    for words in (["key", "resume", second], ["plan", "create", "a"], ["publish", "--allow-shrink"]):
        if words[0] == "publish":
            keyloader("plan", "create", "b", "--no-publish")
        code, _, err = run(keyloader, nginx, *words, "--wait", "50s", play=play)
        assert code == 3 and "lacks hmac-sha256:2027" in err and "only revocations" in err, words


def test_several_instances(keyloader, nginx, runtime):
    second = FakeNode(runtime, keyloader.snapshot, name="api-aaaaaaaaaaaaaaaa", pid=5252, workers=(5253,))
    second.take(keyloader)

    def both(*_):
        nginx.take(keyloader)
        second.take(keyloader)
    code, out, _ = run(keyloader, nginx, "plan", "create", "a", "--wait", "60s", play=both)
    assert code == 0 and "pid 4242" in out and "pid 5252" in out
    code, _, err = run_again(keyloader, "plan", "create", "b", play=lambda *_: nginx.take(keyloader))
    assert code == 3 and "pid 5252" in err
    second.die()
    assert run(keyloader, nginx, "plan", "create", "c", "--wait", "60s", play=lambda *_: nginx.take(keyloader))[0] == 0
    second.close()


def test_another_store_is_not_waited_for(keyloader, runtime, tmp_path):
    node = FakeNode(runtime, tmp_path / "elsewhere" / "keys.mdb")
    assert "no running nginx is known" in keyloader("plan", "create", "a").stdout
    assert not (keyloader.dir / "nodes").exists()
    node.close()


def test_what_is_named_once_is_found_later(keyloader, nginx, monkeypatch):
    keyloader("plan", "create", "a", "--no-wait")
    announced = json.loads((keyloader.dir / "nodes" / announcement(nginx.state)).read_text())
    assert announced["state"] == str(nginx.state) and announced["inbox"] == str(nginx.inbox)
    monkeypatch.delenv("APIKEY_RUNTIME")
    assert "still uses" in keyloader("plan", "create", "b", "--wait", "1s", status=3).stderr


def test_an_announcement_may_name_the_store_as_nginx_sees_it(keyloader, tmp_path):
    """As in a container: its paths are not ours."""
    node = FakeNode(tmp_path / "run", "/in/a/container/keys.mdb")
    (keyloader.dir / "nodes").mkdir(mode=0o755)
    (keyloader.dir / "nodes" / "x.json").write_text(json.dumps({"state": str(node.state),
                                                               "store": "/in/a/container/keys.mdb"}))
    node.take(keyloader)
    assert "still uses" in keyloader("plan", "create", "b", "--wait", "1s", status=3).stderr
    node.close()


@pytest.mark.parametrize("who", ["nodes", "nodes/x.json"])
def test_what_others_may_write_hides_an_nginx(keyloader, nginx, monkeypatch, who):
    """It may be a lie, but it is no reason to say that there is none."""
    keyloader("node", "list")
    announced, = (keyloader.dir / "nodes").iterdir()
    announced.rename(keyloader.dir / "nodes" / "x.json")
    (keyloader.dir / who).chmod(0o777)
    monkeypatch.delenv("APIKEY_RUNTIME")
    said = keyloader("plan", "create", "b", status=3).stderr
    assert f"{keyloader.dir / who} may announce an nginx, but others than root" in said


@pytest.mark.parametrize("spelling", ["run", "./run", "../{0}/run", "{1}/run/../run"])
def test_a_runtime_directory_by_any_spelling(keyloader, nginx, tmp_path, monkeypatch, spelling):
    """What is remembered is found from anywhere, and nginx's own announcement stays."""
    spelling = spelling.format(tmp_path.name, tmp_path)
    monkeypatch.delenv("APIKEY_RUNTIME")
    before = keyloader("node", "list", "--runtime", spelling, cwd=tmp_path).stdout
    assert before.count(".state") == 1
    announced, = (keyloader.dir / "nodes").iterdir()
    assert json.loads(announced.read_text())["state"] == str(nginx.state)
    announced.write_text(json.dumps({**json.loads(announced.read_text()), "pid_file": "/run/x.pid"}))
    said = announced.read_text()
    assert keyloader("node", "list", "--runtime", spelling, cwd=tmp_path).stdout == before
    assert announced.read_text() == said
    assert "still uses" in keyloader("plan", "create", "b", "--wait", "1s", status=3).stderr


def test_a_copy_has_the_same_generation_and_is_not_active(keyloader, nginx):
    """The seal tells them apart."""
    def play(generation, registry, seal):
        nginx.adopt(generation, registry)  # the seal is all zeros
        for row in (0, 1):
            nginx.acknowledge(row, generation)
    code, _, err = run_again(keyloader, "plan", "create", "a", play=play)
    assert code == 3 and "uses another generation 2 of this registry: a copy of it is published, too" in err


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"x" * 8192, None, "cut", "link"])
def test_files_that_are_no_node_memory(keyloader, nginx, runtime, content):
    bad = runtime / "bad.state"
    if content == "cut":
        bad.write_bytes(nginx.state.read_bytes()[:8192])
    elif content == "link":
        bad.symlink_to(nginx.state)
    elif content is None:
        os.mkfifo(bad)
    else:
        bad.write_bytes(content)
    nginx.die()
    assert "is not running" in keyloader("plan", "create", "a", status=3).stderr
    assert "unreadable" in keyloader("node", "list").stdout
    keyloader("node", "prune", "--yes")
    assert os.path.lexists(bad)


def test_random_bytes_in_the_rows(keyloader, nginx):
    """Whatever the workers' user writes: an answer, and no crash."""
    for begin in (1024, nginx.stores, nginx.store, nginx.store + 2048, nginx.rows, nginx.rows + 64):
        saved = nginx.map[:]
        nginx.map[begin : begin + 2048] = os.urandom(2048)
        for words in (["node", "list"], ["plan", "set", "default", "--rate", f"{begin + 1}/s", "--wait", "1s"]):
            done = subprocess.run([KEYLOADER, *words], env=keyloader.environment(), capture_output=True, check=False)
            assert done.returncode in (0, 1, 3), (begin, words, done.stderr)
        nginx.map[:] = saved


if IS_ROOT:
    def test_other_users_files_are_not_believed(keyloader, runtime, monkeypatch):
        """Anybody may make /dev/shm/apikey-<uid>."""
        place = f"/dev/shm/apikey-{os.getpid()}-test"
        monkeypatch.delenv("APIKEY_RUNTIME")
        os.mkdir(place)
        node = FakeNode(type(runtime)(place), keyloader.snapshot)
        try:
            node.adopt(99, "ab" * 16)
            os.chown(place, 65534, 65534)
            assert "no running nginx" in keyloader("plan", "create", "a").stdout
            os.chown(place, 0, 0)
            assert "registry " + "ab" * 16 in keyloader("plan", "create", "b", status=3).stderr
        finally:
            node.inbox.unlink()
            node.state.unlink()
            os.rmdir(place)
            node.close()


# -- with secrets

def test_the_key_is_printed_before_the_wait(keyloader, nginx):
    child = keyloader.start("key", "create", "--owner", "acme", "--create-owner", "--wait", "60s")
    secret = child.stdout.readline()
    assert secret.startswith("ak_live_") and child.poll() is None
    published(keyloader, 2)
    nginx.take(keyloader)
    code, out, err = end(child)
    assert (code, out) == (0, "") and "active in nginx (pid 4242)" in err


def test_json_of_a_key_that_is_not_active_yet(keyloader, nginx):
    done = keyloader("key", "create", "--owner", "acme", "--create-owner", "--json")
    answer = json.loads(done.stdout)
    assert answer["key"].startswith("ak_live_") and (answer["active"], answer["generation"]) == (False, 2)
    assert "still uses generation 1" in done.stderr
    done = keyloader("key", "create", "--owner", "acme", "--wait", "1s", "--json", status=3)
    assert json.loads(done.stdout)["active"] is False
    lines = "key,owner\nan-imported-key,acme\n"
    assert json.loads(keyloader("import", "-", "--format", "csv", "--json", stdin=lines).stdout)["active"] is False


def test_a_key_whose_snapshot_is_refused(keyloader, nginx):
    code, out, err = run(keyloader, nginx, "key", "create", "--owner", "a", "--create-owner",
                         play=lambda _, __, seal: nginx.refuse(seal, "another history"))
    assert code == 3 and out.startswith("ak_live_") and "another history" in err


# -- before publishing

def test_an_older_copy_of_the_registry(keyloader, nginx):
    """keys.mdb is gone too: only nginx knows better."""
    shown = keyloader.json("snapshot", "show")
    nginx.adopt(58, shown["registry_id"])
    keyloader.snapshot.unlink()
    sentence = keyloader.refused("plan", "create", "a", status=3)
    assert "nginx (pid 4242) has seen generation 58" in sentence and "--take-over --reason" in sentence
    assert "generation 58" in keyloader.refused("publish") and not keyloader.snapshot.exists()
    assert "generation 58" in keyloader.refused("snapshot", "rollback")
    nginx.die()
    assert "gone) has seen generation 58" in keyloader.refused("publish"), "it comes back"


def test_taking_over_with_an_older_copy(keyloader, nginx):
    shown = keyloader.json("snapshot", "show")
    nginx.adopt(58, shown["registry_id"])
    for words in (["--take-over"], ["--reason", "why"], ["--take-over", "--reason", "two\nlines"]):
        keyloader.refused("publish", *words, status=2)
    done = keyloader("publish", "--take-over", "--reason", "restored", "--no-wait")
    assert done.stderr.count(shown["registry_id"]) >= 3 and "58" in done.stderr
    taken = keyloader.json("snapshot", "show")
    assert taken["generation"] == 59
    assert nginx.permissions() == [(2, taken["sha256"], shown["registry_id"], 59)]
    entry = keyloader.audit("--last", "1")[0]
    assert entry["action"] == "publish" and entry["after"]["take_over"]["reason"] == "restored"
    assert "take over.replaced generation " in entry["change"] and "{" not in entry["change"]
    assert {"nginx": "nginx (pid 4242)", "registry_id": shown["registry_id"], "generation": 58} in \
        entry["after"]["take_over"]["replaced"]
    nginx.take(keyloader)
    assert run(keyloader, nginx, "plan", "create", "a", "--wait", "60s", play=lambda *_: nginx.take(keyloader))[0] == 0


def test_another_registry(keyloader, nginx, runtime):
    """init in a directory whose store an nginx knows under another id says it at once."""
    old = keyloader.json("snapshot", "show")["registry_id"]
    nginx.adopt(7, old)
    for path in keyloader.dir.glob("registry.db*"):
        path.unlink()
    keyloader.snapshot.unlink()
    done = keyloader("init", status=3)
    new = keyloader.json("init", "--no-publish")["registry_id"]
    assert "created registry" in done.stdout and old in done.stderr and new in done.stderr and "--take-over" in done.stderr
    assert not keyloader.snapshot.exists()
    keyloader("publish", "--take-over", "--reason", "a new registry", "--no-wait")
    assert [permission[:3] for permission in nginx.permissions()] == [(2, keyloader.json("snapshot", "show")["sha256"], new)]


def test_nothing_is_swapped_in_when_the_permission_cannot_be_given(keyloader, nginx):
    shown = keyloader.json("snapshot", "show")
    nginx.adopt(58, shown["registry_id"])
    nginx.inbox.write_bytes(b"not an inbox")
    before = keyloader.snapshot.read_bytes()
    sentence = keyloader.refused("publish", "--take-over", "--reason", "restored")
    assert str(nginx.inbox) in sentence and "nothing was published" in sentence
    assert keyloader.snapshot.read_bytes() == before


@pytest.mark.parametrize("claimed", [2**62, 2**63 - 2, 2**64 - 1])
def test_a_generation_that_no_registry_reaches_is_not_believed(keyloader, nginx, claimed):
    """What node memory says is a worker's word. It must not stop a revocation, nor use up the numbers there are."""
    key = keyloader.key()["id"]
    nginx.adopt(keyloader.generation(), keyloader.json("snapshot", "show")["registry_id"], highest=claimed)
    keyloader("key", "revoke", key, "--no-wait")
    generation = keyloader.generation()
    keyloader("publish", "--take-over", "--reason", "as status says", "--no-wait")
    assert keyloader.generation() == generation + 1
    keyloader("owner", "create", "next", "--no-wait")


def test_install_takes_over(keyloader, runtime, tmp_path):
    other = keyloader.beside("other")
    other("init")
    other.key()
    node = keyloader.beside("node")
    node("snapshot", "install", keyloader.snapshot)
    nginx = FakeNode(runtime, node.snapshot)
    nginx.take(node)
    sentence = node.refused("snapshot", "install", other.snapshot)
    assert "another registry" in sentence and "snapshot install --take-over" in sentence
    done = node("snapshot", "install", other.snapshot, "--take-over", "--no-wait")
    shown = other.json("snapshot", "show")
    assert shown["registry_id"] in done.stderr and keyloader.json("snapshot", "show")["registry_id"] in done.stderr
    assert nginx.permissions() == [(2, shown["sha256"], shown["registry_id"], 2)]
    assert node.snapshot.read_bytes() == other.snapshot.read_bytes()
    nginx.take(node)
    assert "active in nginx" in node("snapshot", "install", other.snapshot).stdout
    nginx.close()


def test_install_of_what_nginx_would_refuse(keyloader, nginx, tmp_path):
    file = tmp_path / "snapshot.mdb"
    file.write_bytes(keyloader.snapshot.read_bytes())
    nginx.adopt(58, keyloader.json("snapshot", "show")["registry_id"])
    keyloader.snapshot.unlink()
    assert "generation 58" in keyloader.refused("snapshot", "install", file)
    assert not keyloader.snapshot.exists()


def test_a_pepper_that_nginx_does_not_know(keyloader, nginx):
    key = keyloader.key("acme", "--no-wait")
    nginx.take(keyloader)
    keyloader("pepper", "create", "2027")
    before = keyloader.snapshot.read_bytes()
    done = keyloader("key", "create", "--owner", "acme", status=3)
    assert done.stdout.startswith("ak_live_")
    assert 'nginx (pid 4242) does not know the pepper "2027"' in done.stderr
    assert f"pepper=2027:{keyloader.dir}/peppers/2027" in done.stderr and "not published" in done.stderr
    assert keyloader.snapshot.read_bytes() == before
    assert "2027" in keyloader.refused("publish")
    # What takes something away goes out all the same.
    keyloader("key", "revoke", key["id"], "--no-wait")
    assert keyloader.json("snapshot", "show")["digests"] == ["hmac-sha256:2027", "sha256"]
    # A configuration that knows it, or an nginx that says nothing of what it knows.
    for methods in ("sha256 hmac-sha256:2027", ""):
        nginx._text(nginx.store + 1216, 256, methods)  # pylint: disable=protected-access
        keyloader("plan", "create", f"p{len(methods)}", "--no-wait")


# -- node list and node prune

def test_node_list(keyloader, nginx, runtime):
    text = keyloader("node", "list").stdout
    line = next(line for line in text.splitlines() if str(nginx.state) in line)
    assert line.split()[:5] == ["4242", "live", "2", str(keyloader.snapshot), "1"]
    listed = next(node for node in keyloader.json("node", "list") if node["state"] == str(nginx.state))
    assert listed["live"] is True and listed["worker_pids"] == [4243, 4244] and listed["size"] == nginx.state.stat().st_size
    assert listed["stores"][0]["generation"] == 1 and listed["stores"][0]["path"] == str(keyloader.snapshot)
    nginx.die()
    listed = next(node for node in keyloader.json("node", "list") if node["state"] == str(nginx.state))
    assert listed["live"] is False and listed["worker_pids"] == []


def test_prune_removes_what_is_gone(keyloader, nginx, runtime):
    other = FakeNode(runtime, keyloader.snapshot, name="api-bbbbbbbbbbbbbbbb")
    keyloader("node", "list")
    assert (keyloader.dir / "nodes" / announcement(nginx.state)).exists()
    nginx.die()
    assert "--yes" in keyloader.refused("node", "prune", status=2) and nginx.state.exists()
    assert f"removed {nginx.state}" in keyloader("node", "prune", "--yes").stdout
    assert not nginx.state.exists() and not nginx.inbox.exists() and other.state.exists() and other.inbox.exists()
    assert not (keyloader.dir / "nodes" / announcement(nginx.state)).exists()
    other.close()


@pytest.mark.parametrize("byte", [0, 1, 2, 40])
def test_prune_never_removes_what_is_locked(keyloader, nginx, byte):
    nginx.die()
    nginx.lock(byte)
    keyloader("node", "prune", "--yes")
    assert nginx.state.exists() and nginx.inbox.exists()


def test_prune_stays_in_the_runtime_directories(keyloader, tmp_path):
    """An announcement may say anything."""
    node = FakeNode(tmp_path / "elsewhere", keyloader.snapshot)
    node.die()
    (keyloader.dir / "nodes").mkdir(mode=0o755)
    (keyloader.dir / "nodes" / "x.json").write_text(json.dumps({"state": str(node.state), "inbox": "/etc/passwd"}))
    done = keyloader("node", "prune", "--yes")
    assert "nothing was removed" in done.stdout and f"--runtime {tmp_path}/elsewhere" in done.stderr
    assert node.state.exists() and os.path.exists("/etc/passwd")
    keyloader("node", "prune", "--yes", "--runtime", tmp_path / "elsewhere")
    assert not node.state.exists()
    node.close()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"state": 5}', '{"state": "relative.state"}', '{"state": "/etc/passwd"}',
                                  '{"state": "/dev/zero"}', "x" * 100_000])
def test_announcements_that_are_none(keyloader, text):
    (keyloader.dir / "nodes").mkdir(mode=0o755)
    (keyloader.dir / "nodes" / "x.json").write_text(text)
    assert "/etc/passwd" not in keyloader("node", "list").stdout
    said = keyloader("plan", "create", "a", status=3).stderr
    assert "nodes/x.json may announce an nginx" in said and "it says of no nginx where its node memory is" in said
