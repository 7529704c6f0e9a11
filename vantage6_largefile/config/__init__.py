"""Configuration: the blocks ``large_result_store`` (node, client) and ``largefile`` (server), checked and resolved."""

from __future__ import annotations

from vantage6_largefile.config.node import load_large_result_store
from vantage6_largefile.config.result_store import LargeResultStore, Readable, Shared
from vantage6_largefile.config.server import LegacyStore, ServerConfig, load_largefile
from vantage6_largefile.config.store import (
    AccessKeyCredential,
    ClientSecretCredential,
    ConnectionStringCredential,
    Credential,
    DefaultCredential,
    NetworkConfig,
    SasCredential,
    StoreConfig,
    TransferConfig,
)
from vantage6_largefile.config.values import LocationPattern

__all__ = [
    "AccessKeyCredential",
    "ClientSecretCredential",
    "ConnectionStringCredential",
    "Credential",
    "DefaultCredential",
    "LargeResultStore",
    "LegacyStore",
    "LocationPattern",
    "NetworkConfig",
    "Readable",
    "SasCredential",
    "ServerConfig",
    "Shared",
    "StoreConfig",
    "TransferConfig",
    "load_large_result_store",
    "load_largefile",
]
