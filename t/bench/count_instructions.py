#!/usr/bin/python3
"""How many instructions limits take, counted by valgrind's callgrind: in the core, and of a whole request to nginx.

    t/bench/count_instructions.py            both tables, two runs of each
    t/bench/count_instructions.py core       the core alone (needs build/bench_limits)
    t/bench/count_instructions.py nginx      whole requests alone (needs the module and keyloader)

Builds nothing: `ninja -C build ngx_http_apikey_module keyloader bench_limits` does, APIKEY_BUILD names another folder.
Counts user instructions as a processor with AVX2 executes them; the kernel's are not in it. What is printed is the
difference of two processes that did the same N and 2N times, so that neither start nor end is in it. Another run, with
other keys in other places of the tables, comes within 1 %.
"""

import argparse
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.paths import BUILD, MODULE  # noqa: E402
from harness.registry import Registry  # noqa: E402
from harness.server import Server  # noqa: E402

KINDS = ("rate", "calendar", "rolling", "concurrency", "mixed")
COUNTS = (1, 2, 4)
# The limits a plan has, by the kind and their number; none of them is ever used up.
LIMITS = {
    "rate": [("--rate", f"r{i}=1000000/s") for i in range(4)],
    "calendar": [("--quota", f"r{i}=1000000000000/{unit}") for i, unit in enumerate(("month", "day", "year", "week"))],
    "concurrency": [("--concurrency", f"r{i}=1000") for i in range(4)],
    "mixed": [("--rate", "1000000/s"), ("--quota", "1000000000000/month"), ("--concurrency", "1000"),
              ("--quota", "100000000000/day")],
}
LOCATIONS = """
    location /off { apikey off; empty_gif; }
    location /none { apikey "api"; apikey_scope any; apikey_ratelimit_headers off; empty_gif; }
    location /x { apikey "api"; apikey_scope any; apikey_ratelimit_headers x; empty_gif; }
    location /draft { apikey "api"; apikey_scope any; apikey_ratelimit_headers draft; empty_gif; }
"""
ANSWER_BODY = 43  # bytes of nginx's empty GIF


def callgrind(output, *command):
    return ["valgrind", "--tool=callgrind", f"--callgrind-out-file={output}", "--quiet", *map(str, command)]


def instructions_of(output) -> int:
    return int(re.search(r"^(?:summary|totals): (\d+)", output.read_text(), re.M)[1])


class Core:
    """Pieces of build/bench_limits."""

    def __init__(self, place, rounds):
        self.place, self.rounds = place, rounds

    def count(self, piece) -> float:
        counted = []
        for rounds in (self.rounds, 2 * self.rounds):
            output = self.place / "core.out"
            subprocess.run(callgrind(output, BUILD / "bench_limits", piece, rounds), check=True)
            counted.append(instructions_of(output))
        return (counted[1] - counted[0]) / self.rounds


class CountedServer(Server):
    """One nginx process, under callgrind, without an access log. `store` None: without the module."""

    def config(self, *, store, **_) -> str:
        load = f"load_module {MODULE};" if MODULE and store else ""
        # A small zone: what is done in it once a second does not show.
        ours = f"apikey_store {store}; apikey_zone zone=apikey:1m;" if store else ""
        return f"""{load}
            daemon off; master_process off;
            pid {self.pid_path}; lock_file {self.prefix}/nginx.lock; error_log {self.error_log_path} notice;
            events {{ worker_connections 64; }}
            http {{
                {" ".join(f"{kind}_temp_path {self.prefix}/{kind};"
                          for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))}
                access_log off;
                {ours}
                server {{
                    listen 127.0.0.1:{self.port};
                    keepalive_requests 1000000000;
                    location / {{ empty_gif; }}
                    {LOCATIONS if store else ""}
                }}
            }}
            """

    def command(self, *arguments):
        return callgrind(self.prefix / "nginx.out", *super().command(*arguments))


