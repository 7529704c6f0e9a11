"""Every mistake that a node can see at its start: one clear message, exit code 2, no traceback."""

from __future__ import annotations

import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
import yaml

from vantage6_largefile.demo.azurite import AzuriteServer
from vantage6_largefile.demo.processes import Children, free_port


def write_config(folder: Path, block: object) -> Path:
    path = folder / "node.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "api_key": str(uuid.uuid4()),
                "server_url": "http://127.0.0.1",
                "port": free_port(),
                "api_path": "/api",
                "task_dir": str(folder / "tasks"),
                "databases": [],
                "encryption": {"enabled": False, "private_key": ""},
                "directories": {"log": str(folder / "log"), "data": str(folder / "data")},
                "logging": {
                    "level": "INFO",
                    "use_console": True,
                    "backup_count": 1,
                    "max_size": 1024,
                    "format": "%(levelname)s %(name)s: %(message)s",
                    "datefmt": "%H:%M:%S",
                },
                "large_result_store": block,
            }
        )
    )
    return path


def start(folder: Path, block: object) -> subprocess.CompletedProcess[str]:
    config = write_config(folder, block)
    command = [sys.executable, "-m", "vantage6_largefile.demo.node", str(config)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def azure_block(server: AzuriteServer, container: str, credential: dict[str, str]) -> dict[str, object]:
    return {
        "driver": "azure",
        "account_url": server.account_url,
        "container": container,
        "credential": credential,
        "transfer": {"retry_for": "2s"},
    }


def assert_refused(answer: subprocess.CompletedProcess[str], *expected: str) -> None:
    output = answer.stdout + answer.stderr
    assert answer.returncode == 2, output
    assert "The node does not start" in output
    assert "Traceback" not in output
    for text in expected:
        assert text in output


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    block = {"driver": "file", "root": "hospital-a", "path": "relative", "treshold": "1MiB", "transfer": {"parts": 4}}
    assert_refused(
        start(tmp_path, block),
        "large_result_store.treshold",
        "threshold",
        "large_result_store.path",
        "large_result_store.transfer.parts",
    )


def test_missing_folder(tmp_path: Path) -> None:
    block = {"driver": "file", "root": "hospital-a", "path": str(tmp_path / "not-there")}
    assert_refused(start(tmp_path, block), "not-there")


def test_null_block_is_no_silent_stock_node(tmp_path: Path) -> None:
    assert_refused(start(tmp_path, None), "large_result_store")


@pytest.mark.azurite
def test_missing_container(tmp_path: Path, azurite_server: AzuriteServer) -> None:
    credential = {"type": "connection_string", "connection_string": azurite_server.connection_string}
    assert_refused(start(tmp_path, azure_block(azurite_server, "not-there", credential)), "not-there")


@pytest.mark.azurite
def test_wrong_credential(tmp_path: Path, azurite_server: AzuriteServer) -> None:
    azurite_server.create_container("startup")
    sas = azurite_server.sas("startup", "rcw")
    wrong = sas[:-8] + "AAAAAAA%3D"
    answer = start(tmp_path, azure_block(azurite_server, "startup", {"type": "sas", "sas": wrong}))
    assert_refused(answer, "azure://devstoreaccount1/startup")
    assert "sig=" not in answer.stdout + answer.stderr or "sig=***" in answer.stdout + answer.stderr


def test_unreachable_store_is_told_and_does_not_stop_the_node(tmp_path: Path) -> None:
    block = {
        "driver": "azure",
        "account_url": f"http://127.0.0.1:{free_port()}/devstoreaccount1",
        "container": "hospital-a",
        "credential": {"type": "sas", "sas": "sv=2024-01-01&sr=c&sp=rcw&sig=c2VjcmV0"},
        "transfer": {"retry_for": "2s"},
    }
    config = write_config(tmp_path, block)
    children = Children(tmp_path / "logs")
    node = children.start("node", [sys.executable, "-m", "vantage6_largefile.demo.node", str(config)])
    try:
        node.wait_for("cannot be reached", timeout=60)
        time.sleep(1)
        assert node.running, "results wait in the outbox; a store that is away at night must not keep the node down"
        text = node.log.read_text()
        assert "azure://devstoreaccount1/hospital-a" in text
        assert "c2VjcmV0" not in text
    finally:
        children.stop()
