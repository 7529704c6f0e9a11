"""References come from other parties: everything that breaks the format is a typed refusal, never a crash."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vantage6_largefile.errors import InvalidReference, UnknownReferenceVersion
from vantage6_largefile.location import Location
from vantage6_largefile.reference import (
    HEADER_BYTES,
    MAX_REFERENCE_BYTES,
    MAX_SIZE,
    MEDIA_TYPES,
    SEGMENT_BYTES,
    TAG_BYTES,
    InputContext,
    Reference,
    ResultContext,
    check_layout,
    is_object_id,
    is_server_id,
    new_object_id,
    now_timestamp,
    object_location,
    parse_reference,
    stored_size_of,
)

ID = "0b6e2a1c-5b1d-4c6e-9f0a-3d2c1b0a9f8e"
OTHER_ID = "1b6e2a1c-5b1d-4c6e-9f0a-3d2c1b0a9f8e"
SERVER = "5f1c0e1e-7a7b-4d8e-8f00-1234567890ab"
OTHER_SERVER = "6f1c0e1e-7a7b-4d8e-8f00-1234567890ab"
STORE = Location.parse("azure://dhdplugin/ziekenhuis-a")
RESULT = ResultContext(server_id=SERVER, collaboration_id=3, run_id=42)
INPUT = InputContext(server_id=SERVER, collaboration_id=3, initiating_organization_id=7)
JWE = "eyJhbGciOiJSU0EtT0FFUC0yNTYifQ.a.b.c.d"


def document(**changes: Any) -> dict[str, Any]:
    plain = {
        "version": 1,
        "id": ID,
        "location": str(object_location(STORE, RESULT, ID)),
        "size": 10,
        "stored_size": 10,
        "sha256": "ab" * 32,
        "etag": '"0x8DD0"',
        "media_type": "application/json",
        "envelope": None,
        "created_at": "2026-11-22T19:00:00.000000Z",
    }
    return plain | changes


def test_canonical_json_is_stable_and_reads_back() -> None:
    reference = parse_reference(document())

    text = reference.canonical_json()

    assert text == json.dumps(document(), sort_keys=True, separators=(",", ":"))
    assert parse_reference(json.loads(text)) == reference


def test_the_key_of_the_envelope_is_not_shown() -> None:
    reference = parse_reference(
        document(
            stored_size=stored_size_of(10, encrypted=True),
            envelope={"format": "tink-aes256-gcm-hkdf-1mb", "key": JWE},
        )
    )

    assert JWE not in repr(reference)
    assert JWE in reference.canonical_json()
    assert set(reference.without_access()) == {"version", "id", "size", "media_type"}


@pytest.mark.parametrize(
    "version",
    [
        0,
        2,
        -1,
        True,
        False,
        1.0,
        "1",
        None,
        [],
        {},
        math.nan,
        10**30,
        pytest.param(10**5000, id="huge"),
        "x" * 100_000,
        "2\nFAKE LOG LINE",
    ],
)
def test_unknown_version_is_refused_by_name(version: object) -> None:
    with pytest.raises(UnknownReferenceVersion) as caught:
        parse_reference(document(version=version))

    assert "unknown version" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


def test_unknown_version_is_named() -> None:
    with pytest.raises(UnknownReferenceVersion, match="unknown version 2;"):
        parse_reference(document(version=2))


@pytest.mark.parametrize("value", [None, [], "{}", 1, True, [document()]])
def test_anything_but_an_object_is_refused(value: object) -> None:
    with pytest.raises(InvalidReference, match="expected a JSON object"):
        parse_reference(value)


def nested(depth: int) -> object:
    bomb: object = 1
    for level in range(depth):
        bomb = [bomb] if level % 2 else {"a": bomb}
    return bomb


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", ID.upper()),
        ("id", ID + "\n"),
        ("id", ID.replace("-", "")),
        ("id", "{" + ID + "}"),
        ("id", "0b6e2a1c-5b1d-1c6e-9f0a-3d2c1b0a9f8e"),  # uuid1
        ("id", OTHER_ID),  # not the last segment of the location
        ("id", 7),
        ("location", "azure://dhdplugin/ziekenhuis-a/../ziekenhuis-b/" + ID),
        ("location", "azure://dhdplugin/ziekenhuis-a/%2e%2e/" + ID),
        ("location", f"azure://dhdplugin/ziekenhuis-a/{ID}\n"),
        ("location", f"azure://dhdplugin/ziekenhuis-a/{ID}?sig=x"),
        ("location", f"https://dhdplugin.blob.core.windows.net:443/ziekenhuis-a/{ID}"),
        ("location", f"azure://dhdplugin/ziekenhuis-a/{OTHER_ID}"),
        ("location", "azure://dhdplugin"),
        ("location", "azure://dhdplugin/" + "x" * 2000),
        ("location", None),
        ("size", -1),
        ("size", True),
        ("size", 10.0),
        ("size", "10"),
        ("size", math.nan),
        ("size", math.inf),
        ("size", 2**53),
        pytest.param("size", 10**5000, id="size-huge"),
        ("size", 11),  # does not fit stored_size
        ("stored_size", 9),
        ("stored_size", 66),  # what the envelope would have
        ("stored_size", -1),
        ("stored_size", True),
        ("stored_size", None),
        ("sha256", "AB" * 32),
        ("sha256", "ab" * 31),
        ("sha256", "ab" * 32 + "\n"),
        ("sha256", "zz" * 32),
        ("etag", ""),
        ("etag", "a b"),
        ("etag", "a\r\nX-Header: 1"),
        ("etag", "\u00e9"),
        ("etag", "x" * 201),
        ("etag", 1),
        ("media_type", "application/x-pickle"),
        ("media_type", "application/json; charset=utf-8"),
        ("media_type", "Application/JSON"),
        ("media_type", None),
        ("envelope", {}),
        ("envelope", "x"),
        ("envelope", {"format": "other", "key": JWE}),
        ("envelope", {"format": "tink-aes256-gcm-hkdf-1mb", "key": "not.a.jwe"}),
        ("envelope", {"format": "tink-aes256-gcm-hkdf-1mb", "key": JWE + "\n"}),
        ("envelope", {"format": "tink-aes256-gcm-hkdf-1mb", "key": "a.a.a.a." + "a" * 3000}),
        ("envelope", {"format": "tink-aes256-gcm-hkdf-1mb", "key": JWE, "extra": 1}),
        ("envelope", {"format": "tink-aes256-gcm-hkdf-1mb", "key": JWE}),  # stored_size is that of a plain object
        ("created_at", "2026-11-22T19:00:00Z"),
        ("created_at", "2026-11-22T19:00:00.000000+00:00"),
        ("created_at", "2026-13-22T19:00:00.000000Z"),
        ("created_at", "2026-11-22T19:00:00.000000Z\n"),
        ("created_at", "\u0662\u0660\u0662\u0666-11-22T19:00:00.000000Z"),  # digits of another script
        ("created_at", 1_700_000_000),
        ("extra", 1),
        ("credential", "x"),
        *((field, nested(5000)) for field in ("id", "location", "size", "envelope", "version", "extra")),
    ],
)
def test_field_that_breaks_the_format_is_a_typed_refusal(field: str, value: object) -> None:
    with pytest.raises(InvalidReference) as caught:
        parse_reference(document(**{field: value}))

    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1500


@pytest.mark.parametrize("field", [field for field in document() if field not in ("etag", "envelope", "version")])
def test_missing_field_is_refused_and_named(field: str) -> None:
    incomplete = document()
    del incomplete[field]

    with pytest.raises(InvalidReference, match=field):
        parse_reference(incomplete)


@pytest.mark.parametrize("key", ["a\nINFO forged line", "\x1b[31m", "\ud800", 7, "k" * 10_000])
def test_keys_of_another_party_cannot_forge_a_log_line(key: object) -> None:
    with pytest.raises(InvalidReference) as caught:
        parse_reference({**document(), key: 1})

    text = str(caught.value)
    assert text.isprintable()
    assert text.isascii()
    assert len(text) < 500


def test_many_mistakes_make_a_short_message() -> None:
    with pytest.raises(InvalidReference) as caught:
        parse_reference(document(**{f"extra{number}": 1 for number in range(5000)}))

    assert len(str(caught.value)) < 2000


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from([*document(), "other"]), json_values))
def test_whatever_json_is_parsed_it_is_a_reference_or_a_typed_refusal(changes: dict[str, Any]) -> None:
    try:
        reference = parse_reference({**document(), **changes})
    except InvalidReference:
        return
    assert len(reference.canonical_json().encode()) < MAX_REFERENCE_BYTES
    assert reference.parsed_location.segments[-1] == reference.id


def test_the_largest_reference_that_the_fields_allow_stays_below_the_limit() -> None:
    largest = document(
        location=f"azure://{'x' * (1200 - len('azure:///') - len(ID))}/{ID}",
        etag="\\" * 200,  # each becomes two characters in JSON
        envelope={"format": "tink-aes256-gcm-hkdf-1mb", "key": "a.a.a.a." + "a" * 2040},
        size=MAX_SIZE // 2,
        stored_size=stored_size_of(MAX_SIZE // 2, encrypted=True),
        media_type="application/vnd.apache.arrow.file",
    )

    assert 3900 < len(parse_reference(largest).canonical_json()) < MAX_REFERENCE_BYTES


# --- sizes ---------------------------------------------------------------------------------------------------------

FIRST = SEGMENT_BYTES - HEADER_BYTES - TAG_BYTES
LATER = SEGMENT_BYTES - TAG_BYTES


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, 40 + 16),
        (1, 40 + 16 + 1),
        (FIRST - 1, SEGMENT_BYTES - 1),
        (FIRST, SEGMENT_BYTES),
        (FIRST + 1, SEGMENT_BYTES + 17),
        (FIRST + LATER, 2 * SEGMENT_BYTES),
        (FIRST + LATER + 1, 2 * SEGMENT_BYTES + 17),
        (1 << 30, 1073758264),  # the example in the specification
    ],
)
def test_stored_size_of_an_envelope(size: int, expected: int) -> None:
    assert stored_size_of(size, encrypted=True) == expected
    assert stored_size_of(size, encrypted=False) == size


@settings(deadline=None)
@given(st.integers(min_value=0, max_value=MAX_SIZE))
def test_stored_size_fills_every_segment_but_the_last(size: int) -> None:
    stored = stored_size_of(size, encrypted=True)

    segments = max(1, -(-stored // SEGMENT_BYTES))
    assert stored - HEADER_BYTES - segments * TAG_BYTES == size
    assert stored < stored_size_of(size + 1, encrypted=True)


def test_a_plaintext_whose_stored_form_exceeds_the_largest_number_is_refused() -> None:
    with pytest.raises(InvalidReference):
        parse_reference(
            document(
                size=MAX_SIZE,
                stored_size=stored_size_of(MAX_SIZE, encrypted=True),
                envelope={"format": "tink-aes256-gcm-hkdf-1mb", "key": JWE},
            )
        )


# --- layout --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("context", [RESULT, INPUT])
@pytest.mark.parametrize("store", [STORE, STORE.child("shared", "prefix"), Location.parse("file://hospital-a")])
def test_check_layout_gives_back_the_store(context: ResultContext | InputContext, store: Location) -> None:
    reference = parse_reference(document(location=str(object_location(store, context, ID))))

    assert check_layout(reference, context) == store


def test_the_layout_is_what_the_specification_says() -> None:
    assert str(object_location(STORE, RESULT, ID)) == (
        f"azure://dhdplugin/ziekenhuis-a/v6lf/{SERVER}/c3/results/run-42/{ID}"
    )
    assert str(object_location(STORE, INPUT, ID)) == f"azure://dhdplugin/ziekenhuis-a/v6lf/{SERVER}/c3/inputs/o7/{ID}"
    assert RESULT.associated_data(ID) == f"v6lf/1|result|42|{ID}".encode()
    assert INPUT.associated_data(ID) == f"v6lf/1|input|3|7|{ID}".encode()


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        (RESULT, ResultContext(SERVER, 3, 43)),
        (RESULT, ResultContext(SERVER, 3, 4)),
        (RESULT, ResultContext(SERVER, 30, 42)),
        (RESULT, ResultContext(OTHER_SERVER, 3, 42)),
        (RESULT, INPUT),
        (INPUT, RESULT),
        (INPUT, InputContext(SERVER, 3, 8)),
        (INPUT, InputContext(SERVER, 4, 7)),
        (INPUT, InputContext(OTHER_SERVER, 3, 7)),
        (InputContext(SERVER, 3, 42), RESULT),
    ],
)
def test_object_of_another_run_server_collaboration_or_organisation_is_refused(
    written: ResultContext | InputContext, asked: ResultContext | InputContext
) -> None:
    reference = parse_reference(document(location=str(object_location(STORE, written, ID))))

    with pytest.raises(InvalidReference, match="belongs to another server, collaboration, run or organisation"):
        check_layout(reference, asked)


@pytest.mark.parametrize(
    "location",
    [
        f"azure://dhdplugin/ziekenhuis-a/{ID}",
        f"azure://dhdplugin/{ID}",
        f"azure://dhdplugin/c/V6LF/{SERVER}/c3/results/run-42/{ID}",
        f"azure://dhdplugin/c/v6lf/{SERVER}/c3/results/run-42/extra/{ID}",
        f"azure://dhdplugin/c/v6lf/{SERVER}/c3/results/run-042/{ID}",
        f"azure://dhdplugin/c/v6lf/{SERVER}/C3/results/run-42/{ID}",
        f"azure://dhdplugin/{SERVER}/c3/results/run-42/{ID}",
        f"azure://v6lf/{SERVER}/c3/results/run-42/{ID}",
    ],
)
def test_location_outside_the_layout_is_refused(location: str) -> None:
    reference = parse_reference(document(location=location))

    with pytest.raises(InvalidReference, match="does not end in"):
        check_layout(reference, RESULT)


def test_fresh_ids_and_times_fit_the_format() -> None:
    assert is_object_id(new_object_id())
    assert not is_object_id(SERVER.upper())
    assert not is_object_id(None)
    assert is_server_id(SERVER)
    assert not is_server_id(SERVER + "\n")
    identifier = new_object_id()
    location = str(object_location(STORE, RESULT, identifier))
    assert parse_reference(document(id=identifier, location=location, created_at=now_timestamp())).id == identifier


# --- the specification ---------------------------------------------------------------------------------------------


def vectors() -> tuple[Any, ...]:
    """The JSON blocks of docs/reference-format.md, in their order."""
    page = (Path(__file__).parents[2] / "docs" / "reference-format.md").read_text(encoding="utf-8")
    return tuple(json.loads(block) for block in re.findall(r"^```json\n(.*?)^```$", page, re.DOTALL | re.MULTILINE))


def test_the_test_vectors_of_the_specification_hold() -> None:
    example, locations, containment, changes = vectors()

    assert parse_reference(example).model_dump(mode="json") == example
    for text, valid in locations:
        try:
            Location.parse(text)
        except InvalidReference:
            assert not valid, text
        else:
            assert valid, text
    for outer, inner, expected in containment:
        assert Location.parse(outer).contains(Location.parse(inner)) is expected, (outer, inner)
    for change in changes:
        with pytest.raises(InvalidReference):
            parse_reference({**example, **change})


def test_the_specification_names_every_field_and_media_type() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference-format.md").read_text(encoding="utf-8")

    assert [name for name in (*Reference.model_fields, *MEDIA_TYPES) if f"`{name}`" not in page] == []
