"""Downloading: verified, taken up again where it broke, never a partial file."""

from __future__ import annotations

import hashlib
import os
import resource
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.faulty_store import FaultyStore, failing
from vantage6_largefile.errors import (
    IntegrityError,
    ObjectChanged,
    ObjectNotFound,
    StoreFull,
    StoreUnavailable,
    TransferCancelled,
    TransferStalled,
)
from vantage6_largefile.location import Location
from vantage6_largefile.stores.file import FileStore
from vantage6_largefile.transfer import CancelToken, TransferOptions, download_file, iter_object, retry, upload_stream
from vantage6_largefile.transfer.download import HELD_BACK

MIB = 1 << 20
OPTIONS = TransferOptions(part_size=MIB, concurrency=3, retry_for=30)
ROOT = Location.parse("file://hospital-a")
OBJECT = ROOT.child("object")
SIZES = [0, 1, MIB - 1, MIB, MIB + 1, 2 * MIB, 5 * MIB + 77]


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.005)
    monkeypatch.setattr(retry, "LONGEST_WAIT", 0.02)


class BreakingStore(FaultyStore):
    """Its streams break after so many bytes, as often as wanted; see :mod:`tests.support.faulty_store`."""

    def __init__(self, behind: FileStore) -> None:
        super().__init__(behind)
        self.break_after: Callable[[int], int | None] = lambda call: None
        self.asked: list[tuple[int, int | None, str | None]] = []

    def read(
        self, location: Location, *, offset: int = 0, length: int | None = None, if_match: str | None = None
    ) -> Iterator[bytes]:
        self.asked.append((offset, length, if_match))
        left = self.break_after(len(self.asked))
        for piece in super().read(location, offset=offset, length=length, if_match=if_match):
            for start in range(0, len(piece), 100_000):
                part = piece[start : start + 100_000]
                if left is not None:
                    if left <= 0:
                        raise StoreUnavailable("the connection broke")
                    left -= len(part)
                yield part


@pytest.fixture
def store(tmp_path: Path) -> BreakingStore:
    (tmp_path / "store").mkdir()
    return BreakingStore(FileStore(ROOT, tmp_path / "store"))


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "target").mkdir()
    return tmp_path / "target" / "result.parquet"


def put(store: FaultyStore, data: bytes) -> str:
    return upload_stream(store, [data], OBJECT, media_type="text/plain", options=OPTIONS).sha256


def object_file(tmp_path: Path) -> Path:
    return tmp_path / "store" / "object"


# --- streams ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_stream_yields_the_object(store: BreakingStore, size: int) -> None:
    data = os.urandom(size)
    sha256 = put(store, data)

    pieces = list(iter_object(store, OBJECT, stored_size=size, sha256=sha256, options=OPTIONS))

    assert b"".join(pieces) == data
    assert all(0 < len(piece) <= 4 * MIB for piece in pieces)


@pytest.mark.parametrize("size", [size for size in SIZES if size])
def test_last_block_is_held_back_when_the_digest_differs(store: BreakingStore, size: int) -> None:
    data = os.urandom(size)
    put(store, data)
    got = bytearray()

    def consume() -> None:
        for piece in iter_object(store, OBJECT, stored_size=size, sha256="0" * 64, options=OPTIONS):
            got.extend(piece)

    with pytest.raises(IntegrityError, match="sha256"):
        consume()

    assert len(got) <= max(0, size - HELD_BACK)
    assert data.startswith(got)


@pytest.mark.parametrize("position", [0, 2 * MIB, 5 * MIB + 76])
def test_flipped_bit_is_found(store: BreakingStore, tmp_path: Path, position: int) -> None:
    data = bytearray(os.urandom(5 * MIB + 77))
    sha256 = put(store, bytes(data))
    data[position] ^= 1
    object_file(tmp_path).write_bytes(data)

    with pytest.raises(IntegrityError):
        list(iter_object(store, OBJECT, stored_size=len(data), sha256=sha256, options=OPTIONS))


