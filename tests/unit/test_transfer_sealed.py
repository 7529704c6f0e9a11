"""Sealing and sending in one pass: what is there at every moment, and what is never sent twice under one key."""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support.faulty_store import FaultyStore, failing
from vantage6_largefile.envelope import Sealer, new_sealer, opener
from vantage6_largefile.errors import (
    IntegrityError,
    ObjectExists,
    ObjectNotFound,
    SpoolMismatch,
    StoreAccessDenied,
    StoreFull,
    StoreUnavailable,
    TransferCancelled,
    TransferStalled,
)
from vantage6_largefile.location import Location
from vantage6_largefile.stores.file import UPLOADS, FileStore
from vantage6_largefile.transfer import (
    CancelToken,
    StoredObject,
    TransferOptions,
    discard_sealed,
    retry,
    sealing,
    target,
    upload_file,
    upload_sealed,
    upload_stream,
)
from vantage6_largefile.transfer.record import UploadRecord
from vantage6_largefile.transfer.sealing import half_sealed

MIB = 1 << 20
#: Not a multiple of a segment, as under a bandwidth limit.
PART = 300_000
OPTIONS = TransferOptions(part_size=PART, concurrency=2, retry_for=0)
ROOT = Location.parse("file://hospital-a")
OBJECT = ROOT.child("object")
CONTEXT = b"v6lf/1|result|42|0b6e2a1c-7b0e-4c8e-9a35-6d1f6c1c2a11"
AWAY = StoreUnavailable("the store is away")
KEY = rsa.generate_private_key(65537, 2048)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.005)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    path.mkdir()
    return path


@pytest.fixture
def store(folder: Path) -> FaultyStore:
    return FaultyStore(FileStore(ROOT, folder))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(os.urandom(3 * MIB + 12345))
    return path


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def record(tmp_path: Path) -> Path:
    return tmp_path / "session.jsonl"


@pytest.fixture
def sealer() -> Sealer:
    return new_sealer(CONTEXT)


def upload(store: FaultyStore, source: object, sealer: Sealer, **kwargs: object) -> StoredObject:
    return upload_sealed(
        store,
        source,  # type: ignore[arg-type]
        OBJECT,
        sealer=sealer,
        media_type="application/octet-stream",
        options=OPTIONS,
        **kwargs,  # type: ignore[arg-type]
    )


def resume(store: FaultyStore, spool: Path, record: Path) -> StoredObject:
    return upload_file(
        store, spool, OBJECT, media_type="application/octet-stream", options=OPTIONS, session_file=record
    )


def plaintext(store: FaultyStore, sealer: Sealer) -> bytes:
    reader = opener(sealer.wrapped_for(KEY.public_key()), KEY, CONTEXT)
    return b"".join(reader.open_stream(store.read(OBJECT), size=sealer.size))


def unfinished(folder: Path) -> list[str]:
    return os.listdir(folder / UPLOADS) if (folder / UPLOADS).exists() else []


# --- the ordinary way ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, PART, MIB - 56, MIB - 55, 3 * MIB])
@pytest.mark.parametrize("known", [True, False])
def test_object_spool_and_digest_are_the_same_bytes(
    store: FaultyStore, sealer: Sealer, tmp_path: Path, spool: Path, record: Path, size: int, known: bool
) -> None:
    data = os.urandom(size)
    (tmp_path / "source").write_bytes(data)

    stored = upload(
        store,
        tmp_path / "source",
        sealer,
        size=size if known else None,
        spool=spool,
        session_file=record,
    )

    assert plaintext(store, sealer) == data
    assert spool.read_bytes() == b"".join(store.read(OBJECT))
    assert stored.sha256 == hashlib.sha256(spool.read_bytes()).hexdigest()
    assert stored.stored_size == spool.stat().st_size == sealer.stored_size
    assert sorted(os.listdir(tmp_path)) == ["source", "spool", "store"]


def test_stream_that_cannot_seek_is_spooled(store: FaultyStore, sealer: Sealer, spool: Path) -> None:
    data = os.urandom(2 * MIB + 5)
    read_end, write_end = os.pipe()

    def produce() -> None:
        with open(write_end, "wb") as sink:
            sink.write(data)

    thread = threading.Thread(target=produce)
    thread.start()
    with open(read_end, "rb") as stream:
        upload(store, stream, sealer, spool=spool)
    thread.join()

    assert plaintext(store, sealer) == data


