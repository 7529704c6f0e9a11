"""The record of one upload on local disk, by which another process can go on where this one was stopped.

A file of JSON lines, each on disk before the work goes on: first what is uploaded and how, then each part that the
store acknowledged, then, before it is sent, the intent to commit. A last line that was cut by a crash is ignored.

While the spool file is still being sealed the record says only that: a file whose sealing was cut short is of no use,
so nothing about its parts has to be on disk. What the store acknowledged meanwhile is written when sealing ends.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from vantage6_largefile.errors import SpoolMismatch
from vantage6_largefile.stores.base import Part, UploadSession
from vantage6_largefile.transfer.local import closing_descriptor, local_disk, sync_folder, write_all

_VERSION = 1


@dataclass(frozen=True, slots=True)
class SpoolState:
    """What tells one state of a spool file from another without reading it."""

    size: int
    modified_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> SpoolState:
        """The state that a `stat` shows."""
        return cls(status.st_size, status.st_mtime_ns)

    def to_list(self) -> list[int]:
        """What :meth:`from_list` takes."""
        return [self.size, self.modified_ns]

    @classmethod
    def from_list(cls, document: object) -> SpoolState:
        """The state that a record holds as a list of two numbers."""
        match document:
            case [int(size), int(modified_ns)]:
                return cls(size, modified_ns)
        raise ValueError("spool is not two numbers")


@dataclass(slots=True)
class UploadRecord:
    """What is known of an upload that has begun.

    Attributes
    ----------
    session : UploadSession
    spool : SpoolState or None
        The spool file when the upload began; None while it is being sealed.
    parts : dict of int to Part
        Acknowledged by the store.
    digests : dict of int to str
        By part number: sha256 (hex) of the file from its start to the end of that part.
    committing : bool
        Whether a commit was about to be sent: the object may be there already.
    """

    path: Path
    session: UploadSession
    spool: SpoolState | None
    parts: dict[int, Part] = field(default_factory=dict)
    digests: dict[int, str] = field(default_factory=dict)
    committing: bool = False
    _lock: Lock = field(default_factory=Lock, repr=False)
    _held_back: bytearray = field(default_factory=bytearray, repr=False)

    @classmethod
    def create(cls, path: Path, session: UploadSession, spool: SpoolState | None) -> UploadRecord:
        """Write a new record in the place of any older one, atomically. No `spool` yet: it is being sealed."""
        head = {
            "version": _VERSION,
            "session": session.to_dict(),
            "spool": None if spool is None else spool.to_list(),
        }
        temporary = path.with_name(f".{path.name}.new")
        with local_disk(path):
            with closing_descriptor(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)) as descriptor:
                write_all(descriptor, _line(head))
                os.fsync(descriptor)
            os.replace(temporary, path)
            sync_folder(path.parent)
        return cls(path, session, spool)

    @classmethod
    def load(cls, path: Path) -> UploadRecord | None:
        """Read a record back; None when there is none.

        Raises
        ------
        SpoolMismatch
            When the file is not a record that this software wrote.
        """
        with local_disk(path):
            try:
                content = path.read_bytes()
            except FileNotFoundError:
                return None
        # Only whole lines count: the last one may have been cut by a crash.
        lines = content.split(b"\n")[:-1]
        try:
            documents = [_object(json.loads(line)) for line in lines]
            head = documents[0]
            if head["version"] != _VERSION:
                raise ValueError(f"version {head['version']!r} is not known")
            spool = None if head["spool"] is None else SpoolState.from_list(head["spool"])
            record = cls(path, UploadSession.from_dict(_object(head["session"])), spool)
            for document in documents[1:]:
                record._apply(document)
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise SpoolMismatch(
                f"Upload record {path} is damaged ({error}).", advice="Remove it to send the object from the start."
            ) from error
        return record

    def acknowledge(self, part: Part, digest: str) -> None:
        """Note a part that the store has; on disk when this returns, unless the spool file is still being sealed."""
        self._append({"part": [part.number, part.size, part.tag, digest]})

    def sealed(self, spool: SpoolState) -> None:
        """Note that the spool file is complete and on disk: from now on the upload can be gone on with."""
        self._append({"sealed": spool.to_list()})

    def announce_commit(self) -> None:
        """Note that a commit is about to be sent."""
        self._append({"committing": True})

    def remove(self) -> None:
        """Remove the record: the upload has ended."""
        with local_disk(self.path):
            self.path.unlink(missing_ok=True)
            sync_folder(self.path.parent)

    def _append(self, document: dict[str, object]) -> None:
        with self._lock, local_disk(self.path):
            lines = bytes(self._held_back) + _line(document)
            self._apply(document)
            if self.spool is None:
                self._held_back[:] = lines
                return
            self._held_back.clear()
            with closing_descriptor(os.open(self.path, os.O_RDWR | os.O_APPEND)) as descriptor:
                # After a crash in mid-line, begin a line of our own: half a line and this one would be lost together.
                size = os.fstat(descriptor).st_size
                os.lseek(descriptor, size - 1, os.SEEK_SET)
                torn = b"" if os.read(descriptor, 1) == b"\n" else b"\n"
                write_all(descriptor, torn + lines)
                os.fsync(descriptor)

    def _apply(self, document: Mapping[str, object]) -> None:
        match document:
            case {"part": [int(number), int(size), str(tag), str(digest)]}:
                self.parts[number] = Part(number, size, tag)
                self.digests[number] = digest
            case {"sealed": list(spool)}:
                self.spool = SpoolState.from_list(spool)
            case {"committing": True}:
                self.committing = True
            case _:
                raise ValueError(f"line {document!r} is not known")


def _line(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def _object(document: object) -> dict[str, object]:
    if not isinstance(document, dict):
        raise ValueError("expected an object")
    return document
