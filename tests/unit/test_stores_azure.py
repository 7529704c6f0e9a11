"""The ``azure`` driver, as far as it needs no server: opening, and what the SDK's errors become."""

from __future__ import annotations

import socket
import ssl
from types import SimpleNamespace

import pytest
import requests
from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ServiceRequestError,
    ServiceResponseTimeoutError,
)
from pydantic import SecretStr
from urllib3.exceptions import NameResolutionError

from vantage6_largefile.config.store import (
    ClientSecretCredential,
    ConnectionStringCredential,
    Credential,
    DefaultCredential,
    NetworkConfig,
    SasCredential,
    StoreConfig,
)
from vantage6_largefile.errors import (
    ConfigurationError,
    LargeFileError,
    ObjectChanged,
    ObjectExists,
    ObjectNotFound,
    StoreAccessDenied,
    StoreFull,
    StoreMisconfigured,
    StoreUnavailable,
    UploadSessionLost,
)
from vantage6_largefile.location import Location
from vantage6_largefile.stores.azure import open_store
from vantage6_largefile.stores.azure_client import azure_credential
from vantage6_largefile.stores.azure_errors import mapped, translate

OBJECT = Location.parse("azure://dhdplugin/ziekenhuis-a/object")
SECRET = "c2VjcmV0c2lnbmF0dXJl"
URL = f"https://dhdplugin.blob.core.windows.net/ziekenhuis-a/object?sp=cw&sig={SECRET}"


def answered(status: int, code: str = "", **headers: str) -> HttpResponseError:
    error = HttpResponseError(message=f"Operation on {URL} failed")
    error.response = SimpleNamespace(  # type: ignore[assignment]
        status_code=status,
        headers={"x-ms-version": "2025-01-05", "x-ms-request-id": "id-1", "x-ms-error-code": code, **headers},
    )
    error.status_code = status
    return error


@pytest.mark.parametrize(
    ("error", "writing", "expected"),
    [
        (answered(404, "BlobNotFound"), False, ObjectNotFound),
        (answered(404, "ContainerNotFound"), False, StoreMisconfigured),
        (answered(404), False, StoreMisconfigured),
        (answered(409, "BlobAlreadyExists"), True, ObjectExists),
        (answered(412, "ConditionNotMet"), True, ObjectExists),
        (answered(403, "UnauthorizedBlobOverwrite"), True, ObjectExists),
        (answered(409, "BlobImmutableDueToPolicy"), True, ObjectExists),
        (answered(409, "BlobImmutableDueToPolicy"), False, StoreAccessDenied),
        (answered(412, "LeaseIdMissing"), False, StoreAccessDenied),
        (answered(412, "ConditionNotMet"), False, ObjectChanged),
        (answered(412), False, ObjectChanged),
        (answered(400, "InvalidBlockList"), True, UploadSessionLost),
        (answered(403, "AuthenticationFailed"), False, StoreAccessDenied),
        (answered(403, "AuthorizationPermissionMismatch"), False, StoreAccessDenied),
        (answered(403, "AuthorizationFailure"), False, StoreAccessDenied),
        (answered(401, "InvalidAuthenticationInfo"), False, StoreAccessDenied),
        (answered(429), False, StoreUnavailable),
        (answered(500, "InternalError"), False, StoreUnavailable),
        (answered(500, "OperationTimedOut"), True, StoreUnavailable),
        (answered(503, "ServerBusy"), True, StoreUnavailable),
        (answered(413, "RequestBodyTooLarge"), True, StoreFull),
        (answered(307, location="https://elsewhere.example"), False, StoreMisconfigured),
        (answered(400, "InvalidUri"), False, StoreMisconfigured),
        (ServiceRequestError(f"for url {URL}"), False, StoreUnavailable),
        (ServiceResponseTimeoutError(f"for url {URL}"), False, StoreUnavailable),
        (HttpResponseError(f"for url {URL}"), False, StoreUnavailable),
        (ClientAuthenticationError(f"for {SECRET}"), False, StoreAccessDenied),
    ],
)
def test_errors_of_the_sdk_are_named_and_hold_no_secret(
    error: AzureError, writing: bool, expected: type[LargeFileError]
) -> None:
    with pytest.raises(expected) as caught, mapped(OBJECT, "do something to", writing=writing):
        raise error

    assert type(caught.value) is expected
    assert str(OBJECT) in str(caught.value)
    assert SECRET not in f"{caught.value!s} {caught.value!r}"
    # A traceback shows causes and contexts too, and those texts hold the URL.
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_store_that_says_when_to_come_back_is_heard() -> None:
    error = translate(answered(503, "ServerBusy", **{"Retry-After": "17"}), OBJECT, "read")
    assert isinstance(error, StoreUnavailable)
    assert error.retry_after == 17


