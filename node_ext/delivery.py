"""From an output in the outbox to a result that the server has: placement, sealing, upload, PATCH.

Each step is idempotent and leaves its outcome in the job's record before the next one begins, so that a job can
be taken up again at any of them.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from node_ext.job import Job, JobFolder
from node_ext.server_api import JsonObject, ServerApi
from vantage6_largefile.config import LargeResultStore
from vantage6_largefile.envelope import load_public_key, new_sealer, require_fingerprint
from vantage6_largefile.errors import ConfigurationError, ObjectExists, ResultTooLarge, ServerRejected
from vantage6_largefile.location import Location
from vantage6_largefile.reference import (
    Reference,
    ResultContext,
    new_object_id,
    now_timestamp,
    object_location,
    parse_reference,
)
from vantage6_largefile.stores import Store
from vantage6_largefile.transfer import (
    CancelToken,
    Progress,
    StoredObject,
    TransferOptions,
    discard_sealed,
    upload_file,
    upload_sealed,
)
from vantage6_largefile.wire import RESULT_REFERENCE

log = logging.getLogger(__name__)

#: How much of a container's log goes along; stock sends all of it in one JSON body.
MAX_LOG = 1 << 20


class InlineCryptor(Protocol):
    """The part of vantage6's cryptor that inline values need."""

    def encrypt_bytes_to_str(self, data: bytes, pubkey_base64: str) -> str:
        """Encrypt (or only encode) for one reader."""


@dataclass(frozen=True)
class Party:
    """Who this node is, and how it speaks.

    Attributes
    ----------
    server_id : str
    organization_id, collaboration_id : int
    encrypted : bool
        Whether the collaboration is encrypted.
    cryptor : InlineCryptor
        For values that go inline, as stock.
    """

    server_id: str
    organization_id: int
    collaboration_id: int
    encrypted: bool
    cryptor: InlineCryptor


class Delivery:
    """Brings finished results to where they belong."""

    def __init__(
        self,
        *,
        config: LargeResultStore,
        store: Store,
        api: ServerApi,
        party: Party,
        options: TransferOptions,
        cancel: CancelToken,
        share_logs: bool,
    ) -> None:
        self._config = config
        self._store = store
        self._api = api
        self._party = party
        self._options = options
        self._cancel = cancel
        self._share_logs = share_logs

    def deliver(self, job: Job, folder: JobFolder) -> None:
        """Bring one job to the server. On return the server has the result.

        Raises
        ------
        LargeFileError
            What went wrong; the record tells how far it came.
        """
        if job.failure is not None or job.size is None:
            self._patch(job, self._body(job))
            return
        if job.reference is None and job.state == "taken":
            placement = self._placement(job)
            if placement == "inline":
                self._send_inline(job, folder)
                return
        self._store_object(job, folder)
        assert job.reference is not None  # noqa: S101 - _store_object has set it
        self._api.patch_run(job.run_id, {**self._body(job), RESULT_REFERENCE: _json(job.reference)})

    def report_failure(self, job: Job) -> None:
        """Tell the server that the run failed at this node, with the reason in its log."""
        self._patch(job, self._body(job))

    # --- steps ------------------------------------------------------------------------------------------------

    def _placement(self, job: Job) -> str:
        size = job.size or 0
        limit = self._config.max_result_size
        if limit is not None and size > limit:
            raise ResultTooLarge(
                f"The result has {size} bytes; this node refuses results above {limit} bytes "
                "(large_result_store.max_result_size).",
                advice="Ask the hospital's administrator.",
            )
        if size < self._config.threshold:
            return "inline"
        answer = self._api.placement(job.run_id, size=size, media_type=job.media_type)
        if answer.placement == "refuse":
            raise ResultTooLarge(f"The result of {size} bytes was refused: {answer.reason}")
        log.info("Result of %s: %d bytes, placed %s. %s", job, size, answer.placement, answer.reason)
        return answer.placement

    def _send_inline(self, job: Job, folder: JobFolder) -> None:
        key = self._api.public_key(job.initiating_organization_id) or ""
        value = self._party.cryptor.encrypt_bytes_to_str(folder.plain.read_bytes(), key)
        self._patch(job, {**self._body(job), "result": value})

    def _patch(self, job: Job, body: JsonObject) -> None:
        try:
            self._api.patch_run(job.run_id, body)
        except ServerRejected as error:
            # Stock answers 400 to a repeated PATCH: the answer to the first one may have been lost on its way.
            if error.status != 400 or not self._is_recorded(job, body):
                raise

    def _is_recorded(self, job: Job, body: JsonObject) -> bool:
        run = self._api.call("GET", f"run/{job.run_id}")
        return run.get("finished_at") is not None and run.get("status") == body["status"]

    def _store_object(self, job: Job, folder: JobFolder) -> None:
        if job.reference is not None:
            return
        if self._party.encrypted and job.state == "taken" and not self._is_sealed(job, folder):
            stored = self._seal_and_upload(job, folder)
        else:
            if job.object_id is None:
                job.object_id = new_object_id()
                folder.write(job)
            stored = self._upload(job, folder, folder.sealed if self._party.encrypted else folder.plain)
        assert job.object_id is not None  # noqa: S101 - decided above
        reference = make_reference(
            stored, object_id=job.object_id, size=job.size or 0, media_type=job.media_type, envelope=job.envelope
        )
        job.reference = reference.model_dump(mode="json")
        job.state = "uploaded"
        # Durable before it is sent: a lost answer must lead to the very same reference being sent again.
        folder.write(job)
        log.info("Result of %s stored at %s (%d bytes).", job, reference.location, reference.stored_size)

    def _upload(self, job: Job, folder: JobFolder, path: Path) -> StoredObject:
        location = self._location(job)
        try:
            return upload_file(
                self._store,
                path,
                location,
                media_type=job.media_type,
                options=self._options,
                progress=log_progress(str(job)),
                cancel=self._cancel,
                session_file=folder.session,
            )
        except ObjectExists:
            # The name is a random id of ours in our own store: this process's predecessor was killed between the commit
            # and its own note of it. Readers compare the digest, so a wrong guess could not pass for the result.
            log.warning("Result of %s is at %s already; it is not sent again.", job, location)
            with path.open("rb") as file:
                digest = _digest(file)
            return StoredObject(location, path.stat().st_size, digest, None)

    @staticmethod
    def _is_sealed(job: Job, folder: JobFolder) -> bool:
        # The sealed file gets its name when it is whole, a moment before the record says so.
        return job.envelope is not None and folder.sealed.exists()

    def _seal_and_upload(self, job: Job, folder: JobFolder) -> StoredObject:
        """Seal into the outbox and send what was sealed, in one pass over the plaintext."""
        # A seal that was cut off cannot be gone on with: its key is gone. Everything of it is given up, its id too.
        discard_sealed(self._store, spool=folder.sealed, session_file=folder.session)
        job.object_id = new_object_id()
        context = self._context(job)
        with new_sealer(context.associated_data(job.object_id)) as sealer:
            envelope = sealer.wrapped_for(recipient_key(self._api, self._config, job.initiating_organization_id))
            job.envelope = {"format": envelope.format, "key": envelope.key}
            # Before the first byte is sealed: without the envelope nobody could ever open what is on disk.
            folder.write(job)
            return upload_sealed(
                self._store,
                folder.plain,
                self._location(job),
                sealer=sealer,
                media_type=job.media_type,
                options=self._options,
                size=job.size,
                spool=folder.sealed,
                session_file=folder.session,
                on_sealed=lambda: self._sealed(job, folder),
                progress=log_progress(str(job)),
                cancel=self._cancel,
            )

    @staticmethod
    def _sealed(job: Job, folder: JobFolder) -> None:
        job.state = "sealed"
        folder.write(job)
        folder.plain.unlink(missing_ok=True)

    def _context(self, job: Job) -> ResultContext:
        return ResultContext(self._party.server_id, self._party.collaboration_id, job.run_id)

    def _location(self, job: Job) -> Location:
        assert job.object_id is not None  # noqa: S101 - the callers have decided it
        return object_location(self._store.root, self._context(job), job.object_id)

    def _body(self, job: Job) -> JsonObject:
        text = job.log if self._share_logs else "Node does not allow sharing algorithm logs"
        if len(text) > MAX_LOG:
            text = f"[the first {len(text) - MAX_LOG} characters were left out]\n{text[-MAX_LOG:]}"
        if job.failure:
            text = f"{text}\n{job.failure}".strip()
        return {
            "status": "failed" if job.failure else job.status,
            "log": text,
            "finished_at": job.finished_at,
        }


