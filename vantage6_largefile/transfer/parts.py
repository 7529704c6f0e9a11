"""Sending the parts of one upload in parallel, in memory that is bounded by construction."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from vantage6_largefile.stores.base import Part, Store, UploadSession
from vantage6_largefile.transfer.control import Meter, TransferOptions
from vantage6_largefile.transfer.memory import keep_freed_memory
from vantage6_largefile.transfer.retry import Patience


class PartSender:
    """Sends parts with ``options.concurrency`` threads from ``concurrency + 1`` buffers.

    One thread takes a :meth:`buffer`, fills it, and hands it to :meth:`send`; when all buffers are on their way it
    waits. The first failure of any part is raised by the next call of that thread.

    Parameters
    ----------
    size : int or None
        Bytes of the whole object when known: buffers need not be larger.
    """

    def __init__(
        self,
        store: Store,
        session: UploadSession,
        *,
        options: TransferOptions,
        patience: Patience,
        meter: Meter,
        size: int | None,
    ) -> None:
        keep_freed_memory()
        self._store = store
        self._session = session
        self._limiter = options.limiter
        self._patience = patience
        self._meter = meter
        self._buffer_size = session.part_size if size is None else max(1, min(session.part_size, size))
        self._to_allocate = options.concurrency + 1
        self._executor = ThreadPoolExecutor(options.concurrency, thread_name_prefix="v6lf-upload")
        self._changed = threading.Condition()
        self._free: list[bytearray] = []
        self._on_their_way = 0
        self._parts: dict[int, Part] = {}
        self._failure: BaseException | None = None

    def buffer(self) -> bytearray:
        """A buffer of one part's size to fill; waits until one is free.

        Raises
        ------
        Exception
            The first failure of a part that was sent before; or :class:`TransferCancelled`.
        """
        with self._changed:
            while True:
                self._raise_failure()
                self._patience.check()
                if self._free:
                    return self._free.pop()
                if self._to_allocate:
                    self._to_allocate -= 1
                    return bytearray(self._buffer_size)
                # With a timeout, so that a cancel is noticed while all parts hang.
                self._changed.wait(0.2)

    def give_back(self, buffer: bytearray) -> None:
        """Return a buffer that was not sent."""
        with self._changed:
            self._free.append(buffer)

    def send(
        self,
        number: int,
        buffer: bytearray,
        length: int,
        acknowledged: Callable[[Part, str], None] | None = None,
        digest: Future[str] | str | None = None,
    ) -> None:
        """Send the first `length` bytes of `buffer` as part `number`; returns at once.

        Parameters
        ----------
        acknowledged : callable, optional
            Called in the sending thread with the part, and the digest of all up to its end, when the store has it.
        digest : str or Future of str, optional
            That digest. While it is in the making the buffer is in use.
        """
        with self._changed:
            self._on_their_way += 1
        self._executor.submit(self._work, number, buffer, length, acknowledged, digest)

    def finish(self) -> list[Part]:
        """Wait for all parts that were sent; their list, by number. Raises the first failure."""
        with self._changed:
            while self._on_their_way and self._failure is None:
                self._patience.check()
                self._changed.wait(0.2)
            self._raise_failure()
            parts = [self._parts[number] for number in sorted(self._parts)]
        self._executor.shutdown(wait=True)
        return parts

    def stop(self) -> None:
        """Let go of everything; waits for the requests that are on their way. Repeating it is no error."""
        self._patience.give_up()
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _work(
        self,
        number: int,
        buffer: bytearray,
        length: int,
        acknowledged: Callable[[Part, str], None] | None,
        digest: Future[str] | str | None,
    ) -> None:
        try:
            view = memoryview(buffer)[:length]
            self._patience.pace(self._limiter, length)
            part = self._patience.call(lambda: self._store.put_part(self._session, number, view))
            hashed = digest.result() if isinstance(digest, Future) else digest or ""
            if acknowledged is not None:
                acknowledged(part, hashed)
            self._meter.add(length)
        except BaseException as error:  # noqa: BLE001 - carried to the thread that waits for this part
            with self._changed:
                self._failure = self._failure or error
                self._changed.notify_all()
            self._patience.give_up()
        else:
            with self._changed:
                self._parts[number] = part
                self._free.append(buffer)
                self._on_their_way -= 1
                self._changed.notify_all()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
