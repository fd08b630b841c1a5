"""Where the things under test lie, and who runs them.

Read by the other files of this folder and by tests that start a program themselves.
The same tests run against other builds: APIKEY_BUILD names the build folder, APIKEY_NGINX the nginx binary,
APIKEY_MODULE the dynamic module (empty: nginx was built with the module inside).
"""

import os
import pwd
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("APIKEY_BUILD") or REPOSITORY / "build").resolve()
NGINX = os.environ.get("APIKEY_NGINX") or "/usr/sbin/nginx"
MODULE = os.environ.get("APIKEY_MODULE", str(BUILD / "ngx_http_apikey_module.so"))
KEYLOADER = str(BUILD / "keyloader")
IS_ROOT = os.geteuid() == 0
# Root in a container may not mount: then what a full disk does is tested by other means alone.
CAN_MOUNT = IS_ROOT and subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0


def worker_user() -> str:
    """The user nginx's workers run as: they get files of their own to read, as in real life, when we are root."""
    if not IS_ROOT:
        return pwd.getpwuid(os.geteuid()).pw_name
    for name in ("www-data", "nginx", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise RuntimeError("no user for nginx's workers: www-data, nginx and nobody are all unknown here")
