"""Federated averaging: the central function and the hospitals' training round.

``central`` uses the stock ``AlgorithmClient`` for everything but one thing: it reads the hospitals' models itself,
as streams to a temporary file. The stock download appends chunk by chunk to a ``bytes`` object, which copies all
earlier chunks each time and takes minutes at 500 MiB (``stock_download=True`` uses it nevertheless).
"""

from __future__ import annotations

import base64
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import requests
from vantage6.algorithm.client import AlgorithmClient
from vantage6.algorithm.tools.decorators import RunMetaData, algorithm_client, metadata
from vantage6.common.task_status import TaskStatus, has_task_failed, has_task_finished

from .model import Average, Integers, evaluate, majority, read_examples, train
from .weights import DamagedWeights, Matrix, Update, decode, encode, update_from_file, update_from_result

Json = dict[str, object]

_POLL_S = 1.0
# how long the server (or the proxy in between) may give no usable answer about a subtask before we give up
_SILENCE_S = 300.0
_CHUNK = 2**20
_TIMEOUT_S = (30, 300)


class SubtaskFailed(RuntimeError):
    """A hospital's training round failed, or its result is missing or unusable; the message names the hospital."""


@algorithm_client  # type: ignore[untyped-decorator]
def central(
    client: AlgorithmClient,
    hospitals: list[int],
    rounds: int,
    n_features: int,
    labels: list[str],
    *,
    epochs: int = 1,
    learning_rate: float = 1.0,
    batch_size: int = 128,
    seed: int = 0,
    stock_download: bool = False,
) -> Json:
    """Train a classifier over the hospitals by federated averaging, evaluating it here after every round.

    The first requested database is the held-out CSV file (columns ``text``, ``label``); hospitals have their
    training texts under the same database label.

    Parameters
    ----------
    hospitals : list of int
        Organisation ids that train.
    rounds : int
        Rounds of training at all hospitals, at least 1.
    n_features : int
        Rows of the model; the model has ``n_features * len(labels) * 4`` bytes.
    labels : list of str
        The classes, in the order of the model's columns.
    epochs, learning_rate, batch_size, seed
        Local training, see :func:`train_round`.
    stock_download : bool
        Read the hospitals' results by ``client.result.from_task``, all at once in memory.

    Returns
    -------
    dict
        ``rounds`` (per round: ``round``, ``top1``, ``top5``, ``loss``, ``seconds``), ``baseline`` (``top1`` and
        ``top5`` of the most frequent training classes), ``hospitals`` (``organization_id``, ``name``, ``examples``),
        ``held_out`` (number of texts), ``labels``, ``shape``, ``weights``.

    Raises
    ------
    SubtaskFailed
        If any hospital's round did not end in a usable model. Nothing is averaged without it.
    """
    if rounds < 1 or not hospitals or len(set(hospitals)) != len(hospitals):
        raise ValueError("At least one round and a list of different hospitals are needed.")
    held_out = read_examples(requested_database(), labels, n_features)
    _say("central", f"{len(held_out)} held-out texts, {len(labels)} classes, {n_features} features")
    names = {organization: _organization_name(client, organization) for organization in hospitals}
    weights: str | None = None
    shape = (n_features, len(labels))
    history: list[Json] = []
    per_class: Integers = np.zeros((len(hospitals), len(labels)), dtype=np.int64)
    for number in range(1, rounds + 1):
        started = time.monotonic()
        kwargs: Json = {
            "n_features": n_features,
            "labels": labels,
            "round_number": number,
            "epochs": epochs,
            "learning_rate": learning_rate,
            "batch_size": batch_size,
            "seed": seed,
            "weights": weights,
        }
        task = client.task.create(
            input_={"method": "train_round", "kwargs": kwargs}, organizations=hospitals, name=f"round {number}"
        )
        # half a gigabyte of text that nobody needs while the hospitals train
        del kwargs
        weights = None
        task_id = _task_id(task)
        _say("central", f"round {number} of {rounds}: task {task_id} to {', '.join(names.values())}")
        runs = _wait(client, task_id, names)
        with tempfile.TemporaryDirectory(dir=os.environ["TEMPORARY_FOLDER"], prefix="round-") as folder:
            read = _stock_updates if stock_download else _streamed_updates
            model, per_class, loss = _average(read(client, task_id, runs, names, Path(folder)), names, shape)
        top1, top5 = evaluate(model, held_out)
        seconds = time.monotonic() - started
        history.append({"round": number, "top1": top1, "top5": top5, "loss": loss, "seconds": seconds})
        _say("central", f"round {number} of {rounds}: top-1 {top1:.1%}, top-5 {top5:.1%} of the held-out texts")
        weights = encode(model)
        del model
    base1, base5 = majority(per_class.sum(axis=0), held_out)
    return {
        "rounds": history,
        "baseline": {"top1": base1, "top5": base5},
        "hospitals": [
            {"organization_id": organization, "name": name, "examples": int(count)}
            for (organization, name), count in zip(names.items(), per_class.sum(axis=1), strict=True)
        ],
        "held_out": len(held_out),
        "labels": labels,
        "shape": list(shape),
        "weights": weights,
    }


