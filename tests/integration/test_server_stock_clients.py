"""vantage6's own client and node client, unchanged, against our server."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from vantage6.client import UserClient
from vantage6.common.client.node_client import NodeClient

from tests.support import server_world
from tests.support.server_world import DHD, IMAGE, NAMES, OLD, PLAIN, A, World, now
from tests.support.v6server import API_PATH, PASSWORD

world = server_world.world


@pytest.fixture
def user_client(world: World) -> UserClient:
    """A stock client, logged in as the user of dhd."""
    client = UserClient("http://127.0.0.1", urlsplit(world.server.url).port, API_PATH, log_level="critical")
    client.authenticate(f"user-{NAMES[DHD]}", PASSWORD)
    client.setup_encryption(None)
    return client


@pytest.fixture
def node_client(world: World) -> NodeClient:
    """What a stock node uses, logged in as the node of ``old``."""
    client = NodeClient("http://127.0.0.1", urlsplit(world.server.url).port, API_PATH)
    client.authenticate(world.keys[OLD, PLAIN])
    client.setup_encryption(None)
    return client


def test_stock_client_and_stock_node_do_a_task_together(
    world: World, user_client: UserClient, node_client: NodeClient
) -> None:
    task = user_client.task.create(
        collaboration=PLAIN,
        organizations=[OLD],
        name="n",
        image=IMAGE,
        description="d",
        input_={"method": "average", "kwargs": {"column": "age"}},
        databases=[{"label": "default"}],
    )

    run = next(each for each in node_client.run.list("open", True) if each["task"]["id"] == task["id"])
    node_client.set_task_start_time(run["id"])
    node_client.run.patch(
        run["id"],
        {"result": b'{"average": 7}', "log": "l", "status": "completed", "finished_at": now()},
        init_org_id=DHD,
    )
    results = user_client.wait_for_results(task["id"], interval=0.1)

    assert b"average" in run["input"]
    assert results["data"][0]["result"] == '{"average": 7}'
    assert user_client.run.from_task(task["id"])["data"][0]["status"] == "completed"


def test_stock_node_lists_its_runs_while_others_have_theirs_by_reference(
    world: World, user_client: UserClient, node_client: NodeClient
) -> None:
    body = world.task_body(
        [
            {"id": DHD, "input_reference": world.input_reference()},
            {"id": OLD, "input": server_world.INLINE_INPUT},
        ]
    )
    task_id = world.user(DHD).post("task", json=body).json()["id"]

    listed = [run for run in node_client.run.list("open", True) if run["task"]["id"] == task_id]

    assert [run["organization"]["id"] for run in listed] == [OLD]


def test_stock_client_is_told_where_a_result_by_reference_is(world: World, user_client: UserClient) -> None:
    task_id, runs = world.task()
    document = world.result_reference(runs[A])
    world.finish(runs[A], document).raise_for_status()

    answer = user_client.request(f"blobstream/{document['id']}")

    assert answer["msg"] == "stored at hospital-a's own container; use LargeFileClient"
    assert user_client.task.get(task_id)["status"] == "completed"
