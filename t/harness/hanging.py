"""A file system that does not answer, for one path: reading or writing that file never comes back.

It hangs while a flag file is there. The main thread of a process
is left alone, as nothing of ours reads such a file there. Used by the tests of nginx's end.
"""

from pathlib import Path

from harness.preload import Preload

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static void hang_if(int fd) {
  const char *path = getenv("HANGING_PATH"), *flag = getenv("HANGING_FLAG");
  char link[64], target[PATH_MAX];
  ssize_t length;
  if (path == NULL || flag == NULL || syscall(SYS_gettid) == getpid() || access(flag, F_OK) != 0) return;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  length = readlink(link, target, sizeof target - 1);
  if (length < 0) return;
  target[length] = 0;
  if (strncmp(target, path, strlen(path)) != 0) return;
  snprintf(link, sizeof link, "%d\n", getpid());
  int said = open(flag, O_WRONLY | O_APPEND);
  if (said >= 0) { syscall(SYS_write, said, link, strlen(link)); close(said); }
  for (;;) pause();
}

ssize_t read(int fd, void *to, size_t size) { hang_if(fd); return syscall(SYS_read, fd, to, size); }
ssize_t write(int fd, const void *from, size_t size) { hang_if(fd); return syscall(SYS_write, fd, from, size); }
int fsync(int fd) { hang_if(fd); return syscall(SYS_fsync, fd); }
int fdatasync(int fd) { hang_if(fd); return syscall(SYS_fdatasync, fd); }
"""


class Hanging(Preload):
    """`path`: what its files' names begin with. Give `main` to nginx.make() and `environment` to the server."""

    def __init__(self, place: Path, path: Path):
        self._flag = place / "hanging.flag"
        super().__init__(place, "hanging", SOURCE, HANGING_PATH=path, HANGING_FLAG=self._flag)

    def begin(self):
        self._flag.touch()
        self._flag.chmod(0o666)

    def pids(self):
        """Processes with a thread that hangs."""
        return {int(line) for line in self._flag.read_text().split()}

    def end(self):
        """For those that ask from now on."""
        self._flag.unlink()
