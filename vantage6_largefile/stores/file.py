"""The ``file`` driver: objects as files in a folder or on a network share.

``file://<root name>/a/b`` is the file ``a/b`` below the configured folder. Every component below that folder is
opened relative to its parent's descriptor with ``O_NOFOLLOW``, so that neither a symbolic link nor a race with
somebody who plants one leads out of it.

An upload is a folder of its own, ``.v6lf-uploads/<token>/``: one data file, into which each part is written at its
place, and an empty file ``<number>-<size>`` per part that is on disk. A location segment cannot begin with a dot,
so uploads are never visible as objects. Commit is a hard link of the data file (or, on shares without hard links, a
rename that refuses to replace): no byte is written a second time and nothing is ever overwritten.
"""

from __future__ import annotations

import os
import re
import secrets
import stat as stat_module
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from vantage6_largefile.config.store import StoreConfig
from vantage6_largefile.errors import (
    ConfigurationError,
    ObjectChanged,
    ObjectExists,
    ObjectNotFound,
    StoreMisconfigured,
    UploadSessionLost,
)
from vantage6_largefile.location import Location, is_segment
from vantage6_largefile.stores import posix
from vantage6_largefile.stores.base import ObjectInfo, Part, StoreLimits, UploadSession, require_inside
from vantage6_largefile.stores.posix import mapped

#: Folder of unfinished uploads, in the root's own prefix so that its rights are those of the store.
UPLOADS = ".v6lf-uploads"
#: Seconds after which an upload that nobody goes on with is removed; Azure does the same.
STALE_AFTER = 7 * 24 * 3600.0
_DATA = "data"
_TOKEN = re.compile(r"[0-9a-f]{32}\Z")
_MARK = re.compile(r"(\d{1,9})-(\d{1,16})\Z")
_PIECE = 1 << 20
_WRITE = 256 * 1024
_TIB = 1 << 40


