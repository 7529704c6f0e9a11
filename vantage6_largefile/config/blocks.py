"""The shape of the ``large_result_store`` block: every key that may stand in it, with its default.

The models say what is expected of each key (``description``) and which keys may hold a secret (``repr=False``);
:func:`vantage6_largefile.config.problems.check` makes messages of it. What keys mean together is checked by the
loader in ``node.py``.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr

from vantage6_largefile.config.store import MIB
from vantage6_largefile.config.values import Bytes, BytesPerSecond, Prefix, Seconds

DEFAULT_THRESHOLD = 1 * MIB
DEFAULT_INLINE_LIMIT = 32 * MIB

SIZE = "a size such as 1MiB, 500MB or 1048576"
_ENDPOINT = "an endpoint such as https://ACCOUNT.blob.core.windows.net"
_ENDPOINT_URL = "the URL of an S3 server such as https://s3.hospital.nl"
_REGION = "a region such as eu-west-1"


class Block(BaseModel):
    """Base of all blocks."""

    # Each field's description is what the message says was expected; repr=False marks what may hold a secret.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class StoreBlock(Block):
    """The block itself. Nested blocks are checked one by one, so that a mistake in one does not hide another."""

    driver: StrictStr | None = Field(None, description="the name of a driver")
    account_url: StrictStr | None = Field(None, description=_ENDPOINT)
    container: StrictStr | None = Field(None, description="the name of a container")
    endpoint: StrictStr | None = Field(None, description="the name of the S3 server in locations")
    endpoint_url: StrictStr | None = Field(None, description=_ENDPOINT_URL)
    region: StrictStr | None = Field(None, description=_REGION)
    bucket: StrictStr | None = Field(None, description="the name of a bucket")
    prefix: Prefix | None = Field(None, description="a prefix such as 'ziekenhuis-a/': letters, digits, '.', '_', '-'")
    root: StrictStr | None = Field(None, description="the name of this store in locations")
    path: StrictStr | None = Field(None, description="an absolute path")
    location: StrictStr | None = Field(None, description="a location such as NAME://authority/segment")
    options: object = Field(None, repr=False)
    allow_custom_endpoint: StrictBool = Field(False, description="true or false")
    threshold: Bytes = Field(DEFAULT_THRESHOLD, description=f"{SIZE}; 0 stores every result")
    inline_limit: Bytes = Field(DEFAULT_INLINE_LIMIT, le=256 * MIB, description="a size up to 256MiB")
    max_result_size: Bytes | None = Field(None, ge=1, description=f"{SIZE}, or null for no limit")
    credential: object = Field(None, repr=False)
    readable: object = Field(None, repr=False)
    shared: object = Field(None, repr=False)
    recipient_keys: object = Field(None, repr=False)
    transfer: object = Field(None)
    network: object = Field(None, repr=False)


class TransferBlock(Block):
    """``transfer``."""

    part_size: Bytes = Field(8 * MIB, ge=64 * 1024, le=4000 * MIB, description="a size from 64KiB to 4000MiB")
    concurrency: StrictInt = Field(4, ge=1, le=64, description="a whole number from 1 to 64")
    max_bandwidth: BytesPerSecond | None = Field(
        None, ge=16 * 1024, description="bytes per second from 16KiB, such as 20MiB, or null for no limit"
    )
    retry_for: Seconds = Field(24 * 3600.0, le=365 * 86400, description="a time up to 365d, such as 24h, 30m or 90s")


class NetworkBlock(Block):
    """``network``."""

    https_proxy: object = Field(None, repr=False)
    no_proxy: object = Field(None)
    ca_bundle: StrictStr | None = Field(None, description="the path of a file with certificates (PEM)")


class ElsewhereBlock(Block):
    """What ``readable`` and ``shared`` entries have in common: a store of someone else."""

    location: object = Field(None)
    credential: object = Field(None, repr=False)
    account_url: StrictStr | None = Field(None, description=_ENDPOINT)
    endpoint_url: StrictStr | None = Field(None, description=_ENDPOINT_URL)
    region: StrictStr | None = Field(None, description=_REGION)
    path: StrictStr | None = Field(None, description="an absolute path")
    options: object = Field(None, repr=False)


class ReadableBlock(ElsewhereBlock):
    """One entry of ``readable``."""

    organization: object = Field(None)


class SharedBlock(ElsewhereBlock):
    """One entry of ``shared``."""

    name: StrictStr | None = Field(None, description="a name of letters, digits, '.', '_' and '-'")
    manifest: StrictStr | None = Field(None, description="the path of the list of checksums, below the location")


#: Keys that belong to one kind of driver. ``""`` stands for drivers of others.
DRIVER_KEYS: Mapping[str, tuple[str, ...]] = {
    "azure": ("account_url", "container", "prefix", "credential"),
    "s3": ("endpoint", "endpoint_url", "region", "bucket", "prefix", "credential"),
    "file": ("root", "path", "prefix"),
    "": ("location", "options", "credential"),
}
