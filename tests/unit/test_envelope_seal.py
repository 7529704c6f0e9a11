"""Sealing and opening: round trips, one use only, constant memory, no secret shown."""

import copy
import hashlib
import io
import itertools
import pickle
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from vantage6_largefile.envelope import (
    SegmentPlan,
    new_sealer,
    open_stream,
    opener,
    plaintext_size_of,
    segment_chunks,
    unwrap_key,
)
from vantage6_largefile.envelope.format import FIRST_PLAINTEXT_BYTES, MAX_SEGMENTS, PLAINTEXT_BYTES, SegmentCipher, cut
from vantage6_largefile.errors import EnvelopeError, IntegrityError
from vantage6_largefile.reference import SEGMENT_BYTES, InputContext, ResultContext, stored_size_of

OBJECT = "0b6e2a1c-4b5f-4c1e-9d3a-2f1e0c9b8a76"
PLACE = ResultContext("5f1c0000-0000-0000-0000-000000000000", 3, 42).associated_data(OBJECT)
PRIVATE = rsa.generate_private_key(65537, 2048)
PUBLIC = PRIVATE.public_key()
EXAMPLE = hashlib.shake_128(b"v6lf seal test").digest(3 * SEGMENT_BYTES + 5000)
BOUNDARIES = [FIRST_PLAINTEXT_BYTES + n * PLAINTEXT_BYTES for n in range(3)]


def pieces(data: bytes, lengths: list[int]) -> Iterator[bytes]:
    """`data` in chunks of these lengths, over and over."""
    position, turn = 0, 0
    while position < len(data):
        length = lengths[turn % len(lengths)]
        yield data[position : position + length]
        position, turn = position + length, turn + 1


def reused(data: bytes, length: int) -> Iterator[memoryview]:
    """`data` as a source gives it that reads everything into one buffer of its own."""
    buffer = bytearray(length)
    for start in range(0, len(data), length):
        piece = data[start : start + length]
        buffer[: len(piece)] = piece
        yield memoryview(buffer)[: len(piece)]
        buffer[:] = b"\xee" * length


# --- round trips --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [PLACE, InputContext("s", 3, 7).associated_data(OBJECT)])
def test_the_recipient_opens_what_was_sealed(place: bytes) -> None:
    data = EXAMPLE[: 2 * SEGMENT_BYTES]
    sealer = new_sealer(place)
    stored = b"".join(sealer.seal([data], size=len(data)))

    opened = opener(sealer.wrapped_for(PUBLIC), PRIVATE, place)

    assert b"".join(opened.open_stream([stored], size=sealer.size)) == data


def test_one_object_has_an_envelope_for_each_recipient() -> None:
    others = [rsa.generate_private_key(65537, 2048) for _ in range(2)]
    with new_sealer(PLACE) as sealer:
        before = sealer.wrapped_for(others[0].public_key())
        stored = b"".join(sealer.seal([b"one object"]))
        after = sealer.wrapped_for(others[1].public_key())

    for private_key, envelope in zip(others, (before, after), strict=True):
        assert b"".join(opener(envelope, private_key, PLACE).open_stream([stored], size=10)) == b"one object"


@settings(max_examples=60, deadline=None)
@given(
    size=st.one_of(
        st.integers(0, 3 * SEGMENT_BYTES + 5000),
        st.builds(lambda boundary, step: boundary + step, st.sampled_from(BOUNDARIES), st.integers(-2, 2)),
    ),
    plain=st.lists(st.integers(20_000, 3 * SEGMENT_BYTES), min_size=1, max_size=4),
    stored=st.lists(st.integers(20_000, 3 * SEGMENT_BYTES), min_size=1, max_size=4),
)
def test_any_chunking_round_trips(size: int, plain: list[int], stored: list[int]) -> None:
    data = EXAMPLE[:size]
    sealer = new_sealer(PLACE)
    key = unwrap_key(sealer.wrapped_for(PUBLIC).key, PRIVATE)

    sealed = list(sealer.seal(pieces(data, plain)))

    assert [len(segment) for segment in sealed[:-1]] == [SEGMENT_BYTES] * (len(sealed) - 1)
    assert 0 < len(sealed[-1]) <= SEGMENT_BYTES
    assert sealer.size == size
    assert b"".join(open_stream(pieces(b"".join(sealed), stored), key, PLACE, size=size)) == data


@pytest.mark.parametrize("length", [65536, SEGMENT_BYTES, FIRST_PLAINTEXT_BYTES, PLAINTEXT_BYTES, 2 * SEGMENT_BYTES])
def test_a_source_may_reuse_its_buffer(length: int) -> None:
    sealer = new_sealer(PLACE)
    opened = opener(sealer.wrapped_for(PUBLIC), PRIVATE, PLACE)

    stored = b"".join(sealer.seal(reused(EXAMPLE, length)))

    assert b"".join(opened.open_stream(reused(stored, length), size=len(EXAMPLE))) == EXAMPLE


