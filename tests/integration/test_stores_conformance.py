"""The drivers that this package brings, against the suite that it ships for drivers."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from vantage6_largefile.config.store import ConnectionStringCredential, StoreConfig
from vantage6_largefile.demo.azurite import AzuriteServer
from vantage6_largefile.location import Location
from vantage6_largefile.stores import Store, open_store
from vantage6_largefile.stores.conformance import StoreConformance


class TestFileStore(StoreConformance):
    def open_store(self, request: pytest.FixtureRequest) -> Store:
        folder: Path = request.getfixturevalue("tmp_path")
        return open_store(StoreConfig("file", Location.parse("file://hospital-a"), {"path": str(folder)}, None))


class TestFileStoreWithPrefix(StoreConformance):
    def open_store(self, request: pytest.FixtureRequest) -> Store:
        folder: Path = request.getfixturevalue("tmp_path")
        root = Location.parse("file://share/hospital-a/v6")
        return open_store(StoreConfig("file", root, {"path": str(folder)}, None))


@pytest.mark.azurite
class TestAzureStore(StoreConformance):
    prefix = ""

    def open_store(self, request: pytest.FixtureRequest) -> Store:
        server: AzuriteServer = request.getfixturevalue("azurite_server")
        server.create_container("conformance")
        credential = ConnectionStringCredential(connection_string=SecretStr(server.connection_string))
        root = Location.parse(f"azure://{server.account}/conformance{self.prefix}")
        return open_store(StoreConfig("azure", root, {"account_url": server.account_url}, credential))


class TestAzureStoreWithPrefix(TestAzureStore):
    prefix = "/hospital-a/v6"
