"""Taking the output of a finished container, without trusting it.

The algorithm could write whatever it likes into its task folder: a symlink to the node's private key, a hard
link, a device, nothing at all. The file is opened without following links, must be a regular file with one link,
and is *moved* out of the folder, so that what is sent later is what was checked here.
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from vantage6_largefile.errors import BadOutput
from vantage6_largefile.transfer.local import sync_folder

OUTPUT_NAME = "output"


def take_output(task_folder: Path, target: Path) -> int:
    """Move the output of a finished run from its task folder to `target`, durably.

    Parameters
    ----------
    task_folder : Path
        The run's own folder; its content is not trusted.
    target : Path
        Where the file is put, readable by this user alone. Its folder exists. On the same file system this costs
        a rename, otherwise a copy.

    Returns
    -------
    int
        Size in bytes, at least 1.

    Raises
    ------
    BadOutput
        When there is no output, or it is empty, a link, or not a regular file with exactly one link. Nothing
        was moved.
    """
    folder = os.open(task_folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        file = _open_output(folder)
        try:
            found = os.fstat(file)
            _check(found)
            _move(folder, file, found, target)
            return found.st_size
        finally:
            os.close(file)
    finally:
        os.close(folder)


def _open_output(folder: int) -> int:
    try:
        # O_NONBLOCK: opening a named pipe must not wait for a writer.
        return os.open(OUTPUT_NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        raise BadOutput("The algorithm finished but left no output file.") from None
    except OSError as error:
        # ELOOP for a symlink (EMLINK on some systems), ENXIO for a socket.
        raise BadOutput(
            f"The output file of the algorithm is not a regular file ({error.strerror}); it was not read.",
            advice="An algorithm must write its output into the file that it was given.",
        ) from None


def _check(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise BadOutput("The output of the algorithm is not a regular file; it was not read.")
    if found.st_nlink != 1:
        raise BadOutput("The output file of the algorithm has more than one link; it was not read.")
    if found.st_size == 0:
        raise BadOutput("The algorithm finished but wrote no output (the output file is empty).")


def _move(folder: int, file: int, found: os.stat_result, target: Path) -> None:
    try:
        os.rename(OUTPUT_NAME, target, src_dir_fd=folder)
    except OSError:
        # Another file system (or no right to rename): copy what was checked, through the open descriptor.
        with os.fdopen(os.dup(file), "rb") as source, target.open("xb") as sink:
            shutil.copyfileobj(source, sink, 4 << 20)
            sink.flush()
            os.fsync(sink.fileno())
    else:
        moved = os.lstat(target)
        if (moved.st_dev, moved.st_ino) != (found.st_dev, found.st_ino):
            target.unlink()
            raise BadOutput("The output file of the algorithm was replaced while it was taken; it was not read.")
        os.fsync(file)
    os.chmod(target, 0o600)
    sync_folder(target.parent)