@settings(max_examples=300, deadline=None)
@given(
    chunks=st.lists(st.binary(max_size=30), max_size=12),
    first=st.integers(1, 9),
    rest=st.integers(1, 9),
    data=st.data(),
)
def test_cut_gives_full_pieces_and_one_last(chunks: list[bytes], first: int, rest: int, data: st.DataObject) -> None:
    kinds = data.draw(
        st.lists(st.sampled_from([bytes, bytearray, memoryview]), min_size=len(chunks), max_size=len(chunks))
    )

    def overwritten() -> Iterator[bytes | bytearray | memoryview]:
        for kind, chunk in zip(kinds, chunks, strict=True):
            given_out = kind(chunk)
            yield given_out
            if isinstance(given_out, bytearray):
                given_out[:] = b"\xee" * len(given_out)

    got = [(bytes(piece), last) for piece, last in cut(overwritten(), first, rest)]

    assert b"".join(piece for piece, _ in got) == b"".join(chunks)
    assert [last for _, last in got] == [False] * (len(got) - 1) + [True]
    assert [len(piece) for piece, _ in got[:-1]] == ([first] + [rest] * len(got))[: len(got) - 1]
    assert got[-1][0] or len(got) == 1


def test_a_file_is_read_in_chunks_that_are_segments() -> None:
    lengths = [len(chunk) for chunk in segment_chunks(io.BytesIO(EXAMPLE))]

    assert lengths == [SegmentPlan(len(EXAMPLE)).plaintext_range(i)[1] for i in range(len(lengths))]


def test_sealing_begins_before_the_source_has_ended() -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield bytes(SEGMENT_BYTES)

    sealed = new_sealer(PLACE).seal(endless())

    assert [len(next(sealed)) for _ in range(3)] == [SEGMENT_BYTES] * 3


# --- sizes --------------------------------------------------------------------------------------------------


@given(size=st.integers(0, 2**53 - 1))
def test_plaintext_size_is_the_inverse_of_stored_size(size: int) -> None:
    assert plaintext_size_of(stored_size_of(size, encrypted=True)) == size


@pytest.mark.parametrize("stored_size", [-1, 0, 40, 55, SEGMENT_BYTES + 1, SEGMENT_BYTES + 16, 2 * SEGMENT_BYTES + 16])
def test_a_size_that_no_envelope_has_is_refused(stored_size: int) -> None:
    with pytest.raises(EnvelopeError, match=f"{stored_size} bytes"):
        plaintext_size_of(stored_size)


@pytest.mark.parametrize("size", [0, 1, *(b + s for b in BOUNDARIES for s in (-1, 0, 1)), 10 * SEGMENT_BYTES])
def test_the_plan_covers_both_forms_without_gap(size: int) -> None:
    plan = SegmentPlan(size)
    stored = [plan.stored_range(i) for i in range(plan.count)]
    plain = [plan.plaintext_range(i) for i in range(plan.count)]

    for ranges, total in ((stored, plan.stored_size), (plain, size)):
        assert [offset for offset, _ in ranges] == [sum(n for _, n in ranges[:i]) for i in range(plan.count)]
        assert sum(length for _, length in ranges) == total
    for index, (offset, length) in enumerate(plain):
        if length:
            assert plan.index_of(offset) == plan.index_of(offset + length - 1) == index
    for outside in (-1, plan.count):
        with pytest.raises(IndexError):
            plan.stored_range(outside)
        with pytest.raises(IndexError):
            plan.plaintext_range(outside)
    with pytest.raises(IndexError):
        plan.index_of(size)


def test_more_segments_than_a_nonce_can_number_are_refused() -> None:
    most = MAX_SEGMENTS * PLAINTEXT_BYTES - 40
    assert SegmentPlan(most).count == MAX_SEGMENTS

    with pytest.raises(EnvelopeError, match="can hold"):
        SegmentPlan(most + 1)
    with pytest.raises(EnvelopeError, match="can hold"):
        SegmentPlan(-1)
    with pytest.raises(EnvelopeError, match="no segment"):
        SegmentCipher(bytes(32), PLACE, b"\x28" + bytes(39)).seal(MAX_SEGMENTS, b"", last=True)


@pytest.mark.parametrize("given_bytes", [0, 99, 101, 3 * SEGMENT_BYTES])
def test_a_source_that_changed_its_size_gives_no_last_segment(given_bytes: int) -> None:
    sealer = new_sealer(PLACE)
    key = unwrap_key(sealer.wrapped_for(PUBLIC).key, PRIVATE)
    stored = bytearray()

    with pytest.raises(IntegrityError, match="changed while it was read"):
        stored.extend(itertools.chain.from_iterable(sealer.seal([EXAMPLE[:given_bytes]], size=100)))

    with pytest.raises(RuntimeError, match="not finished"):
        _ = sealer.size
    with pytest.raises(EnvelopeError):
        b"".join(open_stream([stored], key, PLACE, size=given_bytes))


