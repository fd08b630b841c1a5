"""Every variable: its value for a key that has everything, when it is empty, and that no client can forge it."""

import pytest

IDENTITY = ["id", "name", "owner", "plan", "env", "scopes", "expires"]
OTHERS = ["status", "limit", "remaining", "reset", "limit_name", "required", "generation", "location",
          "seen_id", "seen_owner", "seen_env"]
META = ["team", "cost_center", "motto", "absent"]
ALL = [*IDENTITY, *OTHERS, *(f"meta_{name}" for name in META)]


def shown(answer):
    """The variables as the location's add_header lines show them; an empty one is not sent."""
    return {name: answer.headers.get("V-" + name.replace("_", "-"), "") for name in ALL}


@pytest.fixture(scope="module")
def server(stage):
    registry = stage.registry
    registry.plan("gold", rate="100/h", burst=50)
    stage.key = registry.key(
        "Ærøskøbing & Co", name='key "one"', plan="gold", scope=["orders:read", "orders:write"],
        expires="2099-01-01T00:00:00Z", meta=["team=blue", "cost_center=42", 'motto=say "hi" \\ ☃'],
        publish=False)
    stage.plain = registry.key("bob", publish=False)
    stage.revoked = registry.key("carol")
    registry.revoke(stage.revoked)
    show = "".join(f'add_header V-{name.replace("_", "-")} "$apikey_{name}" always;\n' for name in ALL)
    return stage.nginx(f"""
        apikey "api"; {show}
        location /plain  {{ apikey_scope any; proxy_pass {stage.upstream.url}; }}
        location /scoped {{ apikey_scope never:granted also:not; proxy_pass {stage.upstream.url}; }}
        location /off    {{ apikey off; proxy_pass {stage.upstream.url}; }}
        location /optional {{ apikey "api" optional; apikey_scope any; proxy_pass {stage.upstream.url}; }}
        location /set    {{
            apikey_scope any;
            set $who "$apikey_owner/$apikey_status";
            if ($apikey_plan = gold) {{ set $who "$who/gold"; }}
            proxy_pass {stage.upstream.url}; proxy_set_header X-Who $who;
        }}
        location /return {{ return 200 "$apikey_status|$apikey_id"; }}
    """)


def test_all_of_a_key_that_has_everything(server, stage):
    values = shown(server.get("/plain", key=stage.key))
    assert values.pop("reset").isdigit()
    assert values.pop("limit_name") != ""
    assert values == {
        "id": stage.key.id, "name": 'key "one"', "owner": "Ærøskøbing & Co", "plan": "gold",
        "env": "live", "scopes": "orders:read orders:write", "expires": "4070908800", "status": "ok", "limit": "50",
        "remaining": "49", "required": "", "generation": str(stage.registry.generation()), "location": "/plain",
        "seen_id": stage.key.id, "seen_owner": "Ærøskøbing & Co", "seen_env": "live", "meta_team": "blue", "meta_cost_center": "42",
        "meta_motto": 'say "hi" \\ ☃', "meta_absent": "",
    }


def test_a_key_that_has_nothing(server, stage):
    values = shown(server.get("/plain", key=stage.plain))
    assert {name for name, value in values.items() if value == ""} == {
        "name", "scopes", "expires", "limit", "remaining", "reset", "limit_name", "required",
        *(f"meta_{name}" for name in META)} | ({"plan"} if values["plan"] == "" else set())
    assert values["id"] == stage.plain.id and values["owner"] == "bob"


@pytest.mark.parametrize("path,key,status,outcome,seen", [
    ("/plain", None, 401, "missing", ""),
    ("/plain", "ak_live_bad", 401, "malformed", ""),
    ("/plain", "revoked", 401, "revoked", "revoked"),
    ("/scoped", "key", 403, "scope", "key"),
    ("/optional", None, 200, "anonymous", ""),
    ("/off", "key", 200, "off", ""),
])
def test_no_identity_unless_authenticated(server, stage, path, key, status, outcome, seen):
    keys = {"revoked": stage.revoked, "key": stage.key}
    answer = server.get(path, key=keys.get(key, key))
    values = shown(answer)
    assert (answer.status_code, values["status"]) == (status, outcome)
    assert [values[name] for name in [*IDENTITY, "meta_team"]] == [""] * 8
    assert values["seen_id"] == (keys[seen].id if seen else "")
    assert values["seen_env"] == ("live" if seen else "")
    assert values["required"] == ("never:granted also:not" if outcome == "scope" else "")
    assert values["location"] == ("" if outcome == "off" else path)


def test_a_client_cannot_forge_them(server, stage):
    forged = "&".join(f"apikey_{name}=forged" for name in ALL)
    headers = {f"apikey-{name}": "forged" for name in ("id", "owner", "status")}
    for path, key in (("/plain", None), ("/optional", None), ("/plain", stage.plain)):
        answer = server.get(f"{path}?{forged}", key=key, headers={**headers, "Cookie": "apikey_id=forged"})
        assert "forged" not in "".join(shown(answer).values())


def test_the_rewrite_phase_reads_them(server, stage):
    assert server.status("/set", key=stage.key) == 200
    assert stage.upstream.last.header("X-Who") == "Ærøskøbing & Co".encode().decode("latin-1") + "/ok/gold"
    stage.upstream.clear()
    assert server.status("/set") == 401
    assert server.get("/return", key=stage.plain).text == f"ok|{stage.plain.id}"
    assert server.get("/return").text == "missing|"


def test_reading_them_charges_nothing(server, stage):
    key = stage.registry.key(rate="3/h", burst=3)
    server.wait_for_generation(stage.registry.generation())
    for _ in range(5):
        assert server.get("/return", key=key).text == f"ok|{key.id}"
    assert [shown(server.get("/set", key=key))["remaining"] for _ in range(3)] == ["2", "1", "0"]
    refused = server.get("/set", key=key)
    assert refused.status_code == 429
    values = shown(refused)
    assert (values["status"], values["remaining"], values["limit"]) == ("rate_limited", "0", "3")
    assert values["id"] == "" and values["seen_id"] == key.id
