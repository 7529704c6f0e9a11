"""What steers a transfer: its options, the limit on bandwidth, the way to cancel it, the report of its progress."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Protocol

from vantage6_largefile.config.store import TransferConfig
from vantage6_largefile.errors import TransferCancelled

MIB = 1 << 20
_REPORT_EVERY = 0.1
_SMALLEST_BURST = 256 * 1024


class Progress(Protocol):
    """Told how far a transfer is: at most ten times a second, and once at the end.

    Called by one thread at a time, not always the same. An exception from it fails the transfer.
    """

    def __call__(self, done: int, total: int | None, rate: float) -> None:
        """Take notice of `done` of `total` bytes (None while unknown), at `rate` bytes per second on average."""


class CancelToken:
    """The caller's way to stop a transfer from another thread.

    A transfer notices it between two parts, while it waits to try again, and between two pieces that it yields;
    a part that is on its way is not interrupted.
    """

    def __init__(self) -> None:
        self._event = threading.Event()

    def cancel(self) -> None:
        """Ask the transfers that hold this token to stop. Repeating it is no error."""
        self._event.set()

    @property
    def cancelled(self) -> bool:
        """Whether :meth:`cancel` was called."""
        return self._event.is_set()

    def wait(self, timeout: float) -> bool:
        """Sleep for `timeout` seconds or until cancelled; True when cancelled."""
        return self._event.wait(timeout)

    def raise_if_cancelled(self, what: object) -> None:
        """Raise :class:`~vantage6_largefile.errors.TransferCancelled` about `what` when cancelled."""
        if self._event.is_set():
            raise TransferCancelled(f"The transfer of {what} was cancelled.")


class RateLimiter:
    """Holds the bytes of all threads that share it down to so many per second, on average.

    Parameters
    ----------
    bytes_per_second : int
    """

    def __init__(self, bytes_per_second: int) -> None:
        if bytes_per_second < 1:
            raise ValueError("a bandwidth limit is at least one byte per second")
        self._rate = bytes_per_second
        self._lock = threading.Lock()
        self._free_at = 0.0

    def reserve(self, size: int) -> float:
        """Take `size` bytes of the line, and say how many seconds to wait before sending or asking for more."""
        with self._lock:
            now = time.monotonic()
            start = max(now, self._free_at)
            self._free_at = start + size / self._rate
            return start - now


@dataclass(frozen=True, slots=True)
class TransferOptions:
    """How objects are moved. Transfers that share one instance share its bandwidth.

    Attributes
    ----------
    part_size : int
        Bytes of one part. Enlarged where an object would need more parts than its store takes, made smaller
        where a low bandwidth limit would otherwise send long bursts.
    concurrency : int
        Parts of one object in flight at the same time. Memory per transfer is at most
        ``part_size × (concurrency + 2)``.
    max_bandwidth : int or None
        Bytes per second, over all transfers that share this instance; None is unlimited.
    retry_for : float
        Seconds without any progress after which a transfer is given up.
    """

    part_size: int = 8 * MIB
    concurrency: int = 4
    max_bandwidth: int | None = None
    retry_for: float = 24 * 3600.0
    limiter: RateLimiter | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        if self.part_size < 1 or self.concurrency < 1 or self.retry_for < 0:
            raise ValueError("part_size and concurrency are at least 1, retry_for at least 0")
        if self.max_bandwidth is not None:
            object.__setattr__(self, "limiter", RateLimiter(self.max_bandwidth))

    @property
    def burst(self) -> int:
        """Bytes of one part under the bandwidth limit: half a second of the line, which keeps the traffic even."""
        if self.max_bandwidth is None:
            return self.part_size
        return min(self.part_size, max(self.max_bandwidth // 2, _SMALLEST_BURST))

    @classmethod
    def from_config(cls, config: TransferConfig) -> TransferOptions:
        """The options that a ``transfer`` block asks for. Make one per process and share it."""
        return cls(config.part_size, config.concurrency, config.max_bandwidth, config.retry_for)


class Meter:
    """Counts the bytes of one transfer and tells a :class:`Progress` about it.

    Parameters
    ----------
    progress : Progress or None
    total : int or None
        Bytes to come; None when unknown.
    done : int
        Bytes that were there before: they count as done, not as speed.
    """

    def __init__(self, progress: Progress | None, total: int | None, done: int = 0) -> None:
        self._progress = progress
        self._total = total
        self._done = done
        self._before = done
        self._started = time.monotonic()
        self._reported = float("-inf")
        self._lock = threading.Lock()

    def add(self, size: int) -> None:
        """Count `size` more bytes."""
        with self._lock:
            self._done += size
            self._report(force=False)

    def finish(self) -> None:
        """Report the end; the total is known now."""
        with self._lock:
            self._total = self._done
            self._report(force=True)

    def _report(self, *, force: bool) -> None:
        now = time.monotonic()
        if self._progress is None or (not force and now - self._reported < _REPORT_EVERY):
            return
        self._reported = now
        elapsed = max(now - self._started, 1e-6)
        self._progress(self._done, self._total, (self._done - self._before) / elapsed)
