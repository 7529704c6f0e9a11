"""Calls to the vantage6 server with time limits and typed errors.

The stock client retries for ever on a lost connection and hands error bodies back as if they were answers. The
outbox has to know whether the server *has* a reference, so it talks to the server through this module.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Protocol

import requests
from pydantic import JsonValue

from vantage6_largefile.errors import ServerRejected, ServerUnavailable
from vantage6_largefile.wire import API_VERSION, EXTENDED_HEADER, Capabilities, PlacementAnswer

log = logging.getLogger(__name__)

#: Seconds to connect, and seconds of silence while an answer is awaited.
TIMEOUT = (10.0, 120.0)

JsonObject = dict[str, JsonValue]


class TokenSource(Protocol):
    """The part of the stock client that is needed to speak as this node."""

    @property
    def base_path(self) -> str:
        """URL of the server including its api path."""

    @property
    def headers(self) -> dict[str, str]:
        """Headers with this node's own token."""

    def refresh_token(self) -> None:
        """Fetch a new token."""


class ServerApi:
    """Calls to one server, as the node itself or on behalf of one of its containers."""

    def __init__(self, client: TokenSource) -> None:
        self._client = client
        self._session = requests.Session()

    def send(
        self,
        method: str,
        endpoint: str,
        *,
        json: Mapping[str, JsonValue] | None = None,
        params: Mapping[str, str] | None = None,
        bearer: str | None = None,
    ) -> requests.Response:
        """One request, without a look at the status.

        Parameters
        ----------
        method, endpoint : str
            HTTP verb and path below the api path.
        json, params : mapping, optional
            Body and query.
        bearer : str, optional
            Value of the Authorization header of a container; default is the node's own token.

        Returns
        -------
        requests.Response

        Raises
        ------
        ServerUnavailable
            When no answer came.
        """
        headers = dict(self._client.headers)
        headers[EXTENDED_HEADER] = str(API_VERSION)
        if bearer is not None:
            headers["Authorization"] = bearer
        url = f"{self._client.base_path}/{endpoint}"
        try:
            return self._session.request(
                method, url, json=json, params=params, headers=headers, timeout=TIMEOUT, allow_redirects=False
            )
        except requests.RequestException as error:
            raise ServerUnavailable(
                f"{method} {endpoint}: the vantage6 server does not answer ({type(error).__name__})."
            ) from error

    def call(
        self,
        method: str,
        endpoint: str,
        *,
        json: Mapping[str, JsonValue] | None = None,
        params: Mapping[str, str] | None = None,
        bearer: str | None = None,
    ) -> JsonObject:
        """One request that must succeed.

        Returns
        -------
        dict
            The JSON object that the server answered.

        Raises
        ------
        ServerUnavailable
            No answer, or 429 or 5xx: try again later.
        ServerRejected
            Any other answer that is no success; `status` tells which.
        """
        response = self.send(method, endpoint, json=json, params=params, bearer=bearer)
        if response.status_code == 401 and bearer is None:
            # An expired token is the usual cause: fetch a new one, once.
            try:
                self._client.refresh_token()
            except requests.RequestException as error:
                raise ServerUnavailable(f"{method} {endpoint}: the token could not be refreshed.") from error
            except Exception as error:  # noqa: BLE001 - the stock client raises plain Exception here
                log.warning("The token could not be refreshed: %s", error)
            else:
                response = self.send(method, endpoint, json=json, params=params)
        return read_answer(response, f"{method} {endpoint}")

    def capabilities(self) -> Capabilities | None:
        """What an extended server offers, or None when the server is a stock one."""
        try:
            return Capabilities.model_validate(self.call("GET", "largefile/capabilities"))
        except ServerRejected as error:
            if error.status == 404:
                return None
            raise

    def register(self, version: str) -> None:
        """Tell the server that this node is extended."""
        self.call("PUT", "largefile/nodes/me", json={"version": version})

    def placement(self, run_id: int, *, size: int, media_type: str) -> PlacementAnswer:
        """Ask where a result of `size` bytes belongs."""
        body: JsonObject = {"size": size, "media_type": media_type}
        return PlacementAnswer.model_validate(self.call("POST", f"largefile/runs/{run_id}/placement", json=body))

    def patch_run(self, run_id: int, body: JsonObject) -> None:
        """PATCH a run."""
        self.call("PATCH", f"run/{run_id}", json=body)

    def public_key(self, organization_id: int) -> str | None:
        """The public key of an organisation, as the server hands it out (base64 of a PEM)."""
        key = self.call("GET", f"organization/{organization_id}").get("public_key")
        return key if isinstance(key, str) and key else None


def read_answer(response: requests.Response, what: str) -> JsonObject:
    """The JSON object in a successful answer; see :meth:`ServerApi.call` for the errors."""
    try:
        body = response.json()
    except requests.exceptions.JSONDecodeError:
        body = {}
    if not isinstance(body, dict):
        body = {"data": body}
    if response.ok and not response.is_redirect:
        return body
    reason = str(body.get("msg") or response.reason or "no reason given")[:2000]
    message = f"{what}: the vantage6 server answered {response.status_code}: {reason}"
    if response.status_code == 429 or response.status_code >= 500:
        raise ServerUnavailable(message)
    raise ServerRejected(message, status=response.status_code)
