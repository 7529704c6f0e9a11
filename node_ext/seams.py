"""Every touch of vantage6's node internals, in one place.

Written against vantage6-node 4.15.2. Each override says which upstream code it replaces; for each one there is a
test in ``tests/unit/test_node_seams.py`` that fails when upstream changes it. Nothing here is in force until
:func:`install` was called, and that only happens when the configuration has a ``large_result_store`` block.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import vantage6.common.context
import vantage6.common.docker.addons
import vantage6.common.docker.network_manager
import vantage6.node
import vantage6.node.docker.docker_base
import vantage6.node.docker.docker_manager
import vantage6.node.docker.task_manager
import vantage6.node.docker.utils
from cheroot.wsgi import Server as ThreadedServer
from vantage6.cli.context.node import NodeContext
from vantage6.common.client.node_client import NodeClient
from vantage6.common.log import get_file_logger
from vantage6.common.task_status import TaskStatus, has_task_failed
from vantage6.node import Node, proxy_server
from vantage6.node.docker.docker_manager import DockerManager
from vantage6.node.docker.exceptions import AlgorithmContainerNotFound, PermanentAlgorithmStartFail
from vantage6.node.docker.task_manager import DockerTaskManager

import docker
from node_ext.job import Job
from node_ext.runtime import CONFIG_KEY, Connection, Runtime
from vantage6_largefile import redaction
from vantage6_largefile.errors import ConfigurationError, LargeFileError, StoreError
from vantage6_largefile.reading import ReadableObject, input_of_record
from vantage6_largefile.wire import API_VERSION, EXTENDED_HEADER

log = logging.getLogger(__name__)

#: The only release that the overrides below were written and tested against.
TESTED_VERSION = "4.15.2"
ALLOW_UNTESTED = "V6LF_ALLOW_UNTESTED_VANTAGE6"

_stock_run = vantage6.node.run
_runtime: Runtime | None = None


def runtime() -> Runtime:
    """The runtime of this process; only the overrides below call it."""
    if _runtime is None:
        raise RuntimeError("node_ext.seams.install was not called")
    return _runtime


# --- the node --------------------------------------------------------------------------------------------------


class LargeFileNode(Node):
    """A node whose results go through the outbox."""

    def setup_encryption(self) -> None:
        """After node/__init__.py:718: the earliest point at which server, organisation and key are known."""
        super().setup_encryption()
        encrypted = bool(self.config["encryption"]["enabled"])
        client = self.client
        runtime().connect(
            Connection(
                client=client,
                organization_id=client.whoami.organization_id,
                collaboration_id=client.collaboration_id,
                encrypted=encrypted,
                cryptor=client.cryptor,
                private_key_file=self.private_key_filename() if encrypted else None,
            ),
            self._announce,
        )

    def _announce(self, job: Job, status: str) -> None:
        """The socket message of node/__init__.py:579-592, sent only after the server has the result."""
        if getattr(self, "socketIO", None) is None:
            return
        try:
            self.socketIO.emit(
                "algorithm_status_change",
                data={
                    "node_id": self.client.whoami.id_,
                    "status": status,
                    "run_id": job.run_id,
                    "task_id": job.task_id,
                    "collaboration_id": job.collaboration_id,
                    "organization_id": self.client.whoami.organization_id,
                    "parent_id": job.parent_id,
                },
                namespace="/tasks",
            )
        except Exception as error:  # noqa: BLE001 - python-socketio raises many kinds; the record is what counts
            log.warning("The status of %s could not be announced on the socket: %s", job, error)

    def sync_task_queue_with_server(self) -> None:
        """Replaces node/__init__.py:379-392, which writes decrypted inputs to the debug log."""
        if not runtime().active:
            super().sync_task_queue_with_server()
            return
        self._Node__add_tasks_to_queue(self.client.run.list(state="open", include_task=True))
        self.log.info("Received %s tasks", self.queue.qsize())

    def _Node__speaking_worker(self) -> None:
        """Replaces node/__init__.py:563-634: sending happens in the outbox, so that nothing waits behind it."""
        if not runtime().active:
            super()._Node__speaking_worker()
            return
        while True:
            try:
                self._Node__docker.collect_next()
            except Exception:
                self.log.exception("Collecting a finished algorithm failed; it is tried again.")
                time.sleep(5)

    def _Node__proxy_server_worker(self) -> None:
        """Replaces node/__init__.py:317-377: a threaded server, so that streams run beside each other."""
        if not runtime().active:
            super()._Node__proxy_server_worker()
            return
        default_host = "proxyserver" if self.ctx.running_in_docker else "host.docker.internal"
        os.environ.setdefault("PROXY_SERVER_HOST", default_host)
        port = int(os.environ.get("PROXY_SERVER_PORT", "8080"))
        proxy_server.app.config["SERVER_IO"] = self.client
        proxy_server.server_url = self.client.base_path
        level = getattr(logging, self.config["logging"]["level"].upper())
        self.proxy_log = get_file_logger("proxy_server", self.ctx.proxy_log_file, log_level_file=level)
        replace_proxy_views(runtime())
        self.proxy_http_server = start_threaded_server(port)
        os.environ["PROXY_SERVER_PORT"] = str(self.proxy_http_server.bind_addr[1])
        self.log.info("Proxy server listens on port %s", os.environ["PROXY_SERVER_PORT"])
        self.proxy_http_server.serve()

    def cleanup(self) -> None:
        """Before node/__init__.py:1256: finished containers are collected, running uploads are saved."""
        manager = getattr(self, "_Node__docker", None)
        if runtime().active and manager is not None:
            manager.collect_finished()
        super().cleanup()
        server = getattr(self, "proxy_http_server", None)
        if server is not None:
            server.stop()
        runtime().stop()


class LargeFileNodeClient(NodeClient):
    """The node's client: says that this node is extended, and leaves large inputs where they are."""

    @property
    def headers(self) -> dict[str, str]:
        """client_base.py:106 plus our header; a stock server ignores it."""
        headers: dict[str, str] = super().headers
        return headers | {EXTENDED_HEADER: str(API_VERSION)}

    class Run(NodeClient.Run):
        """Calls about runs."""

        def list(self, state: str, include_task: bool, task_id: int | None = None) -> list[dict[str, Any]]:
            """Replaces node_client.py:146-198, where one bad input stops the sync of all the others."""
            if not runtime().active:
                stock: list[dict[str, Any]] = super().list(state, include_task, task_id)
                return stock
            params = {"state": state, "node_id": str(self.parent.whoami.id_)}
            if include_task:
                params["include"] = "task"
            if task_id:
                params["task_id"] = str(task_id)
            runs: list[dict[str, Any]] = []
            page = 1
            while True:
                answer = runtime().api.call("GET", "run", params={**params, "page": str(page)})
                records = answer.get("data")
                runs += [record for record in records if isinstance(record, dict)] if isinstance(records, list) else []
                links = answer.get("links")
                if not isinstance(links, dict) or not links.get("next"):
                    break
                page += 1
            return [run for run in runs if self._prepare(run)]

        def _prepare(self, run: dict[str, Any]) -> bool:
            try:
                item = input_of_record(run, runtime().server_id)
                run["input"] = item if item is not None else self.parent.cryptor.decrypt(run["input"] or "")
            except Exception as error:  # noqa: BLE001 - whatever it is, it must not stop the other runs
                log.error("The input of run %s cannot be used: %s", run.get("id"), error)
                fail_run(run["id"], f"[vantage6-largefile] The input of this run cannot be used: {error}")
                return False
            return True


