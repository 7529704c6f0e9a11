"""``LargeFileClient``: a ``UserClient`` whose results look the same, inline or by reference."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import requests
import yaml
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from vantage6.client import UserClient
from vantage6.common import Singleton
from vantage6.common.encryption import RSACryptor

from vantage6_largefile import redaction
from vantage6_largefile.config import LargeResultStore, load_large_result_store
from vantage6_largefile.envelope import read_private_key
from vantage6_largefile.errors import (
    ConfigurationError,
    LargeFileError,
    LocationRefused,
    ObjectNotFound,
    ResultMissing,
    ResultNotAllowed,
    ServerUnavailable,
)
from vantage6_largefile.progress import progress_on_stderr
from vantage6_largefile.reading import ReadableObject, Reader, input_of_record, result_of_record
from vantage6_largefile.stores import Store, open_store
from vantage6_largefile.transfer import CancelToken, TransferOptions
from vantage6_largefile.wire import CLIENT_FLAG, Capabilities

log = logging.getLogger(__name__)

TIMEOUT = (10.0, 60.0)
CONFIG_KEY = "large_result_store"


class LargeFileClient(UserClient):  # type: ignore[misc]  # upstream has no types
    """Drop-in for :class:`vantage6.client.UserClient`.

    The same calls return the same shapes, whether a value was stored inline or by reference. On a stock server it
    is a stock client.

    Parameters
    ----------
    *args, **kwargs
        As ``UserClient``.
    large_result_store : mapping or path, optional
        The block of the same name (docs/configuration.md), or a YAML file with it. Needed to read results by
        reference; without it the error of such a result says so.
    show_progress : bool, optional
        Show on stderr how far the fetching of a large value is. Default: where stderr is a terminal.

    Raises
    ------
    ConfigurationError
        With every mistake in the block.

    Examples
    --------
    >>> client = LargeFileClient("https://server", 443, "/api", large_result_store="store.yaml")  # doctest: +SKIP
    >>> client.authenticate("researcher", "…")  # doctest: +SKIP
    >>> client.wait_for_results(task_id=42)  # doctest: +SKIP
    """

    def __init__(
        self,
        *args: Any,
        large_result_store: Mapping[str, object] | str | Path | None = None,
        show_progress: bool | None = None,
        **kwargs: Any,
    ) -> None:
        self._show_progress = sys.stderr.isatty() if show_progress is None else show_progress
        self._store_config = _load(large_result_store)
        self._own_store: Store | None = None
        self._reader: Reader | None = None
        self._private_key: RSAPrivateKey | None = None
        self._capabilities: Capabilities | None = None
        self._asked = False
        super().__init__(*args, **kwargs)
        redaction.install()
        self.result = self.Result(self)

    # --- the server ---------------------------------------------------------------------------------------------

    def capabilities(self) -> Capabilities | None:
        """What the server offers for large results; None on a stock server. Asked once.

        Raises
        ------
        ServerUnavailable
            When it does not answer.
        """
        if not self._asked:
            url = self.generate_path_to("largefile/capabilities", False)
            try:
                answer = requests.get(url, headers=self.headers, timeout=TIMEOUT)
            except requests.RequestException as error:
                raise ServerUnavailable(f"{url}: no answer ({type(error).__name__}).") from error
            if answer.status_code >= 500 or answer.status_code == 401:
                raise ServerUnavailable(f"{url}: answered {answer.status_code}.")
            self._capabilities = Capabilities.model_validate(answer.json()) if answer.ok else None
            self._asked = True
        return self._capabilities

    def request(
        self, endpoint: str, json: dict[str, Any] | None = None, method: str = "get", *args: Any, **kwargs: Any
    ) -> Any:
        """As ``UserClient.request``; tasks are marked as made by a client that reads results by reference."""
        creates_task = endpoint.strip("/") == "task" and method.lower() == "post"
        if creates_task and isinstance(json, dict) and self.capabilities() is not None:
            json = {**json, CLIENT_FLAG: True}
        return super().request(endpoint, json, method, *args, **kwargs)

    def setup_encryption(self, private_key_file: str | Path | None) -> None:
        """As ``UserClient.setup_encryption``."""
        # Upstream's cryptors are singletons: without this, a second client in this process, of another organisation,
        # would silently get the first one's key.
        Singleton._instances.pop(RSACryptor, None)
        super().setup_encryption(private_key_file)
        self._private_key = read_private_key(Path(private_key_file)) if private_key_file else None
        self._reader = None

    # --- values -------------------------------------------------------------------------------------------------

    def _decrypt_field(self, data: dict[str, Any], field: str, is_single_resource: bool) -> dict[str, Any]:
        """Around client_base.py:591: values by reference are fetched, the others go the stock way."""
        if is_single_resource:
            if data.get(f"{field}_reference") is None:
                answer: dict[str, Any] = super()._decrypt_field(data, field, True)
                return answer
            data[field] = self._fetch(data, field)
            return data
        inline = []
        for record in data["data"]:
            if record.get(f"{field}_reference") is None:
                inline.append(record)
                continue
            try:
                record[field] = self._fetch(record, field)
            except LargeFileError as error:
                # One unreadable record does not take the others down; it says itself what is wrong with it.
                log.error("Run %s: %s", record.get("id"), error)
                record[field] = None
                record[f"{field}_error"] = str(error)
        super()._decrypt_field({"data": inline}, field, False)
        return data

    def _fetch(self, record: dict[str, Any], field: str) -> str | bytes:
        capabilities = self.capabilities()
        if capabilities is None:
            raise ResultMissing(f"Run {record.get('id')} has a reference, but the server does not know references.")
        of_record = result_of_record if field == "result" else input_of_record
        item = of_record(record, capabilities.server_id)
        if item is None:
            raise ResultMissing(f"Run {record.get('id')} has no {field} by reference.")
        data = bytearray()
        try:
            reader = self._reader_for(item)
            with progress_on_stderr(f"{field} of run {record.get('id')}", quiet=not self._show_progress) as progress:
                for chunk in reader.stream(item, progress=progress):
                    data += chunk
        except LocationRefused as error:
            raise ResultNotAllowed(str(error)) from error
        except ObjectNotFound as error:
            raise ResultMissing(str(error), advice="It was deleted, or expired.") from error
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            # As stock: what is no text is handed on as bytes.
            return bytes(data)

    def _reader_for(self, item: ReadableObject) -> Reader:
        if self._store_config is None:
            raise ConfigurationError(
                [
                    f"object {item.reference.id} lies at {item.reference.location}; pass large_result_store=… to "
                    "LargeFileClient, with the store that you may read (docs/researcher.md)"
                ],
                source="the client",
            )
        if self._own_store is None:
            self._own_store = open_store(self._store_config.own)
        if self._reader is None:
            self._reader = Reader(
                config=self._store_config,
                own=self._own_store,
                organization_id=self.whoami.organization_id,
                # The client's own set-up decides what it expects: encryption was set up, or it was not.
                encrypted=self._private_key is not None,
                private_key=self._private_key,
                options=TransferOptions.from_config(self._store_config.transfer),
                cancel=CancelToken(),
            )
        return self._reader

    class Result(UserClient.Result):  # type: ignore[misc]  # upstream has no types
        """Results of algorithm runs."""

        def from_task(self, task_id: int) -> dict[str, Any]:
            """All results of a task.

            Replaces client/__init__.py:2219, which reads the first page only and writes whole results to the log.

            Parameters
            ----------
            task_id : int

            Returns
            -------
            dict
                ``{"data": [...], "links": …}`` as stock. A record that cannot be read has ``result`` None and a
                ``result_error`` that says why.
            """
            answer: dict[str, Any] = self.parent.request("result", params={"task_id": task_id, "page": 1})
            if "data" not in answer:
                return answer
            page, links = 1, answer.get("links")
            while links and links.get("next"):
                page += 1
                more = self.parent.request("result", params={"task_id": task_id, "page": page})
                answer["data"] += more["data"]
                links = more.get("links")
            decrypted: dict[str, Any] = self._decrypt_result(answer, is_single_result=False)
            return decrypted


def _load(block: Mapping[str, object] | str | Path | None) -> LargeResultStore | None:
    if block is None:
        return None
    source = "large_result_store"
    if isinstance(block, (str, Path)):
        source = str(block)
        try:
            document = yaml.safe_load(Path(block).read_text("utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise ConfigurationError([f"cannot be read: {error}"], source=source) from error
        if not isinstance(document, Mapping):
            raise ConfigurationError(["expected a mapping with the large_result_store block"], source=source)
        found = document.get(CONFIG_KEY, document)
        if not isinstance(found, Mapping):
            raise ConfigurationError([f"{CONFIG_KEY}: expected a mapping"], source=source)
        block = found
    return load_large_result_store(block, source=source)
