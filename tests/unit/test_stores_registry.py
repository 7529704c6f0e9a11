"""Finding drivers."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from vantage6_largefile.config.store import StoreConfig
from vantage6_largefile.errors import ConfigurationError
from vantage6_largefile.location import Location
from vantage6_largefile.stores import installed_drivers, open_store, registry


def config(driver: str) -> StoreConfig:
    return StoreConfig(driver, Location(driver, "name", ("container",)), {}, None)


def test_own_drivers_are_installed() -> None:
    assert {"azure", "file"} <= set(installed_drivers())


def test_unknown_driver_names_those_that_are_installed() -> None:
    with pytest.raises(ConfigurationError, match=r"'tape' is not installed; installed are: azure, .*file"):
        open_store(config("tape"))


def test_driver_whose_package_is_missing_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("tape", "no_such_package.driver:open_store", "vantage6_largefile.stores")
    monkeypatch.setattr(registry, "installed_drivers", lambda: {"tape": entry})

    with pytest.raises(ConfigurationError, match="no_such_package"):
        open_store(config("tape"))


def test_driver_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("tape", "builtins:id", "vantage6_largefile.stores")
    monkeypatch.setattr(registry, "installed_drivers", lambda: {"tape": entry})

    with pytest.raises(ConfigurationError, match="does not offer the calls of a store"):
        open_store(config("tape"))
