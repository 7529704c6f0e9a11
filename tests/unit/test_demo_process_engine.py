"""The stand-in for a Docker engine: real child processes, seen through the calls that a node makes."""

from __future__ import annotations

import base64
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("vantage6.algorithm.tools", reason="the demo's extra is not installed")

from docker.errors import APIError, ImageNotFound, NotFound

from vantage6_largefile.demo.process_container import rewritten
from vantage6_largefile.demo.process_engine import Container, ProcessEngine

IMAGE = "127.0.0.1:5999/algorithm:1"
DEMO_IMAGE = "127.0.0.1:5999/demo:1"

# A module as an image would bring it; the stock wrapper calls these functions by name.
ALGORITHM = """
import os, subprocess, sys, time
from pathlib import Path

def environment():
    return dict(os.environ)

def speak(lines, pause):
    for number in range(lines):
        print(f"line {number}", flush=True)
        time.sleep(pause)
    print("no end of line", end="")
    print("to stderr", file=sys.stderr)
    return "said"

def leave(code):
    os._exit(code)

def fail():
    raise ValueError("cannot")

def sleep(mark):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(mark).write_text(f"{os.getpid()} {child.pid}")
    time.sleep(600)

def leave_a_child(mark):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(mark).write_text(str(child.pid))
    return "left"

def write_to_tmp():
    (Path(os.environ["TEMPORARY_FOLDER"]) / "shared").write_text("by an algorithm")
    return Path(os.environ["DEFAULT_DATABASE_URI"]).read_text()
"""


def encoded(value: str) -> str:
    """As the node encodes environment variables."""
    return base64.b32encode(value.encode()).decode().replace("=", "!")


def decoded(value: str) -> str:
    return base64.b32decode(value.replace("!", "=")).decode()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def eventually(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.02)


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "tested_algorithm.py").write_text(ALGORITHM)
    return folder


@pytest.fixture
def make_engine(tmp_path: Path, modules: Path) -> Iterator[Callable[[], ProcessEngine]]:
    def make() -> ProcessEngine:
        return ProcessEngine(
            tmp_path / "engine",
            {IMAGE: "tested_algorithm", DEMO_IMAGE: "vantage6_largefile.demo.algorithm"},
            image_environment={"PYTHONPATH": str(modules)},
        )

    yield make
    for container in make().containers.list(all=True):
        container.remove(force=True)


@pytest.fixture
def engine(make_engine: Callable[[], ProcessEngine]) -> ProcessEngine:
    return make_engine()


@pytest.fixture
def run(engine: ProcessEngine, tmp_path: Path) -> Callable[..., Container]:
    """Start a function of the algorithm the way a node does."""

    def start(method: str, *, number: int = 1, image: str = IMAGE, **kwargs: object) -> Container:
        folder = tmp_path / "volume" / f"task-{number:09d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "input").write_text(json.dumps({"method": method, "kwargs": kwargs}))
        (folder / "output").write_bytes(b"")
        (folder / "token").write_text("token")
        return engine.containers.run(
            image,
            detach=True,
            environment={
                "INPUT_FILE": encoded(f"/mnt/data/{folder.name}/input"),
                "OUTPUT_FILE": encoded(f"/mnt/data/{folder.name}/output"),
                "TOKEN_FILE": encoded(f"/mnt/data/{folder.name}/token"),
                "TEMPORARY_FOLDER": encoded("/mnt/tmp"),
                "HOST": encoded("http://host.docker.internal"),
                "DEFAULT_DATABASE_URI": encoded("/mnt/data/default.csv"),
                "RUN_CONTEXT_FILE": f"/mnt/data/{folder.name}/context",
            },
            network="isolated",
            volumes={
                "job-volume": {"bind": "/mnt/tmp", "mode": "rw"},
                folder.parent: {"bind": "/mnt/data", "mode": "rw"},
                str(tmp_path / "database.csv"): {"bind": "/mnt/data/default.csv", "mode": "ro"},
            },
            name=f"vantage6-node-run-{number}",
            labels={"vantage6-type": "algorithm", "node": "one", "run_id": str(number)},
            device_requests=[],
        )

    (tmp_path / "database.csv").write_text("text,label\n")
    return start


