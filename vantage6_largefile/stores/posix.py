"""File operations of the ``file`` driver: relative to an open folder, never through a symbolic link."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from vantage6_largefile.errors import StoreAccessDenied, StoreFull, StoreMisconfigured, StoreUnavailable
from vantage6_largefile.location import Location

#: Whether this system can do what the driver rests on.
SUPPORTED = hasattr(os, "O_NOFOLLOW") and os.open in os.supports_dir_fd and os.link in os.supports_dir_fd

_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_DIRECTORY = getattr(os, "O_DIRECTORY", 0)

_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# A network share that is away for a moment says one of these.
_AWAY = {
    errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH,
    errno.ENOTCONN, errno.ECONNREFUSED, errno.ECONNRESET, errno.EAGAIN, errno.EBUSY, errno.EMFILE, errno.ENFILE,
    errno.ENOMEM,
}  # fmt: skip
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}
_RENAME_NOREPLACE = 1


@contextmanager
def mapped(location: Location, doing: str) -> Iterator[None]:
    """Turn an operating system error into one of :mod:`vantage6_largefile.errors`.

    Parameters
    ----------
    location : Location
        The object or store that the work is about.
    doing : str
        A verb for the message: ``"read"``.
    """
    try:
        yield
    except OSError as error:
        reason = f"Cannot {doing} {location}: {error.strerror or error}."
        if error.errno in _DENIED:
            raise StoreAccessDenied(reason, advice="Have the rights of this user on the folder changed.") from error
        if error.errno in _FULL:
            raise StoreFull(reason, advice="Free some space or raise the quota.") from error
        if error.errno in _AWAY:
            raise StoreUnavailable(reason) from error
        raise StoreMisconfigured(reason) from error


def open_folder(name: str, parent: int | None, stack: ExitStack) -> int:
    """Open a folder; below a `parent`, never through a symbolic link. `stack` closes it."""
    flags = os.O_RDONLY | _DIRECTORY | _NO_FOLLOW
    if parent is None:
        # The configured folder itself is local configuration: a link there is the administrator's own choice.
        flags &= ~getattr(os, "O_NOFOLLOW", 0)
    descriptor = os.open(name, flags, dir_fd=parent)
    stack.callback(os.close, descriptor)
    return descriptor


def open_file(name: str, parent: int, flags: int, stack: ExitStack) -> int:
    """Open a file in a folder, never through a symbolic link. `stack` closes it."""
    descriptor = os.open(name, flags | _NO_FOLLOW, 0o660, dir_fd=parent)
    stack.callback(os.close, descriptor)
    return descriptor


def is_not_a_folder(error: OSError) -> bool:
    """Whether opening a folder failed because the name is something else (systems differ in how they say it)."""
    return error.errno in {errno.ENOTDIR, errno.ELOOP, getattr(errno, "EMLINK", errno.ELOOP)}


def is_link(name: str, parent: int) -> bool:
    """Whether a name in a folder is a symbolic link; False when it is gone."""
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def write_at(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of `data` at `offset`."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view = view[written:]
        offset += written


def flush_data(descriptor: int) -> None:
    """Bring the bytes of a file to disk."""
    getattr(os, "fdatasync", os.fsync)(descriptor)


def flush_folder(descriptor: int) -> None:
    """Bring the names in a folder to disk, where the file system knows how to."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems keep folders in step by themselves and say so with EINVAL.
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:
            raise


def link_without_replacing(name: str, folder: int, new_name: str, new_folder: int) -> None:
    """Give a file a (second) name, atomically, and never in the place of an existing file.

    Raises
    ------
    FileExistsError
        When the new name is taken.
    """
    try:
        os.link(name, new_name, src_dir_fd=folder, dst_dir_fd=new_folder, follow_symlinks=False)
        return
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        no_links = error
    # Only SMB and FAT come here: no hard links. EPERM may also mean what it says, then the rename tells.
    with suppress(AttributeError):
        rename = ctypes.CDLL(None, use_errno=True).renameat2
        if rename(folder, os.fsencode(name), new_folder, os.fsencode(new_name), _RENAME_NOREPLACE) == 0:
            return
        code = ctypes.get_errno()
        if code not in {errno.EINVAL, errno.ENOSYS}:
            raise OSError(code, os.strerror(code))
    raise OSError(
        no_links.errno, "this file system has neither hard links nor a rename that refuses to replace"
    ) from no_links
