"""How far a transfer is, for the person who waits for it: a bar on a terminal, plain lines elsewhere.

For command line and client. Both go to stderr, so that stdout holds the answer of a command and nothing else.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TaskID, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as RichProgress

from vantage6_largefile.transfer import Progress

#: Seconds between two plain lines: often enough to see that it lives, seldom enough for a log.
LINE_EVERY = 5.0
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def human_size(size: float) -> str:
    """`size` bytes for a person: ``17 bytes``, ``1.5 GiB``."""
    unit = 0
    while size >= 1024 and unit < len(_UNITS) - 1:
        size /= 1024
        unit += 1
    return f"{size:.0f} {_UNITS[unit]}" if unit == 0 else f"{size:.1f} {_UNITS[unit]}"


@contextmanager
def progress_on_stderr(what: str, *, quiet: bool) -> Iterator[Progress | None]:
    """A :class:`~vantage6_largefile.transfer.Progress` that shows itself on stderr while the block lasts.

    Parameters
    ----------
    what : str
        Stands before bar or line.
    quiet : bool
        Show nothing: None is handed out.
    """
    if quiet:
        yield None
    elif sys.stderr.isatty():
        with _bar() as bar:
            yield _Bar(bar, bar.add_task(what, total=None))
    else:
        lines = _Lines(what)
        yield lines
        lines.last()


class _Bar:
    def __init__(self, bar: RichProgress, task: TaskID) -> None:
        self._bar = bar
        self._task = task

    def __call__(self, done: int, total: int | None, rate: float) -> None:  # noqa: ARG002 - rich measures by itself
        self._bar.update(self._task, completed=done, total=total)


def _bar() -> RichProgress:
    return RichProgress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


class _Lines:
    def __init__(self, what: str) -> None:
        self._what = what
        self._shown_at = time.monotonic()
        self._pending: str | None = None

    def __call__(self, done: int, total: int | None, rate: float) -> None:
        of = f" of {human_size(total)} ({100 * done // total if total else 100} %)" if total is not None else ""
        self._pending = f"{self._what}: {human_size(done)}{of}, {human_size(rate)}/s"
        if time.monotonic() - self._shown_at >= LINE_EVERY:
            self.last()

    def last(self) -> None:
        """Show what was reported last, unless it was shown already."""
        if self._pending is not None:
            click.echo(self._pending, err=True)
            self._shown_at = time.monotonic()
            self._pending = None
