"""A whole vantage6 system on this machine: one server, one node daemon for each party, each its own process.

The demo and the end-to-end tests start it. It is no way to run a hospital's node: the nodes are host processes,
and with the process runner nothing isolates the algorithms.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import requests
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from vantage6_largefile.client import LargeFileClient
from vantage6_largefile.demo.processes import Child, Children, ProcessFailed, free_port

log = logging.getLogger(__name__)

API_PATH = "/api"
PASSWORD = "demo-password-1!"  # noqa: S105 - of a server that lives for one demo on the loopback interface
COLLABORATION = "icd-coding"

Config = dict[str, object]


@dataclass
class Party:
    """One organisation with its node.

    Attributes
    ----------
    name : str
    organization_id : int
        1, 2, …: the order in which the fixture creates them.
    block : dict or None
        ``large_result_store`` of its node; None for a stock node.
    database : Path or None
        CSV file behind the label ``default``.
    stock : bool
        Start vantage6's own node, untouched.
    """

    name: str
    organization_id: int
    block: Config | None = field(default=None, repr=False)
    database: Path | None = None
    stock: bool = False
    api_key: str = field(default_factory=lambda: str(uuid.uuid4()), repr=False)

    @property
    def user(self) -> str:
        """Login name of its researcher."""
        return f"researcher-{self.name}"


@dataclass(frozen=True)
class Runner:
    """How algorithms run.

    Attributes
    ----------
    kind : str
        ``docker``, or ``process``: as child processes, isolated by nothing.
    image : str
        Name of the algorithm image.
    module : str
        Python module behind the image, for the process runner.
    proxy_host : str
        Where a container reaches its node's proxy.
    """

    kind: str
    image: str
    module: str
    proxy_host: str = "127.0.0.1"


class System:
    """Server and nodes; a context manager that leaves nothing running.

    Parameters
    ----------
    folder : Path
        For configurations, data and logs.
    parties : sequence of Party
    runner : Runner
    largefile : mapping or None
        The server's block; None starts the stock server.
    encrypted : bool
    db_uri : str, optional
        Default: an SQLite file in `folder`.
    log_level : str
        Of server and nodes.
    """

    def __init__(
        self,
        folder: Path,
        parties: Sequence[Party],
        *,
        runner: Runner,
        largefile: Mapping[str, object] | None,
        encrypted: bool = False,
        db_uri: str | None = None,
        log_level: str = "INFO",
    ) -> None:
        self.folder = folder
        self.parties = list(parties)
        self.runner = runner
        self.encrypted = encrypted
        self.database_file = folder / "server" / "server.sqlite"
        self.db_uri = db_uri or f"sqlite:///{self.database_file}"
        self.port = free_port()
        self.children = Children(folder / "logs")
        self.nodes: dict[str, Child] = {}
        self.server: Child | None = None
        self._largefile = largefile
        self._log_level = log_level

    # --- life ---------------------------------------------------------------------------------------------------

    def __enter__(self) -> System:
        try:
            self.start_server()
            self.start_nodes()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start_server(self) -> None:
        """Make the database (as the stock server does), upgrade it, start the server."""
        folder = self.folder / "server"
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / "server.yaml"
        config.write_text(yaml.safe_dump(self._server_config()), "utf-8")
        fixture = folder / "fixture.yaml"
        fixture.write_text(yaml.safe_dump(self._fixture()), "utf-8")
        python = [sys.executable, "-m"]
        self._run("import", [*python, "server_ext.fixture", str(config), str(fixture)])
        if self._largefile is not None:
            self._run("upgrade", [*python, "vantage6_largefile.cli.main", "db", "upgrade", "-c", str(config)])
        # Without a largefile block this is the stock server.
        self.launch_server([*python, "vantage6_largefile.cli.main", "server", "start", "-c", str(config)])

    def launch_server(self, command: Sequence[str]) -> None:
        """Start the server process and wait until it answers."""
        self.server = self.children.start("server", command, environment=self._folders("server"))
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            try:
                if requests.get(f"{self.base_url}/health", timeout=5).ok:
                    return
            except requests.RequestException:
                pass
            if not self.server.running:
                raise ProcessFailed(f"The server ended:\n{self.server.tail()}")
            time.sleep(0.3)
        raise ProcessFailed(f"The server does not answer:\n{self.server.tail()}")

    def start_nodes(self, names: Sequence[str] | None = None) -> None:
        """Start the node daemons and wait until all are ready."""
        chosen = [party for party in self.parties if names is None or party.name in names]
        for party in chosen:
            self._start_node(party)
        for party in chosen:
            self.nodes[party.name].wait_for("Init complete", timeout=120)

    def stop(self) -> None:
        """End everything that was started."""
        self.children.stop()
        if self.runner.kind == "docker":
            from vantage6_largefile.demo.docker_cleanup import remove_leftovers

            remove_leftovers([self.node_name(party) for party in self.parties])

    # --- talking to it ------------------------------------------------------------------------------------------

    @property
    def base_url(self) -> str:
        """URL of the server's API."""
        return f"http://127.0.0.1:{self.port}{API_PATH}"

    def client(self, party: Party, *, store: Mapping[str, object] | None = None) -> LargeFileClient:
        """The client of a party's researcher, logged in."""
        client = LargeFileClient(
            "http://127.0.0.1", self.port, API_PATH, log_level="warn", large_result_store=store or party.block
        )
        client.authenticate(party.user, PASSWORD)
        client.setup_encryption(str(self.key_file(party)) if self.encrypted else None)
        return client

    def key_file(self, party: Party) -> Path:
        """The private key of a party."""
        return self.folder / "nodes" / party.name / "private_key.pem"

    def node_name(self, party: Party) -> str:
        """Name of a party's node configuration; unique on this machine, since Docker objects carry it."""
        return f"v6lf-{self.port}-{party.name}"

    def node_data(self, party: Party) -> Path:
        """The data folder of a party's node."""
        return self.folder / "nodes" / party.name / "data"

    # --- configurations -----------------------------------------------------------------------------------------

    def _server_config(self) -> Config:
        config: Config = {
            "description": "demo",
            "ip": "127.0.0.1",
            "port": self.port,
            "api_path": API_PATH,
            "uri": self.db_uri,
            "allow_drop_all": False,
            "jwt_secret_key": str(uuid.uuid4()),
            "logging": {**self._logging(), "file": "server.log"},
        }
        if self._largefile is not None:
            config["largefile"] = dict(self._largefile)
        return config

    def _logging(self) -> Config:
        return {
            "level": self._log_level,
            "use_console": True,
            "backup_count": 1,
            "max_size": 100_000,
            "format": "%(asctime)s %(levelname)s %(name)s: %(message)s",
            "datefmt": "%H:%M:%S",
        }

    def _fixture(self) -> Config:
        return {
            "organizations": [
                {
                    "name": party.name,
                    "domain": f"{party.name}.example",
                    "address1": "-",
                    "address2": "-",
                    "zipcode": "-",
                    "country": "NL",
                    "public_key": self._make_key(party),
                    "users": [
                        {
                            "username": party.user,
                            "firstname": "Demo",
                            "lastname": party.name,
                            "email": f"{party.user}@example.org",
                            "password": PASSWORD,
                        }
                    ],
                }
                for party in self.parties
            ],
            "collaborations": [
                {
                    "name": COLLABORATION,
                    "encrypted": self.encrypted,
                    "participants": [{"name": party.name, "api_key": party.api_key} for party in self.parties],
                }
            ],
        }

    def _make_key(self, party: Party) -> str:
        """Make a party's key pair; the public key as vantage6 keeps it, or nothing in a plain collaboration."""
        if not self.encrypted:
            return ""
        import base64

        key = rsa.generate_private_key(public_exponent=65537, key_size=4096)
        path = self.key_file(party)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            )
        )
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return base64.b64encode(public).decode("ascii")

    def _node_config(self, party: Party) -> Config:
        folder = self.folder / "nodes" / party.name
        config: Config = {
            "api_key": party.api_key,
            "server_url": "http://127.0.0.1",
            "port": self.port,
            "api_path": API_PATH,
            "task_dir": str(folder / "tasks"),
            "databases": []
            if party.database is None
            else [{"label": "default", "uri": str(party.database), "type": "csv"}],
            "encryption": {"enabled": self.encrypted, "private_key": str(self.key_file(party))},
            "policies": {"require_algorithm_pull": False},
            "share_config": False,
            "directories": {"log": str(folder / "log"), "data": str(self.node_data(party))},
            "logging": self._logging(),
        }
        if party.block is not None:
            config["large_result_store"] = party.block
        return config

    def _start_node(self, party: Party) -> None:
        folder = self.folder / "nodes" / party.name
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / f"{self.node_name(party)}.yaml"
        config.touch(mode=0o600)
        config.write_text(yaml.safe_dump(self._node_config(party)), "utf-8")
        command = [sys.executable, "-m", "vantage6_largefile.demo.node", str(config)]
        if self.runner.kind == "process":
            images = json.dumps({self.runner.image: self.runner.module})
            command += ["--run-algorithms-as-processes", images, "--process-folder", str(folder / "processes")]
        if party.stock:
            command.append("--stock")
        environment = {
            **self._folders(party.name),
            "PROXY_SERVER_HOST": self.runner.proxy_host,
            "PROXY_SERVER_PORT": str(free_port()),
        }
        number = sum(1 for child in self.children.started if child.name.startswith(f"node-{party.name}"))
        name = f"node-{party.name}" + (f"-{number + 1}" if number else "")
        self.nodes[party.name] = self.children.start(name, command, environment=environment)

    def _folders(self, name: str) -> dict[str, str]:
        """Keep what vantage6 writes to the user's folders inside ours."""
        home = self.folder / "home" / name
        home.mkdir(parents=True, exist_ok=True)
        return {
            "XDG_DATA_HOME": str(home / "data"),
            "XDG_CONFIG_HOME": str(home / "config"),
            "XDG_CACHE_HOME": str(home / "cache"),
            "XDG_STATE_HOME": str(home / "state"),
        }

    def _run(self, name: str, command: Sequence[str]) -> None:
        child = self.children.start(name, command, environment=self._folders("server"))
        if child.process.wait(180) != 0:
            raise ProcessFailed(f"{name} failed:\n{child.tail(40)}")
