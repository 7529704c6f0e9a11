"""The outbox: finished results that the server has not confirmed, on disk, resumed after a restart.

The algorithm's container is only removed after :meth:`Outbox.take` has brought its output here. From then on the
run belongs to the outbox: it is delivered, retried with growing pauses while store or server are away, and in the
end either recorded by the server or failed there with a reason, the bytes kept.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from node_ext.delivery import Delivery
from node_ext.job import Job, JobFolder
from node_ext.output import take_output
from vantage6_largefile.errors import (
    BadOutput,
    LargeFileError,
    ServerRejected,
    ServerUnavailable,
    StoreUnavailable,
    TransferCancelled,
)
from vantage6_largefile.transfer import CancelToken

log = logging.getLogger(__name__)

#: Pauses between attempts, in seconds: they double from the first to the last and are jittered by half.
FIRST_PAUSE, LAST_PAUSE = 1.0, 300.0
#: Results from this size on have workers of their own, so that small ones do not wait behind them.
LARGE = 8 << 20

Announce = Callable[[Job, str], None]


class Outbox:
    """Durable queue of finished results.

    Parameters
    ----------
    folder : Path
        In the node's data volume, where no algorithm container can see it.
    delivery : Delivery
    retry_for : float
        Seconds that an unreachable store or server is waited for, from the moment the output was taken.
    cancel : CancelToken
        Ends running transfers when the node stops.
    announce : callable
        Called with the job and its final status after the server has it.
    """

    def __init__(
        self, folder: Path, *, delivery: Delivery, retry_for: float, cancel: CancelToken, announce: Announce
    ) -> None:
        self._folder = folder
        self._delivery = delivery
        self._retry_for = retry_for
        self._cancel = cancel
        self._announce = announce
        self._lock = threading.Lock()
        self._owned: set[int] = set()
        self._stop = threading.Event()
        self._large = ThreadPoolExecutor(3, thread_name_prefix="outbox-large")
        self._small = ThreadPoolExecutor(3, thread_name_prefix="outbox-small")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def owns(self, run_id: int) -> bool:
        """Whether the run is, or since the start of this process was, in the outbox: it must not be started."""
        with self._lock:
            return run_id in self._owned

    def backlog(self) -> int:
        """Number of results on disk, kept ones included."""
        return sum(1 for entry in self._folder.iterdir() if entry.is_dir())

    def resume(self) -> None:
        """Take up every job that an earlier process left. One unreadable record does not stop the others."""
        for entry in sorted(self._folder.iterdir()):
            if not entry.is_dir():
                continue
            folder = JobFolder(entry)
            try:
                job = folder.read()
            except LargeFileError as error:
                log.error("%s", error)
                continue
            with self._lock:
                self._owned.add(job.run_id)
            if job.state != "kept":
                log.info("Resuming the result of %s from the outbox (%s).", job, job.state)
                self._submit(job, folder)

    def take(self, job: Job, task_folder: Path) -> None:
        """Take the output of a finished container into the outbox. On return it is durable.

        A missing or suspicious output fails the run with the reason; what lies in the task folder stays there.
        Call :meth:`submit` when the container is gone.

        Parameters
        ----------
        job : Job
            Of the finished run; `size` is filled in here.
        task_folder : Path
            The run's own folder.
        """
        folder = JobFolder(self._folder / f"run-{job.run_id:09d}")
        if folder.path.exists():
            # Left by a process that was killed between moving the output and writing the record, or kept before.
            aside = folder.path.with_name(f"{folder.path.name}-{time.time_ns()}")
            folder.path.rename(aside)
            log.warning("The outbox had a folder for %s already; it was kept as %s.", job, aside.name)
        with self._lock:
            self._owned.add(job.run_id)
        folder.create()
        try:
            job.size = take_output(task_folder, folder.plain)
        except BadOutput as error:
            if job.status == "completed":
                job.failure = str(error)
                log.error("%s: %s", job, error)
        folder.write(job)

    def submit(self, job: Job) -> None:
        """Deliver a job that was taken, in the background."""
        self._submit(job, JobFolder(self._folder / f"run-{job.run_id:09d}"))

    def take_failed_start(self, job: Job) -> None:
        """A run whose container never started: there is nothing to send but the reason."""
        folder = JobFolder(self._folder / f"run-{job.run_id:09d}")
        with self._lock:
            self._owned.add(job.run_id)
        if not folder.path.exists():
            folder.create()
        folder.write(job)
        self._submit(job, folder)

    def stop(self) -> None:
        """Stop the workers; unfinished jobs stay on disk for the next start."""
        self._stop.set()
        self._cancel.cancel()
        self._large.shutdown(wait=True, cancel_futures=True)
        self._small.shutdown(wait=True, cancel_futures=True)

    # --- workers ------------------------------------------------------------------------------------------------

    def _submit(self, job: Job, folder: JobFolder) -> None:
        pool = self._large if (job.size or 0) >= LARGE else self._small
        pool.submit(self._work, job, folder)

    def _work(self, job: Job, folder: JobFolder) -> None:
        try:
            if job.state == "failing":
                self._report_failure(job, folder)
            else:
                self._deliver_with_retry(job, folder)
        except TransferCancelled:
            log.info("The result of %s stays in the outbox; it is sent after the next start.", job)
        except Exception:
            # A bug must not lose a result silently: it stays on disk and is tried again at the next start.
            log.exception("Unexpected error with the result of %s; it stays in the outbox.", job)

    def _deliver_with_retry(self, job: Job, folder: JobFolder) -> None:
        pause = FIRST_PAUSE
        while not self._stop.is_set():
            try:
                self._delivery.deliver(job, folder)
            except (StoreUnavailable, ServerUnavailable) as error:
                if time.time() - job.taken_at > self._retry_for and isinstance(error, StoreUnavailable):
                    self._give_up(job, folder, error)
                    return
                log.warning("Result of %s: %s Next attempt in about %.0f s.", job, error, pause)
                pause = self._wait(pause)
            except TransferCancelled:
                raise
            except LargeFileError as error:
                self._give_up(job, folder, error)
                return
            else:
                self._done(job, folder)
                return

    def _wait(self, pause: float) -> float:
        """Sleep for a jittered pause, so that seventy nodes do not come back at once; the next pause."""
        self._stop.wait(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret
        return min(pause * 2, LAST_PAUSE)

    def _done(self, job: Job, folder: JobFolder) -> None:
        folder.remove()
        self._announce(job, "failed" if job.failure else job.status)

    def _give_up(self, job: Job, folder: JobFolder, error: LargeFileError) -> None:
        """Fail the run with the reason and keep the bytes; the server may itself be the one that refuses."""
        log.error("Result of %s was given up, its output is kept in %s: %s", job, folder.path, error)
        job.failure = f"[vantage6-largefile] The result could not be delivered: {error}"
        job.state = "failing"
        folder.write(job)
        self._report_failure(job, folder)

    def _report_failure(self, job: Job, folder: JobFolder) -> None:
        pause = FIRST_PAUSE
        while not self._stop.is_set():
            try:
                self._delivery.report_failure(job)
            except ServerUnavailable as unavailable:
                log.warning("%s: the failure could not be reported yet: %s", job, unavailable)
                pause = self._wait(pause)
            except ServerRejected as rejected:
                log.error("%s: the server did not take the failure either: %s", job, rejected)
                break
            else:
                self._announce(job, "failed")
                break
        else:
            return
        job.state = "kept"
        folder.write(job)
