"""keyloader policy: what is asked of changes, what administrators' keys allow, and that there is no way around it.

What becomes of a change that waits for a second person is in test_approval.py.
"""

import json
import sqlite3
import subprocess

import pytest

from harness.administrators import Shop, state
from harness.old_registry import to_schema_8
from harness.paths import KEYLOADER
from harness.preload import Preload


# Rules for whoever makes the change

def test_the_empty_policy_asks_for_nothing(keyloader):
    shown = keyloader.json("policy", "show")
    assert all(shown[name] == [] for name in ("require_meta", "key_name", "owner_name", "approve_scope",
                                              "approve_action"))
    assert shown["break_glass"] == {"last_30_days": 0, "last": None, "entry": None}


def test_set_shows_what_is_so_and_is_written_down(keyloader):
    generation = keyloader.generation()
    made = keyloader.json("policy", "set", "--require-meta", "ticket", "--key-name", "svc-*", "--key-name", "ci-*",
                          "--reason", "audit 2026")
    assert made["require_meta"] == ["ticket"] and made["key_name"] == ["ci-*", "svc-*"]
    assert keyloader.generation() == generation, "nginx need not know"
    keyloader("policy", "set", "--key-name", "none")
    shown = keyloader.json("policy", "show")
    assert shown["require_meta"] == ["ticket"] and shown["key_name"] == []
    first, second = keyloader.audit("--action", "policy.set")
    assert first["after"]["reason"] == "audit 2026" and second["before"]["key_name"] == ["ci-*", "svc-*"]
    assert "so already" in keyloader("policy", "set", "--require-meta", "ticket").stdout
    tried = keyloader.json("policy", "set", "--require-meta", "none", "--dry-run")
    assert tried["dry_run"] and keyloader.json("policy", "show")["require_meta"] == ["ticket"]


@pytest.mark.parametrize("arguments, said", [
    ([], "nothing to set"),
    (["--require-meta", "a b"], "a b"),
    (["--approve-action", "key.creat"], 'did you mean "key.create"?'),
    (["--approve-action", "key.revoke"], "stopping somebody never waits"),
    (["--approve-action", "owner.suspend"], "stopping somebody never waits"),
    (["--approve-action", "pepper.create"], "there is no action"),
    (["--approve-scope", "a**b"], "a**b"),
    (["--approve-scope", "apikey:admin"], "reserved"),
    (["--key-name", "none", "--key-name", "x"], "none"),
    (["--key-name", "svc-[a-"], "that no ] closes"),
    (["--owner-name", "[]"], "that no ] closes"),
    (["--key-name", "[!]x"], "that no ] closes")])
def test_words_that_are_wrong(keyloader, arguments, said):
    assert said in keyloader.refused("policy", "set", *arguments, status=2)
    assert keyloader.json("policy", "show")["approve_action"] == []


def test_required_meta_and_names(keyloader):
    keyloader("policy", "set", "--require-meta", "ticket", "--key-name", "svc-?*", "--owner-name", "[a-z]*")
    said = keyloader.refused("key", "create", "--owner", "acme", "--create-owner")
    assert "a key needs the meta ticket, as in --meta ticket=VALUE" in said and "a name such as svc-?*" in said
    assert "--break-glass" in said
    assert keyloader.json("owner", "list") == [], "nothing of it was done"
    said = keyloader.refused("owner", "create", "Acme")
    assert 'the name of the owner, "Acme", is not as [a-z]*' in said
    key = keyloader.key("acme", "--meta", "ticket=4711", "--name", "svc-web")["id"]
    assert "ticket" in keyloader.refused("key", "set", key, "--meta", "ticket=")
    assert '"laptop", is not as svc-?*' in keyloader.refused("key", "set", key, "--name", "laptop")
    keyloader("key", "set", key, "--meta", "ticket=4712", "--name", "svc-api")
    assert "ticket" in keyloader.refused("key", "create", "--owner", "acme", "--meta", "ticket= ", "--name", "svc-web")
    # One of before stays as it is, and can be changed in other ways.
    keyloader("policy", "set", "--require-meta", "cost")
    keyloader("key", "set", key, "--expires", "30d")


