"""Reading an object, as node, proxy and client do it alike: allowed, verified, decrypted, streamed.

A location is only ever read when it lies in the reader's own store, or in the ``readable`` entry of the very
organisation that wrote the object, as the *server* names it for that run. What the reference itself says is
checked against that, never believed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from vantage6_largefile.config import LargeResultStore, StoreConfig
from vantage6_largefile.envelope import opener
from vantage6_largefile.errors import InvalidReference, ResultNotAllowed
from vantage6_largefile.reference import (
    InputContext,
    ObjectContext,
    Reference,
    ResultContext,
    check_layout,
    parse_reference,
)
from vantage6_largefile.stores import Store, open_store
from vantage6_largefile.transfer import CancelToken, Progress, TransferOptions, iter_object, iter_opened
from vantage6_largefile.wire import INPUT_REFERENCE, RESULT_REFERENCE

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReadableObject:
    """An object that may be read: a checked reference, the place it belongs to, and who wrote it."""

    reference: Reference
    context: ObjectContext
    writer_organization_id: int


def result_of_record(record: Mapping[str, object], server_id: str) -> ReadableObject | None:
    """The by-reference result in a record of ``GET result``, or None when the record has an inline value.

    Raises
    ------
    ResultNotAllowed
        When the server does not let this caller see where the object lies.
    InvalidReference
        When the record carries something that is no reference, or one of another place.
    """
    document = record.get(RESULT_REFERENCE)
    if document is None:
        return None
    _require_location(record, document)
    reference = parse_reference(document)
    context = ResultContext(server_id, _int(record, "collaboration_id"), _int(record, "id"))
    check_layout(reference, context)
    return ReadableObject(reference, context, _int(record, "organization_id"))


def input_of_record(record: Mapping[str, object], server_id: str) -> ReadableObject | None:
    """The by-reference input in a record of ``GET run``, or None when the record has an inline value.

    Raises
    ------
    ResultNotAllowed, InvalidReference
        As :func:`result_of_record`.
    """
    document = record.get(INPUT_REFERENCE)
    if document is None:
        return None
    _require_location(record, document)
    reference = parse_reference(document)
    initiator = _int(record, "init_org_id")
    context = InputContext(server_id, _int(record, "collaboration_id"), initiator)
    check_layout(reference, context)
    return ReadableObject(reference, context, initiator)


def _require_location(record: Mapping[str, object], document: object) -> None:
    if isinstance(document, Mapping) and "location" not in document and "id" in document:
        raise ResultNotAllowed(
            f"Run {record.get('id')}: object {document['id']} ({document.get('size')} bytes) lies in the store of "
            f"organisation {record.get('organization_id')}, and the server does not give its location to you.",
            advice="A hospital's own result is read by the central node; ask for the aggregated result.",
        )


def _int(record: Mapping[str, object], key: str) -> int:
    value = record.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidReference(f"The server's record of run {record.get('id')} carries a reference but no {key}.")
    return value


class Reader:
    """Opens objects with the reader's own credentials.

    Parameters
    ----------
    config : LargeResultStore
    own : Store
        The reader's own store, already open.
    organization_id : int
        The reader's organisation.
    encrypted : bool
        Whether the collaboration is encrypted: decides what stored form is expected, never the reference.
    private_key : RSAPrivateKey or None
    options : TransferOptions
    cancel : CancelToken
    """

    def __init__(
        self,
        *,
        config: LargeResultStore,
        own: Store,
        organization_id: int,
        encrypted: bool,
        private_key: RSAPrivateKey | None,
        options: TransferOptions,
        cancel: CancelToken,
    ) -> None:
        self._config = config
        self._own = own
        self._organization_id = organization_id
        self._encrypted = encrypted
        self._private_key = private_key
        self._options = options
        self._cancel = cancel
        self._lock = threading.Lock()
        self._stores: dict[tuple[str, str], Store] = {}

    def may_read(self, item: ReadableObject) -> StoreConfig:
        """The store that the object lies in.

        Raises
        ------
        LocationRefused
            When the location is neither own nor the writer's ``readable`` entry.
        InvalidReference
            When the stored form is not the one that this collaboration has.
        """
        if (item.reference.envelope is not None) != self._encrypted:
            have, want = ("an encrypted", "plain") if not self._encrypted else ("a plain", "encrypted")
            raise InvalidReference(
                f"Reference {item.reference.id}: {have} object, but this collaboration's objects are {want}."
            )
        return self._config.store_for_reading(
            item.reference.parsed_location,
            organization_id=item.writer_organization_id,
            own_organization_id=self._organization_id,
        )

    def stream(self, item: ReadableObject, *, progress: Progress | None = None) -> Iterator[bytes]:
        """The plaintext of an object, verified; the last block is only handed out when all is verified.

        Parameters
        ----------
        item : ReadableObject
        progress : Progress, optional
            Told how many bytes have come.

        Returns
        -------
        iterator of bytes
            In constant memory.

        Raises
        ------
        LocationRefused, InvalidReference
            Before anything is read.
        StoreError, IntegrityError
            While reading.
        """
        store = self._store(self.may_read(item))
        reference = item.reference
        if reference.envelope is None:
            return iter_object(
                store,
                reference.parsed_location,
                stored_size=reference.stored_size,
                sha256=reference.sha256,
                etag=reference.etag,
                options=self._options,
                progress=progress,
                cancel=self._cancel,
            )
        if self._private_key is None:
            raise InvalidReference(f"Reference {reference.id}: encrypted, but this reader has no private key.")
        # The envelope authenticates every byte itself; a digest on top would only cost time.
        return iter_opened(
            store,
            reference.parsed_location,
            opener=opener(reference.envelope, self._private_key, item.context.associated_data(reference.id)),
            size=reference.size,
            etag=reference.etag,
            options=self._options,
            progress=progress,
            cancel=self._cancel,
        )

    def _store(self, config: StoreConfig) -> Store:
        if config.root == self._own.root:
            return self._own
        # One connection pool for each store and identity; entries of one store may carry credentials of their own.
        key = (str(config.root), repr(id(config.credential)))
        with self._lock:
            store = self._stores.get(key)
            if store is None:
                store = self._stores[key] = open_store(config)
        return store
