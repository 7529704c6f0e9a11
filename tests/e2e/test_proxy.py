"""The node's proxy, asked by containers that behave, by others, and by strangers on the network."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest
import requests

from tests.e2e.tasks import create, run_of, wait
from vantage6_largefile.demo.plan import Plan, plan_file
from vantage6_largefile.demo.runners import process_runner
from vantage6_largefile.demo.system import System

MIB = 1 << 20
UNKNOWN = "3f0c8f5e-2f7e-4a59-9a0f-5d1c7f6f9b10"


class Container:
    """A running algorithm, and its way to the proxy."""

    def __init__(self, system: System, party: str, run_id: int) -> None:
        log = system.nodes[party].log.read_text()
        ports = re.findall(r"Proxy server listens on port (\d+)", log)
        self.url = f"http://127.0.0.1:{ports[-1]}"
        folder = next(one for one in system.parties if one.name == party)
        path = system.node_data(folder) / "data" / f"task-{run_id:09d}" / "token"
        deadline = time.monotonic() + 30
        while not (path.exists() and path.read_text()) and time.monotonic() < deadline:
            time.sleep(0.1)
        self.headers = {"Authorization": f"Bearer {path.read_text()}"}

    def get(self, endpoint: str, **options: object) -> requests.Response:
        return requests.get(f"{self.url}/{endpoint}", headers=self.headers, timeout=30, **options)  # type: ignore[arg-type]

    def post(self, endpoint: str, **options: object) -> requests.Response:
        return requests.post(f"{self.url}/{endpoint}", headers=self.headers, timeout=60, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[System, Plan]]:
    folder = tmp_path_factory.mktemp("proxy")
    plan = plan_file(folder, 2)
    with System(folder, plan.parties, runner=process_runner(), largefile=plan.largefile) as running:
        yield running, plan


@pytest.fixture(scope="module")
def containers(system: tuple[System, Plan]) -> tuple[Container, Container, str]:
    """Two containers of different jobs on the central node, and the id of a large result of a third job."""
    running, plan = system
    client = running.client(plan.central)
    foreign = create(client, running, [2], "echo_size", size=2 * MIB)
    assert wait(client, foreign["id"]) == "completed"
    identity = client.request("result", params={"task_id": foreign["id"]})["data"][0]["result"]
    tasks = [create(client, running, [1], "echo_size", size=100, seed=seed, pause=200) for seed in (1, 2)]
    first, second = (Container(running, "dhd", run_of(client, task["id"])["id"]) for task in tasks)  # type: ignore[arg-type]
    return first, second, str(identity)


def test_container_is_told_that_blobs_are_served(containers: tuple[Container, Container, str]) -> None:
    answer = containers[0].get("blobstream/status")
    assert (answer.status_code, answer.json()) == (200, {"blob_store_enabled": True})


@pytest.mark.parametrize("header", [None, "", "Bearer ", "Bearer nonsense", "Basic eA=="])
@pytest.mark.parametrize("call", ["GET blobstream/status", "POST blobstream", "GET result?task_id=1", "POST task"])
def test_strangers_are_refused(containers: tuple[Container, Container, str], call: str, header: str | None) -> None:
    method, endpoint = call.split()
    headers = {} if header is None else {"Authorization": header}
    answer = requests.request(
        method, f"{containers[0].url}/{endpoint}", headers=headers, json={"organizations": [{"id": 2}]}, timeout=30
    )
    assert answer.status_code == 401


def test_result_of_another_job_is_not_served(containers: tuple[Container, Container, str]) -> None:
    first, _, foreign = containers
    answer = first.get(f"blobstream/{foreign}")
    assert answer.status_code == 403
    assert "does not give its location" in answer.json()["msg"]


@pytest.mark.parametrize("identity", ["..%2f..%2fetc", "not-an-id", UNKNOWN, UNKNOWN.upper()])
def test_unknown_or_malformed_ids_are_clear_errors(containers: tuple[Container, Container, str], identity: str) -> None:
    answer = containers[0].get(f"blobstream/{identity}")
    assert answer.status_code in {400, 404, 405}


def test_input_id_is_only_valid_for_the_container_that_sent_it(
    system: tuple[System, Plan], containers: tuple[Container, Container, str]
) -> None:
    running, _ = system
    first, second, _ = containers
    sent = first.post("blobstream", data=iter([b"x" * MIB] * 3))
    assert sent.status_code == 201
    body = {
        "name": "subtask",
        "image": running.runner.image,
        "collaboration_id": 1,
        "organizations": [{"id": 2, "input": sent.json()["uuid"]}],
    }
    stolen = second.post("task", json=body)
    assert stolen.status_code == 400
    assert "not issued to this container" in stolen.json()["msg"]
    own = first.post("task", json=body)
    assert own.status_code == 201, own.text


def test_reference_in_a_containers_task_is_refused(
    system: tuple[System, Plan], containers: tuple[Container, Container, str]
) -> None:
    running, _ = system
    entry = {"id": 2, "input_reference": {"version": 1, "location": "file://hospital-b/v6lf"}}
    answer = containers[0].post(
        "task", json={"image": running.runner.image, "collaboration_id": 1, "organizations": [entry]}
    )
    assert answer.status_code == 400
    assert "only 'id' and 'input' are allowed" in answer.json()["msg"]


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"organizations": 5}', b'{"organizations": [{"id": "2"}]}'])
def test_malformed_tasks_are_clear_errors(containers: tuple[Container, Container, str], body: bytes) -> None:
    first = containers[0]
    answer = requests.post(
        f"{first.url}/task",
        data=body,
        headers={**first.headers, "Content-Type": "application/json"},
        timeout=30,
    )
    assert answer.status_code == 400
    assert "msg" in answer.json()


def test_single_result_works_where_stock_fails(
    system: tuple[System, Plan], containers: tuple[Container, Container, str]
) -> None:
    running, plan = system
    client = running.client(plan.central)
    run = client.request("run", params={"organization_id": 1})["data"][0]
    answer = containers[0].get(f"result/{run['id']}")
    assert answer.status_code == 200
    assert answer.json()["id"] == run["id"]
