"""A library that nginx is started with, which does some calls of the system in another way.

Used by harness files that hold its source. Give `main` to nginx.make() and `environment` to the server before it starts.
"""

import os
import subprocess
from pathlib import Path


class Preload:
    def __init__(self, place: Path, name, source, **settings):
        library, text = place / f"{name}.so", place / f"{name}.c"
        text.write_text(source)
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-w", "-o", str(library), str(text), "-ldl"], check=True)
        settings = {"LD_PRELOAD": str(library), **{key: str(value) for key, value in settings.items()}}
        self.environment = {**os.environ, **settings}
        self.main = "".join(f"env {key};\n" for key in settings)  # nginx keeps no variable that it is not told of
