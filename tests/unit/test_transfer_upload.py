"""Uploading files and streams: whole or not at all, retried, bounded."""

from __future__ import annotations

import hashlib
import itertools
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support.faulty_store import FaultyStore, failing
from vantage6_largefile.errors import (
    ObjectExists,
    ObjectNotFound,
    SpoolMismatch,
    StoreAccessDenied,
    StoreFull,
    StoreMisconfigured,
    StoreUnavailable,
    TransferCancelled,
    TransferStalled,
)
from vantage6_largefile.location import Location
from vantage6_largefile.stores.base import StoreLimits
from vantage6_largefile.stores.file import UPLOADS, FileStore
from vantage6_largefile.transfer import (
    CancelToken,
    ObjectWriter,
    StoredObject,
    TransferOptions,
    retry,
    upload_file,
    upload_stream,
)
from vantage6_largefile.transfer.retry import Patience
from vantage6_largefile.transfer.session import part_size_for

PART = 64 * 1024
OPTIONS = TransferOptions(part_size=PART, concurrency=3, retry_for=30)
ROOT = Location.parse("file://hospital-a")
OBJECT = ROOT.child("object")
AWAY = StoreUnavailable("the store is away")


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.005)
    monkeypatch.setattr(retry, "LONGEST_WAIT", 0.02)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    path.mkdir()
    return path


@pytest.fixture
def store(folder: Path) -> FaultyStore:
    return FaultyStore(FileStore(ROOT, folder))


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    path = tmp_path / "spool"
    path.write_bytes(os.urandom(7 * PART + 123))
    return path


def upload(store: FaultyStore, path: Path, *, options: TransferOptions = OPTIONS, **kwargs: object) -> StoredObject:
    return upload_file(store, path, OBJECT, media_type="text/plain", options=options, **kwargs)  # type: ignore[arg-type]


def content(store: FaultyStore, location: Location = OBJECT) -> bytes:
    return b"".join(store.read(location))


def unfinished(folder: Path) -> list[str]:
    return os.listdir(folder / UPLOADS)


# --- files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 5 * PART, 5 * PART + 7])
def test_file_of_any_size_arrives(store: FaultyStore, tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "spool").write_bytes(data)

    stored = upload(store, tmp_path / "spool", sha256=hashlib.sha256(data).hexdigest())

    assert content(store) == data
    assert stored == StoredObject(OBJECT, size, hashlib.sha256(data).hexdigest(), store.stat(OBJECT).etag)


def test_store_that_is_away_for_a_while_is_tried_again(store: FaultyStore, spool: Path, folder: Path) -> None:
    for name in ("begin", "put_part", "commit"):
        store.before[name] = failing(AWAY, 1, 2, 3, 5)

    upload(store, spool)

    assert content(store) == spool.read_bytes()
    assert unfinished(folder) == []


def test_part_whose_answer_was_lost_is_sent_again(store: FaultyStore, spool: Path) -> None:
    store.after["put_part"] = failing(AWAY, 1, 2)

    upload(store, spool)

    assert content(store) == spool.read_bytes()


def test_store_that_stays_away_is_given_up(store: FaultyStore, spool: Path, folder: Path) -> None:
    store.before["put_part"] = failing(AWAY)

    with pytest.raises(TransferStalled, match=r"given up.*the store is away") as caught:
        upload(store, spool, options=TransferOptions(part_size=PART, retry_for=0.2))

    assert isinstance(caught.value, StoreUnavailable)
    assert store.calls["put_part"] > 4
    assert unfinished(folder) == []


