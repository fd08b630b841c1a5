"""cmake --install: everything lies where nginx, systemd, man and shells look for it; the units are right and confined."""

import os
import re
import shutil
import subprocess

import pytest

from harness.paths import BUILD, NGINX, REPOSITORY

BUILD_INFO = subprocess.run([NGINX, "-V"], capture_output=True, text=True, check=True).stderr
MODULES = re.search(r"--modules-path=(\S+)", BUILD_INFO)[1]
CONFIGURATION = re.search(r"--conf-path=(\S+)/", BUILD_INFO)[1]
SERVICE = "keyloader-usage-collect.service"
COMPLETIONS = ["/usr/share/bash-completion/completions/keyloader", "/usr/share/zsh/site-functions/_keyloader",
               "/usr/share/fish/vendor_completions.d/keyloader.fish"]


def install(destination=None, *arguments):
    environment = {**os.environ, **({"DESTDIR": str(destination)} if destination else {})}
    return subprocess.run(["cmake", "--install", BUILD, *map(str, arguments)], env=environment, check=True,
                          capture_output=True, text=True).stdout


def files_below(root):
    return {f"/{path.relative_to(root)}" for path in root.rglob("*") if not path.is_dir() or path.is_symlink()}


def component(tmp_path, name):
    install(tmp_path, "--prefix", "/usr", "--component", name)
    return files_below(tmp_path)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """What is installed with --prefix /usr, as a package would do it."""
    place = tmp_path_factory.mktemp("root")
    install(place, "--prefix", "/usr")
    return place


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """keyloader and the units, where the units say that keyloader is."""
    place = tmp_path_factory.mktemp("prefix")
    for name in ("keyloader", "systemd"):
        install(None, "--prefix", place, "--component", name)
    return place


def test_everything_lies_where_it_is_looked_for(root):
    expected = {
        f"{MODULES}/ngx_http_apikey_module.so",
        "/usr/share/nginx/modules-available/mod-http-apikey.conf",
        f"{CONFIGURATION}/modules-enabled/50-mod-http-apikey.conf",
        "/usr/bin/keyloader",
        "/usr/share/man/man1/keyloader.1",
        *COMPLETIONS,
        f"/usr/lib/systemd/system/{SERVICE}",
        "/usr/lib/systemd/system/keyloader-usage-collect.timer",
        "/usr/lib/systemd/system/nginx.service.d/apikey.conf",
        "/usr/lib/sysusers.d/apikey.conf",
        "/usr/share/doc/nginx-apikey/nginx/apikey.conf",
        "/usr/share/doc/nginx-apikey/nginx/orders.conf",
    }
    expected |= {f"{CONFIGURATION}/snippets/{path.name}" for path in REPOSITORY.glob("conf/snippets/*")}
    expected |= {f"/usr/share/doc/nginx-apikey/examples/{path.name}" for path in REPOSITORY.glob("conf/examples/*")}
    assert files_below(root) == expected


def test_the_line_that_loads_the_module_is_enabled_as_debian_does(root):
    link = root / f"{CONFIGURATION}/modules-enabled/50-mod-http-apikey.conf".lstrip("/")
    assert os.readlink(link) == "/usr/share/nginx/modules-available/mod-http-apikey.conf"
    line = (root / os.readlink(link).lstrip("/")).read_text()
    assert line == "load_module modules/ngx_http_apikey_module.so;\n"


@pytest.mark.parametrize("path", ["usr/bin/keyloader", f"{MODULES.lstrip('/')}/ngx_http_apikey_module.so"])
def test_what_is_installed_is_stripped(root, path):
    sections = subprocess.run(["readelf", "-S", "-W", root / path], capture_output=True, text=True, check=True).stdout
    assert ".text" in sections
    assert ".symtab" not in sections and ".debug_info" not in sections


def test_the_installed_keyloader_runs(root):
    shown = subprocess.run([root / "usr/bin/keyloader", "--help"], capture_output=True, text=True, check=True).stdout
    assert "init" in shown


