"""One server with a few hospitals, shared by all integration tests of the server, on SQLite and on PostgreSQL.

A test module takes it by ``world = server_world.world``. Tests make tasks of their own and leave the others' alone.

=====  ============  =====================================================================================
id     organisation  what it is for
=====  ============  =====================================================================================
1      dhd           central; its nodes are extended
2      hospital-a    its nodes are extended
3      hospital-b    its nodes are extended
4      old           its node is stock until a test registers it
5      homeless      its node is extended, but the server gives it no location
=====  ============  =====================================================================================

Collaborations: 1 ``plain`` (everybody), 2 ``secret`` (encrypted; 1, 2, 3), 3 ``other`` (1, 2, 3).
"""

from __future__ import annotations

import base64
import os
import tempfile
import uuid
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest

from tests.support import postgres, v6server
from tests.support.v6server import Caller, Member, ServerProcess
from vantage6_largefile.reference import InputContext, ResultContext, now_timestamp, stored_size_of

DHD, A, B, OLD, HOMELESS = 1, 2, 3, 4, 5
PLAIN, SECRET, OTHER = 1, 2, 3
NAMES = {DHD: "dhd", A: "hospital-a", B: "hospital-b", OLD: "old", HOMELESS: "homeless"}
MEMBERS = {PLAIN: (DHD, A, B, OLD, HOMELESS), SECRET: (DHD, A, B), OTHER: (DHD, A, B)}
COLLABORATIONS = {PLAIN: "plain", SECRET: "secret", OTHER: "other"}
STORES = {DHD: "azure://acct/dhd", A: "azure://acct/hospital-a", B: "azure://acct/hospital-b", OLD: "azure://acct/old"}
MAX_INLINE = 64 * 1024
IMAGE = "registry.example/algorithm:1"
INLINE_INPUT = base64.b64encode(b'{"method": "train"}').decode()
#: Not text once it is decoded, which is how the server recognises an encrypted value.
ENCRYPTED_INPUT = "/////w=="
#: Five base64url parts, as a compact JWE is.
JWE = "e30.a2V5.aXY.Y3Q.dGFn"

BLOCK: dict[str, object] = {
    "central_organizations": [DHD],
    "locations": {organization: [store] for organization, store in STORES.items()},
    "max_inline_result": "64KiB",
}


@dataclass
class World:
    """The server, and the calls that most tests begin with."""

    server: ServerProcess
    uri: str
    keys: dict[tuple[int, int], str]

    def __post_init__(self) -> None:
        nodes = self.user(DHD).get("node", params={"per_page": 100}).json()["data"]
        self.nodes = {
            (each["organization"]["id"], each["collaboration"]["id"]): self.server.signed(each["id"], "node")
            for each in nodes
        }
        self.server_id: str = self.user(DHD).get("largefile/capabilities").json()["server_id"]
        for collaboration, members in MEMBERS.items():
            for organization in members:
                if organization != OLD:
                    self.register(organization, collaboration)

    def user(self, organization: int) -> Caller:
        """The user of an organisation."""
        return self.server.user(NAMES[organization])

    def node(self, organization: int, collaboration: int = PLAIN, *, extended: bool = True) -> Caller:
        """The node of an organisation in a collaboration."""
        node = self.nodes[organization, collaboration]
        return node.with_header() if extended else node

    def register(self, organization: int, collaboration: int = PLAIN) -> None:
        """Have a node say that it is extended."""
        answer = self.node(organization, collaboration).put("largefile/nodes/me", json={"version": "1.0"})
        assert answer.status_code == 200, answer.text

    def container(
        self, organization: int, task_id: int, collaboration: int = PLAIN, *, extended: bool = True
    ) -> Caller:
        """A container that the organisation's node runs for a task."""
        return self.server.container(self.node(organization, collaboration, extended=extended), task_id, IMAGE)

    def task(
        self,
        organizations: tuple[int, ...] = (A,),
        *,
        by: Caller | None = None,
        collaboration: int = PLAIN,
        client: bool = True,
    ) -> tuple[int, dict[int, int]]:
        """Make a task with inline inputs.

        Returns
        -------
        int, dict
            The task's id, and the run's id by organisation.
        """
        value = ENCRYPTED_INPUT if collaboration == SECRET else INLINE_INPUT
        body = self.task_body([{"id": each, "input": value} for each in organizations], collaboration=collaboration)
        if client:
            body["largefile_client"] = True
        answer = (by or self.user(DHD)).post("task", json=body)
        assert answer.status_code == 201, answer.text
        return self.runs_of(answer.json()["id"])

    def runs_of(self, task_id: int) -> tuple[int, dict[int, int]]:
        """A task's id again, and the ids of its runs by organisation."""
        runs = self.user(DHD).get("run", params={"task_id": task_id, "per_page": 100}).json()["data"]
        return task_id, {run["organization"]["id"]: run["id"] for run in runs}

    def task_body(self, entries: list[dict[str, object]], *, collaboration: int = PLAIN) -> dict[str, object]:
        """The body of a POST of a task."""
        return {
            "name": "test",
            "image": IMAGE,
            "collaboration_id": collaboration,
            "organizations": entries,
            "databases": [],
        }

    def result_reference(
        self, run_id: int, *, collaboration: int = PLAIN, store: str = STORES[A], size: int = 1 << 20, **changes: object
    ) -> dict[str, object]:
        """A reference that the server accepts for a run, or, with `changes`, does not."""
        return reference(ResultContext(self.server_id, collaboration, run_id), store, size, **changes)

    def input_reference(
        self,
        initiator: int = DHD,
        *,
        collaboration: int = PLAIN,
        store: str = STORES[DHD],
        size: int = 1 << 20,
        **changes: object,
    ) -> dict[str, object]:
        """A reference that the server accepts for an input."""
        return reference(InputContext(self.server_id, collaboration, initiator), store, size, **changes)

    def finish(self, run_id: int, document: dict[str, object], *, by: Caller | None = None, **more: object) -> object:
        """PATCH a run with a reference, as a node does at the end."""
        body = {"result_reference": document, "finished_at": now(), "status": "completed", **more}
        return (by or self.node(A)).patch(f"run/{run_id}", json=body)


