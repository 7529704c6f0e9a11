"""Who sees where an object is, and who only sees that there is one.

vantage6's own rules decide which runs a caller sees at all. Of those runs, this page decides whose reference is shown
whole (location, digest, envelope) and whose is cut down to id and size:

=========  ========================================================================================================
caller     sees the whole reference of
=========  ========================================================================================================
user       runs of tasks that the user's organisation initiated, and the runs of that organisation
node       within its collaboration: runs of its organisation, of tasks that its organisation initiated, and every
           run if its organisation is central; only when the request carries our header
container  what its node sees, but only of runs of the container's own job; only through a node with our header
=========  ========================================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa
from flask import g
from marshmallow import missing
from vantage6.common.client.utils import is_uuid
from vantage6.server.model import Run, Task

from server_ext import calls, settings
from server_ext.database import ObjectKind
from vantage6_largefile.reference import Reference

#: What a record that carries a reference says of its run, beside it.
ContextKey = Literal["organization_id", "init_org_id", "collaboration_id"]


@dataclass(frozen=True, slots=True)
class Reader:
    """Who asks.

    Attributes
    ----------
    kind : str
        ``user``, ``node`` or ``container``.
    organization_id : int
        The organisation of the user, of the node, or of the container's node.
    collaboration_id : int or None
        None for a user, who may be in several.
    job_id : int or None
        Of the container's task; None for others.
    extended : bool
        Whether the request carries our header.
    """

    kind: Literal["user", "node", "container"]
    organization_id: int
    collaboration_id: int | None = None
    job_id: int | None = None
    extended: bool = False


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What the rules look at in a run and its task."""

    organization_id: int
    init_org_id: int
    collaboration_id: int
    job_id: int


def may_see_access(reader: Reader, run: RunFacts, central_organizations: tuple[int, ...]) -> bool:
    """Whether `reader` is shown location and envelope of the objects of `run`."""
    concerned = reader.organization_id in (run.organization_id, run.init_org_id)
    if reader.kind == "user":
        return concerned
    if not reader.extended or reader.collaboration_id != run.collaboration_id:
        return False
    if reader.kind == "container" and (reader.job_id is None or reader.job_id != run.job_id):
        return False
    return concerned or reader.organization_id in central_organizations


def current_reader() -> Reader:
    """Who makes the current request. Found out once for each request."""
    reader: Reader | None = g.get("largefile_reader")
    if reader is None:
        extended = calls.is_extended_request()
        if g.user:
            reader = Reader("user", g.user.organization_id)
        elif g.node:
            reader = Reader("node", g.node.organization_id, g.node.collaboration_id, extended=extended)
        else:
            token = g.container
            job_id = g.session.execute(sa.select(Task.job_id).where(Task.id == token["task_id"])).scalar()
            reader = Reader("container", token["organization_id"], token["collaboration_id"], job_id, extended)
        g.largefile_reader = reader
    return reader


def facts_of(run: Run) -> RunFacts:
    """The facts of a run."""
    task = run.task
    return RunFacts(run.organization_id, task.init_org_id, task.collaboration_id, task.job_id)


# --- what the schemas of runs and results call --------------------------------------------------------------------


def shown_reference(run: Run, kind: ObjectKind) -> dict[str, object] | None:
    """The reference of a run's result or input as the current caller may see it; None when there is none."""
    document: dict[str, Any] | None = getattr(run, f"{kind}_reference")
    if document is None:
        return None
    found = settings.find()
    central = found.config.central_organizations if found else ()
    if may_see_access(current_reader(), facts_of(run), central):
        return document
    # a stored reference was checked when it came in
    return Reference.model_construct(**document).without_access()


def shown_value(run: Run, kind: ObjectKind) -> str | None:
    """The inline value, or the id of the object."""
    object_id: str | None = getattr(run, f"{kind}_object_id")
    value: str | None = getattr(run, kind)
    return object_id or value


def shown_blob_storage_used(run: Run, kind: ObjectKind) -> bool:
    """vantage6's flag, for one field: whether its value is an id under which the bytes must be fetched.

    The stock column is about input and result together, and says nothing of a run of which only one is in a store.
    """
    if getattr(run, f"{kind}_object_id"):
        return True
    return bool(run.blob_storage_used) and is_uuid(getattr(run, kind))


def shown_context(run: Run, kind: ObjectKind, name: ContextKey) -> object:
    """What a reader needs to check a reference against; left out of records that carry none."""
    if getattr(run, f"{kind}_object_id") is None:
        return missing
    return getattr(facts_of(run), name)
