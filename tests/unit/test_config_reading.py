"""Which store an object may be read through: own, or the entry of exactly the organisation that wrote it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vantage6_largefile.config import LargeResultStore, load_large_result_store
from vantage6_largefile.errors import LocationRefused
from vantage6_largefile.location import Location
from vantage6_largefile.reference import ResultContext, new_object_id, object_location

OWN = 1
CONTEXT = ResultContext("5f1c0e1e-7a7b-4d8e-8f00-1234567890ab", 3, 42)


def load(*readable: dict[str, Any], **changes: Any) -> LargeResultStore:
    block = {
        "driver": "azure",
        "account_url": "https://dhdplugin.blob.core.windows.net",
        "container": "dhd",
        "credential": {"type": "default"},
        "readable": list(readable),
        **changes,
    }
    return load_large_result_store(block, source="x", environ={})


def at(store: str) -> Location:
    return object_location(Location.parse(store), CONTEXT, new_object_id())


def read(store: LargeResultStore, place: str, organization: int) -> str:
    return str(store.store_for_reading(at(place), organization_id=organization, own_organization_id=OWN).root)


def refused(store: LargeResultStore, place: str, organization: int) -> str:
    with pytest.raises(LocationRefused) as caught:
        store.store_for_reading(at(place), organization_id=organization, own_organization_id=OWN)
    return str(caught.value)


HOSPITALS = (
    {"organization": 7, "location": "azure://dhdplugin/hospital-a"},
    {"organization": 8, "location": "azure://dhdplugin/hospital-b"},
    {"organization": "*", "location": "azure://dhdplugin/v6-org-{organization_id}"},
)


def test_own_object_is_read_through_the_own_store() -> None:
    store = load(*HOSPITALS)

    config = store.store_for_reading(at("azure://dhdplugin/dhd"), organization_id=OWN, own_organization_id=OWN)

    assert config is store.own


def test_object_of_a_hospital_is_read_through_its_entry() -> None:
    store = load(*HOSPITALS)

    assert read(store, "azure://dhdplugin/hospital-a", 7) == "azure://dhdplugin/hospital-a"
    assert read(store, "azure://dhdplugin/hospital-a/some/prefix", 7) == "azure://dhdplugin/hospital-a"
    assert read(store, "azure://dhdplugin/v6-org-12", 12) == "azure://dhdplugin/v6-org-12"


@pytest.mark.parametrize(
    ("place", "organization"),
    [
        ("azure://dhdplugin/hospital-a2", 7),  # a look-alike of what is readable
        ("azure://dhdplugin/hospital-", 7),
        ("azure://dhdplugin/Hospital-A", 7),
        ("azure://dhdplugin2/hospital-a", 7),
        ("file://dhdplugin/hospital-a", 7),
        ("azure://dhdplugin/hospital-b", 7),  # someone else's entry
        ("azure://dhdplugin/hospital-a", 8),
        ("azure://dhdplugin/hospital-a", 12),
        ("azure://dhdplugin/dhd", 7),  # our own store is for our own objects
        ("azure://dhdplugin/dhd2", OWN),
        ("azure://dhdplugin/hospital-a", OWN),  # an own object cannot lie at someone else's
        ("azure://dhdplugin/v6-org-12", 13),
        ("azure://dhdplugin/v6-org-12", 1),
        ("azure://dhdplugin/v6-org-12", 2),
        ("azure://dhdplugin/v6-org-7", 7),  # "*" does not widen an entry of its own
        ("azure://elsewhere/anything", 7),
    ],
)
def test_everything_else_is_refused_and_the_message_names_what_is_missing(place: str, organization: int) -> None:
    message = refused(load(*HOSPITALS), place, organization)

    assert f"an object of organisation {organization}:" in message
    assert place in message
    assert f"Add {{organization: {organization}, location: {place}}} to large_result_store.readable" in message


def test_without_readable_only_own_objects_are_read() -> None:
    store = load()

    assert read(store, "azure://dhdplugin/dhd", OWN) == "azure://dhdplugin/dhd"
    assert "(there are" not in refused(store, "azure://dhdplugin/hospital-a", 7)


def test_the_prefix_bounds_the_own_store() -> None:
    store = load(prefix="team-a/")

    assert read(store, "azure://dhdplugin/dhd/team-a", OWN) == "azure://dhdplugin/dhd/team-a"
    refused(store, "azure://dhdplugin/dhd/team-a2", OWN)
    refused(store, "azure://dhdplugin/dhd", OWN)


def test_a_former_own_container_is_read_through_an_entry_of_its_own() -> None:
    store = load({"organization": OWN, "location": "azure://dhdplugin/dhd-old"})

    assert read(store, "azure://dhdplugin/dhd-old", OWN) == "azure://dhdplugin/dhd-old"
    assert read(store, "azure://dhdplugin/dhd", OWN) == "azure://dhdplugin/dhd"


def test_of_several_entries_the_most_specific_is_taken() -> None:
    sas = {"type": "sas", "sas": "sr=c&sig=x"}
    store = load(
        {"organization": 7, "location": "azure://dhdplugin/shared"},
        {"organization": 7, "location": "azure://dhdplugin/shared/a", "credential": sas},
    )

    assert read(store, "azure://dhdplugin/shared/a", 7) == "azure://dhdplugin/shared/a"
    assert read(store, "azure://dhdplugin/shared/b", 7) == "azure://dhdplugin/shared"


def test_a_location_outside_the_layout_is_refused_with_a_usable_advice() -> None:
    with pytest.raises(LocationRefused, match=r"location: azure://x/y\}"):
        load().store_for_reading(Location.parse("azure://x/y/z"), organization_id=7, own_organization_id=OWN)
    with pytest.raises(LocationRefused, match=r"location: azure://x\}"):
        load().store_for_reading(Location.parse("azure://x"), organization_id=7, own_organization_id=OWN)


def test_file_stores_of_others_have_folders_of_their_own() -> None:
    block = {
        "driver": "file",
        "root": "dhd",
        "path": "/srv/dhd",
        "readable": [
            {"organization": 7, "location": "file://hospital-a", "path": "/srv/a/"},
            {"organization": 8, "location": "file://dhd/hospital-b"},
            {"organization": "*", "location": "file://org-{organization_id}", "path": "/srv/orgs/{organization_id}"},
        ],
    }
    store = load_large_result_store(block, source="x", environ={})

    folders = {
        (place, organization): store.store_for_reading(
            at(place), organization_id=organization, own_organization_id=OWN
        ).options["path"]
        for place, organization in (("file://hospital-a", 7), ("file://dhd/hospital-b", 8), ("file://org-12", 12))
    }

    assert folders == {
        ("file://hospital-a", 7): "/srv/a",
        ("file://dhd/hospital-b", 8): "/srv/dhd",
        ("file://org-12", 12): "/srv/orgs/12",
    }


@settings(deadline=None)
@given(
    written_by=st.integers(min_value=1, max_value=300),
    claimed=st.integers(min_value=1, max_value=300),
)
def test_an_object_in_the_container_of_one_organisation_is_read_for_that_one_only(
    written_by: int, claimed: int
) -> None:
    store = load(HOSPITALS[2])
    location = at(f"azure://dhdplugin/v6-org-{written_by}")

    try:
        config = store.store_for_reading(location, organization_id=claimed, own_organization_id=OWN)
    except LocationRefused:
        assert written_by != claimed
    else:
        assert written_by == claimed
        assert config.root.contains(location)
