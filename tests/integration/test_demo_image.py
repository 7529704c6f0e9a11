"""The demo's algorithm image, built and run by a real Docker engine."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("scipy", reason="the demo's extra is not installed")
pytest.importorskip("vantage6.algorithm.tools", reason="the demo's extra is not installed")

import docker.errors
import jwt

import docker
from vantage6_largefile.demo.algorithm import weights
from vantage6_largefile.demo.image import base_image_available, build_algorithm_image

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]

BASE_IMAGE = os.environ.get("V6LF_BASE_IMAGE", "python:3.11-slim")
# nothing listens there, so that nothing can be pulled or pushed by mistake
TAG = "127.0.0.1:5999/v6lf-test-algorithm:1"


def missing(reason: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def engine() -> Iterator[docker.DockerClient]:
    try:
        client = docker.from_env()
        client.ping()
    except docker.errors.DockerException as exc:
        missing(f"no Docker engine: {exc}")
    if not base_image_available(client, BASE_IMAGE):
        missing(f"the base image {BASE_IMAGE} is neither here nor can it be pulled (V6LF_BASE_IMAGE)")
    yield client
    client.close()


@pytest.fixture(scope="module")
def steps() -> list[str]:
    return []


@pytest.fixture(scope="module")
def image(engine: docker.DockerClient, steps: list[str]) -> Iterator[str]:
    identifier = build_algorithm_image(engine, TAG, BASE_IMAGE, steps.append)
    yield identifier
    engine.images.remove(TAG, force=True)


def encoded(value: str) -> str:
    """As the node encodes environment variables."""
    return base64.b32encode(value.encode()).decode().replace("=", "!")


@pytest.fixture
def run(engine: docker.DockerClient, image: str, tmp_path: Path) -> Callable[..., bytes]:
    """Run a function the way a node does; gives the output."""
    token = {"organization_id": 4, "node_id": 1, "collaboration_id": 1, "task_id": 1}

    def start(method: str, **kwargs: object) -> bytes:
        (tmp_path / "input").write_text(json.dumps({"method": method, "kwargs": kwargs}))
        (tmp_path / "output").write_bytes(b"")
        (tmp_path / "token").write_text(jwt.encode({"sub": token}, "k" * 32))
        (tmp_path / "data.csv").write_text("text,label\nred stone,A\ngreen leaf,B\n")
        container = engine.containers.run(
            TAG,
            detach=True,
            network_mode="none",
            environment={
                "INPUT_FILE": encoded("/mnt/data/task-1/input"),
                "OUTPUT_FILE": encoded("/mnt/data/task-1/output"),
                "TOKEN_FILE": encoded("/mnt/data/task-1/token"),
                "TEMPORARY_FOLDER": encoded("/tmp"),
                "USER_REQUESTED_DATABASE_LABELS": encoded("default"),
                "DEFAULT_DATABASE_URI": encoded("/mnt/data/task-1/data.csv"),
            },
            volumes={str(tmp_path): {"bind": "/mnt/data/task-1", "mode": "rw"}},
        )
        try:
            ended = container.wait(timeout=120)
            assert ended["StatusCode"] == 0, container.logs().decode()
        finally:
            container.remove(force=True)
        return (tmp_path / "output").read_bytes()

    return start


def test_building_again_gives_the_same_image(engine: docker.DockerClient, image: str, steps: list[str]) -> None:
    assert build_algorithm_image(engine, TAG, BASE_IMAGE, lambda _: None) == image
    assert engine.images.get(TAG).id == image
    assert steps[0].startswith("Step 1/")


def test_a_hospital_trains_in_the_container(run: Callable[..., bytes]) -> None:
    result = json.loads(run("train_round", n_features=64, labels=["A", "B"]))

    array = weights.decode(result["weights"], (64, 2))
    assert result["organization_id"] == 4
    assert result["class_counts"] == [1, 1]
    assert array.any()


def test_the_output_has_exactly_the_size_asked_for(run: Callable[..., bytes]) -> None:
    assert len(run("echo_size", size=100_001)) == 100_001


def test_the_container_sees_its_own_folder_only(run: Callable[..., bytes]) -> None:
    seen = json.loads(run("look_around"))

    assert seen["root"] == "/mnt/data"
    assert seen["files"] == [f"task-1/{name}" for name in ("data.csv", "input", "output", "token")]


def test_the_image_has_nothing_of_the_machine_that_built_it(engine: docker.DockerClient, image: str) -> None:
    program = (
        "import os, sys, importlib.util as u, numpy, scipy\n"
        "assert u.find_spec('vantage6_largefile') is None\n"
        "found = [f for d, _, fs in os.walk('/') if not d.startswith('/proc') for f in fs if f == 'bundle.pem']\n"
        "assert not found, found\n"
        "assert not os.path.exists('/tmp/ca')"
    )

    # raises docker.errors.ContainerError if the program fails
    engine.containers.run(TAG, ["python3", "-c", program], remove=True, network_mode="none")

    history = json.dumps(engine.images.get(TAG).history())
    assert "PIP_INDEX_URL" not in history
    assert "PIP_CERT" not in history


def test_a_failing_step_is_told_with_its_output(engine: docker.DockerClient) -> None:
    broken = "127.0.0.1:5999/v6lf-test-broken:1"
    dockerfile = (
        f"FROM {BASE_IMAGE}\n"
        "RUN printf '#!/bin/sh\\necho no python today; exit 3\\n' > /tmp/python && chmod 755 /tmp/python"
        ' && for one in $(which -a python3); do cp --remove-destination /tmp/python "$one"; done\n'
    )
    engine.images.build(fileobj=io.BytesIO(dockerfile.encode()), tag=broken, rm=True)
    try:
        with pytest.raises(docker.errors.BuildError, match="no python today"):
            build_algorithm_image(engine, "127.0.0.1:5999/v6lf-test-never:1", broken, lambda _: None)
    finally:
        engine.images.remove(broken, force=True)


def test_a_base_that_cannot_be_had_is_told(engine: docker.DockerClient) -> None:
    assert not base_image_available(engine, "127.0.0.1:5999/v6lf-test-nowhere:1")
    assert base_image_available(engine, BASE_IMAGE)
