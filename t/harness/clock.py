"""A wall clock for nginx that a test can stop and set, by libfaketime; nobody else's clock is touched.

Used by tests of quotas and of clocks that are set back. CLOCK_MONOTONIC stays true: what counts in it must not care.
Give `main` to nginx.make() and `environment` to the server before it is started.
"""

import os
import time
from pathlib import Path

LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))


class WallClock:
    def __init__(self, place: Path):
        assert LIBRARIES, "libfaketime is not installed; scripts/install-deps does it"
        self._path = place / "clock"
        settings = {"LD_PRELOAD": str(LIBRARIES[0]), "TZ": "UTC", "FAKETIME_TIMESTAMP_FILE": str(self._path),
                    "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1"}
        self.environment = {**os.environ, **settings}
        self.main = "".join(f"env {name};\n" for name in settings)  # nginx keeps no variable that it is not told of
        self.shift(0)

    def shift(self, seconds: float):
        """Runs on, so far from the true time."""
        self._write(f"{seconds:+}")

    def stand_at(self, moment: float):
        """Stands still at this second since 1970. A fraction is kept to the millisecond."""
        whole = int(moment // 1)
        # Half a microsecond more: the library reads the fraction as a binary one and cuts it off.
        fraction = f"{moment - whole + 0.0000005:.7f}"[1:]
        self._write(time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(whole)) + fraction)

    def _write(self, text):
        new = self._path.with_suffix(".new")
        new.write_text(text + "\n")
        new.chmod(0o644)
        new.rename(self._path)
