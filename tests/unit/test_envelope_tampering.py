"""Every way in which a stored form can be changed is a typed error, whichever way it is read."""

import hashlib
import itertools
from collections.abc import Callable, Iterator

import pytest

from vantage6_largefile.envelope import SegmentedReader, SegmentOpener, SegmentPlan, open_stream
from vantage6_largefile.envelope.format import FIRST_PLAINTEXT_BYTES, PLAINTEXT_BYTES, SegmentCipher
from vantage6_largefile.errors import EnvelopeError, IntegrityError, LargeFileError
from vantage6_largefile.reference import SEGMENT_BYTES, InputContext, ResultContext

OBJECT = "0b6e2a1c-4b5f-4c1e-9d3a-2f1e0c9b8a76"
OTHER_OBJECT = "aaaaaaaa-4b5f-4c1e-9d3a-2f1e0c9b8a76"
SERVER = "5f1c0000-0000-0000-0000-000000000000"
PLACE = ResultContext(SERVER, 3, 42).associated_data(OBJECT)
KEY = bytes(range(32))
HEADER = b"\x28" + bytes(range(100, 139))
EXAMPLE = hashlib.shake_128(b"v6lf tampering test").digest(4 * SEGMENT_BYTES + 1000)


def seal_with(
    data: bytes, *, key: bytes = KEY, place: bytes = PLACE, header: bytes = HEADER, ends: tuple[int, ...] | None = None
) -> bytes:
    """A stored form; `ends` are the segments that are sealed as the last one, which honest writers never choose."""
    plan = SegmentPlan(len(data))
    cipher = SegmentCipher(key, place, header)
    ends = (plan.count - 1,) if ends is None else ends
    stored = header
    for index in range(plan.count):
        offset, length = plan.plaintext_range(index)
        stored += cipher.seal(index, data[offset : offset + length], last=index in ends)
    return stored


STORED = seal_with(EXAMPLE)
SEGMENTS = [STORED[i : i + SEGMENT_BYTES] for i in range(0, len(STORED), SEGMENT_BYTES)]
SMALL = seal_with(EXAMPLE[:100])


# --- the three ways to read -------------------------------------------------------------------------------------


def by_stream(stored: bytes, size: int, key: bytes, place: bytes, given: list[bytes]) -> None:
    chunks = (stored[i : i + 300_000] for i in range(0, len(stored), 300_000))
    for plaintext in open_stream(chunks, key, place, size=size):
        given.append(plaintext)


def by_reader(stored: bytes, size: int, key: bytes, place: bytes, given: list[bytes]) -> None:
    reader = SegmentedReader(
        lambda offset, length: stored[offset : offset + length],
        stored_size=len(stored),
        key=key,
        associated_data=place,
        size=size,
    )
    while piece := reader.read(PLAINTEXT_BYTES):
        given.append(piece)


def by_parts(stored: bytes, size: int, key: bytes, place: bytes, given: list[bytes]) -> None:
    segments = SegmentOpener(stored[:40], key, place, size=size)
    if segments.plan.stored_size != len(stored):
        raise IntegrityError("the caller compares stored_size")
    for index in range(segments.plan.count):
        offset, length = segments.plan.stored_range(index)
        given.append(segments.open_segment(index, stored[offset : offset + length]))


Way = Callable[[bytes, int, bytes, bytes, list[bytes]], None]
WAYS: list[Way] = [by_stream, by_reader, by_parts]
every_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)


def refused(
    way: Way,
    stored: bytes,
    *,
    original: bytes = EXAMPLE,
    size: int | None = None,
    key: bytes = KEY,
    place: bytes = PLACE,
) -> None:
    """Assert that reading raises, and that what was given before is a beginning of the original, never all of it."""
    given: list[bytes] = []
    claimed = len(original) if size is None else size
    with pytest.raises(LargeFileError) as caught:
        way(stored, claimed, key, place, given)
    assert isinstance(caught.value, IntegrityError if way is by_parts else EnvelopeError)
    before = b"".join(given)
    assert len(before) < max(1, min(claimed, len(original)))
    assert original.startswith(before)


@every_way
def test_the_untouched_object_opens(way: Way) -> None:
    for data, stored in ((EXAMPLE, STORED), (EXAMPLE[:100], SMALL), (b"", seal_with(b""))):
        given: list[bytes] = []
        way(stored, len(data), KEY, PLACE, given)
        assert b"".join(given) == data


# --- flipped bits ---------------------------------------------------------------------------------------------------


@every_way
def test_every_flipped_bit_of_a_small_object_is_found(way: Way) -> None:
    for position, bit in itertools.product(range(len(SMALL)), range(8)):
        damaged = bytearray(SMALL)
        damaged[position] ^= 1 << bit
        refused(way, bytes(damaged), original=EXAMPLE[:100])


