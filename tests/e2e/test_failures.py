"""What goes wrong at night: stores that are away or refuse, and what is left then."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import StartSystem
from tests.e2e.tasks import create, run_of, wait
from vantage6_largefile.demo.algorithm.echo import pattern
from vantage6_largefile.demo.azurite import AzuriteServer
from vantage6_largefile.demo.plan import plan_azure, plan_file
from vantage6_largefile.demo.system import System

MIB = 1 << 20
LARGE = 24 * MIB
HOSPITAL = 2


def kept_output(system: System, party: object) -> list[Path]:
    outbox = system.node_data(party) / "v6lf-outbox"  # type: ignore[arg-type]
    return sorted(path for path in outbox.glob("run-*/output") if path.is_file())


def kept_output_after(system: System, party: object, timeout: float = 30) -> list[Path]:
    deadline = time.monotonic() + timeout
    while not kept_output(system, party) and time.monotonic() < deadline:
        time.sleep(0.2)
    return kept_output(system, party)


def outbox_after(system: System, party: object, name: str, timeout: float = 30) -> list[Path]:
    outbox = system.node_data(party) / "v6lf-outbox"  # type: ignore[arg-type]
    deadline = time.monotonic() + timeout
    while not list(outbox.glob(f"run-*/{name}")) and time.monotonic() < deadline:
        time.sleep(0.2)
    return list(outbox.glob(f"run-*/{name}"))


@pytest.mark.azurite
def test_store_that_fails_in_the_middle_of_an_upload_fails_the_run_and_keeps_the_output(
    start_system: StartSystem, own_azurite: AzuriteServer
) -> None:
    slow = {"transfer": {"retry_for": "3s", "max_bandwidth": "4MiB", "part_size": "1MiB", "concurrency": 1}}
    plan = plan_azure(own_azurite, 1, overrides=slow)
    system = start_system(plan)
    client = system.client(plan.central, store=plan.researcher)
    task = create(client, system, [HOSPITAL], "echo_size", size=LARGE, seed=6)
    hospital = plan.hospitals[0]
    # the upload takes six seconds at this bandwidth: two seconds in, the store dies
    assert kept_output_after(system, hospital)
    time.sleep(2)
    own_azurite.kill()

    assert wait(client, task["id"], timeout=90) == "failed"

    log = str(run_of(client, task["id"])["log"])
    assert "could not be delivered" in log
    assert "azure://devstoreaccount1/hospital-a" in log
    kept = kept_output(system, hospital)
    assert [path.read_text() for path in kept] == [json.dumps(pattern(LARGE - 2, 6))]
    assert json.loads((kept[0].parent / "job.json").read_text())["state"] == "kept"


@pytest.mark.azurite
def test_store_that_comes_back_gets_the_result(start_system: StartSystem, own_azurite: AzuriteServer) -> None:
    slow = {"transfer": {"retry_for": "2m", "max_bandwidth": "4MiB", "part_size": "1MiB", "concurrency": 2}}
    plan = plan_azure(own_azurite, 1, overrides=slow)
    system = start_system(plan)
    client = system.client(plan.central, store=plan.researcher)
    task = create(client, system, [HOSPITAL], "echo_size", size=LARGE, seed=8)
    assert kept_output_after(system, plan.hospitals[0])
    time.sleep(2)
    # politely: killed, the emulator forgets containers that it has not written down yet
    own_azurite.stop()
    time.sleep(3)
    own_azurite.start()

    assert wait(client, task["id"], timeout=150) == "completed"

    assert client.result.from_task(task["id"])["data"][0]["result"] == json.dumps(pattern(LARGE - 2, 8))
    assert kept_output(system, plan.hospitals[0]) == []


@pytest.mark.azurite
@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
def test_node_that_is_killed_in_the_middle_of_an_upload_goes_on_after_its_restart(
    start_system: StartSystem, own_azurite: AzuriteServer, encrypted: bool
) -> None:
    slow = {"transfer": {"max_bandwidth": "4MiB", "part_size": "1MiB", "concurrency": 2}}
    plan = plan_azure(own_azurite, 1, overrides=slow)
    system = start_system(plan, encrypted=encrypted)
    client = system.client(plan.central, store=plan.researcher)
    task = create(client, system, [HOSPITAL], "echo_size", size=LARGE, seed=9)
    assert outbox_after(system, plan.hospitals[0], "upload.json")
    time.sleep(2)
    system.nodes["hospital-a"].kill()
    if encrypted:
        assert outbox_after(system, plan.hospitals[0], "sealed")
        assert kept_output(system, plan.hospitals[0]) == [], "no plaintext is left once it is sealed"
    system.start_nodes(["hospital-a"])

    assert wait(client, task["id"], timeout=120) == "completed"

    assert client.result.from_task(task["id"])["data"][0]["result"] == json.dumps(pattern(LARGE - 2, 9))
    log = system.nodes["hospital-a"].log.read_text()
    assert "Resuming the result of run" in log
    assert "echo: a result of" not in log, "the algorithm was not run again"


def test_node_goes_on_while_its_store_is_away(start_system: StartSystem, tmp_path: Path) -> None:
    plan = plan_file(tmp_path, 1, overrides={"transfer": {"retry_for": "2s"}})
    system = start_system(plan)
    client = system.client(plan.central)
    shutil.rmtree(tmp_path / "stores" / "hospital-a")
    large = create(client, system, [HOSPITAL], "echo_size", size=2 * MIB)
    small = create(client, system, [HOSPITAL], "echo_size", size=1000, seed=2)

    assert wait(client, small["id"]) == "completed"
    assert wait(client, large["id"]) == "failed"

    assert "hospital-a" in str(run_of(client, large["id"])["log"])
    assert len(kept_output(system, plan.hospitals[0])) == 1


def test_input_that_is_damaged_fails_its_own_run_only(start_system: StartSystem, tmp_path: Path) -> None:
    plan = plan_file(tmp_path, 2)
    system = start_system(plan)
    client = system.client(plan.central)
    first = create(client, system, [1], "central_echo", organizations=[2], size=2 * MIB)
    assert wait(client, first["id"]) == "completed"
    # a hospital that may not read the central store any more: its own configuration says so
    system.nodes["hospital-a"].stop()
    (tmp_path / "stores" / "elsewhere").mkdir()
    plan.hospitals[0].block["readable"] = [  # type: ignore[index]
        {"organization": 1, "location": "file://elsewhere", "path": str(tmp_path / "stores" / "elsewhere")}
    ]
    system.start_nodes(["hospital-a"])
    task = create(client, system, [1], "central_echo", organizations=[2], size=2 * MIB, seed=5)
    assert wait(client, task["id"]) in {"crashed", "completed"}

    subtask = client.request("task", params={"parent_id": task["id"]})["data"][0]
    run = run_of(client, subtask["id"])
    assert run["status"] == "start failed" or "fail" in str(run["status"])
    assert "readable" in str(run["log"])
    other = create(client, system, [3], "echo_size", size=1000)
    assert wait(client, other["id"]) == "completed"
