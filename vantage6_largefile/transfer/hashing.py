"""A digest that is taken beside the work, because sha256 is slower than everything else but the network."""

from __future__ import annotations

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType


class RunningDigest:
    """Sha256 of what is added, in the order in which it is added, by a thread of its own."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="v6lf-hash")

    def add(self, data: bytes | memoryview) -> Future[str]:
        """Add `data`, which must not change until the result is there: hex, of all up to the end of `data`."""
        return self._executor.submit(self._add, data)

    def hexdigest(self) -> str:
        """Of all that was added; waits for it."""
        return self._executor.submit(self._digest.hexdigest).result()

    def close(self) -> None:
        """Let go of the thread; what was not hashed yet never is."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> RunningDigest:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _add(self, data: bytes | memoryview) -> str:
        self._digest.update(data)
        return self._digest.hexdigest()
