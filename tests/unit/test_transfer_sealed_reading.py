"""Reading encrypted objects: as a stream, as a file, and as a seekable file."""

from __future__ import annotations

import collections
import io
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support.faulty_store import FaultyStore, failing
from vantage6_largefile.envelope import Opener, new_sealer, opener
from vantage6_largefile.errors import (
    EnvelopeError,
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
from vantage6_largefile.transfer import (
    CancelToken,
    StoredObject,
    TransferOptions,
    download_opened,
    iter_opened,
    local,
    open_object,
    retry,
    upload_sealed,
    upload_stream,
)

MIB = 1 << 20
OPTIONS = TransferOptions(part_size=2 * MIB, concurrency=3, retry_for=0)
ROOT = Location.parse("file://hospital-a")
OBJECT = ROOT.child("object")
CONTEXT = b"v6lf/1|result|42|0b6e2a1c-7b0e-4c8e-9a35-6d1f6c1c2a11"
KEY = rsa.generate_private_key(65537, 2048)
AWAY = StoreUnavailable("the store is away")
#: Around the ends of the first segment and of a later one, and of ranges of two segments.
SIZES = [0, 1, MIB - 57, MIB - 56, MIB - 55, 2 * MIB - 72, 2 * MIB - 71, 7 * MIB + 123]


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.005)


@pytest.fixture
def store(tmp_path: Path) -> FaultyStore:
    (tmp_path / "store").mkdir()
    return FaultyStore(FileStore(ROOT, tmp_path / "store"))


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "target").mkdir()
    return tmp_path / "target" / "result.parquet"


def put(store: FaultyStore, data: bytes) -> tuple[Opener, StoredObject]:
    with new_sealer(CONTEXT) as sealer:
        envelope = sealer.wrapped_for(KEY.public_key())
        stored = upload_sealed(
            store, io.BytesIO(data), OBJECT, sealer=sealer, size=len(data), media_type="a/b", options=OPTIONS
        )
    return opener(envelope, KEY, CONTEXT), stored


def replace(store: FaultyStore, change: Callable[[bytearray], object]) -> None:
    """Somebody with the right to do so changes the object in its store."""
    data = bytearray(b"".join(store.read(OBJECT)))
    change(data)
    store.delete(OBJECT)
    upload_stream(store, [bytes(data)], OBJECT, media_type="a/b", options=OPTIONS)


def swap(data: bytearray, one: int, other: int) -> None:
    one_slice, other_slice = slice(one * MIB, (one + 1) * MIB), slice(other * MIB, (other + 1) * MIB)
    data[one_slice], data[other_slice] = data[other_slice], data[one_slice]


def flip(position: int) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        data[position] ^= 1

    return change


TAMPERED = {
    "header": flip(0),
    "salt": flip(1),
    "first segment": flip(40),
    "boundary": flip(MIB),
    "middle": flip(4 * MIB + 5),
    "last tag": flip(-1),
    "cut in a segment": lambda data: data.__delitem__(slice(-1, None)),
    "cut at a segment": lambda data: data.__delitem__(slice(7 * MIB, None)),
    "longer": lambda data: data.append(0),
    "swapped": lambda data: swap(data, 2, 3),
    "dropped": lambda data: data.__delitem__(slice(2 * MIB, 3 * MIB)),
    "repeated": lambda data: data.__setitem__(slice(3 * MIB, 4 * MIB), data[2 * MIB : 3 * MIB]),
}
tampered = pytest.mark.parametrize("change", TAMPERED.values(), ids=TAMPERED.keys())


# --- stream and file ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_stream_and_file_are_the_plaintext(store: FaultyStore, target: Path, size: int) -> None:
    data = os.urandom(size)
    opened, stored = put(store, data)
    seen: list[tuple[int, int | None]] = []

    streamed = b"".join(
        iter_opened(
            store,
            OBJECT,
            opener=opened,
            size=size,
            etag=stored.etag,
            options=OPTIONS,
            progress=lambda done, total, rate: seen.append((done, total)),
        )
    )
    download_opened(store, OBJECT, target, opener=opened, size=size, etag=stored.etag, options=OPTIONS)

    assert streamed == data
    assert target.read_bytes() == data
    assert seen[-1] == (size, size)
    assert os.listdir(target.parent) == [target.name]


@pytest.mark.parametrize("part_size", [100_000, MIB, 3 * MIB + 1, 64 * MIB])
def test_ranges_are_whole_segments_whatever_the_part_size(store: FaultyStore, part_size: int) -> None:
    data = os.urandom(7 * MIB + 123)
    opened, _ = put(store, data)
    options = TransferOptions(part_size=part_size, concurrency=2, retry_for=0)

    assert b"".join(iter_opened(store, OBJECT, opener=opened, size=len(data), options=options)) == data