POSITIONS = {
    "header length": 0,
    "salt, first byte": 1,
    "salt, last byte": 32,
    "prefix, first byte": 33,
    "prefix, last byte": 39,
    "first segment, first byte": 40,
    "first segment, body": 500_000,
    "first segment, last byte of body": SEGMENT_BYTES - 17,
    "first segment, first byte of tag": SEGMENT_BYTES - 16,
    "first segment, last byte of tag": SEGMENT_BYTES - 1,
    "middle segment, first byte": 2 * SEGMENT_BYTES,
    "middle segment, body": 2 * SEGMENT_BYTES + 12_345,
    "middle segment, tag": 3 * SEGMENT_BYTES - 8,
    "last but one segment, body": 3 * SEGMENT_BYTES + 1,
    "last segment, first byte": 4 * SEGMENT_BYTES,
    "last segment, body": len(STORED) - 17,
    "last segment, first byte of tag": len(STORED) - 16,
    "last segment, last byte of tag": len(STORED) - 1,
}


@every_way
@pytest.mark.parametrize("position", POSITIONS.values(), ids=POSITIONS.keys())
@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_a_flipped_bit_is_found(way: Way, position: int, mask: int) -> None:
    damaged = bytearray(STORED)
    damaged[position] ^= mask

    refused(way, bytes(damaged))


# --- cut, longer ----------------------------------------------------------------------------------------------------

CUTS = {
    "nothing left": 0,
    "inside the header": 17,
    "after the header": 40,
    "inside the first segment": 1000,
    "at the first segment": SEGMENT_BYTES,
    "inside a middle segment": 2 * SEGMENT_BYTES + 5,
    "at a middle segment": 3 * SEGMENT_BYTES,
    "at the last segment": 4 * SEGMENT_BYTES,
    "inside the last segment": 4 * SEGMENT_BYTES + 500,
    "only the last tag left": len(STORED) - 1000,
    "inside the last tag": len(STORED) - 8,
    "last byte": len(STORED) - 1,
}


@every_way
@pytest.mark.parametrize("length", CUTS.values(), ids=CUTS.keys())
def test_a_cut_tail_is_found(way: Way, length: int) -> None:
    refused(way, STORED[:length])


@every_way
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_cut_tail_is_found_though_the_reference_claims_the_smaller_size(way: Way, count: int) -> None:
    shorter = FIRST_PLAINTEXT_BYTES + (count - 1) * PLAINTEXT_BYTES
    assert SegmentPlan(shorter).stored_size == count * SEGMENT_BYTES

    refused(way, STORED[: count * SEGMENT_BYTES], size=shorter)


@every_way
def test_a_cut_inside_the_last_segment_is_found_though_the_reference_claims_the_smaller_size(way: Way) -> None:
    refused(way, STORED[:-1], size=len(EXAMPLE) - 1)
    refused(way, SMALL[:-1], original=EXAMPLE[:100], size=99)


@every_way
@pytest.mark.parametrize(
    "tail", [b"\0", b"\0" * 16, SEGMENTS[-1], SEGMENTS[1], bytes(3 * SEGMENT_BYTES)], ids=lambda tail: str(len(tail))
)
def test_trailing_bytes_are_found(way: Way, tail: bytes) -> None:
    refused(way, STORED + tail)
    refused(way, SMALL + tail, original=EXAMPLE[:100])


@pytest.mark.parametrize("segments", [1, 3])
def test_trailing_bytes_after_a_full_last_segment_are_found(segments: int) -> None:
    data = EXAMPLE[: FIRST_PLAINTEXT_BYTES + (segments - 1) * PLAINTEXT_BYTES]

    refused(by_stream, seal_with(data) + b"\0", original=data)


def test_an_endless_stream_is_left_after_one_segment_too_many() -> None:
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        yield SMALL
        while True:
            taken += 1
            yield bytes(100_000)

    with pytest.raises(EnvelopeError, match="more follows"):
        list(open_stream(endless(), KEY, PLACE, size=100))

    assert taken <= 1 + SEGMENT_BYTES // 100_000


def test_an_empty_segment_behind_the_last_plaintext_is_refused() -> None:
    """Some other writer could end with an empty segment; then one plaintext would have two stored forms."""
    data = EXAMPLE[:FIRST_PLAINTEXT_BYTES]
    stored = seal_with(data, ends=()) + SegmentCipher(KEY, PLACE, HEADER).seal(1, b"", last=True)

    for way in WAYS:
        refused(way, stored, original=data)


# --- order ------------------------------------------------------------------------------------------------------------

