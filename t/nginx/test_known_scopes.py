"""Scopes that the configuration asks for and no key has are warned of at start, with the nearest one that is known."""

import re

LOCATIONS = """
    apikey "api"; apikey_scope orders:raed methods=GET;
    location /inherits {{ empty_gif; }}
    location /right {{ apikey_scope orders:read orders:write; empty_gif; }}
    location /wild  {{ apikey_scope files:anything:at:all; empty_gif; }}
    location /two   {{ apikey_scope {two}; apikey_scope never:heard:of methods=POST; empty_gif; }}
    location /any   {{ apikey_scope any; empty_gif; }}
    location /off   {{ apikey off; empty_gif; }}
"""


def warned(server):
    return re.findall(r'\[warn\] .*?apikey store "default": (location .*)', server.error_log())


def keys(registry):
    registry.role("writer", "orders:write")
    registry.key(scope=["orders:read", "files:*"])


def test_scopes_that_no_key_has(nginx, registry):
    keys(registry)
    server = nginx(LOCATIONS.format(two="order:read x:y"))
    server.wait_for_log("never:heard:of")
    assert sorted(warned(server)) == [
        'location "/two" asks for what no key has (apikey_scope): order:read (did you mean orders:read?), x:y, '
        "never:heard:of",
        'location "server localhost" asks for what no key has (apikey_scope): orders:raed (did you mean orders:read?)']


def test_said_once_for_each_configuration_and_not_for_each_snapshot(nginx, registry):
    keys(registry)
    server = nginx(LOCATIONS.format(two="x:y"), workers=2)
    server.wait_for_log("never:heard:of")
    registry.key(scope="another")
    server.wait_for_generation(registry.generation())
    assert len(warned(server)) == 2
    server.reload(locations=LOCATIONS.format(two="orders:read"))
    assert len(warned(server)) == 4
    assert 'location "/two" asks for what no key has (apikey_scope): never:heard:of' in warned(server)


def test_nothing_to_compare_with_before_the_first_key(nginx, registry):
    registry.publish()
    server = nginx(LOCATIONS.format(two="x:y"))
    assert warned(server) == []
    keys(registry)
    server.wait_for_log("never:heard:of")


def test_a_key_that_may_do_everything(nginx, registry):
    registry.key(scope="*")
    assert warned(nginx(LOCATIONS.format(two="x:y"))) == []