def test_pieces_are_segments(store: FaultyStore) -> None:
    data = os.urandom(7 * MIB + 123)
    opened, _ = put(store, data)

    pieces = list(iter_opened(store, OBJECT, opener=opened, size=len(data), options=OPTIONS))

    assert max(map(len, pieces)) <= MIB
    assert len(pieces) == 8


@tampered
def test_tampered_object_is_never_a_whole_stream(store: FaultyStore, change: Callable[[bytearray], object]) -> None:
    data = os.urandom(7 * MIB + 123)
    opened, _ = put(store, data)
    replace(store, change)
    got = bytearray()
    pieces = iter_opened(store, OBJECT, opener=opened, size=len(data), options=OPTIONS)

    with pytest.raises(IntegrityError):
        collections.deque(map(got.extend, pieces), maxlen=0)

    assert len(got) < len(data)
    assert data.startswith(got)


@tampered
def test_tampered_object_never_gets_a_name(
    store: FaultyStore, target: Path, change: Callable[[bytearray], object]
) -> None:
    opened, _ = put(store, os.urandom(7 * MIB + 123))
    replace(store, change)

    with pytest.raises(IntegrityError):
        download_opened(store, OBJECT, target, opener=opened, size=7 * MIB + 123, options=OPTIONS)

    assert os.listdir(target.parent) == []


def test_object_of_another_place_does_not_open(store: FaultyStore, target: Path) -> None:
    with new_sealer(b"v6lf/1|result|43|0b6e2a1c-7b0e-4c8e-9a35-6d1f6c1c2a11") as sealer:
        envelope = sealer.wrapped_for(KEY.public_key())
        upload_sealed(store, [b"secret"], OBJECT, sealer=sealer, media_type="a/b", options=OPTIONS)

    with pytest.raises(EnvelopeError):
        download_opened(store, OBJECT, target, opener=opener(envelope, KEY, CONTEXT), size=6, options=OPTIONS)

    assert os.listdir(target.parent) == []


def test_replaced_object_is_found_by_its_etag(store: FaultyStore) -> None:
    opened, stored = put(store, os.urandom(3 * MIB))
    replace(store, flip(-1))

    with pytest.raises(ObjectChanged):
        list(iter_opened(store, OBJECT, opener=opened, size=3 * MIB, etag=stored.etag, options=OPTIONS))


@pytest.mark.parametrize("call", [1, 2, 3])
def test_store_that_goes_away_leaves_no_file(store: FaultyStore, target: Path, call: int) -> None:
    """Also when it is the range with the header that fails, for which all the others wait."""
    opened, _ = put(store, os.urandom(7 * MIB))
    store.before["read"] = failing(AWAY, call)

    with pytest.raises(TransferStalled):
        download_opened(store, OBJECT, target, opener=opened, size=7 * MIB, options=OPTIONS)

    assert os.listdir(target.parent) == []


def test_broken_read_is_taken_up_again(store: FaultyStore, target: Path) -> None:
    data = os.urandom(7 * MIB)
    opened, _ = put(store, data)
    store.before["read"] = failing(AWAY, 1, 3)
    options = TransferOptions(part_size=2 * MIB, concurrency=3, retry_for=30)

    download_opened(store, OBJECT, target, opener=opened, size=len(data), options=options)

    assert target.read_bytes() == data


def test_cancel_ends_the_stream_and_leaves_no_file(store: FaultyStore, target: Path) -> None:
    opened, _ = put(store, os.urandom(12 * MIB))
    cancel = CancelToken()
    pieces = iter_opened(store, OBJECT, opener=opened, size=12 * MIB, options=OPTIONS, cancel=cancel)
    next(pieces)
    cancel.cancel()

    with pytest.raises(TransferCancelled):
        list(pieces)
    with pytest.raises(TransferCancelled):
        download_opened(store, OBJECT, target, opener=opened, size=12 * MIB, options=OPTIONS, cancel=cancel)

    assert os.listdir(target.parent) == []


