"""Taking the output of a container that is not trusted."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from node_ext.output import OUTPUT_NAME, take_output
from vantage6_largefile.errors import BadOutput


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    task, outbox = tmp_path / "task-000000001", tmp_path / "outbox"
    task.mkdir()
    outbox.mkdir()
    return task, outbox / "output"


def test_output_is_moved_and_only_readable_by_this_user(folders: tuple[Path, Path]) -> None:
    task, target = folders
    (task / OUTPUT_NAME).write_bytes(b"model")

    size = take_output(task, target)

    assert size == 5
    assert target.read_bytes() == b"model"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert not (task / OUTPUT_NAME).exists()


def test_missing_output_is_refused(folders: tuple[Path, Path]) -> None:
    task, target = folders
    with pytest.raises(BadOutput, match="left no output file"):
        take_output(task, target)
    assert not target.exists()


def test_empty_output_is_refused_and_stays(folders: tuple[Path, Path]) -> None:
    task, target = folders
    (task / OUTPUT_NAME).touch()
    with pytest.raises(BadOutput, match="wrote no output"):
        take_output(task, target)
    assert (task / OUTPUT_NAME).exists()
    assert not target.exists()


def test_symlink_to_the_private_key_is_not_followed(folders: tuple[Path, Path], tmp_path: Path) -> None:
    task, target = folders
    key = tmp_path / "private_key.pem"
    key.write_text("secret")
    (task / OUTPUT_NAME).symlink_to(key)
    with pytest.raises(BadOutput, match="not a regular file"):
        take_output(task, target)
    assert not target.exists()
    assert key.read_text() == "secret"


def test_hard_link_is_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    task, target = folders
    key = tmp_path / "private_key.pem"
    key.write_text("secret")
    os.link(key, task / OUTPUT_NAME)
    with pytest.raises(BadOutput, match="more than one link"):
        take_output(task, target)
    assert not target.exists()


def test_named_pipe_is_refused_without_waiting(folders: tuple[Path, Path]) -> None:
    task, target = folders
    os.mkfifo(task / OUTPUT_NAME)
    with pytest.raises(BadOutput, match="not a regular file"):
        take_output(task, target)


def test_folder_is_refused(folders: tuple[Path, Path]) -> None:
    task, target = folders
    (task / OUTPUT_NAME).mkdir()
    with pytest.raises(BadOutput, match="not a regular file"):
        take_output(task, target)


def test_task_folder_that_is_a_symlink_is_not_entered(tmp_path: Path) -> None:
    real = tmp_path / "elsewhere"
    real.mkdir()
    (real / OUTPUT_NAME).write_bytes(b"x")
    (tmp_path / "task-000000001").symlink_to(real)
    with pytest.raises(OSError, match=r"(?i)not a directory|symbolic"):
        take_output(tmp_path / "task-000000001", tmp_path / "target")
    assert (real / OUTPUT_NAME).exists()


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs a second file system")
def test_output_on_another_file_system_is_copied_whole(folders: tuple[Path, Path]) -> None:
    import tempfile

    task, _ = folders
    (task / OUTPUT_NAME).write_bytes(os.urandom(3 << 20))
    expected = (task / OUTPUT_NAME).read_bytes()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as other:
        if os.stat(other).st_dev == os.stat(task).st_dev:
            pytest.skip("both are one file system")
        target = Path(other) / "output"
        assert take_output(task, target) == len(expected)
        assert target.read_bytes() == expected