def output(tmp_path: Path, number: int = 1) -> bytes:
    return (tmp_path / "volume" / f"task-{number:09d}" / "output").read_bytes()


# --- life and death ------------------------------------------------------------------------------------------------


def test_an_algorithm_runs_and_leaves_its_output(run: Callable[..., Container], tmp_path: Path) -> None:
    container = run("write_to_tmp")

    assert container.status == "running"
    assert container.wait(30) == {"StatusCode": 0}
    assert container.status == "running"  # as with docker: until asked again
    container.reload()
    assert container.status == "exited"
    assert container.attrs["State"]["ExitCode"] == 0
    assert json.loads(output(tmp_path)) == "text,label\n"
    assert (tmp_path / "engine" / "volumes" / "job-volume" / "shared").read_text() == "by an algorithm"


@pytest.mark.parametrize(("method", "kwargs", "code"), [("leave", {"code": 7}, 7), ("fail", {}, 1)])
def test_exit_codes_are_the_algorithms(
    run: Callable[..., Container], method: str, kwargs: dict[str, int], code: int
) -> None:
    assert run(method, **kwargs).wait(30) == {"StatusCode": code}


def test_a_failure_is_in_the_log(run: Callable[..., Container]) -> None:
    container = run("fail")
    container.wait(30)

    assert b"cannot" in container.logs()


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (lambda container: container.kill(), 137),
        (lambda container: container.kill(signal.SIGTERM), 143),
        (lambda container: container.stop(timeout=20), 143),
    ],
    ids=["kill", "kill with SIGTERM", "stop"],
)
def test_ending_a_container_ends_its_whole_process_group(
    run: Callable[..., Container], tmp_path: Path, end: Callable[[Container], None], code: int
) -> None:
    mark = tmp_path / "mark"
    container = run("sleep", mark=str(mark))
    eventually(lambda: mark.exists() and " " in mark.read_text())
    pids = [int(pid) for pid in mark.read_text().split()]
    assert all(map(alive, pids))

    end(container)

    assert container.wait(20) == {"StatusCode": code}
    eventually(lambda: not any(map(alive, pids)))