class FileStore:
    """Objects as files below one folder. See :class:`~vantage6_largefile.stores.base.Store` for the calls.

    Parameters
    ----------
    root : Location
        ``file://<root name>/<prefix…>``.
    path : Path
        Folder that ``file://<root name>`` stands for. It must exist; the prefix below it is made when needed.
    """

    def __init__(self, root: Location, path: Path) -> None:
        if not posix.SUPPORTED:
            raise ConfigurationError(
                ["driver: 'file' needs an operating system with openat and hard links (Linux, macOS)"]
            )
        self._root = root
        self._path = path

    @property
    def root(self) -> Location:
        """The configured folder with its prefix."""
        return self._root

    @property
    def limits(self) -> StoreLimits:
        """No limits of the store's own; the numbers are where this driver's file names end."""
        return StoreLimits(min_part=1, max_part=_TIB, max_parts=10**8)

    def check(self) -> None:
        """Show that the folder is there and may be entered."""
        with mapped(self._root, "check"), ExitStack() as stack:
            self._open_base(stack)

    # --- upload --------------------------------------------------------------------------------------------------

    def begin(self, location: Location, *, media_type: str, part_size: int) -> UploadSession:
        """Make the upload's folder and its empty data file. The media type is kept in the session alone."""
        require_inside(self._root, location)
        token = secrets.token_hex(16)
        with mapped(location, "begin the upload of"), ExitStack() as stack:
            uploads = self._open_folder(stack, (*self._root.segments, UPLOADS), make=True)
            os.mkdir(token, 0o770, dir_fd=uploads)
            folder = posix.open_folder(token, uploads, stack)
            posix.open_file(_DATA, folder, os.O_WRONLY | os.O_CREAT | os.O_EXCL, stack)
            self._remove_stale(uploads, os.fstat(folder).st_mtime - STALE_AFTER)
        return UploadSession(str(location), token, media_type, part_size)

    def put_part(self, session: UploadSession, number: int, data: bytes | memoryview) -> Part:
        """Write one part at its place; on return it is on disk."""
        location = self._session_location(session)
        size = len(data)
        if number < 1 or size > session.part_size:
            raise ValueError(f"part {number} of {size} bytes does not fit parts of {session.part_size} bytes")
        with mapped(location, "write a part of"), ExitStack() as stack:
            folder = self._open_upload(session, stack)
            descriptor = posix.open_file(_DATA, folder, os.O_WRONLY, stack)
            if os.fstat(descriptor).st_nlink > 1:
                raise UploadSessionLost(f"The upload of {location} was committed; no part of it can change.")
            start = (number - 1) * session.part_size
            # Not at once: for long writes Linux takes its page cache in large blocks, which a virtual machine may have
            # to ask back from its host, at several times the cost of the copy.
            for at in range(0, size, _WRITE):
                posix.write_at(descriptor, memoryview(data)[at : at + _WRITE], start + at)
            posix.flush_data(descriptor)
            for name in os.listdir(folder):
                mark = _MARK.match(name)
                if mark and int(mark[1]) == number and int(mark[2]) != size:
                    with suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=folder)
            posix.open_file(f"{number}-{size}", folder, os.O_WRONLY | os.O_CREAT, stack)
        return Part(number, size, f"{number}-{size}")

    def list_parts(self, session: UploadSession) -> Sequence[Part]:
        """The parts that are on disk."""
        with mapped(self._session_location(session), "list the parts of"), ExitStack() as stack:
            names = os.listdir(self._open_upload(session, stack))
        marks = [mark for mark in map(_MARK.match, names) if mark]
        return sorted((Part(int(m[1]), int(m[2]), m[0]) for m in marks), key=lambda part: part.number)

    def commit(self, session: UploadSession, parts: Sequence[Part]) -> ObjectInfo:
        """Give the data file its name. Committing again what this upload committed is no error."""
        location = self._session_location(session)
        ordered = sorted(parts, key=lambda part: part.number)
        if [part.number for part in ordered] != list(range(1, len(ordered) + 1)) or any(
            part.size != session.part_size for part in ordered[:-1]
        ):
            raise ValueError("the parts of an upload are numbered 1, 2, …, and all but the last have the same size")
        with mapped(location, "commit"), ExitStack() as stack:
            folder = self._open_upload(session, stack)
            there = {name for name in os.listdir(folder) if _MARK.match(name)}
            missing = [part.number for part in ordered if part.tag not in there]
            if missing:
                raise UploadSessionLost(f"Upload of {location}: part {missing[0]} is not in the store.")
            data = posix.open_file(_DATA, folder, os.O_RDWR, stack)
            size = sum(part.size for part in ordered)
            if os.fstat(data).st_size != size:
                # A last part that was sent again may have been longer before.
                os.ftruncate(data, size)
            status = _settle(data)
            self._publish(location, folder, status)
            self._remove_upload(session)
        return _info(location, status)

    def abort(self, session: UploadSession) -> None:
        """Remove the upload's folder."""
        with mapped(self._session_location(session), "abort the upload of"):
            self._remove_upload(session)

    # --- objects -------------------------------------------------------------------------------------------------

    def read(
        self, location: Location, *, offset: int = 0, length: int | None = None, if_match: str | None = None
    ) -> Iterator[bytes]:
        """Stream a range in pieces of 1 MiB; a file that changes in between is an error."""
        require_inside(self._root, location)
        return self._read(location, offset, length, if_match)

    def _read(self, location: Location, offset: int, length: int | None, if_match: str | None) -> Iterator[bytes]:
        with mapped(location, "read"), ExitStack() as stack:
            descriptor = self._open_object(location, stack)
            first = os.fstat(descriptor)
            if if_match is not None and _etag(first) != if_match:
                raise ObjectChanged(f"{location} is not the object that was expected: its etag differs.")
            end = first.st_size if length is None else min(first.st_size, offset + length)
            while offset < end:
                piece = os.pread(descriptor, min(_PIECE, end - offset), offset)
                if not piece or _etag(os.fstat(descriptor)) != _etag(first):
                    raise ObjectChanged(f"{location} was changed while it was being read.")
                offset += len(piece)
                yield piece

    def stat(self, location: Location) -> ObjectInfo:
        """Size, etag and time of a file."""
        require_inside(self._root, location)
        with mapped(location, "look at"), ExitStack() as stack:
            return _info(location, os.fstat(self._open_object(location, stack)))

    def delete(self, location: Location) -> None:
        """Remove a file, and the folders that it leaves empty."""
        require_inside(self._root, location)
        with mapped(location, "delete"), ExitStack() as stack:
            self._open_object(location, stack)
            *folders, name = location.segments
            os.unlink(name, dir_fd=self._open_folder(stack, folders))
            for depth in range(len(folders), len(self._root.segments), -1):
                parent = self._open_folder(stack, folders[: depth - 1])
                try:
                    os.rmdir(folders[depth - 1], dir_fd=parent)
                except OSError:
                    # Not empty, or taken by an upload at this moment: that is what a folder is for.
                    break

    def list(self, prefix: Location) -> Iterator[ObjectInfo]:
        """All files below `prefix`. Links and names that are no location segments are no objects."""
        require_inside(self._root, prefix, or_root=True)
        return self._list(prefix)

    def _list(self, prefix: Location) -> Iterator[ObjectInfo]:
        pending = [prefix]
        with mapped(prefix, "list"), ExitStack() as check:
            self._open_base(check)
        while pending:
            place = pending.pop()
            found: list[tuple[str, os.stat_result]] = []
            with mapped(place, "list"), ExitStack() as stack:
                try:
                    folder = self._open_folder(stack, place.segments)
                except ObjectNotFound:
                    continue
                for name in os.listdir(folder):
                    if is_segment(name):
                        with suppress(FileNotFoundError):
                            found.append((name, os.stat(name, dir_fd=folder, follow_symlinks=False)))
            for name, status in found:
                if stat_module.S_ISDIR(status.st_mode):
                    pending.append(place.child(name))
                elif stat_module.S_ISREG(status.st_mode):
                    yield _info(place.child(name), status)

    def close(self) -> None:
        """Nothing is kept open between calls."""

    # --- folders -------------------------------------------------------------------------------------------------

    def _open_base(self, stack: ExitStack) -> int:
        try:
            return posix.open_folder(os.fspath(self._path), None, stack)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise StoreMisconfigured(
                f"The folder {self._path} of file://{self._root.authority} does not exist or is not a folder.",
                advice="Create or mount it, or change 'path'.",
            ) from error

    def _open_folder(self, stack: ExitStack, segments: Sequence[str], *, make: bool = False) -> int:
        """Open the folder at `segments` below the base, component by component."""
        folder = self._open_base(stack)
        for index, segment in enumerate(segments):
            if make:
                with suppress(FileExistsError):
                    os.mkdir(segment, 0o770, dir_fd=folder)
                    posix.flush_folder(folder)
            where = "/".join((f"file://{self._root.authority}", *segments[: index + 1]))
            try:
                folder = posix.open_folder(segment, folder, stack)
            except FileNotFoundError as error:
                raise ObjectNotFound(f"{where} is not there.") from error
            except OSError as error:
                if not posix.is_not_a_folder(error):
                    raise
                if posix.is_link(segment, folder):
                    raise StoreMisconfigured(
                        f"{where} is a symbolic link; links inside a file store are refused.", advice="Remove it."
                    ) from error
                if make:
                    raise ObjectExists(f"{where} is an object, nothing can lie below it.") from error
                raise ObjectNotFound(f"{where} is not a folder.") from error
        return folder

    def _open_object(self, location: Location, stack: ExitStack) -> int:
        *folders, name = location.segments
        folder = self._open_folder(stack, folders)
        try:
            # O_NONBLOCK: somebody else's FIFO must not hold us up for ever.
            descriptor = posix.open_file(name, folder, os.O_RDONLY | os.O_NONBLOCK, stack)
        except FileNotFoundError as error:
            raise ObjectNotFound(f"{location} is not there.") from error
        except OSError as error:
            if not posix.is_link(name, folder):
                raise
            raise StoreMisconfigured(
                f"{location} is a symbolic link; links inside a file store are refused.", advice="Remove it."
            ) from error
        mode = os.fstat(descriptor).st_mode
        if stat_module.S_ISDIR(mode):
            raise ObjectNotFound(f"{location} is a folder, not an object.")
        if not stat_module.S_ISREG(mode):
            raise StoreMisconfigured(f"{location} is not a regular file; it is not read.", advice="Remove it.")
        return descriptor

    # --- uploads -------------------------------------------------------------------------------------------------

    def _session_location(self, session: UploadSession) -> Location:
        location = Location.parse(session.location)
        require_inside(self._root, location)
        if not _TOKEN.match(session.token):
            raise UploadSessionLost(f"Upload of {location}: its token is not one of this driver.")
        return location

    def _open_upload(self, session: UploadSession, stack: ExitStack) -> int:
        try:
            return self._open_folder(stack, (*self._root.segments, UPLOADS, session.token))
        except ObjectNotFound as error:
            raise UploadSessionLost(
                f"The upload of {session.location} is gone: committed, aborted or cleaned up."
            ) from error

    def _remove_upload(self, session: UploadSession) -> None:
        with ExitStack() as stack:
            try:
                folder = self._open_upload(session, stack)
            except UploadSessionLost:
                return
            for name in os.listdir(folder):
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=folder)
            with suppress(FileNotFoundError):
                os.rmdir(session.token, dir_fd=self._open_folder(stack, (*self._root.segments, UPLOADS)))

    def _remove_stale(self, uploads: int, before: float) -> None:
        """Remove uploads into which nothing was written since `before`, by the store's own clock."""
        for token in os.listdir(uploads):
            # Somebody else's upload may end or be cleaned at this very moment, or belong to another user.
            with suppress(OSError), ExitStack() as stack:
                if _TOKEN.match(token) and os.stat(token, dir_fd=uploads, follow_symlinks=False).st_mtime < before:
                    folder = posix.open_folder(token, uploads, stack)
                    for name in os.listdir(folder):
                        os.unlink(name, dir_fd=folder)
                    os.rmdir(token, dir_fd=uploads)

    def _publish(self, location: Location, upload: int, status: os.stat_result) -> None:
        *folders, name = location.segments
        for _ in range(8):
            with ExitStack() as stack:
                target = self._open_folder(stack, folders, make=True)
                try:
                    posix.link_without_replacing(_DATA, upload, name, target)
                except FileNotFoundError:
                    # A delete nearby took the folder away between opening it and linking into it.
                    continue
                except FileExistsError as error:
                    there = os.stat(name, dir_fd=target, follow_symlinks=False)
                    if not os.path.samestat(there, status):
                        raise ObjectExists(f"{location} is already there; it was not touched.") from error
                posix.flush_folder(target)
                return
        raise StoreMisconfigured(f"{location}: its folder disappears as fast as it is made.")


def _settle(descriptor: int) -> os.stat_result:
    """Bring a finished data file to disk, with a time that every file system and protocol can keep."""
    status = os.fstat(descriptor)
    # Network protocols keep time in 100 ns, local file systems in 1 ns: rounded, writer and reader see the same etag.
    rounded = status.st_mtime_ns // 1000 * 1000
    os.utime(descriptor, ns=(rounded, rounded))
    os.fsync(descriptor)
    return os.fstat(descriptor)


def _etag(status: os.stat_result) -> str:
    # No inode number: another mount of the same share may show another one to the reader.
    return f"{status.st_mtime_ns // 1000:x}-{status.st_size:x}"


def _info(location: Location, status: os.stat_result) -> ObjectInfo:
    return ObjectInfo(location, status.st_size, _etag(status), status.st_mtime)


def open_store(config: StoreConfig) -> FileStore:
    """Open the store of a configuration (entry point of the driver)."""
    path = config.options.get("path")
    if not path or not os.path.isabs(path):
        raise ConfigurationError([f"path: found {path!r}, expected the absolute path of a folder"])
    return FileStore(config.root, Path(path))
