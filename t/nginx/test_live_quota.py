"""What keyloader shows of a running nginx: what is used of quotas and what is left, and when keys were last used. It reads
node memory, so nothing has to be configured for that."""

import subprocess
import time

import pytest

from harness.paths import IS_ROOT, KEYLOADER
from harness.waiting import wait_until

LOCATION = 'location / { apikey "api"; apikey_scope any; empty_gif; }'
HOUR = 3600


def spend(server, key, count, refused=0):
    assert [server.status(key=key) for _ in range(count + refused)] == [200] * count + [429] * refused


def quotas(registry, *whose):
    return {each["name"]: each for each in registry.json("quota", "show", *whose)}


def numbers(quota):
    return quota["used"], quota["left"], quota["percent"]


@pytest.fixture
def limited(registry):
    registry.plan("small", "--quota", "10/day", "--rolling-quota", "trial=100/30d")
    registry.owner("acme", "--quota", "40/month")
    return registry.key("acme", plan="small")


def test_used_and_left_of_a_key_and_its_owner(registry, nginx, limited):
    other = registry.key("acme")
    server = nginx(LOCATION, workers=2)
    assert numbers(quotas(registry, limited.id)["day"]) == (0, 10, 0)
    spend(server, limited, 9)
    spend(server, other, 1)
    shown = quotas(registry, limited.id)
    assert numbers(shown["day"]) == (9, 1, 90) and shown["day"]["resets"] == shown["day"]["window_end"]
    assert numbers(shown["trial"]) == (9, 91, 9) and shown["trial"]["resets"] is not None
    assert numbers(quotas(registry, "--owner", "acme")["owner.month"]) == (10, 30, 25)
    assert [(each["live"], each["used"]) for each in shown["day"]["nginx"]] == [(True, 9)]
    line = next(line for line in registry.run("quota", "show", limited.id).stdout.splitlines() if line.startswith("day"))
    assert line.split()[:6] == ["day", "10/day", "9", "1", "90", "%"]
    effective = {each["name"]: each for each in registry.json("key", "show", limited.id)["effective_limits"]}
    assert numbers(effective["owner.month"]) == (10, 30, 25) and numbers(effective["day"]) == (9, 1, 90)
    assert "day 10/day (of the plan small): 9 used, 1 left (90 %), resets" in registry.run("key", "show", limited.id).stdout
    assert numbers(registry.json("owner", "show", "acme")["quotas"][0]) == (10, 30, 25)
    assert "owner.month: 10 used, 30 left (25 %)" in registry.run("owner", "show", "acme").stdout
    spend(server, limited, 1, refused=1)
    assert numbers(quotas(registry, limited.id)["day"]) == (10, 0, 100)


def test_it_is_what_nginx_itself_says(registry, nginx, limited):
    server = nginx(LOCATION + 'location = /me { apikey "api"; apikey_whoami; }', workers=2)
    for used in range(1, 4):
        spend(server, limited, 1)
        told = {limit["name"]: limit for limit in server.get("/me", key=limited).json()["limits"]}
        for whose in ((limited.id,), ("--owner", "acme")):
            for name, shown in quotas(registry, *whose).items():
                assert (shown["left"], shown["used"]) == (told[name]["remaining"], used), name


def test_grants_and_resets(registry, nginx, limited):
    server = nginx(LOCATION)
    spend(server, limited, 10, refused=1)
    registry.run("quota", "grant", limited.id, "--name", "day", "--amount", "10")
    server.wait_for_generation(registry.generation())
    assert numbers(quotas(registry, limited.id)["day"]) == (10, 10, 50)
    spend(server, limited, 5)
    assert numbers(quotas(registry, limited.id)["day"]) == (15, 5, 75)
    registry.run("quota", "reset", limited.id, "--name", "day")
    server.wait_for_generation(registry.generation())
    assert numbers(quotas(registry, limited.id)["day"])[:2] == (0, 20)


def test_what_was_settled_afterwards_may_be_more_than_the_amount(registry, nginx, upstream):
    registry.plan("tokens", "--quota", "tokens.day=100/day")
    key = registry.key(plan="tokens")
    upstream.answers["/"] = (200, {"X-Tokens": "250"}, b"")
    server = nginx(f"""location / {{ apikey "api"; apikey_scope any; proxy_pass {upstream.url};
                       apikey_cost 10 of=tokens response=$upstream_http_x_tokens; }}""")
    spend(server, key, 1, refused=1)
    wait_until(lambda: numbers(quotas(registry, key.id)["tokens.day"]) == (250, 0, 250), what="the true cost")


