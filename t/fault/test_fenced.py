"""A worker that cannot open what was adopted decides nothing: it answers 503 until it can, and never by an older one."""

import os
import re
import signal
import subprocess
import threading

import httpx
import pytest

from harness.store import LOCATION, Generations
from harness.waiting import wait_until

WHO = '''location / { apikey "api"; apikey_scope any; add_header X-Worker $pid always; empty_gif; }
         location = /metrics { apikey_metrics; }'''
REFUSED = "cannot be opened by this worker"


KEPT = httpx.Limits(keepalive_expiry=None)  # httpx closes after 5 s otherwise; a new connection may go to another worker


def connect_to_every_worker(server, count):
    """Kept-alive connections by pid of the worker."""
    found = {}

    def one_more():
        client = httpx.Client(base_url=server.url, trust_env=False, timeout=20, limits=KEPT)
        worker = int(client.get("/").headers["X-Worker"])
        if worker in found:
            client.close()
        else:
            found[worker] = client
        return len(found) == count

    wait_until(one_more, 30, "a connection to every worker")
    return found


def fenced(client):
    """By a connection that is there: a new one may wait in the queue of a worker that cannot accept it."""
    return re.search(r'apikey_workers_fenced{store="default"} (\d+)', client.get("/metrics").text)[1]


def ask(client, key):
    return client.get("/", headers={"X-API-Key": key.secret}).status_code


# Who limits another process needs a capability that a container may not have: the worker does it itself, whenever it is
# about to open something. The limit is the size of a file with its pid for a name: to read it would take a descriptor.
# With <pid>.fill it takes every descriptor that is left below the highest one, when it next looks at the store's file.
STARVE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
static void starve(void) {
  char path[256];
  struct stat found;
  struct rlimit limit;
  snprintf(path, sizeof path, PLACE "/%d", (int)getpid());
  if (stat(path, &found) == 0 && getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    limit.rlim_cur = (rlim_t)found.st_size;
    setrlimit(RLIMIT_NOFILE, &limit);
  }
}
int statx(int at, const char *name, int flags, unsigned mask, struct statx *out) {
  int (*real)(int, const char *, int, unsigned, struct statx *) = dlsym(RTLD_NEXT, "statx");
  static int is_full;
  char path[256];
  struct stat found;
  snprintf(path, sizeof path, PLACE "/%d.fill", (int)getpid());
  if (!is_full && stat(path, &found) == 0) {
    struct rlimit limit;
    int highest = 0;
    for (int fd = 0; fd < 1024; ++fd) {
      highest = fcntl(fd, F_GETFD) >= 0 ? fd : highest;
    }
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = (rlim_t)highest + 1;
    setrlimit(RLIMIT_NOFILE, &limit);
    while (dup(0) >= 0) {
    }
    is_full = 1;
  }
  return real(at, name, flags, mask, out);
}
#define STARVE(name)                                                     \
  int name(const char *path, int flags, ...) {                           \
    int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, #name);       \
    va_list more;                                                        \
    va_start(more, flags);                                               \
    mode_t mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(more, mode_t) : 0; \
    va_end(more);                                                        \
    starve();                                                            \
    return real(path, flags, mode);                                      \
  }
