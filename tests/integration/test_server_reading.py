"""Who sees whole references, who sees id and size, in every answer that shows a run."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.support import server_world
from tests.support.server_world import DHD, OLD, OTHER, PLAIN, A, B, World
from tests.support.v6server import Caller

world = server_world.world


@dataclass
class Job:
    """dhd's task with a central run at dhd and two subtask runs whose results are in the hospitals' stores."""

    parent: int
    subtask: int
    runs: dict[int, int]
    results: dict[int, dict[str, object]]
    input: dict[str, object]


@pytest.fixture(scope="module")
def job(world: World) -> Job:
    """A job in which everything is by reference."""
    parent, _ = world.task((DHD,))
    document = world.input_reference()
    entries = [{"id": each, "input_reference": document} for each in (A, B)]
    answer = world.container(DHD, parent).post("task", json=world.task_body(entries))
    assert answer.status_code == 201, answer.text
    subtask, runs = world.runs_of(answer.json()["id"])
    results = {}
    for each in (A, B):
        results[each] = world.result_reference(runs[each], store=server_world.STORES[each])
        world.finish(runs[each], results[each], by=world.node(each)).raise_for_status()
    return Job(parent, subtask, runs, results, document)


def caller_named(world: World, job: Job, name: str) -> Caller:
    """One of those who may see the runs at all."""
    callers = {
        "user of the initiator": lambda: world.user(DHD),
        "user of the run's organization": lambda: world.user(A),
        "other user": lambda: world.user(B),
        "own node": lambda: world.node(A),
        "own node without header": lambda: world.node(A, extended=False),
        "central node": lambda: world.node(DHD),
        "other node": lambda: world.node(B),
        "stock node": lambda: world.node(OLD, extended=False),
        "own node in another collaboration": lambda: world.node(A, OTHER),
        "central node in another collaboration": lambda: world.node(DHD, OTHER),
        "container of the central run": lambda: world.container(DHD, job.parent),
        "container of the central run through a stock proxy": lambda: world.container(DHD, job.parent, extended=False),
        "container of another job": lambda: world.container(DHD, world.task((DHD,))[0]),
        "container of another job on the own node": lambda: world.container(A, world.task((A,))[0]),
    }
    return callers[name]()


WHOLE = {
    "user of the initiator",
    "user of the run's organization",
    "own node",
    "central node",
    "container of the central run",
}
ALL = [
    *sorted(WHOLE),
    "other user",
    "own node without header",
    "other node",
    "stock node",
    "own node in another collaboration",
    "central node in another collaboration",
    "container of the central run through a stock proxy",
    "container of another job",
    "container of another job on the own node",
]


@pytest.mark.parametrize("name", ALL)
def test_reference_of_a_hospitals_result(world: World, job: Job, name: str) -> None:
    caller = caller_named(world, job, name)
    run_id, document = job.runs[A], job.results[A]
    limited = {key: document[key] for key in ("version", "id", "size", "media_type")}
    expected = document if name in WHOLE else limited

    single = caller.get(f"result/{run_id}").json()
    listed = caller.get("result", params={"task_id": job.subtask, "per_page": 50}).json()["data"]
    task = caller.get(f"task/{job.subtask}", params={"include": "results"}).json()
    inputs = caller.get(f"run/{run_id}").json()

    in_list = next(record for record in listed if record["id"] == run_id)
    in_task = next(record for record in task["results"] if record["id"] == run_id)
    for record in (single, in_list, in_task):
        assert record["result"] == document["id"]
        assert record["blob_storage_used"] is True
        assert record["result_reference"] == expected
    expected_input = {key: job.input[key] for key in expected}
    assert inputs["input_reference"] == expected_input
    assert inputs["blob_storage_used"] is True


def test_runs_within_a_task_are_narrowed_too(world: World, job: Job) -> None:
    task = world.node(B).get(f"task/{job.subtask}", params={"include": "runs,results"}).json()

    own = next(run for run in task["runs"] if run["id"] == job.runs[B])
    others = next(run for run in task["results"] if run["id"] == job.runs[A])
    assert own["input_reference"] == job.input
    assert set(others["result_reference"]) == {"version", "id", "size", "media_type"}
    assert job.results[A]["location"] not in str(task)


def test_no_answer_shows_the_columns_themselves(world: World, job: Job) -> None:
    records = [
        world.user(DHD).get(f"run/{job.runs[A]}").json(),
        world.user(DHD).get(f"result/{job.runs[A]}").json(),
        world.user(DHD).get("run", params={"task_id": job.subtask, "include": "task"}).json()["data"][0],
    ]

    for record in records:
        assert "result_object_id" not in record
        assert "input_object_id" not in record
    assert "result_reference" not in records[0]
    assert "result" not in records[0]
    assert "input_reference" not in records[1]


def test_include_task_shows_the_reference(world: World, job: Job) -> None:
    record = world.node(A).get(f"run/{job.runs[A]}", params={"include": "task"}).json()

    assert record["input_reference"] == job.input
    assert record["task"]["id"] == job.subtask
    assert (record["organization_id"], record["init_org_id"], record["collaboration_id"]) == (A, DHD, PLAIN)
