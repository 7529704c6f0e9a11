"""HTTP sessions that follow the ``network`` block, for the drivers that speak HTTP.

What `network` leaves open is as `requests` has it: proxies and certificates from the environment.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.util.retry import Retry

from vantage6_largefile.config.store import NetworkConfig

#: Bytes that go to the socket at a time: each has the whole timeout, so a slow line is not taken for a dead one.
SEND_BLOCK = 256 * 1024
#: Addresses that never lie behind a proxy: the metadata service from which machines get their identity.
_LINK_LOCAL = ipaddress.ip_network("169.254.0.0/16")


def http_session(network: NetworkConfig, *, connections: int) -> requests.Session:
    """A session with `connections` kept open per host, without retries, redirects or ``.netrc``.

    Parameters
    ----------
    connections : int
        As many as there will be requests at the same time; more are allowed and closed after use.
    """
    session = _Session(network)
    adapter = _Adapter(pool_connections=4, pool_maxsize=connections, max_retries=Retry(0, redirect=False, read=False))
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


def bypasses_proxy(url: str, no_proxy: tuple[str, ...]) -> bool:
    """Whether a URL is to be asked for directly, by an entry of `no_proxy`.

    Parameters
    ----------
    no_proxy : tuple of str
        ``*``; host names and suffixes (``hospital.nl`` and ``.hospital.nl`` both mean the host and all below it),
        with a port or without; addresses and networks (``10.0.0.0/8``).
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        names = [host, f"{host}:{parts.port}"]
        suffixes = [entry.lower().lstrip(".") for entry in no_proxy]
        return any(entry in ("*", name) or name.endswith(f".{entry}") for entry in suffixes for name in names)
    return address in _LINK_LOCAL or any(_covers(entry, address) for entry in no_proxy)


def _covers(entry: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    try:
        return entry == "*" or address in ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        return False


class _KeepHeaders(AuthBase):
    """Keeps `requests` from putting a password of ``~/.netrc`` in the place of the SDK's own authorization."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


class _Session(requests.Session):
    def __init__(self, network: NetworkConfig) -> None:
        super().__init__()
        self.auth = _KeepHeaders()
        self._network = network

    def resolve_redirects(self, *_: Any, **__: Any) -> Iterator[requests.Response]:
        # None at all, whatever the caller asks for: the answer itself goes back.
        return iter(())

    def merge_environment_settings(self, url, proxies, stream, verify, cert):  # type: ignore[no-untyped-def]
        settings = super().merge_environment_settings(url, proxies or {}, stream, verify, cert)
        if self._network.https_proxy is not None:
            proxy = self._network.https_proxy
            direct = bypasses_proxy(url, self._network.no_proxy)
            settings["proxies"] = {} if direct else {"http": proxy, "https": proxy}
        if self._network.ca_bundle is not None:
            settings["verify"] = self._network.ca_bundle
        return settings


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **kwargs: Any) -> None:
        super().init_poolmanager(connections, maxsize, block, blocksize=SEND_BLOCK, **kwargs)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        return super().proxy_manager_for(proxy, blocksize=SEND_BLOCK, **kwargs)

    def build_response(self, req: requests.PreparedRequest, resp: Any) -> requests.Response:
        # A range is of the stored bytes. Should someone have set a Content-Encoding on an object, it is not undone.
        if resp.status in (200, 206) and "x-ms-range" in req.headers:
            resp.headers.pop("Content-Encoding", None)
        response: requests.Response = super().build_response(req, resp)
        return response


def header_of(headers: Mapping[str, str], name: str) -> str | None:
    """A header whatever its case, None when it is not there."""
    return next((value for key, value in headers.items() if key.lower() == name.lower()), None)
