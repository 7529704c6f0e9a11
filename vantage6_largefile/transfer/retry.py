"""Trying again, with patience counted from the last progress and not per request."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from vantage6_largefile.errors import StoreUnavailable, TransferCancelled, TransferStalled
from vantage6_largefile.transfer.control import CancelToken, RateLimiter

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds: the first wait is drawn from [0, 2 × FIRST_WAIT], the mean doubles up to LONGEST_WAIT.
FIRST_WAIT = 0.5
LONGEST_WAIT = 60.0


class Patience:
    """The patience of one transfer, shared by its threads: any progress of any of them renews it.

    Parameters
    ----------
    what : object
        What is being moved, for messages.
    retry_for : float
        Seconds without progress after which it is given up.
    cancel : CancelToken or None
    """

    def __init__(self, what: object, retry_for: float, cancel: CancelToken | None) -> None:
        self._what = what
        self._retry_for = retry_for
        self._cancel = cancel or CancelToken()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._progress_at = time.monotonic()

    def progress(self) -> None:
        """Something moved."""
        with self._lock:
            self._progress_at = time.monotonic()

    def give_up(self) -> None:
        """No thread of this transfer shall wait or try any longer: it failed elsewhere."""
        self._stop.set()

    def check(self) -> None:
        """Raise :class:`~vantage6_largefile.errors.TransferCancelled` when cancelled, or stopped."""
        if self._stop.is_set():
            raise TransferCancelled(f"The transfer of {self._what} has ended.")
        self._cancel.raise_if_cancelled(self._what)

    def pace(self, limiter: RateLimiter | None, size: int) -> None:
        """Wait for `size` bytes' turn under a bandwidth limit. Waiting one's turn is no lack of progress."""
        if limiter is None:
            return
        wait = limiter.reserve(size)
        while wait > 0 and not self._stop.is_set():
            self._sleep(min(wait, 1.0))
            wait -= 1.0
            self.progress()

    def call(self, action: Callable[[], T]) -> T:
        """Do `action` until it works.

        Only :class:`~vantage6_largefile.errors.StoreUnavailable` is tried again; a wait that the store asks for is
        honoured as far as patience reaches.

        Raises
        ------
        TransferStalled
            When nothing of this transfer moved for `retry_for` seconds; its cause is the last error.
        TransferCancelled
        """
        mean = FIRST_WAIT
        started = time.monotonic()
        while True:
            self.check()
            try:
                result = action()
            except StoreUnavailable as error:
                if self._stop.is_set():
                    raise
                self._wait(error, mean, started)
                mean = min(mean * 2, LONGEST_WAIT)
            else:
                self.progress()
                return result

    def _wait(self, error: StoreUnavailable, mean: float, started: float) -> None:
        with self._lock:
            # Not from before this call: a producer or consumer that took its time is no sign of a store that is away.
            quiet = time.monotonic() - max(self._progress_at, started)
        left = self._retry_for - quiet
        if left <= 0:
            raise TransferStalled(
                f"{self._what}: given up, nothing moved for {quiet:.0f} s. Last answer: {error}",
                retry_after=error.retry_after,
            ) from error
        wait = max(random.uniform(0, 2 * mean), error.retry_after or 0.0)  # noqa: S311 - spreads load, guards nothing
        wait = min(wait, left)
        logger.info("%s: will try again in %.1f s: %s", self._what, wait, error)
        self._sleep(wait)

    def _sleep(self, seconds: float) -> None:
        # Two events and one wait: look at both often enough that stopping feels immediate.
        until = time.monotonic() + seconds
        while not self._stop.is_set():
            left = until - time.monotonic()
            if left <= 0:
                return
            self._cancel.wait(min(left, 0.2))
            self.check()
