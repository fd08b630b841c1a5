"""Many requests over kept-alive, pipelined connections, each remembered with when it was sent and when answered.

Used by t/nginx/test_exactness.py. What was decided about a request was decided between these two moments, on the clock
that the limits count by. Judges nothing; a connection that breaks is made anew, and what was on the way in it is kept.
"""

import itertools
import re
import selectors
import socket
import threading
import time
from collections import deque
from typing import NamedTuple

STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
FOREVER = 2**62
WORKER = re.compile(rb"\r\nX-Worker: (\d+)\r\n")


class Request(NamedTuple):
    key: int
    cost: int
    path: str
    text: bytes


class Answer(NamedTuple):
    key: int
    cost: int
    sent: int      # CLOCK_MONOTONIC in ns, before the request was handed over
    answered: int  # after its status line had come
    status: int
    path: str
    connection: int
    ended: int = FOREVER  # when a later answer had come on its connection: nginx had ended this request by then


class Lost(NamedTuple):
    """Without an answer when its connection broke."""
    key: int
    cost: int
    sent: int
    lost: int
    worker: int  # 0 when not known


class Connection:
    def __init__(self, load, number):
        self.load, self.number = load, number
        self.open()

    def open(self):
        self.socket = socket.create_connection(("127.0.0.1", self.load.port), 10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.worker, self.buffer, self.waiting = 0, b"", deque()
        self.load.selector.register(self.socket, selectors.EVENT_READ, self)

    def send(self, requests):
        sent = time.monotonic_ns()
        self.waiting.extend((request, sent) for request in requests)
        try:
            self.socket.sendall(b"".join(request.text for request in requests))
        except OSError:
            pass  # what came before is still to be read; then it is noticed

    def receive(self):
        """RETURNS: whether a further batch may be sent."""
        try:
            data = self.socket.recv(262_144)
        except OSError:
            data = b""
        now = time.monotonic_ns()
        if not data:
            self.reopen(now)
            return True
        self.buffer += data
        if self.worker == 0 and (found := WORKER.search(self.buffer)):
            self.worker = int(found[1])
        end = 0
        for match in STATUS.finditer(self.buffer):
            end = match.end()
            request, sent = self.waiting.popleft()
            self.load.answers.append(Answer(request.key, request.cost, sent, now, int(match[1]), request.path,
                                            self.number))
        self.buffer = self.buffer[max(end, len(self.buffer) - 4096):]
        return not self.waiting

    def reopen(self, now):
        self.load.lost += [Lost(request.key, request.cost, sent, now, self.worker) for request, sent in self.waiting]
        self.close()
        self.open()

    def close(self):
        self.load.selector.unregister(self.socket)
        self.socket.close()


class Load:
    """Sends what `batches` yields (lists of requests, each list on one connection), so many requests per second at most;
    at the end what `last` yields, as fast as it goes."""

    def __init__(self, port, batches, last, *, per_second, connections=24):
        self.port, self.batches, self.last, self.per_second = port, batches, last, per_second
        self.answers: list[Answer] = []
        self.lost: list[Lost] = []
        self.selector = selectors.DefaultSelector()
        self._connections = [Connection(self, number) for number in range(connections)]
        self._is_ending = threading.Event()
        self._problem = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._is_ending.set()
        self._thread.join()
        for connection in self._connections:
            connection.close()
        self.selector.close()
        if self._problem is not None:
            raise AssertionError("the load generator failed") from self._problem
        following = {}
        for i in range(len(self.answers) - 1, -1, -1):
            answer = self.answers[i]
            self.answers[i] = answer._replace(ended=following.get(answer.connection, FOREVER))
            following[answer.connection] = answer.answered

    def _run(self):
        try:
            self._send(itertools.takewhile(lambda _: not self._is_ending.is_set(), self.batches), self.per_second)
            self._send(iter(self.last), 10**9)
        except Exception as problem:  # pylint: disable=broad-except
            self._problem = problem

    def _send(self, batches, per_second):
        idle, sent, started, is_ending = deque(self._connections), 0, time.monotonic(), False
        while not is_ending or len(idle) < len(self._connections):
            due = (time.monotonic() - started) * per_second
            while idle and sent < due and not is_ending:
                batch = next(batches, ())
                is_ending = not batch
                if batch:
                    idle.popleft().send(batch)
                    sent += len(batch)
            for ready, _ in self.selector.select(0.002):
                was_busy = bool(ready.data.waiting)
                if ready.data.receive() and was_busy:
                    idle.append(ready.data)
