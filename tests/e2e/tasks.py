"""Creating tasks and waiting for them, as a researcher does."""

from __future__ import annotations

import time

from vantage6.client import UserClient

from vantage6_largefile.demo.system import System


def create(client: UserClient, system: System, where: list[int], method: str, **kwargs: object) -> dict[str, object]:
    """Create a task with the demo's algorithm."""
    return client.task.create(  # type: ignore[no-any-return]
        collaboration=1,
        organizations=where,
        name=method,
        image=system.runner.image,
        description="test",
        input_={"method": method, "kwargs": kwargs},
    )


def wait(client: UserClient, task_id: object, timeout: float = 120) -> str:
    """Wait for the end of a task; its status."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        status = client.request(f"task/{task_id}/status").get("status")
        if status not in {None, "pending", "initializing", "active"}:
            return str(status)
        time.sleep(0.3)
    raise AssertionError(f"task {task_id} did not end within {timeout} s")


def run_of(client: UserClient, task_id: object, organization: int | None = None) -> dict[str, object]:
    """The (only) run of a task, without its input being fetched."""
    runs = client.request("run", params={"task_id": task_id})["data"]
    if organization is not None:
        runs = [run for run in runs if run["organization"]["id"] == organization]
    assert len(runs) == 1
    return runs[0]  # type: ignore[no-any-return]
