"""Uploads to a store that fails: they survive, or end in the right error, in bounded time and without debris."""

from __future__ import annotations

import threading
import time

import pytest

from tests.support.fault_proxy import COMMIT, PART, Answer, CutAnswer, Fault, Reset, Rule, Trickle
from tests.support.fault_world import MIB, OPTIONS, World, world
from vantage6_largefile.errors import StoreAccessDenied, StoreFull, TransferCancelled, TransferStalled
from vantage6_largefile.stores import azure_client
from vantage6_largefile.transfer import CancelToken, TransferOptions

pytestmark = pytest.mark.azurite

__all__ = ["world"]

SIZE = 4 * MIB + 17
PARTS = 9
#: Too short to wait for anything but one or two attempts.
IMPATIENT = TransferOptions(part_size=MIB // 2, concurrency=3, retry_for=1)
#: Nothing that ends in an error may take longer than this, on however slow a machine.
BOUND = 30.0

PASSING: dict[str, Fault] = {
    "503": Answer(503),
    "503 after the work was done": Answer(503, forward=True),
    "500": Answer(500),
    "500 after the work was done": Answer(500, forward=True),
    "429": Answer(429),
    "408": Answer(408),
    "reset before anything was read": Reset(),
    "reset in the middle of the body": Reset(after_body_bytes=100_000),
    "reset instead of the answer": Reset(forward=True),
    "closed instead of the answer": CutAnswer(None),
    "no answer, ever": CutAnswer(None, hang=True),
}


@pytest.mark.parametrize("permissions", [None, "cw"], ids=["full", "write-only"])
@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING.keys())
def test_upload_survives_faults_of_parts_and_of_the_commit(world: World, fault: Fault, permissions: str | None) -> None:
    spool = world.file(SIZE)
    world.faults(Rule(fault, "PUT", PART, {2, 3, 8}), Rule(fault, "PUT", COMMIT, {1}))

    stored = world.upload(world.through(permissions), spool)

    world.assert_whole(spool)
    assert stored.stored_size == SIZE
    sent = world.proxy.parts()
    assert sorted(sent) == list(range(1, PARTS + 1))
    assert sum(map(len, sent.values())) == PARTS + 3


@pytest.mark.parametrize("status", [503, 429])
@pytest.mark.parametrize("target", [PART, COMMIT], ids=["part", "commit"])
def test_upload_waits_as_long_as_the_store_asks(world: World, status: int, target: str) -> None:
    spool = world.file(SIZE)
    world.faults(Rule(Answer(status, {"Retry-After": "1"}), "PUT", target, {1}))

    world.upload(world.through("cw"), spool)

    world.assert_whole(spool)
    refused = next(seen for seen in world.proxy.requests if seen.status == status)
    again = next(seen for seen in world.proxy.requests if seen.target == refused.target and seen is not refused)
    assert refused.answered_at is not None
    assert again.began_at - refused.answered_at >= 1.0


def test_upload_does_not_wait_longer_than_its_patience_for_a_store_that_asks_for_an_hour(world: World) -> None:
    world.faults(Rule(Answer(503, {"Retry-After": "3600"})))
    started = time.monotonic()

    with pytest.raises(TransferStalled, match="503"):
        world.upload(world.through("cw"), world.file(SIZE), options=IMPATIENT)

    assert time.monotonic() - started < BOUND
    assert world.objects() == []


@pytest.mark.parametrize("target", [PART, COMMIT], ids=["parts", "commit"])
@pytest.mark.parametrize(
    "fault",
    [Answer(503), Answer(500), Answer(429), Reset(), CutAnswer(None, hang=True)],
    ids=["503", "500", "429", "reset", "hangs"],
)
def test_upload_to_a_store_that_stays_broken_is_given_up(world: World, fault: Fault, target: str) -> None:
    if isinstance(fault, CutAnswer) and target == COMMIT:
        # The work is done each time, so the store would hold the object: this one never reaches it.
        fault = Reset(after_body_bytes=10)
    world.faults(Rule(fault, "PUT", target))
    started = time.monotonic()

    with pytest.raises(TransferStalled, match=str(world.location)):
        world.upload(world.through("cw"), world.file(SIZE), options=IMPATIENT)

    assert time.monotonic() - started < BOUND
    assert world.objects() == []


def test_commit_that_worked_but_is_never_answered_is_given_up_and_found_by_the_next_attempt(world: World) -> None:
    spool = world.file(SIZE)
    record = spool.with_name("session")
    world.faults(Rule(CutAnswer(None, hang=True), "PUT", COMMIT))
    with pytest.raises(TransferStalled):
        world.upload(world.through("cw"), spool, options=IMPATIENT, session_file=record)
    world.faults()

    world.upload(world.through("cw"), spool, session_file=record)

    world.assert_whole(spool)
    assert world.proxy.parts() == {}
    assert not record.exists()


