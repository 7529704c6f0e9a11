"""Task inputs that containers send: received to disk, then placed inline or in this node's own store.

The stock algorithm client sends the same input once for each organisation. Equal inputs of one container are
recognised by their digest and stored once; each organisation gets a wrapped key of its own.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import logging
import os
import threading
from collections.abc import Iterable

from pydantic import JsonValue

from node_ext.containers import ContainerSession, SpooledInput
from node_ext.delivery import Party, inline_text, log_progress, make_reference, recipient_key
from node_ext.server_api import JsonObject, ServerApi
from vantage6_largefile.config import LargeResultStore
from vantage6_largefile.envelope import new_sealer
from vantage6_largefile.errors import ResultTooLarge, StoreFull
from vantage6_largefile.reference import InputContext, new_object_id, object_location
from vantage6_largefile.stores import Store
from vantage6_largefile.transfer import CancelToken, TransferOptions, upload_file, upload_sealed
from vantage6_largefile.wire import INPUT_REFERENCE

log = logging.getLogger(__name__)

#: What the stock client sends.
MEDIA_TYPE = "application/json"
#: Inputs that one container may have pending, and their bytes together: a brake against a runaway algorithm.
MAX_PENDING_INPUTS = 1000
MAX_PENDING_BYTES = 1 << 40


def receive_input(session: ContainerSession, chunks: Iterable[bytes]) -> SpooledInput:
    """Write an input that a container sends to the spool folder.

    Parameters
    ----------
    session : ContainerSession
    chunks : iterable of bytes
        The body of the request, in constant memory.

    Returns
    -------
    SpooledInput
        Its id is a fresh uuid4 that is only valid for this container.

    Raises
    ------
    ResultTooLarge
        When the container has too much pending.
    StoreFull
        When the node's disk is full.
    """
    with session.lock:
        if len(session.inputs) >= MAX_PENDING_INPUTS:
            raise ResultTooLarge(f"Run {session.run_id} has {MAX_PENDING_INPUTS} task inputs pending; create the task.")
        pending = sum(item.size for item in session.inputs.values())
    session.spool.mkdir(mode=0o700, exist_ok=True)
    identity = new_object_id()
    path = session.spool / identity
    digest = hashlib.sha256()
    size = 0
    try:
        with open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            for chunk in chunks:
                size += len(chunk)
                if pending + size > MAX_PENDING_BYTES:
                    raise ResultTooLarge(f"Run {session.run_id} has more than {MAX_PENDING_BYTES} bytes pending.")
                digest.update(chunk)
                file.write(chunk)
    except BaseException as error:
        path.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise StoreFull(f"The disk of the node is full; the input of run {session.run_id} was dropped.") from error
        raise
    item = SpooledInput(identity, path, size, digest.hexdigest())
    with session.lock:
        session.inputs[identity] = item
    return item


class TaskInputs:
    """Places the inputs of a POST task by a container."""

    def __init__(
        self,
        *,
        config: LargeResultStore,
        store: Store,
        api: ServerApi,
        party: Party,
        options: TransferOptions,
        cancel: CancelToken,
    ) -> None:
        self._config = config
        self._store = store
        self._api = api
        self._party = party
        self._options = options
        self._cancel = cancel
        self._uploads = threading.Lock()

    def place(
        self,
        session: ContainerSession,
        organizations: list[JsonObject],
        *,
        inline_for: frozenset[int],
        stored: dict[str, dict[int, JsonObject]],
    ) -> list[JsonObject]:
        """Replace the ids in the organisation entries of a task by inline values or references.

        Parameters
        ----------
        session : ContainerSession
        organizations : list of dict
            As the container sent them: ``{"id": …, "input": <id or inline value>}``.
        inline_for : frozenset of int
            Organisations whose node is known to be stock: their input goes inline.
        stored : dict
            What an earlier attempt for the same task has stored already, by digest and organisation; added to here.

        Returns
        -------
        list of dict
            As the server takes them.
        """
        by_digest: dict[str, list[tuple[int, SpooledInput]]] = {}
        placed: list[JsonObject] = []
        for entry in organizations:
            organization = entry["id"]
            assert isinstance(organization, int)  # noqa: S101 - checked by the caller
            item = session.inputs.get(str(entry.get("input")))
            if item is None:
                placed.append(self._inline_value(entry, organization))
            elif item.size < self._config.threshold or organization in inline_for:
                placed.append(self._inline_file(entry, organization, item))
            else:
                by_digest.setdefault(item.sha256, []).append((organization, item))
                placed.append({key: value for key, value in entry.items() if key != "input"})
        documents: dict[int, JsonObject] = {}
        for digest, group in by_digest.items():
            if digest not in stored:
                stored[digest] = self._store_once([organization for organization, _ in group], group[0][1])
            documents.update(stored[digest])
        for entry in placed:
            organization = entry["id"]
            if isinstance(organization, int) and organization in documents and "input" not in entry:
                entry[INPUT_REFERENCE] = documents[organization]
        return placed

    def forget(self, session: ContainerSession) -> None:
        """Remove what a created task has used up."""
        with session.lock:
            items, session.inputs = list(session.inputs.values()), {}
        for item in items:
            item.path.unlink(missing_ok=True)

    # --- inline -------------------------------------------------------------------------------------------------

    def _inline_value(self, entry: JsonObject, organization: int) -> JsonObject:
        # Images with older tools send base64 text itself, as stock: encrypt it where the collaboration asks so.
        value = entry.get("input")
        if not self._party.encrypted or not isinstance(value, str):
            return dict(entry)
        return {**entry, "input": self._encrypt(base64.b64decode(value), organization)}

    def _inline_file(self, entry: JsonObject, organization: int, item: SpooledInput) -> JsonObject:
        if item.size > self._config.inline_limit:
            raise ResultTooLarge(
                f"The input for organisation {organization} has {item.size} bytes, but its node is a stock one: "
                f"inline inputs go up to {self._config.inline_limit} bytes (large_result_store.inline_limit).",
                advice="Upgrade that node to the extended image.",
            )
        return {**entry, "input": self._encrypt(item.path.read_bytes(), organization)}

    def _encrypt(self, data: bytes, organization: int) -> JsonValue:
        key = self._api.public_key(organization) if self._party.encrypted else None
        return inline_text(self._party.cryptor, data, key, encrypted=self._party.encrypted)

    # --- by reference -------------------------------------------------------------------------------------------

    def _store_once(self, organizations: list[int], item: SpooledInput) -> dict[int, JsonObject]:
        context = InputContext(self._party.server_id, self._party.collaboration_id, self._party.organization_id)
        object_id = new_object_id()
        location = object_location(self._store.root, context, object_id)
        envelopes: dict[int, dict[str, str]] = {}
        progress = log_progress(f"input for organisations {organizations}")
        # One upload at a time for all containers: parts of one upload run in parallel already.
        with self._uploads:
            if self._party.encrypted:
                with new_sealer(context.associated_data(object_id)) as sealer:
                    for organization in organizations:
                        envelope = sealer.wrapped_for(recipient_key(self._api, self._config, organization))
                        envelopes[organization] = {"format": envelope.format, "key": envelope.key}
                    stored = upload_sealed(
                        self._store,
                        item.path,
                        location,
                        sealer=sealer,
                        media_type=MEDIA_TYPE,
                        options=self._options,
                        size=item.size,
                        progress=progress,
                        cancel=self._cancel,
                    )
            else:
                stored = upload_file(
                    self._store,
                    item.path,
                    location,
                    media_type=MEDIA_TYPE,
                    options=self._options,
                    progress=progress,
                    cancel=self._cancel,
                    sha256=item.sha256,
                )
        reference = make_reference(
            stored,
            object_id=object_id,
            size=item.size,
            media_type=MEDIA_TYPE,
            envelope=envelopes.get(organizations[0]),
        )
        document: JsonObject = reference.model_dump(mode="json")
        log.info("Input for organisations %s stored at %s.", organizations, reference.location)
        return {
            organization: {**document, "envelope": dict(envelopes[organization])} if envelopes else document
            for organization in organizations
        }
