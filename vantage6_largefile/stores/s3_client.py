"""Making boto3's low-level client from a :class:`~vantage6_largefile.config.store.StoreConfig`."""

from __future__ import annotations

from functools import cache
from typing import IO, TYPE_CHECKING, cast

try:
    import botocore.session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError
    from botocore.loaders import Loader, create_loader
except ImportError as error:
    raise ImportError("boto3; install vantage6-largefile[s3]") from error

from vantage6_largefile.config.store import AccessKeyCredential, DefaultCredential, NetworkConfig, StoreConfig
from vantage6_largefile.errors import ConfigurationError
from vantage6_largefile.stores.http import SEND_BLOCK, bypasses_proxy

if TYPE_CHECKING:
    from botocore.client import BaseClient

#: Seconds without a single byte moving after which a request has failed.
CONNECT_TIMEOUT = 20
READ_TIMEOUT = 60


def s3_client(config: StoreConfig) -> BaseClient:
    """A client of the configured server: no retries, no redirects, as many connections as transfers need.

    Nothing is asked of the server. With a credential of type ``default``, boto3 may look for an identity at the
    machine's own metadata service.

    Raises
    ------
    ConfigurationError
        When there is no credential that S3 knows, or the SDK cannot be set up as configured.
    """
    if not config.root.segments:
        raise ConfigurationError([f"bucket: {config.root} names no bucket"])
    endpoint_url, region = config.options.get("endpoint_url"), config.options.get("region")
    if region is None:
        raise ConfigurationError(["region: found nothing, expected a region such as eu-west-1"])
    try:
        session = _session(config)
        client = session.create_client(
            "s3",
            region_name=region,
            endpoint_url=endpoint_url,
            use_ssl=True,
            verify=config.network.ca_bundle,
            config=_client_config(config, custom=endpoint_url is not None),
        )
    except (BotoCoreError, ValueError) as error:
        # Of the SDK's own words, a profile's name or a file's content could be part.
        raise ConfigurationError([f"the s3 client cannot be set up as configured: {type(error).__name__}"]) from None
    # The SDK looks for a bucket in other regions by itself. It shall talk to the configured one only.
    client.meta.events.register("before-call.s3", _no_redirect)
    return client


@cache
def _loader() -> Loader:
    """What reads the SDK's descriptions of S3: megabytes, parsed once for all stores of the process."""
    return create_loader()


def _session(config: StoreConfig) -> botocore.session.Session:
    session = botocore.session.Session()
    session.register_component("data_loader", _loader())
    match config.credential:
        case AccessKeyCredential() as key:
            token = key.session_token.get_secret_value() if key.session_token is not None else None
            session.set_credentials(key.access_key_id, key.secret_access_key.get_secret_value(), token)
        case DefaultCredential():
            # The services that hand out identities are asked over the same proxy, and with the same certificates.
            session.set_default_client_config(Config(proxies=_proxies(config.network, "https://sts.amazonaws.com")))
            if config.network.ca_bundle is not None:
                session.set_config_variable("ca_bundle", config.network.ca_bundle)
        case None:
            raise ConfigurationError(["credential: found nothing; the s3 driver needs one"])
        case other:
            raise ConfigurationError([f"credential.type: found {other.type}, which S3 does not know"])
    return session


def _client_config(config: StoreConfig, *, custom: bool) -> Config:
    host = config.options["endpoint_url"] if custom else f"https://s3.{config.options['region']}.amazonaws.com"
    return Config(
        signature_version="s3v4",
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=READ_TIMEOUT,
        # Several transfers run beside each other on one store.
        max_pool_connections=max(16, 4 * config.transfer.concurrency),
        retries={"total_max_attempts": 1, "mode": "standard"},
        proxies=_proxies(config.network, host),
        tcp_keepalive=True,
        # By default the SDK appends a CRC32 as a trailer to a chunked body, which a good many servers other than
        # Amazon's refuse or store as part of the object. Every part is protected all the same: its SHA-256 is
        # signed (payload_signing_enabled), and the server refuses a body of another digest.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        # Only what our own configuration says: not AWS_ENDPOINT_URL of the environment, not ~/.aws/config.
        ignore_configured_endpoint_urls=True,
        s3={
            # A server of one's own seldom has a name per bucket, nor a certificate for it.
            "addressing_style": "path" if custom else "auto",
            "payload_signing_enabled": True,
            "use_accelerate_endpoint": False,
        },
    )


def _proxies(network: NetworkConfig, url: str) -> dict[str, str] | None:
    """None leaves it to the environment, as everywhere else."""
    if network.https_proxy is None:
        return None
    if bypasses_proxy(url, network.no_proxy):
        return {}
    return {"http": network.https_proxy, "https": network.https_proxy}


def _no_redirect(context: dict[str, object], **_: object) -> None:
    """Let the SDK believe that it has followed a redirect for this request already; it follows one only."""
    known = context.get("s3_redirect")
    context["s3_redirect"] = {**(known if isinstance(known, dict) else {}), "redirected": True}


class _Body:
    """Bytes as the HTTP library wants them so that it sends them in blocks, and without a copy.

    Given `bytes`, it would allow one timeout for the whole part, which a slow line does not make. Asked for less, it
    gives a whole block all the same: 16 KiB at a time, as the library asks, costs more than the encryption.
    """

    def __init__(self, data: bytes | memoryview) -> None:
        self._view = memoryview(data)
        self._at = 0

    def __len__(self) -> int:
        return len(self._view)

    def read(self, size: int = -1) -> memoryview:
        end = len(self._view) if size < 0 else min(len(self._view), self._at + max(size, SEND_BLOCK))
        piece = self._view[self._at : end]
        self._at = end
        return piece

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, len(self._view))[whence]
        return self._at


def body(data: bytes | memoryview) -> IO[bytes]:
    """`data` as the body of a request; read only while the request lasts."""
    return cast("IO[bytes]", _Body(data))