def test_import_says_which_line_the_policy_refuses(keyloader, tmp_path):
    keyloader("policy", "set", "--require-meta", "ticket")
    file = tmp_path / "keys.csv"
    file.write_text("key,owner,meta.ticket\nlegacy-key-0123456789abcdef,acme,4711\nlegacy-key-fedcba9876543210,ghost,\n")
    said = keyloader("import", file, "--format", "csv", "--create-owners", status=1)
    assert "line 3" in said.stdout + said.stderr and "ticket" in said.stdout + said.stderr
    assert "fedcba" not in said.stdout + said.stderr and keyloader.json("key", "list") == []
    keyloader("import", file, "--format", "csv", "--create-owners", "--partial")
    assert [key["meta"] for key in keyloader.json("key", "list")] == [{"ticket": "4711"}]
    assert [owner["name"] for owner in keyloader.json("owner", "list")] == ["acme"], "nothing stays of a refused line"


# What administrators' keys allow. Everything is tried only: a decision is made before anything is changed.

CAN = """
local alice carol              plan create gold --rate 9/s
local alice carol              role create reader --scope orders:read
local alice carol              owner set umbrella --email a@b.example
local alice carol bob tess     owner set acme --email a@b.example
local alice carol              owner set acme --team labs
local alice carol tess         owner set acme --rate 9/s
local alice carol tess         owner delete empty --yes
local alice carol              owner create new
local alice carol bob tess     owner create new --team shop
local alice carol bob sam tess owner suspend acme --yes
local alice carol bob sam tess owner resume stopped
local alice carol              owner resume closed
local alice carol bob tess     key create --owner acme
local alice carol bob tess     key create --owner acme --scope orders:read
local alice carol bob tess     key create --owner acme --role clerk
local alice carol              key create --owner acme --scope billing:read
local alice carol              key create --owner acme --scope *
local alice carol              key create --owner acme --role payer
local alice carol              key create --owner umbrella --scope orders:read
local alice carol tess         key create --owner acme --rate 9/s
local alice carol bob tess     key set {orders} --name laptop
local alice carol              key set {billing} --name laptop
local alice carol bob tess     key set {orders} --expires 30d
local alice carol              key set {billing} --expires 30d
local alice carol tess         key set {orders} --rate 9/s
local alice carol bob sam tess key revoke {orders}
local alice carol bob sam tess key suspend {billing}
local alice carol bob tess     key delete {orders} --yes
local alice carol              key delete {billing} --yes
local alice carol              key set {billing} --scope orders:read
local alice carol              owner suspend alice --yes
local alice carol              owner set vic --email a@b.example
local alice carol              owner set carol --team shop
local alice carol              owner resume bystander
local alice carol bob sam tess key resume {paused}
local alice carol              key resume {paused_billing}
local alice carol              key revoke {alice}
local alice carol              key suspend {vic}
local alice carol              key delete {vic} --yes
local alice carol              admin set {alice} --role none
local alice carol tess         admin set {helper} --role none
local alice carol tess         key suspend {wide}
local alice carol              admin set {wide} --may-grant orders:*
local alice carol              key set {vic} --name laptop
local alice carol              admin create --owner umbrella --role view
local alice carol tess         admin create --owner acme --role view --team shop
local alice carol              admin create --owner acme --role admin --team shop
local alice carol tess         admin create --owner acme --role admin --team shop --may-grant orders:read
local alice carol              admin set {vic} --role admin
local alice carol              admin set {bob} --may-grant orders:* --may-grant billing:*
local alice carol tess         quota grant --owner acme --amount 5
local alice carol bob sam tess quota reset --owner acme
local                          pepper create p2
local                          registry set --prefix acme
local                          registry set --name other
local                          snapshot rollback --allow-shrink
local alice carol              policy set --require-meta ticket
"""
CASES = [(line[:31].split(), line[31:].split()) for line in CAN.strip().splitlines()]


