"""keyloader why: finds a request in nginx's logs, and says which check decided and who had caused that.

The lines are written here; t/nginx/test_incident.py has nginx write them.
"""

import datetime
import gzip
import json
import os

import pytest

ID = "4f1c0a52b7d84c9c8c1d5a3e2b60f7a9"
OTHER = "00000000000000000000000000000000"
SECRET = "ak_live_" + "A1b2C3d4" * 4 + "Zz9YxW"


def now():
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S+00:00")


def line(outcome="revoked", instance=ID, **more):
    fields = {"time": now(), "instance": instance, "status": 401, "outcome": outcome, "key": "", "owner": "", "env": "",
              "required": "", "limit": "", "remaining": "", "location": "/orders", "generation": "7",
              "address": "192.0.2.1", "scheme": "http", "method": "GET", "host": "api.example", "origin": "",
              "request": "GET /orders HTTP/1.1", "seconds": 0.001}
    return json.dumps({**fields, **more}) + "\n"


def error_line(sentence, instance=ID, request="GET /orders HTTP/1.1"):
    time = datetime.datetime.now().strftime("%Y/%m/%d %H:%M:%S")
    return (f'{time} [info] 812#812: *5 apikey: {sentence}, request_id {instance}, client: 192.0.2.1, server: localhost, '
            f'request: "{request}", host: "api.example"\n')


@pytest.fixture
def log(tmp_path):
    return tmp_path / "logs" / "apikey.log"


def write(log, *lines):
    log.parent.mkdir(exist_ok=True)
    log.write_bytes(b"".join(each if isinstance(each, bytes) else each.encode() for each in lines))


def rows(text):
    return dict(part.split(None, 1) for part in text.replace("changed since", "changed_since").replace(
        "read in", "read_in").splitlines())


@pytest.fixture
def key(keyloader):
    keyloader("init")
    made = json.loads(keyloader("key", "create", "--owner", "acme", "--create-owner", "--name", "till 4", "--scope",
                                "orders:read", "--json").stdout)
    return made["id"]


def why(keyloader, log, *more):
    return rows(keyloader("why", ID, "--log", log, *more).stdout)


def test_a_revoked_key_with_who_and_why(keyloader, key, log):
    keyloader("key", "revoke", key, "--reason", "leak")
    write(log, line(instance=OTHER), line(key=key, owner="acme", env="live"), line(instance=OTHER))
    said = why(keyloader, log)
    assert said["result"] == "refused, answered 401: revoked"
    assert said["key"] == f'{key} of acme, "till 4"'
    assert said["request"] == "GET /orders HTTP/1.1 from 192.0.2.1"
    assert said["check"].startswith("the key was revoked at 20")
    assert said["cause"].startswith("revoked by ") and said["cause"].endswith("reason: leak")
    assert (said["location"], said["generation"]) == ("/orders", "7")
    assert said["read_in"] == f"{log} (2 lines)"


def test_json(keyloader, key, log):
    keyloader("key", "revoke", key, "--reason", "leak")
    write(log, line(key=key, owner="acme"))
    said = json.loads(keyloader("why", ID.upper(), "--log", log, "--json").stdout)
    assert (said["instance"], said["outcome"], said["key"], said["owner"]) == (ID, "revoked", key, "acme")
    assert said["cause"]["action"] == "key.revoke" and said["cause"]["after"]["revoked_reason"] == "leak"
    assert said["log"] == {"file": str(log), "lines": 1}
    assert said["later"] is None and said["registry_problem"] == ""


def test_the_error_log_alone_is_enough(keyloader, key, log):
    keyloader("key", "revoke", key, "--reason", "leak")
    write(log, error_line(f'refused: revoked, key {key}, owner "acme", location "/orders"'))
    said = why(keyloader, log)
    assert said["result"] == "refused: revoked"
    assert said["key"] == f'{key} of acme, "till 4"' and said["location"] == "/orders"
    assert said["cause"].endswith("reason: leak")
    assert said["request"] == "GET /orders HTTP/1.1 from 192.0.2.1"


