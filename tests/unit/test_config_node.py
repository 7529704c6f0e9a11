"""The ``large_result_store`` block: defaults, mistakes as the administrator sees them, all of them at once."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import certifi
import pytest
import yaml

from vantage6_largefile.config import (
    ClientSecretCredential,
    LargeResultStore,
    NetworkConfig,
    TransferConfig,
    load_large_result_store,
)
from vantage6_largefile.config.drivers import ENTRY_POINT_GROUP as CONFIG_ENTRY_POINT_GROUP
from vantage6_largefile.config.drivers import installed_drivers
from vantage6_largefile.errors import ConfigurationError
from vantage6_largefile.stores.base import ENTRY_POINT_GROUP

MIB = 1 << 20

AZURE = """
driver: azure
account_url: https://dhdplugin.blob.core.windows.net
container: ziekenhuis-a
credential:
  type: client_secret
  tenant_id: 11111111-2222-3333-4444-555555555555
  client_id: 66666666-7777-8888-9999-000000000000
  client_secret: s3cr3t-canary
"""
FILE = """
driver: file
root: hospital-a
path: /srv/v6/store
"""


def azure(**changes: Any) -> dict[str, Any]:
    return {**yaml.safe_load(AZURE), **changes}


def file(**changes: Any) -> dict[str, Any]:
    return {**yaml.safe_load(FILE), **changes}


def load(block: Any, **environ: str) -> LargeResultStore:
    return load_large_result_store(block, source="node configuration a.yaml", environ=environ)


def problems_of(block: Any, **environ: str) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as caught:
        load(block, **environ)
    return caught.value.problems


# --- what is right -------------------------------------------------------------------------------------------------


def test_smallest_azure_block_has_the_documented_defaults() -> None:
    store = load(azure())

    assert str(store.own.root) == "azure://dhdplugin/ziekenhuis-a"
    assert store.own.options == {"account_url": "https://dhdplugin.blob.core.windows.net"}
    assert isinstance(store.own.credential, ClientSecretCredential)
    assert store.own.credential.client_secret.get_secret_value() == "s3cr3t-canary"
    assert store.threshold == MIB
    assert store.inline_limit == 32 * MIB
    assert store.max_result_size is None
    assert store.readable == ()
    assert store.shared == ()
    assert store.recipient_keys == {}
    assert store.transfer == store.own.transfer == TransferConfig(8 * MIB, 4, None, 86400.0)
    assert store.network == store.own.network == NetworkConfig(None, (), None)


def test_smallest_file_block() -> None:
    store = load(file())

    assert str(store.own.root) == "file://hospital-a"
    assert store.own.options == {"path": "/srv/v6/store"}
    assert store.own.credential is None


def test_every_key_of_the_block_is_taken() -> None:
    store = load(
        azure(
            prefix="ziekenhuis-a/models/",
            threshold=0,
            inline_limit="16MiB",
            max_result_size="20GB",
            recipient_keys={"1": "AB" * 32},
            transfer={"part_size": "16 MiB", "concurrency": 8, "max_bandwidth": "20MiB/s", "retry_for": "2d"},
            network={
                "https_proxy": "http://user:pw@proxy.hospital.nl:3128/",
                "no_proxy": ["localhost", ".hospital.nl", "10.0.0.0/8"],
                "ca_bundle": certifi.where(),
            },
            readable=[{"organization": "7", "location": "azure://dhdplugin/ziekenhuis-b"}],
            shared=[{"name": "models", "location": "azure://dhdplugin/models/v1", "manifest": "sums/models.sha256"}],
        )
    )

    assert str(store.own.root) == "azure://dhdplugin/ziekenhuis-a/ziekenhuis-a/models"
    assert (store.threshold, store.inline_limit, store.max_result_size) == (0, 16 * MIB, 20_000_000_000)
    assert store.recipient_keys == {1: "ab" * 32}
    assert store.transfer == TransferConfig(16 * MIB, 8, 20 * MIB, 172800.0)
    assert store.network.https_proxy == "http://user:pw@proxy.hospital.nl:3128"
    assert store.network.no_proxy == ("localhost", ".hospital.nl", "10.0.0.0/8")
    assert store.network.ca_bundle == certifi.where()
    assert [(entry.organization, str(entry.location)) for entry in store.readable] == [
        (7, "azure://dhdplugin/ziekenhuis-b")
    ]
    shared = store.shared[0]
    assert (shared.name, str(shared.location)) == ("models", "azure://dhdplugin/models/v1")
    assert str(shared.manifest) == "azure://dhdplugin/models/v1/sums/models.sha256"
    assert shared.store.credential == store.own.credential


def test_keys_with_nothing_behind_them_count_as_absent() -> None:
    empty = dict.fromkeys(
        ("prefix", "readable", "shared", "recipient_keys", "transfer", "network", "max_result_size", "threshold")
    )

    assert load(azure(**empty)) == load(azure())


def test_loading_changes_neither_block_nor_environment() -> None:
    block = azure(readable=[{"organization": 7, "location": "azure://dhdplugin/b-b"}])
    before = copy.deepcopy(block)

    load(block)

    assert block == before


def test_the_environment_of_the_process_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("V6LF_TEST_SECRET", "from-process")
    block = azure()
    block["credential"]["client_secret"] = "${env:V6LF_TEST_SECRET}"

    store = load_large_result_store(block, source="x")

    assert isinstance(store.own.credential, ClientSecretCredential)
    assert store.own.credential.client_secret.get_secret_value() == "from-process"


def test_no_proxy_may_be_one_text_with_commas() -> None:
    assert load(azure(network={"no_proxy": "localhost, .hospital.nl"})).network.no_proxy == (
        "localhost",
        ".hospital.nl",
    )


def test_proxy_may_come_from_the_environment() -> None:
    block = azure(network={"https_proxy": "${env:PROXY}"})

    assert load(block, PROXY="http://u:p@proxy:3128").network.https_proxy == "http://u:p@proxy:3128"


# --- what is wrong: one mistake, the line that the administrator reads --------------------------------------------

READABLE = {"organization": 7, "location": "azure://dhdplugin/ziekenhuis-b"}
SHARED = {"name": "models", "location": "azure://dhdplugin/models", "manifest": "models.sha256"}

BAD: list[tuple[dict[str, Any], str, str]] = [
    # block, key, words that the line must have
    (azure(driver=None), "driver", "found nothing, expected one of azure, file"),
    (azure(driver="azur"), "driver", "found 'azur'"),
    (azure(driver="azur"), "driver", "did you mean 'azure'?"),
    (azure(driver=7), "driver", "found 7"),
    (azure(treshold="1MiB"), "treshold", "unknown key; did you mean 'threshold'?"),
    (azure(containr="x"), "containr", "did you mean 'container'?"),
    (azure(Threshold="1MiB"), "Threshold", "did you mean 'threshold'?"),
    (azure(**{"zzz": 1}), "zzz", "unknown key; known here: account_url"),
    ({**azure(), 7: 1}, "7", "unknown key"),
    (azure(threshold="lots"), "threshold", "found 'lots', expected a size such as 1MiB"),
    (azure(threshold=-1), "threshold", "found -1"),
    (azure(threshold=True), "threshold", "found true"),
    (azure(inline_limit="1GiB"), "inline_limit", "expected a size up to 256MiB"),
    (azure(max_result_size=0), "max_result_size", "found 0"),
    (azure(container=None), "container", "found nothing, expected the name of a container"),
    (azure(container="Ziekenhuis"), "container", "found the container 'Ziekenhuis'"),
    (azure(container="a--b"), "container", "single dashes"),
    (azure(container="ab"), "container", "3 to 63"),
    (azure(container="a" * 64), "container", "3 to 63"),
    (azure(container="abc\n"), "container", "3 to 63"),
    (azure(container=7), "container", "found 7"),
    (azure(prefix="../b"), "prefix", "found '../b', expected a prefix"),
    (azure(prefix="/a"), "prefix", "expected a prefix"),
    (azure(prefix="a/" * 449 + "a" * 40), "prefix", "more than 900 characters"),
    (azure(path="/srv"), "path", "not a key for driver azure; remove it"),
    (azure(root="a"), "root", "not a key for driver azure; remove it"),
    (azure(location="azure://a/b"), "location", "not a key for driver azure"),
    (azure(options={"a": "b"}), "options", "not a key for driver azure"),
    (azure(allow_custom_endpoint="yes"), "allow_custom_endpoint", "expected true or false"),
    (azure(account_url=None), "account_url", "found nothing, expected an endpoint"),
    (azure(account_url=["x"]), "account_url", "found a list"),
    (azure(credential=None), "credential", "found nothing, expected a mapping with a type"),
    # transfer and network
    (azure(transfer=[]), "transfer", "found an empty list, expected a mapping with the keys part_size"),
    (azure(transfer={"part_size": "63KiB"}), "transfer.part_size", "expected a size from 64KiB to 4000MiB"),
    (azure(transfer={"part_size": "4001MiB"}), "transfer.part_size", "found '4001MiB'"),
    (azure(transfer={"concurrency": 0}), "transfer.concurrency", "expected a whole number from 1 to 64"),
    (azure(transfer={"concurrency": 65}), "transfer.concurrency", "found 65"),
    (azure(transfer={"concurrency": "4"}), "transfer.concurrency", "found '4'"),
    (azure(transfer={"concurrency": True}), "transfer.concurrency", "found true"),
    (azure(transfer={"max_bandwidth": 1}), "transfer.max_bandwidth", "bytes per second from 16KiB"),
    (azure(transfer={"retry_for": "24"}), "transfer.retry_for", "found '24', expected a time up to 365d"),
    (azure(transfer={"retry_for": "366d"}), "transfer.retry_for", "found '366d'"),
    (azure(transfer={"retryfor": "1h"}), "transfer.retryfor", "did you mean 'retry_for'?"),
    (azure(network={"proxy": "x"}), "network.proxy", "unknown key; did you mean"),
    (azure(network={"https_proxy": "proxy:3128"}), "network.https_proxy", "expected the URL of an HTTP proxy"),
    (azure(network={"https_proxy": "socks5://p:1"}), "network.https_proxy", "expected the URL of an HTTP proxy"),
    (azure(network={"https_proxy": "http://p:99999"}), "network.https_proxy", "expected the URL of an HTTP proxy"),
    (azure(network={"https_proxy": "http://p/x"}), "network.https_proxy", "found a URL with a path"),
    (azure(network={"https_proxy": 8080}), "network.https_proxy", "found a number"),
    (azure(network={"https_proxy": "${env:NOPE}"}), "network.https_proxy", "no such environment variable"),
    (azure(network={"no_proxy": 7}), "network.no_proxy", "found 7, expected a list"),
    (azure(network={"no_proxy": ["http://x"]}), "network.no_proxy", "found 'http://x'"),
    (azure(network={"no_proxy": [7]}), "network.no_proxy", "found 7"),
    (azure(network={"ca_bundle": "/nonexistent/ca.pem"}), "network.ca_bundle", "No such file or directory"),
    (azure(network={"ca_bundle": "/"}), "network.ca_bundle", "expected a file with certificates"),
    # recipient keys
    (azure(recipient_keys=[1]), "recipient_keys", "found a list"),
    (azure(recipient_keys={"DHD": "ab" * 32}), "recipient_keys", "found the key 'DHD', expected an organisation id"),
    (azure(recipient_keys={1: "abc"}), "recipient_keys.1", "found 'abc', expected a SHA-256 fingerprint"),
    (azure(recipient_keys={1: "ab" * 32, "1": "cd" * 32}), "recipient_keys.1", "found organisation 1 twice"),
    # readable
    (azure(readable={"organization": 7}), "readable", "found a mapping, expected a list of entries"),
    (azure(readable=["azure://a/bbb"]), "readable[0]", "expected a mapping with the keys location"),
    (azure(readable=[{**READABLE, "organisation": 7}]), "readable[0].organisation", "did you mean 'organization'?"),
    (azure(readable=[{**READABLE, "organization": "DHD"}]), "readable[0].organization", "found 'DHD'"),
    (azure(readable=[{**READABLE, "organization": None}]), "readable[0].organization", "found nothing"),
    (azure(readable=[{**READABLE, "organization": True}]), "readable[0].organization", "found true"),
    (azure(readable=[{"organization": 7}]), "readable[0].location", "found nothing"),
    (azure(readable=[{**READABLE, "organization": "*"}]), "readable[0].location", "the same for every organisation"),
    (azure(readable=[READABLE, READABLE]), "readable[1]", "twice for organisation 7"),
    (azure(readable=[{**READABLE, "location": "azure://dhdplugin"}]), "readable[0].location", "expected a container"),
    (azure(readable=[{**READABLE, "location": "azure://dhdplugin/B"}]), "readable[0].location", "container 'B'"),
    (azure(readable=[{**READABLE, "location": "azure://dhdplugin/b/../c"}]), "readable[0].location", "segment '..'"),
    (azure(readable=[{**READABLE, "location": "azure://dhdplugin/bbb/"}]), "readable[0].location", "final slash"),
    (
        azure(readable=[{**READABLE, "location": "azure://dhdplugin/b-{org}"}]),
        "readable[0].location",
        "only placeholder",
    ),
    (azure(readable=[{**READABLE, "location": "gcs://a/bbb"}]), "readable[0].location", "found driver 'gcs'"),
    (azure(readable=[{**READABLE, "path": "/srv"}]), "readable[0].path", "not a key for a location of driver azure"),
    (azure(readable=[{**READABLE, "options": {"a": "b"}}]), "readable[0].options", "not a key for a location"),
    (
        azure(readable=[{**READABLE, "location": "azure://OTHER/bbb"}]),
        "readable[0].location",
        "found the account OTHER, expected a name in lower case",
    ),
    (
        azure(readable=[{**READABLE, "account_url": "https://other.blob.core.windows.net"}]),
        "readable[0].account_url",
        "found an endpoint of the account other, expected one of dhdplugin",
    ),
    (
        azure(readable=[{**READABLE, "account_url": "https://evil.example/dhdplugin"}]),
        "readable[0].account_url",
        "allow_custom_endpoint",
    ),
    (
        azure(readable=[{"organization": 7, "location": "file://hospital-b"}]),
        "readable[0].path",
        "expected the folder that file://hospital-b stands for",
    ),
    (
        azure(
            readable=[{"organization": 7, "location": "file://b", "path": "/srv", "credential": {"type": "default"}}]
        ),
        "readable[0].credential",
        "not a key for a location of driver file",
    ),
    (
        azure(
            readable=[
                {"organization": 7, "location": "file://b", "path": "/srv/b"},
                {"organization": 8, "location": "file://b/x", "path": "/srv/c"},
            ]
        ),
        "readable[1]",
        "found file://b for /srv/c, but readable[0] has it for /srv/b",
    ),
    (
        azure(
            readable=[{"organization": "*", "location": "file://b/{organization_id}", "path": "/s/{organization_id}"}]
        ),
        "readable[0].path",
        "one root name stands for one folder",
    ),
    # shared
    (azure(shared={"name": "x"}), "shared", "found a mapping, expected a list"),
    (azure(shared=[{**SHARED, "name": "a/b"}]), "shared[0].name", "found 'a/b'"),
    (azure(shared=[{**SHARED, "name": ".."}]), "shared[0].name", "found '..'"),
    (azure(shared=[SHARED, SHARED]), "shared[1].name", "found 'models' twice"),
    (azure(shared=[{**SHARED, "manifest": None}]), "shared[0].manifest", "found nothing"),
    (azure(shared=[{**SHARED, "manifest": "../x"}]), "shared[0].manifest", "found '../x'"),
    (azure(shared=[{**SHARED, "manifest": "/etc/passwd"}]), "shared[0].manifest", "found '/etc/passwd'"),
    (
        azure(shared=[{**SHARED, "location": "azure://dhdplugin/m-{organization_id}"}]),
        "shared[0].location",
        "no meaning",
    ),
    (azure(shared=[{**SHARED, "organization": 7}]), "shared[0].organization", "unknown key"),
    # file
    (file(root=None), "root", "found nothing, expected the name of this store in locations"),
    (file(root="../x"), "root", "found '../x'"),
    (file(root="a/b"), "root", "found 'a/b'"),
    (file(root=""), "root", "found empty text"),
    (file(path=None), "path", "found nothing, expected an absolute path"),
    (file(path="srv/store"), "path", "found 'srv/store', expected an absolute path"),
    (file(path="/srv/../etc"), "path", "without '..'"),
    (file(path="/"), "path", "found the root of the file system"),
    (file(path="//"), "path", "found the root of the file system"),
    (file(path="/srv\n"), "path", "expected an absolute path"),
    (file(credential={"type": "default"}), "credential", "not a key for driver file; remove it"),
    (file(account_url="https://dhdplugin.blob.core.windows.net"), "account_url", "not a key for driver file"),
    (file(container="ziekenhuis-a"), "container", "not a key for driver file"),
    (file(readable=[READABLE]), "readable[0].account_url", "expected the endpoint of the account dhdplugin"),
    (
        file(readable=[{**READABLE, "account_url": "https://dhdplugin.blob.core.windows.net"}]),
        "readable[0].credential",
        "expected a credential of its own",
    ),
]


@pytest.mark.parametrize(
    ("block", "key", "words"), BAD, ids=[f"{key}-{index}" for index, (_, key, _) in enumerate(BAD)]
)
def test_a_mistake_is_told_with_its_key_and_what_was_expected(block: dict[str, Any], key: str, words: str) -> None:
    problems = problems_of(block)

    assert len(problems) == 1, problems
    assert problems[0].startswith(f"large_result_store.{key}: "), problems[0]
    assert words in problems[0]


@pytest.mark.parametrize("block", [None, [], "azure", 7, True])
def test_a_block_that_is_no_mapping_is_refused(block: object) -> None:
    assert "expected a mapping with the keys driver" in problems_of(block)[0]


def test_an_empty_block_says_what_it_needs_first() -> None:
    (problem,) = problems_of({})

    assert problem.startswith("large_result_store.driver: found nothing, expected one of azure, file")


def test_all_mistakes_are_reported_at_once_with_the_source() -> None:
    block = azure(
        treshold="1MiB",
        threshold="lots",
        container="Ziekenhuis",
        prefix="a//b",
        max_result_size="big",
        transfer={"part_size": 1, "concurrency": 100, "retry_for": "x"},
        network={"ca_bundle": "/nonexistent", "https_proxy": "nonsense"},
        recipient_keys={1: "x"},
        readable=[{"organization": "x", "location": "nonsense"}, {**READABLE, "credential": {"type": "nonsense"}}],
        shared=[{"name": "/", "location": "azure://dhdplugin/models", "manifest": "../m"}],
    )
    block["account_url"] = "http://dhdplugin.blob.core.windows.net"
    block["credential"]["client_secret"] = "${env:NOT_SET}"

    with pytest.raises(ConfigurationError) as caught:
        load(block)

    keys = [line.partition(": ")[0].removeprefix("large_result_store.") for line in caught.value.problems]
    assert sorted(keys) == sorted(
        [
            "treshold",
            "threshold",
            "container",
            "prefix",
            "max_result_size",
            "transfer.part_size",
            "transfer.concurrency",
            "transfer.retry_for",
            "network.ca_bundle",
            "network.https_proxy",
            "recipient_keys.1",
            "readable[0].organization",
            "readable[0].location",
            "readable[1].credential.type",
            "shared[0].name",
            "shared[0].manifest",
            "account_url",
            "credential.client_secret",
        ]
    )
    assert str(caught.value).startswith("18 mistakes in node configuration a.yaml:\n  - large_result_store.")


def test_what_follows_from_a_mistake_is_not_reported_on_top_of_it() -> None:
    block = azure(account_url="nonsense", readable=[READABLE], shared=[SHARED])

    assert [line.partition(":")[0] for line in problems_of(block)] == ["large_result_store.account_url"]


def test_an_entry_that_stands_on_its_own_is_checked_although_the_own_store_is_broken() -> None:
    entry = {**READABLE, "account_url": "http://dhdplugin.blob.core.windows.net"}

    keys = [line.partition(":")[0] for line in problems_of(azure(account_url="nonsense", readable=[entry]))]

    assert keys == ["large_result_store.account_url", "large_result_store.readable[0].account_url"]


def test_a_broken_certificate_bundle_is_noticed(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_text("no certificate\n")

    assert "holds no certificate" in problems_of(azure(network={"ca_bundle": str(bundle)}))[0]


def test_organisations_that_share_a_place_are_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    entries = [
        {"organization": 7, "location": "azure://dhdplugin/shared"},
        {"organization": 8, "location": "azure://dhdplugin/shared/b"},
        {"organization": 9, "location": "azure://dhdplugin/shared2"},
    ]

    with caplog.at_level(logging.WARNING):
        load(azure(readable=entries))

    assert [record.getMessage() for record in caplog.records] == [
        "large_result_store.readable: organisation 7 (azure://dhdplugin/shared) and organisation 8 "
        "(azure://dhdplugin/shared/b) share a place; give each its own container or prefix"
    ]


def test_a_third_party_driver_is_configured_by_location_and_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vantage6_largefile.config.node.installed_drivers", lambda: ("azure", "file", "tape"))
    monkeypatch.setattr("vantage6_largefile.config.drivers.installed_drivers", lambda: ("azure", "file", "tape"))
    block = {"driver": "tape", "location": "tape://robot/shelf", "options": {"drive": "2"}}
    entry = {"organization": 7, "location": "tape://robot/shelf-b"}

    store = load({**block, "readable": [entry, {**entry, "organization": 8, "options": {"drive": "3"}}]})

    assert (store.own.driver, str(store.own.root), store.own.options) == ("tape", "tape://robot/shelf", {"drive": "2"})
    assert [dict(item.store.options) for item in store.readable] == [{"drive": "2"}, {"drive": "3"}]
    for changes, key, words in (
        ({"location": None}, "location", "found nothing, expected the location of this store, tape://"),
        ({"location": "azure://a/b"}, "location", "expected the location of this store, tape://"),
        ({"location": "tape://a/../b"}, "location", "segment '..'"),
        ({"location": "tape://" + "a/" * 460 + "b"}, "location", "more than 900 characters"),
        ({"options": ["a"]}, "options", "found a list, expected a mapping of text to text"),
        ({"options": {"drive": 2}}, "options.drive", "found a number, expected text"),
        ({"prefix": "x"}, "prefix", "not a key for driver tape"),
    ):
        (problem,) = problems_of({**block, **changes})
        assert problem.startswith(f"large_result_store.{key}: ")
        assert words in problem


def test_the_entry_point_group_is_that_of_the_stores() -> None:
    assert CONFIG_ENTRY_POINT_GROUP == ENTRY_POINT_GROUP
    assert {"azure", "file"} <= set(installed_drivers())
