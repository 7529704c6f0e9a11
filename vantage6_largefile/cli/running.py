"""How a command of ``v6-largefile object`` runs: its options, its answer, its exit code, and what Ctrl-C does."""

from __future__ import annotations

import functools
import json
import logging
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import TypeVar

import click

from vantage6_largefile import redaction
from vantage6_largefile.errors import (
    ConfigurationError,
    IntegrityError,
    InvalidReference,
    LargeFileError,
    LocationRefused,
    ObjectExists,
    ObjectNotFound,
    StoreAccessDenied,
    StoreMisconfigured,
    StoreUnavailable,
    TransferCancelled,
)
from vantage6_largefile.transfer import CancelToken

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: What the answer of a command is in JSON.
Json = dict[str, object] | list[dict[str, object]]

OTHER = 1
INTERRUPTED = 130

#: The first that fits decides.
_OUTCOMES: tuple[tuple[type[LargeFileError], int], ...] = (
    (TransferCancelled, INTERRUPTED),
    (ConfigurationError, 2),
    (InvalidReference, 2),
    (StoreMisconfigured, 2),
    (ObjectNotFound, 3),
    (LocationRefused, 4),
    (StoreAccessDenied, 4),
    (ObjectExists, 5),
    (IntegrityError, 6),
    (StoreUnavailable, 7),
)

#: For the help texts; ``\b`` keeps click from filling the lines.
EXIT_CODES = """\b
Exit codes:
  0    done
  1    any other failure (a full disk, for example)
  2    wrong command line, configuration, or reference; container or folder missing
  3    the object is not there
  4    no access: refused by the store, or not a store of this configuration
  5    already there: an object or a file of that name, which was not touched
  6    damaged: not the bytes that were written
  7    the store is unavailable: try again later
  130  interrupted (Ctrl-C)
"""


def exit_code_of(error: LargeFileError) -> int:
    """The exit code that stands for an error."""
    return next((code for kind, code in _OUTCOMES if isinstance(error, kind)), OTHER)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command has to say on stdout.

    Attributes
    ----------
    document : Json
        With ``--json``.
    text : str
        Without it; may be empty.
    """

    document: Json
    text: str


def answering(command: Callable[..., Answer]) -> Callable[..., None]:
    """Give a command the options ``--json`` and ``--verbose``; print its answer, map its errors to exit codes.

    stdout gets the answer and nothing else: with ``--json`` always one document, ``{"error": …}`` for a failure.
    """

    @click.option("--json", "as_json", is_flag=True, help="The answer as one JSON document on stdout.")
    @click.option("-v", "--verbose", is_flag=True, help="Say more about what happens, on stderr.")
    @functools.wraps(command)
    def run(*, as_json: bool, verbose: bool, **arguments: object) -> None:
        with _log_on_stderr(verbose):
            try:
                _print(command(**arguments), as_json)
                return
            except LargeFileError as error:
                code, kind, message = exit_code_of(error), type(error).__name__, redaction.redact(str(error))
                click.echo(message, err=True)
            except (click.ClickException, click.Abort, click.exceptions.Exit, BrokenPipeError):
                raise
            except Exception as error:
                # A bug of ours or of a driver. It goes through the log, which is where secrets are taken out.
                logger.exception("This should not happen")
                code, kind, message = OTHER, type(error).__name__, "An unexpected error; stderr has the details."
        if as_json:
            click.echo(json.dumps({"error": {"exit_code": code, "type": kind, "message": message}}, indent=2))
        sys.exit(code)

    return run


def _print(answer: Answer, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(answer.document, indent=2))
    elif answer.text:
        click.echo(answer.text)


class _OnStderr(logging.Handler):
    """Looks stderr up for every record: while a bar is shown, rich has put itself in its place."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(self.format(record), err=True)


@contextmanager
def _log_on_stderr(verbose: bool) -> Iterator[None]:
    redaction.install()
    ours = logging.getLogger("vantage6_largefile")
    retries = logging.getLogger("vantage6_largefile.transfer.retry")
    handler = _OnStderr()
    before = ours.level, retries.level, ours.propagate
    ours.addHandler(handler)
    ours.setLevel(logging.DEBUG if verbose else logging.WARNING)
    # Who waits at a terminal wants to know why nothing moves.
    retries.setLevel(logging.INFO)
    ours.propagate = False
    try:
        yield
    finally:
        ours.removeHandler(handler)
        ours.propagate = before[2]
        ours.setLevel(before[0])
        retries.setLevel(before[1])


def interruptible(work: Callable[[CancelToken], T]) -> T:
    """Do `work`; Ctrl-C (or SIGTERM) cancels its token, a second one ends the process at once.

    The work runs in a thread of its own: a handler must not set what its own thread may be waiting for.

    Raises
    ------
    TransferCancelled
        From `work`, when it noticed.
    """
    cancel = CancelToken()

    def handle(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        cancel.cancel()
        click.echo("\nCancelling; parts that are on their way are waited for. Once more ends at once.", err=True)

    handlers = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with ThreadPoolExecutor(1, thread_name_prefix="v6lf-object") as executor:
            return executor.submit(work, cancel).result()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
