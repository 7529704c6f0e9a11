"""Credentials and endpoints: what may be sent where, and where secrets come from."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import BlobServiceClient

from vantage6_largefile.config import (
    ClientSecretCredential,
    ConnectionStringCredential,
    DefaultCredential,
    LargeResultStore,
    SasCredential,
    load_large_result_store,
)
from vantage6_largefile.config.endpoints import parse_authority, parse_endpoint
from vantage6_largefile.config.problems import Mistake
from vantage6_largefile.errors import ConfigurationError

URL = "https://dhdplugin.blob.core.windows.net"
KEY = "Y2FuYXJ5LWtleQ=="
SAS = "sv=2024-11-04&ss=b&srt=co&sp=rwc&se=2999-01-01T00:00:00Z&sig=canary%2Bsig%3D"
CONTAINER_SAS = "sv=2024-11-04&sr=c&sp=cw&sig=canary%2Bsig%3D"
CONNECTION = f"DefaultEndpointsProtocol=https;AccountName=dhdplugin;AccountKey={KEY};EndpointSuffix=core.windows.net"
PRINCIPAL = {"type": "client_secret", "tenant_id": "t", "client_id": "c", "client_secret": "canary"}


def block(credential: Any, **changes: Any) -> dict[str, Any]:
    return {"driver": "azure", "account_url": URL, "container": "ziekenhuis-a", "credential": credential, **changes}


def load(raw: dict[str, Any], **environ: str) -> LargeResultStore:
    return load_large_result_store(raw, source="x", environ=environ)


def problem_of(raw: dict[str, Any], **environ: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(raw, **environ)
    assert len(caught.value.problems) == 1, caught.value.problems
    assert "canary" not in str(caught.value)
    assert KEY not in str(caught.value)
    return caught.value.problems[0].removeprefix("large_result_store.")


# --- endpoints -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "account", "normal"),
    [
        ("https://dhdplugin.blob.core.windows.net", "dhdplugin", None),
        ("https://dhdplugin.blob.core.windows.net/", "dhdplugin", URL),
        ("https://DHDplugin.blob.core.windows.net:443/", "dhdplugin", URL),
        ("https://acc.blob.core.chinacloudapi.cn", "acc", None),
        ("https://acc.blob.core.usgovcloudapi.net", "acc", None),
        ("https://acc.z12.blob.storage.azure.net", "acc", None),
        ("http://127.0.0.1:10000/devstoreaccount1", "devstoreaccount1", None),
        ("http://127.0.0.1:10000/devstoreaccount1/", "devstoreaccount1", "http://127.0.0.1:10000/devstoreaccount1"),
        ("http://localhost:10000/devstoreaccount1", "devstoreaccount1", None),
        ("http://[::1]:10000/devstoreaccount1", "devstoreaccount1", None),
        ("https://localhost/acc", "acc", None),
    ],
)
def test_known_endpoint_gives_the_account_name(url: str, account: str, normal: str | None) -> None:
    endpoint = parse_endpoint(url, allow_custom=False)

    assert (endpoint.account, endpoint.url) == (account, normal or url)


@pytest.mark.parametrize(
    ("url", "account"),
    [
        ("https://storage.hospital.nl/acc", "acc"),
        ("https://acc.storage.hospital.nl", "acc"),
        ("https://acc.storage.hospital.nl:8443", "acc"),
        ("https://10.0.0.5:10000/acc", "acc"),
    ],
)
def test_custom_endpoint_needs_the_switch(url: str, account: str) -> None:
    assert parse_endpoint(url, allow_custom=True).account == account
    with pytest.raises(Mistake, match="allow_custom_endpoint: true"):
        parse_endpoint(url, allow_custom=False)


@pytest.mark.parametrize("custom", [False, True])
@pytest.mark.parametrize(
    "url",
    [
        "",
        "dhdplugin",
        "dhdplugin.blob.core.windows.net",
        "https://",
        "https:///x",
        "ftp://dhdplugin.blob.core.windows.net",
        "http://dhdplugin.blob.core.windows.net",
        "http://127.0.0.2:10000/acc",
        "http://localhost.evil.example/acc",
        "http://127.0.0.1:10000",
        "https://dhdplugin.blob.core.windows.net/ziekenhuis-a",
        "https://dhdplugin.blob.core.windows.net:8443",
        "https://dhdplugin.blob.core.windows.net:443x",
        "https://dhdplugin.blob.core.windows.net?sig=x",
        "https://dhdplugin.blob.core.windows.net?",
        "https://dhdplugin.blob.core.windows.net#",
        "https://user:pw@dhdplugin.blob.core.windows.net",
        "https://@dhdplugin.blob.core.windows.net",
        "https://evil.example\\@dhdplugin.blob.core.windows.net",
        "https://evil.example\\.blob.core.windows.net",
        "https://evil.example%2f.blob.core.windows.net",
        "https://dhd plugin.blob.core.windows.net",
        "https://dhdplugin.blob.core.windows.net\n",
        "\thttps://dhdplugin.blob.core.windows.net",
        "https://dhd\tplugin.blob.core.windows.net",
        "https://dhdplugin.blob.core.windows\u3002net",  # ideographic full stop
        "https://dhdpl\u00fcgin.blob.core.windows.net",
        "https://dhd-plugin.blob.core.windows.net",  # no account has a dash
        "https://ab.blob.core.windows.net",
        "https://.blob.core.windows.net",
        "https://dhdplugin.blob.core.windows.net/" + "x" * 600,
        "https://a.example/b/c",
        "https://a.example/../b",
        "https://[::2",
        "https://10.0.0.5",
    ],
)
def test_no_switch_opens_an_endpoint_that_is_none(url: str, custom: bool) -> None:
    with pytest.raises(Mistake):
        parse_endpoint(url, allow_custom=custom)


@pytest.mark.parametrize(
    "url",
    [
        "https://dhdplugin.blob.core.windows.net.evil.example",
        "https://dhdplugin.blob.core.windows.net.",
        "https://dhdplugin.evil.blob.core.windows.net",
        "https://dhdpluginblob.core.windows.net",
        "https://blob.core.windows.net",
        "https://dhdplugin.z123.blob.storage.azure.net",
        "https://dhdplugin.blob.storage.azure.net",
        "https://dhdplugin.file.core.windows.net",
    ],
)
def test_look_alikes_of_a_known_suffix_are_not_known(url: str) -> None:
    with pytest.raises(Mistake):
        parse_endpoint(url, allow_custom=False)


def test_authority_is_a_known_login_host_or_allowed_by_the_switch() -> None:
    assert parse_authority("https://login.microsoftonline.us/", allow_custom=False) == "login.microsoftonline.us"
    assert parse_authority("Login.Chinacloudapi.cn", allow_custom=False) == "login.chinacloudapi.cn"
    assert parse_authority("127.0.0.1:8443", allow_custom=False) == "127.0.0.1:8443"
    assert parse_authority("adfs.hospital.nl", allow_custom=True) == "adfs.hospital.nl"
    for value in ("evil.example", "login.microsoftonline.com.evil.example", "a@login.microsoftonline.com"):
        with pytest.raises(Mistake):
            parse_authority(value, allow_custom=False)
    for value in ("", "a b", "http://login.microsoftonline.com", "a/b", "a:b", "a:1:2", "u@h", "login.x\n"):
        with pytest.raises(Mistake):
            parse_authority(value, allow_custom=True)


# --- types ---------------------------------------------------------------------------------------------------------


def test_each_type_gives_its_credential() -> None:
    assert load(block({"type": "default"})).own.credential == DefaultCredential()
    principal = load(block({**PRINCIPAL, "authority": "login.microsoftonline.us"})).own.credential
    assert isinstance(principal, ClientSecretCredential)
    assert (principal.tenant_id, principal.client_id, principal.authority) == ("t", "c", "login.microsoftonline.us")
    sas = load(block({"type": "sas", "sas": f"?{SAS}"})).own.credential
    assert isinstance(sas, SasCredential)
    assert sas.sas.get_secret_value() == SAS
    connection = load(block({"type": "connection_string", "connection_string": CONNECTION})).own.credential
    assert isinstance(connection, ConnectionStringCredential)
    assert connection.connection_string.get_secret_value() == CONNECTION


@pytest.mark.parametrize("kind", ["certificate", "managed_identity", "key_vault"])
def test_type_of_a_later_version_says_so(kind: str) -> None:
    problem = problem_of(block({"type": kind, "client_id": "c"}))

    assert problem.startswith(f"credential.type: found '{kind}', which this version does not offer yet")


BAD: list[tuple[Any, str, str]] = [
    ("canary", "credential", "found text of 6 characters, expected a mapping with a type"),
    ([PRINCIPAL], "credential", "found a list"),
    ({}, "credential.type", "found nothing, expected one of client_secret, connection_string, default, sas"),
    ({"type": "client-secret"}, "credential.type", "did you mean 'client_secret'?"),
    ({"type": "canary0"}, "credential.type", "found text of 7 characters"),
    ({"type": 7}, "credential.type", "found a number"),
    ({"type": "default", "client_id": "x"}, "credential.client_id", "exactly one type is expected"),
    ({**PRINCIPAL, "sas": "canary"}, "credential.sas", "unknown key for a credential of type client_secret"),
    ({**PRINCIPAL, "client_scret": "canary"}, "credential.client_scret", "did you mean 'client_secret'?"),
    ({**PRINCIPAL, "client_secret": None}, "credential.client_secret", "found nothing, expected text, ${env:NAME}"),
    ({**PRINCIPAL, "client_secret": ""}, "credential.client_secret", "found nothing"),
    ({**PRINCIPAL, "client_secret": 123}, "credential.client_secret", "found a number, expected text"),
    ({**PRINCIPAL, "client_secret": ["canary"]}, "credential.client_secret", "found a list"),
    ({**PRINCIPAL, "client_secret": "canary\n"}, "credential.client_secret", "line break or control character"),
    ({**PRINCIPAL, "tenant_id": "canary secret!"}, "credential.tenant_id", "found text of 14 characters, expected the"),
    ({**PRINCIPAL, "client_id": "a/b"}, "credential.client_id", "expected the application (client) id"),
    ({**PRINCIPAL, "authority": "evil.example"}, "credential.authority", "found evil.example, expected one of login."),
    ({"type": "sas", "sas": "sv=2024&sp=canary"}, "credential.sas", "without sig="),
    ({"type": "sas", "sas": "canary"}, "credential.sas", "without sig="),
    ({"type": "sas", "sas": "sig="}, "credential.sas", "without sig="),
    ({"type": "sas", "sas": "sig=canary canary"}, "credential.sas", "characters that no SAS has"),
    ({"type": "sas", "sas": "??sig=canary"}, "credential.sas", "characters that no SAS has"),
    ({"type": "sas", "sas": f"{URL}/ziekenhuis-a"}, "credential.sas", "found a URL without a query"),
    ({"type": "sas", "sas": f"http://dhdplugin.blob.core.windows.net/x?{SAS}"}, "credential.sas", "expected https"),
    ({"type": "sas", "sas": f"https://evil.example/x?{SAS}"}, "credential.sas", "allow_custom_endpoint"),
    ({"type": "sas", "sas": f"{URL}/ziekenhuis-b?{SAS}"}, "credential.sas", "the SAS URL of another container"),
    (
        {"type": "sas", "sas": f"https://other.blob.core.windows.net/ziekenhuis-a?{SAS}"},
        "account_url",
        "but the credential is for https://other.blob.core.windows.net",
    ),
]


@pytest.mark.parametrize(("credential", "key", "words"), BAD, ids=[f"{key}-{i}" for i, (_, key, _) in enumerate(BAD)])
def test_a_mistake_in_a_credential_is_told_without_its_value(credential: Any, key: str, words: str) -> None:
    problem = problem_of(block(credential))

    assert problem.startswith(f"{key}: ")
    assert words in problem


BAD_CONNECTION_STRINGS = [
    ("canary", "no list of NAME=VALUE"),
    (KEY, "neither AccountName nor BlobEndpoint"),
    (f"AccountName=dhdplugin;{KEY}x;", "found neither AccountKey nor SharedAccessSignature"),
    (f"AccountName=dhdplugin;AccountKey={KEY};;BlobEndpoint={URL}", "no list of NAME=VALUE"),
    (f"AccountKey={KEY}", "neither AccountName nor BlobEndpoint"),
    (f"BlobEndpoint={URL};AccountKey={KEY}", "AccountKey without AccountName"),
    ("AccountName=dhdplugin", "neither AccountKey nor SharedAccessSignature"),
    ("AccountName=dhdplugin;AccountKey=canary!", "not base64"),
    ("AccountName=dhdplugin;AccountKey=", "not base64"),
    (f"AccountName=dhdplugin;AccountKey={KEY};AccountKey={KEY}", "found AccountKey twice"),
    (f"AccountName=dhdplugin;accountname=evil;AccountKey={KEY}", "twice"),
    (f"AccountName=dhdplugin; AccountKey={KEY}", "white space around AccountKey"),
    (CONNECTION.replace("https", "http"), "expected https"),
    (CONNECTION.replace("core.windows.net", "evil.example"), "allow_custom_endpoint"),
    (CONNECTION.replace("core.windows.net", "core.windows.net@evil.example"), "user name or password"),
    (CONNECTION.replace("core.windows.net", "core.windows.net/@evil.example"), "path"),
    (f"AccountName=dhdplugin;AccountKey={KEY};BlobEndpoint=https://other.blob.core.windows.net", "does not fit"),
    (f"AccountName=dhdplugin;AccountKey={KEY};BlobEndpoint=https://evil.example/dhdplugin", "allow_custom_endpoint"),
    (f"AccountName=dhdplugin;AccountKey={KEY};BlobEndpoint={URL}?{SAS}", "with a query"),
    (f"AccountName=dhdplugin;AccountKey={KEY};BlobEndpoint=", "not an https URL"),
    (f"{CONNECTION};BlobEndpoint={URL};BlobSecondaryEndpoint=https://evil.example", "BlobSecondaryEndpoint"),
    ("UseDevelopmentStorage=true", "written out"),
    (f"BlobEndpoint={URL};SharedAccessSignature=sv=canary", "without sig="),
    (f"BlobEndpoint={URL};SharedAccessSignature=?{SAS}", "'?' before the SharedAccessSignature"),
]


@pytest.mark.parametrize(("text", "words"), BAD_CONNECTION_STRINGS)
def test_a_connection_string_that_two_readers_could_read_differently_is_refused(text: str, words: str) -> None:
    problem = problem_of(block({"type": "connection_string", "connection_string": text}))

    assert problem.startswith("credential.connection_string: ")
    assert words in problem


@pytest.mark.parametrize(
    "text",
    [
        CONNECTION,
        CONNECTION + ";",
        f"AccountName=dhdplugin;AccountKey={KEY}",
        f"DefaultEndpointsProtocol=http;AccountName=dhdplugin;AccountKey={KEY}",
        f"accountname=dhdplugin;ACCOUNTKEY={KEY}",
        f"BlobEndpoint={URL}/;AccountName=dhdplugin;AccountKey={KEY};QueueEndpoint=https://q.example",
        f"BlobEndpoint={URL};SharedAccessSignature={SAS}",
        f"AccountName=dhdplugin;AccountKey={KEY};EndpointSuffix=core.chinacloudapi.cn",
        f"BlobEndpoint=http://127.0.0.1:10000/devstoreaccount1;AccountName=devstoreaccount1;AccountKey={KEY}",
    ],
)
def test_the_endpoint_found_in_a_connection_string_is_the_one_that_the_sdk_uses(text: str) -> None:
    store = load(block({"type": "connection_string", "connection_string": text}, account_url=None))

    with BlobServiceClient.from_connection_string(text) as client:
        assert store.own.options["account_url"] == client.primary_endpoint.partition("?")[0].rstrip("/")
    assert store.own.root.authority in store.own.options["account_url"]


def test_account_url_and_connection_string_must_agree() -> None:
    problem = problem_of(
        block(
            {"type": "connection_string", "connection_string": CONNECTION},
            account_url="https://abc.blob.core.windows.net",
        )
    )

    assert problem == (
        "account_url: found https://abc.blob.core.windows.net, but the credential is for "
        f"{URL}, expected the same in both; account_url may be left out."
    )


@pytest.mark.parametrize("address", [URL, f"{URL}/", f"{URL}/ziekenhuis-a", f"{URL}/ziekenhuis-a/"])
def test_a_sas_may_be_pasted_as_the_url_that_the_portal_shows(address: str) -> None:
    store = load(block({"type": "sas", "sas": f"{address}?{SAS}"}, account_url=None))

    assert store.own.options["account_url"] == URL
    assert isinstance(store.own.credential, SasCredential)
    assert store.own.credential.sas.get_secret_value() == SAS


@pytest.mark.parametrize("tail", ["", "/", "/ziekenhuis-a"])
def test_a_sas_url_of_a_local_emulator(tail: str) -> None:
    store = load(block({"type": "sas", "sas": f"http://127.0.0.1:10000/acc{tail}?{SAS}"}, account_url=None))

    assert str(store.own.root) == "azure://acc/ziekenhuis-a"


def test_an_expired_sas_is_warned_about_but_the_node_still_starts(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        load(block({"type": "sas", "sas": SAS.replace("2999", "2020")}))
        load(block({"type": "sas", "sas": SAS}))
        load(block({"type": "sas", "sas": SAS.replace("2999-01-01T00:00:00Z", "2999-99-99")}))

    assert [record.getMessage() for record in caplog.records] == [
        "large_result_store.credential: this SAS expired at 2020-01-01T00:00:00Z; the store will refuse it"
    ]


# --- where secrets come from ---------------------------------------------------------------------------------------


def secret_of(text: Any, **environ: str) -> str:
    credential = load(block({**PRINCIPAL, "client_secret": text}), **environ).own.credential
    assert isinstance(credential, ClientSecretCredential)
    return credential.client_secret.get_secret_value()


@pytest.mark.parametrize(
    "literal", ["pa$$word", "$HOME", "${", "${}", "${notclosed", "x${env:NAME}", "${env:NAME}x", "$(id)", "a b", "é"]
)
def test_a_dollar_elsewhere_is_part_of_a_literal(literal: str) -> None:
    assert secret_of(literal, NAME="other", HOME="other") == literal


def test_secret_from_the_environment() -> None:
    assert secret_of("${env:NAME}", NAME="canary") == "canary"


@pytest.mark.parametrize(
    ("content", "expected"),
    [("canary", "canary"), ("canary\n", "canary"), ("canary\r\n", "canary"), (" canary ", " canary ")],
)
def test_secret_from_a_file_loses_only_its_final_newline(tmp_path: Path, content: str, expected: str) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content.encode())
    path.chmod(0o600)

    assert secret_of(f"${{file:{path}}}") == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("${env:NOPE}", "found ${env:NOPE}, but no such environment variable is set here"),
        ("${env:EMPTY}", "found the environment variable EMPTY empty"),
        ("${env:BROKEN}", "the environment variable BROKEN with a line break"),
        ("${env:}", "without a proper variable name"),
        ("${env:a b}", "without a proper variable name"),
        ("${file:relative}", "without an absolute path"),
        ("${file:}", "without an absolute path"),
        ("${file:/nonexistent/secret}", "cannot be read (No such file or directory)"),
        ("${file:/}", "found ${file:/}, which"),
        ("${ENV:NAME}", "found a value of the form ${ENV:…}"),
        ("${vault:NAME}", "found a value of the form ${vault:…}"),
    ],
)
def test_nothing_behind_a_secret_is_a_mistake(text: str, words: str) -> None:
    problem = problem_of(block({**PRINCIPAL, "client_secret": text}), EMPTY="", BROKEN="canary\ncanary", NAME="x")

    assert problem.startswith("credential.client_secret: found ")
    assert words in problem


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"\n", "empty"),
        (b"canary\ncanary\n", "line break"),
        (b"canary\n\n", "line break"),
        (b"\xffcanary", "not text in UTF-8"),
        (b"\xef\xbb\xbfcanary", "control character"),  # a byte order mark, as some editors leave it
        (b"x" * 70_000, "more than 65536 bytes"),
    ],
)
def test_secret_file_that_holds_no_secret_is_a_mistake(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content)
    path.chmod(0o600)

    assert words in problem_of(block({**PRINCIPAL, "client_secret": f"${{file:{path}}}"}))


def test_a_fifo_in_place_of_a_secret_file_does_not_hang_the_start(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)

    assert "not a regular file" in problem_of(block({**PRINCIPAL, "client_secret": f"${{file:{path}}}"}))


@pytest.mark.parametrize(("mode", "warns"), [(0o600, False), (0o640, False), (0o644, True), (0o604, True)])
def test_a_secret_file_that_everybody_may_read_is_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, warns: bool
) -> None:
    path = tmp_path / "secret"
    path.write_text("canary\n")
    path.chmod(mode)

    with caplog.at_level(logging.WARNING):
        secret_of(f"${{file:{path}}}")

    messages = [record.getMessage() for record in caplog.records]
    assert bool(messages) is warns
    assert all("credential.client_secret" in message and str(path) in message for message in messages)
    assert not any("canary" in message for message in messages)


# --- reading other stores ------------------------------------------------------------------------------------------


def readable(credential: Any, entry: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return block(credential, readable=[{"organization": 7, **entry}], **changes)


def test_the_endpoint_of_another_account_follows_from_a_known_suffix() -> None:
    store = load(readable(PRINCIPAL, {"location": "azure://other/results"}))

    assert store.readable[0].store.options["account_url"] == "https://other.blob.core.windows.net"


def test_the_endpoint_of_an_account_per_organisation() -> None:
    entry = {"organization": "*", "location": "azure://v6org{organization_id}/results"}

    store = load(readable(PRINCIPAL, entry))

    config = store.readable[0].store.for_organization(12)
    assert str(config.root) == "azure://v6org12/results"
    assert config.options == {"account_url": "https://v6org12.blob.core.windows.net"}


@pytest.mark.parametrize(
    ("url", "custom"),
    [("https://acc.z12.blob.storage.azure.net", False), ("https://acc.storage.hospital.nl", True)],
)
def test_the_endpoint_of_another_account_is_asked_for_where_it_does_not_follow(url: str, custom: bool) -> None:
    raw = readable(PRINCIPAL, {"location": "azure://other/results"}, account_url=url, allow_custom_endpoint=custom)

    assert "readable[0].account_url: found nothing, expected the endpoint of the account other" in problem_of(raw)
    assert load(readable(PRINCIPAL, {"location": "azure://acc/results"}, account_url=url, allow_custom_endpoint=custom))


def test_another_account_of_a_local_emulator() -> None:
    sas = {"type": "sas", "sas": SAS}
    entry = {"location": "azure://other/results", "credential": sas}

    store = load(readable(sas, entry, account_url="http://127.0.0.1:10000/acc"))

    assert store.readable[0].store.options["account_url"] == "http://127.0.0.1:10000/other"


@pytest.mark.parametrize("credential", [PRINCIPAL, {"type": "default"}])
def test_tokens_are_never_sent_over_plain_http(credential: dict[str, str]) -> None:
    emulator = "http://127.0.0.1:10000/acc"
    entry = {"location": "azure://acc/results", "account_url": emulator, "credential": credential}

    assert problem_of(block(credential, account_url=emulator)).startswith(
        "account_url: found http://127.0.0.1:10000/acc"
    )
    assert problem_of(readable(PRINCIPAL, entry)).startswith(
        "readable[0].account_url: found http://127.0.0.1:10000/acc"
    )
    assert load(block(credential, account_url="https://127.0.0.1:10000/acc"))


@pytest.mark.parametrize(
    ("credential", "location", "words"),
    [
        ({"type": "sas", "sas": SAS}, "azure://other/results", "signed by another storage account"),
        ({"type": "sas", "sas": CONTAINER_SAS}, "azure://dhdplugin/other", "for one container only"),
        (
            {"type": "connection_string", "connection_string": CONNECTION},
            "azure://other/results",
            "signed by another storage account",
        ),
    ],
)
def test_a_credential_that_cannot_open_the_other_store_is_not_taken_over(
    credential: dict[str, str], location: str, words: str
) -> None:
    problem = problem_of(readable(credential, {"location": location}))

    assert problem.startswith("readable[0].credential: found nothing, expected a credential of its own")
    assert words in problem
    own = load(readable(credential, {"location": location, "credential": {"type": "default"}}))
    assert own.readable[0].store.credential == DefaultCredential()


def test_an_account_sas_opens_other_containers_of_its_account() -> None:
    store = load(readable({"type": "sas", "sas": SAS}, {"location": "azure://dhdplugin/other"}))

    assert store.readable[0].store.credential == store.own.credential


def test_the_sas_url_of_an_entry_gives_its_endpoint_and_must_fit_its_location() -> None:
    sas = {"type": "sas", "sas": f"https://other.z3.blob.storage.azure.net/results?{SAS}"}

    store = load(readable(PRINCIPAL, {"location": "azure://other/results", "credential": sas}))

    assert store.readable[0].store.options["account_url"] == "https://other.z3.blob.storage.azure.net"
    for location, words in (
        ("azure://other/results2", "found a SAS URL of another container"),
        ("azure://third/results", "found an endpoint of the account other, expected one of third"),
    ):
        assert words in problem_of(readable(PRINCIPAL, {"location": location, "credential": sas}))


def test_one_account_name_cannot_stand_for_two_endpoints() -> None:
    entries = [
        {"organization": 7, "location": "azure://other/b-b", "account_url": "https://other.z1.blob.storage.azure.net"},
        {"organization": 8, "location": "azure://other/c-c"},
    ]

    problem = problem_of(block(PRINCIPAL, readable=entries))

    assert problem.startswith(
        "readable[1]: found azure://other for https://other.blob.core.windows.net, but readable[0]"
    )