@pytest.mark.parametrize("value", ["Wed, 21 Oct 2026 07:28:00 GMT", "-5", "1e9", "nan"])
def test_odd_retry_after_is_ignored(value: str) -> None:
    error = translate(answered(503, "ServerBusy", **{"Retry-After": value}), OBJECT, "read")
    assert isinstance(error, StoreUnavailable)
    assert error.retry_after is None


def test_bad_credential_says_so() -> None:
    error = translate(answered(403, "AuthenticationFailed"), OBJECT, "read")
    assert "wrong, expired" in str(error)
    assert "id-1" in str(error)


def test_error_code_with_odd_characters_is_not_quoted() -> None:
    error = translate(answered(400, f"x?sig={SECRET}"), OBJECT, "read")
    assert SECRET not in str(error)


def network_error(cause: Exception) -> ServiceRequestError:
    outer = requests.exceptions.ConnectionError(f"Max retries exceeded with url: {URL}")
    outer.__context__ = cause
    return ServiceRequestError(outer, error=outer)


def test_network_failure_says_which_in_the_systems_words() -> None:
    error = translate(network_error(ConnectionRefusedError(111, "Connection refused")), OBJECT, "read")
    assert isinstance(error, StoreUnavailable)
    assert "Connection refused" in str(error)
    assert SECRET not in str(error)


def test_unknown_host_says_so() -> None:
    cause = NameResolutionError("dhdplugin", None, socket.gaierror("?"))  # type: ignore[arg-type]
    error = translate(network_error(cause), OBJECT, "read")
    assert "cannot be resolved" in str(error)


def test_untrusted_certificate_is_a_matter_of_configuration() -> None:
    error = translate(network_error(ssl.SSLCertVerificationError(1, "self-signed certificate")), OBJECT, "read")
    assert isinstance(error, StoreMisconfigured)
    assert "ca_bundle" in str(error)


def test_refusal_of_the_identity_provider_quotes_its_code_only() -> None:
    refused = ClientAuthenticationError(f"AADSTS7000215: Invalid client secret {SECRET} provided")
    error = translate(refused, OBJECT, "read")
    assert isinstance(error, StoreAccessDenied)
    assert "AADSTS7000215" in str(error)
    assert SECRET not in str(error)


# --- opening ----------------------------------------------------------------------------------------------------------


def config(credential: Credential | None, url: str = "https://dhdplugin.blob.core.windows.net") -> StoreConfig:
    return StoreConfig("azure", Location.parse("azure://dhdplugin/ziekenhuis-a"), {"account_url": url}, credential)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (config(None), "needs one"),
        (config(SasCredential(sas=SecretStr("sig=x")), url=""), "account_url"),
        (config(ConnectionStringCredential(connection_string=SecretStr("AccountName=a"))), "neither"),
        (config(DefaultCredential(), url="http://127.0.0.1:1/dhdplugin"), "TLS only"),
    ],
)
def test_store_that_cannot_work_is_not_opened(broken: StoreConfig, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        open_store(broken)


def test_store_without_a_container_is_not_opened() -> None:
    options = {"account_url": "https://dhdplugin.blob.core.windows.net"}
    root = Location.parse("azure://dhdplugin")
    with pytest.raises(ConfigurationError, match="container"):
        open_store(StoreConfig("azure", root, options, SasCredential(sas=SecretStr("sig=x"))))


def test_every_credential_opens_a_store() -> None:
    for credential in (
        SasCredential(sas=SecretStr("?sp=cw&sig=x")),
        ConnectionStringCredential(connection_string=SecretStr(f"AccountName=dhdplugin;AccountKey={SECRET}")),
        ClientSecretCredential(tenant_id="t", client_id="c", client_secret=SecretStr("s")),
        ClientSecretCredential(
            tenant_id="t", client_id="c", client_secret=SecretStr("s"), authority="login.microsoftonline.us"
        ),
        DefaultCredential(),
    ):
        open_store(config(credential)).close()


def test_connection_string_gives_key_or_sas_and_never_the_host() -> None:
    text = f"BlobEndpoint=https://elsewhere.example;AccountName=dhdplugin;AccountKey={SECRET}==;"
    key = azure_credential(ConnectionStringCredential(connection_string=SecretStr(text)), "dhdplugin", NetworkConfig())
    sas = azure_credential(
        ConnectionStringCredential(connection_string=SecretStr("SharedAccessSignature=sp=cw&sig=abc%3D")),
        "dhdplugin",
        NetworkConfig(),
    )

    assert isinstance(key, AzureNamedKeyCredential)
    assert key.named_key == ("dhdplugin", f"{SECRET}==")
    assert isinstance(sas, AzureSasCredential)
    assert sas.signature == "sp=cw&sig=abc%3D"
    store = open_store(config(ConnectionStringCredential(connection_string=SecretStr(text))))
    assert store._client.primary_hostname == "dhdplugin.blob.core.windows.net"
