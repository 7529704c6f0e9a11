"""The seekable reader and single segments."""

import hashlib
import io
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vantage6_largefile.envelope import SegmentedReader, SegmentOpener, SegmentPlan
from vantage6_largefile.envelope.format import FIRST_PLAINTEXT_BYTES, PLAINTEXT_BYTES, SegmentCipher
from vantage6_largefile.errors import EnvelopeError, StoreUnavailable
from vantage6_largefile.reference import SEGMENT_BYTES

PLACE = b"v6lf/1|result|42|0b6e2a1c-4b5f-4c1e-9d3a-2f1e0c9b8a76"
KEY = bytes(range(32))
HEADER = b"\x28" + bytes(range(39))


def sealed(data: bytes) -> bytes:
    plan = SegmentPlan(len(data))
    cipher = SegmentCipher(KEY, PLACE, HEADER)
    stored = HEADER
    for index in range(plan.count):
        offset, length = plan.plaintext_range(index)
        stored += cipher.seal(index, data[offset : offset + length], last=index == plan.count - 1)
    return stored


EXAMPLE = hashlib.shake_128(b"v6lf reader test").digest(5 * SEGMENT_BYTES + 777)
STORED = sealed(EXAMPLE)


class Store:
    """Stored bytes that remember what was asked of them."""

    def __init__(self, stored: bytes) -> None:
        self.stored = stored
        self.asked: list[tuple[int, int]] = []

    def read_range(self, offset: int, length: int) -> bytes:
        self.asked.append((offset, length))
        return self.stored[offset : offset + length]


def reader_of(stored: bytes, **options: int) -> tuple[SegmentedReader, Store]:
    store = Store(stored)
    reader = SegmentedReader(store.read_range, stored_size=len(stored), key=KEY, associated_data=PLACE, **options)
    return reader, store


def test_opening_asks_for_the_header_and_the_last_segment_only() -> None:
    _, store = reader_of(STORED)

    assert sorted(store.asked) == [(0, 40), (5 * SEGMENT_BYTES, len(STORED) - 5 * SEGMENT_BYTES)]


def test_a_small_object_costs_one_request() -> None:
    reader, store = reader_of(sealed(b"small"), size=5)

    assert reader.read() == b"small"
    assert len(store.asked) == 1


@pytest.mark.parametrize(
    "size", [0, 1, *(FIRST_PLAINTEXT_BYTES + n * PLAINTEXT_BYTES + s for n in range(2) for s in (-1, 0, 1))]
)
def test_everything_is_read_at_every_boundary(size: int) -> None:
    reader, _ = reader_of(sealed(EXAMPLE[:size]), size=size)

    assert reader.read() == EXAMPLE[:size]
    assert reader.read() == b""
    assert reader.tell() == size


@settings(max_examples=60, deadline=None)
@given(
    moves=st.lists(
        st.tuples(st.integers(0, len(EXAMPLE) + 100), st.integers(0, 3 * SEGMENT_BYTES)), min_size=1, max_size=6
    ),
    cached=st.integers(1, 3),
    fetched=st.integers(1, 4),
)
def test_it_reads_like_a_file(moves: list[tuple[int, int]], cached: int, fetched: int) -> None:
    reader, _ = reader_of(STORED, cached_segments=cached, fetch_segments=fetched)
    model = io.BytesIO(EXAMPLE)

    for position, length in moves:
        assert reader.seek(position) == model.seek(position)
        assert reader.read(length) == model.read(length)
        assert reader.tell() == model.tell()


def test_seek_knows_all_origins() -> None:
    reader, _ = reader_of(STORED)

    assert reader.seek(-7, io.SEEK_END) == len(EXAMPLE) - 7
    assert reader.read(100) == EXAMPLE[-7:]
    assert reader.seek(-3, io.SEEK_CUR) == len(EXAMPLE) - 3
    assert reader.read() == EXAMPLE[-3:]
    with pytest.raises(ValueError, match="negative"):
        reader.seek(-1)
    with pytest.raises(ValueError, match="whence"):
        reader.seek(0, 9)


def test_a_buffered_reader_and_readlines_work_on_top() -> None:
    lines = b"".join(b"%d\n" % n for n in range(300_000))
    reader, _ = reader_of(sealed(lines))

    assert list(io.BufferedReader(reader, 1 << 16)) == lines.splitlines(keepends=True)


def test_neighbouring_segments_come_with_one_request_and_stay_cached() -> None:
    reader, store = reader_of(STORED, cached_segments=4, fetch_segments=8)
    store.asked.clear()

    reader.seek(SEGMENT_BYTES)
    reader.read(2 * SEGMENT_BYTES)
    reader.seek(SEGMENT_BYTES + 5)
    reader.read(SEGMENT_BYTES)

    assert store.asked == [(SEGMENT_BYTES, 3 * SEGMENT_BYTES)]


