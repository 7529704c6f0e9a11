"""Bringing a server's database to what this software needs, and knowing whether it is there.

Three states at the start of a server:

* an empty database (no ``run`` table) is initialised without further ado;
* a database of stock vantage6, or of an older version of this software, is *behind*: the server refuses to start and
  names the command that upgrades it;
* a database that is up to date.

The check comes before vantage6 connects: vantage6 adds missing columns itself then, raw and without indexes
(backend/common/base.py: ``_add_missing_columns``). Alembic keeps its version in a table of its own, so that it never
meets anybody else's migrations, and every migration looks before it adds. Everything happens in one transaction under
one lock, so that two processes that start at once do not meet half of it.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from server_ext import database
from vantage6_largefile.errors import LargeFileError

log = logging.getLogger(__name__)

VERSION_TABLE = "largefile_alembic_version"

#: Any number will do as long as all our processes use it.
_ADVISORY_LOCK = 0x76366C66
#: Seconds to wait for another process that holds the database.
_LOCK_TIMEOUT = 60
#: As patient with a database that is not up yet as stock (backend/common/globals.py).
_ATTEMPTS = 10
_DELAY = 30


class MigrationError(LargeFileError):
    """The database could not be reached, or not be changed; it is unchanged."""


class DatabaseBehind(LargeFileError):
    """The database is not the one that this version of the software needs."""


@dataclass(frozen=True, slots=True)
class DatabaseStatus:
    """What a database is, seen from this software.

    Attributes
    ----------
    revision : str or None
        The last migration that was applied; None when there was none.
    head : str
        The last migration that this software has.
    empty : bool
        There is no vantage6 server in it yet.
    known : bool
        Whether `revision` is one of this software's (or None).
    missing : tuple of str
        Columns and tables that should be there and are not.
    """

    revision: str | None
    head: str
    empty: bool
    known: bool
    missing: tuple[str, ...]

    @property
    def is_current(self) -> bool:
        """Whether a server can start on it as it is."""
        return not self.empty and self.revision == self.head and not self.missing


def migrations_folder() -> Path:
    """Where the migrations are: beside this module in a wheel, at the root of the repository otherwise."""
    packaged = Path(__file__).parent / "migrations"
    return packaged if packaged.is_dir() else Path(__file__).parent.parent / "migrations"


def current(uri: str) -> str | None:
    """The revision that a database is at; None when no migration of ours was applied.

    Parameters
    ----------
    uri : str
        SQLAlchemy's, as in the server's configuration.
    """
    return check(uri).revision


def check(uri: str) -> DatabaseStatus:
    """Look at a database without changing it.

    Raises
    ------
    MigrationError
        When it cannot be reached.
    """
    engine = sa.create_engine(uri, poolclass=NullPool)
    try:
        with engine.connect() as connection:
            return _status(connection)
    except sa.exc.OperationalError as error:
        raise _unreachable(error) from error
    finally:
        engine.dispose()


def upgrade(uri: str) -> DatabaseStatus:
    """Bring a database to what this software needs. Repeating it changes nothing.

    All or nothing: one transaction. Only adds; a stock server works on the database as before.

    Returns
    -------
    DatabaseStatus
        As it is afterwards.

    Raises
    ------
    DatabaseBehind
        The database was upgraded by a newer version of this software.
    MigrationError
        It could not be done, most often because a running server holds the table.
    """
    with _locked(uri) as connection:
        status = _status(connection)
        if status.empty:
            _initialise(connection)
            return _status(connection)
        if not status.known:
            raise _newer(status)
        config = _alembic(connection)
        if status.revision == status.head and status.missing:
            # somebody took away what the migrations had made; they look before they add
            log.warning("The database lacks %s although it was upgraded; adding it again.", ", ".join(status.missing))
            command.stamp(config, "base")
        command.upgrade(config, "head")
        database.ensure_server_id(connection)
        after = _status(connection)
        if not after.is_current:
            raise MigrationError(f"The database still lacks {', '.join(after.missing)} after the upgrade.")
        return after


def prepare(uri: str) -> None:
    """What a server does before it connects: initialise an empty database, refuse one that is behind.

    Waits for a database that is not up yet, as stock does.

    Raises
    ------
    DatabaseBehind
        The message names the command that upgrades it.
    """
    _wait_for(uri)
    with _locked(uri) as connection:
        status = _status(connection)
        if status.empty:
            _initialise(connection)
            return
        if not status.known:
            raise _newer(status)
        if not status.is_current:
            lacking = f" It lacks: {', '.join(status.missing)}." if status.missing else ""
            raise DatabaseBehind(
                f"The database is behind this version of vantage6-largefile (at {status.revision or 'stock vantage6'}, "
                f"needed {status.head}).{lacking}",
                advice="Make a backup, stop all servers on it, and run: v6-largefile db upgrade -c CONFIG",
            )
        database.ensure_server_id(connection)


# --- inside -------------------------------------------------------------------------------------------------------


def _newer(status: DatabaseStatus) -> DatabaseBehind:
    return DatabaseBehind(
        f"The database was upgraded by a newer version of vantage6-largefile (to {status.revision}; this one knows "
        f"{status.head}).",
        advice="Install that version again.",
    )


def _unreachable(error: sa.exc.OperationalError) -> MigrationError:
    return MigrationError(f"The database cannot be reached: {str(error.orig).strip()}.")


def _status(connection: sa.engine.Connection) -> DatabaseStatus:
    scripts = ScriptDirectory(str(migrations_folder()))
    head = scripts.get_current_head()
    if head is None:
        raise MigrationError(f"There are no migrations in {migrations_folder()}.")
    inspector = sa.inspect(connection)
    tables = set(inspector.get_table_names())
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    revision = context.get_current_revision() if VERSION_TABLE in tables else None
    return DatabaseStatus(
        revision=revision,
        head=head,
        empty="run" not in tables,
        known=revision is None or revision in {script.revision for script in scripts.walk_revisions()},
        missing=_missing(inspector, tables),
    )


def _missing(inspector: sa.engine.reflection.Inspector, tables: set[str]) -> tuple[str, ...]:
    wanted: dict[str, set[str]] = {"run": set(database.run_columns())}
    wanted |= {name: {column.name for column in table.columns} for name, table in database.METADATA.tables.items()}
    missing: list[str] = []
    for name, columns in wanted.items():
        if name not in tables:
            missing.append(name)
            continue
        there = {column["name"] for column in inspector.get_columns(name)}
        missing += [f"{name}.{column}" for column in sorted(columns - there)]
    if "run" in tables:
        indexed = {tuple(index["column_names"]) for index in inspector.get_indexes("run")}
        missing += [f"an index on run.{column}" for column in database.OBJECT_ID_COLUMNS if (column,) not in indexed]
    return tuple(missing)


def _initialise(connection: sa.engine.Connection) -> None:
    """Make vantage6's tables, with our columns, and ours."""
    from vantage6.server.model.base import Base

    from server_ext import seams

    seams.check_version()
    seams.add_columns()
    Base.metadata.create_all(connection)
    database.METADATA.create_all(connection)
    # all tables of vantage6 may have been dropped and ours not: their ids begin again
    connection.execute(database.NODE.delete())
    connection.execute(database.TASK.delete())
    command.stamp(_alembic(connection), "head")
    server_id = database.ensure_server_id(connection)
    log.info("Initialised an empty database; the server's id is %s.", server_id)


