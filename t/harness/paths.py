"""Where the things under test lie, and who runs them.

Read by the other files of this folder and by tests that start a program themselves.
The same tests run against other builds: APIKEY_BUILD names the build folder, APIKEY_NGINX the nginx binary,
APIKEY_MODULE the dynamic module (empty: nginx was built with the module inside).
"""

import atexit
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("APIKEY_BUILD") or REPOSITORY / "build").resolve()
NGINX = os.environ.get("APIKEY_NGINX") or "/usr/sbin/nginx"
MODULE = os.environ.get("APIKEY_MODULE", str(BUILD / "ngx_http_apikey_module.so"))
IS_ROOT = os.geteuid() == 0


def _for_all_users(program: Path) -> str:
    """Tests run it as other users, too, who get nowhere below a home such as /root: a copy stands in then."""
    is_closed = any(not folder.stat().st_mode & stat.S_IXOTH for folder in program.parents)
    if not (IS_ROOT and is_closed and program.exists()):
        return str(program)
    folder = Path(tempfile.mkdtemp(prefix="apikey-programs-"))
    folder.chmod(0o755)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return str(shutil.copy2(program, folder))


KEYLOADER = _for_all_users(BUILD / "keyloader")
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