@pytest.mark.parametrize("size", [1, MIB, MIB + 1, 3 * MIB])
@pytest.mark.parametrize("change", [-1, +1])
def test_object_of_another_size_is_found(store: BreakingStore, size: int, change: int) -> None:
    data = os.urandom(size)
    put(store, data)
    announced = size + change
    # The digest fits what was announced: the size alone must give it away.
    sha256 = hashlib.sha256(data[:announced]).hexdigest()

    with pytest.raises(IntegrityError, match=r"ends after|longer than"):
        list(iter_object(store, OBJECT, stored_size=announced, sha256=sha256, options=OPTIONS))


def test_object_that_should_be_empty_and_is_not_is_found(store: BreakingStore) -> None:
    put(store, b"x")
    sha256 = hashlib.sha256(b"").hexdigest()

    with pytest.raises(IntegrityError, match="longer than"):
        list(iter_object(store, OBJECT, stored_size=0, sha256=sha256, options=OPTIONS))


def test_broken_connection_is_taken_up_where_it_broke(store: BreakingStore) -> None:
    data = os.urandom(3 * MIB)
    sha256 = put(store, data)
    store.break_after = lambda call: 250_000 if call % 3 else None

    read = b"".join(
        iter_object(store, OBJECT, stored_size=len(data), sha256=sha256, etag=store.stat(OBJECT).etag, options=OPTIONS)
    )

    assert read == data
    offsets = sorted(offset for offset, _, _ in store.asked)
    assert len(set(offsets)) == len(offsets), "a byte was asked for twice"
    assert len(offsets) > 3


def test_every_request_demands_the_etag(store: BreakingStore) -> None:
    data = os.urandom(3 * MIB)
    sha256 = put(store, data)
    etag = store.stat(OBJECT).etag

    list(iter_object(store, OBJECT, stored_size=len(data), sha256=sha256, etag=etag, options=OPTIONS))

    assert {asked[2] for asked in store.asked} == {etag}


def test_object_that_is_replaced_in_between_is_found(store: BreakingStore) -> None:
    data = os.urandom(8 * MIB)
    sha256 = put(store, data)
    etag = store.stat(OBJECT).etag
    options = TransferOptions(part_size=MIB, concurrency=1)
    pieces = iter_object(store, OBJECT, stored_size=len(data), sha256=sha256, etag=etag, options=options)
    next(pieces)

    store.delete(OBJECT)
    put(store, os.urandom(8 * MIB))

    # read-ahead may ask in the moment when it was gone: that is found too
    with pytest.raises((ObjectChanged, ObjectNotFound)):
        list(pieces)


def test_missing_object_is_not_waited_for(store: BreakingStore) -> None:
    with pytest.raises(ObjectNotFound):
        list(iter_object(store, OBJECT, stored_size=1, sha256="0" * 64, options=OPTIONS))
    assert len(store.asked) == 1


def test_store_that_stays_away_is_given_up(store: BreakingStore) -> None:
    sha256 = put(store, b"x")
    store.before["read"] = failing(StoreUnavailable("the store is away"))

    with pytest.raises(TransferStalled, match="the store is away"):
        list(iter_object(store, OBJECT, stored_size=1, sha256=sha256, options=TransferOptions(retry_for=0.1)))


def test_nothing_is_asked_before_the_first_piece_is(store: BreakingStore) -> None:
    put(store, b"x")
    iter_object(store, OBJECT, stored_size=1, sha256="0" * 64, options=OPTIONS)
    assert store.asked == []


def test_reading_ahead_is_bounded(store: BreakingStore) -> None:
    data = os.urandom(20 * MIB)
    sha256 = put(store, data)
    pieces = iter_object(store, OBJECT, stored_size=len(data), sha256=sha256, options=OPTIONS)
    got = 0

    for piece in pieces:
        got += len(piece)
        asked = max(offset for offset, _, _ in store.asked)
        assert asked <= got + HELD_BACK + (OPTIONS.concurrency + 1) * OPTIONS.part_size


def test_consumer_that_leaves_ends_the_threads(store: BreakingStore) -> None:
    data = os.urandom(20 * MIB)
    sha256 = put(store, data)
    pieces = iter_object(store, OBJECT, stored_size=len(data), sha256=sha256, options=OPTIONS)
    next(pieces)

    pieces.close()

    assert not [thread for thread in threading.enumerate() if thread.name.startswith("v6lf-download")]


