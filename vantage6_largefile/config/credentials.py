"""The ``credential`` block: exactly one type, secrets resolved, endpoints hidden inside it brought to light."""

from __future__ import annotations

import base64
import binascii
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from urllib.parse import parse_qsl

from pydantic import SecretStr

from vantage6_largefile.config.endpoints import Endpoint, parse_authority, parse_endpoint
from vantage6_largefile.config.problems import Mistake, Problems, describe, suggestion
from vantage6_largefile.config.secrets import EXPECTED, resolve
from vantage6_largefile.config.store import (
    AccessKeyCredential,
    ClientSecretCredential,
    ConnectionStringCredential,
    Credential,
    DefaultCredential,
    SasCredential,
)

log = logging.getLogger(__name__)

#: The types of this version, with the keys that each needs and may have.
TYPES: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "client_secret": (("tenant_id", "client_id", "client_secret"), ("authority",)),
    "connection_string": (("connection_string",), ()),
    "default": ((), ()),
    "sas": (("sas",), ()),
    "access_key": (("access_key_id", "secret_access_key"), ("session_token",)),
}
#: Types that the design names and a later version brings.
LATER = ("certificate", "managed_identity", "key_vault")

#: The types that mean something to the drivers of this package; drivers of others take what they like.
TYPES_OF_DRIVER: Mapping[str, tuple[str, ...]] = {
    "azure": ("client_secret", "connection_string", "default", "sas"),
    "s3": ("access_key", "default"),
}

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")
_ALL_KEYS = frozenset(key for needed, allowed in TYPES.values() for key in (*needed, *allowed))


@dataclass(frozen=True, slots=True)
class ParsedCredential:
    """A credential and what it says about where it may be used.

    Attributes
    ----------
    credential : Credential
    endpoint : Endpoint or None
        The endpoint that a connection string or SAS URL names.
    container : str or None
        The container that a SAS URL names.
    account_bound : bool
        It was signed by, or for, one storage account and is worthless at others.
    container_bound : bool
        A service SAS of one container.
    """

    credential: Credential = field(repr=False)
    endpoint: Endpoint | None = None
    container: str | None = None
    account_bound: bool = False
    container_bound: bool = False


def parse_credential(
    value: object, *, path: str, problems: Problems, environ: Mapping[str, str], allow_custom: bool
) -> ParsedCredential | None:
    """Check a ``credential`` block and resolve its secrets.

    Returns
    -------
    ParsedCredential or None
        None after a mistake, which is noted in `problems`.
    """
    if not isinstance(value, Mapping):
        problems.expected(path, value, f"a mapping with a type ({', '.join(TYPES)})", hidden=True)
        return None
    kind = value.get("type")
    if not isinstance(kind, str) or kind not in TYPES:
        problems.add(f"{path}.type", _wrong_type(kind))
        for key in value:
            if not isinstance(key, str) or key not in (*_ALL_KEYS, "type"):
                problems.unknown_key(path, key, (*_ALL_KEYS, "type"))
        return None
    texts = _texts(value, kind, path, problems, environ)
    if texts is None:
        return None
    try:
        if kind == "connection_string":
            return _connection_string(texts["connection_string"], allow_custom=allow_custom)
        if kind == "sas":
            return _sas(texts["sas"], path=path, allow_custom=allow_custom)
    except Mistake as mistake:
        problems.add(f"{path}.{kind}", str(mistake))
        return None
    if kind == "default":
        return ParsedCredential(DefaultCredential())
    if kind == "access_key":
        return _access_key(texts, path=path, problems=problems)
    return _client_secret(texts, path=path, problems=problems, allow_custom=allow_custom)


def _texts(
    value: Mapping[object, object], kind: str, path: str, problems: Problems, environ: Mapping[str, str]
) -> dict[str, str] | None:
    """The keys of one type of credential, resolved; None after a mistake."""
    needed, allowed = TYPES[kind]
    before = len(problems.lines)
    texts: dict[str, str] = {}
    for key in value:
        if key in _ALL_KEYS and key not in (*needed, *allowed):
            problems.add(f"{path}.{key}", f"unknown key for a credential of type {kind}; exactly one type is expected")
        elif key != "type" and key not in (*needed, *allowed):
            problems.unknown_key(path, key, ("type", *needed, *allowed))
    for key in (*needed, *allowed):
        if value.get(key) is None:
            if key in needed:
                problems.expected(f"{path}.{key}", None, EXPECTED)
            continue
        try:
            texts[key] = resolve(value[key], path=f"{path}.{key}", environ=environ)
        except Mistake as mistake:
            problems.add(f"{path}.{key}", str(mistake))
    return texts if len(problems.lines) == before else None


