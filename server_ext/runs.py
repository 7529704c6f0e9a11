"""PATCH of a run with a reference, and which runs a stock node sees.

The stock ``patch`` does all that it always did; what is added happens around it. It reads ``request.get_json()``,
which Flask keeps, so a reference is taken out of that body beforehand. It is set on the run only when SQLAlchemy
writes the run (:func:`store_result`): every ``Run.get`` commits, also ahead of the check of ownership, so a run that
was changed earlier could be stored although the call is refused.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timezone
from http import HTTPStatus

import sqlalchemy as sa
from flask import g, has_request_context, request
from marshmallow import ValidationError, fields
from vantage6.server import model
from vantage6.server.resource import run as stock

from server_ext import calls, database, nodes, placement, settings
from server_ext.calls import Refused
from server_ext.references import check_inline_size, check_place
from server_ext.settings import Settings
from vantage6_largefile.reference import Reference, ResultContext
from vantage6_largefile.wire import EXTENDED_HEADER, RESULT_REFERENCE

log = logging.getLogger(__name__)

_TIME = fields.DateTime()


class ReferenceConflict(Exception):
    """The run got another reference, or the object another use, while this request was under way."""


@dataclass(frozen=True, slots=True)
class PendingResult:
    """A checked reference on its way into the run's row."""

    run_id: int
    reference: Reference
    organization_id: int
    collaboration_id: int
    job_id: int


class Runs(stock.Runs):  # type: ignore[misc]
    """``GET run``: a stock node never sees a run whose input is in a store, one would stop its whole task sync."""

    def get_query_multiple_runs(self) -> object:
        """As stock, filtered for nodes that do not send our header."""
        stock_node = settings.find() is not None and g.node is not None and not calls.is_extended_request()
        if stock_node and request.args.get("state") == "open":
            nodes.stock_node_seen(g.node, self.socketio)
        query = super().get_query_multiple_runs()
        if stock_node and isinstance(query, sa.orm.Query):
            query = query.filter(model.Run.input_object_id.is_(None))
        return query


class Run(stock.Run):  # type: ignore[misc]
    """``PATCH run/<id>``, which also takes ``result_reference`` instead of ``result``."""

    @calls.endpoint("node")
    def patch(self, id: int) -> object:
        """As stock, or record the reference to the result."""
        found = settings.find()
        if found is None:
            return super().patch(id)
        body = calls.json_object()
        _normalise_times(body)
        run = own_run(id)
        document = body.pop(RESULT_REFERENCE, None)
        if document is None:
            if "result" in body:
                self._check_inline_result(run, body["result"], found)
            return super().patch(id)

        if "result" in body:
            raise Refused(HTTPStatus.BAD_REQUEST, f"Give either result or {RESULT_REFERENCE}, not both.")
        if not calls.is_extended_request():
            raise Refused(
                HTTPStatus.BAD_REQUEST,
                f"{RESULT_REFERENCE} is for nodes with large file support, which send the header {EXTENDED_HEADER}.",
            )
        reference = calls.read_reference(document)
        if run.result_object_id is not None:
            if not _is_stored(run, reference):
                raise _other_reference(run)
            # the same again: the node did not get our answer
            return _dump(run) if run.finished_at is not None else super().patch(id)
        if run.finished_at is not None:
            return super().patch(id)  # answers 400
        _check_new(run, reference, found)
        g.largefile_result = PendingResult(
            run.id, reference, run.organization_id, run.task.collaboration_id, run.task.job_id
        )
        try:
            return super().patch(id)
        except (ReferenceConflict, sa.exc.IntegrityError):
            g.session.rollback()
            run = own_run(id)
            if _is_stored(run, reference):
                return _dump(run)
            raise _other_reference(run) if run.result_object_id else _already_used(reference) from None
        finally:
            g.largefile_result = None

    def _check_inline_result(self, run: model.Run, value: object, found: Settings) -> None:
        if run.result_object_id is not None:
            raise _other_reference(run)
        try:
            check_inline_size(
                value,
                found,
                what=f"The result of run id={run.id}",
                setting_advice="A node with large file support stores it in its organization's own container instead.",
            )
        except Refused as refusal:
            # A stock node does not look at the answer: its run would stay active for ever, and its task with it.
            if not calls.is_extended_request() and run.finished_at is None:
                nodes.fail_runs([run], refusal.message, self.socketio)
            raise


