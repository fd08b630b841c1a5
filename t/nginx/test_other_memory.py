"""What is overwritten when a key is hidden is the request's own; a text of the configuration serves the next one, too.

headers-more (Debian's package) sets headers of the request from its own configuration.
"""

from pathlib import Path

import pytest

from harness.paths import NGINX

HEADERS_MORE = Path("/usr/lib/nginx/modules/ngx_http_headers_more_filter_module.so")


@pytest.fixture(scope="module")
def server(stage):
    if NGINX != "/usr/sbin/nginx":
        pytest.skip("Debian's headers-more is for Debian's nginx")
    up = stage.upstream.url
    stage.key = stage.registry.key("alice")
    secret = stage.key.secret
    return stage.nginx(f"""
        apikey "api"; apikey_scope any;
        location /constant {{ more_set_input_headers "X-API-Key: {secret}"; proxy_pass {up}; }}
        location /variable {{ more_set_input_headers "X-API-Key: $arg_k"; proxy_pass {up}; }}
        location /bearer   {{ apikey_from bearer; more_set_input_headers "Authorization: Bearer {secret}"; proxy_pass {up}; }}
        location /cookie   {{ apikey_from cookie:k; more_set_input_headers "Cookie: a=1; k={secret}; b=2"; proxy_pass {up}; }}
        location /place    {{ apikey_from $http_x_token; more_set_input_headers "X-Token: {secret}"; proxy_pass {up}; }}
        location /copy     {{ more_set_input_headers "X-Copy: {secret}"; proxy_pass {up}; }}
        location /page     {{ apikey off; error_page 404 /argument?k={secret}&a=1; return 404; }}
        location /argument {{ apikey_from query:k; proxy_pass {up}; }}
        location /tried    {{ apikey off; try_files /none /argument?a=1&k={secret}; }}
        location /rewritten {{ apikey_from query:k; rewrite ^ /argument?k={secret}&a=1; }}
        location /set      {{ set $kept {secret}; apikey_from $kept; proxy_pass {up}; }}
    """, main=f"load_module {HEADERS_MORE};")


@pytest.mark.parametrize("path", ["/constant", "/variable?k=KEY", "/bearer", "/cookie", "/place", "/page", "/tried",
                                  "/rewritten", "/set"])
def test_the_next_request_has_it_too(server, stage, path):
    answers = [server.status(path.replace("KEY", stage.key.secret)) for _ in range(6)]
    assert answers == [404 if path == "/page" else 200] * 6


def test_it_is_hidden_all_the_same(server, stage):
    for path in ("/constant", "/bearer", "/cookie", "/place", "/tried", "/rewritten"):
        stage.upstream.clear()
        assert server.status(path) == 200
        assert stage.key.secret not in stage.upstream.last.text()


def test_a_copy_is_replaced_and_not_overwritten(server, stage):
    for _ in range(4):
        stage.upstream.clear()
        assert server.status("/copy", key=stage.key) == 200
        assert stage.upstream.last.header("X-Copy").startswith("apikey:")
