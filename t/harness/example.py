"""An example of conf/examples on this machine: its paths and ports replaced, its keys made.

Used by the tests that start them. The rest of an example's text is what people copy.
"""

import re
import shlex
import shutil

from harness.paths import IS_ROOT, MODULE, REPOSITORY, worker_user
from harness.server import Server


class ExampleServer(Server):
    """A Server whose configuration is the example's text with this machine's paths and ports."""

    def __init__(self, prefix, text, registry, upstream_url):
        self.text, self.registry, self.upstream_url = text, registry, upstream_url
        super().__init__(prefix)

    def config(self, **_):
        text = self.text
        replaced = {
            "/var/lib/apikey": str(self.registry.dir),
            "/var/log/nginx/": f"{self.prefix}/",
            "/var/log/nginx/apikey.log": str(self.access_log_path),
            "include /etc/nginx/snippets/apikey-log.conf;": apikey_log(),
            "/var/lib/nginx-apikey": str(self.state_directory()),
            "/run/nginx.pid": f"{self.prefix}/nginx.pid",
            "unix:/run/": f"unix:{self.prefix}/",
            "listen 8080": f"listen 127.0.0.1:{self.port}",
            "127.0.0.1:8080": f"127.0.0.1:{self.port}",
            "http://127.0.0.1:3000": self.upstream_url,
            "user www-data;": f"user {worker_user()};" if IS_ROOT else "",
            "load_module /usr/lib/nginx/modules/ngx_http_apikey_module.so;": f"load_module {MODULE};" if MODULE else "",
            "\nhttp {": f"\nhttp {{\n{self.additions()}",
        }
        # First the line that contains another one's text.
        for old in sorted(replaced, key=len, reverse=True):
            text = text.replace(old, replaced[old])
        return "daemon off;\nworker_processes 2;\n" + text

    def state_directory(self):
        directory = self.prefix / "state"
        directory.mkdir(exist_ok=True)
        if IS_ROOT:
            shutil.chown(directory, worker_user())
        return directory

    def additions(self):
        """Temporary files of our own, and a place to ask which snapshot is in service."""
        return f"""proxy_temp_path {self.prefix}/proxy; client_body_temp_path {self.prefix}/body;
            server {{
                listen unix:{self.admin_socket};
                access_log off;
                location = /metrics {{ apikey off; apikey_metrics; }}
            }}"""


def apikey_log(path=None):
    """The snippet that writes the access log in JSON; `path`: another place for the log."""
    text = (REPOSITORY / "conf" / "snippets" / "apikey-log.conf").read_text()
    return text if path is None else text.replace("/var/log/nginx/apikey.log", str(path))


def make_keys(text, registry):
    keys = {}
    for name, command in re.findall(r"^# setup(?: (\w+))?: keyloader (.*)$", text, re.MULTILINE):
        done = registry.run(*shlex.split(command))
        if name:
            keys[name] = done.stdout.strip()
            assert re.fullmatch(r"ak_[a-z0-9]+_[0-9A-Za-z]{38}", keys[name]), "the key alone is on standard output"
    return keys