def test_chunks_are_sealed_without_a_spool(store: FaultyStore, sealer: Sealer, tmp_path: Path) -> None:
    chunks = [os.urandom(70_001) for _ in range(30)]

    upload(store, iter(chunks), sealer, size=30 * 70_001)

    assert plaintext(store, sealer) == b"".join(chunks)
    assert os.listdir(tmp_path) == ["store"]


def test_record_without_spool_is_a_mistake(store: FaultyStore, sealer: Sealer, source: Path, record: Path) -> None:
    with pytest.raises(ValueError, match="without a spool"):
        upload(store, source, sealer, session_file=record)


def test_parts_go_out_while_sealing_goes_on(store: FaultyStore, sealer: Sealer, spool: Path) -> None:
    """The source waits, in its middle, for a part to be in the store: it would hang if sealing came first."""
    first_part = threading.Event()
    store.after["put_part"] = lambda number: first_part.set()

    def chunks() -> Iterator[bytes]:
        yield bytes(2 * MIB)
        assert first_part.wait(60)
        yield bytes(MIB)

    upload(store, chunks(), sealer, spool=spool)

    assert plaintext(store, sealer) == bytes(3 * MIB)


def test_spool_is_complete_on_disk_and_on_record_before_the_commit(
    store: FaultyStore, sealer: Sealer, source: Path, spool: Path, record: Path
) -> None:
    events: list[str] = []

    def look(_: int) -> None:
        loaded = UploadRecord.load(record)
        assert loaded is not None
        assert loaded.spool is not None
        assert loaded.spool.size == spool.stat().st_size
        assert sorted(loaded.parts) == sorted(store.sent)
        events.append("commit")

    store.before["commit"] = look

    upload(store, source, sealer, spool=spool, session_file=record, on_sealed=lambda: events.append("sealed"))

    assert events == ["sealed", "commit"]


# --- sealing fails ------------------------------------------------------------------------------------------------


def assert_nothing_left(folder: Path, store: FaultyStore, spool: Path, record: Path) -> None:
    with pytest.raises(ObjectNotFound):
        store.stat(OBJECT)
    assert not spool.exists()
    assert not half_sealed(spool).exists()
    assert not record.exists()
    assert unfinished(folder) == []


@pytest.mark.parametrize("difference", [-1, 1, MIB])
def test_source_of_another_size_leaves_nothing(
    store: FaultyStore, sealer: Sealer, source: Path, spool: Path, record: Path, folder: Path, difference: int
) -> None:
    announced = source.stat().st_size - difference

    with pytest.raises(IntegrityError, match="changed while it was read"):
        upload(store, source, sealer, size=announced, spool=spool, session_file=record)

    assert_nothing_left(folder, store, spool, record)


def test_source_that_breaks_leaves_nothing_and_says_why(
    store: FaultyStore, sealer: Sealer, spool: Path, record: Path, folder: Path
) -> None:
    def chunks() -> Iterator[bytes]:
        yield bytes(2 * MIB)
        raise RuntimeError("the producer died")

    with pytest.raises(RuntimeError, match="the producer died"):
        upload(store, chunks(), sealer, spool=spool, session_file=record)

    assert_nothing_left(folder, store, spool, record)


def test_source_that_breaks_while_the_store_is_away_is_told_at_once(
    store: FaultyStore, sealer: Sealer, spool: Path, record: Path, folder: Path
) -> None:
    away = threading.Event()

    def put_part(_: int) -> None:
        away.set()
        raise AWAY

    store.before["put_part"] = put_part

    def chunks() -> Iterator[bytes]:
        yield bytes(2 * MIB)
        assert away.wait(60)
        raise RuntimeError("the producer died")

    with pytest.raises(RuntimeError, match="the producer died"):
        upload_sealed(
            store,
            chunks(),
            OBJECT,
            sealer=sealer,
            media_type="text/plain",
            options=TransferOptions(part_size=PART, concurrency=2, retry_for=3600),
            spool=spool,
            session_file=record,
        )

    assert_nothing_left(folder, store, spool, record)


