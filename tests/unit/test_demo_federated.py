"""The demo's central function with the stock AlgorithmClient, against a node proxy that a test can disturb.

The proxy here answers the calls that the stock client makes, over real HTTP, and has every hospital's round computed
by the algorithm's own ``train_round``. The real proxy, server and nodes are the end-to-end tests' business.
"""

from __future__ import annotations

import base64
import json
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

pytest.importorskip("scipy", reason="the demo's extra is not installed")
pytest.importorskip("vantage6.algorithm.tools", reason="the demo's extra is not installed")

import jwt
import numpy as np
from vantage6.algorithm.tools.decorators import RunMetaData

from vantage6_largefile.demo.algorithm import central, central_echo, echo, model, train_round, weights
from vantage6_largefile.demo.algorithm.federated import SubtaskFailed

LABELS = ["A", "B", "C"]
HOSPITALS = {2: "North", 3: "South"}
TEXTS = ["red stone,A", "red rock,A", "green leaf,B", "green tree,B", "blue sea,C", "blue sky,C"]
FEATURES = 300


class Proxy:
    """What a node proxy does for its containers, with the runs of a task done at once when it is created.

    Attributes
    ----------
    by_reference : bool
        Whether inputs and results go by ``/blobstream``.
    change_record : callable
        Called with organisation and result record, may change it or return None to leave it out.
    change_result : callable
        Called with organisation and the result's bytes, gives the bytes to store.
    statuses : dict of int to str
        Status of an organisation's runs, if not "completed".
    """

    def __init__(self) -> None:
        self.by_reference = True
        self.page_size = 10
        self.change_record: Callable[[int, dict[str, Any]], dict[str, Any] | None] = lambda _, record: record
        self.change_result: Callable[[int, bytes], bytes] = lambda _, result: result
        self.statuses: dict[int, str] = {}
        self.cut_streams = False
        self.refuse_tasks = False
        self.inputs: list[tuple[int, dict[str, Any]]] = []
        self._blobs: dict[str, bytes] = {}
        self._results: dict[int, list[tuple[int, dict[str, Any]]]] = {}
        self._silent_polls = 2

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: bytes) -> object:
        if path == "/blobstream/status":
            return {"blob_store_enabled": self.by_reference}
        if path == "/blobstream" and method == "POST":
            return {"uuid": self._keep(body)}
        if found := re.fullmatch("/blobstream/(.+)", path):
            return self._blobs[found[1]]
        if found := re.fullmatch("/organization/(.+)", path):
            return {"id": int(found[1]), "name": HOSPITALS[int(found[1])], "public_key": "key"}
        if path == "/task" and method == "POST":
            return {"msg": "no permission"} if self.refuse_tasks else self._create(json.loads(body))
        if found := re.fullmatch(r"/task/(\d+)/status", path):
            self._silent_polls -= 1
            return {"msg": "not now"} if self._silent_polls >= 0 else {"status": self._status(int(found[1]))}
        task_id = int(query["task_id"][0])
        if path == "/run":
            runs = [
                {
                    "id": record["run"]["id"],
                    "organization": {"id": organization},
                    "status": self.statuses.get(organization, "completed"),
                }
                for organization, record in self._results[task_id]
            ]
            return self._page(runs, query)
        assert path == "/result"
        changed = [self.change_record(organization, dict(record)) for organization, record in self._results[task_id]]
        return self._page([record for record in changed if record is not None], query)

    def _page(self, records: list[dict[str, Any]], query: dict[str, list[str]]) -> dict[str, Any]:
        page = int(query["page"][0])
        rest = records[(page - 1) * self.page_size :]
        return {"data": rest[: self.page_size], "links": {"next": "more"} if len(rest) > self.page_size else {}}

    def _status(self, task_id: int) -> str:
        failed = [self.statuses[o] for o, _ in self._results[task_id] if o in self.statuses]
        return next(iter(failed), "completed")

    def _keep(self, data: bytes) -> str:
        identifier = str(uuid.uuid4())
        self._blobs[identifier] = data
        return identifier

    def _create(self, task: dict[str, Any]) -> dict[str, int]:
        task_id = len(self._results) + 1
        records = self._results[task_id] = []
        for place, entry in enumerate(task["organizations"]):
            organization, given = entry["id"], entry["input"]
            data = self._blobs[given] if self.by_reference else base64.b64decode(given)
            self.inputs.append((organization, json.loads(data)))
            result = self.change_result(organization, self._run(organization, json.loads(data)))
            stored = self._keep(result) if self.by_reference else base64.b64encode(result).decode()
            run_id = task_id * 100 + place
            records.append(
                (organization, {"run": {"id": run_id}, "result": stored, "blob_storage_used": self.by_reference})
            )
        return {"id": task_id}

    def _run(self, organization: int, given: dict[str, Any]) -> bytes:
        if given["method"] == "echo_input":
            return json.dumps(echo.echo_input(**given["kwargs"])).encode()
        run = RunMetaData(1, 1, 1, organization, None, None, None, None)
        return json.dumps(train_round.__wrapped__(run, **given["kwargs"])).encode()


