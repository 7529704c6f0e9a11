"""Databases: empty, of a stock server, upgraded, damaged, newer; and two servers that start at once."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import sqlalchemy as sa

from server_ext import database, migrate
from tests.support import quiet_server, server_world, v6server  # noqa: F401  (quiet_server must be imported)

ORGANIZATIONS = ["first", "second"]


class Databases:
    """Makes databases of one kind; the stock one is made once and copied."""

    def __init__(self, kind: str, folder: Path, stack: ExitStack) -> None:
        self.kind = kind
        self.server = server_world.start_postgres(stack) if kind == "postgres" else None
        self.stock = self.empty(folder)
        config = v6server.write_server_config(folder, v6server.free_port(), self.stock)
        keys = {name: f"00000000-0000-4000-8000-00000000000{number}" for number, name in enumerate(ORGANIZATIONS)}
        entities = v6server.fixture(
            ORGANIZATIONS, {"all": [v6server.Member(name, keys[name]) for name in ORGANIZATIONS]}
        )
        entities["collaborations"][0]["tasks"] = ["hello-world"]  # type: ignore[index]
        v6server.import_fixture(config, entities, upgrade=False)

    def empty(self, folder: Path) -> str:
        """The URI of an empty database."""
        return self.server.create_database() if self.server else f"sqlite:///{folder}/vantage6.sqlite"

    def copy_of_stock(self, folder: Path) -> str:
        """The URI of a database that stock vantage6 made and filled, with two runs in it."""
        if self.server:
            return self.server.create_database(template=self.stock.rpartition("/")[2])
        shutil.copy(self.stock.removeprefix("sqlite:///"), folder / "vantage6.sqlite")
        return f"sqlite:///{folder}/vantage6.sqlite"


@pytest.fixture(scope="module", params=server_world.DATABASES)
def databases(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Databases]:
    """SQLite and PostgreSQL."""
    with ExitStack() as stack:
        yield Databases(request.param, tmp_path_factory.mktemp("stock"), stack)


@pytest.fixture
def uri(databases: Databases, tmp_path: Path) -> str:
    """A fresh, empty database."""
    return databases.empty(tmp_path)


@pytest.fixture
def stock_uri(databases: Databases, tmp_path: Path) -> str:
    """A database that stock vantage6 made and filled, with two runs in it."""
    return databases.copy_of_stock(tmp_path)


def execute(uri: str, statement: str) -> list[tuple[object, ...]]:
    """Run one statement in a transaction of its own."""
    engine = sa.create_engine(uri)
    try:
        with engine.begin() as connection:
            result = connection.execute(sa.text(statement))
            return [tuple(row) for row in result] if result.returns_rows else []
    finally:
        engine.dispose()


def shape(uri: str) -> dict[str, object]:
    """The columns and indexes of every table that we have a part in."""
    engine = sa.create_engine(uri)
    inspector = sa.inspect(engine)
    try:
        return {
            name: (
                {column["name"]: (str(column["type"]), column["nullable"]) for column in inspector.get_columns(name)},
                {(index["name"], tuple(index["column_names"])) for index in inspector.get_indexes(name)},
                tuple(inspector.get_pk_constraint(name)["constrained_columns"]),
            )
            for name in ("run", *database.METADATA.tables)
        }
    finally:
        engine.dispose()


def server_id(uri: str) -> object:
    """The id in the database; there is exactly one."""
    ((found,),) = execute(uri, "SELECT server_id FROM largefile_server")
    return found


def test_empty_database_is_initialised(uri: str) -> None:
    assert migrate.check(uri).empty
    assert migrate.current(uri) is None

    migrate.prepare(uri)

    status = migrate.check(uri)
    assert status.is_current
    assert migrate.current(uri) == status.head
    assert server_id(uri)


def test_upgrade_of_an_empty_database_initialises_it(uri: str) -> None:
    assert migrate.upgrade(uri).is_current


def test_stock_database_is_behind_and_named_so(stock_uri: str) -> None:
    before = shape_of_run(stock_uri)

    with pytest.raises(migrate.DatabaseBehind) as refusal:
        migrate.prepare(stock_uri)

    assert "v6-largefile db upgrade -c CONFIG" in str(refusal.value)
    assert "stock vantage6" in str(refusal.value)
    assert shape_of_run(stock_uri) == before
    assert migrate.check(stock_uri).revision is None


def shape_of_run(uri: str) -> set[str]:
    """Names of the columns of ``run``."""
    engine = sa.create_engine(uri)
    try:
        return {column["name"] for column in sa.inspect(engine).get_columns("run")}
    finally:
        engine.dispose()


def test_upgrade_of_a_stock_database_keeps_its_rows(stock_uri: str) -> None:
    before = execute(stock_uri, "SELECT id, input, result, status FROM run ORDER BY id")

    status = migrate.upgrade(stock_uri)

    assert status.is_current
    assert len(before) == 2
    assert execute(stock_uri, "SELECT id, input, result, status FROM run ORDER BY id") == before
    assert execute(stock_uri, "SELECT count(*) FROM run WHERE result_reference IS NULL") == [(2,)]
    migrate.prepare(stock_uri)


def test_upgrade_twice_changes_nothing(stock_uri: str) -> None:
    migrate.upgrade(stock_uri)
    first, identity = shape(stock_uri), server_id(stock_uri)

    status = migrate.upgrade(stock_uri)

    assert status.is_current
    assert shape(stock_uri) == first
    assert server_id(stock_uri) == identity


def test_upgraded_and_initialised_databases_have_the_same_shape(
    stock_uri: str, databases: Databases, tmp_path: Path
) -> None:
    (tmp_path / "fresh").mkdir()
    fresh = databases.empty(tmp_path / "fresh")
    migrate.prepare(fresh)

    migrate.upgrade(stock_uri)

    assert shape(stock_uri) == shape(fresh)


def test_columns_that_vantage6_added_itself_do_not_hinder(stock_uri: str) -> None:
    program = (
        "import sys; import vantage6.server; from server_ext import seams; seams.add_columns();"
        "from vantage6.server.model.base import Database; Database().connect(sys.argv[1])"
    )
    subprocess.run([sys.executable, "-c", program, stock_uri], check=True, capture_output=True, timeout=60)
    assert "result_reference" in shape_of_run(stock_uri)
    with pytest.raises(migrate.DatabaseBehind, match=r"an index on run\.result_object_id"):
        migrate.prepare(stock_uri)

    assert migrate.upgrade(stock_uri).is_current


def test_upgrade_mends_what_was_taken_away(uri: str) -> None:
    migrate.prepare(uri)
    execute(uri, "DROP TABLE largefile_object")
    with pytest.raises(migrate.DatabaseBehind, match="largefile_object"):
        migrate.prepare(uri)

    assert migrate.upgrade(uri).is_current


def test_database_of_a_newer_version_is_refused(uri: str) -> None:
    migrate.prepare(uri)
    execute(uri, f"UPDATE {migrate.VERSION_TABLE} SET version_num = '9999'")

    for call in (migrate.prepare, migrate.upgrade):
        with pytest.raises(migrate.DatabaseBehind, match="newer version"):
            call(uri)


def test_servers_that_start_at_once_initialise_one_database(uri: str) -> None:
    program = "import sys; from server_ext import migrate; migrate.prepare(sys.argv[1])"
    processes = [
        subprocess.Popen([sys.executable, "-c", program, uri], stderr=subprocess.PIPE, text=True) for _ in range(3)
    ]

    outcomes = [(process.communicate(timeout=120)[1], process.returncode) for process in processes]

    assert [code for _, code in outcomes] == [0, 0, 0], outcomes
    assert migrate.check(uri).is_current
    assert server_id(uri)


def test_dropped_tables_are_made_anew_without_what_was_known_of_their_ids(uri: str) -> None:
    migrate.prepare(uri)
    identity = server_id(uri)
    execute(uri, "INSERT INTO largefile_node VALUES (1, '1.0', '2026-01-01 00:00:00')")
    execute(uri, "INSERT INTO largefile_task VALUES (1)")
    engine = sa.create_engine(uri)
    from vantage6.server.model.base import Base

    Base.metadata.drop_all(engine)
    engine.dispose()

    migrate.prepare(uri)

    assert migrate.check(uri).is_current
    assert execute(uri, "SELECT * FROM largefile_node") == []
    assert execute(uri, "SELECT * FROM largefile_task") == []
    assert server_id(uri) == identity


def test_table_that_somebody_holds_is_reported_and_nothing_changed(
    stock_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "_LOCK_TIMEOUT", 1)
    engine = sa.create_engine(stock_uri)
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.connection.isolation_level = None
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.execute(sa.text("SELECT count(*) FROM run"))

        with pytest.raises(migrate.MigrationError, match="stop that first"):
            migrate.upgrade(stock_uri)
    engine.dispose()

    assert migrate.check(stock_uri).revision is None
    assert "result_reference" not in shape_of_run(stock_uri)
    assert migrate.upgrade(stock_uri).is_current


def test_stock_server_works_on_an_upgraded_database(stock_uri: str, tmp_path: Path) -> None:
    migrate.upgrade(stock_uri)
    config = v6server.write_server_config(tmp_path, v6server.free_port(), stock_uri)

    with v6server.start_server(config, stock=True) as server:
        user = server.user("first")
        runs = user.get("run").json()["data"]
        made = user.post(
            "task",
            json={
                "image": "x",
                "collaboration_id": 1,
                "organizations": [{"id": 1, "input": server_world.INLINE_INPUT}],
                "databases": [],
            },
        )
        ours = user.get("largefile/capabilities")

    assert len(runs) == 2
    assert "input_reference" not in runs[0]
    assert made.status_code == 201
    assert ours.status_code == 404
    assert migrate.check(stock_uri).is_current