class Nginx:
    """Whole requests: one connection, one request after the other, a GIF of 43 bytes from memory as the answer."""

    def __init__(self, place, requests):
        self.place, self.requests = place, requests
        self.registry = Registry(place / "node")
        self.keys = {}
        self.runs = 0

    def key(self, kind, count):
        name = f"{kind}{count}"
        if name not in self.keys:
            words = [word for pair in LIMITS[kind][:count] for word in pair] if count else []
            self.registry.run("plan", "create", name, *words)
            self.keys[name] = self.registry.key(plan=name).secret
        return self.keys[name]

    def count(self, path, key, module=True) -> float:
        return (self._run(path, key, 2 * self.requests, module) - self._run(path, key, self.requests, module)) \
            / self.requests

    def _run(self, path, key, requests, module) -> int:
        self.runs += 1
        prefix = self.place / f"nginx{self.runs}"
        prefix.mkdir()
        server = CountedServer(prefix, store=self.registry.snapshot if module else None)
        server.start(timeout=60)
        if module:
            server.wait_for_log("is active", timeout=60)
        send(server, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {key}\r\n\r\n".encode(), requests)
        end(server.process)
        server.stop()
        counted = instructions_of(prefix / "nginx.out")
        shutil.rmtree(prefix)
        return counted


def end(process):
    """Asks until it has ended: nginx misses a signal that comes just before it begins to wait, and slow as it is under
    callgrind that happens; without the module it has no timer that would end the waiting."""
    for _ in range(120):
        process.send_signal(signal.SIGQUIT)
        try:
            return process.wait(1)
        except subprocess.TimeoutExpired:
            continue
    raise SystemExit("nginx does not end")


def send(server, request, count):
    with server.connect(timeout=60) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(count):
            connection.sendall(request)
            answer = connection.recv(65536)
            while len(answer.partition(b"\r\n\r\n")[2]) < ANSWER_BODY:
                answer += connection.recv(65536)
            if not answer.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"nginx refused: {answer[:200]!r}")


def show(wanted, title, count):
    if wanted.only is None or re.search(wanted.only, title):
        print(f"{title:<44}" + "".join(f"{count():>10.0f}" for _ in range(wanted.runs)), flush=True)


def show_core(place, wanted):
    print(f"\nCore, instructions per call, {wanted.rounds} calls" + ", runs side by side" * (wanted.runs > 1))
    core = Core(place, wanted.rounds)
    show(wanted, "gather: no limit", lambda: core.count("gather:none:0"))
    for kind in KINDS:
        for count in COUNTS:
            for step in ("gather", "take"):
                show(wanted, f"{step}: {kind}, {count}", lambda: core.count(f"{step}:{kind}:{count}"))


def show_nginx(place, wanted):
    print(f"\nnginx, instructions per request, {wanted.requests} requests" + ", runs side by side" * (wanted.runs > 1))
    nginx = Nginx(place, wanted.requests)
    free = nginx.key("rate", 0)
    for kind, count in [(kind, count) for kind in LIMITS for count in COUNTS]:
        nginx.key(kind, count)
    rows = [("without the module", "/", free, False), ("apikey off", "/off", free, True),
            ("apikey, no limit, headers off", "/none", free, True), ("apikey, no limit, headers x", "/x", free, True)]
    for headers, path in (("off", "/none"), ("x", "/x"), ("draft", "/draft")):
        rows += [(f"rate, {count}, headers {headers}", path, nginx.key("rate", count), True) for count in COUNTS]
    for kind in ("calendar", "concurrency", "mixed"):
        rows += [(f"{kind}, {count}, headers x", "/x", nginx.key(kind, count), True) for count in COUNTS]
    for title, path, key, module in rows:
        show(wanted, title, lambda: nginx.count(path, key, module))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("core", "nginx", "all"), default="all")
    parser.add_argument("--rounds", type=int, default=20000, help="calls of a piece of the core (20000)")
    parser.add_argument("--requests", type=int, default=2000, help="requests to nginx (2000)")
    parser.add_argument("--only", metavar="REGEX", help="only rows that match")
    parser.add_argument("--runs", type=int, default=2, help="how often each is counted (2)")
    wanted = parser.parse_args()
    if shutil.which("valgrind") is None:
        raise SystemExit("count_instructions.py: valgrind is missing; apt-get install valgrind")
    place = Path(tempfile.mkdtemp(prefix="apikey-count-", dir="/tmp"))
    place.chmod(0o755)
    try:
        if wanted.what in ("core", "all"):
            show_core(place, wanted)
        if wanted.what in ("nginx", "all"):
            show_nginx(place, wanted)
    finally:
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    main()
