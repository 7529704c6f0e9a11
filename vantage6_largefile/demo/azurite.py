"""Azurite, Microsoft's emulator of Azure Storage, as a process of its own: for the demo and for the tests.

It enforces what we rely on: SAS permissions and expiry, account keys, conditions of requests. It listens on loopback
only, without TLS, with the emulator's well-known account.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path

from azure.storage.blob import BlobServiceClient, ContainerSasPermissions, generate_container_sas

ACCOUNT = "devstoreaccount1"
#: Published by Microsoft for the emulator; it opens nothing else.
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
#: Names the program `azurite-blob`, when it is not in the repository's cache or on PATH.
PROGRAM_VARIABLE = "V6LF_AZURITE"
_START_TIMEOUT = 60.0
_STOP_TIMEOUT = 10.0


class AzuriteMissing(Exception):
    """The program is not installed, or does not start."""


def find_azurite() -> Path:
    """The program `azurite-blob`: from ``V6LF_AZURITE``, from the repository's cache, or from PATH.

    Raises
    ------
    AzuriteMissing
    """
    named = os.environ.get(PROGRAM_VARIABLE)
    if named:
        if os.access(named, os.X_OK):
            return Path(named)
        raise AzuriteMissing(f"{PROGRAM_VARIABLE} names {named}, which is no program.")
    cached = Path(__file__).parents[2] / ".cache" / "azurite" / "node_modules" / ".bin" / "azurite-blob"
    if os.access(cached, os.X_OK):
        return cached
    on_path = shutil.which("azurite-blob")
    if on_path is None:
        raise AzuriteMissing(
            f"azurite-blob was not found: 'npm install --prefix .cache/azurite azurite', or set {PROGRAM_VARIABLE}."
        )
    return Path(on_path)


class AzuriteServer:
    """A running Azurite. Made by :func:`azurite`.

    Attributes
    ----------
    account : str
    account_key : str
    port : int
    """

    def __init__(self, folder: Path, port: int | None = None) -> None:
        self.account = ACCOUNT
        self.account_key = ACCOUNT_KEY
        self.port = port or free_port()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def account_url(self) -> str:
        """The endpoint of the emulator's account."""
        return f"http://127.0.0.1:{self.port}/{self.account}"

    @property
    def connection_string(self) -> str:
        """With the account key: it may do everything."""
        return (
            f"DefaultEndpointsProtocol=http;AccountName={self.account};AccountKey={self.account_key};"
            f"BlobEndpoint={self.account_url};"
        )

    @property
    def pid(self) -> int | None:
        """Process id; None while stopped."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start, or start again with the same data on the same port; returns when it answers.

        Raises
        ------
        AzuriteMissing
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        command = [str(find_azurite()), "--skipApiVersionCheck", "--silent", "--disableTelemetry"]
        command += ["--location", str(self._folder), "--blobHost", "127.0.0.1", "--blobPort", str(self.port)]
        with (self._folder / "azurite.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + _START_TIMEOUT
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise AzuriteMissing(f"Azurite ended with status {self._process.returncode}; see {log.name}.")
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.05)
        self.kill()
        raise AzuriteMissing(f"Azurite did not answer within {_START_TIMEOUT:.0f} s.")

    def stop(self) -> None:
        """Ask it to end, and make it end. Its data stay."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def client(self) -> BlobServiceClient:
        """A client with the account key. The caller closes it."""
        return BlobServiceClient(self.account_url, credential=self.account_key)

    def create_container(self, name: str) -> None:
        """Make a container; that it is there already is no error."""
        with self.client() as client:
            container = client.get_container_client(name)
            if not container.exists():
                container.create_container()

    def sas(self, container: str, permissions: str, *, lifetime: timedelta = timedelta(hours=12)) -> str:
        """A SAS of one container.

        Parameters
        ----------
        permissions : str
            Letters: r(ead), a(dd), c(reate), w(rite), d(elete), l(ist).
        lifetime : timedelta
            From now; a negative one has expired already.
        """
        now = datetime.now(timezone.utc)
        return generate_container_sas(
            self.account,
            container,
            account_key=self.account_key,
            permission=ContainerSasPermissions.from_string(permissions),
            start=now - timedelta(days=2),
            expiry=now + lifetime,
        )


def free_port() -> int:
    """A TCP port on loopback that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def azurite(folder: Path) -> Iterator[AzuriteServer]:
    """A running Azurite with its data below `folder`; stopped at the end, the data stay.

    Raises
    ------
    AzuriteMissing
    """
    server = AzuriteServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()