def _wrong_type(kind: object) -> str:
    if isinstance(kind, str) and kind in LATER:
        return (
            f"found '{kind}', which this version does not offer yet, expected one of {', '.join(TYPES)} "
            "(where the environment offers the identity, 'default' finds it)"
        )
    # Shown only when it can be a mistyped word: here, too, someone may have pasted the secret.
    plain = isinstance(kind, str) and re.fullmatch(r"[A-Za-z_ -]{1,24}", kind) is not None
    meant = f"; {suggestion(kind.replace('-', '_'), (*TYPES, *LATER))}" if isinstance(kind, str) and plain else ""
    return f"found {describe(kind, hidden=not plain)}, expected one of {', '.join(TYPES)}{meant}"


def _client_secret(
    texts: Mapping[str, str], *, path: str, problems: Problems, allow_custom: bool
) -> ParsedCredential | None:
    before = len(problems.lines)
    for key, expectation in (
        ("tenant_id", "the directory (tenant) id, a GUID or domain name"),
        ("client_id", "the application (client) id"),
    ):
        if not _NAME.match(texts[key]):
            problems.expected(f"{path}.{key}", texts[key], expectation, hidden=True)
    authority = None
    if "authority" in texts:
        try:
            authority = parse_authority(texts["authority"], allow_custom=allow_custom)
        except Mistake as mistake:
            problems.add(f"{path}.authority", str(mistake))
    if len(problems.lines) > before:
        return None
    return ParsedCredential(
        ClientSecretCredential(
            tenant_id=texts["tenant_id"],
            client_id=texts["client_id"],
            client_secret=SecretStr(texts["client_secret"]),
            authority=authority,
        )
    )


def check_type(credential: ParsedCredential | None, driver: str) -> None:
    """Whether a driver of this package can use this type of credential.

    Raises
    ------
    Mistake
        When it cannot.
    """
    known = TYPES_OF_DRIVER.get(driver)
    if credential is not None and known is not None and credential.credential.type not in known:
        raise Mistake(
            f"found a credential of type {credential.credential.type}, expected one for driver {driver}: "
            f"{', '.join(known)}"
        )


def _access_key(texts: Mapping[str, str], *, path: str, problems: Problems) -> ParsedCredential | None:
    # Both stand in headers as they are: white space in them would only fail later, as a wrong signature.
    before = len(problems.lines)
    for key in texts:
        if not texts[key].isascii() or " " in texts[key]:
            problems.expected(f"{path}.{key}", texts[key], "text without spaces, as it was issued", hidden=True)
    if len(problems.lines) > before:
        return None
    token = texts.get("session_token")
    return ParsedCredential(
        AccessKeyCredential(
            access_key_id=texts["access_key_id"],
            secret_access_key=SecretStr(texts["secret_access_key"]),
            session_token=None if token is None else SecretStr(token),
        )
    )


# --- shared access signatures --------------------------------------------------------------------------------------


def _sas(text: str, *, path: str, allow_custom: bool) -> ParsedCredential:
    endpoint = container = None
    token = text
    if re.match(r"(?i)[a-z]+://", text):
        address, mark, token = text.partition("?")
        if not mark:
            raise Mistake("found a URL without a query, expected a SAS token or SAS URL with sig= in it")
        endpoint, container = _sas_url(address, allow_custom=allow_custom)
    token = token.removeprefix("?")
    parameters = _sas_parameters(token)
    _warn_when_expired(parameters.get("se"), path)
    return ParsedCredential(
        SasCredential(sas=SecretStr(token)),
        endpoint,
        container,
        account_bound=True,
        # An account SAS has ss and srt; a service or user delegation SAS has sr: c container, b blob, d directory.
        container_bound="sr" in parameters,
    )


def _sas_url(address: str, *, allow_custom: bool) -> tuple[Endpoint, str | None]:
    """The endpoint and container of a SAS URL without its query."""
    base, _, last = address.removesuffix("/").rpartition("/")
    if base.endswith("/"):  # only scheme://host: an account SAS
        return parse_endpoint(address, allow_custom=allow_custom), None
    try:
        return parse_endpoint(base, allow_custom=allow_custom), last
    except Mistake as mistake:
        try:
            # A path style endpoint without a container behind it: http://127.0.0.1:10000/devstoreaccount1
            return parse_endpoint(address, allow_custom=allow_custom), None
        except Mistake:
            raise mistake from None


