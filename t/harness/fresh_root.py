"""A fresh Debian in a folder: this machine's programs, Debian's own configuration of nginx, nothing of ours.

Used by tests of what people do on their first day. What is in the folder is a copy, so this machine's files stay as they
are. Commands run in it by chroot, with processes, mounts and a network of their own: they need /proc, and the ports that a
page of ours names. What they started ends with them.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

from harness.paths import BUILD, NGINX, REPOSITORY

PROGRAMS = ["/bin/bash", "/bin/cp", "/bin/ln", "/usr/bin/cmake", "/usr/bin/strip", "/usr/bin/curl", NGINX]
SETTINGS = ["/etc/passwd", "/etc/group", "/etc/hosts", "/etc/nsswitch.conf"]
FOLDERS = ["proc", "dev/shm", "run", "tmp", "var/log/nginx", "var/lib/nginx", "usr/local/bin"]
MERGED = ["bin", "sbin", "lib", "lib64"]
INSTALLED_FROM = ["conf", "docs", "packaging"]
NAMESPACES = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child"]
# The loopback interface comes up by SIOCSIFFLAGS; ip(8) may not be there.
ENTER = r"""
mount -t proc proc "$1/proc" && mount -t tmpfs tmpfs "$1/run" && mount -t tmpfs tmpfs "$1/dev/shm" &&
/usr/bin/python3 -c 'import fcntl, socket, struct
fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sh14x", b"lo", 0x41))' && exec chroot "$1" /bin/bash -c "$2"
"""


class FreshRoot:
    """run(script): in it, as root, by bash."""

    def __init__(self, path: Path):
        self.path = path
        for name in MERGED:
            (path / "usr" / name).mkdir(parents=True)
            (path / name).symlink_to(f"usr/{name}")
        for name in FOLDERS:
            (path / name).mkdir(parents=True)
        # No device: making one is another right, and a file does for what is only written.
        (path / "dev" / "null").touch(0o666)
        for program in [*PROGRAMS, BUILD / "keyloader", BUILD / "ngx_http_apikey_module.so"]:
            for needed in {str(program), *_libraries(program)}:
                self._copy(needed)
        for name in SETTINGS:
            self._copy(name)
        version = subprocess.run(["cmake", "--version"], capture_output=True, text=True, check=True).stdout
        self._copy(f"/usr/share/cmake-{re.search(r'version ([0-9]+[.][0-9]+)', version)[1]}")
        self._copy_package("nginx-common")
        enabled = path / "etc" / "nginx" / "sites-enabled" / "default"
        enabled.symlink_to("/etc/nginx/sites-available/default")
        for name in INSTALLED_FROM:
            self._copy(REPOSITORY / name)
        for name in ["completion", *(str(file.relative_to(BUILD)) for file in BUILD.rglob("cmake_install.cmake"))]:
            self._copy(BUILD / name)

    def run(self, script: str) -> subprocess.CompletedProcess:
        """From the repository's folder, which lies here where it lies outside."""
        can = subprocess.run([*NAMESPACES, "true"], capture_output=True, text=True, check=False)
        assert can.returncode == 0, (
            "this test runs commands in a fresh root with mounts, processes and a network of its own: run it as root, "
            f"in a container with CAP_SYS_ADMIN and CAP_NET_ADMIN. unshare says: {can.stderr}")
        environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/"}
        return subprocess.run([*NAMESPACES, "sh", "-c", ENTER, "sh", self.path, f"cd '{REPOSITORY}'\n{script}"],
                              env=environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
                              timeout=50)

    def inside(self, path: str) -> Path:
        return self.path / path.lstrip("/")

    def _copy(self, path):
        target = self.inside(str(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        if Path(path).is_dir():
            shutil.copytree(path, target, dirs_exist_ok=True)
        elif not target.exists():
            shutil.copy2(path, target)

    def _copy_package(self, name):
        listed = subprocess.run(["dpkg-query", "-L", name], capture_output=True, text=True, check=True).stdout
        for line in listed.splitlines():
            source, target = Path(line), self.inside(line)
            if source.is_symlink():
                target.parent.mkdir(parents=True, exist_ok=True)
                if not target.is_symlink():
                    target.symlink_to(os.readlink(source))
            elif source.is_dir():
                target.mkdir(parents=True, exist_ok=True)
            elif source.exists():
                self._copy(line)


def _libraries(program) -> set:
    said = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"(/\S+) \(0x", said))
