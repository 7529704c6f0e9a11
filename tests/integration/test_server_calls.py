"""The calls that are ours: capabilities, registration, placement; and vantage6's blob route for our objects."""

from __future__ import annotations

import pytest
import requests

from tests.support import server_world
from tests.support.server_world import DHD, HOMELESS, MAX_INLINE, OLD, OTHER, PLAIN, A, B, World, now
from tests.support.v6server import Caller

world = server_world.world

BIG = MAX_INLINE + 1


def place(world: World, run_id: int, size: int = BIG, *, by: Caller | None = None) -> dict[str, str]:
    """Ask for a placement."""
    answer = (by or world.node(A)).post(
        f"largefile/runs/{run_id}/placement", json={"size": size, "media_type": "application/json"}
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


# --- who may call -------------------------------------------------------------------------------------------------


def test_capabilities_are_told_to_everybody_with_a_token(world: World) -> None:
    task_id, _ = world.task()
    callers = [world.user(B), world.node(A), world.node(A, extended=False), world.container(A, task_id)]

    answers = [caller.get("largefile/capabilities") for caller in callers]

    assert [answer.status_code for answer in answers] == [200] * 4
    assert answers[0].json() == {
        "version": 1,
        "server_id": world.server_id,
        "max_inline_result": MAX_INLINE,
        "central_organizations": [DHD],
    }


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "largefile/capabilities"), ("PUT", "largefile/nodes/me"), ("POST", "largefile/runs/1/placement")],
)
def test_no_token_or_a_bad_one_is_401(world: World, method: str, path: str) -> None:
    for headers in ({}, {"Authorization": "Bearer nonsense"}, {"Authorization": "Bearer e30.e30.e30"}):
        answer = requests.request(method, f"{world.server.api}/{path}", headers=headers, json={}, timeout=30)
        assert answer.status_code in (401, 422), answer.text
        assert "msg" in answer.json()


def test_token_of_a_user_that_is_gone_is_401(world: World) -> None:
    answer = world.server.signed(999999, "user").get("largefile/capabilities")

    assert answer.status_code == 401


@pytest.mark.parametrize(("method", "path"), [("PUT", "nodes/me"), ("POST", "runs/1/placement")])
@pytest.mark.parametrize("kind", ["user", "container"])
def test_calls_of_nodes_are_403_for_others(world: World, method: str, path: str, kind: str) -> None:
    task_id, _ = world.task()
    caller = world.user(DHD) if kind == "user" else world.container(A, task_id)

    answer = caller.request(method, f"largefile/{path}", json={"version": "1"})

    assert answer.status_code == 403
    assert "node" in answer.json()["msg"]


# --- registration -------------------------------------------------------------------------------------------------


def test_registration_can_be_repeated_with_another_version(world: World) -> None:
    first = world.node(A).put("largefile/nodes/me", json={"version": "1.0"})
    second = world.node(A).put("largefile/nodes/me", json={"version": "1.1"})

    assert (first.status_code, second.status_code) == (200, 200)
    assert second.json()["version"] == "1.1"


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        {},
        {"version": 1},
        {"version": ""},
        {"version": "x" * 65},
        {"version": "1", "x": 1},
        {"version": "\x00"},
    ],
    ids=repr,
)
def test_malformed_registration_is_400(world: World, body: object) -> None:
    assert world.node(A).put("largefile/nodes/me", json=body).status_code == 400


# --- placement ----------------------------------------------------------------------------------------------------


def test_result_of_our_clients_task_goes_to_the_store(world: World) -> None:
    _, runs = world.task(client=True)

    assert place(world, runs[A], 0)["placement"] == "reference"
    assert place(world, runs[A], BIG)["placement"] == "reference"


def test_result_of_a_stock_clients_task_goes_to_the_store_only_above_the_limit(world: World) -> None:
    _, runs = world.task(client=False)

    assert place(world, runs[A], MAX_INLINE)["placement"] == "inline"
    assert place(world, runs[A], BIG)["placement"] == "reference"


def test_organization_without_location_stays_inline_or_is_refused(world: World) -> None:
    _, runs = world.task((HOMELESS,))
    node = world.node(HOMELESS)

    assert place(world, runs[HOMELESS], MAX_INLINE, by=node)["placement"] == "inline"
    refusal = place(world, runs[HOMELESS], BIG, by=node)
    assert refusal["placement"] == "refuse"
    assert "largefile.locations" in refusal["reason"]


def test_subtask_of_the_central_node_goes_to_the_store(world: World) -> None:
    parent, _ = world.task((DHD,))
    _, runs = world.task((A, B), by=world.container(DHD, parent), client=False)

    assert place(world, runs[A])["placement"] == "reference"
    assert place(world, runs[B], by=world.node(B))["placement"] == "reference"


def test_subtask_of_a_node_that_is_not_central(world: World) -> None:
    parent, _ = world.task((A,))
    _, runs = world.task((A, B), by=world.container(A, parent), client=False)

    own = place(world, runs[A])
    others = place(world, runs[B], by=world.node(B))
    small = place(world, runs[B], MAX_INLINE, by=world.node(B))

    assert own["placement"] == "reference"
    assert others["placement"] == "refuse"
    assert "hospital-a" in others["reason"]
    assert "largefile.central_organizations" in others["reason"]
    assert small["placement"] == "inline"


