"""What the replaced parts of one node share: configuration, store, server, outbox, proxy."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from node_ext.containers import ContainerSessions
from node_ext.delivery import Delivery, InlineCryptor, Party
from node_ext.job import Job
from node_ext.outbox import Outbox
from node_ext.proxy import ContainerProxy, InlineDecryptor
from node_ext.server_api import ServerApi, TokenSource
from node_ext.task_inputs import TaskInputs
from vantage6_largefile import __version__
from vantage6_largefile.config import LargeResultStore, load_large_result_store
from vantage6_largefile.envelope import read_private_key
from vantage6_largefile.errors import ConfigurationError, StoreUnavailable
from vantage6_largefile.reading import Reader
from vantage6_largefile.stores import Store, open_store
from vantage6_largefile.transfer import CancelToken, TransferOptions

log = logging.getLogger(__name__)

#: The block of the node configuration that switches all of this on.
CONFIG_KEY = "large_result_store"


class Cryptor(InlineCryptor, InlineDecryptor, Protocol):
    """vantage6's cryptor, for inline values."""


@dataclass(frozen=True)
class Connection:
    """What is known once the node has authenticated."""

    client: TokenSource
    organization_id: int
    collaboration_id: int
    encrypted: bool
    cryptor: Cryptor
    private_key_file: Path | None


class Runtime:
    """Everything of an extended node that is not vantage6's.

    Parameters
    ----------
    block : mapping
        The ``large_result_store`` block.
    source : str
        Name of the configuration file, for messages.
    data_folder : Path
        The node's data volume.
    share_logs : bool
        vantage6's ``share_algorithm_logs``.

    Raises
    ------
    ConfigurationError
        With every mistake of the block.
    """

    def __init__(self, block: Mapping[str, object], *, source: str, data_folder: Path, share_logs: bool) -> None:
        self.config: LargeResultStore = load_large_result_store(block, source=source)
        self._data_folder = data_folder
        self._share_logs = share_logs
        self.store: Store = open_store(self.config.own)
        self.cancel = CancelToken()
        # One for the whole process: what shares it shares the bandwidth limit.
        self.options = TransferOptions.from_config(self.config.transfer)
        self.sessions = ContainerSessions(data_folder / "v6lf-spool")
        self.active = False
        self.outbox: Outbox
        self.proxy: ContainerProxy
        self.reader: Reader
        self.api: ServerApi
        self.server_id: str

    def check_store(self) -> None:
        """Show at start-up that the store can be used.

        An unreachable store is reported loudly but does not stop the node: results wait in the outbox.

        Raises
        ------
        StoreAccessDenied, StoreMisconfigured
            What only a change of the configuration can mend.
        """
        try:
            self.store.check()
        except StoreUnavailable as error:
            log.error(
                "The large result store %s cannot be reached: %s The node starts all the same; results wait in its "
                "outbox for up to %.0f s (large_result_store.transfer.retry_for).",
                self.store.root,
                error,
                self.config.transfer.retry_for,
            )

    def connect(self, connection: Connection, announce: Callable[[Job, str], None]) -> bool:
        """Meet the server; called once, after the node has authenticated.

        Returns
        -------
        bool
            False when the server is a stock one: the node then works as stock.

        Raises
        ------
        ServerUnavailable, ServerRejected, ConfigurationError
        """
        self.api = ServerApi(connection.client)
        capabilities = self.api.capabilities()
        if capabilities is None:
            log.warning(
                "The vantage6 server does not know large results (it is a stock server). This node works as a stock "
                "node until it is restarted against an extended server."
            )
            return False
        self.server_id = capabilities.server_id
        party = Party(
            server_id=capabilities.server_id,
            organization_id=connection.organization_id,
            collaboration_id=connection.collaboration_id,
            encrypted=connection.encrypted,
            cryptor=connection.cryptor,
        )
        key = self._private_key(connection)
        self.reader = Reader(
            config=self.config,
            own=self.store,
            organization_id=connection.organization_id,
            encrypted=connection.encrypted,
            private_key=key,
            options=self.options,
            cancel=self.cancel,
        )
        self.outbox = Outbox(
            self._data_folder / "v6lf-outbox",
            delivery=Delivery(
                config=self.config,
                store=self.store,
                api=self.api,
                party=party,
                options=self.options,
                cancel=self.cancel,
                share_logs=self._share_logs,
            ),
            retry_for=self.config.transfer.retry_for,
            cancel=self.cancel,
            announce=announce,
        )
        self.proxy = ContainerProxy(
            api=self.api,
            sessions=self.sessions,
            reader=self.reader,
            inputs=TaskInputs(
                config=self.config,
                store=self.store,
                api=self.api,
                party=party,
                options=self.options,
                cancel=self.cancel,
            ),
            server_id=capabilities.server_id,
            decryptor=connection.cryptor,
        )
        self.api.register(__version__)
        self.active = True
        self._log_health(connection)
        self.outbox.resume()
        return True

    def stop(self) -> None:
        """Save what runs and stop; the node is about to end."""
        if self.active:
            self.outbox.stop()
        else:
            self.cancel.cancel()
        self.store.close()

    @staticmethod
    def _private_key(connection: Connection) -> RSAPrivateKey | None:
        if not connection.encrypted:
            return None
        if connection.private_key_file is None:
            raise ConfigurationError(
                ["encryption.private_key: the collaboration is encrypted, a private key file is needed"]
            )
        return read_private_key(connection.private_key_file)

    def _log_health(self, connection: Connection) -> None:
        readable = ", ".join(f"{entry.organization}: {entry.location}" for entry in self.config.readable) or "none"
        log.info(
            "Large results: store %s, from %d bytes on, envelope %s, readable: %s; outbox backlog %d.",
            self.store.root,
            self.config.threshold,
            "yes" if connection.encrypted else "no",
            readable,
            self.outbox.backlog(),
        )
