"""Finding the driver of a store, and opening it.

Drivers register in the entry point group ``vantage6_largefile.stores``: the name is the driver's name in
locations, the value a function that takes a :class:`~vantage6_largefile.config.store.StoreConfig` and returns a
:class:`~vantage6_largefile.stores.base.Store`.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

from vantage6_largefile.config.store import StoreConfig
from vantage6_largefile.errors import ConfigurationError
from vantage6_largefile.stores.base import ENTRY_POINT_GROUP, Store


def installed_drivers() -> dict[str, EntryPoint]:
    """The drivers that are installed, by name; none of them is imported."""
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}


def open_store(config: StoreConfig) -> Store:
    """Open a store with the driver that its configuration names.

    Opening asks the store nothing: :meth:`Store.check` does.

    Parameters
    ----------
    config : StoreConfig
        Resolved and checked local configuration.

    Raises
    ------
    ConfigurationError
        When no such driver is installed, when what it needs is missing, or when it is no driver.
    """
    drivers = installed_drivers()
    entry = drivers.get(config.driver)
    if entry is None:
        names = ", ".join(sorted(drivers)) or "none"
        raise ConfigurationError([f"driver: {config.driver!r} is not installed; installed are: {names}"])
    try:
        opener = entry.load()
    except ImportError as error:
        raise ConfigurationError(
            [f"driver: {config.driver!r} cannot be loaded, a package that it needs is missing: {error.name or error}"]
        ) from error
    store = opener(config)
    if not isinstance(store, Store):
        raise ConfigurationError([f"driver: {config.driver!r} ({entry.value}) does not offer the calls of a store"])
    return store
