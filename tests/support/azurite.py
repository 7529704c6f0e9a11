"""Fixtures of Azurite. Use them with ``pytest_plugins = ["tests.support.azurite"]``, or import them in a conftest."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from vantage6_largefile.demo.azurite import AzuriteMissing, AzuriteServer, azurite, find_azurite


def require_azurite() -> None:
    """Skip where Azurite is not installed; fail where it must be (CI)."""
    try:
        find_azurite()
    except AzuriteMissing as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def azurite_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzuriteServer]:
    """One Azurite for the whole run; every test makes its own container. Never stop this one."""
    require_azurite()
    with azurite(tmp_path_factory.mktemp("azurite")) as server:
        yield server


@pytest.fixture
def own_azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzuriteServer]:
    """An Azurite of the test's own, which it may stop, kill and start again."""
    require_azurite()
    with azurite(tmp_path_factory.mktemp("azurite")) as server:
        yield server
