"""The demo's algorithm as a Docker image, built with the classic builder (no buildx needed)."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable
from pathlib import Path

from docker.errors import APIError, BuildError, ImageNotFound

from docker import DockerClient

PACKAGE = "icd10_federated"
# what the algorithm needs; vantage6's own pins decide about the rest
REQUIREMENTS = ("vantage6-algorithm-tools==4.15.2", "numpy>=1.26,<3", "scipy>=1.11,<2")

_HERE = Path(__file__).parent
_CERTIFICATES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
# used by the stage that installs, so that neither the image nor its history has them
_BUILD_ARGUMENTS = ("PIP_INDEX_URL", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
_TAIL_LINES = 40
_LINE = 100


def base_image_available(docker_client: DockerClient, base_image: str) -> bool:
    """Say whether the base image is there; pulls it if not, which takes as long as it takes.

    Raises
    ------
    docker.errors.DockerException
        If no engine answers.
    """
    try:
        docker_client.images.get(base_image)
    except ImageNotFound:
        try:
            docker_client.images.pull(base_image)
        except APIError:
            # no such image, no registry, no right: all the same to the one who asks
            return False
    return True


def build_algorithm_image(
    docker_client: DockerClient, tag: str, base_image: str, progress: Callable[[str], None]
) -> str:
    """Build the image of the demo's algorithm; about a minute, or a second if nothing changed.

    The build installs packages from PyPI (or the host's PIP_INDEX_URL). If SSL_CERT_FILE or REQUESTS_CA_BUNDLE is
    set on the host, those certificates are used inside too, for the installation only.

    Parameters
    ----------
    docker_client : DockerClient
        An engine.
    tag : str
        Name of the image to make, with its tag.
    base_image : str
        A base with python3 (3.10 or later) and pip.
    progress : callable
        Told every step of the Dockerfile.

    Returns
    -------
    str
        The image's id.

    Raises
    ------
    docker.errors.BuildError
        If a step fails; the message has its last lines of output.
    """
    arguments = {name: os.environ[name] for name in _BUILD_ARGUMENTS if os.environ.get(name)}
    with tempfile.TemporaryDirectory(prefix="v6lf-image-") as folder:
        _write_context(Path(folder))
        events = docker_client.api.build(
            path=folder, tag=tag, rm=True, forcerm=True, decode=True, buildargs={**arguments, "BASE_IMAGE": base_image}
        )
        last: deque[str] = deque(maxlen=_TAIL_LINES)
        for event in events:
            if "error" in event:
                raise BuildError("\n".join([str(event["error"]), *last]), iter(last))
            line = str(event.get("stream", "")).strip()
            if line:
                last.append(line)
            if line.startswith("Step "):
                progress(line if len(line) <= _LINE else f"{line[:_LINE]}…")
    return str(docker_client.images.get(tag).id)


def _write_context(folder: Path) -> None:
    shutil.copyfile(_HERE / "Dockerfile.algorithm", folder / "Dockerfile")
    shutil.copytree(_HERE / "algorithm", folder / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "requirements.txt").write_text("\n".join(REQUIREMENTS) + "\n")
    certificates = folder / "ca"
    certificates.mkdir()
    # COPY wants at least one file
    (certificates / "README").write_text("Certificates of the machine that builds, if it has its own.\n")
    for name in _CERTIFICATES:
        if os.environ.get(name):
            shutil.copyfile(os.environ[name], certificates / "bundle.pem")
            break
