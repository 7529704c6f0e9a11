"""Sizes, durations, prefixes, organisation ids and patterns, as people write them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vantage6_largefile.config import LocationPattern
from vantage6_largefile.config.problems import Mistake
from vantage6_largefile.config.values import (
    parse_duration,
    parse_fingerprint,
    parse_organization,
    parse_prefix,
    parse_rate,
    parse_size,
)

UNITS = {
    "": 1,
    "B": 1,
    "kB": 1000,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "TB": 1000**4,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
    "TiB": 1 << 40,
}
PERIODS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1MiB", 1 << 20),
        ("8 MiB", 8 << 20),
        (" 8mib ", 8 << 20),
        ("500MB", 500_000_000),
        ("1.5GiB", 3 << 29),
        ("0", 0),
        ("0MiB", 0),
        (0, 0),
        (1048576, 1 << 20),
        ("1048576", 1 << 20),
    ],
)
def test_size(text: object, expected: int) -> None:
    assert parse_size(text) == expected


@settings(deadline=None)
@given(st.integers(min_value=0, max_value=2000), st.sampled_from(sorted(UNITS)), st.sampled_from(["", " ", "  "]))
def test_size_is_number_times_unit(number: int, unit: str, space: str) -> None:
    assert parse_size(f"{number}{space}{unit}") == number * UNITS[unit]


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        False,
        1.0,
        math.nan,
        [],
        {},
        -1,
        "-1",
        "",
        " ",
        "lots",
        "MiB",
        "8M",
        "8Mb it",
        "1,5MB",
        "1e6",
        "0x10",
        "1_000",
        "1.5",
        "1.0000001MB",
        "1MiB\n1",
        "\u0661MiB",
        2**53,
        "9999999999999999TiB",
        "9" * 5000,
        10**5000,
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_size_is_refused(value: object) -> None:
    with pytest.raises(Mistake):
        parse_size(value)


@settings(deadline=None)
@given(st.text(max_size=12) | st.integers() | st.floats() | st.booleans() | st.none())
def test_whatever_is_read_as_size_or_duration_it_is_a_number_or_a_mistake(value: object) -> None:
    for parse in (parse_size, parse_duration, parse_rate):
        try:
            result = parse(value)
        except Mistake:
            continue
        assert result >= 0
        assert not isinstance(value, bool)


@pytest.mark.parametrize(
    ("text", "expected"), [("24h", 86400.0), ("30m", 1800.0), ("90s", 90.0), ("7 d", 604800.0), (0, 0.0), (15, 15.0)]
)
def test_duration(text: object, expected: float) -> None:
    assert parse_duration(text) == expected


@settings(deadline=None)
@given(st.integers(min_value=0, max_value=10_000), st.sampled_from(sorted(PERIODS)))
def test_duration_is_number_times_unit(number: int, unit: str) -> None:
    assert parse_duration(f"{number}{unit}") == number * PERIODS[unit]


@pytest.mark.parametrize("value", [None, True, 1.5, -1, "", "h", "24", "24hh", "1h30m", "-1h", "1w", "\u0661h", [24]])
def test_what_is_no_duration_is_refused(value: object) -> None:
    with pytest.raises(Mistake):
        parse_duration(value)


def test_rate_may_say_per_second() -> None:
    assert parse_rate("20MiB/s") == parse_rate("20MiB") == 20 << 20
    with pytest.raises(Mistake):
        parse_rate("20MiB/h")


@pytest.mark.parametrize(
    ("text", "expected"), [("", ()), ("ziekenhuis-a/", ("ziekenhuis-a",)), ("a/b", ("a", "b")), ("a/b/", ("a", "b"))]
)
def test_prefix(text: str, expected: tuple[str, ...]) -> None:
    assert parse_prefix(text) == expected


@pytest.mark.parametrize(
    "value", ["/", "//", "/a", "a//b", "a//", "../b", "a/..", "a/.", "a b", "a/%2e", "a\n", None, 7]
)
def test_what_is_no_prefix_is_refused(value: object) -> None:
    with pytest.raises(Mistake):
        parse_prefix(value)


@pytest.mark.parametrize(("value", "expected"), [(7, 7), ("7", 7), ("*", "*"), (2**31 - 1, 2**31 - 1)])
def test_organization(value: object, expected: object) -> None:
    assert parse_organization(value) == expected


@pytest.mark.parametrize(
    "value", [None, True, 0, -1, 1.0, "", "0", "07", " 7", "7\n", "DHD", "**", "\u0667", 2**31, "9" * 11]
)
def test_what_is_no_organization_is_refused(value: object) -> None:
    with pytest.raises(Mistake):
        parse_organization(value)


def test_fingerprint_may_be_written_with_colons_and_capitals() -> None:
    digits = "0123456789abcdef" * 4
    colons = ":".join(digits[i : i + 2] for i in range(0, 64, 2)).upper()

    assert parse_fingerprint(colons) == parse_fingerprint(digits) == digits


@pytest.mark.parametrize("value", [None, "", "ab" * 31, "ab" * 33, "zz" * 32, "ab" * 32 + "\n", 7])
def test_what_is_no_fingerprint_is_refused(value: object) -> None:
    with pytest.raises(Mistake):
        parse_fingerprint(value)


def test_pattern_fills_in_the_organisation() -> None:
    pattern = LocationPattern.parse("azure://dhdplugin/v6-org-{organization_id}/p{organization_id}")

    assert pattern.has_placeholder
    assert str(pattern.for_organization(12)) == "azure://dhdplugin/v6-org-12/p12"


def test_pattern_of_one_organisation_does_not_contain_a_longer_number() -> None:
    pattern = LocationPattern.parse("azure://dhdplugin/v6-org-{organization_id}")

    assert not pattern.for_organization(1).contains(pattern.for_organization(12))


@pytest.mark.parametrize(
    "text",
    [
        "azure://dhdplugin/{organization}",
        "azure://dhdplugin/v6-{organization_id",
        "azure://dhdplugin/v6-{{organization_id}}",
        "azure://dhdplugin/organization_id}",
        "a{organization_id}://dhdplugin/c",
        "azure://dhdplugin/{organization_id}/",
        "azure://dhdplugin/../{organization_id}",
        "azure://dhdplugin/%7Borganization_id%7D",
        "azure://dhdplugin/c?{organization_id}",
        "dhdplugin",
        "",
        None,
        7,
    ],
)
def test_what_is_no_pattern_is_refused(text: object) -> None:
    with pytest.raises(Mistake):
        LocationPattern.parse(text)
