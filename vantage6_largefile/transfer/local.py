"""Files on the local disk that a transfer reads or writes."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vantage6_largefile.errors import StoreAccessDenied, StoreFull, StoreMisconfigured

#: Bytes of one write. For longer ones Linux takes its page cache in large blocks, which a virtual machine may have to
#: ask back from its host, at several times the cost of the copy.
WRITE_BYTES = 256 * 1024

_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}


@contextmanager
def local_disk(path: Path) -> Iterator[None]:
    """Turn an operating system error about a local file into one of :mod:`vantage6_largefile.errors`."""
    try:
        yield
    except OSError as error:
        reason = f"Local file {path}: {error.strerror or error}."
        if error.errno in _FULL:
            raise StoreFull(reason, advice="Free some space on the local disk.") from error
        if error.errno in _DENIED:
            raise StoreAccessDenied(reason) from error
        raise StoreMisconfigured(reason) from error


@contextmanager
def closing_descriptor(descriptor: int) -> Iterator[int]:
    """Close a descriptor at the end."""
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of `data` at the descriptor's position."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view[:WRITE_BYTES]) :]


def reserve_space(descriptor: int, size: int) -> None:
    """Take the space of a file beforehand, so that a full disk shows before anything was transferred.

    Does nothing where the system or file system cannot.
    """
    if size == 0 or not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS}:
            raise


def flush_data(descriptor: int) -> None:
    """Bring the bytes of a file to disk."""
    getattr(os, "fdatasync", os.fsync)(descriptor)


def sync_folder(path: Path) -> None:
    """Bring the names in a folder to disk, where the system can."""
    if os.name == "nt":
        return
    with closing_descriptor(os.open(path, os.O_RDONLY)) as descriptor:
        try:
            os.fsync(descriptor)
        except OSError as error:
            # Some network file systems have no fsync for folders and keep them in step by themselves.
            if error.errno not in {errno.EINVAL, errno.ENOTSUP}:
                raise
