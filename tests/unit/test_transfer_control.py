"""Patience, limits and cancelling, without any store."""

from __future__ import annotations

import pytest

from vantage6_largefile.config.store import TransferConfig
from vantage6_largefile.errors import ObjectNotFound, StoreUnavailable, TransferCancelled, TransferStalled
from vantage6_largefile.transfer import CancelToken, RateLimiter, TransferOptions, control, retry
from vantage6_largefile.transfer.control import Meter
from vantage6_largefile.transfer.retry import Patience


class Clock:
    """Time that passes only when somebody waits."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waits: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(retry, "time", clock)
    monkeypatch.setattr(control, "time", clock)
    monkeypatch.setattr(Patience, "_sleep", lambda self, seconds: clock.sleep(seconds))
    return clock


def test_success_after_failures() -> None:
    answers = iter([StoreUnavailable("1"), StoreUnavailable("2"), None])

    def action() -> str:
        error = next(answers)
        if error:
            raise error
        return "done"

    assert Patience("it", 10, None).call(action) == "done"


def test_other_errors_are_not_tried_again() -> None:
    calls = []

    def action() -> None:
        calls.append(1)
        raise ObjectNotFound("gone")

    with pytest.raises(ObjectNotFound):
        Patience("it", 10, None).call(action)
    assert len(calls) == 1


def test_no_patience_means_one_try() -> None:
    calls = []

    def action() -> None:
        calls.append(1)
        raise StoreUnavailable("away", retry_after=7)

    with pytest.raises(TransferStalled) as caught:
        Patience("it", 0, None).call(action)

    assert len(calls) == 1
    assert caught.value.retry_after == 7
    assert isinstance(caught.value.__cause__, StoreUnavailable)


def test_wait_that_the_store_asks_for_is_honoured(clock: Clock) -> None:
    answers = iter([StoreUnavailable("busy", retry_after=25), None])

    def action() -> None:
        error = next(answers)
        if error:
            raise error

    Patience("it", 60, None).call(action)

    assert clock.waits == [25]


def test_waits_are_spread_and_grow(clock: Clock) -> None:
    calls = []

    def action() -> None:
        calls.append(1)
        if len(calls) <= 400:
            raise StoreUnavailable("away")

    Patience("it", 10**9, None).call(action)

    waits = clock.waits
    assert len(set(waits)) == 400
    assert all(wait <= 2 * 0.5 * 2**number for number, wait in enumerate(waits[:8]))
    assert max(waits) <= 120
    assert 40 < sum(waits[10:]) / len(waits[10:]) < 80


def test_store_is_given_up_when_patience_ends(clock: Clock) -> None:
    def action() -> None:
        raise StoreUnavailable("away")

    with pytest.raises(TransferStalled, match=r"nothing moved for 100 s"):
        Patience("it", 100, None).call(action)

    assert sum(clock.waits) == pytest.approx(100)


def test_idle_time_before_a_call_does_not_count(clock: Clock) -> None:
    patience = Patience("it", 10, None)
    clock.now += 1000
    answers = iter([StoreUnavailable("away"), None])

    def action() -> None:
        error = next(answers)
        if error:
            raise error

    patience.call(action)


def test_cancelled_before_the_first_try() -> None:
    cancel = CancelToken()
    cancel.cancel()
    calls = []

    with pytest.raises(TransferCancelled, match="it"):
        Patience("it", 10, cancel).call(lambda: calls.append(1))
    assert calls == []


def test_limiter_spreads_what_is_reserved_at_once() -> None:
    limiter = RateLimiter(1000)

    waits = [limiter.reserve(500) for _ in range(5)]

    assert waits[0] == 0
    assert waits[1:] == pytest.approx([0.5, 1.0, 1.5, 2.0])


def test_limiter_does_not_save_up_idle_time(clock: Clock) -> None:
    limiter = RateLimiter(10_000)
    limiter.reserve(1)
    clock.now += 3600

    assert limiter.reserve(1000) == 0
    assert limiter.reserve(1000) == pytest.approx(0.1)


def test_waiting_for_bandwidth_is_no_lack_of_progress(clock: Clock) -> None:
    limiter = RateLimiter(10)
    limiter.reserve(1000)
    patience = Patience("it", 5, None)
    answers = iter([StoreUnavailable("away"), None])

    def action() -> None:
        patience.pace(limiter, 1)
        error = next(answers)
        if error:
            raise error

    patience.call(action)

    assert sum(clock.waits[:100]) == pytest.approx(100)


def test_options_of_a_configuration() -> None:
    options = TransferOptions.from_config(TransferConfig(1 << 20, 2, 5000, 60.0))

    assert (options.part_size, options.concurrency, options.max_bandwidth, options.retry_for) == (1 << 20, 2, 5000, 60)
    assert options.limiter is not None
    assert TransferOptions.from_config(TransferConfig()).limiter is None


@pytest.mark.parametrize("wrong", [{"part_size": 0}, {"concurrency": 0}, {"retry_for": -1}, {"max_bandwidth": 0}])
def test_options_that_cannot_work_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least"):
        TransferOptions(**wrong)  # type: ignore[arg-type]


def test_meter_reports_rarely_and_at_the_end(clock: Clock) -> None:
    seen: list[tuple[int, int | None, float]] = []
    meter = Meter(lambda done, total, rate: seen.append((done, total, rate)), None, done=100)

    for _ in range(1000):
        clock.now += 0.001
        meter.add(1)
    meter.finish()

    assert 10 <= len(seen) <= 12
    assert seen[0][:2] == (101, None)
    assert seen[-1][:2] == (1100, 1100)
    assert seen[-1][2] == pytest.approx(1000)


def test_what_was_there_before_is_no_speed(clock: Clock) -> None:
    seen: list[float] = []
    meter = Meter(lambda done, total, rate: seen.append(rate), 10**12, done=10**12 - 1)
    clock.now += 2
    meter.add(1)
    assert seen == [0.5]


def test_low_bandwidth_makes_short_bursts() -> None:
    mib = 1 << 20
    assert TransferOptions(part_size=8 * mib).burst == 8 * mib
    assert TransferOptions(part_size=8 * mib, max_bandwidth=100 * mib).burst == 8 * mib
    assert TransferOptions(part_size=8 * mib, max_bandwidth=2 * mib).burst == mib
    assert TransferOptions(part_size=8 * mib, max_bandwidth=1000).burst == 256 * 1024
