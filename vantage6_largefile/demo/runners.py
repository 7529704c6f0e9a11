"""Which runner the demo uses: Docker where an engine and an image are to be had, child processes otherwise."""

from __future__ import annotations

import os
from collections.abc import Callable

import docker.errors

import docker
from vantage6_largefile.demo.system import Runner

#: Nothing listens there: the node's attempt to pull is refused at once, and the local image is used.
IMAGE = "127.0.0.1:5999/v6-largefile-demo-algorithm:1"
MODULE = "vantage6_largefile.demo.algorithm"
BASE_IMAGE = os.environ.get("V6LF_BASE_IMAGE", "python:3.11-slim")

NO_ISOLATION = (
    "!!! Algorithms run as child processes of this host: NOTHING ISOLATES THEM. This is for the demo and for tests\n"
    "!!! only; a hospital's node always runs them in containers."
)


def choose_runner(wanted: str, say: Callable[[str], None]) -> Runner:
    """The runner for this machine.

    Parameters
    ----------
    wanted : str
        ``auto``, ``docker`` (fails when it cannot be had) or ``process``.
    say : callable
        Told what was chosen, and why.

    Returns
    -------
    Runner
    """
    if wanted != "process":
        try:
            return docker_runner(say)
        except (docker.errors.DockerException, RuntimeError) as error:
            if wanted == "docker":
                raise
            say(f"No Docker runner: {error}")
    say(NO_ISOLATION)
    return process_runner()


def process_runner() -> Runner:
    """Algorithms as child processes."""
    return Runner("process", IMAGE, MODULE)


def docker_runner(say: Callable[[str], None]) -> Runner:
    """Algorithms in containers of a freshly built image.

    Raises
    ------
    DockerException, RuntimeError
        When no engine answers, or the image cannot be built.
    """
    from vantage6_largefile.demo.image import base_image_available, build_algorithm_image

    client = docker.from_env()
    try:
        client.ping()
        if not base_image_available(client, BASE_IMAGE):
            raise RuntimeError(f"the base image {BASE_IMAGE} is neither here nor can it be pulled (V6LF_BASE_IMAGE)")
        say(f"Building the algorithm image on {BASE_IMAGE} …")
        build_algorithm_image(client, IMAGE, BASE_IMAGE, say)
        gateway = client.networks.get("bridge").attrs["IPAM"]["Config"][0].get("Gateway", "172.17.0.1")
    finally:
        client.close()
    say("Algorithms run in Docker containers.")
    return Runner("docker", IMAGE, MODULE, proxy_host=gateway)