STARVE(open)
STARVE(open64)
"""


def preload(place, name, source, *options):
    """RETURNS: the environment of a process that has this library before all others."""
    (place / f"{name}.c").write_text(source)
    subprocess.run(["cc", "-shared", "-fPIC", *options, "-o", place / f"{name}.so", place / f"{name}.c", "-ldl"],
                   check=True)
    return {**os.environ, "LD_PRELOAD": str(place / f"{name}.so")}


class Starving:
    """Servers whose workers can be limited in their descriptors, one by one."""

    def __init__(self, place, nginx):
        self._dir = place / "starve"
        self._dir.mkdir(mode=0o755)
        self._environment = preload(place, "starve", STARVE, f'-DPLACE="{self._dir}"')
        self._nginx = nginx

    def serve(self, registry, **parts):
        server = self._nginx.make(WHO, **parts)
        server.environment = self._environment
        server.allow_log(r"accept4?\(\) failed|Too many open files")
        server.start()
        server.wait_for_generation(registry.generation())
        return server

    def limit(self, pid, limit):
        path = self._dir / f"{pid}.new"
        path.write_bytes(b"x" * limit)
        path.rename(self._dir / str(pid))

    def fill(self, pid):
        """As if connections had taken all that is not taken."""
        (self._dir / f"{pid}.fill").touch()

        def is_full():
            taken = sorted(map(int, os.listdir(f"/proc/{pid}/fd")))
            with open(f"/proc/{pid}/limits", encoding="ascii") as limits:
                soft = next(line.split()[3] for line in limits if line.startswith("Max open files"))
            return taken == list(range(int(soft)))

        wait_until(is_full, what="a worker without a descriptor to spare")


@pytest.fixture
def starving(place, nginx):
    return Starving(place, nginx)


@pytest.fixture
def leaver(registry):
    registry.key()
    return registry.key("leaver")


def test_the_reserve_is_enough_for_a_switch(registry, starving, leaver):
    """A worker whose connections have used up all descriptors still learns that a key was revoked."""
    server = starving.serve(registry, workers=2)
    clients = connect_to_every_worker(server, 2)
    starved = next(iter(clients))
    assert ask(clients[starved], leaver) == 200
    starving.fill(starved)
    for _ in range(5):  # more than one switch
        registry.publish()
    registry.revoke(leaver)
    wait_until(lambda: ask(clients[starved], leaver) == 401, what="the revocation in the starved worker")
    assert REFUSED not in server.error_log()


@pytest.mark.parametrize("memory", ["private", "mapped"])
def test_without_any_descriptor(registry, starving, leaver, memory):
    """Once 47 of 47 requests with a revoked key passed, three seconds after the log said that it was in force."""
    good = registry.key()
    server = starving.serve(registry, workers=2, store_args=f"memory={memory}")
    clients = connect_to_every_worker(server, 2)
    starved, other = clients
    assert ask(clients[starved], leaver) == 200
    starving.limit(starved, 3)
    registry.revoke(leaver)
    wait_until(lambda: ask(clients[other], leaver) == 401, what="the revocation in the other worker")
    assert [ask(clients[starved], leaver) for _ in range(47)] == [503] * 47
    assert [ask(clients[starved], good) for _ in range(5)] == [503] * 5
    assert ask(clients[other], good) == 200
    server.wait_for_log(f"{REFUSED}.*; until it can be it answers its requests with 503")
    assert server.error_log().count(REFUSED) == 1
    assert fenced(clients[other]) == "1"
    starving.limit(starved, 1024)
    wait_until(lambda: ask(clients[starved], good) == 200, what="the worker's recovery")
    assert ask(clients[starved], leaver) == 401
    server.wait_for_log("is open in this worker now")
    assert fenced(clients[other]) == "0"


def test_a_single_worker_that_is_out_of_descriptors_verifies(registry, starving, leaver):
    server = starving.serve(registry, workers=1)
    clients = connect_to_every_worker(server, 1)
    starved, client = next(iter(clients.items()))
    assert ask(client, leaver) == 200
    starving.fill(starved)
    registry.revoke(leaver)
    wait_until(lambda: ask(client, leaver) == 401, what="the revocation")


def test_on_error_allow_is_for_a_fenced_worker_too(registry, starving, leaver):
    server = starving.serve(registry, workers=2, store_args="on_error=allow")
    clients = connect_to_every_worker(server, 2)
    starved, other = clients
    starving.limit(starved, 3)
    registry.revoke(leaver, "--no-wait")
    wait_until(lambda: ask(clients[other], leaver) == 401)
    done = registry.run("key", "revoke", leaver.id, check=False)
    assert done.returncode == 3 and "lets requests pass unchecked" in done.stderr
    assert ask(clients[starved], leaver) == 200
    server.wait_for_log(f"{REFUSED}.*its requests pass unchecked .on_error=allow.")


def test_a_stopped_worker_never_decides_by_what_it_had(registry, nginx, leaver):
    server = nginx(WHO, workers=2)
    clients = connect_to_every_worker(server, 2)
    stopped, other = clients
    os.kill(stopped, signal.SIGSTOP)
    try:
        registry.revoke(leaver, "--no-wait")
        wait_until(lambda: ask(clients[other], leaver) == 401)
        done = registry.run("key", "revoke", leaver.id, check=False)
        assert done.returncode == 3 and f"worker (pid {stopped}) that has not acknowledged it" in done.stderr
    finally:
        os.kill(stopped, signal.SIGCONT)
    assert ask(clients[stopped], leaver) == 401


def test_an_early_variable_and_a_delay(registry, nginx, leaver):
    """What a variable showed before is only shown: the decision is made by the newest generation."""
    server = nginx('''location / {
        apikey "api"; apikey_scope any;
        set $early $apikey_owner; add_header X-Early $early always;
        limit_req zone=slow burst=5;
        empty_gif;
    }''', http="limit_req_zone $server_name zone=slow:1m rate=30r/m;", workers=1)
    assert server.status(key=leaver) == 200
    answers = []
    delayed = threading.Thread(target=lambda: answers.append(server.get(key=leaver)))
    delayed.start()
    server.wait_for_log("delaying request")
    registry.revoke(leaver)
    delayed.join(20)
    assert answers[0].headers["X-Early"] == "leaver"
    assert answers[0].status_code == 401
    assert server.last_logged("/")["generation"] == str(registry.generation())


def test_a_draining_worker_without_the_new_pepper(registry, nginx, leaver):
    """It cannot open what the new workers decide by, so it decides nothing."""
    server = nginx('location / { apikey "api"; apikey_scope any; limit_req zone=slow burst=5; empty_gif; }',
                   http="limit_req_zone $server_name zone=slow:1m rate=12r/m;", workers=1)
    assert server.status(key=leaver) == 200
    answers = []
    delayed = threading.Thread(target=lambda: answers.append(server.get(key=leaver).status_code))
    delayed.start()
    server.wait_for_log("delaying request")
    registry.run("pepper", "create", "p2")
    server.reload(wait_for_old=False, store=f"apikey_store {registry.snapshot} pepper=p2:{registry.dir}/peppers/p2;")
    registry.key("other")
    server.wait_for_generation(registry.generation())
    assert server.metric("apikey_snapshot_veto_generation") == 0
    delayed.join(20)
    assert answers == [503]
    server.wait_for_log(f"{REFUSED}: its keys need a pepper")


SHUT = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
static int is_shut(const char *path) {
  return strncmp(path, "/proc/", 6) == 0 && path[6] >= '0' && path[6] <= '9' && strstr(path, "/fd/") != NULL;
}
#define SHUT(name)                                                       \
  int name(const char *path, int flags, ...) {                           \
    int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, #name);       \
    va_list more;                                                        \
    va_start(more, flags);                                               \
    mode_t mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(more, mode_t) : 0; \
    va_end(more);                                                        \
    if (is_shut(path)) {                                                 \
      errno = EACCES;                                                    \
      return -1;                                                         \
    }                                                                    \
    return real(path, flags, mode);                                      \
  }
SHUT(open)
SHUT(open64)
"""


