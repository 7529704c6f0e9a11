"""The errors of boto3, mapped once to :mod:`vantage6_largefile.errors`.

The SDK quotes URLs, headers and the server's own words in its messages, and a server may repeat the request in them.
Nothing of its texts goes into ours: only the status, an error code that looks like one, the request id, and the
system's own words for a network failure. For the same reason our errors do not name the SDK's as their cause.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    TokenRetrievalError,
)
from urllib3.exceptions import HTTPError

from vantage6_largefile.errors import (
    ObjectChanged,
    ObjectExists,
    ObjectNotFound,
    StoreAccessDenied,
    StoreError,
    StoreFull,
    StoreMisconfigured,
    StoreUnavailable,
    UploadSessionLost,
)
from vantage6_largefile.location import Location
from vantage6_largefile.stores.http import header_of

#: Everything that boto3 raises for what goes wrong between us and the server.
SDK_ERRORS = (ClientError, BotoCoreError, HTTPError)

#: The credential itself is not known: another key, expired, for another server.
BAD_CREDENTIAL = frozenset(
    {
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "ExpiredToken",
        "InvalidToken",
        "TokenRefreshRequired",
        "InvalidSecurity",
        "NotSignedUp",
    }
)
_BUSY = frozenset(
    {
        "SlowDown",
        "ServiceUnavailable",
        "InternalError",
        "RequestTimeout",
        "RequestLimitExceeded",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
        "OperationAborted",
        "ServerBusy",
    }
)
_BUSY_STATUS = frozenset({408, 429, 500, 502, 503, 504, 509})
_LOST = frozenset({"NoSuchUpload", "InvalidPart"})
_FULL = frozenset({"QuotaExceeded", "EntityTooLarge", "XMinioStorageFull", "InsufficientCapacity"})
_REGION = frozenset({"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"})
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9]{1,79}\Z")
_REGION_NAME = re.compile(r"[a-z0-9-]{1,63}\Z")


@contextmanager
def mapped(location: Location, doing: str, *, writing: bool = False) -> Iterator[None]:
    """Turn an error of the SDK into one of :mod:`vantage6_largefile.errors`.

    Parameters
    ----------
    location : Location
        The object or store that the work is about.
    doing : str
        A verb for the message: ``"read"``.
    writing : bool
        Whether a failed condition means that the object is there already (else: that it is another one).
    """
    try:
        yield
    except SDK_ERRORS as error:
        raise translate(error, location, doing, writing=writing) from None


def code_of(error: Exception) -> str:
    """The server's error code, or an empty text; an answer to HEAD has none."""
    code = error.response.get("Error", {}).get("Code") if isinstance(error, ClientError) else None
    return code if isinstance(code, str) and _CODE.match(code) else ""


def status_of(error: Exception) -> int | None:
    """The HTTP status of the answer, None when there was none."""
    metadata = error.response.get("ResponseMetadata", {}) if isinstance(error, ClientError) else {}
    status = metadata.get("HTTPStatusCode")
    return status if isinstance(status, int) else None


def translate(error: Exception, location: Location, doing: str, *, writing: bool = False) -> Exception:
    """The error of ours that says what an error of the SDK says. See :func:`mapped`."""
    if not isinstance(error, ClientError):
        return _without_answer(error, location, doing)
    status, code = status_of(error) or 0, code_of(error)
    metadata = error.response.get("ResponseMetadata", {})
    headers = metadata.get("HTTPHeaders", {})
    request_id = metadata.get("RequestId")
    what = f"Cannot {doing} {location}: the store answered {status or 'with an error'}{' ' + code if code else ''}"
    what += (
        f" (request {request_id})." if isinstance(request_id, str) and request_id and request_id.isprintable() else "."
    )
    if code in _BUSY or status in _BUSY_STATUS:
        return StoreUnavailable(what, retry_after=_retry_after(headers))
    if code == "ConditionalRequestConflict":
        return StoreUnavailable(what, advice="Another request for the same object was on its way.")
    if code == "PreconditionFailed" or status == 412:
        if writing:
            return ObjectExists(f"{location} is already there; it was not touched.")
        return ObjectChanged(f"{location} is not the object that was expected: its etag differs.")
    if code in _LOST:
        return UploadSessionLost(f"The store no longer has all parts of the upload of {location}.")
    if code in _FULL or status in (413, 507):
        return StoreFull(what)
    return _by_code(status, code, what, location, headers)


