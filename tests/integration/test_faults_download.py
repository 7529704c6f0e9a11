"""Downloads from a store that fails: they survive, or end in the right error, and never leave half a file."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from tests.support.fault_proxy import Answer, CutAnswer, Fault, Reset, Rule, Trickle
from tests.support.fault_world import MIB, OPTIONS, World, world
from vantage6_largefile.errors import ObjectNotFound, StoreAccessDenied, TransferCancelled, TransferStalled
from vantage6_largefile.transfer import CancelToken, StoredObject, TransferOptions, iter_object

pytestmark = pytest.mark.azurite

__all__ = ["world"]

SIZE = 4 * MIB + 17
#: Too short to wait for anything but one or two attempts.
IMPATIENT = TransferOptions(part_size=MIB // 2, concurrency=3, retry_for=1)
#: Nothing that ends in an error may take longer than this, on however slow a machine.
BOUND = 45.0

PASSING: dict[str, Fault] = {
    "503": Answer(503),
    "500": Answer(500),
    "429": Answer(429),
    "reset before anything was read": Reset(),
    "reset instead of the answer": Reset(forward=True),
    "closed instead of the answer": CutAnswer(None),
    "no answer, ever": CutAnswer(None, hang=True),
    "closed in the middle of the answer": CutAnswer(200_000),
    "closed before the first byte of the body": CutAnswer(0),
    "hangs in the middle of the answer": CutAnswer(200_000, hang=True),
}


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    folder.mkdir()
    return folder / "result"


@pytest.fixture
def stored(world: World) -> StoredObject:
    return world.upload(world.direct, world.file(SIZE))


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING.keys())
def test_download_survives_faults(world: World, stored: StoredObject, target: Path, fault: Fault) -> None:
    world.faults(Rule(fault, "GET", nth={1, 4, 7}))

    world.download(world.through("r"), stored, target)

    assert target.read_bytes() == (world.folder / "spool").read_bytes()
    assert os.listdir(target.parent) == [target.name]


@pytest.mark.parametrize("status", [503, 429])
def test_download_waits_as_long_as_the_store_asks(
    world: World, stored: StoredObject, target: Path, status: int
) -> None:
    world.faults(Rule(Answer(status, {"Retry-After": "1"}), "GET", nth={1}))
    options = TransferOptions(part_size=MIB, concurrency=1, retry_for=30)

    world.download(world.through("r"), stored, target, options=options)

    refused, again, *_ = world.proxy.requests
    assert refused.status == status
    assert refused.answered_at is not None
    assert again.began_at - refused.answered_at >= 1.0


@pytest.mark.parametrize(
    "fault",
    [Answer(503), Answer(500), Answer(429), Reset(), CutAnswer(0), CutAnswer(0, hang=True), CutAnswer(None, hang=True)],
    ids=["503", "500", "429", "reset", "empty", "hangs in the body", "hangs"],
)
def test_download_from_a_store_that_stays_broken_is_given_up(
    world: World, stored: StoredObject, target: Path, fault: Fault
) -> None:
    world.faults(Rule(fault, "GET"))
    started = time.monotonic()

    with pytest.raises(TransferStalled, match=str(world.location)):
        world.download(world.through("r"), stored, target, options=IMPATIENT)

    assert time.monotonic() - started < BOUND
    assert os.listdir(target.parent) == []


def test_download_goes_on_as_long_as_every_attempt_brings_something(
    world: World, stored: StoredObject, target: Path
) -> None:
    """All answers are cut, yet no byte that came is asked for again: patience is about progress, not about luck."""
    world.faults(Rule(CutAnswer(300_000), "GET"))

    world.download(world.through("r"), stored, target, options=TransferOptions(part_size=MIB, concurrency=2))

    assert target.read_bytes() == (world.folder / "spool").read_bytes()


def test_download_survives_a_store_that_is_away_for_a_while(world: World, stored: StoredObject, target: Path) -> None:
    begun, away = threading.Event(), threading.Event()
    world.faults(Rule(Trickle(8 * MIB), "GET"))
    world.proxy.on_request = lambda seen: begun.set() if len(world.proxy.requests) >= 4 else None

    def leave() -> None:
        begun.wait(30)
        world.proxy.go_away()
        away.set()
        time.sleep(0.5)
        world.proxy.come_back()

    thread = threading.Thread(target=leave)
    thread.start()
    world.download(world.through("r"), stored, target)
    thread.join()

    assert away.is_set()
    assert target.read_bytes() == (world.folder / "spool").read_bytes()


def test_download_from_a_store_that_stays_away_is_given_up(world: World, stored: StoredObject, target: Path) -> None:
    store = world.through("r")
    world.proxy.go_away()
    started = time.monotonic()

    with pytest.raises(TransferStalled, match="refused"):
        world.download(store, stored, target, options=IMPATIENT)

    assert time.monotonic() - started < BOUND
    assert os.listdir(target.parent) == []


def test_slow_line_is_no_stall_as_long_as_bytes_move(world: World, target: Path) -> None:
    """The answer takes longer than the timeout and longer than the patience, but something moves all the time."""
    stored = world.upload(world.direct, world.file(MIB))
    world.faults(Rule(Trickle(MIB // 3)))
    started = time.monotonic()

    world.download(
        world.through("r"), stored, target, options=TransferOptions(part_size=MIB, concurrency=1, retry_for=1)
    )

    assert time.monotonic() - started > 2
    assert target.read_bytes() == (world.folder / "spool").read_bytes()


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (403, "AuthorizationPermissionMismatch", StoreAccessDenied),
        (403, "AuthenticationFailed", StoreAccessDenied),
        (404, "BlobNotFound", ObjectNotFound),
    ],
)
def test_refusal_is_not_tried_again(
    world: World, stored: StoredObject, target: Path, status: int, code: str, error: type[Exception]
) -> None:
    world.faults(Rule(Answer(status, {"x-ms-error-code": code, "x-ms-version": "2025-01-05"}), "GET"))

    with pytest.raises(error):
        world.download(
            world.through("r"), stored, target, options=TransferOptions(part_size=MIB, concurrency=1, retry_for=30)
        )

    assert len(world.proxy.requests) == 1
    assert os.listdir(target.parent) == []


def test_cancel_ends_a_download_that_waits_for_a_store_that_is_away(world: World, stored: StoredObject) -> None:
    cancel = CancelToken()
    world.faults(Rule(Answer(503, {"Retry-After": "3000"}), "GET"))
    world.proxy.on_request = lambda seen: cancel.cancel()
    started = time.monotonic()

    with pytest.raises(TransferCancelled):
        list(
            iter_object(
                world.through("r"),
                stored.location,
                stored_size=stored.stored_size,
                sha256=stored.sha256,
                options=OPTIONS,
                cancel=cancel,
            )
        )

    assert time.monotonic() - started < BOUND


def test_bandwidth_cap_holds(world: World, target: Path) -> None:
    """4 MiB at 2 MiB per second: all but the last piece must have had its time."""
    stored = world.upload(world.direct, world.file(4 * MIB))
    options = TransferOptions(part_size=MIB, concurrency=4, max_bandwidth=2 * MIB)
    started = time.monotonic()

    world.download(world.through("r"), stored, target, options=options)

    assert time.monotonic() - started >= 1.5
    assert target.read_bytes() == (world.folder / "spool").read_bytes()
