"""An nginx whose timers never run out while a test says so: what happens then, happens at once or not at all.

epoll_wait() waits without end; nginx looks at its timers after each event that comes. Used by tests of what must not
wait for a timer.
"""

from pathlib import Path

from harness.preload import Preload

SOURCE = r"""
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

int epoll_wait(int fd, struct epoll_event *events, int most, int timeout) {
  const char *flag = getenv("TIMELESS_FLAG");
  if (flag != NULL && access(flag, F_OK) == 0) timeout = -1;
  return syscall(SYS_epoll_wait, fd, events, most, timeout);
}
"""


class Timeless(Preload):
    def __init__(self, place: Path):
        self._flag = place / "timeless.flag"
        super().__init__(place, "timeless", SOURCE, TIMELESS_FLAG=self._flag)

    def begin(self):
        self._flag.touch()

    def end(self):
        self._flag.unlink()
