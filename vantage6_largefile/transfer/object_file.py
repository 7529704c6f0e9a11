"""A stored object as a seekable file, read ahead where it is read in order."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from vantage6_largefile.envelope import Opener
from vantage6_largefile.errors import IntegrityError
from vantage6_largefile.location import Location
from vantage6_largefile.stores.base import Store
from vantage6_largefile.transfer.control import MIB, CancelToken, TransferOptions
from vantage6_largefile.transfer.ranges import RangeReader

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


def open_object(
    store: Store,
    location: Location,
    *,
    stored_size: int,
    etag: str | None,
    options: TransferOptions,
    opener: Opener | None = None,
    size: int | None = None,
    cancel: CancelToken | None = None,
) -> io.BufferedReader:
    """A stored object as a seekable, read-only binary file.

    What is read in order is fetched ahead, up to ``options.concurrency`` blocks of ``part_size``; what is read here and
    there is fetched in blocks of 1 MiB. Memory is at most ``part_size × (concurrency + 2)``. Close it: it has threads.

    Parameters
    ----------
    stored_size : int
        Bytes of the stored form, as the reference says.
    etag : str or None
        As the reference says; every request demands it. Without it nothing keeps a *plain* object from being replaced
        between two reads.
    opener : Opener, optional
        For an encrypted object: the file is its plaintext. The header and the last segment are read and verified at
        once, every other segment when it is read.
    size : int, optional
        With `opener`: bytes of the plaintext that the reference promises.

    Raises
    ------
    IntegrityError
        Now or while reading. A range of a plain object rests on the store's honesty; an encrypted one verifies.
    ObjectChanged, ObjectNotFound, StoreError, TransferStalled, TransferCancelled
        Now or while reading.
    """
    blocks = _Blocks(
        RangeReader(store, location, stored_size=stored_size, etag=etag, options=options, cancel=cancel),
        stored_size,
        options,
    )
    try:
        if opener is None:
            return io.BufferedReader(_ObjectFile(_PlainFile(blocks.read, stored_size), blocks), MIB)
        sealed = opener.reader(blocks.read, stored_size=stored_size, size=size)
        return io.BufferedReader(_ObjectFile(sealed, blocks), MIB)
    except BaseException:
        blocks.close()
        raise


class _Blocks:
    """Ranges of a stored form, from blocks that are fetched once and, where reading goes on in order, ahead.

    For one thread at a time; fetching is done by others.
    """

    def __init__(self, reader: RangeReader, size: int, options: TransferOptions) -> None:
        self._reader = reader
        self._size = size
        self._block = max(MIB, options.burst // MIB * MIB)
        self._ahead = options.concurrency
        self._executor = ThreadPoolExecutor(options.concurrency, thread_name_prefix="v6lf-read")
        self._fetched: OrderedDict[int, Future[bytes]] = OrderedDict()
        self._next = 0
        self._in_order = 0
        self._lock = threading.Lock()

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes at `offset`, all of which must lie in the object."""
        if offset + length > self._size:
            raise IntegrityError(f"{self._reader.location} has no {length} bytes at {offset}.")
        with self._lock:
            self._in_order = self._in_order + length if offset == self._next else 0
            self._next = offset + length
            # Only after as much was read in order as a block holds: who jumps shall not pay for what he skips.
            sequential = self._in_order >= self._block or length > 2 * self._block
            if not sequential and not self._has(offset, length):
                return b"".join(self._reader.fetch(offset, offset + length))
            first, last = offset // self._block, (offset + length - 1) // self._block
            found: list[bytes] = []
            for block in range(first, last + 1):
                self._order(block, block + self._ahead if sequential else block)
                data = self._result(block)
                start = max(0, offset - block * self._block)
                found.append(data[start : offset + length - block * self._block])
            return b"".join(found)

    def close(self) -> None:
        """Let go of threads and blocks."""
        self._reader.close()
        self._executor.shutdown(wait=True, cancel_futures=True)
        self._fetched.clear()

    def _has(self, offset: int, length: int) -> bool:
        blocks = range(offset // self._block, (offset + max(1, length) - 1) // self._block + 1)
        return all(block in self._fetched for block in blocks)

    def _order(self, first: int, last: int) -> None:
        """See that these blocks are there or on their way, and that no others are kept."""
        blocks = range(first, min(last, (self._size - 1) // self._block) + 1)
        for block in [block for block in self._fetched if block not in range(first - 1, blocks.stop)]:
            self._fetched.pop(block).cancel()
        for block in blocks:
            if block not in self._fetched:
                self._fetched[block] = self._executor.submit(self._fetch, block)

    def _result(self, block: int) -> bytes:
        try:
            return self._fetched[block].result()
        except BaseException:
            # The next read shall ask again, not repeat this answer.
            del self._fetched[block]
            raise

    def _fetch(self, block: int) -> bytes:
        start = block * self._block
        pieces = self._reader.fetch(start, min(start + self._block, self._size))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class _PlainFile(io.RawIOBase):
    """The bytes of a plain object."""

    def __init__(self, read_range: Callable[[int, int], bytes], size: int) -> None:
        super().__init__()
        self._read_range = read_range
        self._size = size
        self._position = 0

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        bases = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}
        if whence not in bases:
            raise ValueError(f"whence {whence}")
        position = bases[whence] + offset
        if position < 0:
            raise ValueError(f"negative position {position}")
        self._position = position
        return position

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        with memoryview(buffer).cast("B") as target:
            wanted = max(0, min(len(target), self._size - self._position))
            if wanted:
                target[:wanted] = self._read_range(self._position, wanted)
            self._position += wanted
            return wanted


class _ObjectFile(io.RawIOBase):
    """A raw file that lets go of the blocks below it when it is closed."""

    def __init__(self, raw: io.RawIOBase, blocks: _Blocks) -> None:
        super().__init__()
        self._raw = raw
        self._blocks = blocks

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return self._raw.seek(offset, whence)

    def readall(self) -> bytes:
        # The default asks for a few KiB at a time.
        return b"".join(iter(lambda: self.read(8 * MIB) or b"", b""))

    def readinto(self, buffer: WriteableBuffer, /) -> int | None:
        read: int | None = self._raw.readinto(buffer)
        return read

    def close(self) -> None:
        if not self.closed:
            self._blocks.close()
            self._raw.close()
        super().close()
