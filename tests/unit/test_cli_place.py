"""From the command line to a store: what a configuration file may be, and which store a name means."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from vantage6_largefile.cli.place import load_config, object_place, prefix_place
from vantage6_largefile.config import LargeResultStore, load_large_result_store
from vantage6_largefile.errors import ConfigurationError, InvalidReference, LocationRefused

BLOCK: dict[str, object] = {
    "driver": "file",
    "root": "dhd",
    "path": "/srv/dhd",
    "prefix": "central/",
    "readable": [
        {"organization": 7, "location": "file://hospital-7/results", "path": "/srv/7"},
        {
            "organization": "*",
            "location": "file://org-{organization_id}/v6",
            "path": "/srv/org-{organization_id}",
        },
    ],
}


@pytest.fixture
def config() -> LargeResultStore:
    return load_large_result_store(BLOCK, source="x")


@pytest.mark.parametrize("document", [{"api_key": "x", "large_result_store": BLOCK}, BLOCK], ids=["node", "block"])
def test_configuration_is_that_of_a_node_or_the_block_alone(tmp_path: Path, document: object) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(document))

    assert str(load_config(path).own.root) == "file://dhd/central"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("secret: [unclosed", "is not YAML"),
        ("- a\n- b\n", "expected a mapping"),
        ("api_key: geheim\n", "neither the block large_result_store"),
        ("large_result_store: geheim\n", "expected a mapping"),
        ("driver: file\nroot: geheim\n", "path"),
        ("driver: \xff", "UTF-8"),
    ],
)
def test_mistakes_of_a_configuration_are_named_and_not_quoted(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(content.encode("latin-1"))

    with pytest.raises(ConfigurationError, match=said) as caught:
        load_config(path)

    assert "geheim" not in str(caught.value)
    assert "unclosed" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_name_is_below_the_own_store_with_its_prefix(config: LargeResultStore) -> None:
    place = object_place(config, "a/b.bin")

    assert str(place.location) == "file://dhd/central/a/b.bin"
    assert place.own


@pytest.mark.parametrize(
    ("text", "root"),
    [
        ("file://hospital-7/results/a", "file://hospital-7/results"),
        ("file://org-12/v6/a", "file://org-12/v6"),
    ],
)
def test_location_may_lie_in_a_readable_store(config: LargeResultStore, text: str, root: str) -> None:
    place = object_place(config, text)

    assert str(place.location) == text
    assert str(place.store.root) == root
    assert not place.own


@pytest.mark.parametrize(
    "text",
    [
        "file://dhd/other/a",
        "file://dhd/central2/a",
        "file://hospital-7/a",
        "file://hospital-70/results/a",
        "file://org-012/v6/a",
        "file://org-12/v62/a",
        # Whoever has an entry of its own is read there and nowhere else.
        "file://org-7/v6/a",
        "azure://account/container/a",
    ],
)
def test_location_in_no_configured_store_is_refused(config: LargeResultStore, text: str) -> None:
    with pytest.raises(LocationRefused, match="readable"):
        object_place(config, text)


@pytest.mark.parametrize(
    "text", ["", "a//b", "../a", "a/../b", "a b", ".hidden", "/a", "file://dhd/central", "file://"]
)
def test_what_names_no_object_is_refused(config: LargeResultStore, text: str) -> None:
    with pytest.raises(InvalidReference):
        object_place(config, text)


@pytest.mark.parametrize(
    ("text", "location"),
    [
        ("", "file://dhd/central"),
        ("a/", "file://dhd/central/a"),
        ("file://dhd/central/", "file://dhd/central"),
        ("file://org-12/v6", "file://org-12/v6"),
    ],
)
def test_prefix_may_be_a_whole_store(config: LargeResultStore, text: str, location: str) -> None:
    assert str(prefix_place(config, text).location) == location
