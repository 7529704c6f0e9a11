"""A file that appears under its name whole, on disk and approved, or not at all."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from vantage6_largefile.transfer.control import MIB
from vantage6_largefile.transfer.local import (
    WRITE_BYTES,
    closing_descriptor,
    flush_data,
    local_disk,
    reserve_space,
    sync_folder,
    write_all,
)

#: Bytes after which what was written is pushed to disk, so that little is left to wait for at the end.
FLUSH_EVERY = 64 * MIB
BINARY = getattr(os, "O_BINARY", 0)


class Flusher:
    """Pushes a growing file to disk in the background, a stretch at a time. For one thread at a time."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._pending = 0
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="v6lf-flush")
        self._running: Future[None] | None = None

    def wrote(self, size: int) -> None:
        """Notice `size` more bytes.

        Raises
        ------
        OSError
            Of a flush that failed. It must not get lost: the next one of the same file may well succeed, without the
            bytes that this one could not write.
        """
        self._pending += size
        if self._pending < FLUSH_EVERY or (self._running is not None and not self._running.done()):
            return
        self.finish()
        self._pending = 0
        self._running = self._executor.submit(flush_data, self._descriptor)

    def finish(self) -> None:
        """Wait for what is under way. Raises like :meth:`wrote`."""
        if self._running is not None:
            self._running.result()

    def close(self) -> None:
        """Let go of the thread, and of the descriptor, which may be closed afterwards."""
        self._executor.shutdown(wait=True)


class TargetFile:
    """The file under its temporary name. Made by :func:`target_file`; threads may write at the same time."""

    def __init__(self, path: Path, descriptor: int, flusher: Flusher) -> None:
        self._path = path
        self._descriptor = descriptor
        self._flusher = flusher
        self._lock = threading.Lock()

    def write_at(self, offset: int, pieces: list[bytes]) -> int:
        """Write `pieces` one behind the other from `offset` on; how many bytes they are."""
        at = offset
        with local_disk(self._path):
            for piece in pieces:
                self._write(memoryview(piece), at)
                at += len(piece)
            with self._lock:
                self._flusher.wrote(at - offset)
        return at - offset

    def _write(self, view: memoryview, offset: int) -> None:
        if not hasattr(os, "pwrite"):
            with self._lock:
                os.lseek(self._descriptor, offset, os.SEEK_SET)
                write_all(self._descriptor, view)
            return
        while view:
            written = os.pwrite(self._descriptor, view[:WRITE_BYTES], offset)
            view = view[written:]
            offset += written


@contextmanager
def target_file(path: Path, size: int) -> Iterator[TargetFile]:
    """A hidden temporary file beside `path`, which takes its name when the ``with`` block ends well.

    Its space is taken beforehand. It replaces what was there, and is removed on any failure.

    Raises
    ------
    StoreFull
        When the local disk has no room for `size` bytes.
    StoreAccessDenied, StoreMisconfigured
    """
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}.part")
    try:
        with local_disk(path):
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | BINARY, 0o600)
        with closing_descriptor(descriptor):
            with local_disk(path):
                reserve_space(descriptor, size)
            flusher = Flusher(descriptor)
            try:
                yield TargetFile(path, descriptor, flusher)
                with local_disk(path):
                    flusher.finish()
                    os.fsync(descriptor)
            finally:
                flusher.close()
        with local_disk(path):
            os.replace(temporary, path)
            sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
