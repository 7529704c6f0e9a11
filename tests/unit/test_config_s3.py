"""The ``s3`` driver in the configuration: what is right, what is told, what is taken over from the own store."""

from __future__ import annotations

from typing import Any

import pytest

from vantage6_largefile.config import AccessKeyCredential, LargeResultStore, load_large_result_store, load_largefile
from vantage6_largefile.config.s3 import parse_endpoint_url
from vantage6_largefile.errors import ConfigurationError

SECRET = "s3cr3t-canary"
KEY = {"type": "access_key", "access_key_id": "AKIAEXAMPLE", "secret_access_key": SECRET}
AWS = {"driver": "s3", "region": "eu-west-1", "bucket": "ziekenhuis-a", "credential": KEY}
MINIO = {
    "driver": "s3",
    "endpoint": "minio",
    "endpoint_url": "https://S3.hospital.nl:443/",
    "bucket": "ziekenhuis-a",
    "prefix": "v6/",
    "credential": KEY,
}


def load(block: Any, **environ: str) -> LargeResultStore:
    return load_large_result_store(block, source="node configuration a.yaml", environ=environ)


def problems_of(block: Any) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as caught:
        load(block)
    assert SECRET not in str(caught.value)
    return caught.value.problems


def test_bucket_at_amazon() -> None:
    own = load(AWS).own

    assert str(own.root) == "s3://aws/ziekenhuis-a"
    assert own.options == {"region": "eu-west-1"}
    assert isinstance(own.credential, AccessKeyCredential)
    assert own.credential.secret_access_key.get_secret_value() == SECRET
    assert own.credential.session_token is None
    assert SECRET not in repr(own)


def test_bucket_at_a_server_of_ones_own() -> None:
    own = load(MINIO).own

    assert str(own.root) == "s3://minio/ziekenhuis-a/v6"
    assert own.options == {"endpoint_url": "https://s3.hospital.nl", "region": "us-east-1"}


def test_secrets_come_from_the_environment_or_a_file() -> None:
    key = {"type": "access_key", "access_key_id": "${env:ID}", "secret_access_key": "${env:KEY}"}

    credential = load(
        {**AWS, "credential": {**key, "session_token": "${env:T}"}}, ID="id", KEY=SECRET, T="t"
    ).own.credential

    assert isinstance(credential, AccessKeyCredential)
    assert credential.access_key_id == "id"
    assert credential.secret_access_key.get_secret_value() == SECRET
    assert credential.session_token is not None
    assert credential.session_token.get_secret_value() == "t"


@pytest.mark.parametrize(
    ("block", "key", "words"),
    [
        ({**AWS, "region": None}, "region", "found nothing, expected a region"),
        ({**AWS, "region": "eu west"}, "region", "expected a region"),
        ({**AWS, "region": "1"}, "region", "expected a region"),
        ({**AWS, "bucket": None}, "bucket", "found nothing"),
        ({**AWS, "bucket": "Ziekenhuis"}, "bucket", "3 to 63"),
        ({**AWS, "bucket": "ab"}, "bucket", "3 to 63"),
        ({**AWS, "bucket": "a..b"}, "bucket", "3 to 63"),
        ({**AWS, "bucket": "10.0.0.1"}, "bucket", "3 to 63"),
        ({**AWS, "credential": None}, "credential", "found nothing"),
        ({**AWS, "credential": {"type": "sas", "sas": "sig=x"}}, "credential.type", "expected one for driver s3"),
        ({**AWS, "credential": {**KEY, "secret_access_key": "a b"}}, "credential.secret_access_key", "without spaces"),
        ({**AWS, "credential": {**KEY, "access_key_id": None}}, "credential.access_key_id", "found nothing"),
        ({**AWS, "container": "x"}, "container", "not a key for driver s3"),
        ({**AWS, "endpoint": "minio"}, "endpoint_url", "server that is called minio"),
        ({**AWS, "endpoint_url": "https://s3.hospital.nl"}, "endpoint", "name of this server"),
        ({**MINIO, "endpoint": "aws"}, "endpoint", "stands for Amazon's own service"),
        ({**MINIO, "endpoint": "a/b"}, "endpoint", "expected a name"),
        ({**MINIO, "endpoint": 7}, "endpoint", "found 7"),
        ({**MINIO, "endpoint_url": "http://s3.hospital.nl"}, "endpoint_url", "expected https"),
        ({**MINIO, "endpoint_url": f"https://u:{SECRET}@s3.hospital.nl"}, "endpoint_url", "user name or password"),
        ({**MINIO, "endpoint_url": f"https://s3.hospital.nl/?x={SECRET}"}, "endpoint_url", "query"),
        ({**MINIO, "endpoint_url": "https://s3.hospital.nl/bucket"}, "endpoint_url", "has its own key"),
        ({**MINIO, "endpoint_url": "https://s3_x.nl"}, "endpoint_url", "host name"),
        ({**MINIO, "endpoint_url": "s3.hospital.nl"}, "endpoint_url", "not an https URL"),
        ({**MINIO, "endpoint_url": "https://{organization_id}.nl"}, "endpoint_url", "characters"),
        ({"driver": "azure", "region": "x"}, "region", "not a key for driver azure"),
    ],
)
def test_mistake_is_told_at_its_key_and_only_there(block: dict[str, Any], key: str, words: str) -> None:
    problems = problems_of(block)

    about = [line for line in problems if line.startswith(f"large_result_store.{key}: ")]
    assert len(about) == 1
    assert words in about[0]
    if block["driver"] == "s3":
        assert len(problems) == 1


