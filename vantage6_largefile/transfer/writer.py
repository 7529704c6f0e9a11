"""Uploading a stream whose size nobody knows before its end."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType

from vantage6_largefile.location import Location
from vantage6_largefile.stores.base import Store
from vantage6_largefile.transfer.control import CancelToken, Progress, TransferOptions
from vantage6_largefile.transfer.hashing import RunningDigest
from vantage6_largefile.transfer.session import StoredObject, Upload


def upload_stream(
    store: Store,
    chunks: Iterable[bytes],
    location: Location,
    *,
    media_type: str,
    options: TransferOptions,
    progress: Progress | None = None,
    cancel: CancelToken | None = None,
    size: int | None = None,
) -> StoredObject:
    """Upload what an iterable yields, of whatever size the pieces are.

    Memory is at most ``part_size × (concurrency + 1)`` beside the pieces themselves. Any failure, also one of the
    iterable, aborts the upload.

    Parameters
    ----------
    size : int, optional
        The size of the whole, when known: for progress, and for parts that fit the store. Without it an object
        may have ``part_size × limits.max_parts`` bytes.

    Raises
    ------
    ObjectExists, StoreError, TransferStalled, TransferCancelled
    """
    with ObjectWriter(
        store, location, media_type=media_type, options=options, progress=progress, cancel=cancel, size=size
    ) as writer:
        for chunk in chunks:
            writer.write(chunk)
        return writer.commit()


class ObjectWriter:
    """A writer whose :meth:`commit` makes the object appear; leaving its ``with`` block without it aborts.

    Parameters are those of :func:`upload_stream`. For one thread at a time.
    """

    def __init__(
        self,
        store: Store,
        location: Location,
        *,
        media_type: str,
        options: TransferOptions,
        progress: Progress | None = None,
        cancel: CancelToken | None = None,
        size: int | None = None,
    ) -> None:
        self._upload = Upload(store, location, size=size, options=options, progress=progress, cancel=cancel)
        self._upload.begin(media_type)
        self._sender = self._upload.sender()
        self._digest = RunningDigest()
        self._announced = size
        self._size = 0
        self._part = 1
        self._buffer: bytearray | None = None
        self._filled = 0
        self._open = True

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Take `data`, all of it; waits while as many parts are on their way as the options allow.

        Raises
        ------
        StoreError, TransferStalled, TransferCancelled
            Also of parts that were written before.
        """
        self._check_open()
        view = memoryview(data).cast("B")
        taken = len(view)
        if self._announced is not None and self._size + taken > self._announced:
            raise ValueError(f"{self._announced} bytes were announced, more were written")
        self._size += taken
        while view:
            if self._buffer is None:
                self._buffer = self._sender.buffer()
                self._filled = 0
            room = min(len(self._buffer) - self._filled, len(view))
            self._buffer[self._filled : self._filled + room] = view[:room]
            self._filled += room
            view = view[room:]
            if self._filled == len(self._buffer):
                self._send(self._buffer)
        return taken

    def _send(self, buffer: bytearray) -> None:
        digest = self._digest.add(memoryview(buffer)[: self._filled])
        self._sender.send(self._part, buffer, self._filled, digest=digest)
        self._part += 1
        self._buffer = None

    def commit(self) -> StoredObject:
        """Send what is left and make the object appear. On failure the upload is aborted.

        Raises
        ------
        ValueError
            When `size` was given and is not what was written.
        ObjectExists, StoreError, TransferStalled, TransferCancelled
        """
        self._check_open()
        try:
            if self._announced is not None and self._announced != self._size:
                raise ValueError(f"{self._announced} bytes were announced, {self._size} were written")
            if self._buffer is not None:
                self._send(self._buffer)
            info = self._upload.commit(self._sender.finish(), self._size)
        except BaseException:
            self.abort()
            raise
        self._open = False
        self._upload.close()
        found = self._digest.hexdigest()
        self._digest.close()
        return StoredObject(info.location, self._size, found, info.etag)

    def abort(self) -> None:
        """Give the upload up. Does nothing after :meth:`commit` or a second time."""
        if self._open:
            self._open = False
            self._digest.close()
            self._upload.abort()

    def _check_open(self) -> None:
        if not self._open:
            raise ValueError("the writer is closed")

    def __enter__(self) -> ObjectWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()
