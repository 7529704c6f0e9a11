"""Uploading a file: one object, whole or not at all, and resumable by another process."""

from __future__ import annotations

import logging
import os
from io import FileIO
from pathlib import Path

from vantage6_largefile.errors import ObjectExists, SpoolMismatch, UploadSessionLost
from vantage6_largefile.location import Location
from vantage6_largefile.stores.base import Part, Store
from vantage6_largefile.transfer.control import CancelToken, Progress, TransferOptions
from vantage6_largefile.transfer.hashing import RunningDigest
from vantage6_largefile.transfer.local import local_disk
from vantage6_largefile.transfer.record import SpoolState, UploadRecord
from vantage6_largefile.transfer.session import StoredObject, Upload

logger = logging.getLogger(__name__)


def upload_file(
    store: Store,
    path: Path,
    location: Location,
    *,
    media_type: str,
    options: TransferOptions,
    progress: Progress | None = None,
    cancel: CancelToken | None = None,
    session_file: Path | None = None,
    sha256: str | None = None,
) -> StoredObject:
    """Upload a file. It is read once; hashing goes along with sending.

    Parts go out in parallel. A store that is away is tried again with jittered, growing waits until nothing has
    moved for ``options.retry_for`` seconds. The object appears whole, with the last request, and never replaces
    another one. Memory is at most ``part_size × (concurrency + 1)``.

    Parameters
    ----------
    session_file : Path, optional
        Where to keep a record of the upload. When there is one already, of the same file and location, the upload
        goes on: parts that the store has acknowledged are read (for the digest) but not sent again. The record and
        the parts stay when the store is away or refuses, and when the upload is cancelled or killed; the record is
        removed when the upload ends, with success or for good. :func:`discard_upload` gives it up.
    sha256 : str, optional
        Hex; what the file must be. Checked before the commit.

    Raises
    ------
    SpoolMismatch
        The file changed while it was sent, is not the one of the record, or has not the digest `sha256`.
        Nothing was committed.
    ObjectExists
        The name was taken, by another upload than this one.
    StoreError, TransferStalled, TransferCancelled
    """
    with local_disk(path):
        file = FileIO(path)
    with file:
        spool = _Spool(path, file)
        record = _matching_record(session_file, spool, location, sha256)
        may_be_there = False
        for last_attempt in (False, True):
            upload = Upload(store, location, size=spool.state.size, options=options, progress=progress, cancel=cancel)
            try:
                if record is not None:
                    may_be_there = record.committing
                    upload.go_on(record)
                else:
                    upload.begin(media_type)
                    if session_file is not None:
                        upload.keep_record(session_file, spool.state)
                    if may_be_there and upload.record is not None:
                        upload.record.announce_commit()
                return _send(upload, spool, sha256)
            except UploadSessionLost:
                upload.close()
                if record is None or last_attempt:
                    upload.abort()
                    raise
                # Expired or cleaned up while nobody was sending. The bytes are still here, so begin again.
                logger.warning("The store no longer knows the upload of %s; it is sent from the start.", location)
                upload.forget()
                record = None
            except (SpoolMismatch, ObjectExists):
                upload.abort()
                raise
            except BaseException:
                if session_file is None:
                    upload.abort()
                raise
            finally:
                upload.close()
    raise AssertionError("an upload either succeeds or raises")


def discard_upload(store: Store, session_file: Path) -> None:
    """Give up the upload of a record: remove its parts from the store as far as possible, then the record.

    An object that was committed stays. Does nothing when there is no record.

    Raises
    ------
    StoreError
        When the store cannot be reached or refuses; the record stays.
    """
    record = UploadRecord.load(session_file)
    if record is not None:
        store.abort(record.session)
        record.remove()


def _send(upload: Upload, spool: _Spool, expected: str | None) -> StoredObject:
    """Read the file once: hash all of it, send the parts that are not there yet, commit."""
    spool.rewind()
    with RunningDigest() as digest:
        parts, found = _send_parts(upload, spool, digest)
    spool.check_unchanged()
    if expected is not None and found != expected:
        raise SpoolMismatch(f"{spool.path} is not what was announced (sha256 differs); nothing was committed.")
    info = upload.commit(parts, spool.state.size)
    return StoredObject(info.location, spool.state.size, found, info.etag)


def _send_parts(upload: Upload, spool: _Spool, digest: RunningDigest) -> tuple[list[Part], str]:
    part_size = upload.session.part_size
    sender = upload.sender()
    parts: list[Part] = []
    for number, start in enumerate(range(0, spool.state.size, part_size), start=1):
        length = min(part_size, spool.state.size - start)
        buffer = sender.buffer()
        spool.read_into(memoryview(buffer)[:length])
        so_far = digest.add(memoryview(buffer)[:length])
        there = upload.there.get(number)
        if there is None:
            sender.send(number, buffer, length, upload.note, so_far)
            continue
        if upload.record is None or upload.record.digests[number] != so_far.result() or there.size != length:
            raise SpoolMismatch(
                f"{spool.path} differs, before byte {start + length}, from what was sent of it; nothing was committed."
            )
        parts.append(there)
        sender.give_back(buffer)
    parts += sender.finish()
    return sorted(parts, key=lambda part: part.number), digest.hexdigest()


class _Spool:
    """The open file that is uploaded, and the state in which it must stay."""

    def __init__(self, path: Path, file: FileIO) -> None:
        self.path = path
        self._file = file
        with local_disk(path):
            self.state = SpoolState.of(os.fstat(file.fileno()))

    def rewind(self) -> None:
        """Read from the start."""
        with local_disk(self.path):
            self._file.seek(0)

    def read_into(self, view: memoryview) -> None:
        """Fill `view` with what comes next."""
        with local_disk(self.path):
            while view:
                count = self._file.readinto(view)
                if not count:
                    raise self._changed("it became shorter")
                view = view[count:]

    def check_unchanged(self) -> None:
        """Raise :class:`SpoolMismatch` when the file is no longer as it was when it was opened."""
        with local_disk(self.path):
            now = SpoolState.of(os.fstat(self._file.fileno()))
        if now != self.state:
            raise self._changed("it was written to")

    def _changed(self, how: str) -> SpoolMismatch:
        return SpoolMismatch(f"{self.path} changed while it was being sent: {how}. Nothing was committed.")


def _matching_record(
    session_file: Path | None, spool: _Spool, location: Location, sha256: str | None
) -> UploadRecord | None:
    record = UploadRecord.load(session_file) if session_file is not None else None
    if record is None:
        return None
    if record.session.location != str(location):
        raise SpoolMismatch(
            f"Upload record {session_file} is about {record.session.location}, not about {location}.",
            advice="Remove it to send the object from the start.",
        )
    if record.spool is None:
        raise SpoolMismatch(
            f"According to {session_file}, {spool.path} was never sealed to its end; it is never sent.",
            advice="Discard it and seal the source again, under a new key.",
        )
    # A file that was restored from a backup has another time. With a digest to check it by, the content decides.
    same = record.spool == spool.state or (sha256 is not None and record.spool.size == spool.state.size)
    if not same:
        raise SpoolMismatch(
            f"{spool.path} is not the file of which parts were sent according to {session_file}; it is never sent."
        )
    return record
