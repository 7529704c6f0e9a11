"""What the running server was configured to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from flask import Flask, current_app

from vantage6_largefile.config.server import BLOCK, ServerConfig, load_largefile

#: Key of the stock block, which is refused beside ours.
STOCK_BLOCK = "large_result_store"

_EXTENSION = "vantage6_largefile"


__all__ = ["BLOCK", "Settings", "current", "find", "install", "load_config"]


@dataclass(frozen=True, slots=True)
class Settings:
    """The configuration, and the id that this server's database holds."""

    config: ServerConfig
    server_id: str


def load_config(config: Mapping[str, object], *, source: str) -> ServerConfig | None:
    """Read the block out of a server's configuration.

    Parameters
    ----------
    config : Mapping
        The whole configuration of the vantage6 server.
    source : str
        Names the file in messages.

    Returns
    -------
    ServerConfig or None
        None when there is no block: then the server is a stock server.

    Raises
    ------
    ConfigurationError
        With all mistakes at once.
    """
    if BLOCK not in config:
        return None
    # whether it is a mapping at all is checked there, and reported with the rest
    block = cast("Mapping[str, object]", config[BLOCK])
    return load_largefile(block, stock_large_result_store=config.get(STOCK_BLOCK), source=source)


def install(app: Flask, settings: Settings) -> None:
    """Give the settings to an application."""
    app.extensions[_EXTENSION] = settings


def find() -> Settings | None:
    """The settings of the current application; None when it runs as a stock server."""
    settings: Settings | None = current_app.extensions.get(_EXTENSION)
    return settings


def current() -> Settings:
    """The settings of the current application, which has some."""
    settings = find()
    if settings is None:
        raise RuntimeError("This server runs without a largefile block; the caller should have asked first.")
    return settings
