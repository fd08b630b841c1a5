"""A small HTTP/1.1 server on loopback that remembers every request it gets and answers with what it saw.

Tests use it by the fixture `upstream`. It judges nothing.
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple


class Seen(NamedTuple):
    method: str
    path: str
    headers: list  # (name, value) as they came, in their order
    body: bytes

    def header(self, name):
        """The only value of a header; None when there is none."""
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(values) <= 1, f"{name} came {len(values)} times: {values}"
        return values[0] if values else None

    def text(self) -> str:
        """Everything of the request as one text, to look for something that must not be there."""
        lines = [f"{self.method} {self.path}", *(f"{name}: {value}" for name, value in self.headers)]
        return "\n".join(lines) + "\n\n" + self.body.decode("utf-8", "replace")


class Upstream:
    """`answers` maps a path (without query) to (status, headers, body); any other path gets 200 and an echo in JSON."""

    def __init__(self):
        self.requests: list[Seen] = []
        self.answers = {}
        self._lock = threading.Lock()
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                seen = Seen(self.command, self.path, list(self.headers.items()), body)
                with upstream._lock:
                    upstream.requests.append(seen)
                status, headers, content = upstream.answers.get(self.path.partition("?")[0], (200, {}, None))
                if content is None:
                    content = json.dumps({"method": seen.method, "path": seen.path, "headers": dict(seen.headers),
                                          "length": len(body)}).encode()
                    headers = {"Content-Type": "application/json", **headers}
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if status not in (204, 304):
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command != "HEAD" and status not in (204, 304):
                    self.wfile.write(content)

            do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = answer

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

            def handle_error(self, request, client_address):
                pass  # nginx closes connections as it likes

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def clear(self):
        with self._lock:
            self.requests.clear()

    @property
    def last(self) -> Seen:
        assert self.requests, "the upstream has seen no request"
        return self.requests[-1]

    def close(self):
        self._server.shutdown()
        self._server.server_close()