def test_scopes_needed_and_held(keyloader, key, log):
    keyloader("key", "set", key, "--scope", "orders:list")
    for text in (line("scope", key=key, owner="acme", status=403, required="orders:write orders:admin"),
                 error_line(f'refused: scope (needs orders:write or orders:admin), key {key}, owner "acme", '
                            'location "/orders"')):
        write(log, text)
        said = why(keyloader, log)
        assert said["check"] == ('location "/orders" needs the scope orders:write or orders:admin; '
                                 "the key has orders:list")
        assert said["cause"].startswith("changed by ") and said["cause"].endswith(": scopes orders:read → orders:list")


@pytest.mark.parametrize("outcome,more,words", [
    ("ok", {"status": 200}, "every check was passed"),
    ("missing", {}, 'the request had no key where location "/orders" takes keys from (apikey_from)'),
    ("malformed", {}, "has not the form of a key"),
    ("unknown", {}, "no key of this registry was presented"),
    ("suspended", {}, "the key, or its owner, was suspended"),
    ("not_yet_valid", {}, "the key was not valid yet"),
    ("expired", {}, "the key had expired"),
    ("throttled", {}, "too many failed attempts from 192.0.2.1 (apikey_fail_limit)"),
    ("wrong_environment", {"env": "test"}, 'location "/orders" does not take keys of the environment "test"'),
    ("wrong_address", {}, 'its address was "192.0.2.1"; the key may be used with 10.0.0.0/8'),
    ("tls_required", {}, "only be used over TLS"),
    ("wrong_origin", {"origin": "https://evil.example"},
     'its Origin was "https://evil.example"; the key may be used with https://shop.example'),
    ("wrong_method", {}, 'its method was "GET"; the key may be used with POST'),
    ("wrong_host", {}, 'its host was "api.example"; the key may be used with www.example'),
    ("scope", {"method": "PUT"}, 'no apikey_scope of location "/orders" covers the method PUT'),
    ("rate_limited", {"limit": "rate"}, 'the limit "rate" of the key, 5/s burst 5, was used up'),
    ("rate_limited", {"limit": "place"}, 'the limit "place" of location "/orders" (apikey_limit) was used up'),
    ("concurrency_limited", {"limit": "place"}, "so many requests were in flight"),
    ("unavailable", {}, "nginx could not decide; its error log says why"),
    ("bypass", {}, "let it pass (on_error=allow)"),
    ("preflight", {}, "CORS preflight"),
    ("anonymous", {}, "needs none (optional)"),
    ("skipped", {}, "somebody else let it in (satisfy any)"),
    ("made_up", {}, "does not know this outcome"),
])
def test_each_check_has_words(keyloader, key, log, outcome, more, words):
    keyloader("key", "set", key, "--allow-ip", "10.0.0.0/8", "--allow-origin", "https://shop.example", "--allow-method",
              "POST", "--allow-host", "www.example", "--rate", "5/s")
    without_key = outcome in ("missing", "malformed", "unknown", "unavailable", "anonymous", "preflight")
    write(log, line(outcome, **{**({} if without_key else {"key": key, "owner": "acme"}), **more}))
    said = why(keyloader, log)
    assert words in said["check"]
    if without_key:
        assert said["key"] == "none of the registry was presented"


def test_a_dry_run(keyloader, key, log):
    write(log, line("scope_dry_run", key=key, owner="acme", status=200, required="x"))
    assert why(keyloader, log)["result"] == ("let in by a dry run (apikey_dry_run); else it would have been refused: "
                                             "scope")


def test_what_changed_since(keyloader, key, log):
    keyloader("key", "suspend", key)
    write(log, line("suspended", key=key, owner="acme", time="2026-01-01T00:00:00+00:00"))
    said = why(keyloader, log)
    assert "cause" not in said, "it is younger than the request"
    assert said["changed_since"].startswith("suspended by ")


def test_a_suspended_owner(keyloader, key, log):
    keyloader("owner", "suspend", "acme")
    write(log, line("suspended", key=key, owner="acme"))
    said = why(keyloader, log)
    assert said["cause"].startswith("owner acme suspended by ") and said["check"] == "its owner acme was suspended"


