"""The ``network`` and ``transfer`` blocks."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from urllib.parse import urlsplit

from vantage6_largefile.config.blocks import NetworkBlock, TransferBlock
from vantage6_largefile.config.problems import Mistake, Problems, check, describe
from vantage6_largefile.config.secrets import resolve
from vantage6_largefile.config.store import NetworkConfig, TransferConfig

_NO_PROXY = re.compile(r"(?:\*|[A-Za-z0-9.:\[\]_*-]+(?:/[0-9]{1,3})?)\Z")


def load_transfer(raw: object, path: str, problems: Problems) -> TransferConfig:
    """The ``transfer`` block; defaults where it is absent or a mistake was noted."""
    block, _ = check(TransferBlock, {} if raw is None else raw, path, problems)
    if block is None:
        return TransferConfig()
    return TransferConfig(block.part_size, block.concurrency, block.max_bandwidth, block.retry_for)


def load_network(raw: object, path: str, problems: Problems, environ: Mapping[str, str]) -> NetworkConfig:
    """The ``network`` block; defaults where it is absent or a mistake was noted."""
    block, _ = check(NetworkBlock, {} if raw is None else raw, path, problems)
    if block is None:
        return NetworkConfig()
    proxy = bundle = None
    hosts: tuple[str, ...] = ()
    if block.https_proxy is not None:
        try:
            proxy = _proxy(resolve(block.https_proxy, path=f"{path}.https_proxy", environ=environ))
        except Mistake as mistake:
            problems.add(f"{path}.https_proxy", str(mistake))
    if block.no_proxy is not None:
        try:
            hosts = _no_proxy(block.no_proxy)
        except Mistake as mistake:
            problems.add(f"{path}.no_proxy", str(mistake))
    if block.ca_bundle is not None:
        try:
            bundle = _ca_bundle(block.ca_bundle)
        except Mistake as mistake:
            problems.add(f"{path}.ca_bundle", str(mistake))
    return NetworkConfig(proxy, hosts, bundle)


def _proxy(url: str) -> str:
    expected = "the URL of an HTTP proxy such as http://proxy.hospital.nl:3128"
    # Never quoted: it may carry a password.
    found = "found text that is no such URL"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise Mistake(f"{found}, expected {expected}") from None
    if parts.scheme not in ("http", "https") or not host or " " in url or not url.isascii():
        raise Mistake(f"{found}, expected {expected}")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise Mistake(f"found a URL with a path or query, expected {expected}")
    return url.removesuffix("/")


def _no_proxy(value: object) -> tuple[str, ...]:
    items = [item.strip() for item in value.split(",")] if isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        raise Mistake(
            f"found {describe(value)}, expected a list of host names, suffixes such as .hospital.nl, addresses"
        )
    for item in items:
        if not isinstance(item, str) or not _NO_PROXY.match(item):
            raise Mistake(f"found {describe(item)}, expected host names, suffixes such as .hospital.nl, or addresses")
    return tuple(items)


def _ca_bundle(path: str) -> str:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except ssl.SSLError:
        raise Mistake(f"found {path!r}, which holds no certificate, expected a file with certificates (PEM)") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        raise Mistake(
            f"found {path!r}, which cannot be read ({reason}), expected a file with certificates (PEM); for a node in "
            "a container the path is the one inside the container"
        ) from None
    return path
