"""Downloads: one object as a verified stream, or as a verified file."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

from vantage6_largefile.errors import IntegrityError
from vantage6_largefile.location import Location
from vantage6_largefile.stores.base import Store
from vantage6_largefile.transfer.control import MIB, CancelToken, Meter, Progress, TransferOptions
from vantage6_largefile.transfer.local import closing_descriptor, local_disk, reserve_space, sync_folder, write_all
from vantage6_largefile.transfer.retry import Patience

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
    reader = _Reader(store, location, stored_size=stored_size, etag=etag, options=options, cancel=cancel)
    whole = offset == 0 and end == stored_size
    return _verified(reader, offset, end, sha256 if whole else None, Meter(progress, end - offset))


def _verified(reader: _Reader, offset: int, end: int, sha256: str | None, meter: Meter) -> Generator[bytes, None, None]:
    digest = hashlib.sha256() if sha256 is not None else None
    held: deque[bytes] = deque()
    held_size = 0
    with closing(reader.pieces(offset, end)) as pieces:
        for piece in pieces:
            if digest is not None:
                digest.update(piece)
            meter.add(len(piece))
            held.append(piece)
            held_size += len(piece)
            while held_size - len(held[0]) >= HELD_BACK:
                held_size -= len(held[0])
                yield held.popleft()
    if digest is not None and digest.hexdigest() != sha256:
        raise IntegrityError(
            f"{reader.location}: the stored bytes are not those that were written (sha256 differs).",
            advice="Do not use them; ask the writer to store the object again.",
        )
    tail = b"".join(held)
    held.clear()
    # What is held back may be one large piece of a driver: only its last MiB had to wait.
    for start in range(0, len(tail), HELD_BACK):
        yield tail[start : start + HELD_BACK]
    meter.finish()


class _Reader:
    """Reads ranges of one object ahead, in order."""

    def __init__(
        self,
        store: Store,
        location: Location,
        *,
        stored_size: int,
        etag: str | None,
        options: TransferOptions,
        cancel: CancelToken | None,
    ) -> None:
        self.location = location
        self._store = store
        self._size = stored_size
        self._etag = etag
        self._options = options
        self._patience = Patience(location, options.retry_for, cancel)

    def pieces(self, offset: int, end: int) -> Generator[bytes, None, None]:
        part = self._options.burst
        ranges = deque((start, min(start + part, end)) for start in range(offset, end, part))
        if len(ranges) == 0:
            if self._size == 0:
                self._fetch(0, 0)
            return
        workers = min(self._options.concurrency, len(ranges))
        executor = ThreadPoolExecutor(workers, thread_name_prefix="v6lf-download")
        running: deque[Future[list[bytes]]] = deque()
        try:
            while ranges or running:
                while ranges and len(running) < workers:
                    running.append(executor.submit(self._fetch, *ranges.popleft()))
                got = running.popleft().result()
                # One more request may run while the consumer looks at this part.
                if ranges:
                    running.append(executor.submit(self._fetch, *ranges.popleft()))
                got.reverse()
                while got:
                    self._patience.check()
                    yield got.pop()
        finally:
            self._patience.give_up()
            executor.shutdown(wait=True, cancel_futures=True)

    def _fetch(self, start: int, end: int) -> list[bytes]:
        """All bytes of a range, as the pieces in which they came; the last range also looks for bytes too many."""
        got: list[bytes] = []
        at = start
        # One byte beyond the end of the object costs nothing to ask for, and shows that the object is longer.
        beyond = 1 if end == self._size else 0

        def attempt() -> None:
            nonlocal at
            with closing(
                _closable(self._store.read(self.location, offset=at, length=end - at + beyond, if_match=self._etag))
            ) as stream:
                for piece in stream:
                    self._patience.check()
                    self._patience.pace(self._options.limiter, len(piece))
                    self._patience.progress()
                    if at + len(piece) > end:
                        raise IntegrityError(f"{self.location} is longer than the {self._size} bytes of its reference.")
                    got.append(piece)
                    at += len(piece)
            if at < end:
                raise IntegrityError(
                    f"{self.location} ends after {at} bytes, its reference says {self._size}: it was cut or replaced."
                )

        self._patience.call(attempt)
        return got


def _closable(pieces: Iterator[bytes]) -> Generator[bytes, None, None]:
    """A generator around any iterator, because only generators can be closed at will."""
    yield from pieces


def download_file(
    store: Store,
    location: Location,
    path: Path,
    *,
    stored_size: int,
    sha256: str,
    etag: str | None = None,
    options: TransferOptions,
    progress: Progress | None = None,
    cancel: CancelToken | None = None,
) -> None:
    """Download an object into a file that appears under its name whole, verified and on disk, or not at all.

    The bytes go to a hidden temporary file in the same folder, whose space is taken beforehand; it is renamed in
    the end (replacing what was there) and removed on any failure.

    Raises
    ------
    StoreFull
        When the local disk has no room for it.
    IntegrityError, StoreError, TransferStalled, TransferCancelled
        As :func:`iter_object`.
    """
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}.part")
    try:
        with local_disk(path):
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
            with closing_descriptor(descriptor):
                reserve_space(descriptor, stored_size)
                with closing(
                    iter_object(
                        store,
                        location,
                        stored_size=stored_size,
                        sha256=sha256,
                        etag=etag,
                        options=options,
                        progress=progress,
                        cancel=cancel,
                    )
                ) as pieces:
                    for piece in pieces:
                        write_all(descriptor, piece)
                os.fsync(descriptor)
            os.replace(temporary, path)
            sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
