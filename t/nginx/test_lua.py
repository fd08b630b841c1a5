"""Beside the Lua module: access_by_lua runs last, so what it refuses has been charged, and apikey_refund gives it back.

docs/configuration.md says so under apikey_refund.
"""

from pathlib import Path

import pytest

MODULES = Path("/usr/lib/nginx/modules")
LUA = "".join(f"load_module {MODULES}/{name}.so;\n" for name in ("ndk_http_module", "ngx_http_lua_module"))


@pytest.fixture
def key(registry):
    registry.plan("three", rate="3/h", burst=3)
    return registry.key(plan="three")


def refused_by_lua(nginx, upstream, inside=""):
    return nginx(f"""
        location /lua {{
            apikey "api"; apikey_scope any; {inside}
            access_by_lua_block {{ if ngx.var.arg_no then ngx.exit(403) end }}
            proxy_pass {upstream.url};
        }}
        location /early {{
            apikey "api"; apikey_scope any;
            rewrite_by_lua_block {{
                if ngx.var.arg_no and ngx.var.apikey_status == "ok" then ngx.exit(403) end
            }}
            proxy_pass {upstream.url};
        }}
    """, main=LUA)


def test_what_lua_refuses_is_charged(nginx, upstream, key):
    server = refused_by_lua(nginx, upstream)
    assert [server.status("/lua?no=1", key=key) for _ in range(4)] == [403, 403, 403, 429]


def test_a_refund_gives_it_back(nginx, upstream, key):
    server = refused_by_lua(nginx, upstream, "apikey_refund 403;")
    assert [server.status("/lua?no=1", key=key) for _ in range(5)] == [403] * 5
    assert [server.status("/lua", key=key) for _ in range(4)] == [200, 200, 200, 429]


def test_the_rewrite_phase_is_free(nginx, upstream, key):
    server = refused_by_lua(nginx, upstream)
    assert [server.status("/early?no=1", key=key) for _ in range(5)] == [403] * 5
    assert [server.status("/early", key=key) for _ in range(4)] == [200, 200, 200, 429]
