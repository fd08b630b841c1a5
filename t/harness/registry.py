"""A registry in a temporary directory, changed only through keyloader's command line.

Tests use it by the fixture `registry`. It is made when it is first needed. It never looks into registry.db.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import NamedTuple

from harness.paths import IS_ROOT, KEYLOADER, worker_user
from harness.waiting import wait_until


class Key(NamedTuple):
    id: str
    secret: str


class KeyloaderError(AssertionError):
    pass


def environment_of(directory):
    """keyloader's, for that directory."""
    return {**os.environ, "APIKEY_DIR": str(directory), "LC_ALL": "C.UTF-8"}


def run_keyloader(directory, *arguments, stdin=None, check=True, timeout=120):
    """Runs keyloader on a directory. RETURNS: the finished process, output as text."""
    if isinstance(stdin, str):
        stdin = stdin.encode()
    done = subprocess.run([KEYLOADER, *map(str, arguments)], input=stdin if stdin is not None else b"",
                          capture_output=True, env=environment_of(directory), timeout=timeout, check=False)
    done.stdout, done.stderr = done.stdout.decode(), done.stderr.decode()
    # A slow machine may need longer than a command waits; tests wait for nginx by themselves.
    is_late = done.returncode == 3 and " is published, but nginx" in done.stderr and (
        "still uses" in done.stderr or "is not running" in done.stderr)
    if check and done.returncode != 0 and not is_late:
        raise KeyloaderError(f"keyloader {' '.join(map(str, arguments))}: exit {done.returncode}\n{done.stderr}")
    return done


class Registry:
    def __init__(self, directory: Path, init_arguments=()):
        self._directory = directory
        self._init_arguments = init_arguments
        self._is_made = False

    @property
    def dir(self) -> Path:
        if not self._is_made:
            self._is_made = True
            arguments = ["init", *self._init_arguments]
            if IS_ROOT:
                arguments += ["--group", worker_user()]
            run_keyloader(self._directory, *arguments)
        return self._directory

    def init_with(self, *arguments):
        """More arguments for `keyloader init`; before the registry is first used."""
        assert not self._is_made
        self._init_arguments = arguments
        return self

    @property
    def snapshot(self) -> Path:
        return self.dir / "keys.mdb"

    def run(self, *arguments, stdin=None, check=True, timeout=120):
        return run_keyloader(self.dir, *arguments, stdin=stdin, check=check, timeout=timeout)

    def json(self, *arguments, stdin=None):
        return json.loads(self.run(*arguments, "--json", stdin=stdin).stdout)

    def owner(self, name, *arguments):
        self.run("owner", "create", name, *arguments)
        return name

    def plan(self, name, *arguments, rate=None, burst=None):
        if rate is not None:
            arguments += ("--rate", rate)
        if burst is not None:
            arguments += ("--burst", burst)
        self.run("plan", "create", name, *arguments)
        return name

    def role(self, name, *scopes):
        self.run("role", "create", name, *(word for scope in scopes for word in ("--scope", scope)))
        return name

    def key(self, owner="tester", *arguments, publish=True, **fields) -> Key:
        """key("alice", scope=["a:read", "b"], plan="gold", expires="90d") → its id and secret."""
        words = ["key", "create", "--owner", owner, "--create-owner"]
        for name, value in fields.items():
            option = "--" + name.replace("_", "-")
            if value is True:
                words.append(option)
                continue
            for one in value if isinstance(value, (list, tuple)) else [value]:
                words += [option, str(one)]
        if not publish:
            words.append("--no-publish")
        made = self.json(*words, *arguments)
        return Key(made["id"], made["key"])

    def expired_key(self, owner="tester", **fields) -> Key:
        """One that has just ended; keyloader makes none that has ended already."""
        key = self.key(owner, expires="1s", **fields)
        wait_until(lambda: self.json("key", "show", key.id)["state"] == "expired", what="the end of the key")
        return key

    def revoke(self, key, *arguments):
        return self.run("key", "revoke", key.id if isinstance(key, Key) else key, *arguments)

    def publish(self, *arguments):
        return self.run("publish", *arguments)

    def generation(self) -> int:
        return int(self.json("snapshot", "show")["generation"])
