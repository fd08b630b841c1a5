"""Keys of WebSocket clients in Sec-WebSocket-Protocol: the one place of the handshake that a page in a browser can fill.

Two clients: Python's, which may do as it likes, and Chromium, which ends the connection when it has offered protocols and
the server takes none.
"""

import asyncio
import os
import shutil
import tempfile
import threading
from collections import Counter

import pytest
import websockets
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

from harness.waiting import free_port, wait_until


class Chat:
    """A WebSocket server that knows the protocol `chat` and says what it was offered."""

    def __init__(self):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._loop = asyncio.new_event_loop()
        self._end = asyncio.Event()
        ready = threading.Event()

        async def greet(socket, *_):
            offered = socket.request_headers.get_all("Sec-WebSocket-Protocol")
            await socket.send("; ".join(offered) or "nothing")
            await socket.wait_closed()

        async def serve():
            async with websockets.serve(greet, "127.0.0.1", self.port, subprotocols=["chat"]):
                ready.set()
                await self._end.wait()

        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(serve(),), daemon=True)
        self._thread.start()
        assert ready.wait(10)

    def close(self):
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(10)
        self._loop.close()


@pytest.fixture(scope="module")
def chat():
    server = Chat()
    yield server
    server.close()


@pytest.fixture(scope="module")
def server(stage, chat):
    stage.key = stage.registry.key("alice")
    pages = stage.place / "pages"
    pages.mkdir()
    (pages / "page.html").write_text("<title>page</title>")
    return stage.nginx(f"""
        location /page.html {{ root {pages}; default_type text/html; }}
        location /ws {{
            apikey "api"; apikey_scope any; apikey_from protocol:apikey. header:X-API-Key;
            proxy_pass {chat.url}; proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";
        }}
    """)


def talk(server, protocols):
    """RETURNS: (the protocol that was chosen, what the upstream says it was offered)."""
    async def once():
        url = f"ws://127.0.0.1:{server.port}/ws"
        async with websockets.connect(url, subprotocols=protocols) as socket:
            return socket.subprotocol, await socket.recv()
    return asyncio.run(once())


@pytest.mark.parametrize("offered,chosen,seen", [
    (["chat", "apikey.KEY"], "chat", "chat"),
    (["apikey.KEY", "chat"], "chat", "chat"),
    (["v2.chat", "apikey.KEY", "chat"], "chat", "v2.chat, chat"),
    (["apikey.KEY"], None, "nothing"),
])
def test_the_key_is_taken_and_the_other_protocols_are_left(server, stage, offered, chosen, seen):
    assert talk(server, [word.replace("KEY", stage.key.secret) for word in offered]) == (chosen, seen)
    assert stage.key.secret not in str(server.access_log()) + server.error_log()


@pytest.mark.parametrize("offered", [["chat"], ["chat", "apikey.ak_live_wrong"], ["chat", "KEY"]])
def test_without_a_good_key_there_is_no_connection(server, stage, offered):
    with pytest.raises(websockets.exceptions.InvalidStatusCode) as refused:
        talk(server, [word.replace("KEY", stage.key.secret) for word in offered])
    assert refused.value.status_code == 401


@pytest.fixture(scope="module")
def browser():
    profile = tempfile.mkdtemp(prefix="apikey-test-chromium-")
    options = Options()
    options.binary_location = "/usr/bin/chromium"
    for word in ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                 "--disable-background-networking", f"--user-data-dir={profile}"):
        options.add_argument(word)
    environment = {**os.environ, "HOME": profile, "no_proxy": "127.0.0.1,localhost"}
    driver = webdriver.Chrome(service=Service("/usr/bin/chromedriver", env=environment), options=options)
    driver.set_script_timeout(60)
    yield driver
    driver.quit()
    shutil.rmtree(profile, ignore_errors=True)


OPEN = """
const [url, protocols, done] = arguments;
const socket = new WebSocket(url, protocols);
socket.onmessage = event => { done([socket.protocol, event.data]); socket.close(); };
socket.onerror = () => done(["error", ""]);
"""


def outcomes(server):
    return Counter(entry["outcome"] for entry in server.access_log() if entry["uri"] == "/ws")


def test_a_browser_needs_a_second_protocol(server, stage, browser):
    browser.get(f"{server.url}/page.html")
    url = f"ws://127.0.0.1:{server.port}/ws"
    key = f"apikey.{stage.key.secret}"
    assert browser.execute_async_script(OPEN, url, ["chat", key]) == ["chat", "chat"]
    assert browser.execute_async_script(OPEN, url, [key, "v2.chat", "chat"]) == ["chat", "v2.chat, chat"]
    # nginx and the upstream let it in, but no protocol can be chosen: Chromium ends the connection.
    before = outcomes(server)
    assert browser.execute_async_script(OPEN, url, [key]) == ["error", ""]
    assert browser.execute_async_script(OPEN, url, ["chat"]) == ["error", ""]
    wait_until(lambda: outcomes(server) - before >= Counter(["ok", "missing"]), what="both handshakes in the log")
