"""A collaboration in the middle of an upgrade: one stock node, stock clients, and what they still can do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import pytest
from vantage6.client import UserClient

from tests.e2e.tasks import create, run_of, wait
from vantage6_largefile.demo.algorithm.echo import pattern
from vantage6_largefile.demo.plan import Plan, plan_file
from vantage6_largefile.demo.runners import process_runner
from vantage6_largefile.demo.system import API_PATH, PASSWORD, System

MIB = 1 << 20
EXTENDED, STOCK = 2, 3


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[System, Plan]]:
    folder = tmp_path_factory.mktemp("mixed")
    plan = plan_file(folder, 2)
    plan.parties[2].block = None
    plan.parties[2].stock = True
    plan.largefile["max_inline_result"] = "8MiB"
    with System(folder, plan.parties, runner=process_runner(), largefile=plan.largefile) as running:
        yield running, plan


@pytest.fixture
def stock_client(system: tuple[System, Plan]) -> UserClient:
    running, plan = system
    client = UserClient("http://127.0.0.1", running.port, API_PATH, log_level="warn")
    client.authenticate(plan.central.user, PASSWORD)
    client.setup_encryption(None)
    return client


def test_stock_client_gets_small_results_of_both_nodes(system: tuple[System, Plan], stock_client: UserClient) -> None:
    running, _ = system
    task = create(stock_client, running, [EXTENDED, STOCK], "echo_size", size=5000, seed=3)
    assert wait(stock_client, task["id"]) == "completed"
    answers = [record["result"] for record in stock_client.result.from_task(task["id"])["data"]]
    assert answers == [json.dumps(pattern(5000 - 2, 3))] * 2


def test_stock_client_gets_a_medium_result_of_an_extended_node_inline(
    system: tuple[System, Plan], stock_client: UserClient
) -> None:
    running, _ = system
    task = create(stock_client, running, [EXTENDED], "echo_size", size=3 * MIB, seed=4)
    assert wait(stock_client, task["id"]) == "completed"
    assert stock_client.result.from_task(task["id"])["data"][0]["result"] == json.dumps(pattern(3 * MIB - 2, 4))


def test_stock_client_is_told_where_a_large_result_is(
    system: tuple[System, Plan], stock_client: UserClient, caplog: pytest.LogCaptureFixture
) -> None:
    running, plan = system
    task = create(stock_client, running, [EXTENDED], "echo_size", size=9 * MIB, seed=5)
    assert wait(stock_client, task["id"]) == "completed"
    with pytest.raises(Exception, match=r"Failed to stream|streaming run data"), caplog.at_level("ERROR"):
        stock_client.result.from_task(task["id"])
    assert "LargeFileClient" in caplog.text

    answer = running.client(plan.central).result.from_task(task["id"])["data"][0]["result"]
    assert answer == json.dumps(pattern(9 * MIB - 2, 5)), "our client reads it"


def test_large_result_of_a_stock_node_fails_the_run_with_the_reason(
    system: tuple[System, Plan], stock_client: UserClient
) -> None:
    running, _ = system
    task = create(stock_client, running, [STOCK], "echo_size", size=9 * MIB)
    assert wait(stock_client, task["id"]) == "failed"
    log = str(run_of(stock_client, task["id"])["log"])
    assert "largefile.max_inline_result" in log


def test_subtasks_reach_both_nodes_each_in_the_way_it_can(system: tuple[System, Plan]) -> None:
    running, plan = system
    client = running.client(plan.central)
    task = create(client, running, [1], "central_echo", organizations=[EXTENDED, STOCK], size=3 * MIB)
    assert wait(client, task["id"]) == "completed"

    result = json.loads(client.result.from_task(task["id"])["data"][0]["result"])

    expected = hashlib.sha256(pattern(3 * MIB).encode()).hexdigest()
    assert result["received"] == [{"input": expected, "result": expected, "size": 3 * MIB}] * 2
    subtask = client.request("task", params={"parent_id": task["id"]})["data"][0]
    extended = run_of(client, subtask["id"], EXTENDED)
    stock = run_of(client, subtask["id"], STOCK)
    assert extended["input_reference"] is not None
    assert stock["input_reference"] is None
    assert stock["input"]


def test_input_too_large_for_a_stock_node_names_the_organisation(system: tuple[System, Plan]) -> None:
    running, plan = system
    client = running.client(plan.central)
    task = create(client, running, [1], "central_echo", organizations=[STOCK], size=9 * MIB)
    assert wait(client, task["id"]) == "crashed"
    log = running.nodes["dhd"].log.read_text()
    assert "hospital-b" in log or "organisation 3" in log


def test_stock_client_sends_inputs_as_ever(system: tuple[System, Plan], stock_client: UserClient) -> None:
    running, _ = system
    task = create(stock_client, running, [EXTENDED, STOCK], "echo_input", payload="x" * 100_000)
    assert wait(stock_client, task["id"]) == "completed"
    for record in stock_client.result.from_task(task["id"])["data"]:
        assert json.loads(record["result"])["payload"] == "x" * 100_000