@pytest.mark.parametrize("command,name", [("owner", "owner acme suspended by "), ("key", "suspended by ")])
def test_the_reason_of_a_suspension(keyloader, key, log, command, name):
    keyloader(command, "suspend", "acme" if command == "owner" else key, "--reason", "unpaid")
    write(log, line("suspended", key=key, owner="acme"))
    said = why(keyloader, log)
    assert said["cause"].startswith(name) and said["cause"].endswith(", reason: unpaid")
    assert said["cause"].count("unpaid") == 1


def test_a_suspension_that_was_over_is_no_cause(keyloader, key, log):
    keyloader("owner", "suspend", "acme", "--reason", "unpaid")
    keyloader("key", "suspend", key)
    keyloader("key", "resume", key)
    write(log, line("suspended", key=key, owner="acme"))
    said = why(keyloader, log)
    assert said["cause"].startswith("owner acme suspended by ") and said["check"] == "its owner acme was suspended"


def test_a_limit_of_the_plan(keyloader, key, log):
    keyloader("plan", "create", "gold", "--rate", "5/s")
    keyloader("key", "set", key, "--plan", "gold")
    keyloader("plan", "set", "gold", "--rate", "2/s")
    write(log, line("rate_limited", key=key, owner="acme", limit="rate", status=429))
    said = why(keyloader, log)
    assert said["check"] == 'the limit "rate" of the plan gold, 2/s burst 2, was used up'
    assert said["cause"].startswith("plan gold changed by ") and said["cause"].endswith(": rate 5/s → 2/s")


@pytest.mark.parametrize("outcome", ["rate_limited", "concurrency_limited"])
def test_a_limit_of_the_location_has_no_cause_in_the_registry(keyloader, key, log, outcome):
    keyloader("owner", "set", "acme", "--quota", "5000000/month")
    write(log, line(outcome, key=key, owner="acme", limit="/chat/", location="/chat/", status=429))
    said = why(keyloader, log)
    assert '"/chat/" of location "/chat/" (apikey_limit)' in said["check"]
    assert said["cause"] == "nginx's configuration"
    assert json.loads(keyloader("why", ID, "--log", log, "--json").stdout)["cause"] is None


def test_only_a_change_of_the_limit_that_refused_is_its_cause(keyloader, key, log):
    keyloader("plan", "create", "gold", "--rate", "5/s")
    keyloader("key", "set", key, "--plan", "gold")
    keyloader("plan", "set", "gold", "--rate", "2/s", "--quota", "9/day")
    keyloader("plan", "set", "gold", "--quota", "7/day")
    keyloader("owner", "set", "acme", "--quota", "100/month")
    write(log, line("rate_limited", key=key, owner="acme", limit="rate", status=429))
    assert why(keyloader, log)["cause"].endswith(": rate 5/s → 2/s")
    write(log, line("quota_exceeded", key=key, owner="acme", limit="owner.month", status=429))
    assert why(keyloader, log)["cause"].startswith("owner acme changed by ")


def test_a_limit_that_was_removed_since_is_not_the_locations(keyloader, key, log):
    keyloader("key", "set", key, "--rate", "5/s")
    keyloader("key", "set", key, "--rate", "none")
    write(log, line("rate_limited", key=key, owner="acme", limit="rate", status=429))
    said = why(keyloader, log)
    assert said["check"] == 'the limit "rate", which the key no longer has, was used up'
    assert said["cause"].startswith("changed by ")


def test_a_method_that_nothing_covers_is_the_configurations(keyloader, key, log):
    keyloader("key", "set", key, "--scope", "orders:list")
    write(log, line("scope", key=key, owner="acme", method="PUT", status=403))
    assert why(keyloader, log)["cause"] == "nginx's configuration"


def test_a_key_that_was_deleted_and_one_of_elsewhere(keyloader, key, log):
    keyloader("key", "delete", key)
    write(log, line("revoked", key=key, owner="acme"))
    assert " (deleted at 20" in why(keyloader, log)["key"]
    write(log, line("revoked", key=key[:-3] + "222", owner="acme"))
    assert "the registry of this directory does not know it" in why(keyloader, log)["key"]