def own_run(run_id: int) -> model.Run:
    """The run, which must be one of the calling node: its organisation's, in its collaboration.

    Raises
    ------
    Refused
        404 or 401, worded as stock does. Stock looks at the organisation only, which may have several nodes.
        404 too for the run of a deleted subtask, which stock leaves behind without a task.
    """
    run = g.session.get(model.Run, run_id) if run_id <= calls.MAX_ID else None
    if run is None or run.task is None:
        deleted = " Its task was deleted." if run is not None else ""
        raise Refused(HTTPStatus.NOT_FOUND, f"Run id={run_id} not found!{deleted}")
    if run.organization_id != g.node.organization_id or run.task.collaboration_id != g.node.collaboration_id:
        log.warning("Node id=%s asked to change run id=%s, which is not its own.", g.node.id, run_id)
        raise Refused(HTTPStatus.UNAUTHORIZED, "This is not your algorithm run to PATCH!")
    return run


def store_result(_mapper: object, connection: sa.engine.Connection, run: model.Run) -> None:
    """When a run is about to be written: write the reference of the current request along with it.

    Raises
    ------
    ReferenceConflict
        When the run has got a reference in the meantime.
    sqlalchemy.exc.IntegrityError
        When the object id has been used in the meantime.
    """
    pending: PendingResult | None = g.get("largefile_result") if has_request_context() else None
    if pending is None or pending.run_id != run.id:
        return
    g.largefile_result = None
    table = model.Run.__table__
    # two requests may both have found the run without a reference: only one of them changes this row
    claimed = connection.execute(
        table.update()
        .where(table.c.id == run.id, table.c.result_object_id.is_(None))
        .values(result_object_id=pending.reference.id)
    )
    if claimed.rowcount != 1:
        raise ReferenceConflict(f"Run id={run.id} has got a reference already.")
    database.insert_object(
        connection,
        pending.reference,
        kind="result",
        organization_id=pending.organization_id,
        collaboration_id=pending.collaboration_id,
        job_id=pending.job_id,
    )
    run.result_object_id = pending.reference.id
    run.result_reference = pending.reference.model_dump(mode="json")
    log.info("Run id=%s: result of %s bytes is object %s.", run.id, pending.reference.size, pending.reference.id)


def _check_new(run: model.Run, reference: Reference, found: Settings) -> None:
    task = run.task
    check_place(
        reference,
        ResultContext(found.server_id, task.collaboration_id, run.id),
        organization_id=run.organization_id,
        encrypted=bool(task.collaboration.encrypted),
        settings=found,
    )
    if database.find_object(g.session, reference.id) is not None:
        raise _already_used(reference)
    obstacle = placement.why_unreadable(
        placement.situation_of(run, found), central_organizations=found.config.central_organizations
    )
    if obstacle is not None:
        raise Refused(
            HTTPStatus.CONFLICT, f"The result of run id={run.id} cannot be read from the store any more: {obstacle}."
        )


def _is_stored(run: model.Run, reference: Reference) -> bool:
    return bool(run.result_reference == reference.model_dump(mode="json"))


def _dump(run: model.Run) -> calls.Answer:
    return stock.run_schema.dump(run, many=False), HTTPStatus.OK


def _other_reference(run: model.Run) -> Refused:
    return Refused(
        HTTPStatus.CONFLICT,
        f"Run id={run.id} has a result already: object {run.result_object_id}. A reference is never replaced.",
    )


def _already_used(reference: Reference) -> Refused:
    return Refused(HTTPStatus.CONFLICT, f"Object id {reference.id} is already used.")


def _normalise_times(body: dict[str, object]) -> None:
    """Write times as stock's parser wants them; without microseconds or with a ``Z`` it fails with a 500."""
    for key in ("started_at", "finished_at"):
        value = body.get(key)
        if not isinstance(value, str):
            continue
        try:
            moment = _TIME.deserialize(value)
            if moment.tzinfo is not None:
                moment = moment.astimezone(timezone.utc)
        except (ValidationError, ValueError, OverflowError):
            raise Refused(HTTPStatus.BAD_REQUEST, f"{key}: not a valid date and time.") from None
        body[key] = moment.isoformat(timespec="microseconds")
