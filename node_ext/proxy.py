"""The proxy's answers to algorithm containers: the stock blob calls, served here instead of at the server.

An unmodified algorithm on the stock ``AlgorithmClient`` (4.13 or later) asks ``blobstream/status``, sends task
inputs by ``POST blobstream``, and reads results by ``GET blobstream/<uuid>``. All three end here: bytes go between
the container and this node's store, the server sees references only.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterator
from http import HTTPStatus
from typing import Protocol

from flask import Response, request
from pydantic import JsonValue

from node_ext.containers import ContainerSession, ContainerSessions
from node_ext.server_api import JsonObject, ServerApi, read_answer
from node_ext.task_inputs import TaskInputs, receive_input
from vantage6_largefile.errors import (
    InvalidReference,
    LargeFileError,
    LocationRefused,
    ObjectNotFound,
    ResultNotAllowed,
    ServerRejected,
    ServerUnavailable,
    StoreFull,
    StoreUnavailable,
)
from vantage6_largefile.reading import ReadableObject, Reader, result_of_record
from vantage6_largefile.reference import is_object_id
from vantage6_largefile.wire import NOT_EXTENDED, RESULT_REFERENCE, BlobConflict

log = logging.getLogger(__name__)

Answer = Response | tuple[JsonObject, int]

#: How much of a request body is handed on at once, in bytes.
CHUNK = 1 << 20


class InlineDecryptor(Protocol):
    """The part of vantage6's cryptor that inline results need."""

    def decrypt(self, data: str) -> bytes:
        """Decrypt (or only decode) one inline value."""


class ContainerProxy:
    """The views that replace those of vantage6's proxy server."""

    def __init__(
        self,
        *,
        api: ServerApi,
        sessions: ContainerSessions,
        reader: Reader,
        inputs: TaskInputs,
        server_id: str,
        decryptor: InlineDecryptor,
    ) -> None:
        self._api = api
        self._sessions = sessions
        self._reader = reader
        self._inputs = inputs
        self._server_id = server_id
        self._decryptor = decryptor

    # --- views --------------------------------------------------------------------------------------------------

    def get_blob(self, id: str) -> Answer:
        """``GET blobstream/status`` and ``GET blobstream/<id>``."""
        session = self._session()
        if session is None:
            return _refuse("This token does not belong to a container of this node.", HTTPStatus.UNAUTHORIZED)
        if id == "status":
            return {"blob_store_enabled": True}, HTTPStatus.OK
        try:
            item = self._find(session, id)
            chunks = self._reader.stream(item)
            # The first piece is fetched before the answer begins, so that what fails early fails with a status.
            first = next(chunks, b"")
        except LargeFileError as error:
            return self._failed(f"blobstream/{id}", error)
        return Response(
            _streamed(first, chunks, id),
            mimetype="application/octet-stream",
            headers={"Content-Disposition": f"attachment; filename=result_{id}.bin"},
        )

    def post_blob(self) -> Answer:
        """``POST blobstream``: a task input of any size, to this node's disk."""
        session = self._session()
        if session is None:
            return _refuse("This token does not belong to a container of this node.", HTTPStatus.UNAUTHORIZED)
        try:
            item = receive_input(session, iter(lambda: request.stream.read(CHUNK), b""))
        except LargeFileError as error:
            return self._failed("POST blobstream", error)
        log.info("Run %d sent a task input of %d bytes (%s).", session.run_id, item.size, item.id)
        return {"uuid": item.id}, HTTPStatus.CREATED

    def post_task(self) -> Answer:
        """``POST task``: inputs become references or inline values, the rest goes to the server as it is."""
        session = self._session()
        body = request.get_json(silent=True)
        if session is None:
            return _refuse("This token does not belong to a container of this node.", HTTPStatus.UNAUTHORIZED)
        organizations = body.get("organizations") if isinstance(body, dict) else None
        problem = _check_organizations(session, organizations)
        if problem is not None or not isinstance(organizations, list):
            return _refuse(problem or "Organizations missing from input", HTTPStatus.BAD_REQUEST)
        assert isinstance(body, dict)  # noqa: S101 - organizations came out of it
        inline_for: frozenset[int] = frozenset()
        stored: dict[str, dict[int, JsonObject]] = {}
        try:
            for _ in range(2):
                placed = self._inputs.place(session, organizations, inline_for=inline_for, stored=stored)
                answer = self._api.send(
                    "POST",
                    "task",
                    json={**body, "organizations": list(placed)},
                    bearer=request.headers["Authorization"],
                )
                stock = _stock_organizations(answer.json()) if answer.status_code == HTTPStatus.CONFLICT else None
                if not stock or stock <= inline_for:
                    break
                # Those nodes are not extended: theirs go inline, the others' stay by reference.
                inline_for = inline_for | stock
        except LargeFileError as error:
            return self._failed("POST task", error)
        if answer.ok:
            self._inputs.forget(session)
        return _forwarded(answer.content, answer.status_code)

    def get_results(self) -> Answer:
        """``GET result?task_id=…&page=…``: inline results decrypted, the others by their id."""
        if "task_id" not in request.args:
            return _refuse("No task id found in request from algorithm...", HTTPStatus.BAD_REQUEST)
        return self._records("result", many=True)

    def get_result(self, id: int) -> Answer:
        """``GET result/<id>``: the same for one run."""
        return self._records(f"result/{id}", many=False)

    # --- parts --------------------------------------------------------------------------------------------------

    def _session(self) -> ContainerSession | None:
        return self._sessions.find(request.headers.get("Authorization"))

    def _records(self, endpoint: str, *, many: bool) -> Answer:
        session = self._session()
        if session is None:
            return _refuse("This token does not belong to a container of this node.", HTTPStatus.UNAUTHORIZED)
        try:
            body = self._api.call(
                "GET", endpoint, params=request.args.to_dict(), bearer=request.headers["Authorization"]
            )
            records = body.get("data") if many else [body]
            for record in records if isinstance(records, list) else []:
                if isinstance(record, dict):
                    self._prepare(session, record)
        except LargeFileError as error:
            return self._failed(endpoint, error)
        return body, HTTPStatus.OK

    def _prepare(self, session: ContainerSession, record: dict[str, JsonValue]) -> None:
        """Make a record what the stock algorithm client expects; one bad record does not take the others down."""
        if record.get(RESULT_REFERENCE) is not None:
            try:
                self._remember(session, dict(record))
            except (InvalidReference, ResultNotAllowed) as error:
                log.error("Run %d asked for the result of run %s: %s", session.run_id, record.get("id"), error)
            # The container needs the id only, and must not learn where the object lies.
            record.pop(RESULT_REFERENCE)
            return
        value = record.get("result")
        if isinstance(value, str) and value and not record.get("blob_storage_used"):
            record["result"] = base64.b64encode(self._decryptor.decrypt(value)).decode("ascii")

    def _remember(self, session: ContainerSession, record: dict[str, object]) -> ReadableObject | None:
        item = result_of_record(record, self._server_id)
        if item is not None:
            with session.lock:
                session.results[item.reference.id] = item
        return item

    def _find(self, session: ContainerSession, identity: str) -> ReadableObject:
        """The object of an id that this container may see, by what the server lets its token see."""
        if not is_object_id(identity):
            raise InvalidReference(f"{identity[:80]!r} is not an object id.")
        with session.lock:
            item = session.results.get(identity)
        if item is not None:
            return item
        authorization = request.headers["Authorization"]
        answer = self._api.send("GET", f"blobstream/{identity}", bearer=authorization)
        if answer.status_code != HTTPStatus.CONFLICT:
            read_answer(answer, f"GET blobstream/{identity}")
            raise ObjectNotFound(f"Object {identity} is not one of this software's.")
        conflict = BlobConflict.model_validate(answer.json())
        if conflict.field != "result":
            raise ObjectNotFound(f"Object {identity} is an input; its container gets it as a file.")
        record = self._api.call("GET", f"result/{conflict.run_id}", bearer=authorization)
        item = self._remember(session, dict(record))
        if item is None or item.reference.id != identity:
            raise ObjectNotFound(f"Object {identity} is not visible to this container.")
        return item

    @staticmethod
    def _failed(what: str, error: LargeFileError) -> Answer:
        log.error("Proxy: %s: %s", what, error)
        return _refuse(str(error), _status_of(error))