@metadata  # type: ignore[untyped-decorator]
def train_round(
    run: RunMetaData,
    n_features: int,
    labels: list[str],
    *,
    weights: str | None = None,
    round_number: int = 1,
    epochs: int = 1,
    learning_rate: float = 1.0,
    batch_size: int = 128,
    seed: int = 0,
) -> Json:
    """Train the model that came in (zeros if none) on this hospital's first requested database.

    Returns
    -------
    dict
        ``organization_id``, ``examples``, ``class_counts``, ``loss`` (mean of the last epoch, nats per text),
        ``seconds`` of training, ``shape``, ``weights``. What leaves the hospital is this: the model, and how many
        texts of each category it was trained on.
    """
    shape = (n_features, len(labels))
    examples = read_examples(requested_database(), labels, n_features)
    _say("hospital", f"round {round_number}: {len(examples)} texts")
    model = np.zeros(shape, dtype=np.float32) if weights is None else decode(weights, shape)
    started = time.monotonic()
    loss = train(
        model,
        examples,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        seed=seed * 1_000_003 + round_number * 1009 + run.organization_id,
        progress=lambda line: _say("hospital", line),
    )
    seconds = time.monotonic() - started
    _say("hospital", f"round {round_number}: trained in {seconds:.1f} s")
    return {
        "organization_id": run.organization_id,
        "examples": len(examples),
        "class_counts": examples.per_class.tolist(),
        "loss": loss,
        "seconds": seconds,
        "shape": list(shape),
        "weights": encode(model),
    }


def requested_database() -> Path:
    """Give the path of the first database that the task asked for.

    Raises
    ------
    ValueError
        If the task asked for none, or this node has none of that label.
    """
    label = os.environ.get("USER_REQUESTED_DATABASE_LABELS", "").split(",")[0]
    if not label:
        raise ValueError("The task requests no database: give it the label of a CSV file with text and label.")
    uri = os.environ.get(f"{label.upper()}_DATABASE_URI")
    if not uri:
        raise ValueError(f"This node has no database {label!r}.")
    return Path(uri)


# --- subtasks ----------------------------------------------------------------------------------------------------


def _wait(client: AlgorithmClient, task_id: int, names: dict[int, str]) -> dict[int, dict[str, Any]]:
    """Wait until all hospitals are done and give the run of each organisation.

    The stock wait lengthens its intervals up to minutes and takes an answer without a status for an end.
    """
    heard = time.monotonic()
    while True:
        status = client.request(f"task/{task_id}/status").get("status")
        if status is not None:
            heard = time.monotonic()
            if has_task_finished(status):
                break
        elif time.monotonic() - heard > _SILENCE_S:
            raise SubtaskFailed(f"No news of task {task_id} at {_listed(names)} for {_SILENCE_S:.0f} s.")
        time.sleep(_POLL_S)
    runs = {int(run["organization"]["id"]): run for run in client.run.from_task(task_id)}
    statuses = {organization: runs.get(organization, {}).get("status") for organization in names}
    # one failed run ends the task while others may still be at work: those are not the ones to look at
    failed = {o: status for o, status in statuses.items() if has_task_failed(status)} or {
        o: status for o, status in statuses.items() if status != TaskStatus.COMPLETED
    }
    if failed:
        told = "; ".join(f"{names[o]} (organization {o}): {status or 'no run'}" for o, status in failed.items())
        raise SubtaskFailed(f"Task {task_id} did not end well at {told}. See the log of the run.")
    return runs


def _streamed_updates(
    client: AlgorithmClient, task_id: int, runs: dict[int, dict[str, Any]], names: dict[int, str], folder: Path
) -> Iterator[tuple[int, Update]]:
    """Read the hospitals' results one after the other through a file, which goes before the next one comes."""
    records = {int(record["run"]["id"]): record for record in _result_records(client, task_id)}
    for organization in names:
        path = folder / f"organization-{organization}"
        with _named(organization, names):
            record = records.get(runs[organization]["id"])
            if record is None or not record.get("result"):
                raise SubtaskFailed("the run is completed, but the server has no result of it")
            if record.get("blob_storage_used"):
                _download(client, record["result"], path)
            else:
                path.write_bytes(base64.b64decode(record["result"]))
            update = update_from_file(path)
        yield organization, update
        path.unlink()


