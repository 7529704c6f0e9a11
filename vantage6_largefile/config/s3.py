"""S3 servers: which URLs and names stand for one, and what an entry about another bucket may take over."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from vantage6_largefile.config.problems import Mistake, describe
from vantage6_largefile.config.values import PLACEHOLDER, SAMPLE_IDS, LocationPattern
from vantage6_largefile.location import is_segment

#: The name in locations that stands for Amazon's own service, in whatever region.
AWS = "aws"
#: What servers of others call their only region when nobody has told them another.
CUSTOMARY_REGION = "us-east-1"
EXPECTED_URL = "the URL of an S3 server such as https://s3.hospital.nl"
EXPECTED_REGION = "a region such as eu-west-1"

_BUCKET = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?\Z")
_ADDRESS = re.compile(r"[0-9]+(?:\.[0-9]+){3}\Z")
_REGION = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\Z")
_HOST = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*\Z")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_OF_AWS = (".amazonaws.com", ".amazonaws.com.cn")


def parse_endpoint_url(url: str) -> str:
    """Check the URL of an S3 server; normalised: lower-case host, no default port, no final slash.

    Raises
    ------
    Mistake
        Saying what is wrong. User info and query are never quoted.
    """
    if len(url) > 500 or not url.isascii() or not url.isprintable() or any(mark in url for mark in " \\\"'<>{}"):
        raise Mistake(f"found a URL with characters that no endpoint has, expected {EXPECTED_URL}")
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        raise Mistake(f"found something that is not a URL, expected {EXPECTED_URL}") from None
    if parts.scheme not in ("http", "https") or not host:
        raise Mistake(f"found something that is not an https URL, expected {EXPECTED_URL}")
    if "@" in parts.netloc:
        raise Mistake(f"found a URL with a user name or password in it, expected {EXPECTED_URL}")
    if "?" in url or "#" in url:
        raise Mistake(f"found a URL with a query in it, expected {EXPECTED_URL}")
    loopback = host in _LOOPBACK
    if not loopback and not _HOST.match(host):
        raise Mistake(f"found a host name that is none, expected {EXPECTED_URL}")
    if parts.scheme != "https" and not loopback:
        raise Mistake(f"found http://{host}, expected https (plain http only to 127.0.0.1, localhost or ::1)")
    if parts.path not in ("", "/"):
        raise Mistake(
            f"found the path {parts.path[:80]!r} in the URL, expected {EXPECTED_URL}; 'bucket' has its own key"
        )
    netloc = f"[{host}]" if ":" in host else host
    if port is not None and port != {"https": 443, "http": 80}[parts.scheme]:
        netloc = f"{netloc}:{port}"
    return f"{parts.scheme}://{netloc}"


def check_bucket(name: str) -> str:
    """Check the name of a bucket by the rule of S3; returned as it is.

    Raises
    ------
    Mistake
        When S3 would not take it.
    """
    if not 3 <= len(name) <= 63 or not _BUCKET.match(name) or ".." in name or _ADDRESS.match(name):
        raise Mistake(
            f"found the bucket {describe(name)}, expected 3 to 63 of a-z, 0-9, '-' and '.', which begin and end with a "
            "letter or digit"
        )
    return name


def check_region(name: str) -> str:
    """Check the form of a region's name, returned as it is; servers of others have regions of their own.

    Raises
    ------
    Mistake
    """
    if not _REGION.match(name) or name.isdecimal():
        raise Mistake(f"found {describe(name)}, expected {EXPECTED_REGION}")
    return name


def check_name(name: str, endpoint_url: str | None) -> None:
    """Check the name of a server in locations; ``aws`` is Amazon's own.

    Raises
    ------
    Mistake
    """
    if not is_segment(name):
        raise Mistake(f"found {describe(name)}, expected a name of letters, digits, '.', '_' and '-'")
    if name == AWS and endpoint_url is not None and not (urlsplit(endpoint_url).hostname or "").endswith(_OF_AWS):
        raise Mistake(f"found {AWS!r}, which stands for Amazon's own service, expected another name for {endpoint_url}")


def server_options(name: str, endpoint_url: str | None, region: str | None) -> dict[str, str]:
    """The driver's options for one server. `endpoint_url` and `region` as they were checked.

    Raises
    ------
    Mistake
        The text is ``.key: what is missing``.
    """
    if endpoint_url is None:
        if name != AWS:
            raise Mistake(
                f".endpoint_url: found nothing, expected the URL of the server that is called {name} (without one, "
                f"it is Amazon's and called {AWS})"
            )
        if region is None:
            raise Mistake(f".region: found nothing, expected {EXPECTED_REGION}: where the bucket is")
        return {"region": region}
    return {"endpoint_url": endpoint_url, "region": region or CUSTOMARY_REGION}


def check_s3_location(pattern: LocationPattern) -> str:
    """An s3 location names a server and a bucket that S3 would take, whatever the organisation.

    Returns
    -------
    str
        The server's name.

    Raises
    ------
    Mistake
        When it does not.
    """
    name = pattern.text.removeprefix("s3://").partition("/")[0]
    if PLACEHOLDER in name:
        raise Mistake(f"found {PLACEHOLDER} in the name of the server, expected it in the bucket or behind it")
    for sample in SAMPLE_IDS:
        segments = pattern.for_organization(sample).segments
        if not segments:
            raise Mistake(f"found {str(pattern)!r}, expected a bucket behind the server's name")
        check_bucket(segments[0])
    return name


def options_elsewhere(
    location: LocationPattern,
    *,
    endpoint_url: str | None,
    region: str | None,
    own_name: str | None,
    own_options: Mapping[str, str],
) -> dict[str, str]:
    """The driver's options for an entry of ``readable`` or ``shared``.

    Parameters
    ----------
    own_name : str or None
        The name of the own store's server; None when the own store is of another driver. An entry of the same
        name takes over what it does not say itself.

    Raises
    ------
    Mistake
        The text is ``.key: what is wrong``.
    """
    try:
        name = check_s3_location(location)
    except Mistake as mistake:
        raise Mistake(f".location: {mistake}") from None
    if endpoint_url is not None:
        try:
            endpoint_url = parse_endpoint_url(endpoint_url)
            check_name(name, endpoint_url)
        except Mistake as mistake:
            raise Mistake(f".endpoint_url: {mistake}") from None
    if region is not None:
        try:
            check_region(region)
        except Mistake as mistake:
            raise Mistake(f".region: {mistake}") from None
    if name == own_name:
        endpoint_url = endpoint_url or own_options.get("endpoint_url")
        region = region or own_options.get("region")
    return server_options(name, endpoint_url, region)
