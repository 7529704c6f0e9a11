"""Making the Azure SDK's container client from a :class:`~vantage6_largefile.config.store.StoreConfig`."""

from __future__ import annotations

import logging

from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential, TokenCredential
from azure.core.pipeline.transport import RequestsTransport
from azure.identity import ClientSecretCredential as IdentityClientSecret
from azure.identity import DefaultAzureCredential
from azure.storage.blob import ContainerClient

from vantage6_largefile.config.store import (
    AccessKeyCredential,
    ClientSecretCredential,
    ConnectionStringCredential,
    Credential,
    DefaultCredential,
    NetworkConfig,
    SasCredential,
    StoreConfig,
)
from vantage6_largefile.errors import ConfigurationError
from vantage6_largefile.stores.http import SEND_BLOCK, http_session

#: Seconds without a single byte moving after which a request has failed.
CONNECT_TIMEOUT = 20
READ_TIMEOUT = 60

# The SDK describes every request in a dozen lines at INFO: one per part is too much for a node's log.
_http_log = logging.getLogger(f"{__name__}.requests")
_http_log.setLevel(logging.WARNING)

AzureCredential = AzureNamedKeyCredential | AzureSasCredential | TokenCredential


def container_client(config: StoreConfig) -> ContainerClient:
    """A client of the configured container: one URL, no retries, no redirects, as many connections as transfers need.

    The host is always that of ``account_url``; of a connection string only the key or SAS is used.

    Raises
    ------
    ConfigurationError
        When there is no credential that Azure knows.
    """
    account_url = config.options.get("account_url", "")
    if not account_url.startswith(("https://", "http://")):
        raise ConfigurationError(["account_url: found nothing, expected https://<account>.blob.core.windows.net"])
    if not config.root.segments:
        raise ConfigurationError([f"container: {config.root} names no container"])
    if config.credential is None:
        raise ConfigurationError(["credential: found nothing; the azure driver needs one"])
    credential = azure_credential(config.credential, config.root.authority, config.network)
    if account_url.startswith("http://") and isinstance(credential, TokenCredential):
        raise ConfigurationError([f"account_url: {account_url} is not https; tokens are sent over TLS only"])
    # Several transfers run beside each other on one store.
    session = http_session(config.network, connections=max(16, 4 * config.transfer.concurrency))
    return ContainerClient(
        account_url,
        config.root.segments[0],
        credential=credential,
        transport=RequestsTransport(
            session=session,
            connection_timeout=CONNECT_TIMEOUT,
            read_timeout=READ_TIMEOUT,
            connection_data_block_size=SEND_BLOCK,
        ),
        logger=_http_log,
        permit_redirects=False,
        retry_total=0,
    )


def azure_credential(credential: Credential, account: str, network: NetworkConfig) -> AzureCredential:
    """The SDK's credential for a configured one. Nothing is asked of anyone yet.

    Raises
    ------
    ConfigurationError
        When a connection string has neither a key nor a SAS.
    """
    match credential:
        case SasCredential():
            return AzureSasCredential(credential.sas.get_secret_value().removeprefix("?"))
        case ConnectionStringCredential():
            return _of_connection_string(credential.connection_string.get_secret_value(), account)
        case ClientSecretCredential():
            kwargs = {} if credential.authority is None else {"authority": credential.authority}
            return IdentityClientSecret(
                credential.tenant_id,
                credential.client_id,
                credential.client_secret.get_secret_value(),
                transport=_identity_transport(network),
                logger=_http_log,
                **kwargs,
            )
        case AccessKeyCredential():
            raise ConfigurationError(["credential.type: found access_key, which Azure does not know"])
        case DefaultCredential():
            return DefaultAzureCredential(transport=_identity_transport(network), logger=_http_log)


def _of_connection_string(text: str, account: str) -> AzureCredential:
    pairs = (item.partition("=") for item in text.split(";") if item.strip())
    settings = {name.strip().upper(): value.strip() for name, _, value in pairs}
    if key := settings.get("ACCOUNTKEY"):
        return AzureNamedKeyCredential(settings.get("ACCOUNTNAME", account), key)
    if sas := settings.get("SHAREDACCESSSIGNATURE"):
        return AzureSasCredential(sas.removeprefix("?"))
    raise ConfigurationError(["credential.connection_string: found neither AccountKey nor SharedAccessSignature"])


def _identity_transport(network: NetworkConfig) -> RequestsTransport:
    return RequestsTransport(
        session=http_session(network, connections=2), connection_timeout=CONNECT_TIMEOUT, read_timeout=READ_TIMEOUT
    )