def _stock_updates(
    client: AlgorithmClient, task_id: int, runs: dict[int, dict[str, Any]], names: dict[int, str], folder: Path
) -> Iterator[tuple[int, Update]]:
    """Read the hospitals' results as stock does. It turns a failed download into None: then all we know is that."""
    del runs, folder
    results = client.result.from_task(task_id)
    if len(results) != len(names) or not all(isinstance(result, dict) for result in results):
        raise SubtaskFailed(f"Of the results of task {task_id} at {_listed(names)} some are missing or unreadable.")
    for result in results:
        yield int(result["organization_id"]), update_from_result(result)


def _average(
    updates: Iterator[tuple[int, Update]], names: dict[int, str], shape: tuple[int, int]
) -> tuple[Matrix, Integers, float]:
    """Average the models of all hospitals; also gives their examples per class and the mean loss."""
    average = Average(*shape)
    counts: dict[int, Integers] = {}
    losses: dict[int, float] = {}
    for organization, update in updates:
        if organization not in names or organization in counts:
            raise SubtaskFailed(f"An unexpected result says it is of organization {organization}.")
        with _named(organization, names):
            counts[organization], losses[organization] = _figures(update, organization, shape)
            average.add(update, counts[organization])
        _say("central", f"added the model of {names[organization]}")
    missing = {organization: name for organization, name in names.items() if organization not in counts}
    if missing:
        raise SubtaskFailed(f"No result of {_listed(missing)}.")
    per_class = np.stack([counts[organization] for organization in names])
    loss = np.average([losses[organization] for organization in names], weights=per_class.sum(axis=1))
    return average.weights(), per_class, float(loss)


def _figures(update: Update, organization: int, shape: tuple[int, int]) -> tuple[Integers, float]:
    """Examples per class and loss of a hospital, checked: what comes in is another party's."""
    figures = update.figures
    if figures.get("organization_id") != organization:
        raise SubtaskFailed(f"the result says it is of organization {figures.get('organization_id')}")
    if figures.get("shape") != list(shape):
        raise SubtaskFailed(f"the model has the shape {figures.get('shape')}, expected {list(shape)}")
    counts, loss = figures.get("class_counts"), figures.get("loss")
    if not (isinstance(counts, list) and len(counts) == shape[1] and all(type(n) is int and n >= 0 for n in counts)):
        raise SubtaskFailed(f"the result does not count the examples of {shape[1]} classes")
    if not sum(counts) or not isinstance(loss, float):
        raise SubtaskFailed("the model was trained on no examples, or the loss is missing")
    return np.array(counts, dtype=np.int64), loss


def _result_records(client: AlgorithmClient, task_id: int) -> Iterator[dict[str, Any]]:
    """All pages of a task's results, without their content where it is stored elsewhere."""
    page = 1
    while True:
        answer = client.request("result", params={"task_id": task_id, "page": page})
        if "data" not in answer:
            raise SubtaskFailed(f"The results of task {task_id} cannot be listed: {answer.get('msg', answer)}.")
        yield from answer["data"]
        if not (answer.get("links") or {}).get("next"):
            return
        page += 1


def _download(client: AlgorithmClient, identifier: str, path: Path) -> None:
    url = f"{client.generate_path_to('blobstream', False)}/{identifier}"
    with requests.get(url, headers=client.headers, stream=True, timeout=_TIMEOUT_S) as answer:
        if answer.status_code != requests.codes.ok:
            raise SubtaskFailed(
                f"the result {identifier} cannot be read, HTTP {answer.status_code}: {answer.text[:500]}"
            )
        with path.open("wb") as file:
            for chunk in answer.iter_content(_CHUNK):
                file.write(chunk)


@contextmanager
def _named(organization: int, names: dict[int, str]) -> Iterator[None]:
    """Put the organisation's name before whatever goes wrong with its result."""
    try:
        yield
    except (SubtaskFailed, DamagedWeights, requests.RequestException, OSError, ValueError) as exc:
        raise SubtaskFailed(f"Result of {names[organization]} (organization {organization}): {exc}") from exc


def _organization_name(client: AlgorithmClient, organization: int) -> str:
    return str(client.organization.get(organization).get("name") or f"organization {organization}")


def _task_id(task: Json) -> int:
    if not isinstance(task.get("id"), int):
        raise SubtaskFailed(f"The server did not create the subtask: {task.get('msg', task)}.")
    return int(str(task["id"]))


def _listed(names: dict[int, str]) -> str:
    return ", ".join(f"{name} (organization {organization})" for organization, name in names.items())


def _say(who: str, what: str) -> None:
    # flushed, because progress is worth something only while it is made
    print(f"{who}: {what}", flush=True)
