"""The module as nginx's own ./configure builds it, dynamic and static, and what the built files show to others.

The dynamic module is built against the tree of Debian's nginx-dev and loaded by the installed nginx; the static one
with the full source. Both need a C compiler that knows C++20, as nginx links no other language.
"""

import os
import re
import shlex
import signal
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from harness.paths import BUILD, IS_ROOT, REPOSITORY, worker_user
from harness.state import remove_state
from harness.waiting import accepts, free_port, wait_until

DEBIAN_TREE = "/usr/share/nginx/src"
DEBIAN_NGINX = "/usr/sbin/nginx"
CMAKE_MODULE = BUILD / "ngx_http_apikey_module.so"
NGINX_SYMBOLS = {"ngx_modules", "ngx_module_names", "ngx_module_order"}
CONFIGURATION = """
{main}
daemon off;
pid {place}/nginx.pid;
error_log {place}/error.log info;
events {{ }}
http {{
  access_log off;
  client_body_temp_path {place}/body;
  proxy_temp_path {place}/proxy;
  fastcgi_temp_path {place}/fastcgi;
  uwsgi_temp_path {place}/uwsgi;
  scgi_temp_path {place}/scgi;
  apikey_store {place}/keys.mdb;
  server {{
    listen 127.0.0.1:{port};
    location / {{ apikey "orders"; apikey_scope orders:read; }}
    location /open {{ return 204; }}
  }}
}}
"""


def run(*command, **options):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{shlex.join(map(str, command))}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
    return done.stdout


def exported(path):
    """Names that the dynamic linker offers to others."""
    return {line.split()[-1] for line in run("nm", "-D", "--defined-only", path).splitlines()}


def signatures(path):
    """nginx's `8,4,8,0011…`: what it compares before it takes a module in."""
    return set(re.findall(rb"\d+,\d+,\d+,[01]{30,}", path.read_bytes()))


def write_configuration(place, *, main="", port=1):
    user = f"user {worker_user()};\n" if IS_ROOT else ""
    path = place / "nginx.conf"
    path.write_text(CONFIGURATION.format(main=user + main, place=place, port=port))
    return path


@pytest.fixture(scope="module")
def dynamic(tmp_path_factory):
    """Debian's own recipe (dh_nginx), out of its tree."""
    folder = tmp_path_factory.mktemp("dynamic")
    script = f"""
        set -e
        . ./conf_flags
        ./configure --builddir={folder} --with-cc-opt='-g -O2 -fPIC' --with-ld-opt=-fPIC "${{NGX_CONF_FLAGS[@]}}" \
            --add-dynamic-module={REPOSITORY}
        make -s -j{os.cpu_count()} -f {folder}/Makefile modules
    """
    run("bash", "-c", script, cwd=DEBIAN_TREE)
    return folder / "ngx_http_apikey_module.so"


@pytest.fixture(scope="module")
def static():
    """In the build folder, where scripts/test finds it again."""
    run(REPOSITORY / "scripts/nginx-static", BUILD / "static", stdin=subprocess.DEVNULL)
    return BUILD / "static/nginx"


def start_and_ask(binary, place, *, main=""):
    """Starts nginx, sends a request without a key and one to an open location. RETURNS: (answer to the first, log)."""
    port = free_port()
    configuration = write_configuration(place, main=main, port=port)
    process = subprocess.Popen([binary, "-p", place, "-c", configuration, "-e", place / "error.log"],
                               stdin=subprocess.DEVNULL)
    try:
        wait_until(lambda: accepts(port) or process.poll() is not None, what="nginx listening")
        assert process.poll() is None, (place / "error.log").read_text()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/open", timeout=10) as answer:
            assert answer.status == 204
        with pytest.raises(urllib.error.HTTPError) as refusal:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10)
    finally:
        process.send_signal(signal.SIGQUIT)
        assert process.wait(20) == 0
        remove_state(place / "nginx.pid")
    return refusal.value, (place / "error.log").read_text()


def check_refusal(refusal, log):
    assert refusal.code == 401
    assert refusal.headers["WWW-Authenticate"] == 'ApiKey realm="orders"'
    assert not re.search(r"\[(alert|crit|emerg)\]", log), log


def test_dynamic_module_loads_into_the_installed_nginx(dynamic, place):
    configuration = write_configuration(place, main=f"load_module {dynamic};")
    run(DEBIAN_NGINX, "-t", "-p", place, "-c", configuration, "-e", place / "error.log")


def test_dynamic_module_refuses_a_request_without_a_key(dynamic, place):
    check_refusal(*start_and_ask(DEBIAN_NGINX, place, main=f"load_module {dynamic};"))


def test_static_nginx_refuses_a_request_without_a_key(static, place):
    check_refusal(*start_and_ask(static, place))


@pytest.mark.parametrize("built_by", ["configure", "cmake"])
def test_module_exports_what_nginx_needs_and_nothing_else(request, built_by):
    path = request.getfixturevalue("dynamic") if built_by == "configure" else CMAKE_MODULE
    assert exported(path) == NGINX_SYMBOLS


def test_static_nginx_exports_its_own_symbols_and_none_of_ours(static):
    names = exported(static)
    assert {"ngx_http_core_module", "ngx_cycle", "ngx_palloc", "ngx_http_top_header_filter"} <= names
    assert not [name for name in names if "apikey" in name]


def test_cmake_module_has_the_signature_of_the_installed_nginx(dynamic):
    nginx = signatures(Path(DEBIAN_NGINX))
    assert len(nginx) == 1
    assert signatures(CMAKE_MODULE) == nginx
    assert signatures(dynamic) == nginx


def test_filters_stand_before_the_copy_filter(dynamic, static):
    modules = re.findall(r"&(ngx_\w+)", (static.parent / "ngx_modules.c").read_text())
    ours = modules.index("ngx_http_apikey_module")
    assert modules[ours + 1] == "ngx_http_copy_filter_module"
    order = re.findall(r'"(ngx_\w+)"', (dynamic.parent / "ngx_http_apikey_module_modules.c").read_text())
    assert order == ["ngx_http_apikey_module", "ngx_http_apikey_module", "ngx_http_copy_filter_module"]
    by_cmake = re.findall(r'"(ngx_\w+)"', (REPOSITORY / "cmake/nginx_modules.c").read_text())
    assert by_cmake == order