def test_an_algorithm_that_dies_of_a_signal_has_that_exit_code(run: Callable[..., Container], tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    container = run("sleep", mark=str(mark))
    eventually(lambda: mark.exists() and " " in mark.read_text())

    os.kill(int(mark.read_text().split()[0]), signal.SIGSEGV)

    assert container.wait(20) == {"StatusCode": 128 + signal.SIGSEGV}


def test_children_left_behind_end_with_the_container(run: Callable[..., Container], tmp_path: Path) -> None:
    mark = tmp_path / "mark"

    assert run("leave_a_child", mark=str(mark)).wait(30) == {"StatusCode": 0}

    eventually(lambda: not alive(int(mark.read_text())))


def test_an_ended_container_cannot_be_killed_but_stopped(run: Callable[..., Container]) -> None:
    container = run("leave", code=0)
    container.wait(30)

    container.stop()
    with pytest.raises(APIError):
        container.kill()


def test_a_running_container_is_removed_only_with_force(
    engine: ProcessEngine, run: Callable[..., Container], tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    container = run("sleep", mark=str(mark))
    eventually(lambda: mark.exists() and " " in mark.read_text())

    with pytest.raises(APIError):
        container.remove()
    container.remove(force=True)

    assert not any(alive(int(pid)) for pid in mark.read_text().split())
    with pytest.raises(NotFound):
        container.reload()
    with pytest.raises(NotFound):
        engine.containers.get(container.id)
    assert engine.containers.list(all=True) == []


# --- logs ----------------------------------------------------------------------------------------------------------


def test_logs_are_streamed_line_by_line_until_the_end(run: Callable[..., Container]) -> None:
    container = run("speak", lines=3, pause=0.1)
    seen_while_running = []
    lines = []

    for line in container.logs(stream=True):
        lines.append(line)
        if line == b"line 0\n":
            container.reload()
            seen_while_running.append(container.status)

    assert seen_while_running == ["running"]
    assert [line for line in lines if line.startswith(b"line")] == [b"line 0\n", b"line 1\n", b"line 2\n"]
    assert b"".join(lines) == container.logs()
    assert b"to stderr" in container.logs()


def test_a_stream_of_logs_survives_the_removal_of_its_container(run: Callable[..., Container]) -> None:
    container = run("speak", lines=1, pause=0)
    stream = container.logs(stream=True)
    container.wait(30)
    container.remove()

    assert b"line 0\n" in list(stream)


# --- environment ---------------------------------------------------------------------------------------------------


def test_paths_in_the_environment_are_those_of_this_machine(run: Callable[..., Container], tmp_path: Path) -> None:
    run("environment").wait(30)

    seen = json.loads(output(tmp_path))

    folder = tmp_path / "volume" / "task-000000001"
    assert seen["INPUT_FILE"] == str(folder / "input")
    assert seen["RUN_CONTEXT_FILE"] == str(folder / "context")
    assert seen["TEMPORARY_FOLDER"] == str(tmp_path / "engine" / "volumes" / "job-volume")
    assert seen["DEFAULT_DATABASE_URI"] == str(tmp_path / "database.csv")
    assert seen["HOST"] == "http://127.0.0.1"


def test_nothing_of_the_nodes_environment_reaches_an_algorithm(
    run: Callable[..., Container], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGE_SECRET", "hunter2")

    run("environment").wait(30)

    seen = json.loads(output(tmp_path))
    given = {
        "INPUT_FILE",
        "OUTPUT_FILE",
        "TOKEN_FILE",
        "TEMPORARY_FOLDER",
        "HOST",
        "DEFAULT_DATABASE_URI",
        "RUN_CONTEXT_FILE",
    }
    brought = {"PATH", "HOME", "PKG_NAME", "PYTHONUNBUFFERED", "PYTHONPATH"}
    # what sh and Python set themselves
    own = {"PWD", "OLDPWD", "SHLVL", "_", "LC_CTYPE"}
    assert set(seen) - own == given | brought
    assert Path(seen["HOME"]).is_relative_to(tmp_path / "engine")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("/mnt/data/x", "/host/data/x"),
        ("/mnt/data", "/host/data"),
        ("/mnt/data/task-1/input", "/host/task/input"),
        ("/mnt/database/x", "/mnt/database/x"),
        ("see /mnt/data/x", "see /mnt/data/x"),
        ("8080", "8080"),
        ("", ""),
    ],
)
def test_only_values_that_begin_with_a_mount_are_rewritten(before: str, after: str) -> None:
    mounts = {"/mnt/data": "/host/data", "/mnt/data/task-1": "/host/task"}

    assert rewritten(before, mounts) == after
    assert decoded(rewritten(encoded(before), mounts)) == after


# --- finding containers --------------------------------------------------------------------------------------------


@pytest.fixture
def three(run: Callable[..., Container]) -> list[Container]:
    ended = run("leave", number=1, code=3)
    other = run("leave", number=10, code=0)
    ended.wait(30)
    other.wait(30)
    return [ended, other, run("sleep", number=2, mark="/dev/null")]


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({}, {2}),
        ({"all": True}, {1, 2, 10}),
        ({"all": True, "filters": {"label": ["node=one", "run_id=1"]}}, {1}),
        ({"all": True, "filters": {"label": "run_id=10"}}, {10}),
        ({"all": True, "filters": {"label": "run_id"}}, {1, 2, 10}),
        ({"all": True, "filters": {"label": ["node=two", "run_id=1"]}}, set()),
        ({"filters": {"label": ["vantage6-type=algorithm"]}}, {2}),
        ({"filters": {"status": "exited"}}, {1, 10}),
        # part of a name is enough, as in Docker
        ({"all": True, "filters": {"name": "vantage6-node-run-1"}}, {1, 10}),
    ],
)
def test_containers_are_listed_as_docker_lists_them(
    engine: ProcessEngine, three: list[Container], arguments: dict[str, object], names: set[int]
) -> None:
    found = engine.containers.list(**arguments)  # type: ignore[arg-type]

    assert {container.name for container in found} == {f"vantage6-node-run-{number}" for number in names}


