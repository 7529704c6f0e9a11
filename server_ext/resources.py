"""The calls that stock vantage6 does not have, all below ``largefile/``."""

from __future__ import annotations

import logging
from http import HTTPStatus

from flask import g
from flask_restful import Api
from vantage6.server.resource import ServicesResources

from server_ext import calls, database, placement, settings
from server_ext.calls import Refused
from server_ext.runs import own_run
from vantage6_largefile import wire

log = logging.getLogger(__name__)


def setup(api: Api, api_base: str, services: dict[str, object]) -> None:
    """Register the calls, as the ``setup`` of a stock resource module does.

    Parameters
    ----------
    api : flask_restful.Api
    api_base : str
        The server's api path.
    services : dict
        What every stock resource is constructed with.
    """
    base = f"{api_base}/{settings.BLOCK}"
    for resource, path in (
        (CapabilitiesCall, "capabilities"),
        (OwnNode, "nodes/me"),
        (Placement, "runs/<int:run_id>/placement"),
    ):
        api.add_resource(
            resource, f"{base}/{path}", endpoint=f"largefile_{resource.__name__}", resource_class_kwargs=services
        )


class CapabilitiesCall(ServicesResources):  # type: ignore[misc]
    """``GET largefile/capabilities``"""

    @calls.endpoint("user", "node", "container")
    def get(self) -> object:
        """What this server can do."""
        found = settings.current()
        answer = wire.Capabilities(
            version=wire.API_VERSION,
            server_id=found.server_id,
            max_inline_result=found.config.max_inline_result,
            central_organizations=tuple(found.config.central_organizations),
        )
        return answer.model_dump(mode="json"), HTTPStatus.OK


class OwnNode(ServicesResources):  # type: ignore[misc]
    """``PUT largefile/nodes/me``"""

    @calls.endpoint("node")
    def put(self) -> object:
        """Register the calling node as one that runs this software."""
        registration = calls.read_body(wire.NodeRegistration)
        if not (registration.version.isascii() and registration.version.isprintable()):
            raise Refused(HTTPStatus.BAD_REQUEST, "version: expected printable ASCII text.")
        node_id = g.node.id
        database.register_node(g.session, node_id, registration.version)
        log.info("Node id=%s runs vantage6-largefile %s.", node_id, registration.version)
        return {"node_id": node_id, "version": registration.version}, HTTPStatus.OK


class Placement(ServicesResources):  # type: ignore[misc]
    """``POST largefile/runs/<id>/placement``"""

    @calls.endpoint("node")
    def post(self, run_id: int) -> object:
        """Where the result of one of the calling node's runs goes."""
        run = own_run(run_id)
        asked = calls.read_body(wire.PlacementRequest)
        found = settings.current()
        answer = placement.decide(
            placement.situation_of(run, found),
            size=asked.size,
            central_organizations=tuple(found.config.central_organizations),
            max_inline_result=found.config.max_inline_result,
        )
        return answer.model_dump(mode="json"), HTTPStatus.OK
