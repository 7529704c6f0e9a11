"""A hospital goes back to stock node software, or never left it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import server_world
from tests.support.server_world import DHD, INLINE_INPUT, OLD, PLAIN, A, World, now

world = server_world.world


@pytest.fixture
def upgraded(world: World) -> Iterator[World]:
    """The world while the node of ``old`` is extended; afterwards it is stock again."""
    world.register(OLD)
    yield world
    world.node(OLD, extended=False).get("run", params={"state": "open"}).raise_for_status()


def post_referenced(world: World, *organizations: int) -> tuple[int, dict[int, int]]:
    """A task whose input is in the store for each of these."""
    document = world.input_reference()
    entries = [{"id": each, "input_reference": document} for each in organizations]
    answer = world.user(DHD).post("task", json=world.task_body(entries))
    assert answer.status_code == 201, answer.text
    return world.runs_of(answer.json()["id"])


def open_runs(world: World, *, extended: bool, organization: int = OLD) -> list[int]:
    """What a node gets that asks for its open runs, as stock asks."""
    node_id = next(
        node["id"]
        for node in world.user(DHD).get("node", params={"per_page": 100}).json()["data"]
        if (node["organization"]["id"], node["collaboration"]["id"]) == (organization, PLAIN)
    )
    answer = world.node(organization, extended=extended).get(
        "run", params={"state": "open", "node_id": node_id, "include": "task", "per_page": 200}
    )
    assert answer.status_code == 200, answer.text
    return [run["id"] for run in answer.json()["data"]]


def test_extended_node_sees_its_open_runs_by_reference(upgraded: World) -> None:
    _, runs = post_referenced(upgraded, OLD)

    assert runs[OLD] in open_runs(upgraded, extended=True)


def test_run_is_failed_with_a_reason_when_a_stock_node_comes_back(upgraded: World) -> None:
    task_id, runs = post_referenced(upgraded, OLD)
    _, inline = upgraded.task((OLD,))

    seen = open_runs(upgraded, extended=False)

    assert runs[OLD] not in seen
    assert inline[OLD] in seen
    record = upgraded.user(DHD).get(f"run/{runs[OLD]}").json()
    assert record["status"] == "failed"
    assert record["finished_at"] is not None
    assert "replaced by stock vantage6" in record["log"]
    assert upgraded.user(DHD).get(f"task/{task_id}").json()["status"] == "failed"


def test_siblings_that_had_not_started_fail_along_as_in_stock(upgraded: World) -> None:
    _, runs = post_referenced(upgraded, OLD, A, DHD)
    upgraded.node(A).patch(f"run/{runs[A]}", json={"started_at": now(), "status": "active"}).raise_for_status()

    open_runs(upgraded, extended=False)

    status = {each: upgraded.user(DHD).get(f"run/{runs[each]}").json()["status"] for each in runs}
    assert status == {OLD: "failed", A: "active", DHD: "failed"}


def test_stock_node_clears_the_registration(upgraded: World) -> None:
    open_runs(upgraded, extended=False)

    answer = upgraded.user(DHD).post(
        "task", json=upgraded.task_body([{"id": OLD, "input_reference": upgraded.input_reference()}])
    )

    assert answer.status_code == 409


@pytest.mark.parametrize("params", [{}, {"state": "open"}, {"include": "task"}])
def test_request_with_the_header_clears_nothing(upgraded: World, params: dict[str, str]) -> None:
    _, runs = post_referenced(upgraded, OLD)

    upgraded.node(OLD).get("run", params=params).raise_for_status()

    assert upgraded.user(DHD).get(f"run/{runs[OLD]}").json()["status"] == "pending"


def test_other_requests_without_the_header_clear_nothing_and_hide_runs_by_reference(upgraded: World) -> None:
    task_id, runs = post_referenced(upgraded, OLD)

    listed = upgraded.node(OLD, extended=False).get("run", params={"task_id": task_id}).json()["data"]

    assert listed == []
    assert upgraded.user(DHD).get(f"run/{runs[OLD]}").json()["status"] == "pending"


def test_a_users_question_for_open_runs_clears_nothing(upgraded: World) -> None:
    task_id, runs = post_referenced(upgraded, OLD)

    listed = upgraded.user(OLD).get("run", params={"state": "open", "task_id": task_id}).json()["data"]

    assert [run["id"] for run in listed] == [runs[OLD]]
    assert listed[0]["status"] == "pending"


def test_runs_in_other_collaborations_and_of_others_are_left_alone(upgraded: World) -> None:
    _, runs = post_referenced(upgraded, A)

    open_runs(upgraded, extended=False)

    assert upgraded.user(DHD).get(f"run/{runs[A]}").json()["status"] == "pending"


def test_stock_nodes_whole_round_works_inline(world: World) -> None:
    """The calls that a stock node makes for one run, as stock makes them."""
    task_id, runs = world.task((OLD,))
    node = world.node(OLD, extended=False)
    assert runs[OLD] in open_runs(world, extended=False)

    started = node.patch(f"run/{runs[OLD]}", json={"started_at": now(), "status": "active"})
    token = node.post("token/container", json={"task_id": task_id, "image": server_world.IMAGE})
    enabled = node.get("blobstream/status")
    finished = node.patch(
        f"run/{runs[OLD]}",
        json={"result": INLINE_INPUT, "log": "log", "status": "completed", "finished_at": now()},
    )

    assert [answer.status_code for answer in (started, token, enabled, finished)] == [200] * 4
    assert world.user(DHD).get(f"result/{runs[OLD]}").json()["result"] == INLINE_INPUT