def test_an_unknown_filter_is_refused(engine: ProcessEngine) -> None:
    with pytest.raises(APIError, match="exitcode"):
        engine.containers.list(filters={"exitcode": 3})


def test_a_container_is_found_by_name_and_id(engine: ProcessEngine, run: Callable[..., Container]) -> None:
    container = run("leave", code=0)

    assert engine.containers.get(container.name) == container
    assert engine.containers.get(container.id) == container
    assert engine.containers.get(container.id[:12]) == container
    with pytest.raises(NotFound):
        engine.containers.get("nothing-of-that-name")


def test_a_name_can_be_used_once_only(run: Callable[..., Container]) -> None:
    run("leave", code=0)

    with pytest.raises(APIError, match="already in use"):
        run("leave", code=0)


def test_another_engine_on_the_same_folder_adopts_containers(
    make_engine: Callable[[], ProcessEngine], three: list[Container], tmp_path: Path
) -> None:
    found = {container.name: container for container in make_engine().containers.list(all=True)}

    assert {name: container.status for name, container in found.items()} == {
        "vantage6-node-run-1": "exited",
        "vantage6-node-run-10": "exited",
        "vantage6-node-run-2": "running",
    }
    assert found["vantage6-node-run-1"].attrs["State"]["ExitCode"] == 3
    found["vantage6-node-run-2"].kill()
    assert three[2].wait(20) == {"StatusCode": 137}


def test_containers_survive_the_killing_of_their_node(
    make_engine: Callable[[], ProcessEngine], modules: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "volume"
    folder.mkdir()
    (folder / "input").write_text(json.dumps({"method": "speak", "kwargs": {"lines": 10, "pause": 0.1}}))
    node = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from vantage6_largefile.demo.process_engine import ProcessEngine\n"
        f"engine = ProcessEngine(Path({str(tmp_path / 'engine')!r}), {{'image': 'tested_algorithm'}},"
        f" image_environment={{'PYTHONPATH': {str(modules)!r}}})\n"
        "engine.containers.run('image', detach=True, name='survivor', labels={'run_id': '7'}, environment={\n"
        f"    'INPUT_FILE': {str(folder / 'input')!r}, 'OUTPUT_FILE': {str(folder / 'output')!r}}})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", node], check=False)
    assert ended.returncode == -signal.SIGKILL

    (container,) = make_engine().containers.list(all=True, filters={"label": "run_id=7"})

    assert container.status == "running"
    assert container.wait(30) == {"StatusCode": 0}
    assert json.loads((folder / "output").read_text()) == "said"


# --- the rest of a docker client -------------------------------------------------------------------------------------


def test_only_its_own_images_are_there(engine: ProcessEngine) -> None:
    assert engine.images.pull(IMAGE).tags == [IMAGE]
    assert [image.tags for image in engine.images.list(name=IMAGE)] == [[IMAGE]]
    assert engine.images.list(name="another") == []
    assert engine.api.inspect_distribution(IMAGE, auth_config={})["Descriptor"]["digest"].startswith("sha256:")
    for ask in (engine.images.get, engine.images.pull, engine.api.inspect_distribution):
        with pytest.raises(ImageNotFound):
            ask("another")
    with pytest.raises(ImageNotFound):
        engine.containers.run("another", detach=True)


