"""Real vantage6 servers, ours and stock, each in a process of its own. No pytest in here.

A fixture is vantage6's own import format (``vserver-local import``); :func:`fixture` makes one.
"""

from __future__ import annotations

import base64
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jwt
import requests
import yaml

API_PATH = "/api"
PASSWORD = "Password-1!"

#: Starting a stock server in a process: mends what keeps it from working on Python 3.11 and later, nothing else.
_STOCK = """
import sys
import vantage6.server as server
from vantage6.server.model.rule import Operation, Scope
Operation.__str__ = Scope.__str__ = str.__str__
app = server.run_server(sys.argv[1], system_folders=False)
server.run_dev_server(app, host=app.ctx.config["ip"], port=int(app.ctx.config["port"]), use_reloader=False)
"""
_EXTENDED = "import sys; from server_ext.app import start_local; start_local(sys.argv[1])"
_IMPORT = """
import sys
import vantage6.server
from vantage6.server.model.rule import Operation, Scope
Operation.__str__ = Scope.__str__ = str.__str__
from vantage6.server.cli.server import cli_server
cli_server(["import", "-c", sys.argv[1], "--user", sys.argv[2]])
"""
_UPGRADE = "import sys; from server_ext import migrate; migrate.upgrade(sys.argv[1])"


