"""apikey_metrics: every family, its type and labels, and that promtool has nothing to say."""

import re
import subprocess

import pytest

from harness.store import LOCATION
from harness.waiting import wait_until

FAMILIES = {
    "apikey_quota_slots": "gauge",
    "apikey_quota_slots_used": "gauge",
    "apikey_requests_in_flight": "gauge",
    "apikey_requests_total": "counter",
    "apikey_limited_total": "counter",
    "apikey_cost_misses_total": "counter",
    "apikey_decision_seconds": "histogram",
    "apikey_snapshot_generation": "gauge",
    "apikey_snapshot_keys": "gauge",
    "apikey_snapshot_created_timestamp_seconds": "gauge",
    "apikey_snapshot_stale": "gauge",
    "apikey_snapshot_veto_generation": "gauge",
    "apikey_workers_fenced": "gauge",
    "apikey_snapshot_adoptions_total": "counter",
    "apikey_adoption_seconds": "histogram",
    "apikey_state_checkpoint_timestamp_seconds": "gauge",
    "apikey_state_write_errors_total": "counter",
    "apikey_zone_slots": "gauge",
    "apikey_zone_slots_used": "gauge",
    "apikey_zone_forced_evictions_total": "counter",
    "apikey_zone_client_slots": "gauge",
    "apikey_zone_client_slots_used": "gauge",
    "apikey_zone_client_forced_evictions_total": "counter",
    "apikey_usage_slots": "gauge",
    "apikey_usage_slots_used": "gauge",
    "apikey_usage_overflow_total": "counter",
    "apikey_worker_generation_skew": "gauge",
    "apikey_info": "gauge",
}
RESULTS = ["adopted", "refused", "damaged", "not_trusted", "unsupported", "unreadable", "failed"]


def promtool(text):
    return subprocess.run(["promtool", "check", "metrics"], input=text.encode(), capture_output=True, timeout=30,
                          check=False)


def assert_clean(text):
    said = promtool(text)
    assert said.returncode == 0 and not said.stderr, (said.stdout + said.stderr).decode()


def test_promtool_would_notice():
    assert promtool("# TYPE requests counter\nrequests 1\n").returncode != 0


def test_every_family_has_help_and_type(registry, nginx):
    key = registry.key()
    server = nginx(LOCATION)
    server.status(key=key)
    text = server.metrics_text()
    assert_clean(text)
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))
    assert types == FAMILIES
    assert set(re.findall(r"^# HELP (\S+) \S", text, re.M)) == set(FAMILIES)
    assert server.metrics()['apikey_info{version="0.1.0"}'] == 1


def test_before_the_first_request_and_snapshot(nginx, place):
    server = nginx(LOCATION, store=place / "absent.mdb")
    text = server.metrics_text()
    assert_clean(text)
    assert 'apikey_snapshot_generation{store="default"} 0' in text
    for result in RESULTS:
        assert f'apikey_snapshot_adoptions_total{{store="default",result="{result}"}} 0' in text


def test_without_any_store(nginx):
    """A node that only shows its metrics."""
    assert_clean(nginx("", store=None).metrics_text())


def test_requests_by_outcome_environment_and_form(registry, nginx):
    live, test = registry.key(publish=False), registry.key(env="test")
    server = nginx(LOCATION, workers=4)
    for key, status, times in [(live, 200, 3), (test, 403, 2), (None, 401, 4), ("ak_live_wrong", 401, 5)]:
        assert {server.status(key=key) for _ in range(times)} == {status}
    wanted = {("ok", "live", "own"): 3, ("wrong_environment", "test", "own"): 2, ("missing", "", "none"): 4}
    for (outcome, env, form), count in wanted.items():
        sample = f'apikey_requests_total{{outcome="{outcome}",env="{env}",form="{form}"}}'
        wait_until(lambda: server.metrics().get(sample) == count, what=sample)  # pylint: disable=cell-var-from-loop
    wait_until(lambda: server.metric("apikey_requests_total", outcome="malformed") == 5)
    assert server.metric("apikey_requests_total") == 14


def test_limited_by_plan_and_limit(registry, nginx):
    registry.plan("small", rate="1/h", burst=1)
    key = registry.key(plan="small")
    server = nginx(LOCATION)
    assert [server.status(key=key) for _ in range(4)] == [200, 429, 429, 429]
    wait_until(lambda: server.metric("apikey_limited_total", plan="small") == 3)
    assert server.metric("apikey_requests_total", outcome="rate_limited") == 3


def test_labels_are_bounded(registry, nginx):
    """The sixteenth environment and all after it are counted together."""
    keys = [registry.key(env=f"env{n}", publish=False) for n in range(20)]
    registry.publish()
    server = nginx('location / { apikey "api"; apikey_environment any; apikey_scope any; empty_gif; }')
    assert {server.status(key=key) for key in keys} == {200}
    wait_until(lambda: server.metric("apikey_requests_total", outcome="ok") == 20)
    envs = set(re.findall(r'outcome="ok",env="([^"]*)"', server.metrics_text()))
    assert len(envs) == 16 and "other" in envs
    assert server.metric("apikey_requests_total", env="other") == 5
    assert_clean(server.metrics_text())


def test_one_decision_in_64_is_timed(registry, nginx):
    key = registry.key()
    server = nginx(LOCATION, workers=1)
    for _ in range(200):
        assert server.status(key=key) == 200
    wait_until(lambda: server.metric("apikey_decision_seconds_count") >= 3)
    samples = server.metrics()
    buckets = [value for name, value in samples.items() if name.startswith("apikey_decision_seconds_bucket")]
    # A request whose variables are read early is decided more than once.
    assert buckets == sorted(buckets) and buckets[-1] == samples["apikey_decision_seconds_count"] <= 20
    assert 0 < samples["apikey_decision_seconds_sum"] < 1


def test_slots(registry, nginx):
    registry.plan("slow", rate="10/h", burst=10)
    keys = [registry.key(plan="slow", publish=False) for _ in range(3)]
    registry.publish()
    server = nginx(LOCATION, http="apikey_zone zone=apikey:4m;")
    assert server.metric("apikey_zone_slots_used") == 0
    for key in keys:
        server.status(key=key)
    assert server.metric("apikey_zone_slots_used") == 3
    assert server.metric("apikey_zone_client_slots_used") == 0
    assert 40_000 < server.metric("apikey_zone_client_slots") < server.metric("apikey_zone_slots") / 2
    assert server.metric("apikey_zone_forced_evictions_total") == 0
    assert 100_000 < server.metric("apikey_zone_slots") < 4 * 2**20 / 16


@pytest.mark.parametrize("method, status", [("GET", 200), ("HEAD", 200), ("POST", 405), ("DELETE", 405)])
def test_methods(nginx, method, status):
    server = nginx("location = /m { apikey_metrics; }", store=None)
    answer = server.request(method, "/m")
    assert answer.status_code == status
    if status == 200:
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert (answer.content == b"") == (method == "HEAD")


def test_several_stores(nginx, place):
    server = nginx(LOCATION, store=None, http=f"apikey_store {place}/a.mdb;\napikey_store {place}/b.mdb name=b;")
    assert_clean(server.metrics_text())
    assert 'apikey_snapshot_keys{store="b"} 0' in server.metrics_text()
