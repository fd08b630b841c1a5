"""Very many requests, each of somebody else, pipelined over two connections: as fast as nginx answers.

Used by tests of what becomes of others meanwhile and after that. Counts the answers by status, judges nothing.
"""

import itertools
import re
import socket
import threading
from collections import Counter

from harness.waiting import wait_until

STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
BATCH = 250  # requests on their way in one connection
CONNECTIONS = 2


class Flood:
    """Sends request(0), request(1), …: at least `least` of them, then until the context is left."""

    def __init__(self, port, request, least):
        self.statuses = Counter()
        self._port, self._request, self._least = port, request, least
        self._numbers = itertools.count()
        self._is_over = threading.Event()
        self._problems = []
        self._threads = [threading.Thread(target=self._run) for _ in range(CONNECTIONS)]

    @property
    def answered(self) -> int:
        return sum(self.statuses.values())

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._is_over.set()
        for thread in self._threads:
            thread.join()
        assert not self._problems, self._problems

    def wait(self):
        """Until `least` requests were answered. The flood goes on."""
        wait_until(lambda: self.answered >= self._least or self._problems, 60, "the flood")
        assert not self._problems, self._problems

    def _run(self):
        try:
            with socket.create_connection(("127.0.0.1", self._port), 20) as connection:
                while self.answered < self._least or not self._is_over.is_set():
                    batch = [self._request(next(self._numbers)) for _ in range(BATCH)]
                    connection.sendall(b"".join(batch))
                    self._receive(connection)
        except Exception as problem:  # pylint: disable=broad-except
            self._problems.append(problem)

    def _receive(self, connection):
        rest, found = b"", 0
        while found < BATCH:
            data = connection.recv(262_144)
            if not data:
                raise ConnectionError("nginx closed the connection")
            rest += data
            end = 0
            for match in STATUS.finditer(rest):
                end = match.end()
                found += 1
                self.statuses[int(match[1])] += 1
            rest = rest[max(end, len(rest) - 16):]


def get(path, *headers) -> bytes:
    """The text of a request."""
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode()