@pytest.fixture(scope="module")
def trial(lasting, tmp_path_factory):
    tool = lasting
    shop = Shop(tool, tmp_path_factory.mktemp("files"))
    shop.ids["orders"] = tool.key("acme", "--scope", "orders:read")["id"]
    shop.ids["billing"] = tool.key("acme", "--scope", "billing:read")["id"]
    shop.ids["paused"] = tool.key("acme", "--scope", "orders:read")["id"]
    shop.ids["paused_billing"] = tool.key("acme", "--scope", "billing:read")["id"]
    tool("key", "suspend", shop.ids["paused"], shop.ids["paused_billing"], "--yes")
    tool("owner", "set", "acme", "--quota", "1000/month")
    for owner, scope in (("stopped", "orders:read"), ("closed", "billing:read")):
        tool("owner", "create", owner, "--team", "shop")
        tool.key(owner, "--scope", scope)
        tool("owner", "suspend", owner, "--yes")
    tool("owner", "create", "empty", "--team", "shop")
    tool("owner", "create", "helpers", "--team", "shop")
    for name, *options in (("helper", "--role", "view"), ("wide", "--role", "admin")):
        shop.ids[name] = tool.json("admin", "create", "--owner", "helpers", "--team", "shop", *options)["id"]
    tool("admin", "create", "--owner", "bystander", "--create-owner", "--role", "view")
    tool("owner", "suspend", "bystander", "--yes")
    tool("role", "create", "clerk", "--scope", "orders:write")
    tool("role", "create", "payer", "--scope", "billing:write")
    return shop


@pytest.mark.parametrize("allowed, command", CASES, ids=[" ".join(case[1]) for case in CASES])
def test_who_may_do_what(trial, allowed, command):
    words = [word.format(**trial.ids) for word in command]
    before = state(trial.run)
    for who in ("local", *trial.files):
        if words[0] in ("pepper", "snapshot") and who == "local":
            continue  # tried elsewhere
        done = trial.as_(who, *words, "--dry-run", status=0 if who in allowed else 1)
        if who not in allowed:
            assert "not allowed: " in done.stderr or "on the machine itself" in done.stderr, done.stderr
    assert state(trial.run) == before


def test_policy_test_says_the_same(trial):
    def verdicts(*options):
        return {row["who"].split(" of ")[-1]: row["decision"]
                for row in trial.run.json("policy", "test", "--owner", "acme", *options) if "helpers" not in row["who"]}
    assert verdicts("--scope", "orders:read") == {
        "local": "allowed", "alice": "allowed", "carol": "allowed", "bob": "allowed", "sam": "refused",
        "vic": "refused", "tess": "allowed"}
    assert verdicts("--role", "payer")["bob"] == "refused" and verdicts("--role", "payer")["alice"] == "allowed"
    for who, status in ((trial.ids["vic"], 1), ("local", 0)):
        tried = trial.run.start("policy", "test", "--owner", "acme", "--as", who)
        assert "WHO" in tried.communicate()[0] and tried.returncode == status
    assert "there is no key" in trial.run.refused("policy", "test", "--owner", "acme", "--as", "key_" + 20 * "0")
    assert "no administrator's key" in trial.run.refused("policy", "test", "--owner", "acme", "--as", trial.ids["orders"])
    said = trial.run.refused("policy", "test", "--owner", "acme", "--as", "alice", status=2)
    assert "--as takes the id of an administrator's key" in said
    for name in ("svc- ", "svc-\x07"):
        command = ["--owner", "acme", "--name", name]
        assert (trial.run.refused("policy", "test", *command, status=2)
                == trial.run.refused("key", "create", *command, status=2))


def test_whose_key_it_is_stands_in_the_audit(shop):
    made = shop.as_("bob", "key", "create", "--owner", "acme", "--scope", "orders:read", "--json")
    entry = shop.run.audit("--object", json.loads(made.stdout)["id"])[-1]
    assert entry["actor"]["admin"] == shop.ids["bob"]
    assert [one["action"] for one in shop.run.audit("--by", shop.ids["bob"])] == ["key.create", "publish"]
    assert f"{shop.ids['bob']} by root" in shop.run("audit", "list").stdout


