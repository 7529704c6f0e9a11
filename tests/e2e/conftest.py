"""Whole systems for the end-to-end tests: real server, real nodes; algorithms as child processes or in Docker."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from vantage6_largefile.demo.runners import process_runner
from vantage6_largefile.demo.system import Runner, System

StartSystem = Callable[..., System]


@pytest.fixture(scope="session")
def runner() -> Runner:
    """Algorithms as child processes."""
    return process_runner()


@pytest.fixture
def start_system(tmp_path: Path, runner: Runner) -> Iterator[StartSystem]:
    """Start a system that is stopped after the test."""
    with ExitStack() as stack:

        def start(plan_or_parties: object, **options: object) -> System:
            parties = getattr(plan_or_parties, "parties", plan_or_parties)
            options.setdefault("largefile", getattr(plan_or_parties, "largefile", None))
            options.setdefault("runner", runner)
            return stack.enter_context(System(tmp_path / "system", parties, **options))  # type: ignore[arg-type]

        yield start


@pytest.fixture(scope="session")
def docker_runner() -> Runner:
    """Algorithms in containers of an image that is built here."""
    import docker.errors

    from vantage6_largefile.demo.runners import docker_runner as build

    try:
        return build(print)
    except (docker.errors.DockerException, RuntimeError) as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"Docker is needed here: {error}")
        pytest.skip(f"no Docker engine or no base image: {error}")