def _by_code(status: int, code: str, what: str, location: Location, headers: Mapping[str, str]) -> StoreError:
    if code in ("RequestTimeTooSkewed", "RequestExpired"):
        return StoreMisconfigured(what, advice="The clock of this machine is wrong; have it set (NTP).")
    if code in _REGION or 300 <= status < 400:
        region = header_of(headers, "x-amz-bucket-region") or ""
        found = f"The bucket is in {region}. " if _REGION_NAME.match(region) else ""
        return StoreMisconfigured(
            what, advice=f"{found}Redirects are not followed; check 'region', 'endpoint_url' and the proxy."
        )
    if code in BAD_CREDENTIAL or status == 401:
        return StoreAccessDenied(
            what, advice="The access key is wrong, expired, or of another server; also check this machine's clock."
        )
    if status == 403 or code in ("AccessDenied", "AllAccessDisabled", "AccountProblem"):
        return StoreAccessDenied(
            what,
            advice="The identity lacks this right, or may not learn whether the object is there"
            + ("." if code else "; or the credential or this machine's clock is wrong."),
        )
    if code == "NoSuchBucket":
        return StoreMisconfigured(what, advice="Create the bucket, or change 'bucket'.")
    if status == 404 and code in ("NoSuchKey", "NoSuchVersion", "NotFound", ""):
        return ObjectNotFound(f"{location} is not there.")
    if status == 501 or code == "NotImplemented":
        return StoreMisconfigured(what, advice="This server lacks a call that the driver needs (docs/stores.md).")
    return StoreMisconfigured(what)


def _without_answer(error: Exception, location: Location, doing: str) -> StoreError:
    chain = list(_chain(error))
    if any(isinstance(link, ssl.SSLCertVerificationError) for link in chain):
        return StoreMisconfigured(
            f"Cannot {doing} {location}: the certificate of the other side is not trusted.",
            advice="Set network.ca_bundle when a proxy of the hospital opens TLS connections.",
        )
    if isinstance(error, NoCredentialsError | PartialCredentialsError | CredentialRetrievalError | TokenRetrievalError):
        return StoreAccessDenied(
            f"Cannot {doing} {location}: no usable identity was found ({type(error).__name__}).",
            advice="With a credential of type default, boto3 must find one in the environment of this process.",
        )
    words = next((link.strerror for link in chain if isinstance(link, OSError) and link.strerror), None)
    if words is None:
        words = next((_SAFE_WORDS[type(link).__name__] for link in chain if type(link).__name__ in _SAFE_WORDS), None)
    if words is None and isinstance(error, BotoCoreError) and type(error).__name__ in _OF_THE_CALL:
        return StoreMisconfigured(
            f"Cannot {doing} {location}: the SDK does not make this request ({type(error).__name__})."
        )
    return StoreUnavailable(
        f"Cannot {doing} {location}: the store cannot be reached or did not answer ({words or type(error).__name__})."
    )


#: What the SDK refuses before it asks anyone: trying again changes nothing.
_OF_THE_CALL = frozenset(
    {"ParamValidationError", "NoRegionError", "InvalidRegionError", "UnsupportedS3ConfigurationError"}
)

#: What kinds of failure are called that carry no words of the system.
_SAFE_WORDS = {
    "NameResolutionError": "its host name cannot be resolved",
    "ConnectTimeoutError": "no connection in time",
    "ReadTimeoutError": "no answer in time",
    "ProxyConnectionError": "the proxy refused or cannot be reached",
    "ProxyError": "the proxy refused or cannot be reached",
    "IncompleteRead": "the answer broke off",
    "IncompleteReadError": "the answer broke off",
    "ResponseStreamingError": "the answer broke off",
    "ResponseParserError": "the answer makes no sense",
    "RemoteDisconnected": "the connection was closed without an answer",
    "ConnectionClosedError": "the connection was closed without an answer",
    "ProtocolError": "the connection broke",
    "EndpointConnectionError": "no connection",
    "SSLError": "TLS failed",
}


def _chain(error: BaseException) -> Iterator[BaseException]:
    """All errors behind an error, innermost first: causes, contexts, and those that libraries keep in fields."""
    seen: list[BaseException] = []
    pending: list[BaseException] = [error]
    while pending:
        link = pending.pop()
        if any(link is other for other in seen):
            continue
        seen.append(link)
        kept = link.kwargs.get("error") if isinstance(link, BotoCoreError) else None
        behind = [link.__cause__, link.__context__, kept, getattr(link, "reason", None)]
        pending += [other for other in (*behind, *link.args) if isinstance(other, BaseException)]
    return reversed(seen)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    value = header_of(headers, "Retry-After")
    try:
        seconds = float(value) if value is not None else None
    except ValueError:
        # An HTTP date: our own waits do.
        return None
    return seconds if seconds is not None and 0 <= seconds <= 3600 else None
