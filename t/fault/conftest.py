"""Fixtures of the fault tests: three snapshots of one registry, and a store to put them, or what is left of them, into."""

import pytest

from harness.store import Generations, Store


@pytest.fixture
def store(place):
    return Store(place)


@pytest.fixture
def made(registry):
    return Generations(registry, 3)