def _status_of(error: LargeFileError) -> int:
    if isinstance(error, ServerRejected):
        return error.status
    for kind, status in (
        ((LocationRefused, ResultNotAllowed), HTTPStatus.FORBIDDEN),
        (InvalidReference, HTTPStatus.BAD_REQUEST),
        (ObjectNotFound, HTTPStatus.NOT_FOUND),
        (StoreFull, HTTPStatus.INSUFFICIENT_STORAGE),
        ((StoreUnavailable, ServerUnavailable), HTTPStatus.SERVICE_UNAVAILABLE),
    ):
        if isinstance(error, kind):
            return status
    return HTTPStatus.BAD_GATEWAY


def _refuse(message: str, status: int) -> Answer:
    return {"msg": message}, int(status)


def _forwarded(content: bytes, status: int) -> Response:
    return Response(content, status=status, mimetype="application/json")


def _streamed(first: bytes, rest: Iterator[bytes], identity: str) -> Iterator[bytes]:
    """The body of an answer, chunked. A failure ends it without the terminating chunk: the reader sees it is cut."""
    try:
        if first:
            yield first
        yield from rest
    except LargeFileError as error:
        log.error("Proxy: reading object %s failed; the answer was cut off: %s", identity, error)
        raise


def _check_organizations(session: ContainerSession, organizations: object) -> str | None:
    if not isinstance(organizations, list) or not organizations:
        return "Organizations missing from input"
    for entry in organizations:
        identity = entry.get("id") if isinstance(entry, dict) else None
        if not isinstance(identity, int) or isinstance(identity, bool):
            return "Every entry of organizations needs an integer id."
        if set(entry) - {"id", "input"}:
            return f"Organization {identity}: only 'id' and 'input' are allowed here."
        value = entry.get("input")
        if is_object_id(value) and value not in session.inputs:
            return f"Organization {identity}: input {value} was not issued to this container by this node."
    return None


def _stock_organizations(body: object) -> frozenset[int] | None:
    """The organisations that a 409 of POST task names as not extended."""
    named = body.get(NOT_EXTENDED) if isinstance(body, dict) else None
    if not isinstance(named, list):
        return None
    return frozenset(item for item in named if isinstance(item, int))