def test_a_key_that_is_no_longer_good(shop, tmp_path):
    command = ["key", "create", "--owner", "acme", "--dry-run"]
    shop.run("owner", "suspend", "bob", "--yes")
    assert "of a suspended owner" in shop.as_("bob", *command, status=1).stderr
    shop.run("key", "suspend", shop.ids["carol"])
    assert "is suspended" in shop.as_("carol", *command, status=1).stderr
    shop.run("key", "revoke", shop.ids["tess"])
    assert "is revoked" in shop.as_("tess", *command, status=1).stderr
    shop.run("admin", "set", shop.ids["alice"], "--role", "none")
    assert "no administrator's key" in shop.as_("alice", *command, status=1).stderr
    for text, said in (("ak_live_x\n", "not in this registry"), ("", "there is no key in")):
        shop.files["nobody"] = tmp_path / "nobody"
        shop.files["nobody"].write_text(text)
        shop.files["nobody"].chmod(0o600)
        assert said in shop.as_("nobody", *command, status=1 if text else 2).stderr
        assert "ak_live_x" not in shop.as_("nobody", *command, status=1 if text else 2).stderr
    shop.files["nobody"].chmod(0o644)
    assert "chmod 600" in shop.as_("nobody", *command, status=1).stderr
    said = shop.run.refused(*command, "--key-file", shop.run.dir)
    assert "is a directory; --key-file takes the file that holds the key" in said and "chmod" not in said
    shop.files["nobody"] = tmp_path / "nowhere"
    assert "No such file" in shop.as_("nobody", *command, status=1).stderr


def test_the_key_comes_from_the_environment_and_from_standard_input(shop):
    command = [KEYLOADER, "key", "create", "--owner", "umbrella", "--dry-run"]
    done = subprocess.run(command, capture_output=True, text=True, check=False,
                          env={**shop.run.environment(), "APIKEY_KEY_FILE": str(shop.files["bob"])})
    assert done.returncode == 1 and "team shop only" in done.stderr
    done = subprocess.run([*command, "--key-file", "-"], input=shop.files["bob"].read_text(), capture_output=True,
                          text=True, check=False, env=shop.run.environment())
    assert done.returncode == 1 and "team shop only" in done.stderr


def test_bounds_of_administrators_keys_go_with_their_roles(shop):
    made = shop.run.json("admin", "set", shop.ids["bob"], "--team", "labs", "--team", "R & D", "--may-grant", "a:b")
    assert made["teams"] == ["R & D", "labs"] and made["may_grant"] == ["a:b"]
    assert "for team R & D, labs" in shop.run("admin", "set", shop.ids["bob"], "--add-role", "view").stdout
    made = shop.run.json("admin", "set", shop.ids["bob"], "--role", "none")
    assert "teams" not in made and "may_grant" not in made
    assert "no role" in shop.run.refused("admin", "set", shop.ids["bob"], "--team", "labs", status=2)


ON_THE_MACHINE = """
init --user root
init --reader-group root
pepper create p2
publish
publish --allow-shrink
publish --take-over --reason x
registry set --prefix acme
registry adopt --reason x
snapshot rollback --allow-shrink
snapshot install {snapshot} --take-over
snapshot seal {snapshot}
audit archive {place}/audit.ndjson --before 1s
owner erase gone --yes
node prune
usage collect
usage prune --before 2026-01-01
usage merge {place}/usage.ndjson
"""


@pytest.mark.parametrize("command", ON_THE_MACHINE.strip().splitlines())
def test_what_is_done_on_the_machine_takes_no_key(trial, command):
    def files():
        return {path: (path.lstat().st_mode, path.lstat().st_uid, path.lstat().st_mtime_ns)
                for path in trial.run.dir.rglob("*") if not path.name.startswith(("registry.db-", "usage.db-"))}
    words = [word.format(snapshot=trial.run.snapshot, place=trial.run.dir) for word in command.split()]
    before = files()
    for who in ("vic", "alice"):
        assert "done on the machine itself, without --key-file" in trial.as_(who, *words, status=1).stderr
    assert files() == before


def test_an_empty_variable_is_nobodys_key(keyloader, monkeypatch):
    monkeypatch.setenv("APIKEY_KEY_FILE", "")
    assert "APIKEY_KEY_FILE is empty" in keyloader.refused("owner", "create", "acme", status=2)
    monkeypatch.delenv("APIKEY_KEY_FILE")
    assert keyloader.json("owner", "list") == []


# A scope that needs a second person is not reached by one alone.

