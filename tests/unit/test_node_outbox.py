"""The outbox over restarts and lost answers, against a small HTTP server that keeps runs as vantage6's does."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from vantage6.common.encryption import DummyCryptor

from node_ext.delivery import Delivery, Party
from node_ext.job import Job, JobFolder
from node_ext.outbox import Outbox
from node_ext.server_api import ServerApi
from tests.unit.test_node_job import make_job
from vantage6_largefile.config import load_large_result_store
from vantage6_largefile.reference import ResultContext, new_object_id, object_location
from vantage6_largefile.stores import open_store
from vantage6_largefile.transfer import CancelToken, TransferOptions, upload_file

SERVER_ID = "0b6e2a1c-4d4e-4a7b-8a55-9c6f6e1f2a3b"


class Runs(ThreadingHTTPServer):
    """What the real server does with PATCH run: a finished run takes no more, except the same reference again."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.runs: dict[int, dict[str, object]] = {}
        self.patches: list[dict[str, object]] = []
        self.drop_answers = 0
        self.refuse = 0


class Handler(BaseHTTPRequestHandler):
    server: Runs

    def do_GET(self) -> None:
        if self.path.startswith("/organization/"):
            self.answer(200, {"public_key": ""})
        else:
            self.answer(200, self.server.runs.get(int(self.path.rsplit("/", 1)[1]), {"finished_at": None}))

    def do_POST(self) -> None:
        self.body()
        self.answer(200, {"placement": "reference", "reason": ""})

    def do_PATCH(self) -> None:
        body = self.body()
        self.server.patches.append(body)
        run_id = int(self.path.rsplit("/", 1)[1])
        if self.server.refuse:
            self.server.refuse -= 1
            self.answer(503, {"msg": "later"})
            return
        known = self.server.runs.get(run_id)
        if known is not None and known.get("result_reference") != body.get("result_reference", "none"):
            self.answer(400, {"msg": "Cannot update an already finished algorithm run!"})
            return
        self.server.runs[run_id] = body
        if self.server.drop_answers:
            self.server.drop_answers -= 1
            self.connection.close()
            return
        self.answer(200, body)

    def body(self) -> dict[str, object]:
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))  # type: ignore[no-any-return]

    def answer(self, status: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


class Node:
    """An outbox with a folder as its store."""

    def __init__(self, folder: Path, server: Runs) -> None:
        store = folder / "store"
        store.mkdir(exist_ok=True)
        self.folder = folder / "outbox"
        self.announced: list[tuple[int, str]] = []
        self.base_path = f"http://127.0.0.1:{server.server_port}"
        self.headers = {"Authorization": "Bearer token"}
        config = load_large_result_store(
            {"driver": "file", "root": "hospital-a", "path": str(store), "transfer": {"retry_for": "30s"}},
            source="test",
        )
        cancel = CancelToken()
        self.store = open_store(config.own)
        self.outbox = Outbox(
            self.folder,
            delivery=Delivery(
                config=config,
                store=self.store,
                api=ServerApi(self),
                party=Party(SERVER_ID, 2, 3, False, DummyCryptor()),
                options=TransferOptions.from_config(config.transfer),
                cancel=cancel,
                share_logs=True,
            ),
            retry_for=30,
            cancel=cancel,
            announce=lambda job, status: self.announced.append((job.run_id, status)),
        )

    def refresh_token(self) -> None:
        """Nothing to do: the token does not expire."""

    def put(self, job: Job, data: bytes | None = None) -> JobFolder:
        folder = JobFolder(self.folder / f"run-{job.run_id:09d}")
        folder.create()
        if data is not None:
            folder.plain.write_bytes(data)
        folder.write(job)
        return folder

    def wait(self, condition: object, timeout: float = 20) -> None:
        deadline = time.monotonic() + timeout
        while not condition() and time.monotonic() < deadline:  # type: ignore[operator]
            time.sleep(0.05)
        self.outbox.stop()


@pytest.fixture
def server() -> Iterator[Runs]:
    running = Runs()
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


def test_job_of_an_earlier_process_is_delivered(tmp_path: Path, server: Runs) -> None:
    node = Node(tmp_path, server)
    node.put(make_job(size=5, taken_at=time.time()), b"model")
    node.outbox.resume()
    assert node.outbox.owns(42), "its run must not be started again"
    node.wait(lambda: node.announced)

    assert node.announced == [(42, "completed")]
    assert base64.b64decode(str(server.runs[42]["result"])) == b"model"
    assert node.outbox.backlog() == 0


def test_lost_answer_of_an_inline_result_is_found_out(tmp_path: Path, server: Runs) -> None:
    server.drop_answers = 1
    node = Node(tmp_path, server)
    node.put(make_job(size=5, taken_at=time.time()), b"model")
    node.outbox.resume()
    node.wait(lambda: node.announced)

    assert node.announced == [(42, "completed")]
    assert len(server.patches) == 2
    assert node.outbox.backlog() == 0


def test_lost_answer_of_a_reference_leads_to_the_very_same_one(tmp_path: Path, server: Runs) -> None:
    server.drop_answers = 1
    node = Node(tmp_path, server)
    data = b"m" * (2 << 20)
    node.put(make_job(size=len(data), taken_at=time.time()), data)
    node.outbox.resume()
    node.wait(lambda: node.announced)

    first, second = server.patches
    assert first["result_reference"] == second["result_reference"]
    assert len(list(node.store.list(node.store.root))) == 1
    assert node.outbox.backlog() == 0


def test_failure_that_was_not_told_is_told_after_the_restart_and_the_bytes_are_kept(
    tmp_path: Path, server: Runs
) -> None:
    server.refuse = 1
    node = Node(tmp_path, server)
    folder = node.put(make_job(state="failing", failure="the store is gone", taken_at=time.time()), b"model")
    node.outbox.resume()
    node.wait(lambda: folder.read().state == "kept")

    assert server.runs[42]["status"] == "failed"
    assert "the store is gone" in str(server.runs[42]["log"])
    assert "result" not in server.runs[42]
    assert folder.plain.read_bytes() == b"model"
    assert node.announced == [(42, "failed")]


def test_kept_result_is_not_sent_again(tmp_path: Path, server: Runs) -> None:
    node = Node(tmp_path, server)
    node.put(make_job(state="kept", failure="given up", taken_at=time.time()), b"model")
    other = make_job(run_id=43, size=5, taken_at=time.time())
    node.put(other, b"model")
    node.outbox.resume()
    node.wait(lambda: node.announced)

    assert 42 not in server.runs
    assert node.outbox.owns(42)
    assert node.outbox.backlog() == 1


def test_unreadable_record_does_not_stop_the_others(tmp_path: Path, server: Runs) -> None:
    node = Node(tmp_path, server)
    broken = JobFolder(node.folder / "run-000000001")
    broken.create()
    (broken.path / "job.json").write_text("{")
    node.put(make_job(size=5, taken_at=time.time()), b"model")
    node.outbox.resume()
    node.wait(lambda: node.announced)

    assert node.announced == [(42, "completed")]
    assert broken.path.exists()


def test_reference_the_server_never_got_is_not_uploaded_twice(tmp_path: Path, server: Runs) -> None:
    server.refuse = 1
    node = Node(tmp_path, server)
    data = b"m" * (2 << 20)
    folder = node.put(make_job(size=len(data), taken_at=time.time()), data)
    node.outbox.resume()
    node.wait(lambda: server.patches)
    record = folder.read()
    assert record.state == "uploaded"

    again = Node(tmp_path, server)
    again.outbox.resume()
    again.wait(lambda: again.announced)

    assert server.runs[42]["result_reference"] == record.reference
    assert len(list(again.store.list(again.store.root))) == 1


def test_kill_between_the_commit_and_our_note_of_it_loses_nothing(tmp_path: Path, server: Runs) -> None:
    node = Node(tmp_path, server)
    data = b"m" * (2 << 20)
    identity = new_object_id()
    source = tmp_path / "committed"
    source.write_bytes(data)
    location = object_location(node.store.root, ResultContext(SERVER_ID, 3, 42), identity)
    upload_file(node.store, source, location, media_type="application/json", options=TransferOptions())
    node.put(make_job(size=len(data), taken_at=time.time(), object_id=identity), data)
    node.outbox.resume()
    node.wait(lambda: node.announced)

    assert node.announced == [(42, "completed")]
    reference = server.runs[42]["result_reference"]
    assert isinstance(reference, dict)
    assert reference["location"] == str(location)
    assert reference["sha256"] == hashlib.sha256(data).hexdigest()
    assert len(list(node.store.list(node.store.root))) == 1
