"""Reading a stored form in a store as a seekable file, and the reader's side of an envelope."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from vantage6_largefile.envelope.format import DO_NOT_USE, Buffer, SegmentPlan, object_name, plaintext_size_of
from vantage6_largefile.envelope.open import SegmentOpener, open_stream
from vantage6_largefile.envelope.wrap import unwrap_key
from vantage6_largefile.errors import EnvelopeError
from vantage6_largefile.reference import HEADER_BYTES, SEGMENT_BYTES, Envelope

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

#: Reads `length` bytes at `offset` of the stored form. Errors pass unchanged.
ReadRange = Callable[[int, int], bytes]


class SegmentedReader(io.RawIOBase):
    """The plaintext of an envelope as a seekable, read-only file.

    Opening reads the header and the last segment and verifies them: a cut tail, another object's bytes or a wrong key
    are found before the first byte is given. Every other segment is verified when it is read. A read gives as many
    bytes as were asked for, less only at the end of the file, like a buffered file.

    Parameters
    ----------
    read_range : callable
        ``read_range(offset, length) -> bytes`` over the stored form; must give exactly `length` bytes.
    stored_size : int
        Bytes of the stored form.
    key : bytes
        The data key.
    associated_data : bytes
        From the reader's own context, never from the reference.
    size : int, optional
        Bytes of the plaintext that the reference promises.
    cached_segments : int
        How many opened segments (1 MiB each) are kept, next to the last one, which is always kept.
    fetch_segments : int
        How many segments at most are fetched with one `read_range` when a read goes over several of them.

    Raises
    ------
    EnvelopeError
        When the sizes do not fit, the header or the last segment does not verify, or the store gives too few bytes.

    Notes
    -----
    Position and cache are guarded by a lock, so that threads may share a reader, but they also share its position.
    To open ranges in parallel use :attr:`segments`.
    """

    def __init__(
        self,
        read_range: ReadRange,
        *,
        stored_size: int,
        key: bytes,
        associated_data: bytes,
        size: int | None = None,
        cached_segments: int = 4,
        fetch_segments: int = 8,
    ) -> None:
        super().__init__()
        # first of all: close() needs them, also when opening fails below
        self._cache: OrderedDict[int, bytes] = OrderedDict()
        self._last = b""
        self._name = object_name(associated_data)
        plain = plaintext_size_of(stored_size)
        if size is not None and size != plain:
            raise EnvelopeError(
                f"{self._name}: {stored_size} stored bytes hold {plain} bytes of plaintext, not {size}.",
                advice=DO_NOT_USE,
            )
        self._read_range = read_range
        self._plan = SegmentPlan(plain)
        self._lock = threading.RLock()
        self._position = 0
        self._cached_segments = max(1, cached_segments)
        self._fetch_segments = max(1, fetch_segments)
        last = self._plan.count - 1
        tail = self._fetch(*self._plan.stored_range(last))
        # a small object is one segment: its header has come with it, no second request
        header = tail[:HEADER_BYTES] if last == 0 else self._fetch(0, HEADER_BYTES)
        self.segments = SegmentOpener(bytes(header), key, associated_data, size=plain)
        self._last = self.segments.open_segment(last, tail)

    def __repr__(self) -> str:
        return f"<SegmentedReader for {self._name}, {self._plan.size} bytes>"

    @property
    def plan(self) -> SegmentPlan:
        """Where the segments lie."""
        return self._plan

    def open_segment(self, index: int, ciphertext: Buffer) -> bytes:
        """Verify and decrypt a segment that the caller fetched; see :meth:`SegmentOpener.open_segment`.

        Touches neither position nor cache: safe from any thread.
        """
        return self.segments.open_segment(index, ciphertext)

    # --- io.RawIOBase --------------------------------------------------------------------------------------------

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """The position in the plaintext."""
        self._check_open()
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move in the plaintext; past the end is allowed and reads nothing there."""
        self._check_open()
        with self._lock:
            bases = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._plan.size}
            if whence not in bases:
                raise ValueError(f"whence {whence}")
            position = bases[whence] + offset
            if position < 0:
                raise ValueError(f"negative position {position}")
            self._position = position
            return position

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill `buffer` with plaintext from the position on; fewer bytes only at the end of the file.

        Raises
        ------
        EnvelopeError
            When a segment on the way does not verify; the position then stays where it was.
        """
        self._check_open()
        with self._lock, memoryview(buffer).cast("B") as target:
            start = self._position
            wanted = max(0, min(len(target), self._plan.size - start))
            if wanted:
                self._copy(start, target[:wanted])
            self._position = start + wanted
            return wanted

    def readall(self) -> bytes:
        """Everything from the position to the end; costs its size in memory."""
        self._check_open()
        with self._lock:
            rest = bytearray(max(0, self._plan.size - self._position))
            self.readinto(rest)
            return bytes(rest)

    def close(self) -> None:
        """Forget what was opened. The store is not told: there is nothing open there."""
        self._cache.clear()
        self._last = b""
        super().close()

    # --- segments ------------------------------------------------------------------------------------------------

    def _copy(self, start: int, target: memoryview) -> None:
        end = start + len(target)
        index = self._plan.index_of(start)
        final = self._plan.index_of(end - 1)
        while index <= final:
            for plaintext in self._load(index, final):
                offset = self._plan.plaintext_range(index)[0]
                low, high = max(start, offset), min(end, offset + len(plaintext))
                target[low - start : high - start] = memoryview(plaintext)[low - offset : high - offset]
                index += 1

    def _load(self, index: int, final: int) -> Iterator[bytes]:
        """Segment `index`, and with it the following ones up to `final` that one request can bring."""
        known = self._known(index)
        if known is not None:
            yield known
            return
        count = 1
        while count < self._fetch_segments and index + count <= final and self._known(index + count) is None:
            count += 1
        offset, _ = self._plan.stored_range(index)
        length = sum(self._plan.stored_range(i)[1] for i in range(index, index + count))
        stored = memoryview(self._fetch(offset, length))
        for step in range(count):
            piece = stored[step * SEGMENT_BYTES : (step + 1) * SEGMENT_BYTES]
            plaintext = self.segments.open_segment(index + step, piece)
            self._remember(index + step, plaintext)
            yield plaintext

    def _known(self, index: int) -> bytes | None:
        if index == self._plan.count - 1:
            return self._last
        if index in self._cache:
            self._cache.move_to_end(index)
        return self._cache.get(index)

    def _remember(self, index: int, plaintext: bytes) -> None:
        self._cache[index] = plaintext
        while len(self._cache) > self._cached_segments:
            self._cache.popitem(last=False)

    def _fetch(self, offset: int, length: int) -> bytes:
        data = self._read_range(offset, length)
        if len(data) != length:
            raise EnvelopeError(
                f"{self._name}: the store gave {len(data)} of {length} bytes at {offset}.", advice=DO_NOT_USE
            )
        return data

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file.")


class Opener:
    """The reader's side of one envelope: holds the unwrapped data key. Make it with :func:`opener`."""

    def __init__(self, key: bytes, associated_data: bytes) -> None:
        self._key = key
        self._associated_data = associated_data

    def __repr__(self) -> str:
        return f"<Opener for {object_name(self._associated_data)}>"

    def open_stream(self, chunks: Iterable[Buffer], *, size: int) -> Iterator[bytes]:
        """See :func:`~vantage6_largefile.envelope.open.open_stream`."""
        return open_stream(chunks, self._key, self._associated_data, size=size)

    def reader(
        self,
        read_range: ReadRange,
        *,
        stored_size: int,
        size: int | None = None,
        cached_segments: int = 4,
        fetch_segments: int = 8,
    ) -> SegmentedReader:
        """See :class:`SegmentedReader`."""
        return SegmentedReader(
            read_range,
            stored_size=stored_size,
            key=self._key,
            associated_data=self._associated_data,
            size=size,
            cached_segments=cached_segments,
            fetch_segments=fetch_segments,
        )

    def segments(self, header: bytes, *, size: int) -> SegmentOpener:
        """See :class:`~vantage6_largefile.envelope.open.SegmentOpener`; `header`: first 40 bytes stored."""
        return SegmentOpener(header, self._key, self._associated_data, size=size)


def opener(envelope: Envelope, private_key: RSAPrivateKey, associated_data: bytes) -> Opener:
    """Unwrap the data key of an object, to read it.

    Parameters
    ----------
    envelope : Envelope
        Of the reference: data of another party.
    private_key : RSAPrivateKey
        This organisation's key.
    associated_data : bytes
        ``context.associated_data(object_id)`` of the place where the reader itself looked, never from the reference.

    Raises
    ------
    EnvelopeKeyError
        When the data key is not wrapped for this key, or the JWE is damaged or not of this format.
    """
    return Opener(unwrap_key(envelope.key, private_key), associated_data)
