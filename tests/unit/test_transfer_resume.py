"""Going on with an upload that another process began."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from tests.support.faulty_store import FaultyStore, failing
from vantage6_largefile.errors import (
    ObjectExists,
    ObjectNotFound,
    SpoolMismatch,
    StoreAccessDenied,
    StoreUnavailable,
    TransferCancelled,
    TransferStalled,
)
from vantage6_largefile.location import Location
from vantage6_largefile.stores.file import UPLOADS, FileStore
from vantage6_largefile.transfer import CancelToken, TransferOptions, discard_upload, retry, upload_file, upload_stream
from vantage6_largefile.transfer.record import UploadRecord

PART = 64 * 1024
PARTS = 8
OPTIONS = TransferOptions(part_size=PART, concurrency=1, retry_for=0)
ROOT = Location.parse("file://hospital-a")
OBJECT = ROOT.child("object")
AWAY = StoreUnavailable("the store is away")


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
def spool(tmp_path: Path) -> Path:
    path = tmp_path / "spool"
    path.write_bytes(os.urandom((PARTS - 1) * PART + 123))
    return path


@pytest.fixture
def record(tmp_path: Path) -> Path:
    return tmp_path / "session.jsonl"


def upload(store: FaultyStore, spool: Path, record: Path, **kwargs: object) -> object:
    return upload_file(
        store,
        spool,
        OBJECT,
        media_type="text/plain",
        options=OPTIONS,
        session_file=record,
        **kwargs,  # type: ignore[arg-type]
    )


def stop_after_four_parts(store: FaultyStore, spool: Path, record: Path) -> None:
    store.before["put_part"] = failing(AWAY, 5)
    with pytest.raises(TransferStalled):
        upload(store, spool, record)
    assert store.sent == [1, 2, 3, 4]
    store.before.clear()
    store.sent.clear()


def test_parts_that_were_acknowledged_are_not_sent_again(store: FaultyStore, spool: Path, record: Path) -> None:
    stop_after_four_parts(store, spool, record)
    seen: list[int] = []

    upload(store, spool, record, progress=lambda done, total, rate: seen.append(done))

    assert store.sent == [5, 6, 7, 8]
    assert b"".join(store.read(OBJECT)) == spool.read_bytes()
    assert not record.exists()
    assert seen[0] == 5 * PART


def test_credential_that_may_not_list_trusts_the_record(store: FaultyStore, spool: Path, record: Path) -> None:
    stop_after_four_parts(store, spool, record)
    store.list_parts = lambda session: None  # type: ignore[method-assign]

    upload(store, spool, record)

    assert store.sent == [5, 6, 7, 8]
    assert b"".join(store.read(OBJECT)) == spool.read_bytes()


def test_part_that_the_store_lost_is_sent_again(store: FaultyStore, spool: Path, record: Path, folder: Path) -> None:
    stop_after_four_parts(store, spool, record)
    (upload_folder,) = (folder / UPLOADS).iterdir()
    (upload_folder / f"2-{PART}").unlink()

    upload(store, spool, record)

    assert store.sent == [2, 5, 6, 7, 8]
    assert b"".join(store.read(OBJECT)) == spool.read_bytes()


def test_upload_that_the_store_forgot_is_sent_from_the_start(store: FaultyStore, spool: Path, record: Path) -> None:
    stop_after_four_parts(store, spool, record)
    loaded = UploadRecord.load(record)
    assert loaded is not None
    store.abort(loaded.session)

    upload(store, spool, record)

    assert store.sent == list(range(1, PARTS + 1))
    assert b"".join(store.read(OBJECT)) == spool.read_bytes()
    assert not record.exists()


def test_upload_that_the_store_forgot_between_parts_and_commit_is_sent_from_the_start(
    store: FaultyStore, spool: Path, record: Path
) -> None:
    stop_after_four_parts(store, spool, record)
    store.before["commit"] = lambda number: store.abort(UploadRecord.load(record).session) if number == 1 else None  # type: ignore[union-attr]

    upload(store, spool, record)

    assert store.sent == [5, 6, 7, 8, *range(1, PARTS + 1)]
    assert b"".join(store.read(OBJECT)) == spool.read_bytes()


@pytest.mark.parametrize("position", [0, 3 * PART, 4 * PART + 1, -1])
def test_changed_spool_is_never_sent(
    store: FaultyStore, spool: Path, record: Path, position: int, folder: Path
) -> None:
    stop_after_four_parts(store, spool, record)
    data = bytearray(spool.read_bytes())
    data[position] ^= 1
    spool.write_bytes(data)

    with pytest.raises(SpoolMismatch):
        upload(store, spool, record)

    assert store.calls["commit"] == 0
    assert store.sent == []


@pytest.mark.parametrize("position", [0, 3 * PART])
def test_changed_spool_with_the_same_time_is_found_by_its_content(
    store: FaultyStore, spool: Path, record: Path, position: int
) -> None:
    stop_after_four_parts(store, spool, record)
    status = spool.stat()
    data = bytearray(spool.read_bytes())
    data[position] ^= 1
    spool.write_bytes(data)
    os.utime(spool, ns=(status.st_atime_ns, status.st_mtime_ns))

    with pytest.raises(SpoolMismatch, match="differs"):
        upload(store, spool, record)

    assert store.calls["commit"] == 0


def test_restored_spool_goes_on_when_its_digest_is_known(store: FaultyStore, spool: Path, record: Path) -> None:
    stop_after_four_parts(store, spool, record)
    os.utime(spool, (1, 1))

    upload(store, spool, record, sha256=hashlib.sha256(spool.read_bytes()).hexdigest())

    assert store.sent == [5, 6, 7, 8]


def test_record_of_another_object_is_refused(store: FaultyStore, spool: Path, record: Path) -> None:
    stop_after_four_parts(store, spool, record)

    with pytest.raises(SpoolMismatch, match="is about"):
        upload_file(store, spool, ROOT.child("other"), media_type="text/plain", options=OPTIONS, session_file=record)


def test_commit_that_was_never_answered_counts_after_a_restart(store: FaultyStore, spool: Path, record: Path) -> None:
    store.after["commit"] = failing(AWAY, 1)
    with pytest.raises(TransferStalled):
        upload(store, spool, record)
    assert record.exists()
    sent = list(store.sent)

    stored = upload(store, spool, record)

    assert stored.location == OBJECT  # type: ignore[attr-defined]
    assert store.sent == sent
    assert b"".join(store.read(OBJECT)) == spool.read_bytes()
    assert not record.exists()


def test_commit_that_never_arrived_is_sent_again_after_a_restart(store: FaultyStore, spool: Path, record: Path) -> None:
    store.before["commit"] = failing(AWAY, 1)
    with pytest.raises(TransferStalled):
        upload(store, spool, record)
    sent = list(store.sent)

    upload(store, spool, record)

    assert store.sent == sent
    assert b"".join(store.read(OBJECT)) == spool.read_bytes()


def test_commit_that_never_arrived_of_a_forgotten_upload_starts_again(
    store: FaultyStore, spool: Path, record: Path
) -> None:
    store.before["commit"] = failing(AWAY, 1)
    with pytest.raises(TransferStalled):
        upload(store, spool, record)
    loaded = UploadRecord.load(record)
    assert loaded is not None
    store.abort(loaded.session)
    store.sent.clear()

    upload(store, spool, record)

    assert store.sent == list(range(1, PARTS + 1))
    assert b"".join(store.read(OBJECT)) == spool.read_bytes()


def test_name_taken_by_somebody_else_is_an_error_also_after_a_restart(
    store: FaultyStore, spool: Path, record: Path, folder: Path
) -> None:
    stop_after_four_parts(store, spool, record)
    upload_stream(store, [b"of somebody else"], OBJECT, media_type="text/plain", options=OPTIONS)

    with pytest.raises(ObjectExists):
        upload(store, spool, record)

    assert b"".join(store.read(OBJECT)) == b"of somebody else"
    assert not record.exists()
    assert list((folder / UPLOADS).iterdir()) == []


def test_cancelled_and_refused_uploads_can_go_on(store: FaultyStore, spool: Path, record: Path) -> None:
    cancel = CancelToken()
    store.before["put_part"] = lambda number: cancel.cancel() if number == 3 else None
    with pytest.raises(TransferCancelled):
        upload(store, spool, record, cancel=cancel)
    store.before["put_part"] = failing(StoreAccessDenied("rights were taken away"))
    with pytest.raises(StoreAccessDenied):
        upload(store, spool, record)
    store.before.clear()

    upload(store, spool, record)

    assert sorted(store.sent) == list(range(1, PARTS + 1))
    assert b"".join(store.read(OBJECT)) == spool.read_bytes()


def test_discard_removes_parts_and_record(store: FaultyStore, spool: Path, record: Path, folder: Path) -> None:
    stop_after_four_parts(store, spool, record)

    discard_upload(store, record)
    discard_upload(store, record)

    assert not record.exists()
    assert list((folder / UPLOADS).iterdir()) == []


def test_discard_keeps_the_record_while_the_store_is_away(store: FaultyStore, spool: Path, record: Path) -> None:
    stop_after_four_parts(store, spool, record)
    store.before["abort"] = failing(AWAY, 1)

    with pytest.raises(StoreUnavailable):
        discard_upload(store, record)

    assert record.exists()


# --- the record itself ----------------------------------------------------------------------------------------------


def test_record_cut_at_any_byte_loses_no_more_than_its_last_line(store: FaultyStore, spool: Path, record: Path) -> None:
    stop_after_four_parts(store, spool, record)
    whole = record.read_bytes()
    head = whole.index(b"\n") + 1

    for cut in range(head, len(whole) + 1):
        record.write_bytes(whole[:cut])
        loaded = UploadRecord.load(record)
        assert loaded is not None
        assert len(loaded.parts) == whole[head:cut].count(b"\n")


def test_record_that_was_cut_can_be_written_to(store: FaultyStore, spool: Path, record: Path) -> None:
    stop_after_four_parts(store, spool, record)
    record.write_bytes(record.read_bytes()[:-10])

    upload(store, spool, record)

    assert store.sent == [4, 5, 6, 7, 8]
    assert b"".join(store.read(OBJECT)) == spool.read_bytes()


@pytest.mark.parametrize(
    "text", ["", "{}\n", "[]\n", "not json\n", '{"version": 2}\n', '{"version": 1, "session": {}, "spool": [1, 2]}\n']
)
def test_record_that_is_none_is_an_error(store: FaultyStore, spool: Path, record: Path, text: str) -> None:
    record.write_text(text)

    with pytest.raises(SpoolMismatch, match="damaged"):
        upload(store, spool, record)


def test_record_holds_no_more_than_it_must(store: FaultyStore, spool: Path, record: Path) -> None:
    stop_after_four_parts(store, spool, record)

    lines = [json.loads(line) for line in record.read_text().splitlines()]

    assert set(lines[0]) == {"version", "session", "spool"}
    assert [line["part"][:2] for line in lines[1:]] == [[1, PART], [2, PART], [3, PART], [4, PART]]
    assert record.stat().st_mode & 0o077 == 0


# --- kill -9 ----------------------------------------------------------------------------------------------------------


def _upload_and_die(folder: str, spool: str, record: str, call: str, number: int, after: bool) -> None:
    store = FaultyStore(FileStore(ROOT, Path(folder)))

    def die(count: int) -> None:
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    (store.after if after else store.before)[call] = die
    upload_file(store, Path(spool), OBJECT, media_type="text/plain", options=OPTIONS, session_file=Path(record))


@pytest.mark.parametrize(
    ("call", "number", "after"),
    [
        ("begin", 1, False),
        ("begin", 1, True),
        ("put_part", 1, False),
        ("put_part", 4, True),
        ("put_part", PARTS, True),
        ("commit", 1, False),
        ("commit", 1, True),
    ],
)
def test_upload_resumes_after_kill(
    store: FaultyStore, spool: Path, record: Path, folder: Path, call: str, number: int, after: bool
) -> None:
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_upload_and_die, args=(str(folder), str(spool), str(record), call, number, after))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    acknowledged = number - 1 if call == "put_part" else PARTS if call == "commit" else 0

    upload(store, spool, record)

    assert len(store.sent) == PARTS - acknowledged
    assert b"".join(store.read(OBJECT)) == spool.read_bytes()
    assert not record.exists()
    with pytest.raises(ObjectNotFound):
        store.stat(ROOT.child("other"))