def test_several_nginx_are_summed_up(registry, nginx, limited):
    first, second = nginx(LOCATION), nginx(LOCATION)
    spend(first, limited, 4)
    spend(second, limited, 3)
    shown = quotas(registry, limited.id)["day"]
    assert numbers(shown) == (7, 13, 35)
    assert sorted(each["used"] for each in shown["nginx"]) == [3, 4]
    assert "2 nginx count, each for itself" in registry.run("quota", "show", limited.id).stdout
    second.quit()
    assert numbers(quotas(registry, limited.id)["day"]) == (4, 6, 40), "one that is gone decides nothing"
    first.quit()
    told = registry.run("quota", "show", limited.id).stdout
    assert ", gone) counted this last" in told and numbers(quotas(registry, limited.id)["day"])[0] == 7


def test_another_key_has_used_nothing(registry, nginx, limited):
    server = nginx(LOCATION)
    spend(server, limited, 5)
    other = registry.key("zeta", plan="small")
    assert numbers(quotas(registry, other.id)["day"]) == (0, 10, 0)


def test_last_used_needs_no_collecting(registry, nginx, limited):
    other = registry.key("zeta")
    server = nginx(LOCATION)
    before = int(time.time()) // HOUR * HOUR
    spend(server, limited, 1)

    def last():
        return {key["id"]: key["last_used"] for key in registry.json("key", "list")}
    shown = wait_until(lambda: last() if last()[limited.id] else None, what="the count")
    hours = {time.strftime("%Y-%m-%dT%H:00:00Z", time.gmtime(moment)) for moment in (before, time.time())}
    assert shown[limited.id] in hours and shown[other.id] is None
    assert not (registry.dir / "usage.db").exists()
    assert registry.json("key", "show", limited.id)["last_used"] == shown[limited.id]


def test_usage_is_collected_without_a_socket(registry, nginx, limited):
    server = nginx(LOCATION, workers=2)
    spend(server, limited, 6)
    wait_until(lambda: registry.json("usage")["total"]["admitted"] == 6, what="all counts")
    collected = registry.json("usage", "collect")
    assert [(each["rows"], each["from"].startswith("nginx (pid ")) for each in collected["collected"]] == [(1, True)]
    assert registry.run("usage", "collect", "--quiet").stdout == ""
    spend(server, limited, 2)
    server.reload()
    wait_until(lambda: registry.json("usage")["total"]["admitted"] == 8, what="all counts")
    server.quit()
    assert registry.json("usage")["total"]["admitted"] == 8, "what it left is read again"
    server.start()
    server.wait_for_generation(registry.generation())
    spend(server, limited, 1)
    wait_until(lambda: registry.json("usage")["total"]["admitted"] == 9, what="all counts")


def test_what_a_gone_nginx_has_counted_is_not_lost(registry, nginx, limited):
    server = nginx(LOCATION)
    spend(server, limited, 4)
    server.quit()
    assert registry.json("usage")["total"]["admitted"] == 4


def test_quotas_that_are_nearly_used_up(registry, nginx, limited):
    other = registry.key("zeta", plan="small")
    server = nginx(LOCATION)
    spend(server, limited, 9)
    spend(server, other, 7)

    def over(*words):
        return [(row["owner"], row["key"], row["quota"], row["percent"]) for row in registry.json("usage", "--over", *words)]
    assert over("80%") == [("acme", limited.id, "day", 90)]
    assert over("70") == [("acme", limited.id, "day", 90), ("zeta", other.id, "day", 70)]
    assert over("70%", "--owner", "zeta") == [("zeta", other.id, "day", 70)] and over("70%", "--top", "1") == over("80%")
    assert ("acme", None, "owner.month", 22) in over("20%")
    registry.revoke(limited)
    assert over("80%") == []


@pytest.mark.skipif(not IS_ROOT, reason="needs a mount namespace, so that no other nginx's file is removed")
def test_what_is_pruned_is_collected_first(registry, nginx, place, limited):
    runtime = place / "runtime"
    runtime.mkdir()
    server = nginx(LOCATION, http=f"apikey_zone zone=apikey:2m runtime={runtime};")
    spend(server, limited, 4)
    server.quit()
    hide = "mount -t tmpfs none /dev/shm && mount -t tmpfs none /run && exec"
    prune = f'{hide} "$0" --dir {registry.dir} --runtime {runtime} node prune --yes'
    done = subprocess.run(["unshare", "-m", "sh", "-c", prune, KEYLOADER], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "removed" in done.stdout, done.stderr
    assert list(runtime.glob("*.state")) == []
    assert registry.json("usage")["total"]["admitted"] == 4