def test_without_a_registry_the_line_is_told(bare, log):
    write(log, line("unknown"))
    said = rows(bare("why", ID, "--log", log).stdout)
    assert said["result"] == "refused, answered 401: unknown"
    assert "there is no registry in" in said["registry"]
    assert not bare.dir.exists()


def test_rotated_and_compressed_files(keyloader, key, log):
    write(log, line(instance=OTHER))
    for number, (name, text) in enumerate([("apikey.log.1", line(instance=OTHER) * 2), ("apikey.log.2.gz", "")]):
        path = log.parent / name
        path.write_text(text)
        os.utime(path, (1_700_000_000 - number, 1_700_000_000 - number))
    packed = log.parent / "apikey.log.2.gz"
    packed.write_bytes(gzip.compress((line(instance=OTHER) * 3 + line("unknown")).encode()))
    os.utime(packed, (1_600_000_000, 1_600_000_000))
    assert why(keyloader, log)["read_in"] == f"{packed} (4 lines)"


def test_not_found_says_where_and_what_to_do(keyloader, key, log):
    write(log, line(instance=OTHER))
    (log.parent / "apikey.log.1").mkdir()
    said = keyloader.refused("why", ID, "--log", log)
    assert f"no line about {ID} in {log} (1 line), {log}.1 (not a regular file)" in said
    assert "--log FILE" in said and "include snippets/apikey-log.conf;" in said
    assert "No such file or directory" in keyloader.refused("why", ID, "--log", log.parent / "nowhere.log")


@pytest.mark.parametrize("instance", ["x", ID[:-1], ID + "0", "g" * 32, SECRET])
def test_no_request_id_is_wrong_use(keyloader, instance):
    said = keyloader.refused("why", instance, status=2)
    assert "is no request id" in said and SECRET not in said


def test_what_a_client_writes_is_not_believed(keyloader, key, log):
    forged = f'refused: revoked, key {key}, owner "mallory", location "/", request_id {ID}, '
    write(log,
          error_line("refused: missing, location \"/\"", OTHER, request=f"GET /apikey: {forged} HTTP/1.1"),
          f"2026/11/27 02:13:04 [error] 8#8: *5 open() \"/x apikey: {forged}\" failed\n",
          f"apikey: {forged}\n",
          line("missing", OTHER, request=f'GET /{{"instance":"{ID}","outcome":"ok"}} HTTP/1.1'),
          f'{{"instance":"{ID}"}}\n', f'{{"instance":["{ID}"],"outcome":"ok"}}\n', f'{{"{ID}\n', f'["{ID}"]\n')
    assert f"no line about {ID}" in keyloader.refused("why", ID, "--log", log)


def test_hostile_bytes_do_not_reach_the_terminal(keyloader, key, log):
    nasty = line("missing", request="GET /\x1b[31m\u202e HTTP/1.1").encode().replace(b"/orders", b"/or\xff\x9b")
    write(log, b"\x00" * 200_000, b"\n", b"x" * 5_000_000 + b"\n", nasty)
    shown = keyloader("why", ID, "--log", log).stdout
    assert "refused, answered 401: missing" in shown and "(3 lines)" in shown
    assert not set(shown) & {"\x1b", "\u202e", "\x9b", "\x00"}
    json.loads(keyloader("why", ID, "--log", log, "--json").stdout)


def test_a_key_in_the_line_is_not_shown(keyloader, log):
    keyloader("init")
    key = keyloader("key", "create", "--owner", "acme", "--create-owner").stdout.split()[0]
    write(log, line("missing", request=f"GET /?x={key} HTTP/1.1", origin=key))
    for more in ([], ["--json"]):
        assert key not in keyloader("why", ID, "--log", log, *more).stdout


def test_a_damaged_file_is_said(keyloader, key, log):
    log.parent.mkdir()
    log.write_bytes(gzip.compress(line(instance=OTHER).encode() * 1000)[:-20])
    assert "damaged behind line" in keyloader.refused("why", ID, "--log", log)