def test_progress_of_other_parts_renews_patience(
    store: FaultyStore, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Longer away, all in all, than the patience; but never without a part arriving in between.
    now = 0.0

    def sleep(_: Patience, seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(retry, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(Patience, "_sleep", sleep)
    tries = itertools.count()

    def mostly_away(_: int) -> None:
        if next(tries) % 8:
            raise StoreUnavailable("busy", retry_after=1)

    store.before["put_part"] = mostly_away

    upload(store, spool, options=TransferOptions(part_size=PART, concurrency=1, retry_for=10))

    assert now > 30
    assert content(store) == spool.read_bytes()


@pytest.mark.parametrize(
    "error", [StoreAccessDenied("no"), StoreFull("full"), StoreMisconfigured("wrong"), RuntimeError("a bug")]
)
def test_what_waiting_does_not_mend_fails_at_once(
    store: FaultyStore, spool: Path, folder: Path, error: Exception
) -> None:
    store.before["put_part"] = failing(error, 2)

    with pytest.raises(type(error), match=str(error)):
        upload(store, spool)

    assert unfinished(folder) == []
    with pytest.raises(ObjectNotFound):
        store.stat(OBJECT)


def test_failing_abort_does_not_hide_the_error(
    store: FaultyStore, spool: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store.before["put_part"] = failing(StoreAccessDenied("no"))
    store.before["abort"] = failing(AWAY)

    with pytest.raises(StoreAccessDenied, match="no"):
        upload(store, spool)

    assert f"{OBJECT} could not be removed" in caplog.text


def test_name_that_is_taken_is_an_error(store: FaultyStore, spool: Path, folder: Path) -> None:
    upload_stream(store, [b"of somebody else"], OBJECT, media_type="text/plain", options=OPTIONS)

    with pytest.raises(ObjectExists):
        upload(store, spool)

    assert content(store) == b"of somebody else"
    assert unfinished(folder) == []


def test_commit_whose_answer_was_lost_is_a_success(store: FaultyStore, spool: Path) -> None:
    store.after["commit"] = failing(AWAY, 1)

    stored = upload(store, spool)

    assert content(store) == spool.read_bytes()
    assert stored.etag == store.stat(OBJECT).etag


def test_commit_whose_answer_was_lost_is_a_success_for_a_credential_that_may_only_write(
    store: FaultyStore, spool: Path
) -> None:
    def gone_unanswered(number: int) -> None:
        if number > 1:
            raise ObjectExists("there")

    store.after["commit"] = failing(AWAY, 1)
    store.before["commit"] = gone_unanswered
    store.before["stat"] = failing(StoreAccessDenied("write only"))

    stored = upload(store, spool)

    assert stored.etag is None
    assert stored.sha256 == hashlib.sha256(spool.read_bytes()).hexdigest()


def test_object_of_another_size_is_not_taken_for_ours(store: FaultyStore, spool: Path) -> None:
    def somebody_was_faster(_: int) -> None:
        store.before.clear()
        upload_stream(store, [b"of somebody else"], OBJECT, media_type="text/plain", options=OPTIONS)
        raise AWAY

    store.before["commit"] = somebody_was_faster

    with pytest.raises(ObjectExists, match="16 bytes instead of"):
        upload(store, spool)


def test_file_that_grows_while_it_is_sent_is_not_committed(store: FaultyStore, spool: Path, folder: Path) -> None:
    def grow(_: int) -> None:
        with spool.open("ab") as file:
            file.write(b"more")

    store.before["put_part"] = grow

    with pytest.raises(SpoolMismatch, match="written to"):
        upload(store, spool)

    assert store.calls["commit"] == 0
    assert unfinished(folder) == []


def test_file_that_shrinks_while_it_is_sent_is_not_committed(store: FaultyStore, spool: Path) -> None:
    store.before["put_part"] = lambda _: os.truncate(spool, PART)

    with pytest.raises(SpoolMismatch, match=r"shorter|written to"):
        upload(store, spool)

    assert store.calls["commit"] == 0


def test_file_that_is_not_what_was_announced_is_not_committed(store: FaultyStore, spool: Path) -> None:
    with pytest.raises(SpoolMismatch, match="sha256"):
        upload(store, spool, sha256="0" * 64)

    assert store.calls["commit"] == 0


def test_missing_file_is_an_error_of_ours(store: FaultyStore, tmp_path: Path) -> None:
    with pytest.raises(StoreMisconfigured, match="no-such-file"):
        upload(store, tmp_path / "no-such-file")
    assert store.calls["begin"] == 0


def test_cancel_stops_and_aborts(store: FaultyStore, spool: Path, folder: Path) -> None:
    cancel = CancelToken()
    store.before["put_part"] = lambda number: cancel.cancel() if number == 2 else None

    with pytest.raises(TransferCancelled):
        upload(store, spool, cancel=cancel, options=TransferOptions(part_size=PART, concurrency=1))

    assert store.calls["put_part"] < 8
    assert store.calls["commit"] == 0
    assert unfinished(folder) == []


def test_cancel_ends_a_long_wait(store: FaultyStore, spool: Path) -> None:
    cancel = CancelToken()
    store.before["put_part"] = failing(StoreUnavailable("busy", retry_after=3600))
    timer = threading.Timer(0.3, cancel.cancel)
    timer.start()

    with pytest.raises(TransferCancelled):
        upload(store, spool, cancel=cancel, options=TransferOptions(part_size=PART, retry_for=7200))
    timer.join()


def test_progress_goes_up_to_the_size(store: FaultyStore, spool: Path) -> None:
    seen: list[tuple[int, int | None]] = []

    upload(store, spool, progress=lambda done, total, rate: seen.append((done, total)))

    size = spool.stat().st_size
    assert seen[-1] == (size, size)
    assert seen == sorted(seen)


def test_never_more_than_concurrency_parts_at_a_time(store: FaultyStore, spool: Path) -> None:
    lock = threading.Lock()
    now = most = 0
    full = threading.Event()

    def enter(_: int) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
            if now == 3:
                full.set()
        full.wait(10)

    def leave(_: int) -> None:
        nonlocal now
        with lock:
            now -= 1

    store.before["put_part"], store.after["put_part"] = enter, leave

    upload(store, spool)

    assert most == 3


# --- streams ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sizes", [[], [0, 0], [1], [PART], [PART, PART], [10 * PART + 1], [3] * 50, [PART - 1, 2, PART]]
)
def test_stream_of_any_pieces_arrives(store: FaultyStore, sizes: list[int]) -> None:
    pieces = [os.urandom(size) for size in sizes]

    stored = upload_stream(store, iter(pieces), OBJECT, media_type="text/plain", options=OPTIONS)

    data = b"".join(pieces)
    assert content(store) == data
    assert (stored.stored_size, stored.sha256) == (len(data), hashlib.sha256(data).hexdigest())


def test_stream_that_breaks_leaves_nothing(store: FaultyStore, folder: Path) -> None:
    def breaking() -> Iterator[bytes]:
        yield b"x" * (3 * PART)
        raise RuntimeError("the container died")

    with pytest.raises(RuntimeError, match="the container died"):
        upload_stream(store, breaking(), OBJECT, media_type="text/plain", options=OPTIONS)

    assert unfinished(folder) == []
    with pytest.raises(ObjectNotFound):
        store.stat(OBJECT)


def test_writer_left_without_commit_aborts(store: FaultyStore, folder: Path) -> None:
    with ObjectWriter(store, OBJECT, media_type="text/plain", options=OPTIONS) as writer:
        writer.write(b"x" * (2 * PART))

    assert unfinished(folder) == []
    with pytest.raises(ValueError, match="closed"):
        writer.write(b"x")


def test_failure_of_a_part_reaches_the_writer(store: FaultyStore, folder: Path) -> None:
    store.before["put_part"] = failing(StoreFull("full"))

    def write_much() -> None:
        with ObjectWriter(store, OBJECT, media_type="text/plain", options=OPTIONS) as writer:
            for _ in range(100):
                writer.write(b"x" * PART)
            writer.commit()

    with pytest.raises(StoreFull):
        write_much()

    assert unfinished(folder) == []


@pytest.mark.parametrize("written", [10, 12, 5 * PART])
def test_stream_of_another_size_than_announced_is_not_committed(store: FaultyStore, folder: Path, written: int) -> None:
    with pytest.raises(ValueError, match="11 bytes were announced"):
        upload_stream(store, [b"x" * written], OBJECT, media_type="text/plain", options=OPTIONS, size=11)

    assert store.calls["commit"] == 0
    assert unfinished(folder) == []


def test_writer_waits_when_all_buffers_are_on_their_way(store: FaultyStore) -> None:
    release = threading.Event()
    store.before["put_part"] = lambda _: release.wait(30) and None
    taken = 0
    blocked = threading.Event()

    def produce() -> Iterator[bytes]:
        nonlocal taken
        for number in range(20):
            if number == OPTIONS.concurrency + 1:
                blocked.set()
            yield b"x" * PART
            taken += 1

    worker = threading.Thread(
        target=upload_stream,
        args=(store, produce(), OBJECT),
        kwargs={"media_type": "text/plain", "options": OPTIONS},
    )
    worker.start()
    assert blocked.wait(30)
    taken_while_blocked = taken
    release.set()
    worker.join(30)

    assert taken_while_blocked <= OPTIONS.concurrency + 1
    assert taken == 20
    assert content(store) == b"x" * (20 * PART)


# --- part sizes -----------------------------------------------------------------------------------------------------

MIB = 1 << 20
LIMITS = StoreLimits(min_part=5 * MIB, max_part=100 * MIB, max_parts=1000)


@pytest.mark.parametrize(
    ("size", "part_size", "expected"),
    [
        (None, 8 * MIB, 8 * MIB),
        (None, 1 * MIB, 5 * MIB),
        (None, 999 * MIB, 100 * MIB),
        (8000 * MIB, 8 * MIB, 8 * MIB),
        (8000 * MIB + 1, 8 * MIB, 9 * MIB),
        (100_000 * MIB, 8 * MIB, 100 * MIB),
    ],
)
def test_part_size_fits_store_and_object(size: int | None, part_size: int, expected: int) -> None:
    assert part_size_for(size, LIMITS, TransferOptions(part_size=part_size)) == expected


def test_object_that_the_store_cannot_take_is_refused() -> None:
    with pytest.raises(StoreMisconfigured, match="more than the store takes"):
        part_size_for(100_000 * MIB + 1, LIMITS, TransferOptions())


def test_low_bandwidth_makes_short_bursts() -> None:
    options = TransferOptions(part_size=8 * MIB, max_bandwidth=2 * MIB)
    assert part_size_for(None, StoreLimits(1, 100 * MIB, 1000), options) == MIB
