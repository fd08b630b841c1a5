"""satisfy any and all beside allow/deny, auth_basic and auth_request: every combination of pass and refuse.

For each: the status, the challenge, what $apikey_status says, and what the key was charged.
"""

import base64
import itertools

import pytest

BASIC = base64.b64encode(b"user:word").decode()
HTPASSWD = "user:{PLAIN}word\n"

OTHERS = ("address", "basic", "request")
KEYS = ("good", "none", "spent")
CASES = list(itertools.product(("any", "all"), OTHERS, (True, False), KEYS))


@pytest.fixture(scope="module")
def server(stage):
    passwords = stage.place / "htpasswd"
    passwords.write_text(HTPASSWD)
    passwords.chmod(0o644)
    locations = ["location = /yes { return 204; }", "location = /no { return 401; }"]
    for satisfy in ("any", "all"):
        for passes in (True, False):
            verb = "pass" if passes else "refuse"
            other = {
                "address": "allow 127.0.0.1; deny all;" if passes else "deny all;",
                "basic": f'auth_basic "words"; auth_basic_user_file {passwords};',
                "request": f"auth_request {'/yes' if passes else '/no'};",
            }
            for name, directives in other.items():
                locations.append(f"""location /{satisfy}-{name}-{verb} {{
                    satisfy {satisfy}; {directives}
                    apikey "keys"; apikey_scope any; proxy_pass {stage.upstream.url};
                }}""")
    stage.registry.plan("two", rate="2/h", burst=2)
    return stage.nginx("\n".join(locations))


def expectation(satisfy, other, passes, key):
    """RETURNS: status, $apikey_status, whose challenge, was the key charged. nginx runs our check last."""
    refusal = {"address": 403, "basic": 401, "request": 401}[other]
    if satisfy == "any":
        if passes:
            return 200, "skipped", None, False
        if key == "good":
            return 200, "ok", None, True
        if key == "spent":  # final; that a password would do as well may be said
            return 429, "rate_limited", "basic" if other == "basic" else None, False
        return 401, "missing", "any", False
    if not passes:
        return refusal, None, other if refusal == 401 else None, False
    if key == "good":
        return 200, "ok", None, True
    return (401, "missing", "apikey", False) if key == "none" else (429, "rate_limited", None, False)


@pytest.mark.parametrize("satisfy,other,passes,key", CASES,
                         ids=["-".join(map(str, (s, o, "pass" if p else "refuse", k))) for s, o, p, k in CASES])
def test_combination(server, stage, satisfy, other, passes, key):
    presented = None if key == "none" else stage.registry.key(plan="two")
    if presented:
        server.wait_for_generation(stage.registry.generation())
    whoami = f"/all-address-pass?{key}"
    if key == "spent":
        assert [server.status(whoami, key=presented) for _ in range(3)] == [200, 200, 429]
    status, outcome, challenger, charged = expectation(satisfy, other, passes, key)
    headers = {"Authorization": f"Basic {BASIC}"} if other == "basic" and passes else {}
    path = f"/{satisfy}-{other}-{'pass' if passes else 'refuse'}"
    server.clear_access_log()

    answer = server.get(path, key=presented, headers=headers)

    assert answer.status_code == status, answer.text
    challenges = answer.headers.get_list("WWW-Authenticate")
    if challenger is None:
        assert challenges == [], "a challenge was left in an answer that asks for nothing"
    elif challenger == "apikey":
        assert challenges == ['ApiKey realm="keys"']
    elif challenger == "basic":
        assert challenges == ['Basic realm="words"']
    elif challenger == "any":
        assert challenges, "a 401 without a challenge"
    if outcome is not None:
        assert server.last_logged(path)["outcome"] == outcome
    if key == "good":
        left = [server.status(whoami, key=presented) for _ in range(3)].count(200)
        assert left == (1 if charged else 2), "charged" if not charged else "not charged"


@pytest.mark.parametrize("satisfy", ["any", "all"])
def test_an_allowed_address_with_a_bad_key(server, satisfy):
    expected = 200 if satisfy == "any" else 401
    assert server.status(f"/{satisfy}-address-pass", key="ak_live_nonsense") == expected


def test_nobody_passes_when_all_refuse(server):
    answer = server.get("/any-basic-refuse")
    assert answer.status_code == 401
    schemes = [line.split()[0] for line in answer.headers.get_list("WWW-Authenticate")]
    assert "ApiKey" in schemes
    assert len(schemes) == len(set(schemes))