def test_upload_survives_a_store_that_is_away_for_a_while(world: World) -> None:
    spool = world.file(SIZE)
    world.proxy.bytes_per_second = 16 * MIB
    begun, away = threading.Event(), threading.Event()
    world.proxy.on_body = lambda total: begun.set() if total > SIZE // 3 else None

    def leave() -> None:
        begun.wait(30)
        world.proxy.go_away()
        away.set()
        time.sleep(0.5)
        world.proxy.come_back()

    thread = threading.Thread(target=leave)
    thread.start()
    world.upload(world.through("cw"), spool)
    thread.join()

    assert away.is_set()
    world.assert_whole(spool)


def test_upload_to_a_store_that_stays_away_is_given_up_and_can_be_gone_on_with(world: World) -> None:
    spool = world.file(SIZE)
    record = spool.with_name("session")
    store = world.through("cw")
    world.proxy.bytes_per_second = 16 * MIB
    begun = threading.Event()
    world.proxy.on_body = lambda total: begun.set() if total > SIZE // 2 else None
    thread = threading.Thread(target=lambda: (begun.wait(30), world.proxy.go_away()))
    thread.start()
    started = time.monotonic()
    with pytest.raises(TransferStalled, match="refused"):
        world.upload(store, spool, options=IMPATIENT, session_file=record)
    thread.join()
    assert time.monotonic() - started < BOUND
    assert world.objects() == []
    arrived = sum(seen.forwarded for seen in world.proxy.requests)
    world.proxy.come_back()

    world.upload(store, spool, session_file=record)

    world.assert_whole(spool)
    sent_whole = sum(seen.forwarded and seen.block is not None for seen in world.proxy.requests)
    assert arrived > 0
    assert sent_whole <= PARTS + OPTIONS.concurrency


def test_slow_line_is_no_stall_as_long_as_bytes_move(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part takes longer than the timeout and longer than the patience, but something moves all the time."""
    # Not less: the kernel takes 2.5 MiB at once, and these must reach the store within the timeout of the answer.
    monkeypatch.setattr(azure_client, "READ_TIMEOUT", 2)
    spool = world.file(8 * MIB)
    world.proxy.narrow(16 * 1024)
    world.faults(Rule(Trickle(5 * MIB // 2)))
    started = time.monotonic()

    world.upload(world.through("cw"), spool, options=TransferOptions(part_size=8 * MIB, concurrency=1, retry_for=1))

    assert time.monotonic() - started > 3
    world.assert_whole(spool)
    assert len(world.proxy.requests) == 2


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (403, "AuthorizationPermissionMismatch", StoreAccessDenied),
        (403, "AuthenticationFailed", StoreAccessDenied),
        (507, "InsufficientAccountQuota", StoreFull),
    ],
)
def test_refusal_is_not_tried_again(world: World, status: int, code: str, error: type[Exception]) -> None:
    world.faults(Rule(Answer(status, {"x-ms-error-code": code, "x-ms-version": "2025-01-05"}), "PUT", PART, {1}))
    options = TransferOptions(part_size=MIB, concurrency=1)

    with pytest.raises(error):
        world.upload(world.through("cw"), world.file(MIB), options=options)

    assert len(world.proxy.requests) == 1
    assert world.objects() == []


def test_cancel_ends_an_upload_that_waits_for_a_store_that_is_away(world: World) -> None:
    cancel = CancelToken()
    world.faults(Rule(Answer(503, {"Retry-After": "3000"}), "PUT", PART))
    world.proxy.on_request = lambda seen: cancel.cancel()
    started = time.monotonic()

    with pytest.raises(TransferCancelled):
        world.upload(world.through("cw"), world.file(SIZE), cancel=cancel)

    assert time.monotonic() - started < BOUND
    assert world.objects() == []


def test_bandwidth_cap_holds(world: World) -> None:
    """4 MiB at 2 MiB per second: all but the last burst (half a second) must have had its time."""
    spool = world.file(4 * MIB)

    world.upload(
        world.through("cw"), spool, options=TransferOptions(part_size=MIB, concurrency=4, max_bandwidth=2 * MIB)
    )

    world.assert_whole(spool)
    begins = [seen.began_at for seen in world.proxy.requests if seen.block is not None]
    assert max(begins) - min(begins) >= 1.0
