"""A stand-in for a Docker engine, for demo and tests on machines without one. IT ISOLATES NOTHING.

:class:`ProcessEngine` offers the part of docker's ``DockerClient`` that a vantage6 4.15.2 node uses. Its
"containers" are child processes of the user who runs the node: they see that user's files and network, mounts are
neither private nor read-only, and there are no limits. What it does keep from Docker is what nodes build on: names,
labels, exit codes, logs that can be followed, and containers that outlive the node.

Algorithms learn about their files from environment variables. Those that begin with the place of a mount
(``/mnt/data/…``) are rewritten to the path on this machine. A run context file (``run_context_file: true``) names
paths inside a file and is not supported.

It can only be switched on by code that makes one and gives it to a node; there is no configuration key and no
environment variable for it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

from docker.errors import APIError, ImageNotFound, NotFound

from vantage6_largefile.demo.process_container import Container, rewritten, start

log = logging.getLogger(__name__)

_BANNER = """
**********************************************************************
*  THE PROCESS ENGINE ISOLATES NOTHING. Algorithms run as ordinary   *
*  processes of this user, with this user's files and network.       *
*  For the demo and for tests. Never with data that is not your own. *
**********************************************************************"""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class ProcessEngine:
    """What a vantage6 node needs of a ``docker.DockerClient``, with child processes as containers.

    Parameters
    ----------
    root : Path
        Folder for containers, volumes and networks; engines on the same folder see the same ones.
    images : mapping of str to str
        Name of an image as tasks give it, and the Python module of its algorithm.
    image_environment : mapping of str to str, optional
        Further variables that "the image" brings, such as PYTHONPATH. Nothing of this process's own environment
        reaches a container.

    Attributes
    ----------
    containers, images, volumes, networks, api
        As of a ``DockerClient``, with the calls that the node makes.
    """

    def __init__(
        self, root: Path, images: Mapping[str, str], *, image_environment: Mapping[str, str] | None = None
    ) -> None:
        log.warning(_BANNER)
        root = root.resolve()
        self.images = Images(images)
        self.volumes = Volumes(root / "volumes")
        self.containers = Containers(root / "containers", self.images, self.volumes, image_environment or {})
        self.networks = Networks(root / "networks", self.containers)
        self.api = Api(self.images)

    def ping(self) -> bool:
        """Always there."""
        return True

    def info(self) -> dict[str, str]:
        """Say what this is."""
        return {"Name": "process-engine", "ServerVersion": "0", "OperatingSystem": "processes without isolation"}

    def version(self) -> dict[str, str]:
        """Say what this is."""
        return {"Version": "0", "ApiVersion": "0", "Os": "processes without isolation"}

    def login(self, **_: object) -> dict[str, str]:
        """Do nothing: there is no registry."""
        return {"Status": "Login Succeeded"}

    def close(self) -> None:
        """Do nothing: containers live on, as Docker's do."""