@pytest.mark.parametrize(("offset", "length"), [(0, 0), (0, 10), (5, MIB), (MIB - 1, 2), (3 * MIB, 77), (7, None)])
def test_range(store: BreakingStore, offset: int, length: int | None) -> None:
    data = os.urandom(3 * MIB + 77)
    put(store, data)
    end = len(data) if length is None else offset + length

    read = iter_object(
        store, OBJECT, stored_size=len(data), sha256="0" * 64, options=OPTIONS, offset=offset, length=length
    )

    assert b"".join(read) == data[offset:end]


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, 12), (11, 0), (5, -1)])
def test_range_outside_the_object_is_a_mistake(store: BreakingStore, offset: int, length: int) -> None:
    with pytest.raises(ValueError, match="range"):
        iter_object(store, OBJECT, stored_size=10, sha256=None, options=OPTIONS, offset=offset, length=length)


def test_cancel_ends_the_stream(store: BreakingStore) -> None:
    data = os.urandom(20 * MIB)
    sha256 = put(store, data)
    cancel = CancelToken()
    pieces = iter_object(store, OBJECT, stored_size=len(data), sha256=sha256, options=OPTIONS, cancel=cancel)
    next(pieces)

    cancel.cancel()

    with pytest.raises(TransferCancelled):
        list(pieces)


def test_progress_goes_up_to_the_size(store: BreakingStore) -> None:
    data = os.urandom(3 * MIB + 1)
    sha256 = put(store, data)
    seen: list[tuple[int, int | None]] = []

    list(
        iter_object(
            store,
            OBJECT,
            stored_size=len(data),
            sha256=sha256,
            options=OPTIONS,
            progress=lambda done, total, rate: seen.append((done, total)),
        )
    )

    assert seen[-1] == (len(data), len(data))
    assert seen == sorted(seen)


# --- files --------------------------------------------------------------------------------------------------------


def fetch(store: FaultyStore, target: Path, size: int, sha256: str, **kwargs: object) -> None:
    download_file(store, OBJECT, target, stored_size=size, sha256=sha256, options=OPTIONS, **kwargs)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", SIZES)
def test_file_arrives_whole_and_alone(store: BreakingStore, target: Path, size: int) -> None:
    data = os.urandom(size)
    sha256 = put(store, data)

    fetch(store, target, size, sha256)

    assert target.read_bytes() == data
    assert os.listdir(target.parent) == [target.name]


@pytest.mark.parametrize("before", [None, b"an older file"])
def test_damaged_object_leaves_no_file(store: BreakingStore, target: Path, before: bytes | None) -> None:
    put(store, os.urandom(3 * MIB))
    if before is not None:
        target.write_bytes(before)

    with pytest.raises(IntegrityError):
        fetch(store, target, 3 * MIB, "0" * 64)

    assert os.listdir(target.parent) == ([] if before is None else [target.name])
    assert before is None or target.read_bytes() == before


def test_file_has_no_name_before_it_is_whole(store: BreakingStore, target: Path) -> None:
    data = os.urandom(5 * MIB)
    sha256 = put(store, data)
    names: set[str] = set()

    def look(done: int, total: int | None, rate: float) -> None:
        names.update(os.listdir(target.parent))

    fetch(store, target, len(data), sha256, progress=look)

    assert names
    assert target.name not in names


def test_full_disk_is_found_before_anything_is_transferred(store: BreakingStore, target: Path) -> None:
    data = os.urandom(3 * MIB)
    sha256 = put(store, data)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, hard))
    try:
        with pytest.raises(StoreFull, match=target.name):
            fetch(store, target, len(data), sha256)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert store.asked == []
    assert os.listdir(target.parent) == []


def test_cancelled_download_leaves_no_file(store: BreakingStore, target: Path) -> None:
    data = os.urandom(5 * MIB)
    sha256 = put(store, data)
    cancel = CancelToken()

    with pytest.raises(TransferCancelled):
        fetch(store, target, len(data), sha256, cancel=cancel, progress=lambda *_: cancel.cancel())

    assert os.listdir(target.parent) == []
