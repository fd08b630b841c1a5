"""A real nginx with the module, in a temporary prefix on loopback.

Tests use it by the fixture `nginx`, a factory (class Nginxes in conftest.py). stop() fails the test when the error log
tells of a crash, an alert or a leak. Ends only the processes it started.
"""

import json
import os
import re
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

import httpx

from harness.paths import IS_ROOT, MODULE, NGINX, worker_user
from harness.state import remove_state
from harness.waiting import accepts, free_port, wait_until

LOG_FIELDS = ("status", "method=request_method", "uri", "request", "request_uri", "args", "outcome=apikey_status",
              "id=apikey_id", "owner=apikey_owner", "plan=apikey_plan", "env=apikey_env", "scopes=apikey_scopes",
              "generation=apikey_generation", "limit_name=apikey_limit_name", "limit=apikey_limit",
              "remaining=apikey_remaining", "reset=apikey_reset", "required=apikey_required",
              "seen_id=apikey_seen_id", "seen_owner=apikey_seen_owner", "redacted=apikey_request",
              "referer=http_referer", "user_agent=http_user_agent", "protocol=server_protocol")
# What must never stand in an error log. A test that provokes one of these says so with allow_log().
STORE = re.compile(r"\bapikey_store\s+(/[^\s;]+)")
BAD_LINES = re.compile(r"\[(alert|crit|emerg)\]|exited on signal|open socket #\d+ left|was locked by|==ERROR")


def log_format() -> str:
    pairs = (field.partition("=") for field in LOG_FIELDS)
    return "{" + ",".join(f'"{name}":"${variable or name}"' for name, _, variable in pairs) + "}"


class UntilItIsOver(httpx.BaseTransport):
    """One connection for each request: when the answer is there we end our side, and nginx closes its own, but not before
    the request is logged and no longer in flight. What is asked next, of whichever worker, comes after all of it.

    Each request has a pool of its own. One that threads share gives a connection out again as soon as its answer was
    read (httpcore, ConnectionPool), and we have ended it."""

    def handle_request(self, request):
        with httpx.HTTPTransport(trust_env=False, verify=False) as connections:
            answer = connections.handle_request(request)
            try:
                content = b"".join(answer.stream)
                connection = answer.extensions["network_stream"].get_extra_info("socket")
                with suppress(OSError):  # nginx may have closed it already
                    connection.shutdown(socket.SHUT_WR)
                    connection.recv(1)
            finally:
                answer.close()
        return httpx.Response(answer.status_code, headers=answer.headers, stream=httpx.ByteStream(content),
                              extensions=answer.extensions)


