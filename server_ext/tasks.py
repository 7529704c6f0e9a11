"""POST of a task whose inputs are in a store, and tasks made by our client.

The stock ``post_task`` does the work. References are taken out of the body before it is called; they are checked
where stock checks the inputs (``_check_input``: every permission has been checked by then, nothing has been
written), and reach the runs when these are constructed (:func:`fill_run`): afterwards would be too late, because
stock commits each run, and nodes may ask for it at once.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from http import HTTPStatus

import sqlalchemy as sa
from flask import g, has_request_context
from flask_socketio import SocketIO
from vantage6.server import model
from vantage6.server.permission import RuleCollection
from vantage6.server.resource import task as stock

from server_ext import calls, database, nodes, settings
from server_ext.calls import Refused
from server_ext.references import check_inline_size, check_place
from server_ext.runs import ReferenceConflict
from server_ext.settings import Settings
from vantage6_largefile.reference import InputContext, Reference
from vantage6_largefile.wire import CLIENT_FLAG, INPUT_REFERENCE, NOT_EXTENDED

log = logging.getLogger(__name__)

#: Kept under names of their own: the module's global ``Tasks`` is replaced by our class.
_stock_post_task = stock.Tasks.post_task
_stock_check_input = stock.Tasks._check_input


@dataclass(slots=True)
class PendingTask:
    """What our part of a POST is about, until its runs are written.

    Attributes
    ----------
    made_by_client : bool
    inputs : dict
        Reference by the id of the organisation that receives it.
    checked : bool
        Whether :meth:`Tasks._check_input` has accepted them.
    init_org_id : int or None
        The initiating organisation, which wrote the objects.
    task_id : int or None
        The task, once it is written.
    """

    made_by_client: bool
    inputs: dict[int, Reference] = field(default_factory=dict)
    checked: bool = False
    init_org_id: int | None = None
    task_id: int | None = None


class Tasks(stock.Tasks):  # type: ignore[misc]
    """``POST task``, whose organisation entries may carry ``input_reference`` instead of ``input``."""

    @staticmethod
    def post_task(data: object, socketio: SocketIO, rules: RuleCollection, config: dict[str, object]) -> object:
        """As stock; also called by stock's endpoint for column names."""
        if settings.find() is None or not isinstance(data, dict):
            return _stock_post_task(data, socketio, rules, config)
        pending: PendingTask | None = None
        try:
            pending = g.largefile_task = _take_references(data)
            return _stock_post_task(data, socketio, rules, config)
        except Refused as refusal:
            return refusal.answer()
        except (ReferenceConflict, sa.exc.IntegrityError) as error:
            if pending is None or not pending.inputs:
                raise
            log.warning("Task id=%s: taken back, an input was used elsewhere meanwhile: %s", pending.task_id, error)
            g.session.rollback()
            _take_back(pending.task_id)
            return Refused(HTTPStatus.CONFLICT, "An input's object id is already used by another task.").answer()
        finally:
            g.largefile_task = None

    @staticmethod
    def _check_input(
        organizations_json_list: list[dict[str, object]], collaboration: model.Collaboration, blob_storage_used: bool
    ) -> tuple[bool, str]:
        """Stock's check for inline inputs, ours for references and sizes."""
        pending: PendingTask | None = g.get("largefile_task")
        found = settings.find()
        if pending is None or found is None:
            return _stock_check(organizations_json_list, collaboration, blob_storage_used)
        inline = [entry for entry in organizations_json_list if entry.get("id") not in pending.inputs]
        for entry in inline:
            value = entry.get("input")
            if not isinstance(value, str):
                return False, f"Organization id={entry.get('id')}: input or {INPUT_REFERENCE} is required, as text."
            check_inline_size(
                value,
                found,
                what=f"The input for organization id={entry.get('id')}",
                setting_advice="Our LargeFileClient stores it in your organization's own container instead.",
            )
        _check_references(pending, collaboration, found)
        pending.checked = True
        if organizations_json_list and not inline:
            return True, ""
        try:
            return _stock_check(inline, collaboration, blob_storage_used)
        except (ValueError, TypeError, AttributeError):
            # stock decodes the text as base64 and lets what goes wrong there become a 500
            return False, "Your task's input cannot be parsed: it should be base64 text."


def _stock_check(entries: list[dict[str, object]], collaboration: model.Collaboration, blob: bool) -> tuple[bool, str]:
    answer: tuple[bool, str] = _stock_check_input(entries, collaboration, blob)
    return answer


def _take_references(data: dict[str, object]) -> PendingTask:
    """Take our keys out of the body of a POST; stock rejects unknown ones at its top level.

    Raises
    ------
    Refused
        400 when a key of ours is malformed. What else may be wrong with the body is left to stock.
    """
    flag = data.pop(CLIENT_FLAG, False)
    if not isinstance(flag, bool):
        raise Refused(HTTPStatus.BAD_REQUEST, f"{CLIENT_FLAG}: expected true or false.")
    pending = PendingTask(made_by_client=flag)
    entries = data.get("organizations")
    for entry in entries if isinstance(entries, list) else []:
        if not isinstance(entry, dict):
            continue
        document = entry.pop(INPUT_REFERENCE, None)
        if document is None:
            continue
        organization_id = entry.get("id")
        if type(organization_id) is not int:
            raise Refused(HTTPStatus.BAD_REQUEST, "organizations: the id of an organization is a whole number.")
        if entry.get("input") is not None:
            raise Refused(
                HTTPStatus.BAD_REQUEST,
                f"Organization id={organization_id}: give either input or {INPUT_REFERENCE}, not both.",
            )
        if organization_id in pending.inputs:
            raise Refused(HTTPStatus.BAD_REQUEST, f"Organization id={organization_id} is given more than once.")
        pending.inputs[organization_id] = calls.read_reference(document)
    return pending


