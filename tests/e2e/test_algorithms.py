"""Unmodified algorithms on the stock ``AlgorithmClient``, good ones and bad ones, on extended nodes."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.tasks import create, run_of, wait
from vantage6_largefile.client import LargeFileClient
from vantage6_largefile.demo.algorithm.echo import pattern
from vantage6_largefile.demo.plan import Plan, plan_file
from vantage6_largefile.demo.runners import process_runner
from vantage6_largefile.demo.system import System

MIB = 1 << 20
#: More than the server takes inline (16 MiB), so that nothing can slip through by value.
LARGE = 20 * MIB
HOSPITAL = 2


@pytest.fixture(scope="module", params=["plain", "encrypted"])
def system(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[System, Plan]]:
    folder = tmp_path_factory.mktemp(request.param)
    plan = plan_file(folder, 2)
    with System(
        folder,
        plan.parties,
        runner=process_runner(),
        largefile=plan.largefile,
        encrypted=request.param == "encrypted",
    ) as running:
        yield running, plan


@pytest.fixture
def client(system: tuple[System, Plan]) -> LargeFileClient:
    running, plan = system
    return running.client(plan.central)


def test_stock_algorithm_sends_large_inputs_and_reads_large_results(
    system: tuple[System, Plan], client: LargeFileClient
) -> None:
    running, _ = system
    task = create(client, running, [1], "central_echo", organizations=[2, 3], size=LARGE)
    assert wait(client, task["id"]) == "completed"

    result = json.loads(client.result.from_task(task["id"])["data"][0]["result"])

    expected = hashlib.sha256(pattern(LARGE).encode()).hexdigest()
    assert result["sent"] == expected
    assert result["received"] == [{"input": expected, "result": expected, "size": LARGE}] * 2
    subtask = client.request("task", params={"parent_id": task["id"]})["data"][0]
    runs = client.request("run", params={"task_id": subtask["id"]})["data"]
    assert {run["input_reference"]["location"].split("/")[2] for run in runs} == {"dhd"}
    assert len({run["input_reference"]["id"] for run in runs}) == 1, "sent twice by the stock client, stored once"


def test_large_result_is_in_the_hospitals_store_and_the_record_is_small(
    system: tuple[System, Plan], client: LargeFileClient
) -> None:
    running, _ = system
    task = create(client, running, [HOSPITAL], "echo_size", size=LARGE, seed=7)
    assert wait(client, task["id"]) == "completed"

    record = client.request("result", params={"task_id": task["id"]})["data"][0]
    assert record["blob_storage_used"] is True
    assert record["result"] == record["result_reference"]["id"]
    assert record["result_reference"]["location"].startswith("file://hospital-a/v6lf/")
    assert record["result_reference"]["size"] == LARGE
    assert len(json.dumps(record)) < 8192


def test_central_researcher_reads_a_result_that_looks_like_any_other(
    system: tuple[System, Plan], client: LargeFileClient
) -> None:
    running, _ = system
    small = create(client, running, [HOSPITAL], "echo_size", size=1000, seed=1)
    large = create(client, running, [HOSPITAL], "echo_size", size=LARGE, seed=2)
    assert {wait(client, small["id"]), wait(client, large["id"])} == {"completed"}

    of_small = client.wait_for_results(small["id"])["data"][0]
    of_large = client.wait_for_results(large["id"])["data"][0]

    assert of_small["result"] == json.dumps(pattern(1000 - 2, 1))
    assert of_large["result"] == json.dumps(pattern(LARGE - 2, 2))
    assert client.result.get(of_large["id"]) == of_large["result"]


def test_result_exactly_at_the_threshold_goes_to_the_store(
    system: tuple[System, Plan], client: LargeFileClient
) -> None:
    running, _ = system
    below = create(client, running, [HOSPITAL], "echo_size", size=MIB - 1)
    at = create(client, running, [HOSPITAL], "echo_size", size=MIB)
    assert {wait(client, below["id"]), wait(client, at["id"])} == {"completed"}
    records = [client.request("result", params={"task_id": task["id"]})["data"][0] for task in (below, at)]
    assert [record["blob_storage_used"] for record in records] == [False, True]


@pytest.mark.parametrize("remove", [False, True])
def test_algorithm_that_writes_nothing_fails_with_the_reason(
    system: tuple[System, Plan], client: LargeFileClient, remove: bool
) -> None:
    running, _ = system
    task = create(client, running, [HOSPITAL], "write_nothing", remove=remove)
    assert wait(client, task["id"]) == "failed"
    log = str(run_of(client, task["id"])["log"])
    assert ("left no output file" if remove else "wrote no output") in log


def test_output_that_is_a_symlink_is_not_followed(system: tuple[System, Plan], client: LargeFileClient) -> None:
    running, plan = system
    task = create(client, running, [HOSPITAL], "write_symlink")
    assert wait(client, task["id"]) == "failed"
    run = run_of(client, task["id"])
    assert "not a regular file" in str(run["log"])
    assert client.request(f"result/{run['id']}")["result"] is None
    kept = running.node_data(plan.hospitals[0]) / "data" / f"task-{run['id']:09d}" / "output"
    assert kept.is_symlink(), "what the algorithm left is kept for the administrator"


def test_crashing_algorithm_is_reported_as_such(system: tuple[System, Plan], client: LargeFileClient) -> None:
    running, _ = system
    task = create(client, running, [HOSPITAL], "no_such_method")
    assert wait(client, task["id"]) == "crashed"
    assert "no_such_method" in str(run_of(client, task["id"])["log"])


def test_nothing_is_left_in_the_outbox_and_the_spool(system: tuple[System, Plan], client: LargeFileClient) -> None:
    running, plan = system
    task = create(client, running, [1], "central_echo", organizations=[2], size=2 * MIB)
    assert wait(client, task["id"]) == "completed"
    folders = [running.node_data(party) / name for party in plan.parties for name in ("v6lf-outbox", "v6lf-spool")]
    # the server has the result a moment before the node removes its own
    deadline = time.monotonic() + 20
    while (left := [path for folder in folders for path in folder.rglob("*") if path.is_file()]) and (
        time.monotonic() < deadline
    ):
        time.sleep(0.1)
    assert left == []


def test_researcher_of_another_hospital_is_told_whose_it_is(
    system: tuple[System, Plan], client: LargeFileClient
) -> None:
    running, plan = system
    other = running.client(plan.hospitals[1])
    task = create(client, running, [HOSPITAL], "echo_size", size=LARGE)
    assert wait(client, task["id"]) == "completed"
    record = other.request("result", params={"task_id": task["id"]})["data"][0]
    assert "location" not in record["result_reference"], "the server does not give it away"
    answer = other.result.from_task(task["id"])["data"][0]
    assert answer["result"] is None
    assert "ask for the aggregated result" in answer["result_error"]


def test_secrets_and_payload_do_not_reach_the_logs(system: tuple[System, Plan], client: LargeFileClient) -> None:
    running, _ = system
    task = create(client, running, [1], "central_echo", organizations=[2, 3], size=2 * MIB, seed=99)
    assert wait(client, task["id"]) == "completed"
    payload = pattern(2 * MIB, 99)[1000:1064]
    for path in Path(running.folder / "logs").glob("*.log"):
        assert payload not in path.read_text("utf-8", "replace"), path.name
