"""keyloader on a terminal: what it shows there, and what it asks."""

import fcntl
import os
import pty
import select
import signal
import struct
import termios

from harness.paths import KEYLOADER

QUESTIONS = (b"[y/N]", b"not shown", b"[ak]: ")


def on_terminal(environment, *arguments, columns=80, answer=""):
    """Runs it and types `answer` when it asks. RETURNS: the exit code and all that was shown."""
    child, terminal = pty.fork()
    if child == 0:
        fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        os.execve(KEYLOADER, [str(KEYLOADER), *arguments], environment)
    shown, is_answered = b"", False
    while True:
        ready, _, _ = select.select([terminal], [], [], 60)
        if not ready:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise AssertionError(f"it says no more, and does not end: {shown}")
        try:
            block = os.read(terminal, 65536)
        except OSError:  # it has ended
            break
        if not block:
            break
        shown += block
        if not is_answered and any(question in shown for question in QUESTIONS):
            is_answered = True
            os.write(terminal, answer.encode() + b"\n")
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), shown.decode().replace("\r\n", "\n")
