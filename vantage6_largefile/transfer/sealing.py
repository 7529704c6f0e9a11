"""Sealing into a spool file, in a thread of its own, while others already read what is there of it.

The half-sealed file has another name than the spool. A spool file under its own name is complete and on disk; what
a crash leaves of a half-sealed one is of no use, because its data key existed in memory only.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path

from vantage6_largefile.errors import SpoolMismatch
from vantage6_largefile.transfer.control import CancelToken
from vantage6_largefile.transfer.local import (
    closing_descriptor,
    local_disk,
    reserve_space,
    sync_folder,
    write_all,
)
from vantage6_largefile.transfer.record import SpoolState, UploadRecord
from vantage6_largefile.transfer.target import BINARY, Flusher


def half_sealed(spool: Path) -> Path:
    """The name of a spool file while it is being sealed."""
    return spool.with_name(f".{spool.name}.sealing")


def remove_spool(spool: Path) -> None:
    """Remove a spool file, complete or half-sealed. Does nothing when there is none."""
    with local_disk(spool):
        half_sealed(spool).unlink(missing_ok=True)
        spool.unlink(missing_ok=True)


class Sealing:
    """One stored form on its way into a spool file.

    Parameters
    ----------
    stored : iterator of bytes
        The stored form, as a sealer gives it; advanced in a thread of its own.
    spool : Path
        The file that appears when all is sealed and on disk.
    stored_size : int or None
        Bytes to come, when known: their space is taken beforehand.
    part_size : int
        Digests are noted at the multiples of it.
    cancel : CancelToken
        Looked at between two segments.
    on_complete : callable or None
        Called by the sealing thread when the spool is complete and on disk.
    on_failure : callable
        Called by the sealing thread when it failed.
    """

    def __init__(
        self,
        stored: Iterator[bytes],
        spool: Path,
        *,
        stored_size: int | None,
        part_size: int,
        cancel: CancelToken,
        on_complete: Callable[[], None] | None,
        on_failure: Callable[[], None],
    ) -> None:
        self._stored = stored
        self._spool = spool
        self._half = half_sealed(spool)
        self._stored_size = stored_size
        self._part_size = part_size
        self._cancel = cancel
        self._on_complete = on_complete
        self._on_failure = on_failure
        self._digest = hashlib.sha256()
        self._digests: dict[int, str] = {}
        self._changed = threading.Condition()
        self._written = 0
        self._stop = False
        self._ended = False
        self._failure: BaseException | None = None
        self._state: SpoolState | None = None
        self._record: UploadRecord | None = None
        self._record_lock = threading.Lock()
        with local_disk(self._half):
            self._half.unlink(missing_ok=True)
            self._descriptor = os.open(self._half, os.O_WRONLY | os.O_CREAT | os.O_EXCL | BINARY, 0o600)
            self._reader = FileIO(self._half)
        self._thread = threading.Thread(target=self._run, name="v6lf-seal", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    @property
    def complete(self) -> bool:
        """Whether the spool file is there: whole, under its name and on disk."""
        return self._state is not None

    @property
    def size(self) -> int:
        """Bytes of the stored form that were written so far."""
        return self._written

    @property
    def sha256(self) -> str:
        """Hex, of all that was written."""
        return self._digest.hexdigest()

    def keep_record(self, make: Callable[[SpoolState | None], UploadRecord]) -> None:
        """Have a record made, now, and have it told when the spool is complete."""
        with self._record_lock:
            self._record = make(self._state)

    def wait_for(self, end: int) -> int:
        """Wait until `end` bytes were written; how many there are up to there (fewer only at the end of all).

        Raises
        ------
        Exception
            Why sealing failed.
        """
        with self._changed:
            while self._written < end and not self._ended:
                self._changed.wait()
            if self._failure is not None and not self.complete:
                raise self._failure
            return min(end, self._written)

    def digest_at(self, part: int) -> str:
        """Hex sha256 of the stored form from its start to the end of that (1-based) part, which was waited for."""
        return self._digests.get(part, self.sha256)

    def read_into(self, view: memoryview, offset: int) -> None:
        """Read back what was written. For one thread at a time."""
        with local_disk(self._half):
            self._reader.seek(offset)
            while view:
                count = self._reader.readinto(view)
                if not count:
                    raise SpoolMismatch(f"{self._half} became shorter while it was being sealed; it is never sent.")
                view = view[count:]

    def finish(self) -> None:
        """Wait until the spool is complete and on disk.

        Raises
        ------
        Exception
            Why sealing failed, or the exception of `on_complete`.
        """
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """End the thread, wherever it is, and let go of the files; what is not complete is removed."""
        self._stop = True
        if self._thread.ident is not None:
            self._thread.join()
        self._reader.close()
        if not self.complete:
            with local_disk(self._half):
                self._half.unlink(missing_ok=True)

    # --- in the thread ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            with closing_descriptor(self._descriptor):
                self._seal(self._descriptor)
            if self._on_complete is not None:
                self._on_complete()
        except BaseException as error:  # noqa: BLE001 - carried to the thread that waits for the spool
            self._failure = error
            self._on_failure()
        finally:
            self._announce_end()

    def _seal(self, descriptor: int) -> None:
        flusher = Flusher(descriptor)
        try:
            with local_disk(self._half):
                reserve_space(descriptor, self._stored_size or 0)
            for segment in self._stored:
                self._check()
                with local_disk(self._half):
                    write_all(descriptor, segment)
                    flusher.wrote(len(segment))
                self._count(segment)
            # What is left can be sent while the disk still works.
            self._announce_end()
            with local_disk(self._half):
                flusher.finish()
            self._make_durable(descriptor)
        finally:
            flusher.close()

    def _check(self) -> None:
        if self._stop:
            raise SpoolMismatch(f"{self._spool}: sealing was stopped; it is never sent.")
        self._cancel.raise_if_cancelled(self._spool)

    def _count(self, segment: bytes) -> None:
        view = memoryview(segment)
        written = self._written
        while view:
            room = self._part_size - written % self._part_size
            self._digest.update(view[:room])
            written += len(view[:room])
            if written % self._part_size == 0:
                self._digests[written // self._part_size] = self._digest.hexdigest()
            view = view[room:]
        with self._changed:
            self._written = written
            self._changed.notify_all()

    def _announce_end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _make_durable(self, descriptor: int) -> None:
        with local_disk(self._half):
            os.fsync(descriptor)
            state = SpoolState.of(os.fstat(descriptor))
        # The record first: should this process die before the spool has its name, nothing takes it for complete.
        with self._record_lock:
            if self._record is not None:
                self._record.sealed(state)
            with local_disk(self._spool):
                os.replace(self._half, self._spool)
                sync_folder(self._spool.parent)
            self._state = state