def test_subtask_of_a_stock_node(world: World) -> None:
    parent, _ = world.task((OLD,))
    _, runs = world.task((A,), by=world.container(OLD, parent, extended=False), client=False)

    answer = place(world, runs[A])

    assert answer["placement"] == "refuse"
    assert "'old - plain Node'" in answer["reason"]
    assert "no large file support" in answer["reason"]


def test_subtask_of_two_nodes_needs_both_to_be_able(world: World) -> None:
    parent, _ = world.task((DHD, B))
    _, runs = world.task((A,), by=world.container(DHD, parent), client=False)

    answer = place(world, runs[A])

    assert answer["placement"] == "refuse"
    assert "hospital-b" in answer["reason"]


def test_reference_that_the_parents_reader_cannot_read_is_refused_at_the_patch(world: World) -> None:
    parent, _ = world.task((A,))
    _, runs = world.task((B,), by=world.container(A, parent), client=False)

    answer = world.finish(runs[B], world.result_reference(runs[B], store=server_world.STORES[B]), by=world.node(B))

    assert answer.status_code == 409
    assert "hospital-a" in answer.json()["msg"]


def test_placement_is_for_own_runs_only(world: World) -> None:
    _, runs = world.task()
    body = {"size": 1, "media_type": "application/json"}

    for other in (world.node(B), world.node(A, OTHER), world.node(DHD)):
        assert other.post(f"largefile/runs/{runs[A]}/placement", json=body).status_code == 401
    assert world.node(A).post("largefile/runs/123456789/placement", json=body).status_code == 404
    assert world.node(A).post(f"largefile/runs/{10**20}/placement", json=body).status_code == 404
    assert world.node(A).post("largefile/runs/x/placement", json=body).status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        {},
        {"size": 1},
        {"size": -1, "media_type": "application/json"},
        {"size": 1.5, "media_type": "application/json"},
        {"size": "1", "media_type": "application/json"},
        {"size": True, "media_type": "application/json"},
        {"size": 2**60, "media_type": "application/json"},
        {"size": 1, "media_type": "text/html"},
        {"size": 1, "media_type": "application/json", "x": 1},
    ],
    ids=repr,
)
def test_malformed_placement_request_is_400(world: World, body: object) -> None:
    _, runs = world.task()

    answer = world.node(A).post(f"largefile/runs/{runs[A]}/placement", json=body)

    assert answer.status_code == 400


# --- blobstream ---------------------------------------------------------------------------------------------------


def test_blob_status_is_false_for_everybody(world: World) -> None:
    task_id, _ = world.task()

    for caller in (world.user(DHD), world.node(A), world.node(A, extended=False), world.container(A, task_id)):
        assert caller.get("blobstream/status").json() == {"blob_store_enabled": False}


def test_bytes_of_a_result_are_a_409_that_says_where_they_are(world: World) -> None:
    _, runs = world.task()
    document = world.result_reference(runs[A])
    world.finish(runs[A], document).raise_for_status()

    answer = world.user(DHD).get(f"blobstream/{document['id']}")

    assert answer.status_code == 409
    assert answer.json() == {
        "msg": "stored at hospital-a's own container; use LargeFileClient",
        "id": document["id"],
        "run_id": runs[A],
        "field": "result",
    }


def test_bytes_of_an_input_are_a_409_about_the_callers_own_run(world: World) -> None:
    document = world.input_reference()
    body = world.task_body([{"id": A, "input_reference": document}, {"id": B, "input_reference": document}])
    task = world.user(DHD).post("task", json=body).json()
    _, runs = world.runs_of(task["id"])

    answer = world.node(B).get(f"blobstream/{document['id']}")

    assert answer.status_code == 409
    assert (answer.json()["run_id"], answer.json()["field"]) == (runs[B], "input")
    assert answer.json()["msg"].startswith("stored at dhd's own container")


def test_existence_of_an_object_is_told_only_to_who_may_see_the_run(world: World) -> None:
    _, runs = world.task(collaboration=OTHER)
    document = world.result_reference(runs[A], collaboration=OTHER)
    world.finish(runs[A], document, by=world.node(A, OTHER)).raise_for_status()

    outsider = world.node(OLD).get(f"blobstream/{document['id']}")

    assert outsider.status_code == 401
    assert document["id"] not in outsider.text


@pytest.mark.parametrize("object_id", ["3f0c8f5e-2f7e-4a59-9a0f-5d1c7f6f9b10", "x", "status2", "%2e%2e"])
def test_unknown_bytes_are_404_as_in_stock(world: World, object_id: str) -> None:
    assert world.user(DHD).get(f"blobstream/{object_id}").status_code == 404


def test_posting_bytes_is_501_as_in_stock_without_a_store(world: World) -> None:
    assert world.node(A).post("blobstream", data=b"x").status_code == 501


def test_sorting_and_paging_runs_still_work(world: World) -> None:
    _, runs = world.task()
    world.finish(runs[A], world.result_reference(runs[A]), finished_at=now()).raise_for_status()

    answer = world.user(DHD).get("run", params={"per_page": 2, "sort": "-id", "collaboration_id": PLAIN})

    assert answer.status_code == 200
    assert len(answer.json()["data"]) == 2
