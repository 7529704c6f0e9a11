"""The ``largefile`` block of a server."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from vantage6_largefile.config import ServerConfig, load_largefile
from vantage6_largefile.errors import ConfigurationError
from vantage6_largefile.location import Location

LOCATIONS = {7: ["azure://dhdplugin/ziekenhuis-a"], "*": ["azure://dhdplugin/v6-org-{organization_id}"]}
PRINCIPAL = {
    "tenant_id": "t",
    "client_id": "c",
    "client_secret": "canary-secret",
    "storage_account_name": "acc",
    "container_name": "results",
}


def load(block: Any, stock: object = None, **environ: str) -> ServerConfig:
    return load_largefile(block, stock_large_result_store=stock, source="server.yaml", environ=environ)


def problems_of(block: Any, stock: object = None) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as caught:
        load(block, stock)
    assert "canary" not in str(caught.value)
    return caught.value.problems


def test_defaults() -> None:
    config = load({})

    assert config == ServerConfig((), {}, 16 << 20, None, None)
    assert config.allowed_locations(7) == ()


def test_every_key() -> None:
    config = load(
        {
            "central_organizations": [1, "2"],
            "locations": LOCATIONS,
            "max_inline_result": "1MiB",
            "retention_days": 30,
            "legacy_store": {**PRINCIPAL, "type": "azure", "client_secret": "${env:STOCK}"},
        },
        STOCK="canary-secret",
    )

    assert config.central_organizations == (1, 2)
    assert (config.max_inline_result, config.retention_days) == (1 << 20, 30)
    assert config.legacy_store is not None
    assert config.legacy_store.as_stock_config() == PRINCIPAL
    assert "canary" not in repr(config)


def test_legacy_store_with_a_connection_string_needs_no_principal() -> None:
    config = load({"legacy_store": {"container_name": "results", "connection_string": "AccountKey=canary"}})

    assert config.legacy_store is not None
    assert config.legacy_store.as_stock_config() == {
        "container_name": "results",
        "connection_string": "AccountKey=canary",
    }


def test_an_entry_of_its_own_replaces_the_pattern_for_all() -> None:
    config = load({"locations": {"7": LOCATIONS[7], "*": LOCATIONS["*"], 9: None}})

    assert [str(location) for location in config.allowed_locations(7)] == ["azure://dhdplugin/ziekenhuis-a"]
    assert [str(location) for location in config.allowed_locations(8)] == ["azure://dhdplugin/v6-org-8"]
    assert config.allowed_locations(9) == ()


def test_only_locations_below_an_allowed_store_are_allowed() -> None:
    config = load({"locations": LOCATIONS})

    allowed = [
        (7, "azure://dhdplugin/ziekenhuis-a/v6lf/x", True),
        (7, "azure://dhdplugin/ziekenhuis-a2/v6lf/x", False),
        (7, "azure://dhdplugin/v6-org-7/x", False),
        (8, "azure://dhdplugin/v6-org-8/x", True),
        (8, "azure://dhdplugin/v6-org-88/x", False),
        (8, "azure://dhdplugin/ziekenhuis-a/x", False),
    ]

    assert [config.is_allowed(who, Location.parse(where)) for who, where, _ in allowed] == [a for *_, a in allowed]


def test_a_server_without_locations_says_that_nobody_may_register(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        load({})
        load({"locations": LOCATIONS})

    assert len(caplog.records) == 1
    assert "no organisation may register" in caplog.records[0].getMessage()


@pytest.mark.parametrize("stock", [{"container_name": "x"}, "x", ["x"]])
def test_a_stock_block_beside_it_is_refused_with_the_advice_where_to_move_it(stock: object) -> None:
    (problem,) = problems_of({}, stock)

    assert problem.startswith("large_result_store: found vantage6's own block beside largefile")
    assert "move it to largefile.legacy_store" in problem


@pytest.mark.parametrize("stock", [None, {}, ""])
def test_an_empty_stock_block_counts_as_absent_as_it_does_for_stock_code(stock: object) -> None:
    assert load({}, stock)


BAD: list[tuple[Any, str, str]] = [
    ({"central_organisations": [1]}, "central_organisations", "did you mean 'central_organizations'?"),
    ({"central_organizations": 1}, "central_organizations", "found 1, expected a list"),
    ({"central_organizations": ["DHD"]}, "central_organizations[0]", "found 'DHD', expected an organisation id"),
    ({"central_organizations": [1, True]}, "central_organizations[1]", "found true"),
    ({"central_organizations": [1, "1"]}, "central_organizations[1]", "found organisation 1 twice"),
    ({"max_inline_result": "x"}, "max_inline_result", "found 'x', expected a size"),
    ({"max_inline_result": 0}, "max_inline_result", "found 0"),
    ({"max_inline_result": "257MiB"}, "max_inline_result", "at most 256MiB"),
    ({"retention_days": 0}, "retention_days", "found 0, expected a whole number of days"),
    ({"retention_days": "30"}, "retention_days", "found '30'"),
    ({"retention_days": True}, "retention_days", "found true"),
    ({"locations": ["azure://a/b"]}, "locations", "found a list, expected a mapping"),
    ({"locations": {"DHD": []}}, "locations", "found the key 'DHD', expected an organisation id or '*'"),
    ({"locations": {7: "azure://a/bbb"}}, "locations.7", "found 'azure://a/bbb', expected a list"),
    ({"locations": {7: ["azure://a/bbb"], "7": ["azure://a/bbb"]}}, "locations.7", "found organisation 7 twice"),
    ({"locations": {7: [None]}}, "locations.7[0]", "found nothing"),
    ({"locations": {7: ["azure://a/bbb", "azure://a/bbb/"]}}, "locations.7[1]", "final slash"),
    ({"locations": {7: ["azure://a/b/../c"]}}, "locations.7[0]", "segment '..'"),
    ({"locations": {7: ["azure://a"]}}, "locations.7[0]", "expected a container"),
    ({"locations": {7: ["azure://a/B"]}}, "locations.7[0]", "the container 'B'"),
    ({"locations": {"*": ["azure://a/bbb"]}}, "locations.*[0]", "the same for every organisation"),
    ({"locations": {"*": ["azure://a/b-{id}"]}}, "locations.*[0]", "only placeholder"),
    ({"legacy_store": "canary"}, "legacy_store", "found text of 6 characters"),
    ({"legacy_store": {**PRINCIPAL, "container": "x"}}, "legacy_store.container", "did you mean 'container_name'?"),
    ({"legacy_store": {**PRINCIPAL, "container_name": None}}, "legacy_store.container_name", "found nothing"),
    ({"legacy_store": {**PRINCIPAL, "type": "s3"}}, "legacy_store.type", "found 's3', expected 'azure'"),
    ({"legacy_store": {**PRINCIPAL, "tenant_id": None}}, "legacy_store.tenant_id", "or else connection_string"),
    (
        {"legacy_store": {**PRINCIPAL, "client_secret": "${env:NO}"}},
        "legacy_store.client_secret",
        "no such environment",
    ),
    ({"legacy_store": {**PRINCIPAL, "client_secret": 5}}, "legacy_store.client_secret", "found a number"),
    ({"legacy_store": {**PRINCIPAL, "container_name": 5}}, "legacy_store.container_name", "found 5"),
]


@pytest.mark.parametrize(
    ("block", "key", "words"), BAD, ids=[f"{key}-{index}" for index, (_, key, _) in enumerate(BAD)]
)
def test_a_mistake_is_told_with_its_key_and_what_was_expected(block: Any, key: str, words: str) -> None:
    problems = problems_of(block)

    assert len(problems) == 1, problems
    assert problems[0].startswith(f"largefile.{key}: ")
    assert words in problems[0]


@pytest.mark.parametrize("block", [None, [], "x", 7])
def test_a_block_that_is_no_mapping_is_refused(block: object) -> None:
    assert "expected a mapping with the keys central_organizations" in problems_of(block)[0]


def test_all_mistakes_are_reported_at_once() -> None:
    problems = problems_of(
        {
            "central_organizations": ["x"],
            "locations": {"y": [], 7: ["z"]},
            "max_inline_result": "x",
            "retention_days": -1,
            "legacy_store": {"client_secret": "canary"},
            "extra": 1,
        },
        {"container_name": "x"},
    )

    keys = {problem.partition(": ")[0] for problem in problems}
    assert keys == {
        "large_result_store",
        "largefile.central_organizations[0]",
        "largefile.locations",
        "largefile.locations.7[0]",
        "largefile.max_inline_result",
        "largefile.retention_days",
        "largefile.legacy_store.container_name",
        "largefile.legacy_store.tenant_id",
        "largefile.legacy_store.client_id",
        "largefile.legacy_store.storage_account_name",
        "largefile.extra",
    }