def test_access_key_is_nothing_for_azure() -> None:
    block = {
        "driver": "azure",
        "account_url": "https://dhdplugin.blob.core.windows.net",
        "container": "ziekenhuis-a",
        "credential": KEY,
    }
    assert "expected one for driver azure" in problems_of(block)[0]


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000"),
        ("http://localhost:80/", "http://localhost"),
        ("http://[::1]:9000", "http://[::1]:9000"),
        ("https://S3.Hospital.NL:8443", "https://s3.hospital.nl:8443"),
    ],
)
def test_url_is_normalised(url: str, normal: str) -> None:
    assert parse_endpoint_url(url) == normal


def test_amazon_may_be_reached_by_an_endpoint_of_its_own() -> None:
    url = "https://bucket.vpce-1a2b.s3.eu-west-1.vpce.amazonaws.com"
    own = load({**AWS, "endpoint": "aws", "endpoint_url": url}).own
    assert own.options == {"endpoint_url": url, "region": "eu-west-1"}


# --- stores of others -------------------------------------------------------------------------------------------------


def readable(block: dict[str, Any], **entry: Any) -> LargeResultStore:
    return load({**block, "readable": [{"organization": 7, **entry}]})


def test_entry_at_the_same_server_takes_everything_over() -> None:
    store = readable(MINIO, location="s3://minio/ziekenhuis-b").readable[0].store.for_organization(7)

    assert store.options == {"endpoint_url": "https://s3.hospital.nl", "region": "us-east-1"}
    assert isinstance(store.credential, AccessKeyCredential)
    assert str(store.root) == "s3://minio/ziekenhuis-b"


def test_entry_may_be_in_another_region() -> None:
    store = readable(AWS, location="s3://aws/ziekenhuis-b", region="eu-south-2").readable[0].store.for_organization(7)
    assert store.options == {"region": "eu-south-2"}


def test_placeholder_stands_in_the_bucket() -> None:
    loaded = load({**AWS, "readable": [{"organization": "*", "location": "s3://aws/v6-org-{organization_id}"}]})
    assert str(loaded.readable[0].store.for_organization(12).root) == "s3://aws/v6-org-12"


def test_entry_at_another_server_with_all_of_its_own() -> None:
    store = (
        readable(AWS, location="s3://ceph/b-b", endpoint_url="https://ceph.nl", credential={"type": "default"})
        .readable[0]
        .store.for_organization(7)
    )

    assert store.options == {"endpoint_url": "https://ceph.nl", "region": "us-east-1"}
    assert store.credential is not None
    assert store.credential.type == "default"


def test_entry_at_s3_beside_an_own_store_elsewhere() -> None:
    own = {"driver": "file", "root": "a", "path": "/srv"}
    store = readable(own, location="s3://aws/b-b", region="eu-west-1", credential=KEY).readable[0]
    assert store.store.for_organization(7).options == {"region": "eu-west-1"}


@pytest.mark.parametrize(
    ("block", "entry", "key", "words"),
    [
        (AWS, {"location": "s3://ceph/b-b"}, "endpoint_url", "server that is called ceph"),
        (AWS, {"location": "s3://ceph/b-b", "endpoint_url": "https://c.nl"}, "credential", "for the S3 server ceph"),
        (MINIO, {"location": "s3://aws/b-b", "credential": KEY}, "region", "found nothing"),
        (AWS, {"location": "s3://aws"}, "location", "expected a bucket"),
        (AWS, {"location": "s3://aws/B"}, "location", "3 to 63"),
        (AWS, {"location": "s3://n-{organization_id}/b-b"}, "location", "name of the server"),
        (AWS, {"location": "s3://aws/b-b", "endpoint_url": "http://c.nl"}, "endpoint_url", "expected https"),
        (AWS, {"location": "s3://aws/b-b", "region": "-"}, "region", "expected a region"),
        (AWS, {"location": "s3://aws/b-b", "credential": {"type": "sas", "sas": "sig=x"}}, "credential.type", "s3"),
        (AWS, {"location": "s3://aws/b-b", "account_url": "https://x"}, "account_url", "not a key"),
        (AWS, {"location": "file://a", "path": "/srv", "region": "eu-west-1"}, "region", "not a key"),
        (
            AWS,
            {"location": "azure://dhdplugin/dhd", "account_url": "https://dhdplugin.blob.core.windows.net"},
            "credential",
            "credential of its own",
        ),
    ],
)
def test_mistake_in_an_entry_is_told_at_its_key(
    block: dict[str, Any], entry: dict[str, Any], key: str, words: str
) -> None:
    problems = problems_of({**block, "readable": [{"organization": 7, **entry}]})

    assert len(problems) == 1
    assert problems[0].startswith(f"large_result_store.readable[0].{key}: ")
    assert words in problems[0]


def test_one_name_has_one_meaning() -> None:
    entry = {"organization": 7, "location": "s3://minio/b-b", "endpoint_url": "https://other.nl"}
    assert "one meaning" in problems_of({**MINIO, "readable": [entry]})[0]


def test_server_checks_the_bucket_of_a_location() -> None:
    right = {"locations": {7: ["s3://aws/ziekenhuis-a"]}}
    assert load_largefile(right, stock_large_result_store=None, source="x")
    with pytest.raises(ConfigurationError, match="3 to 63"):
        load_largefile({"locations": {7: ["s3://aws/Z"]}}, stock_large_result_store=None, source="x")