def now() -> str:
    """As nodes send times."""
    return now_timestamp().replace("Z", "+00:00")


def reference(
    context: ResultContext | InputContext, store: str, size: int, *, encrypted: bool = False, **changes: object
) -> dict[str, object]:
    """A well-formed reference; `changes` replace what is in it."""
    object_id = str(changes.pop("id", None) or uuid.uuid4())
    document: dict[str, object] = {
        "version": 1,
        "id": object_id,
        "location": "/".join((store, *context.segments(object_id))),
        "size": size,
        "stored_size": stored_size_of(size, encrypted=encrypted),
        "sha256": "ab" * 32,
        "etag": None,
        "media_type": "application/json",
        "envelope": {"format": "tink-aes256-gcm-hkdf-1mb", "key": JWE} if encrypted else None,
        "created_at": now_timestamp(),
    }
    return {**document, **changes}


def missing(what: str) -> NoReturn:
    """A part that the tests need is not here: that fails in CI and skips elsewhere."""
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


def start_postgres(stack: ExitStack) -> postgres.PostgresServer:
    """A PostgreSQL server that stops with `stack`."""
    binaries = postgres.find_binaries()
    if binaries is None:
        missing(f"PostgreSQL was not found; {postgres.BIN_ENVIRONMENT} may name its folder.")
    return stack.enter_context(postgres.postgres(binaries))


def new_database(kind: str, folder: Path, stack: ExitStack) -> str:
    """The URI of a fresh, empty database."""
    return f"sqlite:///{folder}/vantage6.sqlite" if kind == "sqlite" else start_postgres(stack).create_database()


def build(kind: str, folder: Path, stack: ExitStack) -> World:
    """Start the server of :data:`BLOCK` on a fresh database; it stops with `stack`."""
    uri = new_database(kind, folder, stack)
    keys = {(each, col): str(uuid.uuid4()) for col, members in MEMBERS.items() for each in members}
    config = v6server.write_server_config(folder, v6server.free_port(), uri, BLOCK)
    entities = v6server.fixture(
        list(NAMES.values()),
        {
            COLLABORATIONS[collaboration]: [Member(NAMES[each], keys[each, collaboration]) for each in members]
            for collaboration, members in MEMBERS.items()
        },
        encrypted=[COLLABORATIONS[SECRET]],
    )
    v6server.import_fixture(config, entities)
    return World(stack.enter_context(v6server.start_server(config)), uri, keys)


_KEY = pytest.StashKey[dict[str, World]]()

DATABASES = [pytest.param("sqlite"), pytest.param("postgres", marks=pytest.mark.postgres)]


@pytest.fixture(scope="module", params=DATABASES)
def world(request: pytest.FixtureRequest) -> World:
    """The shared server; started once for a whole test run, and stopped at its end."""
    config = request.config
    worlds = config.stash.setdefault(_KEY, {})
    if request.param not in worlds:
        stack = ExitStack()
        config.add_cleanup(stack.close)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="v6lf-server-")))
        worlds[request.param] = build(request.param, folder, stack)
    return worlds[request.param]