def _alembic(connection: sa.engine.Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    config.attributes["connection"] = connection
    config.attributes["version_table"] = VERSION_TABLE
    return config


@contextmanager
def _locked(uri: str) -> Iterator[sa.engine.Connection]:
    """A connection in a transaction that no other process of ours has at the same time."""
    url = make_url(uri)
    sqlite = url.get_backend_name() == "sqlite"
    if sqlite and url.database:
        os.makedirs(os.path.dirname(os.path.abspath(url.database)), exist_ok=True)
    engine = sa.create_engine(uri, poolclass=NullPool, connect_args={"timeout": _LOCK_TIMEOUT} if sqlite else {})
    if sqlite:
        # Python's sqlite3 begins transactions when it sees fit, and not before DDL
        sa.event.listen(engine, "connect", lambda connection, _record: setattr(connection, "isolation_level", None))
        sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    try:
        with engine.begin() as connection:
            if url.get_backend_name() == "postgresql":
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
                connection.execute(sa.text(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}s'"))
            yield connection
    except sa.exc.OperationalError as error:
        raise MigrationError(
            f"The database did not let itself be changed: {str(error.orig).strip()}.",
            advice="It must be reachable, and a running server or another program may hold it: stop that first.",
        ) from error
    finally:
        engine.dispose()


def _wait_for(uri: str) -> None:
    """Wait until the database answers.

    Raises
    ------
    MigrationError
        When it does not in as much time as stock allows.
    """
    if make_url(uri).get_backend_name() == "sqlite":
        return
    engine = sa.create_engine(uri, poolclass=NullPool)
    try:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with engine.connect():
                    return
            except sa.exc.OperationalError as error:
                if attempt == _ATTEMPTS:
                    raise _unreachable(error) from error
                log.error("The database does not answer, trying again in %s s: %s", _DELAY, str(error.orig).strip())
                time.sleep(_DELAY)
    finally:
        engine.dispose()