class Containers:
    """``DockerClient.containers``."""

    def __init__(self, root: Path, images: Images, volumes: Volumes, image_environment: Mapping[str, str]) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self._root = root
        self._images = images
        self._volumes = volumes
        self._image_environment = dict(image_environment)
        # kept only to take the exit status of children off the system's hands
        self._children: list[subprocess.Popen[bytes]] = []

    def run(
        self,
        image: str,
        command: None = None,
        *,
        detach: bool,
        environment: Mapping[str, object] | None = None,
        volumes: Mapping[str | Path, Mapping[str, str]] | None = None,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        network: str | None = None,
        device_requests: Sequence[object] | None = None,
    ) -> Container:
        """Start an algorithm and give its container at once.

        Raises
        ------
        docker.errors.ImageNotFound
            If the image is not one of this engine's.
        docker.errors.APIError
            If the name is taken, or something is asked for that only a real engine can do.
        """
        module = self._images.get(image).module
        if command is not None or not detach or device_requests:
            raise APIError("The process engine runs algorithms, detached, without devices: use a Docker engine")
        identifier = uuid.uuid4().hex * 2
        name = _checked(name or f"algorithm-{identifier[:12]}")
        if any(container.name == name for container in self.list(all=True)):
            raise APIError(f"The container name {name} is already in use")
        mounts = {str(mount["bind"]): self._source(source) for source, mount in (volumes or {}).items()}
        brought = {
            "PATH": os.pathsep.join([os.path.dirname(sys.executable), os.defpath]),
            "PKG_NAME": module,
            "PYTHONUNBUFFERED": "1",
            **self._image_environment,
        }
        given = {key: rewritten(str(value), mounts) for key, value in (environment or {}).items()}
        attrs = {
            "Id": identifier,
            "Name": f"/{name}",
            "Created": datetime.now(timezone.utc).isoformat(),
            "Config": {"Image": image, "Labels": dict(labels or {})},
            "HostConfig": {"NetworkMode": network or "default"},
            "Mounts": [{"Source": source, "Destination": place} for place, source in mounts.items()],
            "NetworkSettings": {"Networks": {network: {"IPAddress": "127.0.0.1"}} if network else {}},
        }
        container, child = start(self._root / identifier, attrs, {**brought, **given})
        self._children.append(child)
        return container

    def list(
        self,
        *,
        all: bool = False,
        filters: Mapping[str, object] | None = None,
    ) -> list[Container]:
        """Give the running containers, with `all` also the others, newest first.

        Raises
        ------
        docker.errors.APIError
            For other filters than ``id``, ``name``, ``label`` and ``status``.
        """
        self._children = [child for child in self._children if child.poll() is None]
        conditions = {key: _as_list(value) for key, value in (filters or {}).items()}
        unknown = sorted(set(conditions) - set(_FILTERS))
        if unknown:
            raise APIError(f"Invalid filter {unknown}")
        found = []
        for folder in self._root.iterdir():
            try:
                container = Container(folder)
            except NotFound:  # being made or removed just now
                continue
            wanted = all or container.status == "running" or "status" in conditions
            if wanted and _matches(container, conditions):
                found.append(container)
        return sorted(found, key=lambda container: str(container.attrs["Created"]), reverse=True)

    def get(self, container_id: str) -> Container:
        """Give the container of this name or id. ``docker.errors.NotFound`` if there is none."""
        for container in self.list(all=True):
            if container_id == container.name or (len(container_id) >= 12 and container.id.startswith(container_id)):
                return container
        raise NotFound(f"No such container: {container_id}")

    def _source(self, source: str | Path) -> str:
        """Path on this machine of what is to be mounted; made if missing, as Docker does."""
        if os.path.isabs(source):
            if not os.path.exists(source):
                os.makedirs(source)
            return str(source)
        return self._volumes.create(str(source)).path


# "name" is a pattern that may match anywhere, in Docker too
_FILTERS: dict[str, Callable[[Container, str], bool]] = {
    "id": lambda container, value: container.id.startswith(value),
    "name": lambda container, value: re.search(value, container.name) is not None,
    "status": lambda container, value: container.status == value,
    "label": lambda container, value: _has_label(container.labels, value),
}


def _matches(container: Container, conditions: Mapping[str, list[str]]) -> bool:
    # all labels have to be there; of several names, ids or statuses one is enough
    return all(
        (all if key == "label" else any)(_FILTERS[key](container, value) for value in values)
        for key, values in conditions.items()
    )


def _has_label(labels: Mapping[str, str], condition: str) -> bool:
    key, equals, value = condition.partition("=")
    return key in labels and (not equals or labels[key] == value)


class Image:
    """One of the engine's images: a name for a Python module."""

    def __init__(self, name: str, module: str) -> None:
        self.module = module
        self.tags = [name]
        self.id = f"sha256:{hashlib.sha256(name.encode()).hexdigest()}"
        self.labels: dict[str, str] = {}
        self.attrs = {"Id": self.id, "RepoTags": self.tags, "RepoDigests": [], "Config": {"Labels": {}}}


class Images:
    """``DockerClient.images``."""

    def __init__(self, images: Mapping[str, str]) -> None:
        self._images = [Image(name, module) for name, module in images.items()]

    def get(self, name: str) -> Image:
        """Give the image of this name or id. ``docker.errors.ImageNotFound`` if there is none."""
        for image in self._images:
            if name in (image.id, *image.tags):
                return image
        raise ImageNotFound(f"No such image: {name}. The process engine has {[i.tags[0] for i in self._images]}")

    def pull(self, repository: str, tag: str | None = None) -> Image:
        """Give the image if this engine has it: there is no registry."""
        return self.get(f"{repository}:{tag}" if tag else repository)

    def list(self, name: str | None = None) -> list[Image]:
        """Give the images, or the one of this name."""
        return [image for image in self._images if name is None or name in image.tags]


