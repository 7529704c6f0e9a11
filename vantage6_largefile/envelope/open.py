"""Opening: the segments of a stored form, and the whole of it from a stream (design: section 4)."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Iterator

from vantage6_largefile.envelope.format import DO_NOT_USE, Buffer, SegmentCipher, SegmentPlan, cut, object_name
from vantage6_largefile.errors import EnvelopeError
from vantage6_largefile.reference import HEADER_BYTES, SEGMENT_BYTES


class SegmentOpener:
    """Opens single segments of one object, in any order, from any thread.

    An object is complete when each of its segments was opened: a segment only opens at its own place, and the last
    one only as the last.

    Parameters
    ----------
    header : bytes
        The first 40 bytes of the stored form.
    key : bytes
        The data key.
    associated_data : bytes
        From the reader's own context, never from the reference.
    size : int
        Bytes of the plaintext.

    Raises
    ------
    EnvelopeError
        When the header is not one of this format.
    """

    def __init__(self, header: bytes, key: bytes, associated_data: bytes, *, size: int) -> None:
        self.plan = SegmentPlan(size)
        self._name = object_name(associated_data)
        self._header = header
        self._cipher = SegmentCipher(key, associated_data, header)

    def __repr__(self) -> str:
        return f"<SegmentOpener for {self._name}, {self.plan.count} segments>"

    def open_segment(self, index: int, stored: Buffer) -> bytes:
        """Verify and decrypt one segment.

        Parameters
        ----------
        index : int
            0-based number of the segment.
        stored : bytes-like
            The bytes of the stored form at ``plan.stored_range(index)``; for segment 0 with the header.

        Returns
        -------
        bytes
            The plaintext at ``plan.plaintext_range(index)``.

        Raises
        ------
        EnvelopeError
            When it is not exactly the segment that was sealed at this place.
        """
        expected = self.plan.stored_range(index)[1]
        view = memoryview(stored)
        if len(view) != expected:
            raise EnvelopeError(
                f"{self._name}: segment {index} has {len(view)} bytes, expected {expected}.", advice=DO_NOT_USE
            )
        if index == 0:
            if not hmac.compare_digest(view[:HEADER_BYTES], self._header):
                raise EnvelopeError(f"{self._name}: its header changed while it was read.", advice=DO_NOT_USE)
            view = view[HEADER_BYTES:]
        return self._cipher.open(index, view, last=index == self.plan.count - 1)


def open_stream(chunks: Iterable[Buffer], key: bytes, associated_data: bytes, *, size: int) -> Iterator[bytes]:
    """Verify and decrypt a stored form that arrives from its beginning.

    Every piece that is given is verified, but the object is complete only when the iterator ends without an error. The
    last segment is given only after it verified and nothing followed it, so a file under a temporary name or a
    response without its final chunk is never mistaken for the whole.

    Parameters
    ----------
    chunks : iterable of bytes-like
        The stored form in chunks of any size. Errors of this source pass unchanged.
    key : bytes
        The data key.
    associated_data : bytes
        From the reader's own context, never from the reference.
    size : int
        Bytes of the plaintext, from the reference.

    Yields
    ------
    bytes
        The plaintext, segment by segment. Memory: about 3 MiB whatever the size.

    Raises
    ------
    EnvelopeError
        When the stored form is damaged, cut, too long, reordered, sealed for another place or with another key, or
        does not hold `size` bytes.
    """
    plan = SegmentPlan(size)
    name = object_name(associated_data)
    opener: SegmentOpener | None = None
    for index, (stored, ends) in enumerate(cut(chunks, SEGMENT_BYTES, SEGMENT_BYTES)):
        read = index * SEGMENT_BYTES + len(stored)
        if read > plan.stored_size or (not ends and read == plan.stored_size):
            raise EnvelopeError(f"{name}: more follows after its {plan.stored_size} bytes.", advice=DO_NOT_USE)
        if ends and read < plan.stored_size:
            raise EnvelopeError(f"{name}: it ends after {read} of {plan.stored_size} bytes.", advice=DO_NOT_USE)
        if opener is None:
            opener = SegmentOpener(bytes(stored[:HEADER_BYTES]), key, associated_data, size=size)
        yield opener.open_segment(index, stored)
