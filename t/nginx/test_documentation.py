"""The configurations shown in README and docs/ are run through nginx -t, and links lead somewhere.

A block is marked by what it belongs into: ```nginx main, ```nginx http, ```nginx server or ```nginx location. One that
directly follows an http block is tested together with it.
"""

import re
import subprocess

import pytest

from harness.paths import MODULE, REPOSITORY

DOCUMENTS = [REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]
DOCUMENTS += sorted((REPOSITORY / "docs").rglob("*.md")) + [REPOSITORY / "conf" / "examples" / "README.md"]


def blocks():
    for path in DOCUMENTS:
        text, http, end = path.read_text(), "", 0
        for number, match in enumerate(re.finditer(r"^```nginx ?(\w*)\n(.*?)^```", text, re.M | re.S), 1):
            level, block = match.groups()
            before = http if text[end:match.start()].strip() == "" and level != "http" else ""
            http, end = (block if level == "http" else ""), match.end()
            yield pytest.param(level, block, before, id=f"{path.name}-{number}")


def adapted(text, place):
    """With this machine's paths: the module's, and a directory that exists for the rest."""
    (place / "apikey").mkdir(exist_ok=True)
    for pepper in re.findall(r"/var/lib/apikey/peppers/(\w+)", text):
        (place / "apikey" / "peppers").mkdir(mode=0o700, exist_ok=True)
        (place / "apikey" / "peppers" / pepper).write_text("0" * 64)
        (place / "apikey" / "peppers" / pepper).chmod(0o600)
    text = text.replace("load_module modules/ngx_http_apikey_module.so;", f"load_module {MODULE};" if MODULE else "")
    return text.replace("/var/lib/apikey", f"{place}/apikey").replace("listen 8080", "listen 127.0.0.1:8080")


@pytest.mark.parametrize("level,text,http", blocks())
def test_shown_configuration_is_right(level, text, http, nginx, place):
    text, http = adapted(text, place), adapted(http, place)
    assert level in ("main", "http", "server", "location"), "say where the block belongs: ```nginx server"
    if level == "main":
        server = nginx.make(store=None)
        server.config_path.write_text(f"pid {server.prefix}/nginx.pid;\n{text}")
        # Where an nginx that was built without paths writes its access log.
        (server.prefix / "logs").mkdir()
        right, said = server.check()
    elif level == "http":
        right, said = nginx.check(http=text, store=None)
    elif level == "server":
        right, said = nginx.check(server=text, http=http, store=f"{place}/apikey/keys.mdb")
    else:
        right, said = nginx.check(f"location /shown {{ {text} }}", http=http, store=f"{place}/apikey/keys.mdb")
    assert right, said


def directives():
    source = (REPOSITORY / "src" / "nginx" / "ngx_http_apikey_module.cpp").read_text()
    return re.findall(r'ngx_string\("(apikey\w*)"\)', source)


@pytest.mark.parametrize("directive", directives())
def test_every_directive_is_documented(directive):
    text = (REPOSITORY / "docs" / "configuration.md").read_text()
    section = re.search(rf"^## {directive}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    assert section, f"docs/configuration.md has no section {directive}"
    assert re.search(rf"^Syntax:  {directive}\b", section.group(1), re.M)
    assert re.search(r"^Context: ", section.group(1), re.M)
    assert f"configuration.md#{directive})" in (REPOSITORY / "README.md").read_text()


def test_every_metric_is_documented(nginx):
    text = (REPOSITORY / "docs" / "configuration.md").read_text()
    server = nginx(store="/nonexistent/keys.mdb")
    names = set(re.findall(r"^# TYPE (\w+)", server.metrics_text(), re.M))
    assert names
    assert [name for name in sorted(names) if f"`{name}`" not in text] == []
    shown = set(re.findall(r"`(apikey_\w+)`", text.split("## Metrics")[1]))
    assert shown - names == set(), "documented, but not there"


def test_every_outcome_is_documented():
    header = (REPOSITORY / "include" / "apikey" / "verdict.hpp").read_text()
    outcomes = re.findall(r"^  (\w+),", header.split("enum class Outcome")[1].split("};")[0], re.M)
    text = (REPOSITORY / "docs" / "design.md").read_text()
    assert len(outcomes) > 20
    assert [name for name in outcomes if f"`{name}`" not in text] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    text = path.read_text()
    for target in re.findall(r"\]\(([^)#]+)?(#[\w-]+)?\)", text):
        file, anchor = target
        if file.startswith("http"):
            continue
        aim = (path.parent / file).resolve() if file else path
        assert aim.exists(), f"{path.name} points to {file}"
        if anchor:
            titles = re.findall(r"^#+ (.+)$", aim.read_text(), re.M)
            anchors = {"#" + re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor in anchors, f"{path.name} points to {file}{anchor}"


def test_scripts_explain_themselves():
    done = subprocess.run([REPOSITORY / "scripts" / "demo", "--help"], capture_output=True, text=True, check=True)
    assert "--once" in done.stdout and "--port" in done.stdout
