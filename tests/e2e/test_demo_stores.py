"""The demo's small job where something else than configuration keeps the parties apart: Azurite, Docker."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.test_demo import check, run_demo
from tests.support.azurite import require_azurite


@pytest.mark.azurite
def test_demo_on_azure_with_one_sas_per_organisation(tmp_path: Path) -> None:
    require_azurite()
    figures = run_demo(tmp_path, "--runner", "process", "--store", "azure")
    names = ["dhd", "hospital-a", "hospital-b", "hospital-c"]
    check(figures, 3, {name: f"azure://devstoreaccount1/{name}" for name in names})
    assert {attempt["store"] for attempt in figures["attempts"]} == {"refused by the store"}  # type: ignore[union-attr]


@pytest.mark.azurite
def test_demo_in_the_interim_layout_with_write_only_hospitals(tmp_path: Path) -> None:
    require_azurite()
    figures = run_demo(tmp_path, "--runner", "process", "--store", "azure", "--layout", "interim")
    hospitals = [f"hospital-{letter}" for letter in "abcde"]
    stores = {name: f"azure://devstoreaccount1/local-models/{name}" for name in hospitals}
    check(figures, 5, {"dhd": "azure://devstoreaccount1/aggregated-models", **stores})
    assert {attempt["store"] for attempt in figures["attempts"]} == {"refused by the store"}  # type: ignore[union-attr]


@pytest.mark.docker
@pytest.mark.usefixtures("docker_runner")
def test_demo_with_algorithms_in_docker(tmp_path: Path) -> None:
    figures = run_demo(tmp_path, "--runner", "docker")
    check(figures, 3, {name: f"file://{name}" for name in ("dhd", "hospital-a", "hospital-b", "hospital-c")})
