"""Records of the outbox."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from node_ext.job import RECORD, Job, JobFolder
from vantage6_largefile.errors import LargeFileError


def make_job(**changes: object) -> Job:
    values: dict[str, object] = {
        "run_id": 42,
        "task_id": 7,
        "parent_id": None,
        "collaboration_id": 3,
        "initiating_organization_id": 1,
        "image": "an-image",
        "status": "completed",
        "log": "said something",
        "size": 5,
        "media_type": "application/json",
        "finished_at": "2026-11-22T19:00:00.000000+00:00",
        "taken_at": 1.5,
        **changes,
    }
    return Job(**values)  # type: ignore[arg-type]


def test_record_survives_a_round_trip(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path / "run-000000042")
    folder.create()
    job = make_job(state="uploaded", object_id="an-id", reference={"version": 1}, envelope={"format": "f", "key": "k"})
    folder.write(job)
    assert folder.read() == job


def test_record_is_private(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path / "run-000000042")
    folder.create()
    folder.write(make_job())
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder.path / RECORD).stat().st_mode) == 0o600


def test_half_written_new_record_does_not_hurt_the_old_one(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path / "run-000000042")
    folder.create()
    folder.write(make_job())
    (folder.path / (RECORD + ".new")).write_text('{"run_id": 4')
    assert folder.read() == make_job()


@pytest.mark.parametrize("content", ["", "[]", '{"run_id": 1}', '{"unknown": 1}', "{"])
def test_unreadable_record_is_an_error_that_names_the_file(tmp_path: Path, content: str) -> None:
    folder = JobFolder(tmp_path / "run-000000042")
    folder.create()
    (folder.path / RECORD).write_text(content)
    with pytest.raises(LargeFileError, match="run-000000042"):
        folder.read()


def test_record_of_a_newer_version_is_refused_and_kept(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path / "run-000000042")
    folder.create()
    folder.write(make_job())
    document = json.loads((folder.path / RECORD).read_text())
    (folder.path / RECORD).write_text(json.dumps({**document, "from_the_future": 1}))
    with pytest.raises(LargeFileError, match="from_the_future"):
        folder.read()
    assert (folder.path / RECORD).exists()


def test_remove_takes_everything(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path / "run-000000042")
    folder.create()
    folder.write(make_job())
    folder.plain.write_bytes(b"x")
    folder.remove()
    assert not folder.path.exists()