ORDERS = {
    "neighbours swapped": [0, 2, 1, 3, 4],
    "first and second swapped": [1, 0, 2, 3, 4],
    "last two swapped": [0, 1, 2, 4, 3],
    "repeated": [0, 1, 1, 2, 3, 4],
    "repeated in place of another": [0, 1, 1, 3, 4],
    "last repeated": [0, 1, 2, 3, 4, 4],
    "first dropped": [1, 2, 3, 4],
    "middle dropped": [0, 1, 3, 4],
    "last but one dropped": [0, 1, 2, 4],
    "last dropped": [0, 1, 2, 3],
    "all but first and last dropped": [0, 4],
}


@every_way
@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS.keys())
def test_segments_swapped_repeated_or_dropped_are_found(way: Way, order: list[int]) -> None:
    changed = b"".join(SEGMENTS[index] for index in order)

    refused(way, changed)
    # the same with a reference that was made to fit
    claimed = len(changed) - 40 - 16 * (-(-len(changed) // SEGMENT_BYTES))
    refused(way, changed, size=claimed)


@every_way
@pytest.mark.parametrize("ends", [(), (3,), (3, 4), (0, 4), (0, 1, 2, 3, 4)], ids=str)
def test_the_last_segment_byte_must_be_right_in_every_segment(way: Way, ends: tuple[int, ...]) -> None:
    refused(way, seal_with(EXAMPLE, ends=ends))


@every_way
def test_the_tail_of_another_object_under_the_same_key_is_found(way: Way) -> None:
    other = seal_with(EXAMPLE[::-1], header=b"\x28" + bytes(39))

    refused(way, STORED[: 2 * SEGMENT_BYTES] + other[2 * SEGMENT_BYTES :])


# --- place and key --------------------------------------------------------------------------------------------------

PLACES = {
    "another run": ResultContext(SERVER, 3, 43).associated_data(OBJECT),
    "a run whose number begins alike": ResultContext(SERVER, 3, 421).associated_data(OBJECT),
    "another object": ResultContext(SERVER, 3, 42).associated_data(OTHER_OBJECT),
    "an input": InputContext(SERVER, 3, 42).associated_data(OBJECT),
    "nothing": b"",
}


@every_way
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES.keys())
def test_an_object_of_another_place_is_found(way: Way, place: bytes) -> None:
    refused(way, STORED, place=place)
    refused(way, seal_with(EXAMPLE, place=place))


@every_way
def test_inputs_are_bound_to_collaboration_and_organisation(way: Way) -> None:
    stored = seal_with(EXAMPLE[:100], place=InputContext(SERVER, 3, 7).associated_data(OBJECT))

    for collaboration, organisation in ((3, 8), (4, 7), (7, 3)):
        place = InputContext(SERVER, collaboration, organisation).associated_data(OBJECT)
        refused(way, stored, original=EXAMPLE[:100], place=place)


@every_way
def test_another_data_key_is_found(way: Way) -> None:
    refused(way, STORED, key=bytes(32))


@every_way
@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_a_data_key_of_another_length_is_refused(way: Way, length: int) -> None:
    with pytest.raises(EnvelopeError, match=f"{length} bytes, expected 32"):
        way(STORED, len(EXAMPLE), bytes(length), PLACE, [])


@every_way
@pytest.mark.parametrize("step", [-SEGMENT_BYTES, -1, 1, SEGMENT_BYTES])
def test_a_size_that_is_not_the_objects_is_found(way: Way, step: int) -> None:
    refused(way, STORED, size=len(EXAMPLE) + step)


# --- what is given before an error ------------------------------------------------------------------------------------


def test_the_last_segment_is_not_given_before_it_verified_and_the_stream_ended() -> None:
    given = []
    released = []

    def source() -> Iterator[bytes]:
        yield STORED
        released.append(sum(len(piece) for piece in given))

    for plaintext in open_stream(source(), KEY, PLACE, size=len(EXAMPLE)):
        given.append(plaintext)

    assert released == [FIRST_PLAINTEXT_BYTES + 3 * PLAINTEXT_BYTES]
    assert b"".join(given) == EXAMPLE


def test_an_error_of_the_source_passes_unchanged() -> None:
    def failing() -> Iterator[bytes]:
        yield STORED[:-1]
        raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError):
        list(open_stream(failing(), KEY, PLACE, size=len(EXAMPLE)))


def test_messages_name_the_object_and_no_key() -> None:
    with pytest.raises(EnvelopeError) as caught:
        list(open_stream([STORED[:-1] + b"\0"], KEY, PLACE, size=len(EXAMPLE)))

    assert OBJECT in str(caught.value)
    assert "Do not use the bytes" in str(caught.value)
    assert KEY.hex() not in str(caught.value)
    assert caught.value.__suppress_context__