def test_full_disk_while_spooling_leaves_nothing(
    store: FaultyStore,
    sealer: Sealer,
    source: Path,
    spool: Path,
    record: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = 0

    def write_all(descriptor: int, data: bytes) -> None:
        nonlocal written
        written += len(data)
        if written > 2 * MIB:
            raise OSError(28, "No space left on device")
        os.write(descriptor, data)

    monkeypatch.setattr(sealing, "write_all", write_all)

    with pytest.raises(StoreFull):
        upload(store, source, sealer, spool=spool, session_file=record)

    assert_nothing_left(folder, store, spool, record)


def test_flush_that_fails_is_never_forgotten(
    store: FaultyStore,
    sealer: Sealer,
    source: Path,
    spool: Path,
    record: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[int] = []

    def flush_data(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 1:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(target, "FLUSH_EVERY", MIB)
    monkeypatch.setattr(target, "flush_data", flush_data)

    with pytest.raises(Exception, match="Input/output error"):
        upload(store, source, sealer, spool=spool, session_file=record)

    assert_nothing_left(folder, store, spool, record)


def test_cancel_while_sealing_leaves_nothing(
    store: FaultyStore, sealer: Sealer, spool: Path, record: Path, folder: Path
) -> None:
    cancel = CancelToken()

    def chunks() -> Iterator[bytes]:
        yield bytes(2 * MIB)
        cancel.cancel()
        yield bytes(2 * MIB)

    with pytest.raises(TransferCancelled):
        upload(store, chunks(), sealer, spool=spool, session_file=record, cancel=cancel)

    assert_nothing_left(folder, store, spool, record)


def test_spool_or_record_of_an_earlier_upload_is_not_touched(
    store: FaultyStore, sealer: Sealer, source: Path, spool: Path, record: Path
) -> None:
    for path in (spool, record):
        path.write_bytes(b"earlier")
        with pytest.raises(SpoolMismatch, match="there already"):
            upload(store, source, sealer, spool=spool, session_file=record)
        assert path.read_bytes() == b"earlier"
        path.unlink()

    assert store.calls["begin"] == 0
    upload(store, source, sealer, spool=spool, session_file=record)


# --- the store fails ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["begin", "put_part", "commit"])
@pytest.mark.parametrize("error", [AWAY, StoreAccessDenied("no rights")], ids=["away", "denied"])
def test_trouble_of_the_store_does_not_cost_the_sealing(
    store: FaultyStore, sealer: Sealer, source: Path, spool: Path, record: Path, call: str, error: Exception
) -> None:
    store.before[call] = failing(error)
    told: list[bool] = []

    with pytest.raises((TransferStalled, StoreAccessDenied)):
        upload(store, source, sealer, spool=spool, session_file=record, on_sealed=lambda: told.append(spool.exists()))

    assert told == [True]
    sealed = spool.read_bytes()
    store.before.clear()
    stored = resume(store, spool, record)
    assert b"".join(store.read(OBJECT)) == sealed
    assert stored.sha256 == hashlib.sha256(sealed).hexdigest()
    assert plaintext(store, sealer) == source.read_bytes()
    assert not record.exists()


def test_resume_after_sealing_sends_only_what_is_missing(
    store: FaultyStore, sealer: Sealer, source: Path, spool: Path, record: Path
) -> None:
    store.before["put_part"] = failing(AWAY, 5)
    with pytest.raises(TransferStalled):
        upload(store, source, sealer, spool=spool, session_file=record)
    before = list(store.sent)
    store.before.clear()
    store.sent.clear()

    resume(store, spool, record)

    assert not set(store.sent) & set(before)
    assert sorted(store.sent + before) == list(range(1, -(-spool.stat().st_size // PART) + 1))
    assert plaintext(store, sealer) == source.read_bytes()


@pytest.mark.parametrize("position", [0, PART + 1, -1])
def test_spool_that_differs_from_its_record_is_never_sent(
    store: FaultyStore, sealer: Sealer, source: Path, spool: Path, record: Path, position: int
) -> None:
    store.before["commit"] = failing(AWAY)
    with pytest.raises(TransferStalled):
        upload(store, source, sealer, spool=spool, session_file=record)
    store.before.clear()
    status = spool.stat()
    data = bytearray(spool.read_bytes())
    data[position] ^= 1
    spool.write_bytes(data)
    os.utime(spool, ns=(status.st_atime_ns, status.st_mtime_ns))

    with pytest.raises(SpoolMismatch):
        resume(store, spool, record)

    with pytest.raises(ObjectNotFound):
        store.stat(OBJECT)


def test_upload_that_the_store_forgot_is_sent_again_from_the_spool(
    store: FaultyStore, sealer: Sealer, source: Path, spool: Path, record: Path
) -> None:
    store.before["commit"] = lambda number: store.abort(UploadRecord.load(record).session) if number == 1 else None  # type: ignore[union-attr]

    upload(store, source, sealer, spool=spool, session_file=record)

    assert b"".join(store.read(OBJECT)) == spool.read_bytes()
    assert plaintext(store, sealer) == source.read_bytes()


def test_name_that_is_taken_is_not_touched(
    store: FaultyStore, sealer: Sealer, source: Path, spool: Path, record: Path, folder: Path
) -> None:
    upload_stream(store, [b"of somebody else"], OBJECT, media_type="text/plain", options=OPTIONS)

    with pytest.raises(ObjectExists):
        upload(store, source, sealer, spool=spool, session_file=record)

    assert b"".join(store.read(OBJECT)) == b"of somebody else"
    assert unfinished(folder) == []
    assert spool.exists()


def test_caller_that_cannot_note_the_sealing_stops_the_commit(
    store: FaultyStore, sealer: Sealer, source: Path, spool: Path, record: Path
) -> None:
    def on_sealed() -> None:
        raise RuntimeError("the job's record cannot be written")

    with pytest.raises(RuntimeError, match="cannot be written"):
        upload(store, source, sealer, spool=spool, session_file=record, on_sealed=on_sealed)

    assert store.calls["commit"] == 0
    resume(store, spool, record)
    assert plaintext(store, sealer) == source.read_bytes()


# --- the process dies -----------------------------------------------------------------------------------------------


def _seal_and_die(folder: Path, source: Path, spool: Path, record: Path, die_at: int, sealed_first: bool) -> None:
    store = FaultyStore(FileStore(ROOT, folder))
    complete = threading.Event()

    def put_part(number: int) -> None:
        if sealed_first:
            assert complete.wait(60)
        if number == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def chunks() -> Iterator[bytes]:
        data = source.read_bytes()
        yield data[: 2 * MIB]
        if not sealed_first:
            threading.Event().wait()
        yield data[2 * MIB :]

    store.before["put_part"] = put_part
    upload(store, chunks(), new_sealer(CONTEXT), spool=spool, session_file=record, on_sealed=complete.set)


def killed(*arguments: object) -> None:
    process = multiprocessing.get_context("fork").Process(target=_seal_and_die, args=arguments)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


def test_nothing_is_sealed_twice_under_one_key_after_a_kill_in_mid_sealing(
    store: FaultyStore, sealer: Sealer, source: Path, spool: Path, record: Path, folder: Path
) -> None:
    killed(folder, source, spool, record, 4, False)
    assert not spool.exists()
    half = half_sealed(spool).read_bytes()
    loaded = UploadRecord.load(record)
    assert loaded is not None
    assert loaded.spool is None
    (token,) = unfinished(folder)
    sent = (folder / UPLOADS / token / "data").read_bytes()
    assert len(sent) >= PART
    assert sent[:PART] == half[:PART]

    discard_sealed(store, spool=spool, session_file=record)
    assert_nothing_left(folder, store, spool, record)
    upload(store, source, sealer, spool=spool, session_file=record)

    # Salt and nonce prefix are others, and so is every segment.
    again = spool.read_bytes()
    assert again[1:33] != half[1:33]
    assert again[33:40] != half[33:40]
    assert plaintext(store, sealer) == source.read_bytes()


def test_half_sealed_spool_is_never_sent(
    store: FaultyStore, source: Path, spool: Path, record: Path, folder: Path
) -> None:
    killed(folder, source, spool, record, 4, False)
    half_sealed(spool).rename(spool)

    with pytest.raises(SpoolMismatch, match="never sealed to its end"):
        resume(store, spool, record)

    assert store.sent == []


def test_upload_goes_on_after_a_kill_between_sealing_and_commit(
    store: FaultyStore, source: Path, spool: Path, record: Path, folder: Path
) -> None:
    killed(folder, source, spool, record, 6, True)
    sealed = spool.read_bytes()
    loaded = UploadRecord.load(record)
    assert loaded is not None
    there = set(loaded.parts)
    assert there

    stored = resume(store, spool, record)

    assert not there & set(store.sent)
    assert b"".join(store.read(OBJECT)) == sealed == spool.read_bytes()
    assert stored.sha256 == hashlib.sha256(sealed).hexdigest()


def test_discarding_does_not_need_the_store(
    store: FaultyStore, source: Path, spool: Path, record: Path, folder: Path
) -> None:
    killed(folder, source, spool, record, 4, False)
    store.before["abort"] = failing(AWAY)

    discard_sealed(store, spool=spool, session_file=record)
    discard_sealed(store, spool=spool, session_file=record)

    assert not half_sealed(spool).exists()
    assert not record.exists()


def test_binary_file_is_read_from_its_position(store: FaultyStore, sealer: Sealer, spool: Path) -> None:
    stream = io.BytesIO(b"head" + bytes(MIB))
    stream.seek(4)

    upload(store, stream, sealer, size=MIB, spool=spool)

    assert plaintext(store, sealer) == bytes(MIB)
