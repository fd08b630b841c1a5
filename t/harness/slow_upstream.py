"""An upstream that answers when it is told to: for requests that take long.

Used by tests of what a request holds on to meanwhile. It judges nothing.
"""

import socket
import threading


class SlowUpstream:
    """Answers with `head`, and with the rest only when it is told to finish."""

    def __init__(self, head=b""):
        self._head = head
        self._finish = threading.Event()
        self.waiting = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with connection:
            request = b""
            while b"\r\n\r\n" not in request:
                request += connection.recv(65536)
            connection.sendall(self._head)
            self.waiting += 1
            self._finish.wait(60)
            answer = b"" if self._head else b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\n"
            connection.sendall(answer + b"done")

    def finish(self):
        self._finish.set()

    def close(self):
        self.finish()
        self._listener.close()
