"""A kernel before 6.7, imitated by a preload: MAP_SHARED of a write-sealed memfd is refused through a writable descriptor.

Nothing else is refused: not a private mapping, nor a shared one through a descriptor that can only read.
"""

import subprocess

import pytest

from harness.store import LOCATION

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

static int is_refused(int flags, int fd) {
  int type = flags & MAP_TYPE;
  if (fd < 0 || (type != MAP_SHARED && type != MAP_SHARED_VALIDATE)) return 0;
  int seals = fcntl(fd, F_GET_SEALS);
  if (seals < 0 || !(seals & F_SEAL_WRITE)) return 0;
  return (fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDONLY;
}

void* mmap(void* at, size_t size, int rights, int flags, int fd, off_t offset) {
  static void* (*real)(void*, size_t, int, int, int, off_t);
  if (!real) real = dlsym(RTLD_NEXT, "mmap");
  if (is_refused(flags, fd)) {
    dprintf(2, "refused a shared mapping\n");
    errno = EPERM;
    return MAP_FAILED;
  }
  return real(at, size, rights, flags, fd, offset);
}

void* mmap64(void* at, size_t size, int rights, int flags, int fd, off_t offset) {
  return mmap(at, size, rights, flags, fd, offset);
}
"""
# What the shim is for: as that kernel does, and nothing more.
PROBE = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

int main(void) {
  char path[64];
  int fd = memfd_create("probe", MFD_ALLOW_SEALING);
  if (ftruncate(fd, 4096) != 0) return 1;
  printf("%d", mmap(0, 4096, PROT_READ, MAP_SHARED, fd, 0) != MAP_FAILED);
  munmap(mmap(0, 4096, PROT_READ, MAP_SHARED, fd, 0), 4096);
  fd = memfd_create("probe", MFD_ALLOW_SEALING);
  if (ftruncate(fd, 4096) != 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) != 0) return 1;
  printf("%d", mmap(0, 4096, PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED && errno == EPERM);
  printf("%d", mmap(0, 4096, PROT_READ, MAP_PRIVATE, fd, 0) != MAP_FAILED);
  snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
  printf("%d\n", mmap(0, 4096, PROT_READ, MAP_SHARED, open(path, O_RDONLY), 0) != MAP_FAILED);
  return 0;
}
"""


@pytest.fixture
def old_kernel(place):
    """The environment of a process that such a kernel runs."""
    for name, text, options in (("shim", SHIM, ["-shared", "-fPIC"]), ("probe", PROBE, [])):
        source = place / f"{name}.c"
        source.write_text(text)
        subprocess.run(["cc", *options, "-o", place / name, source, "-ldl"], check=True)
    return {"LD_PRELOAD": str(place / "shim"), "PATH": "/usr/bin:/bin"}


def test_the_preload_refuses_exactly_that(old_kernel, place):
    done = subprocess.run([place / "probe"], env=old_kernel, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1111"


@pytest.mark.parametrize("memory", ["private", "mapped"])
def test_snapshots_are_adopted(old_kernel, registry, nginx, memory):
    """Also by workers that take the copy from a living one, and again after a change."""
    key = registry.key("alice")
    server = nginx.make(LOCATION, workers=3, store_args=f"memory={memory}")
    server.environment = old_kernel
    server.start()
    server.wait_for_generation(registry.generation())
    assert [server.status(key=key) for _ in range(12)] == [200] * 12
    second = registry.key("bob")
    server.wait_for_generation(registry.generation())
    assert [server.status(key=second) for _ in range(12)] == [200] * 12
    assert "refused a shared mapping" not in server.stderr() + server.error_log()