def handler_of(proxy: Proxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._do("GET")

        def do_POST(self) -> None:
            self._do("POST")

        def _do(self, method: str) -> None:
            url = urlsplit(self.path)
            try:
                answer = proxy.answer(method, url.path, parse_qs(url.query), self._body())
            except KeyError:
                self._send(404, json.dumps({"msg": "not found"}).encode())
                return
            self._send(200, answer if isinstance(answer, bytes) else json.dumps(answer).encode())

        def _send(self, status: int, data: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if proxy.cut_streams and self.path.startswith("/blobstream/") and not self.path.endswith("status"):
                data = data[:-100]
                self.close_connection = True
            self.wfile.write(data)

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            chunks = []
            while size := int(self.rfile.readline(), 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@pytest.fixture
def proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    proxy = Proxy()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(proxy))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    (tmp_path / "data.csv").write_text("text,label\n" + "\n".join(TEXTS))
    (tmp_path / "tmp").mkdir()
    identity = {"node_id": 1, "collaboration_id": 1, "image": "image", "databases": [{"label": "default"}]}
    (tmp_path / "token").write_text(jwt.encode({"sub": identity}, "k" * 32))
    for name, value in {
        "HOST": "http://127.0.0.1",
        "PORT": str(server.server_port),
        "API_PATH": "",
        "TOKEN_FILE": str(tmp_path / "token"),
        "TEMPORARY_FOLDER": str(tmp_path / "tmp"),
        "USER_REQUESTED_DATABASE_LABELS": "default",
        "DEFAULT_DATABASE_URI": str(tmp_path / "data.csv"),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("vantage6_largefile.demo.algorithm.federated._POLL_S", 0.01)
    yield proxy
    server.shutdown()
    thread.join()
    server.server_close()


def train(**options: Any) -> dict[str, Any]:
    result: dict[str, Any] = central(
        list(HOSPITALS), options.pop("rounds", 2), FEATURES, LABELS, epochs=3, batch_size=2, **options
    )
    return result


@pytest.mark.parametrize("by_reference", [True, False])
@pytest.mark.parametrize("stock_download", [True, False])
def test_rounds_of_training_give_an_evaluated_model(
    proxy: Proxy, tmp_path: Path, by_reference: bool, stock_download: bool
) -> None:
    proxy.by_reference = by_reference

    result = json.loads(json.dumps(train(stock_download=stock_download)))

    array = weights.decode(result["weights"], tuple(result["shape"]))
    held_out = model.read_examples(tmp_path / "data.csv", LABELS, FEATURES)
    assert [one["round"] for one in result["rounds"]] == [1, 2]
    assert result["rounds"][1]["loss"] < result["rounds"][0]["loss"]
    assert model.evaluate(array, held_out) == (result["rounds"][-1]["top1"], result["rounds"][-1]["top5"]) == (1.0, 1.0)
    assert result["baseline"] == {"top1": pytest.approx(1 / 3), "top5": 1.0}
    assert result["hospitals"] == [
        {"organization_id": 2, "name": "North", "examples": 6},
        {"organization_id": 3, "name": "South", "examples": 6},
    ]
    assert (result["held_out"], result["labels"], result["shape"]) == (6, LABELS, [FEATURES, 3])
    assert list((tmp_path / "tmp").iterdir()) == []


def test_both_ways_of_reading_results_give_the_same_model(proxy: Proxy) -> None:
    assert train(stock_download=True)["weights"] == train(stock_download=False)["weights"]


def test_hospitals_get_the_average_of_the_round_before(proxy: Proxy) -> None:
    results: dict[int, list[weights.Matrix]] = {2: [], 3: []}

    def remember(organization: int, result: bytes) -> bytes:
        results[organization].append(weights.decode(json.loads(result)["weights"], (FEATURES, 3)))
        return result

    proxy.change_result = remember
    train()

    sent = [given["kwargs"]["weights"] for _, given in proxy.inputs]
    assert sent[:2] == [None, None]
    assert sent[2] == sent[3]
    # equal numbers of examples of every class at both
    expected = (results[2][0] + results[3][0]) / 2
    assert weights.decode(sent[2], (FEATURES, 3)) == pytest.approx(expected, rel=1e-5)
    assert not np.array_equal(results[2][0], results[3][0])


def test_all_pages_of_results_are_read(proxy: Proxy) -> None:
    proxy.page_size = 1

    assert [one["examples"] for one in train(rounds=1)["hospitals"]] == [6, 6]


@pytest.mark.parametrize("status", ["failed", "crashed", "killed by user", "non-existing Docker image"])
@pytest.mark.parametrize("stock_download", [True, False])
def test_a_failed_run_names_its_hospital(proxy: Proxy, status: str, stock_download: bool) -> None:
    proxy.statuses = {3: status}

    with pytest.raises(SubtaskFailed, match=rf"South \(organization 3\): {status}") as caught:
        train(stock_download=stock_download)

    assert "North" not in str(caught.value)


def without_result(organization: int, record: dict[str, Any]) -> dict[str, Any] | None:
    return {**record, "result": None} if organization == 3 else record


def without_record(organization: int, record: dict[str, Any]) -> dict[str, Any] | None:
    return None if organization == 3 else record


def unknown_object(organization: int, record: dict[str, Any]) -> dict[str, Any] | None:
    return {**record, "result": str(uuid.uuid4())} if organization == 3 else record


@pytest.mark.parametrize("change", [without_result, without_record, unknown_object])
@pytest.mark.parametrize("stock_download", [True, False])
def test_a_missing_result_is_an_error_that_names_its_hospital(
    proxy: Proxy, change: Callable[..., dict[str, Any] | None], stock_download: bool
) -> None:
    proxy.change_record = change

    with pytest.raises(SubtaskFailed, match=r"South \(organization 3\)"):
        train(stock_download=stock_download)


def edited(**changes: object) -> Callable[[bytes], bytes]:
    def edit(result: bytes) -> bytes:
        return json.dumps({**json.loads(result), **changes}).encode()

    return edit


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda result: result[: len(result) // 2], "characters"),
        (lambda result: b"", "no weights"),
        (edited(weights=weights.encode(np.full((FEATURES, 3), np.nan, dtype=np.float32))), "finite"),
        (edited(weights=weights.encode(np.zeros((FEATURES, 2), dtype=np.float32))), "characters"),
        (edited(shape=[FEATURES, 2]), "shape"),
        (edited(class_counts=[1, 2]), "3 classes"),
        (edited(class_counts=[1, 2, -3]), "3 classes"),
        (edited(class_counts=[0, 0, 0]), "no examples"),
        (edited(loss=None), "loss"),
        (edited(organization_id=2), "says it is of organization 2"),
    ],
)
def test_an_unusable_result_is_an_error_that_names_its_hospital(
    proxy: Proxy, damage: Callable[[bytes], bytes], message: str
) -> None:
    proxy.change_result = lambda organization, result: damage(result) if organization == 3 else result

    with pytest.raises(SubtaskFailed, match=rf"South \(organization 3\): .*{message}"):
        train()


def test_a_cut_stream_is_an_error(proxy: Proxy, tmp_path: Path) -> None:
    original = proxy.change_record

    def cut_from_now_on(organization: int, record: dict[str, Any]) -> dict[str, Any] | None:
        proxy.cut_streams = True
        return original(organization, record)

    proxy.change_record = cut_from_now_on

    with pytest.raises(SubtaskFailed, match=r"North \(organization 2\)"):
        train()

    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_task_that_the_server_refuses_is_an_error(proxy: Proxy) -> None:
    proxy.refuse_tasks = True

    with pytest.raises(SubtaskFailed, match="no permission"):
        train()


@pytest.mark.parametrize("arguments", [([], 1), ([2, 2], 1), ([2], 0)])
def test_impossible_arguments_are_refused(proxy: Proxy, arguments: tuple[list[int], int]) -> None:
    with pytest.raises(ValueError, match="At least one round"):
        central(*arguments, FEATURES, LABELS)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [("USER_REQUESTED_DATABASE_LABELS", "", "requests no database"), ("DEFAULT_DATABASE_URI", "", "no database")],
)
def test_a_missing_database_is_named(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(ValueError, match=message):
        train()


def test_central_echo_compares_what_was_sent_and_read(proxy: Proxy) -> None:
    result = central_echo(list(HOSPITALS), 100_000, seed=3)

    assert result["received"] == [{"input": result["sent"], "result": result["sent"], "size": 100_000}] * 2