def test_nginx_loads_the_installed_module(root, place):
    configuration = place / "nginx.conf"
    configuration.write_text(f"load_module {root}{MODULES}/ngx_http_apikey_module.so;\npid {place}/pid;\n"
                             f"events {{}}\nhttp {{ access_log off; apikey_store {place}/keys.mdb; }}\n")
    done = subprocess.run([NGINX, "-t", "-c", configuration, "-e", place / "error.log"], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stderr


def test_a_component_brings_only_its_own(tmp_path):
    for name in ("module", "keyloader", "systemd", "documentation"):
        (tmp_path / name).mkdir()
    assert all("nginx" in path for path in component(tmp_path / "module", "module"))
    assert component(tmp_path / "keyloader", "keyloader") == {
        "/usr/bin/keyloader", "/usr/share/man/man1/keyloader.1", *COMPLETIONS}
    assert all("systemd" in path or "sysusers" in path for path in component(tmp_path / "systemd", "systemd"))
    assert all("/doc/" in path for path in component(tmp_path / "documentation", "documentation"))


def test_units_name_keyloader_where_it_was_installed(installed):
    unit = (installed / "lib/systemd/system" / SERVICE).read_text()
    command = re.search(r"^ExecStart=(\S+) (.*)$", unit, re.MULTILINE)
    assert command[1] == f"{installed}/bin/keyloader"
    # A command that there is not would be a wrong use: 2.
    words = command[2].replace("/var/lib/apikey", "/nonexistent").split()
    assert subprocess.run([command[1], *words], capture_output=True, check=False).returncode == 1


def systemd_analyze(*arguments):
    assert shutil.which("systemd-analyze"), "systemd-analyze is missing: run scripts/install-deps"
    return subprocess.run(["systemd-analyze", *map(str, arguments)], capture_output=True, text=True, check=False)


def test_units_are_right(installed):
    units = installed / "lib" / "systemd" / "system"
    done = systemd_analyze("verify", "--man=no", *units.glob("keyloader-*"))
    assert done.returncode == 0, done.stderr
    assert str(units) not in done.stderr, done.stderr


def test_a_wrong_unit_would_be_seen(installed, tmp_path):
    """The check above can fail: systemd-analyze says what it does not know."""
    text = (installed / "lib" / "systemd" / "system" / SERVICE).read_text()
    wrong = tmp_path / SERVICE
    wrong.write_text(text.replace("ProtectClock=yes", "ProtectClocks=yes").replace("/bin/keyloader", "/bin/missing"))
    done = systemd_analyze("verify", "--man=no", wrong)
    assert done.returncode != 0
    assert "ProtectClocks" in done.stderr


def test_every_service_is_confined(installed):
    services = sorted((installed / "lib" / "systemd" / "system").glob("*.service"))
    templates = (REPOSITORY / "packaging" / "systemd").glob("*.service*")
    assert [path.name for path in services] == sorted(path.name.removesuffix(".in") for path in templates)
    for service in services:
        done = systemd_analyze("security", "--offline=true", "--threshold=25", "--no-pager", service)
        assert done.returncode == 0, done.stdout + done.stderr
        assert {"User=apikey", "ReadWritePaths=/var/lib/apikey -/run/apikey"} <= set(service.read_text().splitlines())


def test_the_addition_to_nginx_keeps_node_memory(installed, tmp_path):
    """systemd takes it as a part of nginx.service."""
    addition = installed / "lib" / "systemd" / "system" / "nginx.service.d" / "apikey.conf"
    unit = tmp_path / "nginx.service"
    unit.write_text("[Unit]\nDescription=nginx\n[Service]\nExecStart=/bin/true\n")
    shutil.copytree(addition.parent, tmp_path / addition.parent.name)
    done = systemd_analyze("verify", "--man=no", unit)
    assert done.returncode == 0, done.stderr
    assert "apikey.conf" not in done.stderr, done.stderr
    assert "RuntimeDirectoryPreserve=yes" in addition.read_text()
