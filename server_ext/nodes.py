"""Which nodes run this software, and what happens when one no longer does."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import sqlalchemy as sa
from flask import g
from flask_socketio import SocketIO
from vantage6.common.task_status import TaskStatus
from vantage6.server.model import Node, Run, Task

from server_ext import database

log = logging.getLogger(__name__)

_REPLACED = (
    "The input of this run is in a store, which this node cannot read: the node software with large file support was "
    "replaced by stock vantage6. Install it again, or create the task again with a smaller input."
)


def nodes_of(organization_ids: set[int], collaboration_id: int) -> list[Node]:
    """The nodes of these organisations in a collaboration."""
    query = sa.select(Node).where(Node.organization_id.in_(organization_ids), Node.collaboration_id == collaboration_id)
    return list(g.session.execute(query).scalars())


def stock_node_seen(node: Node, socketio: SocketIO) -> None:
    """A node asked for its open runs without our header: it runs stock software now.

    It is forgotten as an extended node, and its open runs with an input in a store are failed with the reason: it
    can neither see nor read them, and their tasks would wait for ever. Commits if there was anything to do.
    """
    forgotten = database.forget_node(g.session, node.id)
    if forgotten:
        log.warning("Node id=%s (%s) came back without large file support.", node.id, node.name)
    runs = (
        g.session.execute(
            sa.select(Run)
            .join(Task, Run.task_id == Task.id)
            .where(
                Run.input_object_id.is_not(None),
                Run.finished_at.is_(None),
                Run.organization_id == node.organization_id,
                Task.collaboration_id == node.collaboration_id,
            )
        )
        .scalars()
        .all()
    )
    for run in runs:
        log.error(
            "Run id=%s: failed, because node id=%s cannot read its input %s.", run.id, node.id, run.input_object_id
        )
    if forgotten or runs:
        fail_runs(runs, _REPLACED, socketio)


def fail_runs(runs: Sequence[Run], reason: str, socketio: SocketIO) -> None:
    """Fail runs whose node cannot do it, and their unstarted siblings as stock does. Commits.

    Parameters
    ----------
    runs : sequence of Run
    reason : str
        Added to the log of each.
    socketio : SocketIO
        Tells the collaboration, as after every change of a run.
    """
    told = []
    for run in runs:
        _fail(run, reason)
        told.append((run.id, run.task.collaboration_id))
        for sibling in _unstarted_siblings(run):
            _fail(sibling, f"Marked as failed because sibling run id={run.id} failed with status '{run.status}'.")
    g.session.commit()
    for run_id, collaboration_id in told:
        socketio.emit("status_update", {"run_id": run_id}, namespace="/tasks", room=f"collaboration_{collaboration_id}")


def _fail(run: Run, reason: str) -> None:
    run.status = TaskStatus.FAILED.value
    run.finished_at = database.utc_now()
    run.log = f"{run.log}\n{reason}" if run.log else reason


def _unstarted_siblings(run: Run) -> list[Run]:
    """The runs that stock fails along with a failed one (server/resource/run.py: patch)."""
    query = sa.select(Run).where(
        Run.task_id == run.task_id, Run.id != run.id, Run.started_at.is_(None), Run.finished_at.is_(None)
    )
    return list(g.session.execute(query).scalars())
