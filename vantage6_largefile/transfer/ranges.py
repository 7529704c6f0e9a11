"""Reading ranges of one object ahead, in parallel, each of them until it is whole."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import TypeVar

from vantage6_largefile.errors import IntegrityError
from vantage6_largefile.location import Location
from vantage6_largefile.stores.base import Store
from vantage6_largefile.transfer.control import CancelToken, TransferOptions
from vantage6_largefile.transfer.memory import keep_freed_memory
from vantage6_largefile.transfer.retry import Patience

T = TypeVar("T")

#: A range that was fetched: its offset, and its bytes in the pieces in which they came.
Work = Callable[[int, list[bytes]], T]


class RangeReader:
    """Reads ranges of one object; a lost connection is taken up again at the byte where it broke.

    Parameters
    ----------
    stored_size : int
        Of the whole object. Fewer or more bytes are an error.
    etag : str or None
        When given, every request demands it.
    """

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
        keep_freed_memory()
        self.location = location
        self._store = store
        self._size = stored_size
        self._etag = etag
        self._options = options
        self._patience = Patience(location, options.retry_for, cancel)

    def ordered(self, offset: int, end: int, work: Work[T], *, align: int = 1) -> Generator[T, None, None]:
        """Fetch everything from `offset` to `end` and do `work` on each range; its results in order.

        Up to ``options.concurrency`` ranges are on their way or wait to be taken, and one more while the consumer
        looks at what it took.

        Parameters
        ----------
        work : callable
            Called by a thread of the pool, with the offset of the range and its pieces, which it may take out of the
            list one by one.
        align : int
            Ranges begin at multiples of it, counted from `offset`.
        """
        part = -(-self._options.burst // align) * align
        starts = deque(range(offset, end, part))
        if not starts:
            if self._size == 0:
                self.fetch(0, 0)
            return
        workers = min(self._options.concurrency, len(starts))
        executor = ThreadPoolExecutor(workers, thread_name_prefix="v6lf-download")
        running: deque[Future[T]] = deque()

        def job(start: int) -> T:
            return work(start, self.fetch(start, min(start + part, end)))

        try:
            while starts or running:
                while starts and len(running) < workers:
                    running.append(executor.submit(job, starts.popleft()))
                got = running.popleft().result()
                # One more request may run while the consumer looks at this part.
                if starts:
                    running.append(executor.submit(job, starts.popleft()))
                self._patience.check()
                yield got
                del got
        finally:
            self._patience.give_up()
            executor.shutdown(wait=True, cancel_futures=True)

    def check(self) -> None:
        """Raise when the transfer was cancelled or has ended."""
        self._patience.check()

    def close(self) -> None:
        """No thread shall wait or try any longer."""
        self._patience.give_up()

    def fetch(self, start: int, end: int) -> list[bytes]:
        """All bytes of a range, as the pieces in which they came; the last range also looks for bytes too many.

        Raises
        ------
        IntegrityError
            When the object is shorter or longer than it should be.
        ObjectChanged, ObjectNotFound, StoreError, TransferStalled, TransferCancelled
        """
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
