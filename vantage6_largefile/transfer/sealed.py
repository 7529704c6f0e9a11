"""Uploading an encrypted object in one pass: read, seal, hash, spool and send overlap.

Only ciphertext that lies in a complete spool file is ever sent again. Where there is none, because sealing was cut
short or no spool was asked for, the object is begun anew by the caller: another sealer, another object id.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from vantage6_largefile.envelope import Sealer, segment_chunks
from vantage6_largefile.errors import ObjectExists, SpoolMismatch, StoreError, UploadSessionLost
from vantage6_largefile.location import Location
from vantage6_largefile.reference import stored_size_of
from vantage6_largefile.stores.base import Store
from vantage6_largefile.transfer.control import CancelToken, Progress, TransferOptions
from vantage6_largefile.transfer.local import local_disk
from vantage6_largefile.transfer.sealing import Sealing, remove_spool
from vantage6_largefile.transfer.session import StoredObject, Upload, part_size_for
from vantage6_largefile.transfer.upload import discard_upload, upload_file
from vantage6_largefile.transfer.writer import upload_stream

logger = logging.getLogger(__name__)

#: A plaintext: a file, an open binary file or stream (read from its position), or its chunks.
Source = Path | BinaryIO | Iterable[bytes]


def upload_sealed(
    store: Store,
    source: Source,
    location: Location,
    *,
    sealer: Sealer,
    media_type: str,
    options: TransferOptions,
    size: int | None = None,
    spool: Path | None = None,
    session_file: Path | None = None,
    on_sealed: Callable[[], None] | None = None,
    progress: Progress | None = None,
    cancel: CancelToken | None = None,
) -> StoredObject:
    """Seal a plaintext and upload its stored form, in one pass over the source.

    With `spool` the stored form is written to that file, and what was written is sent from there while sealing goes on.
    Sealing never waits for the store: a store that is away, slow or refusing does not keep the spool from becoming
    complete. The spool gets its name when it is whole and on disk, and only then is the object committed. From there on
    the upload is that of a file: whatever happens, :func:`~vantage6_largefile.transfer.upload_file` with the same
    `spool` and `session_file` goes on with it, in this process or another. Before that, nothing can be gone on with:
    :func:`discard_sealed`, and begin again with a new sealer *and a new object id*.

    Without `spool` the stored form is only streamed. A failure, then, means to begin again.

    Memory is at most ``part_size × (concurrency + 1)`` and 3 MiB, whatever the size, also for a stream.

    Parameters
    ----------
    source : Path, binary file or iterable of bytes
        The plaintext. Read once, to its end.
    sealer : Sealer
        A new one. Keep its envelope (:meth:`~vantage6_largefile.envelope.Sealer.wrapped_for`) *before* this call:
        without it a complete spool cannot be opened by anybody.
    size : int, optional
        Bytes of the plaintext. A source that gives another number is an error. When None, parts do not grow with the
        object: it may have ``part_size × limits.max_parts`` bytes.
    spool : Path, optional
        A file that does not exist yet. It stays when the upload ends, however it ends, unless sealing failed.
    session_file : Path, optional
        As for :func:`~vantage6_largefile.transfer.upload_file`; only with `spool`. Must not exist yet.
    on_sealed : callable, optional
        Called once, by another thread, when the spool is complete and on disk: the source is no longer needed. An
        exception from it fails the upload before its commit. Only with `spool`.

    Returns
    -------
    StoredObject
        Its `stored_size` and `sha256` are those of the stored form; the plaintext had ``sealer.size`` bytes.

    Raises
    ------
    IntegrityError
        The source did not give `size` bytes. Nothing was committed, no spool is left.
    SpoolMismatch
        `spool` or `session_file` is there already. Neither was touched and the sealer was not used.
    StoreFull
        No room for the spool, on the local disk, or for the object, in the store.
    ObjectExists, StoreError, TransferStalled, TransferCancelled
        With `spool`: unless cancelled while sealing, the spool is complete when these are raised.
    """
    if spool is None:
        if session_file is not None or on_sealed is not None:
            raise ValueError("without a spool there is nothing to go on with, so no session_file and no on_sealed")
        return upload_stream(
            store,
            sealer.seal(_chunks_of(source), size=size),
            location,
            media_type=media_type,
            options=options,
            progress=progress,
            cancel=cancel,
            size=_stored_size(size),
        )
    _require_new(spool, session_file)
    upload = Upload(store, location, size=_stored_size(size), options=options, progress=progress, cancel=cancel)
    sealing = Sealing(
        sealer.seal(_chunks_of(source), size=size),
        spool,
        stored_size=_stored_size(size),
        part_size=part_size_for(_stored_size(size), store.limits, options),
        cancel=cancel or CancelToken(),
        on_complete=on_sealed,
        on_failure=upload.give_up,
    )
    try:
        sealing.start()
        try:
            return _send(upload, sealing, media_type, session_file)
        except Exception as error:
            # The store's trouble must not cost the sealing. Trouble of the sealing is raised in the place of this one.
            sealing.finish()
            if session_file is None or isinstance(error, ObjectExists):
                upload.abort()
            if not isinstance(error, UploadSessionLost):
                raise
    finally:
        sealing.stop()
        upload.close()
        if not sealing.complete:
            upload.abort()
    logger.warning("The store no longer knows the upload of %s; it is sent again from the spool.", location)
    return upload_file(
        store,
        spool,
        location,
        media_type=media_type,
        options=options,
        progress=progress,
        cancel=cancel,
        session_file=session_file,
    )


def discard_sealed(store: Store, *, spool: Path, session_file: Path | None = None) -> None:
    """Give up a sealed upload: its parts in the store, its record, its spool, complete or not.

    For an upload whose sealing was cut short, before it is begun anew under another key. Parts that the store will not
    remove now, because it is away, stay until it cleans up by itself; that is logged and no error. An object that was
    committed stays. Does nothing when there is nothing.

    Raises
    ------
    StoreAccessDenied, StoreMisconfigured
        About the local files only.
    """
    if session_file is not None:
        try:
            discard_upload(store, session_file)
        except (StoreError, SpoolMismatch) as error:
            logger.warning("Parts of an upload that was given up stay in the store: %s", error)
            with local_disk(session_file):
                session_file.unlink(missing_ok=True)
    remove_spool(spool)


def _send(upload: Upload, sealing: Sealing, media_type: str, session_file: Path | None) -> StoredObject:
    upload.begin(media_type)
    if session_file is not None:
        path = session_file
        sealing.keep_record(lambda state: upload.keep_record(path, state))
    part_size = upload.session.part_size
    sender = upload.sender()
    start = 0
    number = 0
    while (length := sealing.wait_for(start + part_size) - start) > 0:
        number += 1
        buffer = sender.buffer()
        sealing.read_into(memoryview(buffer)[:length], start)
        sender.send(number, buffer, length, upload.note, sealing.digest_at(number))
        start += length
    parts = sender.finish()
    sealing.finish()
    info = upload.commit(parts, sealing.size)
    return StoredObject(info.location, sealing.size, sealing.sha256, info.etag)


def _require_new(spool: Path, session_file: Path | None) -> None:
    for path in (spool, session_file):
        if path is not None:
            with local_disk(path):
                there = path.exists()
            if there:
                raise SpoolMismatch(
                    f"{path} is there already, of an earlier upload; it was not touched.",
                    advice="Go on with that upload (upload_file) when its spool is complete, else discard it.",
                )


def _stored_size(size: int | None) -> int | None:
    return None if size is None else stored_size_of(size, encrypted=True)


def _chunks_of(source: Source) -> Iterator[bytes]:
    if isinstance(source, Path):
        with local_disk(source), source.open("rb", buffering=0) as file:
            # Unbuffered: each chunk is one read into memory of its own.
            yield from segment_chunks(file)
    elif hasattr(source, "read"):
        yield from segment_chunks(source)  # type: ignore[arg-type]
    else:
        yield from source
