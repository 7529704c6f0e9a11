"""Azure endpoints: which URLs a credential may be sent to, and which account name they stand for."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import SplitResult, urlsplit

from vantage6_largefile.config.problems import Mistake, describe
from vantage6_largefile.location import is_segment

#: Blob endpoints of the public, Chinese and US-government clouds.
KNOWN_SUFFIXES = ("blob.core.windows.net", "blob.core.chinacloudapi.cn", "blob.core.usgovcloudapi.net")
KNOWN_AUTHORITIES = (
    "login.microsoftonline.com",
    "login.microsoftonline.us",
    "login.chinacloudapi.cn",
    "login.partner.microsoftonline.cn",
)
_ZONE_SUFFIX = re.compile(r"z[0-9]{1,2}\.blob\.storage\.azure\.net\Z", re.ASCII)
_ACCOUNT = re.compile(r"[a-z0-9]{3,24}\Z")
_CONTAINER = re.compile(r"[a-z0-9](?:-?[a-z0-9])*\Z")
_HOST = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*\Z")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")

EXPECTED = "an endpoint such as https://ACCOUNT.blob.core.windows.net"

Kind = Literal["known", "zone", "loopback", "custom"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A checked blob endpoint.

    Attributes
    ----------
    url : str
        Normalised: lower-case host, no default port, no final slash.
    account : str
        The name that stands in locations.
    kind : str
        ``known`` (account in front of a known suffix), ``zone`` (the same in an Azure DNS zone), ``loopback``
        (``http://127.0.0.1:10000/ACCOUNT``) or ``custom``.
    """

    url: str
    account: str
    kind: Kind

    def for_account(self, account: str) -> str | None:
        """The URL of another account beside this one, or None where that cannot be known.

        An account in a DNS zone says nothing about the zone of another account, a custom endpoint nothing at all.
        """
        if account == self.account:
            return self.url
        if self.kind == "known":
            return f"https://{account}.{self.url.removeprefix('https://').partition('.')[2]}"
        if self.kind == "loopback":
            return f"{self.url.rpartition('/')[0]}/{account}"
        return None


def check_container(name: str) -> None:
    """Check the name of a container by Azure's own rule.

    Raises
    ------
    Mistake
        When Azure would not take it.
    """
    if not 3 <= len(name) <= 63 or not _CONTAINER.match(name):
        raise Mistake(
            f"found the container {describe(name)}, expected 3 to 63 of a-z, 0-9 and single dashes between them"
        )


def parse_endpoint(url: str, *, allow_custom: bool) -> Endpoint:
    """Check the URL of a blob endpoint.

    Parameters
    ----------
    url : str
        ``account_url``, or what stands in a connection string or SAS URL.
    allow_custom : bool
        Accept hosts without a known suffix (``allow_custom_endpoint: true``).

    Raises
    ------
    Mistake
        Saying what is wrong. User info and query are never quoted.
    """
    parts, host, port = _split(url)
    loopback = host in _LOOPBACK
    if not loopback and not _HOST.match(host):
        raise Mistake(f"found a host name that is none, expected {EXPECTED}")
    if parts.scheme != "https" and not loopback:
        raise Mistake(f"found http://{host}, expected https (plain http only to 127.0.0.1, localhost or ::1)")
    segments = [segment for segment in parts.path.split("/") if segment]
    if len(segments) > 1 or not all(is_segment(segment) for segment in segments):
        raise Mistake(
            f"found the path {parts.path[:80]!r} in the URL, expected {EXPECTED}; the container has its own key"
        )
    known_account = _known_account(host)
    if known_account is not None:
        return _known(host, port, segments, *known_account)
    netloc = f"[{host}]" if ":" in host else host
    if port is not None and port != {"https": 443, "http": 80}[parts.scheme]:
        netloc = f"{netloc}:{port}"
    base = f"{parts.scheme}://{netloc}"
    if loopback:
        if not segments:
            raise Mistake(f"found {base} without an account, expected {base}/ACCOUNT (such as /devstoreaccount1)")
        return Endpoint(f"{base}/{segments[0]}", segments[0], "loopback")
    if not allow_custom:
        raise Mistake(
            f"found the host {host}, expected ACCOUNT in front of one of {', '.join(KNOWN_SUFFIXES)} or "
            "zNN.blob.storage.azure.net; set allow_custom_endpoint: true if credentials are meant to be sent there"
        )
    if segments:
        return Endpoint(f"{base}/{segments[0]}", segments[0], "custom")
    if _is_address(host):
        raise Mistake(f"found {base} without an account, expected {base}/ACCOUNT")
    return Endpoint(base, host.partition(".")[0], "custom")


def _split(url: str) -> tuple[SplitResult, str, int | None]:
    """URL, host and port, when there is nothing in it that an endpoint does not have."""
    if len(url) > 500 or not url.isascii() or not url.isprintable() or any(mark in url for mark in " \\\"'<>"):
        raise Mistake(f"found a URL with characters that no endpoint has, expected {EXPECTED}")
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        raise Mistake(f"found something that is not a URL, expected {EXPECTED}") from None
    if parts.scheme not in ("http", "https") or not host:
        raise Mistake(f"found something that is not an https URL, expected {EXPECTED}")
    if "@" in parts.netloc:
        raise Mistake(f"found a URL with a user name or password in it, expected {EXPECTED}")
    if "?" in url or "#" in url:
        raise Mistake(
            f"found a URL with a query in it, expected {EXPECTED}; a SAS belongs in credential: {{type: sas, sas: …}}"
        )
    return parts, host, port


def _known_account(host: str) -> tuple[str, Kind] | None:
    account, _, suffix = host.partition(".")
    if suffix in KNOWN_SUFFIXES:
        return account, "known"
    if _ZONE_SUFFIX.match(suffix):
        return account, "zone"
    return None


def _known(host: str, port: int | None, segments: list[str], account: str, kind: Kind) -> Endpoint:
    if not _ACCOUNT.match(account):
        raise Mistake(f"found the account {account!r}, expected 3 to 24 lower-case letters and digits")
    if port not in (None, 443):
        raise Mistake(f"found port {port} at {host}, expected none")
    if segments:
        raise Mistake(f"found a path behind {host}, expected https://{host}; the container has its own key")
    return Endpoint(f"https://{host}", account, kind)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def parse_authority(value: str, *, allow_custom: bool) -> str:
    """The host name of a login endpoint, from ``login.microsoftonline.us`` or the same as an https URL.

    The client secret itself is sent there, so unknown hosts need ``allow_custom_endpoint`` too.

    Raises
    ------
    Mistake
        Saying what is wrong.
    """
    host = value.removeprefix("https://").removesuffix("/").lower()
    name, _, port = host.partition(":")
    if not (_HOST.match(name) and (not port or re.fullmatch(r"[0-9]{1,5}", port, re.ASCII)) and host.count(":") <= 1):
        raise Mistake(f"found no host name, expected one of {', '.join(KNOWN_AUTHORITIES)}")
    if host not in KNOWN_AUTHORITIES and name not in _LOOPBACK and not allow_custom:
        raise Mistake(
            f"found {host}, expected one of {', '.join(KNOWN_AUTHORITIES)}; set allow_custom_endpoint: true if the "
            "client secret is meant to be sent there"
        )
    return host
