"""The ``file`` driver: what it refuses, what it leaves behind, how it names failures."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vantage6_largefile.config.store import StoreConfig
from vantage6_largefile.errors import (
    ConfigurationError,
    InvalidReference,
    LargeFileError,
    ObjectExists,
    ObjectNotFound,
    StoreAccessDenied,
    StoreFull,
    StoreMisconfigured,
    StoreUnavailable,
    UploadSessionLost,
)
from vantage6_largefile.location import Location
from vantage6_largefile.stores.base import Part, UploadSession
from vantage6_largefile.stores.file import STALE_AFTER, UPLOADS, FileStore, open_store
from vantage6_largefile.stores.posix import mapped

ROOT = Location.parse("file://hospital-a/prefix")
PART = 1024


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "share"
    path.mkdir()
    return path


@pytest.fixture
def store(folder: Path) -> FileStore:
    return FileStore(ROOT, folder)


def write(store: FileStore, location: Location, data: bytes) -> None:
    session = store.begin(location, media_type="text/plain", part_size=max(len(data), 1))
    store.commit(session, [store.put_part(session, 1, data)])


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


# --- links and odd files ------------------------------------------------------------------------------------------


def test_link_to_a_folder_outside_is_refused_for_every_call(store: FileStore, folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"of hospital b")
    write(store, store.root.child("a", "object"), b"x")
    (folder / "prefix" / "planted").symlink_to(outside)
    location = store.root.child("planted", "secret")

    for call in (lambda: list(store.read(location)), lambda: store.stat(location), lambda: store.delete(location)):
        with pytest.raises(StoreMisconfigured, match="symbolic link"):
            call()
    with pytest.raises(StoreMisconfigured, match="symbolic link"):
        write(store, store.root.child("planted", "new"), b"y")
    assert [info.location for info in store.list(store.root)] == [store.root.child("a", "object")]
    with pytest.raises(StoreMisconfigured, match="symbolic link"):
        list(store.list(store.root.child("planted")))
    assert (outside / "secret").read_bytes() == b"of hospital b"
    assert os.listdir(outside) == ["secret"]


def test_link_to_a_file_is_refused(store: FileStore, folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"of hospital b")
    (folder / "prefix").mkdir()
    (folder / "prefix" / "object").symlink_to(secret)
    location = store.root.child("object")

    for call in (lambda: list(store.read(location)), lambda: store.stat(location), lambda: store.delete(location)):
        with pytest.raises(StoreMisconfigured, match="symbolic link"):
            call()
    with pytest.raises(ObjectExists):
        write(store, location, b"y")
    assert secret.read_bytes() == b"of hospital b"


def test_prefix_that_is_a_link_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (folder / "prefix").symlink_to(tmp_path / "outside")
    store = FileStore(ROOT, folder)

    with pytest.raises(StoreMisconfigured, match="symbolic link"):
        write(store, store.root.child("object"), b"x")
    assert os.listdir(tmp_path / "outside") == []


def test_uploads_folder_that_is_a_link_is_refused(store: FileStore, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (folder / "prefix").mkdir()
    (folder / "prefix" / UPLOADS).symlink_to(tmp_path / "outside")

    with pytest.raises(StoreMisconfigured, match="symbolic link"):
        store.begin(store.root.child("object"), media_type="text/plain", part_size=PART)
    assert os.listdir(tmp_path / "outside") == []


def test_fifo_is_neither_read_nor_waited_for(store: FileStore, folder: Path) -> None:
    (folder / "prefix").mkdir()
    os.mkfifo(folder / "prefix" / "object")

    with pytest.raises(StoreMisconfigured, match="not a regular file"):
        list(store.read(store.root.child("object")))


@pytest.mark.parametrize("segment", ["..", ".", "", UPLOADS, "a/b", "a\\b", "%2e%2e", "a."])
def test_names_that_lead_elsewhere_are_no_locations(store: FileStore, segment: str) -> None:
    with pytest.raises(InvalidReference):
        store.root.child(segment)


@pytest.mark.parametrize("token", ["../../../etc", "..", "", "x" * 32, "A" * 32])
def test_forged_upload_token_is_refused(store: FileStore, token: str) -> None:
    session = UploadSession(str(store.root.child("object")), token, "text/plain", PART)

    with pytest.raises(UploadSessionLost):
        store.put_part(session, 1, b"x")
    with pytest.raises(UploadSessionLost):
        store.abort(session)


# --- what is left behind ------------------------------------------------------------------------------------------


def test_commit_leaves_one_file_and_no_upload(store: FileStore, folder: Path) -> None:
    write(store, store.root.child("run-1", "object"), b"x")

    assert everything(folder) == {"prefix", f"prefix/{UPLOADS}", "prefix/run-1", "prefix/run-1/object"}
    assert (folder / "prefix/run-1/object").stat().st_nlink == 1


def test_commit_does_not_write_the_bytes_a_second_time(store: FileStore, folder: Path) -> None:
    session = store.begin(store.root.child("object"), media_type="text/plain", part_size=PART)
    parts = [store.put_part(session, 1, b"x" * PART), store.put_part(session, 2, b"y")]
    inode = (folder / "prefix" / UPLOADS / session.token / "data").stat().st_ino

    store.commit(session, parts)

    assert (folder / "prefix" / "object").stat().st_ino == inode


def test_abort_removes_the_upload(store: FileStore, folder: Path) -> None:
    session = store.begin(store.root.child("object"), media_type="text/plain", part_size=PART)
    store.put_part(session, 1, b"x" * PART)

    store.abort(session)

    assert everything(folder) == {"prefix", f"prefix/{UPLOADS}"}
    with pytest.raises(UploadSessionLost):
        store.put_part(session, 2, b"x")
    with pytest.raises(UploadSessionLost):
        store.list_parts(session)


def test_delete_removes_folders_that_it_leaves_empty(store: FileStore, folder: Path) -> None:
    write(store, store.root.child("c1", "results", "run-1", "object"), b"x")
    write(store, store.root.child("c1", "inputs", "object"), b"x")

    store.delete(store.root.child("c1", "results", "run-1", "object"))

    assert not (folder / "prefix/c1/results").exists()
    assert (folder / "prefix/c1/inputs/object").exists()


def test_uploads_that_nobody_goes_on_with_are_removed(store: FileStore, folder: Path) -> None:
    old = store.begin(store.root.child("old"), media_type="text/plain", part_size=PART)
    store.put_part(old, 1, b"x")
    recent = store.begin(store.root.child("recent"), media_type="text/plain", part_size=PART)
    for session, age in ((old, STALE_AFTER + 60), (recent, STALE_AFTER - 3600)):
        path = folder / "prefix" / UPLOADS / session.token
        then = path.stat().st_mtime - age
        os.utime(path, (then, then))

    store.begin(store.root.child("new"), media_type="text/plain", part_size=PART)

    assert not (folder / "prefix" / UPLOADS / old.token).exists()
    assert store.list_parts(recent) == []


# --- commit -------------------------------------------------------------------------------------------------------


def test_commit_that_was_interrupted_after_the_link_is_taken_up_again(store: FileStore, folder: Path) -> None:
    location = store.root.child("object")
    session = store.begin(location, media_type="text/plain", part_size=PART)
    part = store.put_part(session, 1, b"x" * PART)
    os.link(folder / "prefix" / UPLOADS / session.token / "data", folder / "prefix" / "object")

    info = store.commit(session, [part])

    assert info.size == PART
    assert list((folder / "prefix" / UPLOADS).iterdir()) == []


def test_part_after_the_commit_cannot_change_the_object(store: FileStore, folder: Path) -> None:
    location = store.root.child("object")
    session = store.begin(location, media_type="text/plain", part_size=PART)
    store.put_part(session, 1, b"x" * PART)
    os.link(folder / "prefix" / UPLOADS / session.token / "data", folder / "prefix" / "object")

    with pytest.raises(UploadSessionLost):
        store.put_part(session, 1, b"y" * PART)
    assert b"".join(store.read(location)) == b"x" * PART


def test_commit_with_a_part_that_is_not_there_is_refused(store: FileStore) -> None:
    session = store.begin(store.root.child("object"), media_type="text/plain", part_size=PART)
    part = store.put_part(session, 1, b"x" * PART)

    with pytest.raises(UploadSessionLost):
        store.commit(session, [part, Part(2, 3, "2-3")])
    with pytest.raises(ObjectNotFound):
        store.stat(store.root.child("object"))


def test_commit_with_a_gap_is_refused(store: FileStore) -> None:
    session = store.begin(store.root.child("object"), media_type="text/plain", part_size=PART)
    parts = [store.put_part(session, 1, b"x" * PART), store.put_part(session, 3, b"x")]

    with pytest.raises(ValueError, match="numbered"):
        store.commit(session, parts)


def test_object_below_an_object_cannot_be(store: FileStore) -> None:
    write(store, store.root.child("object"), b"x")

    with pytest.raises(ObjectExists):
        write(store, store.root.child("object", "below"), b"y")


# --- failures and what they are called -------------------------------------------------------------------------------


def test_missing_folder_is_a_matter_of_configuration(tmp_path: Path) -> None:
    store = FileStore(ROOT, tmp_path / "not mounted")

    for call in (store.check, lambda: write(store, ROOT.child("a"), b""), lambda: store.stat(ROOT.child("a"))):
        with pytest.raises(StoreMisconfigured, match="does not exist"):
            call()
    with pytest.raises(StoreMisconfigured, match="does not exist"):
        list(store.list(ROOT))


def test_file_in_the_place_of_the_folder_is_a_matter_of_configuration(tmp_path: Path) -> None:
    (tmp_path / "share").write_bytes(b"")

    with pytest.raises(StoreMisconfigured):
        FileStore(ROOT, tmp_path / "share").check()


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_no_room_is_store_full(store: FileStore) -> None:
    session = store.begin(store.root.child("object"), media_type="text/plain", part_size=1 << 20)

    with largest_file(1 << 16), pytest.raises(StoreFull):
        store.put_part(session, 1, b"x" * (1 << 20))


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (errno.EACCES, StoreAccessDenied),
        (errno.EPERM, StoreAccessDenied),
        (errno.EROFS, StoreAccessDenied),
        (errno.ENOSPC, StoreFull),
        (errno.EDQUOT, StoreFull),
        (errno.EIO, StoreUnavailable),
        (errno.ESTALE, StoreUnavailable),
        (errno.EHOSTDOWN, StoreUnavailable),
        (errno.ENAMETOOLONG, StoreMisconfigured),
        (errno.EINVAL, StoreMisconfigured),
    ],
)
def test_system_errors_are_named(code: int, expected: type[LargeFileError]) -> None:
    with (
        pytest.raises(expected, match="file://hospital-a/prefix/object") as caught,
        mapped(ROOT.child("object"), "read"),
    ):
        raise OSError(code, os.strerror(code))
    assert type(caught.value) is expected


@pytest.mark.skipif(os.geteuid() == 0, reason="root is refused nothing")
def test_folder_without_rights_is_access_denied(store: FileStore, folder: Path) -> None:
    folder.chmod(0o500)
    with pytest.raises(StoreAccessDenied):
        write(store, store.root.child("object"), b"x")


@pytest.mark.parametrize("options", [{}, {"path": "relative"}, {"path": ""}])
def test_path_must_be_absolute(options: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="absolute"):
        open_store(StoreConfig("file", ROOT, options, None))
