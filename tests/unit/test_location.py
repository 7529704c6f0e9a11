"""The grammar of locations: what is taken, what is refused, and that containment goes by whole segments."""

from __future__ import annotations

import string

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from vantage6_largefile.errors import InvalidReference
from vantage6_largefile.location import MAX_LENGTH, Location, is_segment

_FIRST = string.ascii_letters + string.digits + "_"
_INNER = _FIRST + ".-"

segments = st.builds(
    lambda first, rest: first + rest, st.sampled_from(_FIRST), st.text(alphabet=_INNER, max_size=20)
).filter(lambda text: not text.endswith("."))
drivers = st.from_regex(r"[a-z][a-z0-9-]{0,31}", fullmatch=True)
locations = st.builds(Location, drivers, segments, st.lists(segments, max_size=8).map(tuple))


@settings(deadline=None)
@given(locations)
def test_parsing_the_text_of_a_location_gives_the_same_location(location: Location) -> None:
    assert Location.parse(str(location)) == location


@settings(deadline=None)
@given(st.text(max_size=60))
def test_whatever_text_is_parsed_it_is_refused_or_kept_to_the_letter(text: str) -> None:
    try:
        location = Location.parse(text)
    except InvalidReference:
        return
    assert str(location) == text
    assert all(is_segment(part) for part in (location.authority, *location.segments))


@settings(deadline=None)
@given(locations, st.text(min_size=1, max_size=3), st.integers(min_value=0, max_value=20))
def test_a_character_outside_the_alphabet_is_refused_anywhere_in_a_segment(
    location: Location, bad: str, where: int
) -> None:
    assume(any(character not in _INNER + "/" for character in bad))
    position = min(where, len(location.authority))
    spoilt = location.authority[:position] + bad + location.authority[position:]

    with pytest.raises(InvalidReference):
        Location.parse(f"{location.driver}://{spoilt}")


@pytest.mark.parametrize(
    "segment",
    [
        "",
        ".",
        "..",
        "...",
        ".hidden",
        "-dash",
        "trailing.",
        "%2e%2e",
        "a%2fb",
        "a\\b",
        "a?sig=x",
        "a#b",
        "user@host",
        "a:80",
        "a b",
        " a",
        "a ",
        "a\n",
        "\na",
        "a\r",
        "a\x00",
        "a\tb",
        "hospitaal-\u0430",  # Cyrillic a
        "\uff0e\uff0e",  # full-width dots, which NFKC turns into '..'
        "a\u2024b",  # one dot leader
        "a\u2215b",  # division slash
        "\u0661",  # a digit, but not of ASCII
        "\u017f",  # long s, which case folding turns into 's'
        "caf\u00e9",
        "a\u200b",
        "\ud800",
        "~",
        "a+b",
        "$root",
        "{organization_id}",
        "*",
    ],
)
def test_segment_that_could_mean_something_to_a_url_or_path_is_refused(segment: str) -> None:
    assert not is_segment(segment)
    with pytest.raises(InvalidReference):
        Location.parse(f"azure://account/container/{segment}/object")
    with pytest.raises(InvalidReference):
        Location.parse(f"azure://account/container/{segment}")
    with pytest.raises(InvalidReference):
        Location.parse(f"azure://{segment}/container")


@pytest.mark.parametrize("segment", ["a", "A", "0", "_", "a.b", "a..b", "a-", "a_", "_x", "v6lf", "run-42", "a.-_.b"])
def test_segment_of_the_alphabet_is_taken(segment: str) -> None:
    assert Location.parse(f"azure://account/{segment}").segments == (segment,)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "azure",
        "azure:",
        "azure:/account/c",
        "azure:///c",
        "://account/c",
        "//account/c",
        "Azure://account/c",
        "AZURE://account/c",
        "1azure://account/c",
        "az_ure://account/c",
        "azure ://account/c",
        " azure://account/c",
        "azure\n://account/c",
        "a" * 33 + "://account/c",
        "azure://account/c/",
        "azure://account//c",
        "azure://account/c?sv=1&sig=abc",
        "azure://account:443/c",
        "azure://user:pw@account/c",
        "azure://file://root/c",
        "azure://account/c\n",
    ],
)
def test_text_outside_the_grammar_is_refused(text: str) -> None:
    with pytest.raises(InvalidReference):
        Location.parse(text)