def _sas_parameters(token: str) -> dict[str, str]:
    if "?" in token or "#" in token or " " in token or not token.isascii():
        raise Mistake(f"found {describe(token, hidden=True)} with characters that no SAS has, expected a SAS token")
    parameters = dict(parse_qsl(token, keep_blank_values=True))
    if not parameters.get("sig"):
        raise Mistake(f"found {describe(token, hidden=True)} without sig=, expected a SAS token or SAS URL")
    return parameters


def _warn_when_expired(expiry: str | None, path: str) -> None:
    # A warning and no mistake: a node with an expired SAS can still collect results and keep them in its outbox.
    if not expiry or not re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", expiry):
        return
    try:
        end = datetime.fromisoformat(expiry.replace("Z", "+00:00"))
    except ValueError:
        return
    if end.replace(tzinfo=end.tzinfo or timezone.utc) < datetime.now(timezone.utc):
        log.warning("%s: this SAS expired at %s; the store will refuse it", path, expiry)


# --- connection strings --------------------------------------------------------------------------------------------

_EXPECTED_CONNECTION_STRING = "an Azure connection string (AccountName=…;AccountKey=… or BlobEndpoint=…;…)"


def _connection_string(text: str, *, allow_custom: bool) -> ParsedCredential:
    """Read a connection string the way azure-storage-blob does, refusing what two readers could read differently."""
    settings = _settings(text)
    endpoint = parse_endpoint(_blob_endpoint(settings), allow_custom=allow_custom)
    account = settings.get("ACCOUNTNAME")
    if account is not None and account != endpoint.account:
        raise Mistake(f"found an AccountName that does not fit its endpoint {endpoint.url}, expected the same account")
    container_bound = False
    if "ACCOUNTKEY" in settings:
        if account is None:
            raise Mistake("found AccountKey without AccountName, expected both")
        _check_account_key(settings["ACCOUNTKEY"])
    elif "SHAREDACCESSSIGNATURE" in settings:
        if settings["SHAREDACCESSSIGNATURE"].startswith("?"):
            raise Mistake("found a '?' before the SharedAccessSignature, expected none in a connection string")
        container_bound = "sr" in _sas_parameters(settings["SHAREDACCESSSIGNATURE"])
    else:
        raise Mistake("found neither AccountKey nor SharedAccessSignature, expected one of them")
    return ParsedCredential(
        ConnectionStringCredential(connection_string=SecretStr(text)),
        endpoint,
        account_bound=True,
        container_bound=container_bound,
    )


def _settings(text: str) -> dict[str, str]:
    settings: dict[str, str] = {}
    for piece in text.rstrip(";").split(";"):
        name, mark, item = piece.partition("=")
        if not mark or not name.strip().isalnum():
            raise Mistake(f"found text that is no list of NAME=VALUE, expected {_EXPECTED_CONNECTION_STRING}")
        if name != name.strip() or item != item.strip():
            raise Mistake(f"found white space around {_safe_name(name)}, expected none")
        if name.upper() in settings:
            raise Mistake(f"found {_safe_name(name)} twice, expected it once")
        settings[name.upper()] = item
    if "USEDEVELOPMENTSTORAGE" in settings:
        raise Mistake("found UseDevelopmentStorage, expected BlobEndpoint, AccountName and AccountKey written out")
    if "BLOBSECONDARYENDPOINT" in settings:
        raise Mistake("found BlobSecondaryEndpoint, expected one endpoint; secondary endpoints are not used here")
    return settings


def _safe_name(name: str) -> str:
    # What stands before a '=' is a name in a connection string, but part of a key in text that only looks like one.
    known = ("AccountName", "AccountKey", "BlobEndpoint", "EndpointSuffix", "DefaultEndpointsProtocol")
    return {item.lower(): item for item in (*known, "SharedAccessSignature")}.get(name.strip().lower(), "a name")


def _check_account_key(key: str) -> None:
    try:
        right = bool(base64.b64decode(key, validate=True))
    except (binascii.Error, ValueError):
        right = False
    if not right:
        raise Mistake("found an AccountKey that is not base64, expected the key as the portal shows it")


def _blob_endpoint(settings: Mapping[str, str]) -> str:
    if "BLOBENDPOINT" in settings:
        return settings["BLOBENDPOINT"]
    if "ACCOUNTNAME" not in settings:
        raise Mistake(f"found neither AccountName nor BlobEndpoint, expected {_EXPECTED_CONNECTION_STRING}")
    suffix = settings.get("ENDPOINTSUFFIX")
    # The SDK looks at the protocol only where a suffix is given too.
    protocol = settings.get("DEFAULTENDPOINTSPROTOCOL", "https") if suffix is not None else "https"
    return f"{protocol}://{settings['ACCOUNTNAME']}.blob.{suffix if suffix is not None else 'core.windows.net'}"
