"""The record of one finished run in the outbox: a folder with the bytes and ``job.json``.

Every change is written to a temporary name, fsynced and renamed over the old record, so a kill at any instant
leaves either the old or the new record, never half of one.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

from vantage6_largefile.errors import LargeFileError
from vantage6_largefile.transfer.local import sync_folder

RECORD = "job.json"
#: The plaintext, as the algorithm left it. In an encrypted collaboration it is removed once sealed.
PLAIN = "output"
#: The stored form of an encrypted result: sealed once, sent as often as needed.
SEALED = "sealed"
#: What the transfer needs to go on after a restart.
SESSION = "upload.json"

#: taken: the bytes are ours, the container may go. sealed: encrypted for the reader. uploaded: the store has the
#: object, the server not yet the reference. failing: given up with a reason that the server has yet to be told.
#: kept: given up, the server knows, the bytes are kept for the administrator.
State = Literal["taken", "sealed", "uploaded", "failing", "kept"]


@dataclass
class Job:
    """A finished run that the server has not confirmed.

    Attributes
    ----------
    run_id, task_id, parent_id, collaboration_id, initiating_organization_id : int
        As the server numbers them; `parent_id` None for a top-level task.
    image : str
        The algorithm.
    status : str
        vantage6's task status by the container's exit code.
    log : str
        The container's log, or what the hospital allows to share of it.
    size : int or None
        Bytes of plaintext; None when there is no output.
    media_type : str
    finished_at : str
        UTC with microseconds.
    taken_at : float
        Seconds since the epoch; `retry_for` counts from here.
    state : str
    object_id, envelope, reference :
        Once decided: the object's id, the envelope document, and the final reference as it is sent.
    failure : str or None
        Why the run was failed by this node, for the run's log.
    """

    run_id: int
    task_id: int
    parent_id: int | None
    collaboration_id: int
    initiating_organization_id: int
    image: str
    status: str
    log: str
    size: int | None
    media_type: str
    finished_at: str
    taken_at: float
    state: State = "taken"
    object_id: str | None = None
    envelope: dict[str, str] | None = None
    reference: dict[str, object] | None = None
    failure: str | None = None

    def __str__(self) -> str:
        return f"run {self.run_id} (task {self.task_id})"


class JobFolder:
    """One job on disk."""

    def __init__(self, folder: Path) -> None:
        self.path = folder

    @property
    def plain(self) -> Path:
        """The plaintext output."""
        return self.path / PLAIN

    @property
    def sealed(self) -> Path:
        """The encrypted stored form."""
        return self.path / SEALED

    @property
    def session(self) -> Path:
        """The record of the upload."""
        return self.path / SESSION

    def create(self) -> None:
        """Make the folder, for this user alone."""
        self.path.mkdir(mode=0o700, parents=True)
        sync_folder(self.path.parent)

    def write(self, job: Job) -> None:
        """Replace the record, durably."""
        temporary = self.path / (RECORD + ".new")
        with open(temporary, "w", encoding="utf-8", opener=_private) as file:
            json.dump(asdict(job), file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.path / RECORD)
        sync_folder(self.path)

    def read(self) -> Job:
        """The record.

        Raises
        ------
        LargeFileError
            When there is none, or it is not one of ours.
        """
        try:
            document = json.loads((self.path / RECORD).read_text("utf-8"))
            known = {field.name for field in fields(Job)}
            if set(document) - known:
                raise ValueError(f"unknown keys {sorted(set(document) - known)}")
            return Job(**document)
        except (OSError, ValueError, TypeError) as error:
            raise LargeFileError(
                f"The outbox record {self.path / RECORD} cannot be read: {error}.",
                advice="The folder was left as it is; look at it before you remove it.",
            ) from error

    def remove(self) -> None:
        """Remove the job, record first: a folder without a record is never taken for an unfinished job."""
        (self.path / RECORD).unlink(missing_ok=True)
        shutil.rmtree(self.path)
        sync_folder(self.path.parent)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
