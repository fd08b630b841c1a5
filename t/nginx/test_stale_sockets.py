"""After a kill the unix sockets that we answer on do not keep nginx from starting; nobody else's are touched."""

import os
import signal
import socket
import subprocess

import pytest

from harness.paths import IS_ROOT
from harness.server import end_master, pid_in
from harness.waiting import wait_until

ANSWERS = {"usage": "apikey off; apikey_usage;", "metrics": "apikey off; apikey_metrics;",
           "verify": 'apikey "api"; apikey_scope any; apikey_verify;', "whoami": 'apikey "api"; apikey_whoami;',
           "verify in an if": 'apikey "api"; apikey_scope any; if ($arg_x) { set $y 1; } apikey_verify;'}


def listener(path, lines="apikey off; apikey_usage;"):
    return f"server {{ listen unix:{path}; access_log off; location = /there {{ {lines} }} }}"


def kill(server):
    server.kill_all()
    assert server.admin_socket.is_socket(), "what this is about"


@pytest.mark.parametrize("name", ANSWERS)
def test_a_killed_nginx_starts_again(registry, nginx, place, name):
    path = place / "own.sock"
    key = registry.key()
    server = nginx("location / { empty_gif; }", http=listener(path, ANSWERS[name]), server='apikey "api"; apikey_scope any;')
    kill(server)
    assert path.is_socket()
    server.start()
    server.wait_for_log(r"\[notice\].*removed the socket \S*own\.sock, which an nginx that was killed has left")
    server.wait_for_generation(registry.generation())
    assert server.status(key=key) == 200
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_nginx_t_removes_nothing(registry, nginx):
    registry.key()
    server = nginx("location / { empty_gif; }")
    kill(server)
    before = server.admin_socket.lstat().st_ino
    server.check()
    assert server.admin_socket.lstat().st_ino == before
    server.start()


def ended(server):
    """Starts nginx where it cannot. RETURNS: what it said."""
    server.allow_log(r"\[emerg\].*Address already in use|still could not bind")
    done = subprocess.run(server.command(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    return server.error_log()


def test_a_socket_that_answers_stays(registry, nginx, place):
    """Another server's, and another nginx's of the same configuration."""
    registry.key()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(place / "own.sock"))
        other.listen()
        server = nginx.make(http=listener(place / "own.sock"))
        assert "Address already in use" in ended(server)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(place / "own.sock"))


@pytest.mark.skipif(not IS_ROOT, reason="only root can give a socket to somebody else")
def test_a_socket_of_another_user_stays(registry, nginx, place):
    registry.key()
    path = place / "own.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
    os.chown(path, 65534, 65534)
    server = nginx.make(http=listener(path))
    assert "Address already in use" in ended(server)
    assert path.is_socket()


@pytest.mark.parametrize("made", ["file", "link"])
def test_what_is_not_a_socket_stays(registry, nginx, place, made):
    registry.key()
    path, target = place / "own.sock", place / "target.sock"
    if made == "file":
        path.write_text("mine")
    else:
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(target))
        path.symlink_to(target)
    server = nginx.make(http=listener(path))
    assert "Address already in use" in ended(server)
    assert os.path.lexists(path) and (made == "file" or target.is_socket())


def test_sockets_of_other_servers_stay(registry, nginx, place):
    registry.key()
    path = place / "other.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
    server = nginx.make(http=f"server {{ listen unix:{path}; location / {{ empty_gif; }} }}")
    assert "Address already in use" in ended(server)
    assert path.is_socket()


def test_a_reload_and_an_upgrade_keep_the_socket(registry, nginx):
    key = registry.key()
    server = nginx.make("location / { apikey \"api\"; apikey_scope any; empty_gif; }").start_detached()
    server.wait_for_generation(registry.generation())
    inode = server.admin_socket.lstat().st_ino
    old = int(server.pid_path.read_text())
    try:
        os.kill(old, signal.SIGHUP)
        wait_until(lambda: server.error_log().count("start worker process ") >= 4, what="the reload")
        assert server.admin_socket.lstat().st_ino == inode
        os.kill(old, signal.SIGUSR2)
        wait_until(lambda: pid_in(server.pid_path) not in ("", str(old)), what="the new master")
        server.wait_for_generation(registry.generation())
        assert server.admin_socket.lstat().st_ino == inode
        assert server.status(key=key) == 200
        new = int(server.pid_path.read_text())
        end_master(new)
    finally:
        end_master(old)
    assert "removed the socket" not in server.error_log()
