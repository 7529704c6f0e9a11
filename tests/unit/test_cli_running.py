"""How commands answer: exit codes, JSON, progress, interruption."""

from __future__ import annotations

import json
import os
import signal
import threading

import click
import pytest
from click.testing import CliRunner

from vantage6_largefile import errors, progress
from vantage6_largefile.cli.objects import objects
from vantage6_largefile.cli.running import Answer, answering, exit_code_of, interruptible
from vantage6_largefile.errors import LargeFileError, ObjectNotFound, TransferCancelled
from vantage6_largefile.transfer import CancelToken

SECRET = "c2VjcmV0c2lnbmF0dXJl"


def command_that(work: object) -> click.Command:
    def body() -> Answer:
        if isinstance(work, BaseException):
            raise work
        assert isinstance(work, Answer)
        return work

    return click.command()(answering(body))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (LargeFileError("x"), 1),
        (errors.StoreFull("x"), 1),
        (errors.UploadSessionLost("x"), 1),
        (errors.ConfigurationError(["x"]), 2),
        (errors.InvalidReference("x"), 2),
        (errors.UnknownReferenceVersion("x"), 2),
        (errors.StoreMisconfigured("x"), 2),
        (errors.ObjectNotFound("x"), 3),
        (errors.StoreAccessDenied("x"), 4),
        (errors.LocationRefused("x"), 4),
        (errors.ObjectExists("x"), 5),
        (errors.IntegrityError("x"), 6),
        (errors.ObjectChanged("x"), 6),
        (errors.SpoolMismatch("x"), 6),
        (errors.StoreUnavailable("x"), 7),
        (errors.TransferStalled("x"), 7),
        (errors.TransferCancelled("x"), 130),
    ],
)
def test_exit_code_of_each_error(error: LargeFileError, code: int) -> None:
    assert exit_code_of(error) == code


def test_failure_is_text_on_stderr_and_a_document_on_stdout() -> None:
    result = CliRunner(mix_stderr=False).invoke(command_that(ObjectNotFound("it is not there")), ["--json"])

    assert result.exit_code == 3
    assert result.stderr == "it is not there\n"
    assert json.loads(result.stdout) == {
        "error": {"exit_code": 3, "type": "ObjectNotFound", "message": "it is not there"}
    }


def test_failure_leaves_stdout_empty_without_json() -> None:
    result = CliRunner(mix_stderr=False).invoke(command_that(ObjectNotFound("it is not there")), [])

    assert (result.exit_code, result.stdout) == (3, "")


@pytest.mark.parametrize(
    ("arguments", "expected"), [([], "Done.\n"), (["--json"], json.dumps({"a": 1}, indent=2) + "\n")]
)
def test_answer_is_all_there_is_on_stdout(arguments: list[str], expected: str) -> None:
    result = CliRunner(mix_stderr=False).invoke(command_that(Answer({"a": 1}, "Done.")), arguments)

    assert (result.exit_code, result.stdout, result.stderr) == (0, expected, "")


def test_unexpected_error_shows_its_place_but_no_secret() -> None:
    url = f"https://dhdplugin.blob.core.windows.net/c/o?sp=cw&sig={SECRET}"

    result = CliRunner(mix_stderr=False).invoke(command_that(RuntimeError(f"cannot reach {url}")), ["--json"])

    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert SECRET not in result.stderr + result.stdout
    assert json.loads(result.stdout)["error"]["type"] == "RuntimeError"


def test_interruption_cancels_the_work_and_restores_the_handlers() -> None:
    before = signal.getsignal(signal.SIGINT)
    interrupted = threading.Event()

    def work(cancel: CancelToken) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        interrupted.set()
        assert cancel.wait(30)
        cancel.raise_if_cancelled("it")

    with pytest.raises(TransferCancelled):
        interruptible(work)

    assert interrupted.is_set()
    assert signal.getsignal(signal.SIGINT) is before


def test_progress_is_lines_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY", 0)

    with progress.progress_on_stderr("put spool", quiet=False) as report:
        assert report is not None
        report(1 << 20, 4 << 20, 1024.0)
        report(4 << 20, 4 << 20, 2048.0)

    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "put spool: 1.0 MiB of 4.0 MiB (25 %), 1.0 KiB/s",
        "put spool: 4.0 MiB of 4.0 MiB (100 %), 2.0 KiB/s",
    ]


def test_last_progress_is_shown_however_quick_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.progress_on_stderr("put spool", quiet=False) as report:
        assert report is not None
        report(1, 2, 1.0)
        report(2, 2, 1.0)

    assert capsys.readouterr().err == "put spool: 2 bytes of 2 bytes (100 %), 1 bytes/s\n"


def test_quiet_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.progress_on_stderr("put spool", quiet=True) as report:
        assert report is None

    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["put", "get", "stat", "ls", "rm", "verify"])
def test_help_of_every_command_names_the_exit_codes(name: str) -> None:
    result = CliRunner().invoke(objects, [name, "--help"])

    assert result.exit_code == 0
    for code in (0, 1, 2, 3, 4, 5, 6, 7, 130):
        assert f"\n  {code:<3}  " in result.output.replace("\n    ", "\n  ")


@pytest.mark.parametrize("name", ["put", "get"])
def test_help_says_that_nothing_is_decrypted(name: str) -> None:
    result = CliRunner().invoke(objects, [name, "--help"])

    assert "nothing is encrypted or decrypted" in " ".join(result.output.split())
