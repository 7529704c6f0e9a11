"""What the server stores: four columns of vantage6's ``run`` table, and tables of our own.

``run.result`` and ``run.input`` stay NULL when the value is in a store: should the server be rolled back to stock
vantage6, a NULL is an honest "no value", where a stored id would decode to garbage.

Our own tables have a MetaData of their own and no foreign keys to vantage6's tables: stock code, which does not know
them, can delete whatever it likes. All of them are queried with SQLAlchemy Core, on the session or connection of
the caller, so that they take part in the caller's transaction.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import datetime, timezone
from typing import Literal

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from vantage6_largefile.reference import Reference

ObjectKind = Literal["result", "input"]

METADATA = sa.MetaData()

#: One row: the id that is part of every object's location. It survives everything but a new database.
SERVER = sa.Table(
    "largefile_server",
    METADATA,
    sa.Column("id", sa.Integer, sa.CheckConstraint("id = 1", name="largefile_server_one_row"), primary_key=True),
    sa.Column("server_id", sa.String(36), nullable=False),
)

#: Nodes that run this software. Not in vantage6's NodeConfig, which is erased whenever a node disconnects.
NODE = sa.Table(
    "largefile_node",
    METADATA,
    sa.Column("node_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("version", sa.String(64), nullable=False),
    sa.Column("registered_at", sa.DateTime, nullable=False),
)

#: Tasks made by our client, whose user can read a result that is in a store.
TASK = sa.Table(
    "largefile_task",
    METADATA,
    sa.Column("task_id", sa.Integer, primary_key=True, autoincrement=False),
)

#: Every object that was ever registered. The primary key is what keeps an id from being used twice, also between a
#: result and an input, and after the run that used it was deleted.
OBJECT = sa.Table(
    "largefile_object",
    METADATA,
    sa.Column("object_id", sa.String(36), primary_key=True),
    sa.Column("kind", sa.String(6), nullable=False),
    sa.Column("organization_id", sa.Integer, nullable=False),
    sa.Column("collaboration_id", sa.Integer, nullable=False),
    sa.Column("job_id", sa.Integer, nullable=False),
    sa.Column("location", sa.Text, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("stored_size", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("registered_at", sa.DateTime, nullable=False),
    sa.Index("ix_largefile_object_organization_id", "organization_id"),
)

#: Indexed columns of ``run`` by which an object's runs are found.
OBJECT_ID_COLUMNS = ("result_object_id", "input_object_id")


def run_columns() -> dict[str, sa.Column]:
    """Fresh column objects to be added to vantage6's ``run`` table.

    Returns
    -------
    dict
        Column by name. The references are JSON, JSONB on PostgreSQL (plain JSON has no equality there, and vantage6
        selects runs with DISTINCT); no reference is an SQL NULL, never a JSON null.
    """

    def reference() -> sa.Column:
        return sa.Column(sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql"))

    return {
        "result_reference": reference(),
        "result_object_id": sa.Column(sa.String(36), index=True),
        "input_reference": reference(),
        "input_object_id": sa.Column(sa.String(36), index=True),
    }


def utc_now() -> datetime:
    """The time now, UTC and naive, as vantage6's DateTime columns hold it."""
    return datetime.now(timezone.utc).replace(tzinfo=None)


# --- the server's id ----------------------------------------------------------------------------------------------


def ensure_server_id(connection: sa.engine.Connection) -> str:
    """The server's id; made on the first call.

    Parameters
    ----------
    connection : Connection
        In a transaction that the caller commits.

    Returns
    -------
    str
        A lower-case uuid.
    """
    found = connection.execute(sa.select(SERVER.c.server_id)).scalar()
    if found is None:
        found = str(uuid.uuid4())
        connection.execute(SERVER.insert().values(id=1, server_id=found))
    return str(found)


# --- nodes --------------------------------------------------------------------------------------------------------


def register_node(session: sa.orm.Session, node_id: int, version: str) -> None:
    """Remember that a node runs this software. Commits."""
    values = {"version": version, "registered_at": utc_now()}
    update = NODE.update().where(NODE.c.node_id == node_id).values(**values)
    if session.execute(update).rowcount == 0:
        try:
            session.execute(NODE.insert().values(node_id=node_id, **values))
        except sa.exc.IntegrityError:
            # the same node registered in another process in between
            session.rollback()
            session.execute(update)
    session.commit()


def forget_node(session: sa.orm.Session | sa.engine.Connection, node_id: int) -> bool:
    """Forget that a node runs this software. Does not commit.

    Returns
    -------
    bool
        Whether it was known.
    """
    known = session.execute(sa.select(NODE.c.node_id).where(NODE.c.node_id == node_id)).scalar() is not None
    if known:
        session.execute(NODE.delete().where(NODE.c.node_id == node_id))
    return known


def extended_nodes(session: sa.orm.Session, node_ids: Iterable[int]) -> frozenset[int]:
    """Which of these nodes run this software."""
    query = sa.select(NODE.c.node_id).where(NODE.c.node_id.in_(list(node_ids)))
    return frozenset(session.execute(query).scalars())


# --- tasks --------------------------------------------------------------------------------------------------------


def mark_task(connection: sa.engine.Connection, task_id: int, *, made_by_client: bool) -> None:
    """Remember of a new task whether our client made it.

    A mark that is there already belongs to a deleted task: SQLite gives the last id out again.
    """
    connection.execute(TASK.delete().where(TASK.c.task_id == task_id))
    if made_by_client:
        connection.execute(TASK.insert().values(task_id=task_id))


def is_client_task(session: sa.orm.Session, task_id: int) -> bool:
    """Whether our client made this task."""
    return session.execute(sa.select(TASK.c.task_id).where(TASK.c.task_id == task_id)).scalar() is not None


# --- objects ------------------------------------------------------------------------------------------------------


def find_object(session: sa.orm.Session | sa.engine.Connection, object_id: str) -> sa.engine.Row | None:
    """The record of an object, or None when the id was never used."""
    return session.execute(sa.select(OBJECT).where(OBJECT.c.object_id == object_id)).first()


def insert_object(
    connection: sa.engine.Connection,
    reference: Reference,
    *,
    kind: ObjectKind,
    organization_id: int,
    collaboration_id: int,
    job_id: int,
) -> None:
    """Record a new object.

    Raises
    ------
    sqlalchemy.exc.IntegrityError
        When the id has been used, by whomever.
    """
    connection.execute(
        OBJECT.insert().values(
            object_id=reference.id,
            kind=kind,
            organization_id=organization_id,
            collaboration_id=collaboration_id,
            job_id=job_id,
            location=reference.location,
            size=reference.size,
            stored_size=reference.stored_size,
            sha256=reference.sha256,
            registered_at=utc_now(),
        )
    )
