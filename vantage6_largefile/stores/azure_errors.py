"""The errors of the Azure SDK, mapped once to :mod:`vantage6_largefile.errors`.

The SDK quotes URLs in its messages, and a URL may hold a SAS. Nothing of its texts goes into ours: only the status,
the error code from the service's documented list, the request id, and the system's own words for a network failure.
For the same reason our errors do not name the SDK's as their cause.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError

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

#: The credential itself is not known: another key, expired, for another account or container.
BAD_CREDENTIAL = frozenset({"AuthenticationFailed", "InvalidAuthenticationInfo", "NoAuthenticationInformation"})
#: A commit found an object in its place; the last one is what a SAS without the right to overwrite is told.
_EXISTS = frozenset({"BlobAlreadyExists", "UnauthorizedBlobOverwrite", "BlobImmutableDueToPolicy"})
_LOST = frozenset({"InvalidBlockList", "InvalidBlobOrBlock"})
_GUARDED = frozenset(
    {"BlobImmutableDueToPolicy", "LeaseIdMissing", "LeaseIdMismatchWithBlobOperation", "SnapshotsPresent"}
)
_BUSY_STATUS = frozenset({408, 429, 500, 502, 503, 504, 509})
_CODE = re.compile(r"[A-Za-z0-9]{1,80}\Z")
_IDENTITY_CODE = re.compile(r"AADSTS\d{4,9}")


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
    except AzureError as error:
        raise translate(error, location, doing, writing=writing) from None


def code_of(error: AzureError) -> str:
    """The service's error code, or an empty text."""
    code = getattr(error, "error_code", None)
    code = getattr(code, "value", code)
    response = getattr(error, "response", None)
    if not code and response is not None:
        code = header_of(response.headers, "x-ms-error-code")
    return code if isinstance(code, str) and _CODE.match(code) else ""


def translate(error: AzureError, location: Location, doing: str, *, writing: bool = False) -> Exception:
    """The error of ours that says what an error of the SDK says. See :func:`mapped`."""
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if response is None or status is None:
        return _without_answer(error, location, doing)
    code = code_of(error)
    request_id = header_of(response.headers, "x-ms-request-id")
    what = f"Cannot {doing} {location}: the store answered {status}{' ' + code if code else ''}"
    what += f" (request {request_id})." if request_id and request_id.isprintable() else "."
    if isinstance(error, ClientAuthenticationError) and not _of_the_store(response):
        return _identity(error, location, doing, status)
    if status in _BUSY_STATUS:
        return StoreUnavailable(what, retry_after=_retry_after(response.headers))
    if writing and (code in _EXISTS or code == "ConditionNotMet"):
        return ObjectExists(f"{location} is already there; it was not touched.")
    if code in _LOST:
        return UploadSessionLost(f"The store no longer has all parts of the upload of {location}.")
    return _by_status(status, code, what, location)


def _by_status(status: int, code: str, what: str, location: Location) -> StoreError | ObjectChanged:
    if code in _GUARDED:
        return StoreAccessDenied(what, advice="A policy or lease of the store protects the object.")
    if status in (401, 403):
        if status == 401 or code in BAD_CREDENTIAL:
            return StoreAccessDenied(
                what,
                advice="The credential is wrong, expired, or made for another account or container; "
                "also check this machine's clock.",
            )
        if code == "AuthorizationPermissionMismatch":
            return StoreAccessDenied(what, advice="The identity lacks this right.")
        return StoreAccessDenied(
            what,
            advice="The credential is not accepted here or not at this time (check its validity and this machine's "
            "clock), or the account's firewall does not let this machine in.",
        )
    if status == 404:
        if code == "BlobNotFound":
            return ObjectNotFound(f"{location} is not there.")
        return StoreMisconfigured(what, advice="Create the container, or change 'container'.")
    if status == 412:
        return ObjectChanged(f"{location} is not the object that was expected: its etag differs.")
    if status in (413, 507):
        return StoreFull(what)
    if 300 <= status < 400:
        return StoreMisconfigured(what, advice="Redirects are not followed; check 'account_url' and the proxy.")
    return StoreMisconfigured(what)


def _of_the_store(response: object) -> bool:
    """Whether an answer is the storage service's own, not that of the identity provider."""
    headers = getattr(response, "headers", {})
    return header_of(headers, "x-ms-version") is not None or header_of(headers, "x-ms-error-code") is not None


def _identity(error: AzureError, location: Location, doing: str, status: int) -> StoreError:
    found = _IDENTITY_CODE.search(str(error.message))
    what = f"Cannot {doing} {location}: the identity provider refused ({found[0] if found else status})."
    if status in _BUSY_STATUS:
        return StoreUnavailable(what)
    return StoreAccessDenied(what, advice="Check tenant_id, client_id and the secret, and whether it has expired.")


def _without_answer(error: AzureError, location: Location, doing: str) -> StoreError:
    chain = list(_chain(error))
    if any(isinstance(link, ssl.SSLCertVerificationError) for link in chain):
        return StoreMisconfigured(
            f"Cannot {doing} {location}: the certificate of the other side is not trusted.",
            advice="Set network.ca_bundle when a proxy of the hospital opens TLS connections.",
        )
    if isinstance(error, ClientAuthenticationError):
        found = next((match for link in chain if (match := _IDENTITY_CODE.search(str(link)))), None)
        return StoreAccessDenied(
            f"Cannot {doing} {location}: the credential cannot be used{f' ({found[0]})' if found else ''}.",
            advice="The key is malformed, no identity was found, or the identity provider refused it.",
        )
    words = next((link.strerror for link in chain if isinstance(link, OSError) and link.strerror), None)
    if words is None:
        words = next((_SAFE_WORDS[type(link).__name__] for link in chain if type(link).__name__ in _SAFE_WORDS), None)
    if isinstance(error, HttpResponseError):
        words = words or "the answer broke off"
    return StoreUnavailable(
        f"Cannot {doing} {location}: the store cannot be reached or did not answer ({words or type(error).__name__})."
    )


#: What kinds of failure are called that carry no words of the system.
_SAFE_WORDS = {
    "NameResolutionError": "its host name cannot be resolved",
    "ConnectTimeoutError": "no connection in time",
    "ReadTimeoutError": "no answer in time",
    "ServiceRequestTimeoutError": "no connection in time",
    "ServiceResponseTimeoutError": "no answer in time",
    "ProxyError": "the proxy refused or cannot be reached",
    "IncompleteRead": "the answer broke off",
    "RemoteDisconnected": "the connection was closed without an answer",
    "ProtocolError": "the connection broke",
    "SSLError": "TLS failed",
}


def _chain(error: BaseException) -> Iterator[BaseException]:
    """All errors behind an error, innermost first: causes, contexts, and those that libraries keep in `args`."""
    seen: list[BaseException] = []
    pending: list[BaseException] = [error]
    while pending:
        link = pending.pop()
        if any(link is other for other in seen):
            continue
        seen.append(link)
        behind = [
            link.__cause__,
            link.__context__,
            getattr(link, "inner_exception", None),
            getattr(link, "reason", None),
        ]
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
