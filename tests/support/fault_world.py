"""A container in Azurite behind a fault proxy, with what the tests of faults do to it."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.support.fault_proxy import FaultProxy, Rule, fault_proxy
from vantage6_largefile.config.store import ConnectionStringCredential, Credential, SasCredential, StoreConfig
from vantage6_largefile.demo.azurite import AzuriteServer
from vantage6_largefile.location import Location
from vantage6_largefile.stores import Store, azure_client, open_store
from vantage6_largefile.transfer import StoredObject, TransferOptions, download_file, retry, upload_file

MIB = 1 << 20
PART = MIB // 2
#: Patient enough for every fault that ends; small parts, so that there are several.
OPTIONS = TransferOptions(part_size=PART, concurrency=3, retry_for=30)


@dataclass
class World:
    """One container, a proxy in front of it, stores on both ways, a file to send."""

    server: AzuriteServer
    container: str
    proxy: FaultProxy
    folder: Path
    direct: Store

    def through(self, permissions: str | None = None) -> Store:
        """The store behind the proxy, with a SAS of these permissions or the account's key."""
        return store_of(self.server, self.container, port=self.proxy.port, permissions=permissions)

    def file(self, size: int) -> Path:
        """A file of random bytes."""
        path = self.folder / "spool"
        path.write_bytes(os.urandom(size))
        return path

    def faults(self, *rules: Rule) -> None:
        """Forget what was seen, and make these faults from now on."""
        self.proxy.forget()
        self.proxy.rules = list(rules)

    @property
    def location(self) -> Location:
        return self.direct.root.child("object")

    def upload(self, store: Store, path: Path, *, options: TransferOptions = OPTIONS, **more: object) -> StoredObject:
        return upload_file(
            store,
            path,
            self.location,
            media_type="application/octet-stream",
            options=options,
            **more,  # type: ignore[arg-type]
        )

    def download(self, store: Store, stored: StoredObject, target: Path, *, options: TransferOptions = OPTIONS) -> None:
        download_file(
            store,
            stored.location,
            target,
            stored_size=stored.stored_size,
            sha256=stored.sha256,
            etag=stored.etag,
            options=options,
        )

    def objects(self) -> list[str]:
        """The names of all objects in the container."""
        return [str(info.location) for info in self.direct.list(self.direct.root)]

    def assert_whole(self, path: Path) -> None:
        """The container holds one object, and it is the file."""
        assert self.objects() == [str(self.location)]
        assert sha256(b"".join(self.direct.read(self.location))).digest() == sha256(path.read_bytes()).digest()


def store_of(
    server: AzuriteServer, container: str, *, port: int | None = None, permissions: str | None = None
) -> Store:
    credential: Credential = ConnectionStringCredential(connection_string=SecretStr(server.connection_string))
    if permissions is not None:
        credential = SasCredential(sas=SecretStr(server.sas(container, permissions)))
    url = f"http://127.0.0.1:{port or server.port}/{server.account}"
    root = Location.parse(f"azure://{server.account}/{container}")
    return open_store(StoreConfig("azure", root, {"account_url": url}, credential))


@contextmanager
def world_of(server: AzuriteServer, folder: Path) -> Iterator[World]:
    """A container of its own, and the proxy."""
    container = f"c{uuid.uuid4().hex}"
    server.create_container(container)
    with fault_proxy(server.port) as proxy:
        yield World(server, container, proxy, folder, store_of(server, container))


@pytest.fixture
def world(azurite_server: AzuriteServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """With short waits of our own, and a second without a byte as the sign of a dead line."""
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.02)
    monkeypatch.setattr(retry, "LONGEST_WAIT", 0.2)
    monkeypatch.setattr(azure_client, "READ_TIMEOUT", 1)
    with world_of(azurite_server, tmp_path) as world:
        yield world
