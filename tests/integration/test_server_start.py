"""Starting: the same configuration file as a stock server, and the mistakes that keep a server from starting."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests
import yaml

from server_ext import migrate
from tests.support import quiet_server, server_world, v6server  # noqa: F401  (quiet_server must be imported)

KEY = "00000000-0000-4000-8000-000000000001"
TASK: dict[str, object] = {
    "image": "x",
    "collaboration_id": 1,
    "organizations": [{"id": 1, "input": server_world.INLINE_INPUT}],
    "databases": [],
}
ENTITIES = v6server.fixture(["first"], {"all": [v6server.Member("first", KEY)]})


def config_in(folder: Path, block: dict[str, object] | None, **extra: object) -> Path:
    """A configuration with a database of its own."""
    return v6server.write_server_config(
        folder, v6server.free_port(), f"sqlite:///{folder}/vantage6.sqlite", block, extra=extra
    )


def start_that_fails(config: Path) -> tuple[int, str]:
    """The exit code and the output of a server that must not start."""
    server = v6server.launch(config)
    try:
        return server.process.wait(60), server.logged()
    finally:
        server.stop()


def test_server_starts_on_an_empty_database_and_keeps_its_id(tmp_path: Path) -> None:
    config = config_in(tmp_path, server_world.BLOCK)
    v6server.import_fixture(config, ENTITIES)
    identities = []

    for _ in range(2):
        with v6server.start_server(config) as server:
            identities.append(server.user("first").get("largefile/capabilities").json()["server_id"])

    assert identities[0] == identities[1]


def test_nodes_log_in_with_their_key(tmp_path: Path) -> None:
    config = config_in(tmp_path, server_world.BLOCK)
    v6server.import_fixture(config, ENTITIES)

    with v6server.start_server(config) as server:
        answer = server.node(KEY).put("largefile/nodes/me", json={"version": "1.0"})

    assert answer.status_code == 200


def test_without_the_block_it_is_a_stock_server_and_says_so(tmp_path: Path) -> None:
    config = config_in(tmp_path, None)
    v6server.import_fixture(config, ENTITIES, upgrade=False)

    with v6server.start_server(config) as server:
        user = server.user("first")
        made = user.post("task", json=TASK)
        flagged = user.post(
            "task", json={**made.request_body} if hasattr(made, "request_body") else {"largefile_client": True}
        )
        ours = user.get("largefile/capabilities")
        run = user.get("run").json()["data"][0]
        output = server.logged()

    assert made.status_code == 201
    assert flagged.status_code == 400
    assert ours.status_code == 404
    assert "input_reference" not in run
    assert "no 'largefile' block" in output
    assert migrate.check(f"sqlite:///{tmp_path}/vantage6.sqlite").revision is None


def test_server_without_the_block_works_on_a_database_with_references(tmp_path: Path) -> None:
    config = config_in(tmp_path, {"locations": {1: ["azure://acct/first"]}, "max_inline_result": "1KiB"})
    v6server.import_fixture(config, ENTITIES)
    with v6server.start_server(config) as server:
        user, node = server.user("first"), server.node(KEY)
        identity = user.get("largefile/capabilities").json()["server_id"]
        made = user.post("task", json={**TASK, "largefile_client": True})
        run_id = user.get("run", params={"task_id": made.json()["id"]}).json()["data"][0]["id"]
        document = server_world.reference(
            server_world.ResultContext(identity, 1, run_id), "azure://acct/first", 1 << 20
        )
        answer = node.patch(f"run/{run_id}", json={"result_reference": document, "finished_at": server_world.now()})
        assert answer.status_code == 200, answer.text
    settings = yaml.safe_load(config.read_text())
    del settings["largefile"]
    config.write_text(yaml.safe_dump(settings))

    with v6server.start_server(config, stock=True) as server:
        record = server.user("first").get(f"result/{run_id}").json()

    assert record["result"] is None
    assert record["blob_storage_used"] is False


def test_all_mistakes_in_the_block_are_reported_and_the_server_ends(tmp_path: Path) -> None:
    config = config_in(tmp_path, {"max_inline_result": "lots", "centralorganizations": [1], "locations": {"x": []}})

    code, output = start_that_fails(config)

    assert code == 2
    assert "largefile.max_inline_result" in output
    assert "centralorganizations" in output
    assert "largefile.locations" in output
    assert "Traceback" not in output
    assert not (tmp_path / "vantage6.sqlite").exists()


def test_stock_block_beside_ours_is_refused_with_the_advice(tmp_path: Path) -> None:
    config = config_in(
        tmp_path, server_world.BLOCK, large_result_store={"container_name": "x", "client_secret": "s3cr3t"}
    )

    code, output = start_that_fails(config)

    assert code == 2
    assert "largefile.legacy_store" in output
    assert "s3cr3t" not in output


def test_database_of_a_stock_server_is_refused_with_the_command(tmp_path: Path) -> None:
    config = config_in(tmp_path, server_world.BLOCK)
    v6server.import_fixture(config, ENTITIES, upgrade=False)

    code, output = start_that_fails(config)

    assert code == 2
    assert "v6-largefile db upgrade -c CONFIG" in output
    assert "Traceback" not in output
    assert migrate.check(f"sqlite:///{tmp_path}/vantage6.sqlite").revision is None


def test_untested_vantage6_is_refused_unless_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = (
        "import sys; import vantage6.server; from server_ext import seams; seams.TESTED_VERSION = '4.99.0';"
        "from server_ext.app import serve; serve(sys.argv[1]); print('started')"
    )
    config = config_in(tmp_path, server_world.BLOCK)

    def run(**more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", program, str(config)],
            env={**v6server.environment(tmp_path), **more},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    refused = run()
    allowed = run(V6LF_ALLOW_UNTESTED_VANTAGE6="1")

    assert refused.returncode == 2
    assert "V6LF_ALLOW_UNTESTED_VANTAGE6=1" in refused.stderr
    assert "started" in allowed.stdout, allowed.stderr


def uwsgi_binary() -> str:
    """uWSGI, from this environment or PATH."""
    beside = Path(sys.executable).with_name("uwsgi")
    found = str(beside) if beside.exists() else shutil.which("uwsgi")
    if found is None:
        server_world.missing("uWSGI is not installed (pyuwsgi has wheels).")
    return found


def uwsgi_command(config: Path, port: int) -> list[str]:
    """As upstream starts its server, with our file in the place of theirs."""
    entry = Path(migrate.__file__).with_name("wsgi.py")
    return [
        *(uwsgi_binary(), "--http", f"127.0.0.1:{port}", "--gevent", "1000", "--http-websockets"),
        *("--http-chunked-input", "--http-keepalive", "--post-buffering", "0", "--master", "--callable", "app"),
        *("--disable-logging", "--die-on-term", "--no-orphans", "--wsgi-file", str(entry), "--pyargv", str(config)),
    ]


def test_uwsgi_serves_the_entry_point(tmp_path: Path) -> None:
    config = config_in(tmp_path, server_world.BLOCK)
    v6server.import_fixture(config, ENTITIES)
    port = v6server.free_port()
    log = tmp_path / "uwsgi.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            uwsgi_command(config, port), env=_uwsgi_environment(tmp_path), stdout=output, stderr=subprocess.STDOUT
        )
    secret = yaml.safe_load(config.read_text())["jwt_secret_key"]
    server = v6server.ServerProcess(process, f"http://127.0.0.1:{port}", log, secret)
    with server:
        assert _answers(server), log.read_text()
        user, node = server.user("first"), server.node(KEY)
        capabilities = user.get("largefile/capabilities")
        made = user.post("task", json=TASK)
        registered = node.put("largefile/nodes/me", json={"version": "1"})

    assert capabilities.status_code == 200
    assert made.status_code == 201
    assert registered.status_code == 200
    assert process.returncode is not None


def test_uwsgi_ends_with_the_message_when_the_configuration_is_wrong(tmp_path: Path) -> None:
    config = config_in(tmp_path, {"nonsense": 1})

    done = subprocess.run(
        [*uwsgi_command(config, v6server.free_port()), "--need-app"],
        env=_uwsgi_environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode != 0
    assert "largefile.nonsense" in done.stderr + done.stdout


def _uwsgi_environment(folder: Path) -> dict[str, str]:
    # the embedded interpreter does not find the virtual environment by itself
    return {**v6server.environment(folder), "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def _answers(server: v6server.ServerProcess) -> bool:
    end = time.monotonic() + 60
    while time.monotonic() < end and server.process.poll() is None:
        with contextlib.suppress(requests.RequestException):
            if requests.get(f"{server.api}/health", timeout=5).ok:
                return True
        time.sleep(0.1)
    return False
