"""A stand-in that answers as chat-completion servers do: in one piece, or as a stream of events with the usage last.

Used by tests. What the next answers are is said by `answer`; pieces may wait for a test, so that it can look in between.
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

WORDS = ("The", " word", " \\\"usage\\\":{\\\"total_tokens\\\":99999}", " is", " here", ".")


def usage(total):
    return {"prompt_tokens": 0, "completion_tokens": total, "total_tokens": total}


def completion(total) -> bytes:
    """The answer in one piece; without a usage for None."""
    body = {"id": "chatcmpl-1", "object": "chat.completion", "model": "stand-in",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "".join(WORDS)},
                         "finish_reason": "stop"}]}
    if total is not None:
        body["usage"] = usage(total)
    return json.dumps(body).encode()


def events(total, end="\n") -> bytes:
    """The answer as a stream: every chunk but the last says `"usage": null`."""
    chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "stand-in"}
    chunks = [{**chunk, "choices": [{"index": 0, "delta": {"content": word}}], "usage": None} for word in WORDS]
    if total is not None:
        chunks.append({**chunk, "choices": [], "usage": usage(total)})
    lines = [f"data: {json.dumps(one)}{end}{end}" for one in chunks] + [f"data: [DONE]{end}{end}"]
    return "".join(lines).encode()


def cut(data: bytes, size) -> list:
    return [data[at:at + size] for at in range(0, len(data), size)]


class Chat:
    """answer(…) says how all requests are answered from now on. A piece is bytes, or a threading.Event to wait for.
    `gone` is set when the other side closed the connection before the answer was complete."""

    def __init__(self):
        self.requests = []
        self.gone = threading.Event()
        chat = self
        self.answer(completion(1))

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self):
                chat.requests.append(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
                self.send_response(chat.status)
                for name, value in chat.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                try:
                    for piece in chat.pieces:
                        self.send(piece)
                    if chat.is_chunked:
                        self.wfile.write(b"0\r\n\r\n")
                except OSError:
                    chat.gone.set()
                    self.close_connection = True

            do_GET = do_POST

            def send(self, piece):
                if isinstance(piece, threading.Event):
                    assert piece.wait(20), "the test never let the stand-in go on"
                elif chat.is_chunked:
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                else:
                    self.wfile.write(piece)

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request, client_address):
                pass  # nginx closes connections as it likes

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def answer(self, body, *, status=200, content_type="application/json", headers=()):
        """`body`: bytes, sent with their length; or a list of pieces, each sent as a chunk of its own."""
        self.is_chunked = isinstance(body, list)
        self.status, self.pieces = status, body if self.is_chunked else [body]
        length = {"Transfer-Encoding": "chunked"} if self.is_chunked else {"Content-Length": str(len(body))}
        self.headers = {"Content-Type": content_type, **length, **dict(headers)}

    def stream(self, pieces, **more):
        self.answer(pieces, content_type="text/event-stream; charset=utf-8", **more)

    def close(self):
        self._server.shutdown()
        self._server.server_close()