def _check_references(pending: PendingTask, collaboration: model.Collaboration, found: Settings) -> None:
    if not pending.inputs:
        return
    job_id: int | None = None
    if g.user:
        init_org_id = g.user.organization_id
    else:
        init_org_id = g.session.get(model.Node, g.container["node_id"]).organization_id
        job_id = g.session.get(model.Task, g.container["task_id"]).job_id
    pending.init_org_id = init_org_id

    _check_receivers(pending, collaboration)
    context = InputContext(found.server_id, collaboration.id, init_org_id)
    first_of: dict[str, Reference] = {}
    for reference in pending.inputs.values():
        check_place(
            reference,
            context,
            organization_id=init_org_id,
            encrypted=bool(collaboration.encrypted),
            settings=found,
        )
        first = first_of.setdefault(reference.id, reference)
        if _without_key(first) != _without_key(reference):
            raise Refused(
                HTTPStatus.BAD_REQUEST,
                f"Object {reference.id}: its references differ in more than the envelope's key.",
            )
    for reference in first_of.values():
        if not _may_use(reference, database.find_object(g.session, reference.id), init_org_id, job_id):
            raise Refused(HTTPStatus.CONFLICT, f"Object id {reference.id} is already used.")


def _check_receivers(pending: PendingTask, collaboration: model.Collaboration) -> None:
    """Every organisation that is to read its input from a store has a node that can."""
    receivers = nodes.nodes_of(set(pending.inputs), collaboration.id)
    extended = database.extended_nodes(g.session, [node.id for node in receivers])
    able = {node.organization_id for node in receivers if node.id in extended}
    unable = {
        organization.id: f"'{organization.name}' (id={organization.id})"
        for organization in collaboration.organizations
        if organization.id in pending.inputs and organization.id not in able
    }
    if unable:
        raise Refused(
            HTTPStatus.CONFLICT,
            f"The node of organization {', '.join(sorted(unable.values()))} has no large file support and cannot read "
            "an input from a store. Send it a smaller input, or have its node upgraded.",
            **{NOT_EXTENDED: sorted(unable)},
        )


def _may_use(reference: Reference, known: sa.engine.Row | None, init_org_id: int, job_id: int | None) -> bool:
    """An object may be an input again only in the job of the organisation that wrote it; a result never."""
    if known is None:
        return True
    return bool(
        known.kind == "input"
        and known.organization_id == init_org_id
        and job_id is not None
        and known.job_id == job_id
        and (known.location, known.size, known.stored_size, known.sha256)
        == (reference.location, reference.size, reference.stored_size, reference.sha256)
    )


def _without_key(reference: Reference) -> dict[str, object]:
    return reference.model_dump(mode="json", exclude={"envelope": {"key"}})


def _take_back(task_id: int | None) -> None:
    """Delete a task that could not get all its runs; no node was told of it yet."""
    task = g.session.get(model.Task, task_id) if task_id is not None else None
    if task is None:
        return
    for part in (*task.runs, *task.databases):
        g.session.delete(part)
    g.session.flush()
    g.session.delete(task)
    g.session.commit()


# --- SQLAlchemy events --------------------------------------------------------------------------------------------


def _pending() -> PendingTask | None:
    return g.get("largefile_task") if has_request_context() else None


def fill_run(_run: model.Run, _args: tuple[object, ...], kwargs: dict[str, object]) -> None:
    """When a run is constructed: give it the reference of its input."""
    pending = _pending()
    organization = kwargs.get("organization")
    if pending is None or not pending.inputs or organization is None:
        return
    reference = pending.inputs.get(organization.id)  # type: ignore[attr-defined]
    if reference is None:
        return
    if not pending.checked:
        raise RuntimeError("A run with an input reference is being made although the reference was not checked.")
    kwargs["input"] = None
    kwargs["input_object_id"] = reference.id
    kwargs["input_reference"] = reference.model_dump(mode="json")


def register_input(_mapper: object, connection: sa.engine.Connection, run: model.Run) -> None:
    """When a run is about to be inserted: record the object that is its input.

    Raises
    ------
    ReferenceConflict, sqlalchemy.exc.IntegrityError
        When the object id got another use in the meantime.
    """
    pending = _pending()
    if pending is None or run.input_object_id is None or pending.init_org_id is None:
        return
    reference = next(item for item in pending.inputs.values() if item.id == run.input_object_id)
    task = model.Task.__table__
    job_id, collaboration_id = connection.execute(
        sa.select(task.c.job_id, task.c.collaboration_id).where(task.c.id == run.task_id)
    ).one()
    known = database.find_object(connection, reference.id)
    if known is None:
        database.insert_object(
            connection,
            reference,
            kind="input",
            organization_id=pending.init_org_id,
            collaboration_id=collaboration_id,
            job_id=job_id,
        )
    elif not _may_use(reference, known, pending.init_org_id, job_id):
        raise ReferenceConflict(f"Object {reference.id} has another use already.")


def mark_task(_mapper: object, connection: sa.engine.Connection, task: model.Task) -> None:
    """When a task was inserted: remember whether our client made it."""
    if not has_request_context() or settings.find() is None:
        return
    pending = _pending()
    database.mark_task(connection, task.id, made_by_client=bool(pending and pending.made_by_client))
    if pending is not None:
        pending.task_id = task.id


def forget_node(_mapper: object, connection: sa.engine.Connection, node: model.Node) -> None:
    """When a node was made or deleted: what was known under its id was about another one."""
    if has_request_context() and settings.find() is not None:
        database.forget_node(connection, node.id)
