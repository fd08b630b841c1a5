"""scripts/matrix and a change of NGINX_SRC: the module built for nginx source trees other than the installed one."""

import os
import re
import shutil
import subprocess

import pytest

from harness.paths import BUILD, REPOSITORY

MATRIX = REPOSITORY / "scripts" / "matrix"
DEBIAN_TREE = "/usr/share/nginx/src"


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Debian's full source; without the flags that Debian's nginx-dev brings along."""
    folder = tmp_path_factory.mktemp("source") / "debian"
    subprocess.run([REPOSITORY / "scripts" / "nginx-source", folder], check=True, stdin=subprocess.DEVNULL)
    yield folder
    for built in (BUILD / "matrix").glob("debian-*"):
        shutil.rmtree(built)


def matrix(*arguments, timeout=1500):
    return subprocess.run([MATRIX, *arguments], capture_output=True, text=True, timeout=timeout, check=False,
                          stdin=subprocess.DEVNULL)


def test_a_tree_that_is_built_and_checked(tree):
    done = matrix("--ways", "gcc", "--checks", "t/nginx/test_satisfy.py", tree)
    assert done.returncode == 0, done.stdout + done.stderr
    result = done.stdout.strip().splitlines()[-1]
    assert re.match(r"debian-1\.\d+\.\d+, gcc: passed, \d+ passed", result), result
    assert not (tree / "Makefile").exists(), "the source is left as it was"


def test_what_fails_is_named(tree, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(tree, broken)
    configure = broken / "configure"
    configure.write_text("#!/bin/sh\necho this tree cannot be configured >&2\nexit 1\n")
    done = matrix("--ways", "gcc", broken)
    assert done.returncode == 1
    assert "cannot be configured" in done.stdout
    assert re.search(r"broken-\S+, gcc: FAILED \(build\), see \S+", done.stdout.splitlines()[-1])
    shutil.rmtree(next((BUILD / "matrix").glob("broken-*")))


@pytest.mark.parametrize("arguments,needle", [
    ([], "scripts/matrix"), (["/tmp"], "not the source of an nginx"), (["--ways", "msvc", DEBIAN_TREE], "msvc"),
    (["--checks"], "scripts/matrix"), (["--help"], "asan"),
])
def test_mistakes(arguments, needle):
    done = matrix(*arguments, timeout=60)
    assert done.returncode == 2
    assert needle in done.stdout + done.stderr


def headers_of(folder, source):
    """Configures the build folder for that source and makes the headers. RETURNS: how nginx was configured."""
    for command in (["cmake", "-S", REPOSITORY, "-B", folder, f"-DNGINX_SRC={source}", "-DAPIKEY_TESTS=OFF"],
                    ["cmake", "--build", folder, "--target", "nginx_headers"]):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    header = (folder / "nginx-objs" / "ngx_auto_config.h").read_text()
    return re.search(r'^#define NGX_CONFIGURE "(.*)"$', header, re.M).group(1)


@pytest.mark.parametrize("generator", ["Ninja", "Unix Makefiles"])
def test_another_source_in_the_same_folder_starts_clean(tree, tmp_path, monkeypatch, generator):
    monkeypatch.setenv("CMAKE_GENERATOR", generator)
    folder = tmp_path / "build"
    of_debian = headers_of(folder, DEBIAN_TREE)
    assert (folder / "nginx-objs" / "tree" / "conf_flags").exists()
    of_tree = headers_of(folder, tree)
    links = {path.name: os.readlink(path) for path in (folder / "nginx-objs" / "tree").iterdir() if path.is_symlink()}
    assert "conf_flags" not in links
    assert [name for name, target in links.items() if not target.startswith(str(tree))] == []
    assert of_tree != of_debian and "--prefix=/usr/share/nginx" not in of_tree
    assert headers_of(folder, DEBIAN_TREE) == of_debian
