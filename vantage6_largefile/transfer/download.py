"""Downloads: one object as a verified stream, or as a verified file."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

from vantage6_largefile.errors import IntegrityError
from vantage6_largefile.location import Location
from vantage6_largefile.stores.base import Store
from vantage6_largefile.transfer.control import MIB, CancelToken, Meter, Progress, TransferOptions
from vantage6_largefile.transfer.ranges import RangeReader
from vantage6_largefile.transfer.target import target_file

#: Bytes at the end of a stream that are held back until the whole is verified.
HELD_BACK = MIB


def iter_object(
    store: Store,
    location: Location,
    *,
    stored_size: int,
    sha256: str | None,
    etag: str | None = None,
    options: TransferOptions,
    progress: Progress | None = None,
    cancel: CancelToken | None = None,
    offset: int = 0,
    length: int | None = None,
) -> Generator[bytes, None, None]:
    """Stream the stored form of an object, in pieces of at most one part, verified before it ends.

    Up to ``options.concurrency`` ranges are read ahead, in memory of at most ``part_size × (concurrency + 1)``; a
    lost connection is taken up again at the byte where it broke. Nothing is asked for before the first piece is.

    Parameters
    ----------
    stored_size, sha256 : int, str
        Of the whole stored form, as the reference says. The digest is checked when the whole object is read; a
        range rests on `etag` and on the store's honesty.
    etag : str, optional
        When given, every request demands it.
    offset, length : int
        A range of the stored form, within `stored_size`. Default: the whole.

    Yields
    ------
    bytes
        The last one (at most 1 MiB) only after size and digest of the whole were verified.

    Raises
    ------
    IntegrityError
        The object is shorter or longer than `stored_size`, or its digest differs. It is raised in the place of
        the last piece, so a consumer that waits for the end never takes damaged bytes as complete.
    ObjectChanged, ObjectNotFound, StoreError, TransferStalled, TransferCancelled
    """
    end = stored_size if length is None else offset + length
    if not 0 <= offset <= end <= stored_size:
        raise ValueError(f"the range {offset}+{length} does not lie in an object of {stored_size} bytes")
    reader = RangeReader(store, location, stored_size=stored_size, etag=etag, options=options, cancel=cancel)
    whole = offset == 0 and end == stored_size
    return _verified(reader, offset, end, sha256 if whole else None, Meter(progress, end - offset))


def _verified(
    reader: RangeReader, offset: int, end: int, sha256: str | None, meter: Meter
) -> Generator[bytes, None, None]:
    digest = hashlib.sha256() if sha256 is not None else None
    held: deque[bytes] = deque()
    held_size = 0
    with closing(reader.ordered(offset, end, lambda _, pieces: pieces)) as parts:
        for part in parts:
            part.reverse()
            while part:
                piece = part.pop()
                reader.check()
                if digest is not None:
                    digest.update(piece)
                meter.add(len(piece))
                held.append(piece)
                held_size += len(piece)
                while held_size - len(held[0]) >= HELD_BACK:
                    held_size -= len(held[0])
                    yield held.popleft()
    if digest is not None and sha256 is not None:
        _require_digest(reader.location, digest.hexdigest(), sha256)
    tail = b"".join(held)
    held.clear()
    # What is held back may be one large piece of a driver: only its last MiB had to wait.
    for start in range(0, len(tail), HELD_BACK):
        yield tail[start : start + HELD_BACK]
    meter.finish()


def _require_digest(location: Location, found: str, expected: str) -> None:
    if found != expected:
        raise IntegrityError(
            f"{location}: the stored bytes are not those that were written (sha256 differs).",
            advice="Do not use them; ask the writer to store the object again.",
        )


def download_file(
    store: Store,
    location: Location,
    path: Path,
    *,
    stored_size: int,
    sha256: str | None,
    etag: str | None = None,
    options: TransferOptions,
    progress: Progress | None = None,
    cancel: CancelToken | None = None,
) -> None:
    """Download an object into a file that appears under its name whole, verified and on disk, or not at all.

    The bytes go to a hidden temporary file in the same folder, whose space is taken beforehand; it is renamed in
    the end (replacing what was there) and removed on any failure.

    Parameters
    ----------
    sha256 : str or None
        None where nobody said what the object must be: then only its size is checked.

    Raises
    ------
    StoreFull
        When the local disk has no room for it.
    IntegrityError, StoreError, TransferStalled, TransferCancelled
        As :func:`iter_object`.
    """
    reader = RangeReader(store, location, stored_size=stored_size, etag=etag, options=options, cancel=cancel)
    meter = Meter(progress, stored_size)
    digest = hashlib.sha256() if sha256 is not None else None
    with target_file(path, stored_size) as file:

        def write(start: int, pieces: list[bytes]) -> list[bytes]:
            file.write_at(start, pieces)
            return pieces

        with closing(reader.ordered(0, stored_size, write)) as parts:
            # The digest goes along in order, while the threads of the reader fetch and write.
            for part in parts:
                for piece in part:
                    if digest is not None:
                        digest.update(piece)
                    meter.add(len(piece))
        if digest is not None and sha256 is not None:
            _require_digest(location, digest.hexdigest(), sha256)
        meter.finish()