def _json(document: dict[str, object]) -> JsonObject:
    # The record holds what model_dump(mode="json") wrote: JSON by construction.
    return document  # type: ignore[return-value]


def recipient_key(api: ServerApi, config: LargeResultStore, organization_id: int) -> RSAPublicKey:
    """The public key of a reader, as the server gives it and the configuration may pin it.

    Raises
    ------
    ConfigurationError
        When the organisation has no key.
    EnvelopeKeyError
        When the key is not one, or not the pinned one.
    """
    text = api.public_key(organization_id)
    if text is None:
        raise ConfigurationError(
            [f"organisation {organization_id} has no public key at the server, so nothing can be encrypted for it"],
            source="the collaboration",
        )
    key = load_public_key(text)
    pinned = config.recipient_keys.get(organization_id)
    if pinned is not None:
        require_fingerprint(key, pinned, owner=f"organisation {organization_id}")
    return key


def make_reference(
    stored: StoredObject, *, object_id: str, size: int, media_type: str, envelope: dict[str, str] | None
) -> Reference:
    """The reference of an object that was just stored, checked as a reader would check it.

    Parameters
    ----------
    stored : StoredObject
        What the upload gave.
    object_id : str
    size : int
        Bytes of plaintext.
    media_type : str
    envelope : dict or None
        With the data key wrapped for the reader, when the stored form is sealed.
    """
    return parse_reference(
        {
            "version": 1,
            "id": object_id,
            "location": str(stored.location),
            "size": size,
            "stored_size": stored.stored_size,
            "sha256": stored.sha256,
            "etag": stored.etag,
            "media_type": media_type,
            "envelope": envelope,
            "created_at": now_timestamp(),
        }
    )


def _digest(file: BinaryIO) -> str:
    """SHA-256 of a file, in constant memory."""
    digest = hashlib.sha256()
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


def inline_text(cryptor: InlineCryptor, data: bytes, public_key: str | None, *, encrypted: bool) -> str:
    """The stock inline form of a value: base64, or vantage6's own encrypted text."""
    if encrypted:
        return cryptor.encrypt_bytes_to_str(data, public_key or "")
    return base64.b64encode(data).decode("ascii")


def log_progress(what: str, *, every: float = 10.0, clock: Callable[[], float] | None = None) -> Progress:
    """A progress callback that writes a log line at most every `every` seconds."""
    now = clock or time.monotonic
    lock = threading.Lock()
    last = now()

    def report(done: int, total: int | None, rate: float) -> None:
        nonlocal last
        with lock:
            if now() - last < every:
                return
            last = now()
        share = f"{done / total:.0%} of {total / 2**20:.0f} MiB" if total else f"{done / 2**20:.0f} MiB"
        log.info("%s: %s, %.1f MiB/s", what, share, rate / 2**20)

    return report