class Api:
    """``DockerClient.api``: what the node asks of a registry to compare images."""

    def __init__(self, images: Images) -> None:
        self._images = images

    def inspect_distribution(self, image: str, **_: object) -> dict[str, dict[str, str]]:
        """Give the digest of an image."""
        return {"Descriptor": {"digest": self._images.get(image).id}}


class Volume:
    """A folder of the engine's."""

    def __init__(self, folder: Path) -> None:
        self.name = self.id = folder.name
        self.path = str(folder)
        self.attrs = {"Name": folder.name, "Driver": "local", "Mountpoint": str(folder)}

    def remove(self) -> None:
        """Delete it with all that is in it."""
        shutil.rmtree(self.path)


class Volumes:
    """``DockerClient.volumes``."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self._root = root

    def create(self, name: str) -> Volume:
        """Make a volume, or give the one of that name."""
        folder = self._root / _checked(name)
        folder.mkdir(exist_ok=True)
        return Volume(folder)

    def get(self, name: str) -> Volume:
        """Give the volume of this name. ``docker.errors.NotFound`` if there is none."""
        folder = self._root / _checked(name)
        if not folder.is_dir():
            raise NotFound(f"No such volume: {name}")
        return Volume(folder)

    def list(self) -> list[Volume]:
        """Give all volumes."""
        return [Volume(folder) for folder in sorted(self._root.iterdir())]


class Network:
    """A name only: every process is in the network of this machine."""

    def __init__(self, path: Path, containers: Containers) -> None:
        self._path = path
        self._containers = containers
        self.name = path.name
        self.id = hashlib.sha256(path.name.encode()).hexdigest()
        self.reload()

    @property
    def containers(self) -> list[Container]:
        """Running containers that were started in it, as of now."""
        return [one for one in self._containers.list() if one.attrs["HostConfig"]["NetworkMode"] == self.name]

    def reload(self) -> None:
        """Look again. ``docker.errors.NotFound`` if it was removed."""
        if not self._path.exists():
            raise NotFound(f"No such network: {self.name}")
        members = {one.id: {"Name": one.name, "IPv4Address": "127.0.0.1/8"} for one in self.containers}
        self.attrs = {"Id": self.id, "Name": self.name, "Containers": members, **json.loads(self._path.read_text())}

    def connect(self, container: str, **_: object) -> None:
        """Check that the container is there. ``docker.errors.NotFound`` if not."""
        self._containers.get(container)

    def disconnect(self, container: str | Container, **_: object) -> None:
        """Check that the container is there. ``docker.errors.NotFound`` if not."""
        self._containers.get(container.id if isinstance(container, Container) else container)

    def remove(self) -> None:
        """Delete it. ``docker.errors.APIError`` if containers are in it."""
        if self.containers:
            raise APIError(f"Network {self.name} has active endpoints")
        self._path.unlink(missing_ok=True)


class Networks:
    """``DockerClient.networks``."""

    def __init__(self, root: Path, containers: Containers) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self._root = root
        self._containers = containers

    def create(self, name: str, **options: object) -> Network:
        """Make a network; the options are remembered and mean nothing."""
        path = self._root / _checked(name)
        path.write_text(json.dumps({"Internal": bool(options.get("internal")), "Driver": "none"}))
        return Network(path, self._containers)

    def get(self, network_id: str) -> Network:
        """Give the network of this name or id. ``docker.errors.NotFound`` if there is none."""
        for network in self.list():
            if network_id in (network.name, network.id):
                return network
        raise NotFound(f"No such network: {network_id}")

    def list(self, names: Sequence[str] | None = None, *, filters: Mapping[str, object] | None = None) -> list[Network]:
        """Give all networks, or those of these names (also as the filter ``name``)."""
        wanted = [*(names or ()), *_as_list((filters or {}).get("name", ()))]
        networks = [Network(path, self._containers) for path in sorted(self._root.iterdir())]
        return [network for network in networks if not wanted or network.name in wanted]


def _as_list(value: object) -> list[str]:
    return [str(one) for one in value] if isinstance(value, Iterable) and not isinstance(value, str) else [str(value)]


def _checked(name: str) -> str:
    """Refuse names that Docker refuses; these become file names here."""
    if not _NAME.fullmatch(name):
        raise APIError(f"{name!r} is no name: letters, digits, '_', '.' and '-', the first a letter or digit")
    return name
