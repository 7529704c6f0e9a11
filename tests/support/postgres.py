"""A PostgreSQL server of one's own, as an ordinary user on a free port. No pytest in here."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg2

#: Environment variable that names the folder with ``initdb`` and ``postgres``.
BIN_ENVIRONMENT = "V6LF_PG_BIN"


def find_binaries() -> Path | None:
    """The folder with ``initdb`` and ``postgres``: from the environment, Debian's place (newest first), or PATH."""
    named = os.environ.get(BIN_ENVIRONMENT)
    if named:
        return Path(named)
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_version, reverse=True)
    on_path = shutil.which("initdb")
    candidates = [*debian, *([Path(on_path).parent] if on_path else [])]
    return next(
        (folder for folder in candidates if all((folder / name).exists() for name in ("initdb", "postgres"))), None
    )


def _version(folder: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in folder.parent.name.split(".") if part.isdigit())


@dataclass(frozen=True)
class PostgresServer:
    """A running server whose superuser ``v6lf`` needs no password from this machine."""

    port: int

    def create_database(self, template: str = "template1") -> str:
        """Make a database, empty or a copy of `template`, and return its SQLAlchemy URI."""
        name = f"v6lf_{uuid.uuid4().hex[:12]}"
        connection = psycopg2.connect(host="127.0.0.1", port=self.port, user="v6lf", dbname="postgres")
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        finally:
            connection.close()
        return f"postgresql://v6lf@127.0.0.1:{self.port}/{name}"


@contextlib.contextmanager
def postgres(binaries: Path) -> Iterator[PostgresServer]:
    """Run a server for as long as the context lasts.

    PostgreSQL refuses to run as root: as root it is run as ``postgres`` or ``nobody``. Its data are in a folder of the
    system's temporary folder, because that user cannot look into ours, and are removed at the end.
    """
    identity = _ordinary_user()
    folder = Path(tempfile.mkdtemp(prefix="v6lf-postgres-"))
    if identity:
        os.chown(folder, identity["user"], identity["group"])
    data = folder / "data"
    process: subprocess.Popen[bytes] | None = None
    try:
        subprocess.run(
            [binaries / "initdb", "-D", data, "-U", "v6lf", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"],
            check=True,
            capture_output=True,
            cwd=folder,
            **identity,
        )
        port = _free_port()
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [
                    binaries / "postgres",
                    *("-D", data, "-p", str(port), "-h", "127.0.0.1"),
                    *("-c", "unix_socket_directories=", "-c", "fsync=off"),
                ],
                stdout=log,
                stderr=log,
                cwd=folder,
                **identity,
            )
        _wait(process, port, folder / "log")
        yield PostgresServer(port)
    finally:
        if process is not None and process.poll() is None:
            # "fast shutdown": roll back and go
            process.send_signal(signal.SIGINT)
            process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def _ordinary_user() -> dict[str, int]:
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return {"user": entry.pw_uid, "group": entry.pw_gid}
    raise RuntimeError("PostgreSQL does not run as root, and there is neither a user postgres nor nobody.")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait(process: subprocess.Popen[bytes], port: int, log: Path, timeout: float = 60) -> None:
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"PostgreSQL ended with {process.returncode}:\n{log.read_text()}")
        try:
            psycopg2.connect(host="127.0.0.1", port=port, user="v6lf", dbname="postgres", connect_timeout=5).close()
        except psycopg2.OperationalError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"PostgreSQL did not answer in {timeout} s:\n{log.read_text()}")
