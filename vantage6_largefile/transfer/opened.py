"""Downloading an encrypted object: fetching and opening overlap, in whole segments, in parallel."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path

from vantage6_largefile.envelope import Opener, SegmentOpener, SegmentPlan
from vantage6_largefile.envelope.format import cut
from vantage6_largefile.location import Location
from vantage6_largefile.reference import HEADER_BYTES, SEGMENT_BYTES
from vantage6_largefile.stores.base import Store
from vantage6_largefile.transfer.control import CancelToken, Meter, Progress, TransferOptions
from vantage6_largefile.transfer.ranges import RangeReader
from vantage6_largefile.transfer.target import target_file


def iter_opened(
    store: Store,
    location: Location,
    *,
    opener: Opener,
    size: int,
    etag: str | None = None,
    options: TransferOptions,
    progress: Progress | None = None,
    cancel: CancelToken | None = None,
) -> Generator[bytes, None, None]:
    """Stream the plaintext of an encrypted object, in pieces of at most 1 MiB.

    Up to ``options.concurrency`` ranges of whole segments are fetched and opened at the same time, each by one thread,
    in memory of at most twice ``part_size × (concurrency + 1)``. Nothing is asked for before the first piece is.

    Parameters
    ----------
    opener : Opener
        For this object, made from the reader's own context.
    size : int
        Bytes of the plaintext, as the reference says.
    etag : str, optional
        When given, every request demands it.
    progress : Progress, optional
        Told about bytes of plaintext.

    Yields
    ------
    bytes
        Each piece is verified. The whole is complete only when the iterator ends without an error: the last piece
        comes after the last segment verified, and after the store was seen to have nothing behind it.

    Raises
    ------
    IntegrityError
        Also EnvelopeError: the object is damaged, cut, too long, or not the one that `opener` is for.
    ObjectChanged, ObjectNotFound, StoreError, TransferStalled, TransferCancelled
    """
    segments = _Segments(opener, size)
    reader = RangeReader(
        store, location, stored_size=segments.plan.stored_size, etag=etag, options=options, cancel=cancel
    )
    return _stream(reader, segments, Meter(progress, size))


def _stream(reader: RangeReader, segments: _Segments, meter: Meter) -> Generator[bytes, None, None]:
    def work(start: int, pieces: list[bytes]) -> list[bytes]:
        return segments.open(reader, start, pieces)

    with closing(reader.ordered(0, segments.plan.stored_size, work, align=SEGMENT_BYTES)) as parts:
        for part in parts:
            part.reverse()
            while part:
                piece = part.pop()
                reader.check()
                meter.add(len(piece))
                if piece:
                    yield piece
    meter.finish()


def download_opened(
    store: Store,
    location: Location,
    path: Path,
    *,
    opener: Opener,
    size: int,
    etag: str | None = None,
    options: TransferOptions,
    progress: Progress | None = None,
    cancel: CancelToken | None = None,
) -> None:
    """Download the plaintext of an encrypted object into a file that appears under its name whole and verified.

    As :func:`~vantage6_largefile.transfer.download_file`, with the envelope in the place of the digest: the file gets
    its name after every segment verified.

    Parameters
    ----------
    opener, size, etag, progress :
        As for :func:`iter_opened`.

    Raises
    ------
    StoreFull
        When the local disk has no room for it.
    IntegrityError, StoreError, TransferStalled, TransferCancelled
        As :func:`iter_opened`.
    """
    segments = _Segments(opener, size)
    plan = segments.plan
    reader = RangeReader(store, location, stored_size=plan.stored_size, etag=etag, options=options, cancel=cancel)
    meter = Meter(progress, size)
    with target_file(path, size) as file:

        def write(start: int, pieces: list[bytes]) -> int:
            opened = segments.open(reader, start, pieces)
            return file.write_at(plan.plaintext_range(start // SEGMENT_BYTES)[0], opened)

        with closing(reader.ordered(0, plan.stored_size, write, align=SEGMENT_BYTES)) as parts:
            for written in parts:
                meter.add(written)
        meter.finish()


class _Segments:
    """Opens ranges of one object from several threads; the header comes with the range that begins at 0."""

    def __init__(self, opener: Opener, size: int) -> None:
        self.plan = SegmentPlan(size)
        self._opener = opener
        self._size = size
        self._segments: SegmentOpener | None = None
        self._header_came = threading.Event()

    def open(self, reader: RangeReader, start: int, pieces: list[bytes]) -> list[bytes]:
        """The plaintext of all segments of a range; `pieces` is emptied on the way."""
        opened = []
        for index, (stored, _) in enumerate(cut(_taken(pieces), SEGMENT_BYTES, SEGMENT_BYTES), start // SEGMENT_BYTES):
            opened.append(self._with_header(reader, index, stored).open_segment(index, stored))
        return opened

    def _with_header(self, reader: RangeReader, index: int, stored: memoryview) -> SegmentOpener:
        if index == 0:
            self._segments = self._opener.segments(bytes(stored[:HEADER_BYTES]), size=self._size)
            self._header_came.set()
        # The range with the header may fail; its error ends the reader, and this wait with it.
        while not self._header_came.wait(0.2):
            reader.check()
        if self._segments is None:
            raise RuntimeError("the header came without its cipher")
        return self._segments


def _taken(pieces: list[bytes]) -> Iterator[bytes]:
    """The pieces in order, each let go of when the next one is asked for."""
    pieces.reverse()
    while pieces:
        yield pieces.pop()