@pytest.fixture(scope="module")
def guarded(lasting, tmp_path_factory):
    tool = lasting.beside("guarded")
    tool("init")
    shop = Shop(tool, tmp_path_factory.mktemp("guarded"))
    shop.place = tmp_path_factory.mktemp("imports")
    for name, text in (("scope.csv", "key,owner,scopes\nlegacy-key-0123456789abcdef,acme,billing:write\n"),
                       ("star.ndjson", '{"key":"legacy-key-0123456789abcdee","owner":"acme","scopes":["*"]}\n'),
                       ("role.csv", "key,owner,roles\nlegacy-key-0123456789abcded,acme,payer\n")):
        (shop.place / name).write_text(text)
    tool("role", "create", "payer", "--scope", "billing:write")
    tool("role", "create", "clerk", "--scope", "orders:read")
    tool("role", "create", "gone", "--scope", "billing:read")
    tool("role", "delete", "gone")
    shop.ids["role_delete"] = tool.audit("--action", "role.delete")[-1]["seq"]
    tool("role", "create", "less", "--scope", "billing:read")
    tool("role", "set", "less", "--scope", "none")
    shop.ids["role_set"] = tool.audit("--object", "less")[-1]["seq"]
    shop.ids["orders"] = tool.key("acme", "--role", "clerk")["id"]
    for name, *options in (("plain",), ("early", "--expires", "1d"), ("later", "--not-before", "2030-01-01"),
                           ("inside", "--allow-ip", "10.0.0.0/8"), ("tls", "--require-tls"),
                           ("host", "--allow-host", "a.example"), ("paused",), ("soon",)):
        shop.ids[name] = tool.key("acme", "--scope", "billing:read", *options)["id"]
    tool("key", "suspend", shop.ids["paused"])
    tool("key", "suspend", shop.ids["soon"], "--for", "90d")
    tool("owner", "create", "closed")
    tool.key("closed", "--scope", "billing:read")
    tool("owner", "suspend", "closed", "--yes")
    shop.ids["old"] = tool.generation() - 1
    tool("policy", "set", "--approve-scope", "billing:*", "--approve-action", "plan.set")
    shop.ids["place"] = shop.place
    return shop


WAYS = """
key create --owner acme --scope billing:write
key create --owner acme --scope billing:*
key create --owner acme --scope *
key create --owner acme --scope billing:write:own
key create --owner acme --role payer
key create --owner new --create-owner --scope orders:read --scope billing:read
key set {orders} --scope billing:write
key set {orders} --scope *
key set {orders} --role payer
key set {plain} --scope billing:*
role create other --scope billing:write
role create other --scope *
role set clerk --scope orders:read --scope billing:read
role set clerk --scope billing:*
import {place}/scope.csv --format csv
import {place}/star.ndjson --format ndjson
import {place}/role.csv --format csv --partial
audit revert {role_delete}
audit revert {role_set}
key resume {paused}
owner resume closed
key set {early} --expires none
key set {early} --expires 400d
key set {later} --not-before none
key set {inside} --allow-ip none
key set {inside} --allow-ip 10.0.0.0/8 --allow-ip 192.0.2.0/24
key set {tls} --no-require-tls
key set {host} --allow-host none
admin create --owner new --create-owner --role issue
admin create --owner new --create-owner --role view
admin set {vic} --role admin
admin set {vic} --add-role issue
admin set {bob} --may-grant billing:*
admin set {bob} --team none
key set {vic} --expires none --name other --allow-ip none
policy set --approve-scope none
policy set --approve-action none
policy set --approve-scope other:thing --require-meta ticket
plan set default --rate 9/s
snapshot rollback --to {old} --allow-shrink
"""
HARMLESS = {"key set {vic} --expires none --name other --allow-ip none"}  # gives nothing that was not there


@pytest.mark.parametrize("who", ["local", "alice"])
@pytest.mark.parametrize("way", WAYS.strip().splitlines())
def test_no_way_around_the_second_person(guarded, way, who):
    if way in HARMLESS:
        guarded.as_(who, *way.format(**guarded.ids).split(), "--dry-run")
        return
    before = state(guarded.run)
    words = way.format(**guarded.ids).split()
    refuses = words[0] == "snapshot" or way.endswith("{role_set}")
    tried = guarded.as_(who, *words, "--dry-run", status=1 if refuses else 0)
    assert refuses or "once a second person has approved it" in tried.stdout
    done = guarded.as_(who, *words, status=1 if refuses else 3)
    assert refuses or "waits for a second person (" in done.stderr
    assert state(guarded.run) == before


