"""Remove what nodes of a demo may have left in the Docker engine: by their own names, nothing else."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import docker.errors

import docker

log = logging.getLogger(__name__)


def remove_leftovers(node_names: Sequence[str]) -> None:
    """Remove containers, networks and volumes of the named nodes. Repeating it is no error."""
    client = docker.from_env()
    try:
        for name in node_names:
            for container in client.containers.list(all=True, filters={"label": f"node={name}"}):
                container.remove(force=True)
            for network in client.networks.list(names=[f"vantage6-{name}-user-net"]):
                network.remove()
            for volume in client.volumes.list(filters={"name": f"vantage6-{name}-user-"}):
                volume.remove(force=True)
    except docker.errors.DockerException as error:
        log.warning("Not everything could be removed from the Docker engine: %s", error)
    finally:
        client.close()