class Server:
    def __init__(self, prefix: Path, locations="", *, http="", server="", main="", store="", workers=2, listen="",
                 log_level="info"):
        self.prefix = prefix
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.admin_socket = prefix / "admin.sock"
        self.error_log_path = prefix / "error.log"
        self.access_log_path = prefix / "access.log"
        self.config_path = prefix / "nginx.conf"
        self.pid_path = prefix / "nginx.pid"
        self.process = None
        self.environment = None  # of nginx; None: the test's own
        self.module = MODULE
        self._allowed = []
        self._client = httpx.Client(base_url=self.url, trust_env=False, timeout=20, transport=UntilItIsOver())
        self._streams = httpx.Client(base_url=self.url, trust_env=False, timeout=20,
                                     limits=httpx.Limits(max_keepalive_connections=0))
        self.parts = dict(locations=locations, http=http, server=server, main=main, store=store, workers=workers,
                          listen=listen, log_level=log_level)
        self.write_config()

    def config(self, *, locations, http, server, main, store, workers, listen, log_level) -> str:
        head = f"load_module {self.module};\n" if self.module else ""
        head += f"user {worker_user()};\n" if IS_ROOT else ""
        temporary = "\n".join(f"  {kind}_temp_path {self.prefix}/{kind};"
                              for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        return f"""{head}worker_processes {workers};
daemon off;
pid {self.pid_path};
lock_file {self.prefix}/nginx.lock;
error_log {self.error_log_path} {log_level};
{main}
events {{ worker_connections 1024; }}
http {{
{temporary}
  log_format harness escape=json '{log_format()}';
  access_log {self.access_log_path} harness;
  default_type text/plain;
  {store}
  {http}
  server {{
    listen unix:{self.admin_socket};
    access_log off;
    location = /metrics {{ apikey off; apikey_metrics; }}
  }}
  server {{
    listen 127.0.0.1:{self.port}{listen};
    server_name localhost;
    {server}
    {locations}
  }}
}}
"""

    def write_config(self, **changes):
        self.parts.update(changes)
        self.config_path.write_text(self.config(**self.parts))

    def command(self, *arguments):
        return [NGINX, "-p", f"{self.prefix}/", "-c", str(self.config_path), "-e", str(self.error_log_path), *arguments]

    # Life

    def check(self):
        """nginx -t. RETURNS: (is it right, what nginx says)."""
        done = subprocess.run(self.command("-t"), capture_output=True, text=True, timeout=60, check=False)
        return done.returncode == 0, done.stderr

    def start(self, timeout=10):
        with open(self.prefix / "stderr.log", "wb") as errors:
            self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=errors, stderr=errors,
                                            env=self.environment)
        wait_until(lambda: accepts(self.port) or self.process.poll() is not None, timeout, "nginx listening")
        if self.process.poll() is not None:
            raise AssertionError(f"nginx ended with {self.process.returncode}:\n" + self.stderr() + self.error_log())
        return self

    def start_detached(self):
        """So that it takes USR2: a master does only when whoever started it has gone. End it with end_master()."""
        with subprocess.Popen(["sh", "-c", '"$@" & read line', "sh", *self.command()], stdin=subprocess.PIPE) as shell:
            wait_until(lambda: accepts(self.port), what="nginx listening")
            shell.stdin.close()
        return self

    def kill_all(self):
        """SIGKILL for the master and then, when it can start no others, for every worker."""
        self.allow_log("exited on signal 9")
        everybody = [self.master, *_children(self.master)]
        for pid in everybody:
            os.kill(pid, signal.SIGKILL)
        self.process.wait(20)
        wait_until(lambda: not any(map(is_alive, everybody)), what="the workers' end")

    def stderr(self) -> str:
        return (self.prefix / "stderr.log").read_text()

    @property
    def master(self) -> int:
        return self.process.pid

    def workers(self, shutting_down=False):
        """Pids of the worker processes; those that are shutting down only when asked for."""
        found = []
        for pid in _children(self.master):
            title = _title(pid)
            if title.startswith("nginx: worker process") and (shutting_down or "shutting down" not in title):
                found.append(pid)
        return sorted(found)

    def reload(self, wait_for_old=True, **changes):
        """Reloads the configuration (with other parts when given) and waits until the new workers are there."""
        if changes:
            self.write_config(**changes)
        old = set(self.workers(shutting_down=True))
        count = self.parts["workers"]
        os.kill(self.master, signal.SIGHUP)
        wait_until(lambda: len(set(self.workers()) - old) >= count, what="new workers after the reload", timeout=20)
        if wait_for_old:
            wait_until(lambda: not old & set(_children(self.master)), what="the old workers' end", timeout=20)

    def quit(self, timeout=20):
        self._end(signal.SIGQUIT, timeout)

    def stop(self):
        """Ends nginx if it still runs, removes what it left in shared memory, then looks through its log."""
        self._client.close()
        self._streams.close()
        try:
            if self.process is not None and self.process.poll() is None:
                self._end(signal.SIGQUIT, 20)
        finally:
            remove_state(self.pid_path, self._store_directories())
        if self.process is None:
            return
        bad = [line for line in (self.error_log() + self.stderr()).splitlines()
               if BAD_LINES.search(line) and not any(allowed.search(line) for allowed in self._allowed)]
        assert not bad, "nginx's error log tells of trouble:\n" + "\n".join(bad[:20])

    def _store_directories(self):
        return {Path(path).parent.resolve() for path in STORE.findall(self.config_path.read_text())}

    def _end(self, with_signal, timeout):
        os.kill(self.master, with_signal)
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            left = {pid: _title(pid) for pid in _children(self.master)}
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"nginx did not end within {timeout} s; still there: {left}") from None

    # Requests

    def request(self, method, path, *, key=None, headers=None, **more):
        """One request on a connection of its own, until nginx has logged it and closed the connection. `key` goes into
        X-API-Key. `headers`: dict or list of pairs."""
        pairs = list(headers.items() if isinstance(headers, dict) else headers or [])
        if key is not None:
            pairs.append(("X-API-Key", getattr(key, "secret", key)))
        return self._client.request(method, path, headers=pairs, **more)

    def get(self, path="/", **more):
        return self.request("GET", path, **more)

    def stream(self, method, path, **more):
        """A request whose answer is read while it comes (httpx.Client.stream)."""
        return self._streams.stream(method, path, **more)

    def status(self, path="/", **more) -> int:
        return self.get(path, **more).status_code

    def connect(self, timeout=10):
        return socket.create_connection(("127.0.0.1", self.port), timeout)

    def raw(self, data: bytes, timeout=10) -> bytes:
        """Sends bytes as they are and returns all that comes until nginx closes the connection."""
        with self.connect(timeout) as connection:
            connection.sendall(data)
            return read_all(connection)

    def metrics(self) -> dict:
        """Every sample by its name with labels, e.g. metrics()['apikey_info{version="0.1.0"}']."""
        samples = {}
        for line in self.metrics_text().splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                samples[name] = float(value)
        return samples

    def metrics_text(self) -> str:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(self.admin_socket)), trust_env=False) as client:
            answer = client.get("http://localhost/metrics", timeout=10)
        assert answer.status_code == 200, answer.text
        return answer.text

    def metric(self, name, **labels) -> float:
        """Sum of the samples of that name whose labels include these."""
        total = 0.0
        for sample, value in self.metrics().items():
            head, _, tail = sample.partition("{")
            if head == name and all(f'{label}="{wanted}"' in tail for label, wanted in labels.items()):
                total += value
        return total

    def wait_for_generation(self, generation, timeout=10, store="default"):
        wait_until(lambda: self.metric("apikey_snapshot_generation", store=store) >= generation, timeout,
                   f"generation {generation} in service")

    # Logs

    def allow_log(self, pattern):
        """Lines that match this are expected in the error log of this test."""
        self._allowed.append(re.compile(pattern))

    def error_log(self) -> str:
        return self.error_log_path.read_text(errors="replace") if self.error_log_path.exists() else ""

    def wait_for_log(self, pattern, timeout=10):
        """RETURNS: the match, once the error log has one."""
        return wait_until(lambda: re.search(pattern, self.error_log()), timeout, f"{pattern!r} in the error log")

    def access_log(self) -> list:
        if not self.access_log_path.exists():
            return []
        return [json.loads(line) for line in self.access_log_path.read_text(errors="replace").splitlines()]

    def logged(self, count=1, timeout=5) -> list:
        """Waits until the access log has at least `count` lines; they are written after the answer is sent."""
        wait_until(lambda: len(self.access_log()) >= count, timeout, f"{count} lines in the access log")
        return self.access_log()

    def last_logged(self, uri=None):
        """The newest entry of the access log (for this $uri)."""
        def newest():
            entries = [entry for entry in self.access_log() if uri is None or entry["uri"] == uri]
            return entries[-1] if entries else None
        return wait_until(newest, 5, "a line in the access log")

    def clear_access_log(self):
        with open(self.access_log_path, "r+b") as log:
            log.truncate(0)


def is_alive(pid) -> bool:
    """Does one of its threads still run? Until the last is gone, as one that waits for a disk, so are its sockets."""
    try:
        stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    except (FileNotFoundError, ProcessLookupError):
        return is_alive(pid) if os.path.exists(f"/proc/{pid}") else False  # one of them ended just now
    return any(stat.rpartition(")")[2].split()[0] not in "ZX" for stat in stats)


def end_master(pid):
    os.kill(pid, signal.SIGQUIT)
    wait_until(lambda: not is_alive(pid), 20, "the master's end")


def pid_in(path):
    """Empty while there is no such file: an upgrade takes it away before the new master writes its own."""
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return ""


def read_all(connection) -> bytes:
    answer = b""
    while chunk := connection.recv(65536):
        answer += chunk
    return answer


def _children(pid) -> list:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _title(pid) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""