def fail_run(run_id: int, reason: str) -> None:
    """Fail a run that never started, with the reason in its log."""
    try:
        runtime().api.patch_run(run_id, {"status": "failed", "log": reason, "finished_at": _now()})
    except LargeFileError as error:
        log.error("Run %d could not be marked as failed: %s", run_id, error)


def _now() -> str:
    # With microseconds: the stock server cannot read a time without them.
    return datetime.now(timezone.utc).isoformat(timespec="microseconds")


# --- containers -------------------------------------------------------------------------------------------------


class LargeFileDockerManager(DockerManager):
    """Starts containers as stock, and hands their outputs to the outbox before it removes them."""

    def is_running(self, run_id: int) -> bool:
        """docker_manager.py:622 plus: a run whose result is in the outbox is never started again."""
        if runtime().active and runtime().outbox.owns(run_id):
            return True
        return bool(super().is_running(run_id))

    def run(self, run_id: int, task_info: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """docker_manager.py:689 with a proxy session for the container's token."""
        token = kwargs.get("token")
        if runtime().active and token is not None:
            runtime().sessions.open(
                token, run_id=run_id, task_id=task_info["id"], collaboration_id=self.client.collaboration_id
            )
        answer = super().run(run_id, task_info, *args, **kwargs)
        if runtime().active and has_task_failed(answer[0]):
            runtime().sessions.close(run_id)
        return answer

    def collect_next(self) -> None:
        """Replaces docker_manager.py:800-868: output to the outbox first, only then is the container removed."""
        while not self.failed_tasks:
            if self.collect_finished(limit=1):
                return
            time.sleep(1)
        task = self.failed_tasks.pop()
        reason = getattr(task, "failure_reason", None) or "Container failed. Check node logs for details"
        job = _job_of(task, log_text=reason)
        runtime().sessions.close(task.run_id)
        runtime().outbox.take_failed_start(job)

    def collect_finished(self, limit: int | None = None) -> int:
        """Take the outputs of containers that have exited; the number of them."""
        count = 0
        for task in list(self.active_tasks):
            try:
                if not task.is_finished():
                    continue
            except AlgorithmContainerNotFound:
                self.log.error("The container of run %s is gone.", task.run_id)
                self.active_tasks.remove(task)
                self.failed_tasks.append(task)
                continue
            job = _job_of(task, log_text=task.report_status())
            job.status = _text(task.status)
            # Raises when the disk is full: the container is still there, and the next round tries again.
            runtime().outbox.take(job, Path(task.task_folder_path))
            self.active_tasks.remove(task)
            runtime().sessions.close(task.run_id)
            task.cleanup()
            self._delete_ports(task.run_id)
            runtime().outbox.submit(job)
            count += 1
            if limit is not None and count >= limit:
                break
        return count

    def _delete_ports(self, run_id: int) -> None:
        """docker_manager.py:851: the VPN ports of the run, without stock's endless retry."""
        try:
            runtime().api.call("DELETE", "port", params={"run_id": str(run_id)})
        except LargeFileError as error:
            self.log.warning("The VPN ports of run %d were not removed at the server: %s", run_id, error)

    def cleanup(self) -> None:
        """docker_manager.py:666; a node that is no container (demo, tests) is in no network to be taken out of."""
        if vantage6.node.docker.docker_manager.running_in_docker():
            super().cleanup()
            return
        self.cleanup_tasks()
        for service in self.linked_services:
            self.isolated_network_mgr.disconnect(service)
        self.isolated_network_mgr.delete(kill_containers=True)

    def kill_tasks(self, *args: Any, **kwargs: Any) -> Any:
        """docker_manager.py:942 plus the end of the proxy sessions."""
        killed = super().kill_tasks(*args, **kwargs)
        for run in killed:
            runtime().sessions.close(run.run_id)
        return killed


def _text(status: Any) -> str:
    return str(getattr(status, "value", status))


def _job_of(task: DockerTaskManager, *, log_text: str) -> Job:
    return Job(
        run_id=task.run_id,
        task_id=task.task_id,
        parent_id=task.parent_id,
        collaboration_id=task.collaboration_id,
        initiating_organization_id=task.init_org_id,
        image=task.image,
        status=_text(task.status),
        log=log_text,
        size=None,
        media_type="application/json",
        finished_at=_now(),
        taken_at=time.time(),
    )


class LargeFileTaskManager(DockerTaskManager):
    """One container: sees only its own task folder, gets large inputs as a file that was streamed in."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.init_org_id = int(kwargs["task_info"]["init_org"]["id"])
        self.failure_reason: str | None = None
        self.docker_input: Any

    def _prepare_volumes(self, tmp_vol_name: str, token: str) -> dict[Any, dict[str, str]]:
        """Around task_manager.py:455: the input is streamed, and the mount of the whole volume is replaced."""
        if not runtime().active:
            stock: dict[Any, dict[str, str]] = super()._prepare_volumes(tmp_vol_name, token)
            return stock
        item = self.docker_input if isinstance(self.docker_input, ReadableObject) else None
        if item is not None:
            self.docker_input = b""
        volumes: dict[Any, dict[str, str]] = super()._prepare_volumes(tmp_vol_name, token)
        # task_manager.py:372 parses and logs what is left here; the file has it, memory and log need not.
        self.docker_input = b""
        if item is not None:
            self._stream_input(item)
        return narrow_volumes(
            volumes,
            data_folder=self.data_folder,
            task_folder=self.task_folder_name,
            host_folder=self._host_data_folder(),
            database_files=[
                os.path.basename(db["uri"])
                for db in self.databases.values()
                if db["is_file"] and db.get("mount_mode") != "ro"
            ],
        )

    def _stream_input(self, item: ReadableObject) -> None:
        path = os.path.join(self.task_folder_path, "input")
        try:
            with open(path, "wb") as file:
                for chunk in runtime().reader.stream(item):
                    file.write(chunk)
        except (LargeFileError, OSError) as error:
            os.truncate(path, 0)
            self.failure_reason = f"[vantage6-largefile] The input of this run could not be read: {error}"
            self.status = TaskStatus.START_FAILED
            self.log.error("%s", self.failure_reason)
            raise PermanentAlgorithmStartFail(self.failure_reason) from error

    def _host_data_folder(self) -> str:
        """Where the data volume lies on the host, since that is where the Docker engine mounts from."""
        if not vantage6.node.docker.task_manager.running_in_docker():
            return str(self._DockerTaskManager__tasks_dir)
        mountpoint = self.docker.volumes.get(self.data_volume_name).attrs.get("Mountpoint")
        if not mountpoint:
            self.failure_reason = (
                f"[vantage6-largefile] The Docker volume {self.data_volume_name} has no mount point on the host, so "
                "the container cannot be given its own folder alone. Use a volume of the 'local' driver."
            )
            self.status = TaskStatus.START_FAILED
            raise PermanentAlgorithmStartFail(self.failure_reason)
        return str(mountpoint)

    def _deserialize_run_input(self, run_input: Any) -> dict[str, Any]:
        """task_manager.py:660 for an input that lies in a file already."""
        if not isinstance(run_input, ReadableObject):
            stock: dict[str, Any] = super()._deserialize_run_input(run_input)
            return stock
        with open(os.path.join(self.task_folder_path, "input"), "rb") as file:
            parsed = json.load(file)
        return parsed if isinstance(parsed, dict) else {}


def narrow_volumes(
    volumes: Mapping[Any, dict[str, str]],
    *,
    data_folder: str,
    task_folder: str,
    host_folder: str,
    database_files: list[str],
) -> dict[Any, dict[str, str]]:
    """Replace the mount of the whole data volume by the run's own folder.

    Parameters
    ----------
    volumes : mapping
        As stock made them: docker SDK's ``{source: {"bind": …, "mode": …}}``.
    data_folder : str
        Where stock mounts the whole volume in the container.
    task_folder : str
        Name of the run's folder in it.
    host_folder : str
        The data volume on the host.
    database_files : list of str
        Files that stock copied into the volume; mounted read-only beside the folder.

    Returns
    -------
    dict
    """
    kept = {source: mount for source, mount in volumes.items() if mount["bind"] != data_folder}
    kept[os.path.join(host_folder, task_folder)] = {"bind": f"{data_folder}/{task_folder}", "mode": "rw"}
    for name in database_files:
        kept[os.path.join(host_folder, name)] = {"bind": f"{data_folder}/{name}", "mode": "ro"}
    return kept


# --- proxy ------------------------------------------------------------------------------------------------------


def replace_proxy_views(active: Runtime) -> None:
    """Replace entries of node/proxy_server.py's ``app.view_functions``; the routes stay."""
    views: dict[str, Callable[..., Any]] = {
        "stream_handler": active.proxy.get_blob,
        "stream_handler_post": active.proxy.post_blob,
        "proxy_task": active.proxy.post_task,
        "proxy_result": active.proxy.get_results,
        "proxy_results": active.proxy.get_result,
    }
    for name, view in views.items():
        if name not in proxy_server.app.view_functions:
            raise RuntimeError(f"vantage6's proxy server has no view {name!r} any more")
        proxy_server.app.view_functions[name] = view


def start_threaded_server(port: int) -> ThreadedServer:
    """A bound threaded server for the proxy; another free port when `port` is taken (stock checks macOS' errno)."""
    server = ThreadedServer(("0.0.0.0", port), proxy_server.app, numthreads=24)  # noqa: S104 - as stock
    try:
        server.prepare()
    except OSError as error:
        if error.errno != errno.EADDRINUSE and "No socket could be created" not in str(error):
            raise
        log.warning("Port %d of the proxy server is taken; a free one is used.", port)
        server = ThreadedServer(("0.0.0.0", 0), proxy_server.app, numthreads=24)  # noqa: S104
        server.prepare()
    return server


# --- switching on ----------------------------------------------------------------------------------------------


def check_version() -> None:
    """Refuse a release of vantage6-node that this was not tested with.

    Raises
    ------
    ConfigurationError
        Unless the environment variable ``V6LF_ALLOW_UNTESTED_VANTAGE6`` is 1.
    """
    found = version("vantage6-node")
    if found != TESTED_VERSION and os.environ.get(ALLOW_UNTESTED) != "1":
        raise ConfigurationError(
            [
                f"vantage6-node {found} is installed, this version of vantage6-largefile was tested with "
                f"{TESTED_VERSION} only; install that, or set {ALLOW_UNTESTED}=1 to try"
            ],
            source="the installation",
        )


def install(active: Runtime) -> None:
    """Put the overrides in force for this process."""
    global _runtime  # noqa: PLW0603 - one node per process, as vantage6's own singletons have it
    _runtime = active
    vantage6.node.Node = LargeFileNode
    vantage6.node.NodeClient = LargeFileNodeClient
    vantage6.node.DockerManager = LargeFileDockerManager
    vantage6.node.docker.docker_manager.DockerTaskManager = LargeFileTaskManager


def run(ctx: NodeContext) -> None:
    """Replaces node/__init__.py:1302: stock without a ``large_result_store`` block, extended with one.

    Ends the process with exit code 2 and the whole list of mistakes when the configuration cannot work.
    """
    if CONFIG_KEY not in ctx.config:
        _stock_run(ctx)
        return
    redaction.install()
    try:
        check_version()
        active = Runtime(
            ctx.config[CONFIG_KEY],
            source=str(ctx.config_file),
            data_folder=Path(ctx.data_dir),
            share_logs=bool(ctx.config.get("share_algorithm_logs", True)),
        )
        active.check_store()
    except (ConfigurationError, StoreError) as error:
        log.critical("The node does not start: %s", error)
        sys.exit(2)
    install(active)
    _stock_run(ctx)


def replace_run() -> None:
    """Make the stock command line start :func:`run`."""
    vantage6.node.run = run
    give_node_context_its_attribute()


def give_node_context_its_attribute() -> None:
    """Stock's own command fails outside Docker for want of this attribute (DockerNodeContext has it)."""
    if not hasattr(NodeContext, "running_in_docker"):
        NodeContext.running_in_docker = False


# --- for nodes that do not run in a container (demo, tests) ------------------------------------------------------


def run_on_host() -> None:
    """Tell vantage6 that this process is not in a container, even where ``/.dockerenv`` exists.

    Never called for a node of a hospital: only the demo and the tests start nodes as host processes, sometimes
    on machines that were themselves made from a container image.
    """
    for module in (
        vantage6.common.docker.addons,
        vantage6.common.context,
        vantage6.node,
        vantage6.node.docker.docker_manager,
        vantage6.node.docker.task_manager,
    ):
        if not hasattr(module, "running_in_docker"):
            raise RuntimeError(f"{module.__name__} has no running_in_docker any more")
        module.running_in_docker = lambda: False


def use_engine(engine: object) -> None:
    """Replace the Docker engine by another object with the same calls (the demo's process runner).

    There is no configuration key and no environment variable for this: only code can call it.
    """
    docker.from_env = lambda *_args, **_kwargs: engine
    docker.DockerClient.from_env = classmethod(lambda _cls, *_args, **_kwargs: engine)
