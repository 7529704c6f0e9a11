"""Whether a result goes inline, to the store, or nowhere: whoever will read it must be able to.

A subtask's result is read by the containers of its parent task, through the nodes that run it. It may go to the store
only if each of these nodes runs this software, and either is central (it may read the hospitals' stores) or belongs
to the organisation that wrote the result. A top-level task's result is read by a user: our client can read it from a
store, a stock client cannot, which is accepted only where the result would not fit inline anyway.

The threshold is the node's: it does not ask for smaller results.
"""

from __future__ import annotations

from dataclasses import dataclass

from flask import g
from vantage6.server.model import Run

from server_ext import database, nodes
from server_ext.settings import Settings
from vantage6_largefile.wire import PlacementAnswer


@dataclass(frozen=True, slots=True)
class ParentNode:
    """A node that runs the parent task, and so will read the result."""

    name: str
    organization_id: int
    extended: bool


@dataclass(frozen=True, slots=True)
class Situation:
    """What the decision rests on.

    Attributes
    ----------
    organization_id : int
        The organisation that wrote the result.
    may_register : bool
        Whether the server's configuration gives this organisation any location.
    made_by_client : bool
        Whether our client made the (top-level) task.
    is_subtask : bool
        Whether another task is its parent.
    parent_nodes : tuple of ParentNode
        The nodes that run the parent task.
    """

    organization_id: int
    may_register: bool
    made_by_client: bool
    is_subtask: bool
    parent_nodes: tuple[ParentNode, ...] = ()


def why_unreadable(situation: Situation, central_organizations: tuple[int, ...]) -> str | None:
    """Why a reader of a subtask's result could not read it from the store; None when all can."""
    if not situation.is_subtask:
        return None
    if not situation.parent_nodes:
        return "no node runs the parent task, so nobody could read the result from the store"
    for node in situation.parent_nodes:
        if not node.extended:
            return f"node '{node.name}', which runs the parent task, has no large file support"
        if node.organization_id not in central_organizations and node.organization_id != situation.organization_id:
            return (
                f"node '{node.name}', which runs the parent task, may not read the store of organization "
                f"id={situation.organization_id}: it is not central (largefile.central_organizations)"
            )
    return None


def decide(
    situation: Situation, *, size: int, central_organizations: tuple[int, ...], max_inline_result: int
) -> PlacementAnswer:
    """The placement of a result of `size` bytes of plaintext.

    Parameters
    ----------
    situation : Situation
    size : int
        Bytes of plaintext.
    central_organizations : tuple of int
    max_inline_result : int
        Bytes.
    """
    fits_inline = size <= max_inline_result
    if not situation.is_subtask and not situation.made_by_client and fits_inline:
        return PlacementAnswer(placement="inline", reason="the task was not made by a client that reads from stores")

    obstacle = why_unreadable(situation, central_organizations)
    if obstacle is None and not situation.may_register:
        obstacle = (
            f"organization id={situation.organization_id} has no location in the server's configuration "
            "(largefile.locations)"
        )
    if obstacle is None:
        return PlacementAnswer(placement="reference")
    if fits_inline:
        return PlacementAnswer(placement="inline", reason=obstacle[:2000])
    reason = (
        f"The result of {size} bytes is larger than the server takes inline ({max_inline_result} bytes, "
        f"largefile.max_inline_result), and cannot go to the store: {obstacle}."
    )
    return PlacementAnswer(placement="refuse", reason=reason[:2000])


def situation_of(run: Run, settings: Settings) -> Situation:
    """Look up what the decision about a run's result rests on."""
    task = run.task
    is_subtask = task.parent_id is not None
    parent_nodes: tuple[ParentNode, ...] = ()
    if is_subtask and task.parent is not None:
        organization_ids = {parent_run.organization_id for parent_run in task.parent.runs}
        found = nodes.nodes_of(organization_ids, task.collaboration_id)
        extended = database.extended_nodes(g.session, [node.id for node in found])
        parent_nodes = tuple(ParentNode(node.name, node.organization_id, node.id in extended) for node in found)
        if {node.organization_id for node in found} != organization_ids:
            # a node was removed: a result that nobody reads is no reason to send it anywhere
            parent_nodes = ()
    return Situation(
        organization_id=run.organization_id,
        may_register=bool(settings.config.allowed_locations(run.organization_id)),
        made_by_client=database.is_client_task(g.session, task.id),
        is_subtask=is_subtask,
        parent_nodes=parent_nodes,
    )