@pytest.mark.parametrize("value", [None, 7, True, b"azure://a/b", ["azure://a/b"], {"location": "azure://a/b"}])
def test_anything_but_text_is_refused(value: object) -> None:
    with pytest.raises(InvalidReference, match="expected text"):
        Location.parse(value)  # type: ignore[arg-type]


def test_a_location_may_be_exactly_as_long_as_the_limit_and_no_longer() -> None:
    longest = "azure://account/" + "x" * (MAX_LENGTH - len("azure://account/"))

    assert len(str(Location.parse(longest))) == MAX_LENGTH
    with pytest.raises(InvalidReference, match="longer than"):
        Location.parse(longest + "x")
    with pytest.raises(InvalidReference, match="longer than"):
        Location.parse(longest).child("x")


def test_a_refusal_quotes_at_most_a_little_of_what_it_was_given() -> None:
    with pytest.raises(InvalidReference) as caught:
        Location.parse("azure://account/" + "%" * 1000)

    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("parts", [("..",), ("a/b",), ("a", ""), ("a\n",), ("%2e%2e",)])
def test_child_takes_whole_segments_only(parts: tuple[str, ...]) -> None:
    with pytest.raises(InvalidReference):
        Location.parse("azure://account/container").child(*parts)


def test_the_constructor_applies_the_grammar_too() -> None:
    with pytest.raises(InvalidReference):
        Location("azure", "account", ("..",))
    with pytest.raises(InvalidReference):
        Location("azure", "", ())
    with pytest.raises(InvalidReference):
        Location("Azure", "account", ())


@pytest.mark.parametrize(
    ("outer", "inner", "expected"),
    [
        ("azure://a/hospital-a", "azure://a/hospital-a", True),
        ("azure://a/hospital-a", "azure://a/hospital-a/x/y", True),
        ("azure://a", "azure://a/hospital-a", True),
        ("azure://a/hospital-a", "azure://a/hospital-a2", False),
        ("azure://a/hospital-a", "azure://a/hospital-a2/x", False),
        ("azure://a/hospital-a", "azure://a/hospital-", False),
        ("azure://a/hospital-a", "azure://a/Hospital-A/x", False),
        ("azure://a/hospital-a", "azure://a2/hospital-a/x", False),
        ("azure://a/hospital-a", "azure://A/hospital-a/x", False),
        ("azure://a/hospital-a", "file://a/hospital-a/x", False),
        ("azure://a/hospital-a/x", "azure://a/hospital-a", False),
        ("azure://a/b", "azure://a/x/b", False),
    ],
)
def test_containment_goes_by_whole_segments(outer: str, inner: str, expected: bool) -> None:
    assert Location.parse(outer).contains(Location.parse(inner)) is expected


@settings(deadline=None)
@given(locations, locations)
def test_containment_is_a_prefix_of_segments_and_never_of_characters(one: Location, other: Location) -> None:
    expected = str(other) == str(one) or str(other).startswith(str(one) + "/")

    assert one.contains(other) is expected


@settings(deadline=None)
@given(locations, st.lists(segments, max_size=3))
def test_relative_gives_back_what_child_added(location: Location, extra: list[str]) -> None:
    below = location.child(*extra)

    assert location.relative(below) == tuple(extra)


def test_relative_refuses_what_lies_elsewhere() -> None:
    with pytest.raises(InvalidReference, match="does not lie below"):
        Location.parse("azure://a/hospital-a").relative(Location.parse("azure://a/hospital-a2/x"))