def test_the_cache_stays_small() -> None:
    reader, store = reader_of(STORED, cached_segments=2, fetch_segments=1)
    store.asked.clear()

    for index in (0, 1, 0, 2, 0, 1, 5):
        reader.seek(index * PLAINTEXT_BYTES)
        reader.read(10)

    # 2 took the place of 1, which was used longer ago than 0; the last segment is always there
    assert [offset // SEGMENT_BYTES for offset, _ in store.asked] == [0, 1, 2, 1]


def test_one_request_brings_no_more_than_was_allowed() -> None:
    reader, store = reader_of(STORED, fetch_segments=2)
    store.asked.clear()

    assert reader.read() == EXAMPLE

    assert store.asked == [(index * SEGMENT_BYTES, min(2, 5 - index) * SEGMENT_BYTES) for index in (0, 2, 4)]


def test_a_damaged_segment_is_found_when_it_is_read_and_others_stay_readable() -> None:
    damaged = bytearray(STORED)
    damaged[2 * SEGMENT_BYTES + 99] ^= 1
    reader, _ = reader_of(bytes(damaged))

    reader.seek(PLAINTEXT_BYTES)
    with pytest.raises(EnvelopeError, match="segment 2"):
        reader.read(2 * SEGMENT_BYTES)

    assert reader.tell() == PLAINTEXT_BYTES
    reader.seek(3 * SEGMENT_BYTES)
    assert reader.read(100) == EXAMPLE[3 * SEGMENT_BYTES : 3 * SEGMENT_BYTES + 100]


@pytest.mark.parametrize("position", [0, 1, 33, 39, 5 * SEGMENT_BYTES, len(STORED) - 1])
def test_a_damaged_header_or_last_segment_is_found_when_it_opens(position: int) -> None:
    damaged = bytearray(STORED)
    damaged[position] ^= 1

    with pytest.raises(EnvelopeError, match=r"header|segment 5"):
        reader_of(bytes(damaged))


@pytest.mark.parametrize(
    "stored_size", [5 * SEGMENT_BYTES, 3 * SEGMENT_BYTES + 40, len(STORED) - 1, len(STORED) + 1, 9]
)
def test_a_wrong_stored_size_is_found_when_it_opens(stored_size: int) -> None:
    with pytest.raises(EnvelopeError):
        SegmentedReader(Store(STORED).read_range, stored_size=stored_size, key=KEY, associated_data=PLACE)


def test_a_size_that_does_not_fit_the_stored_size_is_refused() -> None:
    with pytest.raises(EnvelopeError, match=f"not {len(EXAMPLE) - 1}"):
        reader_of(STORED, size=len(EXAMPLE) - 1)


@pytest.mark.parametrize("place", [PLACE.replace(b"42", b"43"), PLACE[:-1] + b"7", b""])
def test_another_place_is_found_when_it_opens(place: bytes) -> None:
    with pytest.raises(EnvelopeError, match="another place"):
        SegmentedReader(Store(STORED).read_range, stored_size=len(STORED), key=KEY, associated_data=place)


def test_too_few_bytes_from_the_store_are_an_error() -> None:
    reader, store = reader_of(STORED)
    store.stored = STORED[: SEGMENT_BYTES + 1000]

    reader.seek(SEGMENT_BYTES)
    with pytest.raises(EnvelopeError, match="1000 of"):
        reader.read(10)


def test_errors_of_the_store_pass_unchanged() -> None:
    def unavailable(offset: int, length: int) -> bytes:
        raise StoreUnavailable("away")

    with pytest.raises(StoreUnavailable):
        SegmentedReader(unavailable, stored_size=len(STORED), key=KEY, associated_data=PLACE)


def test_a_closed_reader_reads_nothing() -> None:
    reader, _ = reader_of(STORED)
    with reader:
        assert reader.readable()
        assert reader.seekable()
        assert not reader.writable()

    for use in (reader.read, reader.tell, lambda: reader.seek(0), lambda: reader.readinto(bytearray(1))):
        with pytest.raises(ValueError, match="closed"):
            use()


def test_segments_open_in_any_order_from_many_threads() -> None:
    segments = SegmentOpener(STORED[:40], KEY, PLACE, size=len(EXAMPLE))
    plan = segments.plan

    def open_one(index: int) -> tuple[int, bytes]:
        offset, length = plan.stored_range(index)
        return plan.plaintext_range(index)[0], segments.open_segment(index, STORED[offset : offset + length])

    with ThreadPoolExecutor(4) as pool:
        opened = sorted(pool.map(open_one, reversed(range(plan.count))))

    assert b"".join(plaintext for _, plaintext in opened) == EXAMPLE


def test_a_segment_opens_at_its_own_place_only() -> None:
    segments = SegmentOpener(STORED[:40], KEY, PLACE, size=len(EXAMPLE))
    reader, _ = reader_of(STORED)
    second = STORED[SEGMENT_BYTES : 2 * SEGMENT_BYTES]

    assert segments.open_segment(1, second) == reader.open_segment(1, second)
    for wrong in (2, 3, 4):
        with pytest.raises(EnvelopeError, match=f"segment {wrong} does not verify"):
            segments.open_segment(wrong, second)
    with pytest.raises(EnvelopeError, match="header changed"):
        segments.open_segment(0, second)
    with pytest.raises(EnvelopeError, match="expected"):
        segments.open_segment(5, second)
    with pytest.raises(EnvelopeError, match="expected"):
        segments.open_segment(1, second[:-1])