def test_full_disk_shows_before_anything_is_asked_for(
    store: FaultyStore, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, _ = put(store, os.urandom(2 * MIB))

    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(local.os, "posix_fallocate", no_space)

    with pytest.raises(StoreFull):
        download_opened(store, OBJECT, target, opener=opened, size=2 * MIB, options=OPTIONS)

    assert store.calls["read"] == 0
    assert os.listdir(target.parent) == []


# --- seekable -----------------------------------------------------------------------------------------------------


@pytest.fixture(params=["plain", "sealed"])
def sealed(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "sealed")


def opened_object(store: FaultyStore, data: bytes, sealed: bool) -> io.BufferedReader:
    if sealed:
        opened, stored = put(store, data)
        return open_object(
            store,
            OBJECT,
            stored_size=stored.stored_size,
            etag=stored.etag,
            options=OPTIONS,
            opener=opened,
            size=len(data),
        )
    stored = upload_stream(store, [data], OBJECT, media_type="a/b", options=OPTIONS)
    return open_object(store, OBJECT, stored_size=len(data), etag=stored.etag, options=OPTIONS)


@pytest.mark.parametrize("size", SIZES)
def test_whole_file_is_the_plaintext(store: FaultyStore, sealed: bool, size: int) -> None:
    data = os.urandom(size)

    with opened_object(store, data, sealed) as file:
        assert file.read() == data
        assert file.read() == b""


def test_reads_anywhere_equal_the_plaintext(store: FaultyStore, sealed: bool) -> None:
    data = os.urandom(9 * MIB + 77)
    choose = random.Random(1)

    with opened_object(store, data, sealed) as file:
        for _ in range(60):
            offset = choose.randrange(len(data) + 10)
            length = choose.choice([0, 1, 1000, MIB, 3 * MIB])
            file.seek(offset)
            assert file.read(length) == data[offset : offset + length]
            assert file.tell() == offset + len(data[offset : offset + length])
        file.seek(-5, io.SEEK_END)
        assert file.read() == data[-5:]


def test_reading_in_order_is_fetched_ahead_in_large_blocks(store: FaultyStore, sealed: bool) -> None:
    data = os.urandom(16 * MIB)

    with opened_object(store, data, sealed) as file:
        got = b"".join(iter(lambda: file.read(100_000), b""))

    assert got == data
    # 8 blocks, and what was read before it was clear that reading goes on in order.
    assert store.calls["read"] <= 8 + 8


def test_jumping_fetches_little(store: FaultyStore, sealed: bool) -> None:
    data = os.urandom(16 * MIB)

    with opened_object(store, data, sealed) as file:
        before = store.calls["read"]
        for offset in (9 * MIB, 2 * MIB, 13 * MIB):
            file.seek(offset)
            assert file.read(10) == data[offset : offset + 10]

    assert store.calls["read"] - before == 3


def test_failed_read_can_be_repeated(store: FaultyStore, sealed: bool) -> None:
    data = os.urandom(24 * MIB)

    with opened_object(store, data, sealed) as file:
        assert file.read(5 * MIB) == data[: 5 * MIB]
        store.before["read"] = failing(AWAY)
        for offset in (20 * MIB, 7 * MIB):
            file.seek(offset)
            with pytest.raises(TransferStalled):
                file.read(8 * MIB)
        store.before.clear()
        for offset in (20 * MIB, 7 * MIB):
            file.seek(offset)
            assert file.read(3 * MIB) == data[offset : offset + 3 * MIB]


def test_replaced_object_is_found_while_it_is_open(store: FaultyStore, sealed: bool) -> None:
    data = os.urandom(8 * MIB)

    with opened_object(store, data, sealed) as file:
        assert file.read(10) == data[:10]
        replace(store, flip(5 * MIB))
        file.seek(5 * MIB)
        with pytest.raises(ObjectChanged):
            file.read(MIB)


def test_flipped_segment_is_found_when_it_is_read(store: FaultyStore) -> None:
    data = os.urandom(8 * MIB)
    opened, stored = put(store, data)
    replace(store, flip(5 * MIB + 5))

    with open_object(store, OBJECT, stored_size=stored.stored_size, etag=None, options=OPTIONS, opener=opened) as file:
        assert file.read(MIB) == data[:MIB]
        file.seek(5 * MIB)
        with pytest.raises(EnvelopeError):
            file.read(MIB)


def test_cut_tail_is_found_at_opening(store: FaultyStore) -> None:
    opened, stored = put(store, os.urandom(8 * MIB))
    replace(store, lambda data: data.__delitem__(slice(-1, None)))

    with pytest.raises(IntegrityError):
        open_object(store, OBJECT, stored_size=stored.stored_size, etag=None, options=OPTIONS, opener=opened)


def test_missing_object_is_told(store: FaultyStore) -> None:
    with (
        pytest.raises(ObjectNotFound),
        open_object(store, ROOT.child("nothing"), stored_size=10, etag=None, options=OPTIONS) as file,
    ):
        file.read()