@pytest.fixture
def shut_peers(place):
    """As an AppArmor profile or SELinux would: nobody's /proc/<pid>/fd can be opened."""
    return preload(place, "shut", SHUT)


@pytest.mark.parametrize("memory", ["private", "mapped"])
def test_peers_that_cannot_be_opened(nginx, store, made, shut_peers, memory):
    """Each worker verifies for itself, with one warning; also one that is replaced, and those after a reload."""
    store.put(made.snapshots[0])
    server = nginx.make(WHO, store=store.path, store_args=f"memory={memory}", workers=3)
    server.environment = shut_peers
    server.allow_log("exited on signal 9")
    server.start()
    for i in range(3):
        if i > 0:
            store.put(made.snapshots[i])
        server.wait_for_generation(made.number(i))
        clients = connect_to_every_worker(server, 3)
        for client in clients.values():
            wait_until(lambda: ask(client, made.keys[i]) == 200)  # pylint: disable=cell-var-from-loop
            client.close()
    warnings = server.error_log().count("may not open each other's /proc/<pid>/fd")
    assert warnings == (1 if memory == "private" else 0), "the file itself can be opened"
    before = server.workers()
    os.kill(before[0], signal.SIGKILL)
    wait_until(lambda: len(server.workers()) == 3 and server.workers() != before)
    server.reload()
    clients = connect_to_every_worker(server, 3)
    for client in clients.values():
        wait_until(lambda: ask(client, made.keys[2]) == 200)  # pylint: disable=cell-var-from-loop
        client.close()


@pytest.mark.parametrize("parameters", ["memory=private", "memory=mapped", "lookup=btree"])
def test_forty_long_requests_over_forty_generations(nginx, registry, store, place, parameters):
    """What long requests keep costs memory, and neither descriptors nor a slot that the newest generation needs."""
    made = Generations(registry, 41)
    slow = place / "slow"
    slow.write_bytes(b"x" * 60_000)
    slow.chmod(0o644)
    store.put(made.snapshots[0])
    server = nginx(LOCATION + f'location = /slow {{ apikey "api"; apikey_scope any; limit_rate 100; alias {slow}; }}',
                   store=store.path, store_args=parameters, workers=1)
    server.wait_for_generation(made.number(0))
    worker = server.workers()[0]
    descriptors = len(os.listdir(f"/proc/{worker}/fd"))
    connections = []
    try:
        for i in range(40):
            connections.append(server.connect())
            connections[-1].sendall(f"GET /slow HTTP/1.0\r\nX-API-Key: {made.keys[i].secret}\r\n\r\n".encode())
            assert b"200 OK" in connections[-1].recv(100)
            store.put(made.snapshots[i + 1])
            wait_until(lambda: server.status(key=made.keys[i + 1]) == 200)  # pylint: disable=cell-var-from-loop
        assert server.workers() == [worker]
        assert REFUSED not in server.error_log()
        assert mappings(worker, store) > 40, "the long requests keep their generations"
        # A request takes two: its connection and the file it sends. The B-tree of an old snapshot needs one more.
        each = 3 if parameters == "lookup=btree" else 2
        assert len(os.listdir(f"/proc/{worker}/fd")) <= descriptors + each * len(connections) + 3
    finally:
        for connection in connections:
            connection.close()
    wait_until(lambda: mappings(worker, store) == 1, what="old copies unmapped")
    logged = [entry["generation"] for entry in server.logged(80) if entry["uri"] == "/slow"]
    assert sorted(map(int, logged)) == [made.number(i) for i in range(40)]


def mappings(pid, store):
    with open(f"/proc/{pid}/maps", encoding="ascii", errors="replace") as maps:
        return len({line.split()[4] for line in maps if "apikey-snapshot" in line or str(store.path) in line})
