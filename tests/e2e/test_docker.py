"""What only real containers can show: what an algorithm sees of its node, and that it has no credential."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import pytest

from tests.e2e.tasks import create, run_of, wait
from vantage6_largefile.demo.algorithm.echo import pattern
from vantage6_largefile.demo.plan import Plan, plan_file
from vantage6_largefile.demo.system import Runner, System

MIB = 1 << 20
pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def system(docker_runner: Runner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[System, Plan]]:
    folder = tmp_path_factory.mktemp("docker")
    plan = plan_file(folder, 1)
    database = folder / "patients.csv"
    database.write_text("text,label\na text,A00\n")
    plan.hospitals[0].database = database
    with System(folder, plan.parties, runner=docker_runner, largefile=plan.largefile) as running:
        yield running, plan


def test_container_sees_only_its_own_task_folder_and_the_database(system: tuple[System, Plan]) -> None:
    running, plan = system
    client = running.client(plan.central)
    # leaves a task folder of another run, and a result in the outbox, beside the next one
    other = create(client, running, [2], "echo_size", size=2 * MIB)
    assert wait(client, other["id"]) == "completed"
    task = create(client, running, [2], "look_around")
    assert wait(client, task["id"]) == "completed"

    seen = json.loads(client.result.from_task(task["id"])["data"][0]["result"])

    own = f"task-{run_of(client, task['id'])['id']:09d}"
    assert seen["root"] == "/mnt/data"
    assert set(seen["files"]) == {"patients.csv", f"{own}/input", f"{own}/output", f"{own}/token"}
    assert not [name for name in seen["environment"] if "LARGE" in name or "AZURE" in name or "STORE" in name]


def test_stock_algorithm_in_a_container_moves_large_values_through_its_node(system: tuple[System, Plan]) -> None:
    running, plan = system
    client = running.client(plan.central)
    task = create(client, running, [1], "central_echo", organizations=[2], size=20 * MIB)
    assert wait(client, task["id"]) == "completed"
    result = json.loads(client.result.from_task(task["id"])["data"][0]["result"])
    expected = hashlib.sha256(pattern(20 * MIB).encode()).hexdigest()
    assert result["received"] == [{"input": expected, "result": expected, "size": 20 * MIB}]


def test_symlink_planted_in_a_container_is_not_followed(system: tuple[System, Plan]) -> None:
    running, plan = system
    client = running.client(plan.central)
    task = create(client, running, [2], "write_symlink", target=str(running.folder / "server" / "server.yaml"))
    assert wait(client, task["id"]) == "failed"
    assert "not a regular file" in str(run_of(client, task["id"])["log"])


def test_container_is_gone_when_its_result_is_recorded(system: tuple[System, Plan]) -> None:
    import docker

    running, plan = system
    client = running.client(plan.central)
    task = create(client, running, [2], "echo_size", size=2 * MIB)
    assert wait(client, task["id"]) == "completed"
    engine = docker.from_env()
    try:
        left = engine.containers.list(all=True, filters={"label": f"node={running.node_name(plan.hospitals[0])}"})
    finally:
        engine.close()
    assert left == []
