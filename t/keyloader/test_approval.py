"""Changes that wait for a second person: what a request holds, who decides, when it ends, and what is done then."""

import json
import re
import sqlite3
import threading

import pytest

from harness.administrators import state


@pytest.fixture(scope="module")
def careful_shop(first_shop, tmp_path_factory):
    made = first_shop.moved_to(first_shop.run.beside("careful"))
    made.run("policy", "set", "--approve-scope", "billing:*", "--approve-action", "owner.delete", "--approve-action",
             "plan", "--approve-action", "role", "--approve-action", "quota.grant", "--approve-action", "owner.set",
             "--approve-action", "key.delete")
    return made


@pytest.fixture
def shop(careful_shop, bare):
    return careful_shop.moved_to(bare)


def ask(shop, who, *command, **more):
    """RETURNS: the number of the request."""
    return json.loads(shop.as_(who, *command, "--json", status=3, **more).stdout)["request"]


def database_of(shop):
    return sqlite3.connect(shop.run.dir / "registry.db")


def test_from_the_request_to_the_key(shop):
    done = shop.as_("bob", "admin", "list")
    made = shop.as_("alice", "key", "create", "--owner", "acme", "--scope", "billing:read", "--json", "--reason",
                    "ticket 4711", status=3)
    key = json.loads(made.stdout)
    assert key["active"] is False and key["needs"] == ["scope billing:read"] and key["key"].startswith("ak_live_")
    assert f"{key['id']}, is good once a second person has approved it" in made.stderr
    assert shop.run.json("key", "list", "--owner", "acme") == []

    waiting = shop.run.json("approval", "list")
    assert [one["request"] for one in waiting] == [key["request"]]
    assert waiting[0]["owner"] == "alice" and waiting[0]["reason"] == "ticket 4711"
    assert waiting[0]["state"] == "pending" and waiting[0]["actor"]["admin"] == shop.ids["alice"]
    shown = shop.run("approval", "show", key["request"]).stdout
    assert "scopes billing:read" in shown and "alice" in shown and key["id"] in shown
    with database_of(shop) as database:
        digest = json.loads(database.execute("SELECT steps FROM approvals").fetchone()[0])[0]["digest"]
    for text in (shown, shop.run("approval", "show", key["request"], "--json").stdout,
                 shop.run("approval", "list", "--json").stdout, done.stdout):
        assert digest not in text and key["key"] not in text

    said = shop.as_("carol", "approval", "approve", key["request"])
    assert f"approved request {key['request']} of alice" in said.stdout and "published generation" in said.stdout
    now = shop.run.json("key", "show", key["id"])
    assert now["state"] == "active" and now["scopes"] == ["billing:read"] and now["hint"] == key["hint"]
    assert key["id"] in shop.run("find", stdin=key["key"] + "\n").stdout
    request, approve, create = (shop.run.audit("--action", action)[-1]
                                for action in ("approval.request", "approval.approve", "key.create"))
    assert request["actor"]["admin"] == shop.ids["alice"] and approve["actor"]["admin"] == shop.ids["carol"]
    assert create["actor"]["request"] == key["request"] and create["after"]["reason"] == "ticket 4711"
    assert shop.run.json("approval", "list") == []
    assert shop.run.json("approval", "list", "--all")[0]["state"] == "approved"
    assert shop.run.json("approval", "show", key["request"])["changes"] == []
    shop.run("audit", "verify")
    assert "approved already" in shop.as_("tess", "approval", "approve", key["request"], status=1).stderr


