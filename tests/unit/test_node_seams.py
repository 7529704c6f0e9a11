"""One test per seam: each fails when vantage6 changes what the seam replaces or relies on.

A changed digest does not say that something is wrong. It says: read the new upstream code, decide whether our
override still does all that the original does, then write the new digest down.
"""

from __future__ import annotations

import hashlib
import inspect
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version

import pytest
from vantage6.algorithm.client import AlgorithmClient
from vantage6.cli.context.node import NodeContext
from vantage6.common.client.blob_storage import BlobStorageMixin
from vantage6.common.client.client_base import ClientBase
from vantage6.common.client.node_client import NodeClient
from vantage6.node import Node, proxy_server
from vantage6.node import run as stock_run
from vantage6.node.cli.node import cli_node_start
from vantage6.node.docker.docker_manager import DockerManager
from vantage6.node.docker.task_manager import DockerTaskManager

from node_ext import seams
from vantage6_largefile.errors import ConfigurationError


def digest(function: Callable[..., object]) -> str:
    source = "\n".join(line.rstrip() for line in inspect.getsource(function).splitlines())
    return hashlib.sha256(source.encode()).hexdigest()[:16]


#: What our code replaces or builds on, and the digest of its source in the tested release.
RELIED_ON: dict[str, tuple[Callable[..., object], str]] = {
    "Node.initialize": (Node.initialize, "61eca6ab1c5f1561"),
    "Node.setup_encryption": (Node.setup_encryption, "30edcc3e711f5266"),
    "Node.sync_task_queue_with_server": (Node.sync_task_queue_with_server, "37623d75e1e61550"),
    "Node.get_task_and_add_to_queue": (Node.get_task_and_add_to_queue, "f5f5bb3154deca52"),
    "Node.__add_tasks_to_queue": (Node._Node__add_tasks_to_queue, "cc7c64945c88ca4e"),
    "Node.__start_task": (Node._Node__start_task, "e765383c8cb998c0"),
    "Node.__speaking_worker": (Node._Node__speaking_worker, "28972874cfe9b7ae"),
    "Node.__proxy_server_worker": (Node._Node__proxy_server_worker, "6e86c25f093cf8b1"),
    "Node.cleanup": (Node.cleanup, "5802555d180adfdc"),
    "Node.kill_containers": (Node.kill_containers, "b5237a39fbb91af1"),
    "Node._set_task_dir": (Node._set_task_dir, "9cde3e0ea5155d93"),
    "run": (stock_run, "396dde918584a963"),
    "NodeClient.__init__": (NodeClient.__init__, "1f336027461a6a34"),
    "NodeClient.Run.list": (NodeClient.Run.list, "be6914600e82e0d5"),
    "NodeClient.Run.patch": (NodeClient.Run.patch, "82704cbe438dbe91"),
    "ClientBase.headers": (ClientBase.headers.fget, "93006bafae5c9ab2"),
    "ClientBase.refresh_token": (ClientBase.refresh_token, "8fe65b86dbb838b4"),
    "DockerManager.is_running": (DockerManager.is_running, "10842d38afe949c5"),
    "DockerManager.run": (DockerManager.run, "4ae7af3170809a2b"),
    "DockerManager.get_result": (DockerManager.get_result, "f7151974c1686ea3"),
    "DockerManager.cleanup_tasks": (DockerManager.cleanup_tasks, "7b1b54d1e81f230a"),
    "DockerManager.kill_tasks": (DockerManager.kill_tasks, "1930e13e98967674"),
    "DockerManager._set_database": (DockerManager._set_database, "73092d4f3e563d76"),
    "DockerTaskManager.__init__": (DockerTaskManager.__init__, "9f81d7a3306cf2bc"),
    "DockerTaskManager.run": (DockerTaskManager.run, "e2b3ff224df52267"),
    "DockerTaskManager._run_algorithm": (DockerTaskManager._run_algorithm, "85448cf100c8c0dd"),
    "DockerTaskManager._make_task_folders": (DockerTaskManager._make_task_folders, "abe2566fbf500016"),
    "DockerTaskManager._prepare_volumes": (DockerTaskManager._prepare_volumes, "4350ebf0b6f31852"),
    "DockerTaskManager._deserialize_run_input": (DockerTaskManager._deserialize_run_input, "7f1cdbb6653aec6c"),
    "DockerTaskManager.report_status": (DockerTaskManager.report_status, "da38ce1dc6b842b6"),
    "proxy_server.proxy_task": (proxy_server.proxy_task, "93e0db5b7fd0dc1f"),
    "proxy_server.proxy_result": (proxy_server.proxy_result, "ec16208d40e519ad"),
    "proxy_server.proxy_results": (proxy_server.proxy_results, "f8f7912fc68f4d86"),
    "proxy_server.stream_handler": (proxy_server.stream_handler, "9920fc0c4d158813"),
    "proxy_server.stream_handler_post": (proxy_server.stream_handler_post, "0bf657c9b2938e0f"),
    "AlgorithmClient.Task.create": (AlgorithmClient.Task.create, "02db5dea4b16f9ab"),
    "AlgorithmClient.Result.from_task": (AlgorithmClient.Result.from_task, "8874f8168febec52"),
    "BlobStorageMixin._upload": (BlobStorageMixin._upload_run_data_to_server, "3e3eebb757785560"),
    "BlobStorageMixin._download": (BlobStorageMixin._download_run_data_from_server, "7dda226773f3919d"),
    "BlobStorageMixin.check_if_blob_store_enabled": (BlobStorageMixin.check_if_blob_store_enabled, "46a89735c6475254"),
    "vnode-local start": (cli_node_start.callback, "8bdf39d46534bc25"),
}


