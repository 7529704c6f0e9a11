"""What a driver is opened with: one store, resolved from local configuration and checked.

These are the results of the loaders in this package. Nothing here is ever built from a reference; a driver may
take every value as checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from vantage6_largefile.location import Location

MIB = 1 << 20


class _CredentialModel(BaseModel):
    # hide_input_in_errors: pydantic prints the offending value in its errors, which would print the secret.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class ConnectionStringCredential(_CredentialModel):
    """An Azure connection string, with an account key or a SAS in it. Its endpoint agrees with ``account_url``."""

    type: Literal["connection_string"] = "connection_string"
    connection_string: SecretStr


class SasCredential(_CredentialModel):
    """A shared access signature: the query string alone, without ``?``."""

    type: Literal["sas"] = "sas"
    sas: SecretStr


class ClientSecretCredential(_CredentialModel):
    """A service principal of Microsoft Entra ID with a client secret.

    Attributes
    ----------
    authority : str or None
        Host name of the login endpoint where it is not the public cloud's, e.g. ``login.microsoftonline.us``.
    """

    type: Literal["client_secret"] = "client_secret"
    tenant_id: str
    client_id: str
    client_secret: SecretStr
    authority: str | None = None


class AccessKeyCredential(_CredentialModel):
    """An access key of an S3 server; with a session token when it is a temporary one."""

    type: Literal["access_key"] = "access_key"
    access_key_id: str
    secret_access_key: SecretStr
    session_token: SecretStr | None = None


class DefaultCredential(_CredentialModel):
    """Whatever identity the environment offers: the default chain of azure-identity, or that of boto3 for ``s3``."""

    type: Literal["default"] = "default"


#: Exactly one of the credential types, told apart by ``type``.
Credential: TypeAlias = Annotated[
    ConnectionStringCredential | SasCredential | ClientSecretCredential | AccessKeyCredential | DefaultCredential,
    Field(discriminator="type"),
]


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """How every connection of this side is made: storage, identity, vantage6 server and websocket alike.

    Attributes
    ----------
    https_proxy : str or None
        URL of the proxy. May carry a password, so it is not shown in `repr`.
    no_proxy : tuple of str
        Host names and suffixes that are reached directly.
    ca_bundle : str or None
        File with the certificates to trust instead of the system's; was readable when it was loaded.
    """

    https_proxy: str | None = field(default=None, repr=False)
    no_proxy: tuple[str, ...] = ()
    ca_bundle: str | None = None


@dataclass(frozen=True, slots=True)
class TransferConfig:
    """How objects are moved.

    Attributes
    ----------
    part_size : int
        Bytes of one part.
    concurrency : int
        Parts in flight at the same time, per object.
    max_bandwidth : int or None
        Bytes per second over all transfers of this process; None is unlimited.
    retry_for : float
        Seconds that a store or server may be away before a transfer is given up.
    """

    part_size: int = 8 * MIB
    concurrency: int = 4
    max_bandwidth: int | None = None
    retry_for: float = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """One store, ready to be opened by the driver that it names.

    Attributes
    ----------
    driver : str
        Name of the driver; equals ``root.driver``.
    root : Location
        Store and prefix: ``azure://account/container/prefix…``, ``s3://server/bucket/prefix…``,
        ``file://hospital-a/prefix…``.
    options : mapping of str to str
        The driver's own. azure: ``account_url`` (https, or http on loopback; no query, no final slash).
        s3: ``region``, and ``endpoint_url`` (https, or http on loopback; no final slash), without which it is AWS.
        file: ``path`` (absolute folder that ``file://<root name>`` stands for). Not shown in `repr`, because
        a third-party driver may keep something secret in it.
    credential : Credential or None
        None only for drivers that need none, such as ``file``.
    network : NetworkConfig
    transfer : TransferConfig
    """

    driver: str
    root: Location
    options: Mapping[str, str] = field(repr=False, hash=False)
    credential: Credential | None
    network: NetworkConfig = field(default_factory=NetworkConfig)
    transfer: TransferConfig = field(default_factory=TransferConfig)
