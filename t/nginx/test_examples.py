"""conf/examples: each is started as it is (paths and ports replaced), and keeps what its comments promise.

Comments in a fixed form are read here, so that they cannot lie:
    # setup [NAME]: keyloader …            run first; NAME: the key it prints
    # expect: METHOD PATH [key=NAME] [from=ADDRESS] ['Header: value']… -> STATUS [CHECK]…
A CHECK is 'Header: value' of the answer, upstream:'Header: value' or upstream-path:'/path' of what the upstream got
(an empty value: the header is absent), or log:field=value of the access log in JSON. $NAME stands for the key.
"""

import json
import re
import shlex

import httpx
import pytest

from harness.example import ExampleServer, make_keys
from harness.paths import REPOSITORY
from harness.waiting import wait_until

EXAMPLES = sorted((REPOSITORY / "conf" / "examples").glob("*.conf"))
TOPICS = {"minimal", "bearer-beside-jwt", "scopes-by-method", "tiers", "environments", "satisfy-any", "json-access-log",
          "query-keys", "browser-keys", "forward-auth", "ai-gateway", "limits", "usage"}


def send(server, promise, keys):
    given, wanted = promise.split(" -> ")
    method, path, *words = shlex.split(given)
    status, *checks = shlex.split(wanted)
    headers, address = [], None
    for word in words:
        name, _, value = word.partition("=")
        if name == "key":
            headers.append(("X-API-Key", keys[value]))
        elif name == "from":
            address = value
        else:
            header, _, text = word.partition(": ")
            headers.append((header, filled(text, keys)))
    transport = httpx.HTTPTransport(local_address=address) if address else None
    with httpx.Client(base_url=server.url, trust_env=False, transport=transport) as client:
        answer = client.request(method, filled(path, keys), headers=headers)
    return int(status), checks, answer


def filled(text, keys):
    return re.sub(r"\$(\w+)", lambda match: keys[match.group(1)], text)


def check(server, upstream, answer, wanted, keys):
    kind, _, rest = wanted.partition(":")
    if kind == "upstream-path":
        assert upstream.last.path == rest
    elif kind == "upstream":
        name, _, value = rest.partition(": ")
        assert (upstream.last.header(name.rstrip(": ")) or "") == filled(value, keys)
    elif kind == "log":
        name, _, value = rest.partition("=")
        entry = json.loads(server.access_log_path.read_text().splitlines()[-1])
        assert entry[name] == value
    else:
        assert answer.headers.get(kind) == filled(rest.strip(), keys)


def test_all_topics_are_there():
    assert {path.stem for path in EXAMPLES} == TOPICS


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example(path, place, registry, upstream, nginx):
    text = path.read_text()
    keys = make_keys(text, registry)
    prefix = place / "example"
    prefix.mkdir()
    server = ExampleServer(prefix, text, registry, upstream.url)
    nginx.all.append(server)
    server.start()
    server.wait_for_generation(registry.generation())
    promises = re.findall(r"^# expect: (.*)$", text, re.MULTILINE)
    assert keys and len(promises) >= 4
    for number, promise in enumerate(promises, 1):
        upstream.clear()
        status, checks, answer = send(server, promise, keys)
        assert answer.status_code == status, f"{promise}\n{answer.text}"
        wait_until(lambda: len(server.access_log_path.read_text().splitlines()) >= number, what="the log line")
        for wanted in checks:
            check(server, upstream, answer, wanted, keys)
        assert not upstream.requests or answer.status_code == 200, promise
        written = server.access_log_path.read_text() + server.error_log()
        handed_on = "".join(seen.text() for seen in upstream.requests)
        assert all(key not in written + handed_on for key in keys.values()), f"a key came out: {promise}"
