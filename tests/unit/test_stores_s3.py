"""The ``s3`` driver, as far as it needs no server: opening, and what the SDK's errors become."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    ParamValidationError,
    ProxyConnectionError,
    ReadTimeoutError,
    ResponseStreamingError,
    SSLError,
)
from pydantic import SecretStr
from urllib3.exceptions import NameResolutionError, ProtocolError

from vantage6_largefile.config.store import (
    AccessKeyCredential,
    Credential,
    DefaultCredential,
    NetworkConfig,
    SasCredential,
    StoreConfig,
    TransferConfig,
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
from vantage6_largefile.redaction import redact
from vantage6_largefile.stores.s3 import S3Store, open_store
from vantage6_largefile.stores.s3_client import s3_client
from vantage6_largefile.stores.s3_errors import mapped, translate

OBJECT = Location.parse("s3://aws/ziekenhuis-a/object")
SECRET = "s3cr3t-canary-of-an-access-key"
URL = f"https://s3.example/ziekenhuis-a/object?X-Amz-Signature={SECRET}"
KEY = AccessKeyCredential(access_key_id="AKIAEXAMPLE", secret_access_key=SecretStr(SECRET))


def answered(status: int, code: str = "", **headers: str) -> ClientError:
    """As botocore makes it; without a code it takes the status, as for an answer to HEAD."""
    response = {
        "Error": {"Code": code or str(status), "Message": f"{URL} {SECRET}"},
        "ResponseMetadata": {"HTTPStatusCode": status, "RequestId": "id-1", "HTTPHeaders": headers},
    }
    return ClientError(response, "GetObject")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "writing", "expected"),
    [
        (answered(404, "NoSuchKey"), False, ObjectNotFound),
        (answered(404), False, ObjectNotFound),
        (answered(404, "NoSuchBucket"), False, StoreMisconfigured),
        (answered(404, "NoSuchUpload"), True, UploadSessionLost),
        (answered(400, "InvalidPart"), True, UploadSessionLost),
        (answered(412, "PreconditionFailed"), True, ObjectExists),
        (answered(412, "PreconditionFailed"), False, ObjectChanged),
        (answered(412), False, ObjectChanged),
        (answered(409, "ConditionalRequestConflict"), True, StoreUnavailable),
        (answered(409, "OperationAborted"), True, StoreUnavailable),
        (answered(403, "AccessDenied"), False, StoreAccessDenied),
        (answered(403), False, StoreAccessDenied),
        (answered(403, "InvalidAccessKeyId"), False, StoreAccessDenied),
        (answered(403, "SignatureDoesNotMatch"), False, StoreAccessDenied),
        (answered(400, "ExpiredToken"), False, StoreAccessDenied),
        (answered(401), False, StoreAccessDenied),
        (answered(403, "RequestTimeTooSkewed"), False, StoreMisconfigured),
        (answered(503, "SlowDown"), True, StoreUnavailable),
        (answered(429), False, StoreUnavailable),
        (answered(500, "InternalError"), True, StoreUnavailable),
        (answered(200, "InternalError"), True, StoreUnavailable),
        (answered(400, "RequestTimeout"), True, StoreUnavailable),
        (answered(502), False, StoreUnavailable),
        (answered(400, "EntityTooLarge"), True, StoreFull),
        (answered(507), True, StoreFull),
        (answered(400, "EntityTooSmall"), True, StoreMisconfigured),
        (answered(501, "NotImplemented"), True, StoreMisconfigured),
        (answered(301, "PermanentRedirect"), False, StoreMisconfigured),
        (answered(307), False, StoreMisconfigured),
        (answered(400, "AuthorizationHeaderMalformed"), False, StoreMisconfigured),
        (EndpointConnectionError(endpoint_url=URL), False, StoreUnavailable),
        (ConnectTimeoutError(endpoint_url=URL), False, StoreUnavailable),
        (ReadTimeoutError(endpoint_url=URL), False, StoreUnavailable),
        (ConnectionClosedError(endpoint_url=URL), False, StoreUnavailable),
        (ProxyConnectionError(proxy_url=f"http://user:{SECRET}@proxy"), False, StoreUnavailable),
        (HTTPClientError(error=OSError(f"for {URL}")), False, StoreUnavailable),
        (IncompleteReadError(actual_bytes=1, expected_bytes=2), False, StoreUnavailable),
        (ResponseStreamingError(error=f"for {URL}"), False, StoreUnavailable),
        (ProtocolError(f"for {URL}"), False, StoreUnavailable),
        (NoCredentialsError(), False, StoreAccessDenied),
        (CredentialRetrievalError(provider="x", error_msg=SECRET), False, StoreAccessDenied),
        (ParamValidationError(report=URL), False, StoreMisconfigured),
    ],
)
def test_errors_of_the_sdk_are_named_and_hold_no_secret(
    error: Exception, writing: bool, expected: type[LargeFileError]
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
    error = translate(answered(503, "SlowDown", **{"retry-after": "17"}), OBJECT, "read")
    assert isinstance(error, StoreUnavailable)
    assert error.retry_after == 17


@pytest.mark.parametrize("value", ["Wed, 21 Oct 2026 07:28:00 GMT", "-5", "1e9", "nan"])
def test_odd_retry_after_is_ignored(value: str) -> None:
    error = translate(answered(503, "SlowDown", **{"retry-after": value}), OBJECT, "read")
    assert isinstance(error, StoreUnavailable)
    assert error.retry_after is None


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (answered(403, "RequestTimeTooSkewed"), "clock of this machine is wrong"),
        (answered(403, "SignatureDoesNotMatch"), "access key is wrong"),
        (answered(403), "clock"),
        (answered(301, "PermanentRedirect", **{"x-amz-bucket-region": "eu-south-2"}), "bucket is in eu-south-2"),
        (answered(404, "NoSuchBucket"), "Create the bucket"),
        (answered(501, "NotImplemented"), "lacks a call"),
        (answered(503, "SlowDown"), "id-1"),
        (EndpointConnectionError(endpoint_url=URL, error=ConnectionRefusedError(111, "Connection refused")), "refused"),
        (
            HTTPClientError(error=NameResolutionError("s3", None, socket.gaierror("?"))),  # type: ignore[arg-type]
            "cannot be resolved",
        ),
    ],
)
def test_message_says_what_to_do(error: Exception, words: str) -> None:
    assert words in str(translate(error, OBJECT, "read"))


def test_untrusted_certificate_is_a_matter_of_configuration() -> None:
    cause = ssl.SSLCertVerificationError(1, "self-signed certificate")
    error = translate(SSLError(endpoint_url=URL, error=cause), OBJECT, "read")
    assert isinstance(error, StoreMisconfigured)
    assert "ca_bundle" in str(error)


def test_texts_of_the_server_that_are_no_code_or_region_are_not_quoted() -> None:
    odd = answered(400, f"x?sig={SECRET}", **{"x-amz-bucket-region": f"<{SECRET}>"})
    assert SECRET not in str(translate(odd, OBJECT, "read"))
    odd = answered(301, "PermanentRedirect", **{"x-amz-bucket-region": f"<{SECRET}>"})
    assert SECRET not in str(translate(odd, OBJECT, "read"))


# --- opening ----------------------------------------------------------------------------------------------------------


def config(credential: Credential | None = KEY, root: str = "s3://aws/ziekenhuis-a", **options: str) -> StoreConfig:
    return StoreConfig("s3", Location.parse(root), {"region": "eu-west-1", **options}, credential)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (config(None), "needs one"),
        (config(SasCredential(sas=SecretStr("sig=x"))), "found sas"),
        (config(root="s3://aws"), "names no bucket"),
        (config(region="not a region"), "cannot be set up"),
        (config(endpoint_url="no url"), "cannot be set up"),
        (StoreConfig("s3", Location.parse("s3://aws/bucket"), {}, KEY), "region"),
    ],
)
def test_store_that_cannot_work_is_not_opened(broken: StoreConfig, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        open_store(broken)


@pytest.mark.parametrize("credential", [KEY, DefaultCredential()])
def test_every_credential_opens_a_store(credential: Credential, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    store = open_store(config(credential))
    assert isinstance(store, S3Store)
    assert SECRET not in repr(config(credential))
    store.close()


def test_client_does_not_try_again_and_has_connections_enough() -> None:
    wide = StoreConfig(
        "s3", OBJECT, {"region": "eu-west-1"}, KEY, transfer=TransferConfig(concurrency=20), network=NetworkConfig()
    )

    settings = s3_client(wide).meta.config

    assert settings.retries["total_max_attempts"] == 1
    assert settings.max_pool_connections == 80
    assert settings.request_checksum_calculation == "when_required"
    assert settings.response_checksum_validation == "when_required"


def test_own_server_is_addressed_by_path_and_amazon_by_region() -> None:
    own = s3_client(config(root="s3://minio/bucket", endpoint_url="https://s3.hospital.nl:9000"))
    amazon = s3_client(config())

    assert own.generate_presigned_url("get_object", {"Bucket": "b-b", "Key": "k"}).startswith(
        "https://s3.hospital.nl:9000/b-b/k?"
    )
    assert amazon.meta.endpoint_url == "https://s3.eu-west-1.amazonaws.com"


def test_missing_sdk_is_a_mistake_that_names_the_extra() -> None:
    program = """
import sys
sys.modules["boto3"] = sys.modules["botocore"] = None
from vantage6_largefile.config.store import StoreConfig
from vantage6_largefile.errors import ConfigurationError
from vantage6_largefile.location import Location
from vantage6_largefile.stores import open_store
try:
    open_store(StoreConfig("s3", Location.parse("s3://aws/bucket"), {"region": "eu-west-1"}, None))
except ConfigurationError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=60)

    assert "vantage6-largefile[s3]" in done.stdout, done.stderr


@pytest.mark.parametrize("name", ["x-amz-security-token", "session_token", "AWS_SESSION_TOKEN", "X-Amz-Signature"])
def test_what_the_sdk_logs_of_a_request_is_redacted(name: str) -> None:
    for text in (f"{{'{name}': '{SECRET}'}}", f"{name}={SECRET}", f'"{name}": "{SECRET}"'):
        if name != "X-Amz-Signature" or "=" in text:
            assert SECRET not in redact(text)