@pytest.mark.parametrize("arguments", [{"command": "sh"}, {"device_requests": [object()]}, {"detach": False}])
def test_what_only_an_engine_can_do_is_refused(engine: ProcessEngine, arguments: dict[str, object]) -> None:
    with pytest.raises(APIError, match="use a Docker engine"):
        engine.containers.run(IMAGE, **{"detach": True, **arguments})  # type: ignore[arg-type]

    assert engine.containers.list(all=True) == []


@pytest.mark.parametrize("name", ["../outside", "a/b", ".hidden", ""])
def test_names_that_docker_refuses_are_refused(engine: ProcessEngine, name: str) -> None:
    for use in (engine.volumes.create, engine.volumes.get, engine.networks.create):
        with pytest.raises(APIError):
            use(name)


def test_volumes_keep_their_content_and_have_a_mount_point(engine: ProcessEngine) -> None:
    with pytest.raises(NotFound):
        engine.volumes.get("volume")

    Path(engine.volumes.create("volume").attrs["Mountpoint"], "file").write_text("kept")

    assert Path(engine.volumes.create("volume").attrs["Mountpoint"], "file").read_text() == "kept"
    assert engine.volumes.get("volume").name == "volume"
    engine.volumes.get("volume").remove()
    assert engine.volumes.list() == []


def test_a_network_knows_its_running_containers(engine: ProcessEngine, run: Callable[..., Container]) -> None:
    network = engine.networks.create("isolated", driver="bridge", internal=True, scope="local")
    container = run("sleep", mark="/dev/null")

    assert network.containers == [container]
    network.reload()
    assert network.attrs["Containers"][container.id]["Name"] == container.name
    with pytest.raises(APIError):
        network.remove()
    with pytest.raises(NotFound):
        network.disconnect("a-node-that-is-no-container", force=True)

    container.remove(force=True)
    network.remove()
    assert engine.networks.list(names=["isolated"]) == []


def test_it_says_loudly_that_it_isolates_nothing(
    make_engine: Callable[[], ProcessEngine], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        make_engine()

    assert "ISOLATES NOTHING" in caplog.text


# --- the demo's own algorithm, by the stock wrapper ------------------------------------------------------------------


def test_echo_size_leaves_an_output_of_exactly_that_size(run: Callable[..., Container], tmp_path: Path) -> None:
    assert run("echo_size", image=DEMO_IMAGE, size=123_457).wait(30) == {"StatusCode": 0}

    assert len(output(tmp_path)) == 123_457


def test_write_nothing_ends_well_and_leaves_nothing(run: Callable[..., Container], tmp_path: Path) -> None:
    assert run("write_nothing", image=DEMO_IMAGE).wait(30) == {"StatusCode": 0}
    assert run("write_nothing", image=DEMO_IMAGE, number=2, remove=True).wait(30) == {"StatusCode": 0}

    assert output(tmp_path) == b""
    assert not (tmp_path / "volume" / "task-000000002" / "output").exists()


@pytest.mark.parametrize("target", [None, "/etc/hostname"])
def test_write_symlink_ends_well_and_leaves_a_link(
    run: Callable[..., Container], tmp_path: Path, target: str | None
) -> None:
    assert run("write_symlink", image=DEMO_IMAGE, target=target).wait(30) == {"StatusCode": 0}

    folder = tmp_path / "volume" / "task-000000001"
    assert os.readlink(folder / "output") == (target or str(folder / "token"))


def test_look_around_lists_what_is_there_and_no_values(run: Callable[..., Container], tmp_path: Path) -> None:
    assert run("look_around", image=DEMO_IMAGE).wait(30) == {"StatusCode": 0}

    seen = json.loads(output(tmp_path))
    assert seen["root"] == str(tmp_path / "volume")
    assert seen["files"] == [f"task-000000001/{name}" for name in ("input", "output", "token")]
    assert {"INPUT_FILE", "TOKEN_FILE", "PKG_NAME"} <= set(seen["environment"])