def test_that_there_are_enough_ways():
    assert len(WAYS.strip().splitlines()) >= 40


@pytest.mark.parametrize("who", ["local", "alice", "bob"])
def test_what_stops_somebody_waits_for_nobody(guarded, who):
    key = guarded.run.json("key", "create", "--owner", "acme", "--scope", "billing:read", "--break-glass",
                           "--reason", "for the test")["id"]
    guarded.as_(who, "key", "suspend", key)
    guarded.as_(who, "key", "revoke", key)
    assert guarded.run.json("key", "show", key)["state"] == "revoked"
    guarded.as_(who, "owner", "suspend", "acme", "--yes", "--dry-run")


def test_suspending_never_ends_a_suspension(guarded):
    """One of several that was suspended for longer is no reason to wait with the others."""
    other = guarded.run.key("acme", "--scope", "orders:read")["id"]
    said = guarded.as_("sam", "key", "suspend", guarded.ids["soon"], other, "--for", "5s", "--yes").stdout
    assert "is suspended already, until " in said and f"suspended {other}" in said
    assert "for as long or longer" in guarded.as_("alice", "owner", "suspend", "closed", "--for", "5s", "--yes").stdout
    assert guarded.run.json("key", "show", guarded.ids["soon"])["state"] == "suspended"
    assert guarded.run.json("owner", "show", "closed")["suspended_until"] is None
    guarded.as_("sam", "key", "suspend", guarded.ids["soon"])
    assert guarded.run.json("key", "show", guarded.ids["soon"])["suspended_until"] is None


def test_fewer_rights_need_nobody(guarded):
    for change in (["--role", "view"], ["--team", "labs"], ["--may-grant", "none"], ["--may-grant", "orders:read"]):
        said = guarded.run("admin", "set", guarded.ids["sam"], *change, "--dry-run").stdout
        assert "dry run" in said and "second person" not in said, change
    for change in (["--role", "issue"], ["--may-grant", "*"]):
        assert "second person" in guarded.run("admin", "set", guarded.ids["sam"], *change, "--dry-run").stdout, change
    for change in (["--team", "none"], ["--team", "shop", "--team", "labs"]):
        assert "second person" in guarded.run("admin", "set", guarded.ids["bob"], *change, "--dry-run").stdout, change


def test_an_action_is_meant_by_what_it_does(keyloader, tmp_path):
    file = tmp_path / "keys.csv"
    file.write_text("key,owner\nlegacy-key-0123456789abcdef,acme\n")
    keyloader("owner", "create", "acme")
    keyloader("plan", "set", "default", "--rate", "9/s")
    entry = keyloader.audit("--action", "plan.set")[-1]["seq"]
    keyloader("plan", "create", "gold")
    keyloader("plan", "delete", "gold")
    deletion = keyloader.audit("--action", "plan.delete")[-1]["seq"]
    keyloader("policy", "set", "--approve-action", "key.create", "--approve-action", "plan.set", "--approve-action",
              "plan.create")
    for command, needs in ((["import", file, "--format", "csv"], "key.create"),
                           (["audit", "revert", entry], "plan.set"), (["audit", "revert", deletion], "plan.create")):
        assert f"waits for a second person ({needs})" in keyloader(*command, status=3).stderr


def test_an_older_snapshot_comes_back_by_rollback_only(keyloader, tmp_path):
    key = keyloader.key("acme", "--scope", "billing:read")["id"]
    old = tmp_path / "old.mdb"
    old.write_bytes(keyloader.snapshot.read_bytes())
    keyloader("key", "set", key, "--scope", "none")
    said = keyloader.refused("snapshot", "install", old, "--take-over")
    assert "`keyloader snapshot rollback --to" in said and keyloader.generation() > 1


def test_a_damaged_policy_lets_nothing_through(keyloader):
    with sqlite3.connect(keyloader.dir / "registry.db") as database:
        database.execute("UPDATE info SET policy = '{'")
    database.close()
    assert "the policy in registry.db is damaged" in keyloader.refused("owner", "create", "acme")


