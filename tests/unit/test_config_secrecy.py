"""No secret leaves a configuration through repr, str, an error, its traceback or the log."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field, StrictInt, ValidationError

from vantage6_largefile.config import (
    ClientSecretCredential,
    ConnectionStringCredential,
    DefaultCredential,
    SasCredential,
    load_large_result_store,
    load_largefile,
)
from vantage6_largefile.config.blocks import Block, NetworkBlock, ReadableBlock, SharedBlock, StoreBlock
from vantage6_largefile.config.problems import Problems, check
from vantage6_largefile.config.server import LegacyBlock, ServerBlock
from vantage6_largefile.errors import ConfigurationError

# Valid base64, so that it can be an account key, and free of characters that would need quoting anywhere.
CANARY = "Q0FOQVJZQ0FOQVJZQ0FOQVJZ"
URL = "https://dhdplugin.blob.core.windows.net"
CONNECTION = f"AccountName=dhdplugin;AccountKey={CANARY}"
SAS = f"sv=2024-11-04&se=2999-01-01&sig={CANARY}"
PRINCIPAL = {"type": "client_secret", "tenant_id": "t", "client_id": "c", "client_secret": CANARY}

CREDENTIALS: list[dict[str, Any]] = [
    PRINCIPAL,
    {"type": "sas", "sas": SAS},
    {"type": "sas", "sas": f"{URL}/ziekenhuis-a?{SAS}"},
    {"type": "connection_string", "connection_string": CONNECTION},
    {"type": "connection_string", "connection_string": f"BlobEndpoint={URL};SharedAccessSignature={SAS}"},
]


def block(credential: Any, **changes: Any) -> dict[str, Any]:
    return {"driver": "azure", "account_url": URL, "container": "ziekenhuis-a", "credential": credential, **changes}


@pytest.mark.parametrize("credential", CREDENTIALS)
@pytest.mark.parametrize("show", [repr, str, lambda value: f"{value!r:>10}"])
def test_a_loaded_configuration_shows_no_secret(credential: dict[str, Any], show: Callable[[object], str]) -> None:
    entry = {"location": "azure://dhdplugin/other", "credential": credential}
    if "ziekenhuis-a" in str(credential):
        entry["location"] = "azure://dhdplugin/ziekenhuis-a/other"
    store = load_large_result_store(
        block(
            credential,
            readable=[{"organization": 7, **entry}],
            shared=[{"name": "models", "manifest": "sums", **entry}],
            network={"https_proxy": f"http://user:{CANARY}@proxy:3128"},
        ),
        source="x",
        environ={},
    )

    parts: list[object] = [store, store.own, store.own.credential, store.network, store.own.network]
    parts += [*store.readable, store.readable[0].store, store.readable[0].store.for_organization(7), *store.shared]
    for part in parts:
        assert CANARY not in show(part)
    assert CANARY in str(store.network.https_proxy)
    assert isinstance(store.own.credential, BaseModel)
    assert CANARY not in store.own.credential.model_dump_json()


def test_a_loaded_server_configuration_shows_no_secret() -> None:
    config = load_largefile(
        {"legacy_store": {"container_name": "x", "connection_string": CONNECTION}},
        stock_large_result_store=None,
        source="x",
        environ={},
    )

    assert config.legacy_store is not None
    assert CANARY not in f"{config!r} {config} {config.legacy_store!r}"
    assert CANARY in config.legacy_store.as_stock_config()["connection_string"]


MISPLACED: list[tuple[str, dict[str, Any]]] = [
    ("credential is the secret", block(CANARY)),
    ("credential is a list", block([CANARY, {"client_secret": CANARY}])),
    ("type is the secret", block({"type": CANARY})),
    ("type is a mapping", block({"type": {"client_secret": CANARY}})),
    ("mistyped key", block({**PRINCIPAL, "client_secrt": CANARY})),
    ("secret in a key of another type", block({**PRINCIPAL, "sas": SAS})),
    ("secret as id", block({**PRINCIPAL, "client_id": f"{CANARY}/+="})),
    ("secret as tenant", block({**PRINCIPAL, "tenant_id": f"{CANARY}/+="})),
    ("secret in a list", block({**PRINCIPAL, "client_secret": [CANARY]})),
    ("secret in a mapping", block({**PRINCIPAL, "client_secret": {CANARY: CANARY}})),
    ("secret with a newline", block({**PRINCIPAL, "client_secret": f"{CANARY}\n{CANARY}"})),
    ("secret of unknown indirection", block({**PRINCIPAL, "client_secret": f"${{vault:{CANARY}}}"})),
    ("type missing", block({"client_secret": CANARY})),
    ("later type", block({"type": "certificate", "password": CANARY})),
    ("SAS in account_url", block(PRINCIPAL, account_url=f"{URL}?{SAS}")),
    ("password in account_url", block(PRINCIPAL, account_url=f"https://user:{CANARY}@dhdplugin.blob.core.windows.net")),
    ("connection string as account_url", block(PRINCIPAL, account_url=CONNECTION)),
    ("SAS in container", block(PRINCIPAL, container=f"ziekenhuis-a?{SAS}")),
    ("SAS in prefix", block(PRINCIPAL, prefix=f"a?{SAS}")),
    ("connection string as driver", block(PRINCIPAL, driver=CONNECTION)),
    ("SAS URL as location", block(PRINCIPAL, readable=[{"organization": 7, "location": f"azure://a/bbb?{SAS}"}])),
    ("SAS URL as entry", block(PRINCIPAL, readable=[f"{URL}?{SAS}"])),
    ("SAS in an entry's url", block(PRINCIPAL, readable=[
        {"organization": 7, "location": "azure://dhdplugin/bbb", "account_url": f"{URL}?{SAS}"}])),
    ("broken credential of an entry", block(PRINCIPAL, readable=[
        {"organization": 7, "location": "azure://dhdplugin/bbb", "credential": {"type": "sas", "sas": CANARY}}])),
    ("SAS in a manifest", block(PRINCIPAL, shared=[
        {"name": f"a?{SAS}", "location": "azure://dhdplugin/bbb", "manifest": f"a?{SAS}"}])),
    ("options", block(PRINCIPAL, options={"key": CANARY, "other": 7})),
    ("options as text", block(PRINCIPAL, options=CANARY)),
    ("proxy password", block(PRINCIPAL, network={"https_proxy": f"ftp://user:{CANARY}@proxy"})),
    ("proxy password, bad port", block(PRINCIPAL, network={"https_proxy": f"http://user:{CANARY}@proxy:x"})),
    ("proxy with a path", block(PRINCIPAL, network={"https_proxy": f"http://user:{CANARY}@proxy/x"})),
    ("proxy as a list", block(PRINCIPAL, network={"https_proxy": [CANARY]})),
    ("network as text", block(PRINCIPAL, network=f"http://user:{CANARY}@proxy")),
    ("unknown top-level key", block(PRINCIPAL, client_secret=CANARY)),
    ("SAS as a key", block(PRINCIPAL, **{SAS: 1})),
    ("file driver", {"driver": "file", "root": f"a?{SAS}", "path": CONNECTION, "credential": PRINCIPAL}),
    *((f"wrong threshold beside credential {index}", block(credential, threshold="x"))
      for index, credential in enumerate(CREDENTIALS)),
    *((f"wrong account beside credential {index}", block(credential, account_url="https://abc.blob.core.windows.net",
                                                         readable=7))
      for index, credential in enumerate(CREDENTIALS)),
    *((f"broken connection string {index}", block({"type": "connection_string", "connection_string": text}))
      for index, text in enumerate([
          CANARY, f"{CANARY}=x", f"AccountKey={CANARY}", f"{CONNECTION};{CANARY}", f"{CONNECTION};AccountKey={CANARY}",
          f"{CONNECTION} ;x=y", f"{CANARY}={CANARY};{CANARY}={CANARY}", f"AccountName={CANARY};AccountKey=x",
          f"{CONNECTION};BlobEndpoint={URL}?{SAS}", f"{CONNECTION};BlobEndpoint=https://u:{CANARY}@x.example",
      ])),
]  # fmt: skip


@pytest.mark.parametrize("raw", [raw for _, raw in MISPLACED], ids=[name for name, _ in MISPLACED])
def test_no_mistake_shows_a_secret(raw: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), pytest.raises(ConfigurationError) as caught:
        load_large_result_store(raw, source="x", environ={})

    shown = [str(caught.value), repr(caught.value), *caught.value.problems, caplog.text]
    shown += traceback.format_exception(caught.value)
    assert CANARY not in "\n".join(shown)


@pytest.mark.parametrize(
    "legacy",
    [
        CANARY,
        [CANARY],
        {"client_secret": CANARY},
        {"client_secret": [CANARY], "container_name": f"a?{SAS}"},
        {"connection_string": f"{CANARY}\n{CANARY}"},
        {"connection_strng": CONNECTION, "container_name": 5},
        {"type": CONNECTION, "container_name": "x", "connection_string": CONNECTION},
    ],
)
def test_no_mistake_of_a_server_shows_a_secret(legacy: object) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_largefile(
            {"legacy_store": legacy, "extra": CANARY},
            stock_large_result_store={"client_secret": CANARY, "connection_string": CONNECTION},
            source="x",
            environ={},
        )

    assert CANARY not in "".join(traceback.format_exception(caught.value))


def test_a_secret_from_a_file_or_the_environment_is_shown_neither(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text(f"{CANARY}\n{CANARY}\n")
    for text in (f"${{file:{path}}}", "${env:SECRET}"):
        with pytest.raises(ConfigurationError) as caught:
            load_large_result_store(
                block({**PRINCIPAL, "client_secret": text}), source="x", environ={"SECRET": f"{CANARY}\n{CANARY}"}
            )
        assert CANARY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("model", "document"),
    [
        (ClientSecretCredential, {"type": "client_secret", "client_secret": CANARY}),
        (ClientSecretCredential, {**PRINCIPAL, "client_id": [CANARY], "extra": CANARY}),
        (SasCredential, {"sas": [CANARY]}),
        (ConnectionStringCredential, {"connection_string": {"x": CANARY}}),
        (DefaultCredential, {"secret": CANARY}),
        (StoreBlock, {"credential": CANARY, "threshold": CANARY, "extra": {"secret": CANARY}}),
        (NetworkBlock, {"https_proxy": CANARY, "ca_bundle": [CANARY]}),
        (ReadableBlock, {"credential": CANARY, "path": [CANARY]}),
        (SharedBlock, {"credential": CANARY, "name": [CANARY]}),
        (ServerBlock, {"legacy_store": CANARY, "retention_days": CANARY}),
        (LegacyBlock, {"client_secret": CANARY, "container_name": [CANARY]}),
    ],
)
def test_pydantics_own_error_text_shows_no_secret(model: type[BaseModel], document: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(document)

    assert CANARY not in str(caught.value)
    assert CANARY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "model",
    [
        StoreBlock.model_validate({"credential": PRINCIPAL, "readable": [PRINCIPAL], "shared": [PRINCIPAL],
                                   "network": {"https_proxy": CANARY}, "options": {"x": CANARY}}),
        NetworkBlock.model_validate({"https_proxy": CANARY}),
        ReadableBlock.model_validate({"credential": PRINCIPAL, "options": {"x": CANARY}}),
        SharedBlock.model_validate({"credential": PRINCIPAL, "options": {"x": CANARY}}),
        ServerBlock.model_validate({"legacy_store": PRINCIPAL}),
        LegacyBlock.model_validate(dict.fromkeys(("client_secret", "connection_string", "tenant_id"), CANARY)),
        ClientSecretCredential.model_validate(PRINCIPAL),
        SasCredential.model_validate({"sas": CANARY}),
        ConnectionStringCredential.model_validate({"connection_string": CANARY}),
    ],
    ids=lambda model: type(model).__name__,
)  # fmt: skip
def test_no_model_shows_a_secret(model: BaseModel) -> None:
    assert CANARY not in f"{model!r} {model}"


def test_a_hidden_key_of_the_wrong_type_is_told_without_its_value() -> None:
    class Model(Block):
        number: StrictInt = Field(0, repr=False, description="a number")

    problems = Problems()

    check(Model, {"number": CANARY}, "x", problems)

    assert problems.lines == [f"x.number: found text of {len(CANARY)} characters, expected a number."]