KINDS = {
    "owner set": ["owner", "set", "acme", "--email", "a@b.example", "--team", "shop", "--meta", "crm=1", "--rate", "9/s",
                  "--quota", "100/day", "--concurrency", "5"],
    "owner delete": ["owner", "delete", "empty", "--yes"],
    "plan create": ["plan", "create", "gold", "--rate", "100/s", "--burst", "7", "--quota", "1000/month",
                    "--rolling-quota", "50/2h", "--dry-run-limit", "rate"],
    "plan set": ["plan", "set", "silver", "--rate", "none", "--quota", "5/week"],
    "plan delete": ["plan", "delete", "silver"],
    "role create": ["role", "create", "payer", "--scope", "billing:write"],
    "role set": ["role", "set", "clerk", "--scope", "billing:*"],
    "role delete": ["role", "delete", "clerk"],
    "key set": ["key", "set", "{orders}", "--scope", "billing:read", "--role", "clerk", "--allow-ip", "10.0.0.0/8",
                "--allow-origin", "https://a.example", "--allow-method", "GET", "--allow-host", "a.example",
                "--require-tls", "--meta", "a=b", "--name", "laptop", "--ref", "crm-1", "--plan", "silver", "--rate",
                "3/s", "--expires", "2030-01-01", "--not-before", "2027-01-01"],
    "key delete": ["key", "delete", "{orders}", "--yes"],
    "quota grant": ["quota", "grant", "--owner", "acme", "--amount", "5", "--until", "2030-01-01"],
    "admin set": ["admin", "set", "{bob}", "--may-grant", "orders:*", "--may-grant", "x:y", "--team", "R & D"],
    "policy set": ["policy", "set", "--approve-scope", "none", "--approve-action", "none", "--key-name", "svc-*"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_approved_is_what_was_asked_for(shop, first_shop, kind):
    """The same as the command would have done alone, field by field."""
    def prepare(tool, glass=()):
        for command in (["owner", "create", "empty"], ["plan", "create", "silver", "--rate", "1/s"],
                        ["role", "create", "clerk", "--scope", "orders:read"]):
            tool(*command, *glass)
        if kind == "quota grant":
            tool("owner", "set", "acme", "--quota", "100/month", *glass)
        return tool.key("acme", "--scope", "orders:read")["id"]

    def contents(tool):
        """But for what is random or the time."""
        found = state(tool)
        del found["info"]  # the twin has no policy
        found["policy"] = [tool.json("policy", "show")[name] for name in ("key_name", "approve_scope", "require_meta")
                           if kind == "policy set"]
        def plain(row):
            return re.sub(r'"[0-9a-f]{26,64}"|1[0-9]{9}|"[A-Za-z0-9]{4}"', "*", json.dumps(row, default=bytes.hex))
        return {name: sorted(map(plain, rows)) for name, rows in found.items() if name != "peppers"}

    glass = ["--break-glass", "--reason", "prepared"]
    key = prepare(shop.run, glass)
    number = ask(shop, "alice", *[word.format(orders=key, **shop.ids) for word in KINDS[kind]])
    shop.as_("carol", "approval", "approve", number)
    shop.run("audit", "verify")
    entry = [one for one in shop.run.audit() if one["actor"].get("request") == number]
    assert [one["action"] for one in entry] == ["approval.approve", kind.replace(" ", ".").replace("admin.set", "key.admin")]
    after = contents(shop.run)

    other = first_shop.moved_to(shop.run.beside("twin"))
    twin = other.run
    twin_key = prepare(twin)
    before = contents(twin)
    twin(*[word.format(orders=twin_key, **other.ids) for word in KINDS[kind]])
    expected = contents(twin)
    assert before != expected, "the command does something"
    assert after == expected


def test_who_may_not_approve(shop):
    number = ask(shop, "alice", "key", "create", "--owner", "acme", "--scope", "billing:read")
    before = state(shop.run)
    said = shop.as_("alice", "approval", "approve", number, status=1).stderr
    assert "alice asked for this change, so somebody else has to approve it" in said
    second = shop.run.json("admin", "create", "--owner", "alice", "--role", "admin", "--break-glass", "--reason", "x")
    shop.files["alice2"] = shop.files["alice"].parent / "alice2"
    shop.files["alice2"].write_text(second["key"])
    shop.files["alice2"].chmod(0o600)
    before = state(shop.run)
    assert "alice asked" in shop.as_("alice2", "approval", "approve", number, status=1).stderr
    assert "takes the key of a second person" in shop.as_("local", "approval", "approve", number, status=1).stderr
    for who, why in (("bob", "may not give the scope billing:read"), ("vic", "takes apikey:issue"),
                     ("sam", "takes apikey:issue"), ("tess", "may not give the scope billing:read")):
        assert why in shop.as_(who, "approval", "approve", number, status=1).stderr, who
    assert "takes the key" in shop.as_("local", "approval", "approve", number, "--break-glass", status=1).stderr
    assert state(shop.run) == before
    tried = shop.as_("carol", "approval", "approve", number, "--dry-run").stdout
    assert "dry run" in tried and "billing:read" in tried and state(shop.run) == before
    shop.as_("carol", "approval", "approve", number)


def test_who_asks_on_the_machine_needs_an_administrator(shop):
    number = ask(shop, "local", "key", "create", "--owner", "acme", "--scope", "billing:read")
    assert shop.run.json("approval", "show", number)["owner"] is None
    assert "asked by: root" in shop.run("approval", "show", number).stdout
    shop.as_("alice", "approval", "approve", number)


def test_who_may_only_look_ends_own_requests_only(shop):
    number = ask(shop, "alice", "key", "create", "--owner", "acme", "--scope", "billing:read")
    for who in ("vic", "sam", "bob"):  # bob is for one team
        assert "may refuse own requests only" in shop.as_(who, "approval", "refuse", number, status=1).stderr
    assert shop.run.json("approval", "show", number)["state"] == "pending"


@pytest.mark.parametrize("who", ["local", "alice", "carol"])
def test_who_may_end_a_request(shop, who):
    number = ask(shop, "alice", "key", "create", "--owner", "acme", "--scope", "billing:read")
    assert "nothing was changed" in shop.as_(who, "approval", "refuse", number, "--reason", "not now").stdout
    assert "refused already" in shop.as_("carol", "approval", "approve", number, status=1).stderr
    assert "refused already" in shop.as_("carol", "approval", "refuse", number).stdout
    assert shop.run.audit("--action", "approval.refuse")[-1]["after"]["reason"] == "not now"
    assert shop.run.json("key", "list", "--owner", "acme") == []


@pytest.mark.parametrize("change, why", [
    (["owner", "suspend", "acme", "--yes"], "owner acme has changed since"),
    (["plan", "set", "silver", "--rate", "5/s"], "plan silver has changed since"),
    (["role", "set", "clerk", "--scope", "orders:write"], "role clerk has changed since"),
    (["key", "set", "{orders}", "--name", "other"], "{orders} has changed since"),
    (["key", "set", "{alice}", "--name", "other"], "{alice} has changed since"),
    (["key", "revoke", "{alice}"], "{alice} has changed since"),
    (["owner", "suspend", "alice", "--yes"], "owner alice has changed since"),
])
def test_a_request_ends_when_what_it_touches_changes(shop, change, why):
    glass = ["--break-glass", "--reason", "x"]
    shop.run("plan", "create", "silver", *glass)
    shop.run("role", "create", "clerk", "--scope", "orders:read", *glass)
    shop.ids["orders"] = shop.run.key("acme", "--scope", "orders:read", "--plan", "silver", "--role", "clerk")["id"]
    number = ask(shop, "alice", "key", "set", shop.ids["orders"], "--scope", "billing:read")
    shop.run("key", "create", "--owner", "umbrella")
    assert shop.run.json("approval", "show", number)["state"] == "pending"
    shop.run(*[word.format(**shop.ids) for word in change], *glass)
    shown = shop.run.json("approval", "show", number)
    assert shown["state"] == "ended" and shown["why"] == why.format(**shop.ids) and shown["changes"] == []
    assert why.format(**shop.ids) in shop.as_("carol", "approval", "approve", number, status=1).stderr
    assert shop.run.json("approval", "list") == []


def test_more_keys_with_a_role_end_the_request_for_its_scopes(shop):
    glass = ["--break-glass", "--reason", "x"]
    shop.run("role", "create", "clerk", "--scope", "orders:read", *glass)
    first, second = (shop.run.key("acme")["id"] for _ in range(2))
    shop.run("key", "set", first, "--role", "clerk")
    number = ask(shop, "alice", "role", "set", "clerk", "--scope", "billing:read")
    shop.run("key", "set", first, "--name", "laptop")
    assert shop.run.json("approval", "show", number)["state"] == "pending"
    shop.run("key", "set", second, "--role", "clerk")
    assert "the role clerk was given to a key since" in shop.as_("carol", "approval", "approve", number, status=1).stderr


def test_the_key_that_asked_has_to_be_good_still(shop):
    number = ask(shop, "alice", "key", "create", "--owner", "acme", "--scope", "billing:read")
    with database_of(shop) as database:
        database.execute("UPDATE keys SET expires = created + 1 WHERE owner = (SELECT num FROM owners"
                         " WHERE name = 'alice')")
    assert "of alice is expired" in shop.as_("carol", "approval", "approve", number, status=1).stderr


def test_a_request_that_has_no_room_any_more(shop):
    number = ask(shop, "alice", "key", "create", "--owner", "acme", "--scope", "billing:read", "--ref", "crm-1")
    shop.run.key("acme", "--ref", "crm-1")
    gone = ask(shop, "alice", "owner", "delete", "umbrella", "--yes")
    shop.run.key("umbrella")
    for request in (number, gone):
        said = shop.as_("carol", "approval", "approve", request, status=1).stderr
        assert f"request {request} cannot be made any more" in said and "constraint" not in said
        shop.as_("carol", "approval", "refuse", request)


def test_what_is_damaged_stops_no_other(shop):
    number = ask(shop, "alice", "key", "create", "--owner", "acme", "--scope", "billing:read")
    wrong = [ask(shop, "alice", "key", "create", "--owner", "acme", "--scope", "billing:read") for _ in range(3)]
    step = {"kind": "registry", "action": "zap", "object": "x", "before": None, "after": {}}
    with database_of(shop) as database:
        for request, steps in zip(wrong, ("{", "[{}]", json.dumps([step]))):
            database.execute("UPDATE approvals SET steps = ? WHERE number = ?", (steps, request))
    assert "[json." not in shop.run("approval", "list", "--all").stdout
    for request in wrong:
        assert "[json." not in shop.as_("carol", "approval", "approve", request, status=1).stderr
    shop.as_("carol", "approval", "approve", number)


def test_as_many_as_are_read(shop):
    number = ask(shop, "alice", "key", "create", "--owner", "acme", "--scope", "billing:read")
    with database_of(shop) as database:
        for _ in range(99):
            database.execute("INSERT INTO approvals(state, created, ends, actor, owner, reason, needs, steps, seq, touched)"
                             " SELECT state, created, ends, actor, owner, reason, needs, steps, seq, touched FROM approvals"
                             " WHERE number = ?", (number,))
    said = shop.as_("alice", "key", "create", "--owner", "acme", "--scope", "billing:read", "--json", status=1).stderr
    assert "as many requests are waiting as may (100, or 10000 changes in all)" in said
    shop.as_("alice", "approval", "refuse", number)
    ask(shop, "alice", "key", "create", "--owner", "acme", "--scope", "billing:read")


def test_a_request_ends_by_itself(shop):
    number = ask(shop, "alice", "key", "create", "--owner", "acme", "--scope", "billing:read")
    with database_of(shop) as database:
        database.execute("UPDATE approvals SET created = created - 259200, ends = ends - 259200")
    assert shop.run.json("approval", "show", number)["why"] == "nobody decided within 72 hours"
    assert "ended already" in shop.as_("carol", "approval", "approve", number, status=1).stderr
    ask(shop, "alice", "key", "create", "--owner", "acme", "--scope", "billing:read")
    with database_of(shop) as database:
        rows = database.execute("SELECT state, steps FROM approvals ORDER BY number").fetchall()
    assert rows[0] == ("ended", "null") and rows[1][0] == "pending"


def test_the_approver_has_to_be_entitled_when_he_approves(shop):
    number = ask(shop, "alice", "key", "create", "--owner", "acme", "--scope", "billing:read")
    shop.run("admin", "set", shop.ids["carol"], "--may-grant", "orders:*", "--break-glass", "--reason", "x")
    assert "may not give" in shop.as_("carol", "approval", "approve", number, status=1).stderr
    shop.run("key", "suspend", shop.ids["carol"])
    assert "is suspended" in shop.as_("carol", "approval", "approve", number, status=1).stderr


def test_a_stricter_policy_holds_for_what_waits(shop):
    number = ask(shop, "alice", "key", "create", "--owner", "acme", "--scope", "billing:read")
    shop.run("policy", "set", "--require-meta", "ticket", "--break-glass", "--reason", "x")
    assert "needs the meta ticket" in shop.as_("carol", "approval", "approve", number, status=1).stderr
    assert shop.run.json("key", "list", "--owner", "acme") == []


def test_several_changes_are_one_request(shop, tmp_path):
    file = tmp_path / "keys.csv"
    lines = [f"legacy-key-0123456789abc{number:03},new{number % 3},{scopes}" for number, scopes in
             enumerate(["billing:read", "orders:read", "*"])]
    file.write_text("key,owner,scopes\n" + "\n".join(lines) + "\n")
    number = ask(shop, "alice", "import", file, "--format", "csv", "--create-owners")
    shown = shop.run.json("approval", "show", number)
    assert [step["kind"] for step in shown["changes"]] == ["owner", "key"] * 3
    assert shown["needs"] == ["scope billing:read", "scope *"]
    assert "new0" not in {owner["name"] for owner in shop.run.json("owner", "list")}
    shop.as_("carol", "approval", "approve", number)
    keys = [key for key in shop.run.json("key", "list") if key["owner"].startswith("new")]
    assert sorted(" ".join(key["scopes"]) for key in keys) == ["*", "billing:read", "orders:read"]
    assert "new0" in shop.run("find", stdin="legacy-key-0123456789abc000\n").stdout
    shop.run("audit", "verify")


def test_more_than_a_person_can_read(shop, tmp_path):
    file = tmp_path / "keys.csv"
    file.write_text("key,owner,scopes\n" + "".join(
        f"legacy-key-0123456789ab{number:04},acme,billing:read\n" for number in range(1001)))
    said = shop.run.refused("import", file, "--format", "csv")
    assert "more than the 1000 changes that one request may hold" in said
    assert shop.run.json("approval", "list") == [] and shop.run.json("key", "list", "--owner", "acme") == []


def test_two_at_once(shop):
    number = ask(shop, "alice", "key", "create", "--owner", "acme", "--scope", "billing:read")
    codes = []

    def approve():
        process = shop.run.start("approval", "approve", str(number), "--key-file", str(shop.files["carol"]))
        process.communicate()
        codes.append(process.returncode)
    threads = [threading.Thread(target=approve) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == [0, 1, 1, 1]
    assert len(shop.run.json("key", "list", "--owner", "acme")) == 1
    shop.run("audit", "verify")


def test_numbers_are_never_given_twice_and_erasing_forgets(shop):
    shop.run("owner", "create", "leaver", "--email", "leaver@example.org")
    first = ask(shop, "local", "owner", "set", "leaver", "--email", "new@example.org")
    shop.run("owner", "delete", "leaver", "--yes", "--break-glass", "--reason", "x")
    shop.run("owner", "erase", "leaver", "--reason", "asked", "--yes")
    assert shop.run.json("approval", "list", "--all") == []
    with open(shop.run.dir / "registry.db", "rb") as file:
        assert b"new@example.org" not in file.read()
    assert ask(shop, "local", "owner", "set", "acme", "--email", "a@b.example") == first + 1


def test_a_request_shows_all_that_it_changes(shop):
    number = ask(shop, "alice", "admin", "set", shop.ids["tess"], "--team", "none", "--may-grant", "none")
    change = f"key.admin {shop.ids['tess']} of tess: may grant orders:* → none (all scopes), teams shop → none (all teams)"
    shown = shop.run("approval", "show", number).stdout
    assert change in shown
    listed = shop.run("approval", "list").stdout.splitlines()
    ends = shop.run.json("approval", "list")[0]["ends"]
    assert listed[0].split()[-1] == "CHANGE" and ends in listed[1] and listed[1].endswith(change)
    shop.run("approval", "refuse", number)
    decided = shop.run.json("approval", "list", "--all")[0]["decided"]
    last = shop.run("approval", "list", "--all").stdout.splitlines()[-1]
    assert decided in last and ends not in last


def test_words_that_are_wrong(shop):
    assert "no number of a request" in shop.run.refused("approval", "show", "seven", status=2)
    for command in (["show"], ["approve", "--key-file", shop.files["carol"]], ["refuse"]):
        assert "there is no request 7" in shop.run.refused("approval", command[0], "7", *command[1:])
    assert "no request is waiting" in shop.run("approval", "list").stderr


def test_a_warning_where_nobody_could_approve(keyloader):
    said = keyloader("policy", "set", "--approve-scope", "billing:*", "--dry-run").stderr
    assert "nobody can approve" in said
    keyloader("admin", "create", "--owner", "alice", "--create-owner", "--role", "admin")
    assert "only alice can approve" in keyloader("policy", "set", "--approve-scope", "billing:*").stderr
    waits = keyloader("key", "create", "--owner", "alice", "--scope", "billing:read", status=3).stderr
    assert "Now only alice can approve" in waits
    found = json.loads(keyloader.start("doctor", "--json").communicate()[0])
    assert [one["result"] for one in found if one["check"] == "approvers"] == ["notice"]
    keyloader("admin", "create", "--owner", "bob", "--create-owner", "--role", "admin", "--break-glass", "--reason", "two")
    assert keyloader("policy", "set", "--approve-scope", "x:y", status=3).stderr.count("can approve") == 0


# -- what a request says of an owner

def on_disk(shop):
    return b"".join(path.read_bytes() for path in shop.run.dir.glob("registry.db*"))


def delete(shop, owner):
    """Its keys and itself, by two persons."""
    for key in shop.run.json("key", "list", "--owner", owner):
        shop.as_("carol", "approval", "approve", ask(shop, "alice", "key", "delete", key["id"], "--yes"))
    shop.as_("carol", "approval", "approve", ask(shop, "alice", "owner", "delete", owner, "--yes"))


def test_what_was_asked_goes_when_the_owner_is_erased(shop):
    """Approved, refused and ended: reasons and steps."""
    shop.run("owner", "create", "Jana Nowak")
    create = ["key", "create", "--owner", "Jana Nowak", "--scope", "billing:read"]
    for number, end in enumerate(("approve", "refuse", None)):
        request = ask(shop, "alice", *create, "--name", f"laptop-{number}", "--reason", f"passport-{number}")
        entry = shop.run.audit("--action", "approval.request")[-1]
        assert entry["after"]["owner"] == "Jana Nowak" and entry["after"]["reason"] == f"passport-{number}"
        if end == "approve":
            shop.as_("carol", "approval", "approve", request)
        elif end == "refuse":
            shop.as_("carol", "approval", "refuse", request, "--reason", "not Jana again")
        else:
            shop.run("owner", "set", "Jana Nowak", "--team", "x", "--break-glass", "--reason", "passport-glass")
    ended = shop.run.json("approval", "show", request)
    assert ended["state"] == "ended" and ended["reason"] == "" and ended["changes"] == []
    delete(shop, "Jana Nowak")
    shop.run("owner", "erase", "Jana Nowak")
    for text in ("Jana", "passport-", "laptop-"):
        assert text.encode() not in on_disk(shop), text
    assert "Jana" not in shop.run("audit", "list", "--json").stdout
    shop.run("audit", "verify")


def test_who_was_never_made_is_erased_too(shop):
    shop.run("policy", "set", "--approve-action", "owner.create", "--break-glass", "--reason", "for this test")
    create = ["owner", "create", "Jana Nowak", "--email", "jana@home.example", "--reason", "passport-4711"]
    shop.as_("carol", "approval", "refuse", ask(shop, "alice", *create))
    assert shop.run.audit("--action", "approval.request")[-1]["after"]["owner"] == "Jana Nowak"
    assert "erased 2 values of owner Jana Nowak" in shop.run("owner", "erase", "Jana Nowak").stdout
    for text in ("Jana", "jana@", "passport-"):
        assert text.encode() not in on_disk(shop), text
    assert "knows no deleted owner" in shop.run.refused("owner", "erase", "Jana Nowak")
    owner = shop.run.audit("--action", "owner.erase")[0]["object"]
    assert "was erased already; nothing is left" in shop.run("owner", "erase", owner).stdout
    shop.run("audit", "verify")


def test_a_request_about_several_owners_keeps_its_reason_with_the_changes(shop, tmp_path):
    (tmp_path / "keys.csv").write_text("key,owner,scopes\n" + "".join(
        f"legacy-key-of-{owner}-0123456789,{owner},billing:read\n" for owner in ("acme", "umbrella")))
    request = ask(shop, "alice", "import", tmp_path / "keys.csv", "--format", "csv", "--reason", "passport-4711")
    entry = shop.run.audit("--action", "approval.request")[-1]
    assert "reason" not in entry["after"] and "owner" not in entry["after"]
    assert shop.run.json("approval", "show", request)["reason"] == "passport-4711"
    shop.as_("carol", "approval", "approve", request)
    assert {entry["after"]["reason"] for entry in shop.run.audit("--action", "key.import")} == {"passport-4711"}


def test_what_ended_by_time_is_forgotten_with_the_next_change(shop):
    ask(shop, "alice", "owner", "set", "acme", "--email", "jana@home.example", "--reason", "passport-4711")
    with database_of(shop) as database:
        database.execute("UPDATE approvals SET ends = 1")
    database.close()
    assert shop.run.json("approval", "list", "--all")[-1]["reason"] == ""
    shop.run("role", "create", "other", "--scope", "x:y", "--break-glass", "--reason", "an ordinary change")
    with database_of(shop) as database:
        assert database.execute("SELECT state, reason, steps, touched, why FROM approvals").fetchall() == [
            ("ended", "", "null", "[]", "nobody decided within 72 hours")]
    database.close()
