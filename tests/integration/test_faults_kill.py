"""A process that uploads is killed at any moment; another one goes on, and the object is whole."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.support.fault_proxy import Seen
from tests.support.fault_world import MIB, World, world_of
from vantage6_largefile.config.store import SasCredential, StoreConfig
from vantage6_largefile.demo.azurite import AzuriteServer
from vantage6_largefile.location import Location
from vantage6_largefile.stores import open_store
from vantage6_largefile.transfer import TransferOptions, upload_file

pytestmark = pytest.mark.azurite

PARTS = 24
SIZE = PARTS * MIB - 1000
CONCURRENCY = 4
#: Bytes per second: slow enough that a moment in the upload can be hit, fast enough for many uploads.
LINE = 96 * MIB
_POINTS = random.Random(20_260_101)
#: At which fraction of the bytes the process dies, drawn once.
FRACTIONS = sorted(round(_POINTS.uniform(0.001, 0.999), 3) for _ in range(20))


@dataclass(frozen=True)
class Job:
    """What a child process needs to know."""

    url: str
    root: str
    sas: str
    spool: Path
    record: Path


def run(job: Job) -> None:
    """Upload, or go on uploading; in a process of its own."""
    credential = SasCredential(sas=SecretStr(job.sas))
    store = open_store(StoreConfig("azure", Location.parse(job.root), {"account_url": job.url}, credential))
    upload_file(
        store,
        job.spool,
        store.root.child("object"),
        media_type="application/octet-stream",
        options=TransferOptions(part_size=MIB, concurrency=CONCURRENCY, retry_for=30),
        session_file=job.record,
    )


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """Starts processes in which everything is imported already: forty of them would spend a minute on that."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.integration.test_faults_kill", "vantage6_largefile.stores.azure"])
    return context


@pytest.fixture(scope="module")
def spool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("kill") / "spool"
    path.write_bytes(os.urandom(SIZE))
    return path


@pytest.fixture
def world(azurite_server: AzuriteServer, tmp_path: Path) -> Iterator[World]:
    with world_of(azurite_server, tmp_path) as world:
        world.proxy.bytes_per_second = LINE
        yield world


def job_of(world: World, spool: Path, permissions: str) -> Job:
    return Job(
        f"http://127.0.0.1:{world.proxy.port}/{world.server.account}",
        str(world.direct.root),
        world.server.sas(world.container, permissions),
        spool,
        world.folder / "session",
    )


class Killing:
    """A child process that uploads, and is killed when told."""

    def __init__(self, processes: ForkServerContext, job: Job) -> None:
        self._process = processes.Process(target=run, args=(job,))
        self.killed = False

    def start(self) -> None:
        self._process.start()

    def kill(self) -> None:
        if not self.killed:
            self.killed = True
            assert self._process.pid is not None
            os.kill(self._process.pid, signal.SIGKILL)

    def wait(self) -> int | None:
        self._process.join(60)
        return self._process.exitcode


def go_on_and_check(processes: ForkServerContext, world: World, job: Job) -> None:
    """A new process goes on; then the object is there, whole, and hardly a part was sent twice."""
    assert world.objects() == []
    second = processes.Process(target=run, args=(job,))
    second.start()
    second.join(60)

    assert second.exitcode == 0
    world.assert_whole(job.spool)
    assert not job.record.exists()
    sent = world.proxy.parts()
    assert sorted(sent) == list(range(1, PARTS + 1))
    again = sum(len(requests) - 1 for requests in sent.values())
    assert again <= CONCURRENCY


@pytest.mark.parametrize("permissions", ["rcwdl", "cw"], ids=["full", "write-only"])
@pytest.mark.parametrize("fraction", FRACTIONS)
def test_upload_resumes_after_kill(
    processes: ForkServerContext, world: World, spool: Path, fraction: float, permissions: str
) -> None:
    job = job_of(world, spool, permissions)
    first = Killing(processes, job)
    world.proxy.on_body = lambda total: first.kill() if total >= fraction * SIZE else None
    first.start()
    assert first.wait() == -signal.SIGKILL
    world.proxy.on_body = None

    go_on_and_check(processes, world, job)


@pytest.mark.parametrize("permissions", ["rcwdl", "cw"], ids=["full", "write-only"])
def test_upload_resumes_after_kill_just_before_the_commit(
    processes: ForkServerContext, world: World, spool: Path, permissions: str
) -> None:
    job = job_of(world, spool, permissions)
    first = Killing(processes, job)

    def die(seen: Seen) -> None:
        if "comp=blocklist" in seen.target and seen.method == "PUT" and not first.killed:
            first.kill()
            # The request has not gone on: for the store there never was a commit.
            raise ConnectionAbortedError

    world.proxy.on_request = die
    first.start()
    assert first.wait() == -signal.SIGKILL
    world.proxy.on_request = None

    go_on_and_check(processes, world, job)
    assert all(len(requests) == 1 for requests in world.proxy.parts().values())


@pytest.mark.parametrize("permissions", ["rcwdl", "cw"], ids=["full", "write-only"])
def test_commit_that_worked_is_found_after_kill(
    processes: ForkServerContext, world: World, spool: Path, permissions: str
) -> None:
    """The store has committed, the process died before it heard of it: the next one must not call it a failure."""
    job = job_of(world, spool, permissions)
    first = Killing(processes, job)
    world.proxy.on_answer = lambda seen: first.kill() if "comp=blocklist" in seen.target else None
    first.start()
    assert first.wait() == -signal.SIGKILL
    world.proxy.on_answer = None
    assert world.objects() == [str(world.location)]

    second = processes.Process(target=run, args=(job,))
    second.start()
    second.join(60)

    assert second.exitcode == 0
    world.assert_whole(spool)
    assert not job.record.exists()
    assert all(len(requests) == 1 for requests in world.proxy.parts().values())