@pytest.mark.parametrize("name", RELIED_ON)
def test_upstream_code_is_the_one_that_was_read(name: str) -> None:
    function, expected = RELIED_ON[name]
    assert digest(function) == expected, f"{name} changed upstream: read it again"


def test_tested_version_is_the_installed_one() -> None:
    assert version("vantage6-node") == seams.TESTED_VERSION
    seams.check_version()


def test_untested_version_is_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seams, "version", lambda _: "4.99.0")
    monkeypatch.delenv(seams.ALLOW_UNTESTED, raising=False)
    with pytest.raises(ConfigurationError, match=r"4\.99\.0.*V6LF_ALLOW_UNTESTED_VANTAGE6=1"):
        seams.check_version()
    monkeypatch.setenv(seams.ALLOW_UNTESTED, "1")
    seams.check_version()


def test_every_replaced_proxy_view_is_reached_by_its_stock_route() -> None:
    rules = {rule.endpoint: rule.rule for rule in proxy_server.app.url_map.iter_rules()}
    assert rules["stream_handler"] == "/blobstream/<string:id>"
    assert rules["stream_handler_post"] == "/blobstream"
    assert rules["proxy_task"] == "/task"
    assert rules["proxy_result"] == "/result"
    assert rules["proxy_results"] == "/result/<int:id>"


def test_overrides_really_override_mangled_names() -> None:
    for name in ("_Node__speaking_worker", "_Node__proxy_server_worker"):
        assert getattr(seams.LargeFileNode, name) is not getattr(Node, name)


def test_node_context_lacks_the_attribute_that_we_give_it() -> None:
    # When upstream mends this, the seam can go.
    assert "running_in_docker" not in vars(NodeContext) or NodeContext.running_in_docker is False


def test_nothing_is_replaced_by_importing_the_seams() -> None:
    code = (
        "import node_ext.seams, vantage6.node as n, vantage6.node.docker.docker_manager as d;"
        "assert n.Node.__module__ == 'vantage6.node', n.Node;"
        "assert n.run.__module__ == 'vantage6.node';"
        "assert d.DockerTaskManager.__module__ == 'vantage6.node.docker.task_manager'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_container_gets_its_own_folder_and_the_databases_but_not_the_volume() -> None:
    stock = {
        "tmpvol": {"bind": "/mnt/tmp", "mode": "rw"},
        "node-vol": {"bind": "/mnt/data", "mode": "rw"},
        "/srv/scans": {"bind": "/mnt/scans", "mode": "ro"},
    }
    narrowed = seams.narrow_volumes(
        stock,
        data_folder="/mnt/data",
        task_folder="task-000000007",
        host_folder="/var/lib/docker/volumes/node-vol/_data",
        database_files=["patients.csv"],
    )
    assert narrowed == {
        "tmpvol": {"bind": "/mnt/tmp", "mode": "rw"},
        "/srv/scans": {"bind": "/mnt/scans", "mode": "ro"},
        "/var/lib/docker/volumes/node-vol/_data/task-000000007": {"bind": "/mnt/data/task-000000007", "mode": "rw"},
        "/var/lib/docker/volumes/node-vol/_data/patients.csv": {"bind": "/mnt/data/patients.csv", "mode": "ro"},
    }