# --- once ---------------------------------------------------------------------------------------------------


def test_a_second_plaintext_is_refused_at_once() -> None:
    sealer = new_sealer(PLACE)
    b"".join(sealer.seal([b"first"]))

    with pytest.raises(RuntimeError, match="one plaintext once"):
        sealer.seal([b"second"])


def test_a_second_plaintext_is_refused_before_the_first_was_read() -> None:
    sealer = new_sealer(PLACE)
    sealer.seal([b"first"])

    with pytest.raises(RuntimeError, match="one plaintext once"):
        sealer.seal([b"first"])


def test_a_sealer_whose_source_failed_cannot_start_again() -> None:
    def failing() -> Iterator[bytes]:
        yield bytes(2 * SEGMENT_BYTES)
        raise OSError("disk")

    sealer = new_sealer(PLACE)
    with pytest.raises(OSError, match="disk"):
        list(sealer.seal(failing()))

    with pytest.raises(RuntimeError, match="one plaintext once"):
        sealer.seal([b"again"])
    with pytest.raises(RuntimeError, match="not finished"):
        _ = sealer.stored_size


def test_of_many_threads_one_may_seal() -> None:
    sealer = new_sealer(PLACE)
    start = threading.Barrier(8)
    outcomes: list[str] = []

    def attempt() -> None:
        start.wait()
        try:
            sealer.seal([b"data"])
        except RuntimeError:
            outcomes.append("refused")
        else:
            outcomes.append("sealed")

    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(outcomes) == ["refused"] * 7 + ["sealed"]


@pytest.mark.parametrize("duplicate", [copy.deepcopy, pickle.dumps])
def test_a_sealer_cannot_be_duplicated(duplicate: object) -> None:
    with pytest.raises(TypeError):
        duplicate(new_sealer(PLACE))  # type: ignore[operator]


def test_a_shallow_copy_shares_the_one_use() -> None:
    sealer = new_sealer(PLACE)
    twin = copy.copy(sealer)
    sealer.seal([b"first"])

    with pytest.raises(RuntimeError, match="one plaintext once"):
        twin.seal([b"second"])


def test_a_forgotten_key_wraps_and_seals_nothing() -> None:
    sealer = new_sealer(PLACE)
    sealer.forget()

    with pytest.raises(RuntimeError, match="forgotten"):
        sealer.wrapped_for(PUBLIC)
    with pytest.raises(RuntimeError, match="forgotten"):
        sealer.seal([b"data"])


def test_sealing_that_has_begun_outlives_forget() -> None:
    sealer = new_sealer(PLACE)
    envelope = sealer.wrapped_for(PUBLIC)
    running = sealer.seal([EXAMPLE])
    stored = next(running)

    sealer.forget()
    stored += b"".join(running)

    assert b"".join(opener(envelope, PRIVATE, PLACE).open_stream([stored], size=len(EXAMPLE))) == EXAMPLE


# --- memory, secrets ----------------------------------------------------------------------------------------


def test_memory_does_not_grow_with_the_size() -> None:
    size = 64 * SEGMENT_BYTES
    chunk = bytes(300_000)

    def source() -> Iterator[bytes]:
        for start in range(0, size, len(chunk)):
            yield chunk[: size - start]

    sealer = new_sealer(PLACE)
    opened = opener(sealer.wrapped_for(PUBLIC), PRIVATE, PLACE)
    tracemalloc.start()
    try:
        total = sum(len(piece) for piece in opened.open_stream(sealer.seal(source()), size=size))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert total == size
    assert peak < 8 * SEGMENT_BYTES


def test_no_repr_shows_a_key(tmp_path: Path) -> None:
    sealer = new_sealer(PLACE)
    envelope = sealer.wrapped_for(PUBLIC)
    key = unwrap_key(envelope.key, PRIVATE)
    stored = b"".join(sealer.seal([b"data"]))
    opened = opener(envelope, PRIVATE, PLACE)
    reader = opened.reader(lambda offset, length: stored[offset : offset + length], stored_size=len(stored))
    segments = opened.segments(stored[:40], size=4)

    for thing in (sealer, opened, reader, segments, segments.plan, envelope, SegmentCipher(key, PLACE, stored[:40])):
        shown = repr(thing) + str(thing)
        assert repr(key) not in shown
        assert key.hex() not in shown
        assert envelope.key not in shown
    assert OBJECT in repr(sealer)
    assert OBJECT in repr(opened)