def test_what_the_policy_does_not_name_needs_nobody(guarded):
    key = guarded.run.key("acme", "--scope", "orders:read")["id"]
    guarded.as_("bob", "key", "set", key, "--name", "laptop", "--scope", "orders:*")
    guarded.run("role", "set", "clerk", "--scope", "orders:write")
    guarded.run("key", "set", guarded.ids["inside"], "--allow-method", "GET", "--expires", "1d")
    guarded.run("plan", "create", "gold")


# In an emergency

def test_break_glass_passes_and_is_written_down(keyloader):
    keyloader("policy", "set", "--require-meta", "ticket", "--approve-scope", "billing:*")
    command = ["key", "create", "--owner", "acme", "--create-owner", "--scope", "billing:read"]
    assert "say why with --reason" in keyloader.refused(*command, "--break-glass", status=2)
    made = keyloader.json(*command, "--break-glass", "--reason", "alice is asleep")
    assert keyloader.json("key", "show", made["id"])["state"] == "active"
    entry = keyloader.audit("--action", "policy.break_glass")[0]
    assert entry["after"]["rules"] == ["require-meta", "approval"] and entry["after"]["reason"] == "alice is asleep"
    first, last = entry["after"]["entries"]
    assert [one["action"] for one in keyloader.audit() if first <= one["seq"] <= last] == ["owner.create", "key.create"]
    shown = keyloader.json("policy", "show")["break_glass"]
    assert shown["last_30_days"] == 1 and shown["entry"] == entry["seq"]
    assert f"audit entry {entry['seq']}" in keyloader("policy", "show").stdout
    found = json.loads(keyloader.start("doctor", "--json").communicate()[0])
    assert [one["result"] for one in found if one["check"] == "break-glass"] == ["notice"]


def test_the_systems_log_says_so_at_once(keyloader, tmp_path):
    log = tmp_path / "syslog"
    listener = Preload(tmp_path, "listener", r'''
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
static void keep(int priority, const char* format, va_list values) {
  FILE* file = fopen(getenv("KEPT"), "a");
  fprintf(file, "%d ", priority);
  vfprintf(file, format, values);
  fclose(file);
}
void syslog(int priority, const char* format, ...) {
  va_list values; va_start(values, format); keep(priority, format, values); va_end(values);
}
void __syslog_chk(int priority, int flag, const char* format, ...) {
  va_list values; va_start(values, format); keep(priority, format, values); va_end(values);
}
''', KEPT=log)
    keyloader("policy", "set", "--require-meta", "ticket")
    keyloader("owner", "create", "acme")
    for options in (["--meta", "ticket=1"], []):
        assert not log.exists(), "only what passed over the policy is told"
        subprocess.run([KEYLOADER, "key", "create", "--owner", "acme", *options, "--break-glass", "--reason", "x"],
                       env={**keyloader.environment(), **listener.environment, "APIKEY_DIR": str(keyloader.dir)}, check=True,
                       capture_output=True)
    entry = keyloader.audit("--action", "policy.break_glass")[0]["seq"]
    alert, authpriv = 1, 10 << 3
    assert log.read_text() == (f"{alert | authpriv} keyloader: the policy was passed over with --break-glass, "
                               f"audit entry {entry}")


def test_break_glass_that_was_not_needed_leaves_no_trace(keyloader):
    keyloader("policy", "set", "--require-meta", "ticket")
    keyloader("owner", "create", "acme", "--break-glass")
    assert keyloader.audit("--action", "policy.break_glass") == []


def test_administrators_break_no_glass(shop):
    said = shop.as_("alice", "owner", "create", "x", "--break-glass", "--reason", "x", status=2).stderr
    assert "on the machine itself" in said


def test_a_registry_of_before_has_no_policy(keyloader):
    keyloader.key("acme")
    with sqlite3.connect(keyloader.dir / "registry.db") as database:
        to_schema_8(database)
    database.close()
    assert keyloader.json("policy", "show")["approve_scope"] == [] and keyloader.json("approval", "list") == []
    keyloader("policy", "set", "--require-meta", "ticket")
    keyloader("audit", "verify")