def free_port() -> int:
    """A port on which nothing listened a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def environment(folder: Path) -> dict[str, str]:
    """The environment of a server's processes: everything vantage6 puts in the user's folders goes to `folder`."""
    home = folder / "home"
    home.mkdir(parents=True, exist_ok=True)
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("VANTAGE6_", "XDG_"))}
    return {
        **inherited,
        "HOME": str(home),
        "XDG_DATA_HOME": str(home / "data"),
        "XDG_CONFIG_HOME": str(home / "config"),
        "XDG_CACHE_HOME": str(home / "cache"),
        "PYTHONUNBUFFERED": "1",
    }


def write_server_config(
    folder: Path,
    port: int,
    db_uri: str,
    largefile_block: Mapping[str, object] | None = None,
    *,
    extra: Mapping[str, object] | None = None,
) -> Path:
    """Write ``server.yaml``, the one file that a stock server and ours are started with.

    Parameters
    ----------
    folder : Path
        Where it, and all that the server writes, goes.
    port : int
    db_uri : str
        SQLAlchemy's.
    largefile_block : mapping, optional
        None leaves the block out.
    extra : mapping, optional
        More top-level keys.
    """
    config: dict[str, object] = {
        "description": "test",
        "ip": "127.0.0.1",
        "port": port,
        "api_path": API_PATH,
        "uri": db_uri,
        "allow_drop_all": False,
        "jwt_secret_key": str(uuid.uuid4()),
        "logging": {
            "level": "INFO",
            "file": "server.log",
            "use_console": True,
            "backup_count": 1,
            "max_size": 10240,
            "format": "%(asctime)s - %(name)-14s - %(levelname)-8s - %(message)s",
            "datefmt": "%Y-%m-%d %H:%M:%S",
        },
        **(extra or {}),
    }
    if largefile_block is not None:
        config["largefile"] = dict(largefile_block)
    path = folder / "server.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@dataclass(frozen=True)
class Member:
    """An organisation of a collaboration, with the key of its node there."""

    organization: str
    api_key: str


def fixture(
    organizations: Sequence[str],
    collaborations: Mapping[str, Iterable[Member]],
    *,
    encrypted: Iterable[str] = (),
    public_keys: Mapping[str, bytes] | None = None,
) -> dict[str, object]:
    """What ``vserver-local import`` takes. Ids follow the order: the first organisation gets id 1.

    Each organisation gets a user ``user-<organisation>`` with every right and the password :data:`PASSWORD`.

    Parameters
    ----------
    organizations : sequence of str
        Names.
    collaborations : mapping
        The members by the collaboration's name.
    encrypted : iterable of str
        Names of the encrypted collaborations.
    public_keys : mapping, optional
        PEM by organisation.
    """
    keys = public_keys or {}
    return {
        "organizations": [
            {
                "name": name,
                "domain": f"{name}.example",
                "address1": "",
                "address2": "",
                "zipcode": "",
                "country": "",
                "public_key": base64.b64encode(keys.get(name, b"")).decode(),
                "users": [
                    {
                        "username": f"user-{name}",
                        "firstname": name,
                        "lastname": "user",
                        "password": PASSWORD,
                        "email": f"user@{name}.example",
                    }
                ],
            }
            for name in organizations
        ],
        "collaborations": [
            {
                "name": name,
                "participants": [{"name": member.organization, "api_key": member.api_key} for member in members],
                "tasks": [],
                "encrypted": name in set(encrypted),
            }
            for name, members in collaborations.items()
        ],
    }


def import_fixture(config: Path, entities: Mapping[str, object], *, upgrade: bool = True) -> None:
    """Fill a database, with stock's own command.

    Parameters
    ----------
    config : Path
        As :func:`write_server_config` wrote it.
    entities : mapping
        As :func:`fixture` makes it.
    upgrade : bool
        Have our tables and columns made first. False leaves the database as stock makes it.
    """
    document = config.with_name("fixture.yaml")
    document.write_text(yaml.safe_dump(dict(entities)))
    if upgrade:
        _run(_UPGRADE, str(yaml.safe_load(config.read_text())["uri"]), folder=config.parent)
    _run(_IMPORT, str(config), str(document), folder=config.parent)


def _run(program: str, *arguments: str, folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=environment(folder),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}:\n{done.stdout}\n{done.stderr}")


@dataclass
class ServerProcess:
    """A server that runs. Use it as a context manager, or call :meth:`stop`."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path
    jwt_secret: str = field(repr=False)
    #: Made once and kept: logging in takes bcrypt's time.
    _tokens: dict[str, str] = field(default_factory=dict)

    @property
    def api(self) -> str:
        """Root of the API."""
        return self.url + API_PATH

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self, timeout: float = 10) -> None:
        """End it, by its own pid, at the latest after `timeout` seconds."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def logged(self) -> str:
        """All it has written so far."""
        return self.log.read_text(errors="replace")

    def user(self, organization: str) -> Caller:
        """The user of an organisation of :func:`fixture`."""
        return self._caller(
            f"user-{organization}", "token/user", {"username": f"user-{organization}", "password": PASSWORD}
        )

    def node(self, api_key: str, *, extended: bool = True) -> Caller:
        """The node with this key; `extended` sends our header."""
        caller = self._caller(api_key, "token/node", {"api_key": api_key})
        return caller.with_header() if extended else caller

    def signed(self, identity: int, kind: str) -> Caller:
        """The user or node with this id, without logging in.

        A node's login costs one bcrypt for each node that the server knows; with a dozen nodes that is seconds.
        """
        now = int(time.time())
        claims = {
            "sub": identity,
            "client_type": kind,
            "type": "access",
            "roles": [],
            "fresh": False,
            "jti": str(uuid.uuid4()),
            "iat": now,
            "nbf": now,
            "exp": now + 6 * 3600,
        }
        token = jwt.encode(claims, self.jwt_secret, algorithm="HS256")
        return Caller(self.api, {"Authorization": f"Bearer {token}"})

    def container(self, node: Caller, task_id: int, image: str) -> Caller:
        """A container of a task, as it reaches the server through `node`."""
        answer = node.post("token/container", json={"task_id": task_id, "image": image})
        answer.raise_for_status()
        headers = {**node.headers, "Authorization": f"Bearer {answer.json()['container_token']}"}
        return Caller(self.api, headers)

    def _caller(self, key: str, path: str, credentials: Mapping[str, str]) -> Caller:
        if key not in self._tokens:
            answer = requests.post(f"{self.api}/{path}", json=dict(credentials), timeout=30)
            answer.raise_for_status()
            self._tokens[key] = answer.json()["access_token"]
        return Caller(self.api, {"Authorization": f"Bearer {self._tokens[key]}"})


@dataclass(frozen=True)
class Caller:
    """Somebody with a token."""

    api: str
    headers: dict[str, str]

    def with_header(self, version: str = "1.0") -> Caller:
        """The same one, calling with our header."""
        return Caller(self.api, {**self.headers, "X-V6LF-Version": version})

    def request(self, method: str, path: str, **options: object) -> requests.Response:
        """Call the API; `path` is relative to its root."""
        return requests.request(method, f"{self.api}/{path}", headers=self.headers, timeout=60, **options)  # type: ignore[arg-type]

    def get(self, path: str, **options: object) -> requests.Response:
        """GET."""
        return self.request("GET", path, **options)

    def post(self, path: str, **options: object) -> requests.Response:
        """POST."""
        return self.request("POST", path, **options)

    def patch(self, path: str, **options: object) -> requests.Response:
        """PATCH."""
        return self.request("PATCH", path, **options)

    def put(self, path: str, **options: object) -> requests.Response:
        """PUT."""
        return self.request("PUT", path, **options)

    def delete(self, path: str, **options: object) -> requests.Response:
        """DELETE."""
        return self.request("DELETE", path, **options)


def launch(config: Path, *, stock: bool = False) -> ServerProcess:
    """Start the server of a configuration without waiting for it."""
    settings = yaml.safe_load(config.read_text())
    log = config.with_name("server-output.log")
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", _STOCK if stock else _EXTENDED, str(config)],
            env=environment(config.parent),
            cwd=config.parent,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    return ServerProcess(process, f"http://127.0.0.1:{settings['port']}", log, str(settings["jwt_secret_key"]))


def start_server(config: Path, *, stock: bool = False, timeout: float = 90) -> ServerProcess:
    """Start the server of a configuration and wait until it answers.

    Raises
    ------
    RuntimeError
        When it ended, or does not answer in time; with what it wrote.
    """
    server = launch(config, stock=stock)
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if server.process.poll() is not None:
            raise RuntimeError(f"The server ended with {server.process.returncode}:\n{server.logged()}")
        with contextlib.suppress(requests.RequestException):
            if requests.get(f"{server.api}/health", timeout=5).ok:
                return server
        time.sleep(0.1)
    server.stop()
    raise RuntimeError(f"The server did not answer in {timeout} s:\n{server.logged()}")
