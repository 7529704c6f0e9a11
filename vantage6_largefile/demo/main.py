"""``v6-largefile demo``: three hospitals and DHD train a model whose parameters do not fit into the database."""

from __future__ import annotations

import argparse
import base64
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from vantage6_largefile.config import load_large_result_store
from vantage6_largefile.demo import evidence, icd_data
from vantage6_largefile.demo.azurite import AzuriteMissing, azurite
from vantage6_largefile.demo.plan import Plan, plan_azure, plan_file, plan_interim
from vantage6_largefile.demo.processes import ProcessFailed
from vantage6_largefile.demo.progress import LogFollower
from vantage6_largefile.demo.report import mib, print_report
from vantage6_largefile.demo.runners import choose_runner
from vantage6_largefile.demo.system import Runner, System
from vantage6_largefile.errors import LargeFileError

#: MiB of parameters and rounds, by default and with --small.
FULL, SMALL = (400, 2), (32, 4)
TIMEOUT = 1800.0


def main(argv: Sequence[str]) -> int:
    """Run the demo.

    Parameters
    ----------
    argv : sequence of str
        The command line behind ``v6-largefile demo``.

    Returns
    -------
    int
        0 when everything that was claimed was also seen, 1 otherwise, 130 after Ctrl-C.
    """
    arguments = _parse(argv)
    # Tables need room; a pipe or a narrow terminal gets 120 columns and may fold them itself.
    console = Console(highlight=False, width=max(120, shutil.get_terminal_size().columns))
    # Whoever ends us politely gets the same clean-up as Ctrl-C.
    signal.signal(signal.SIGTERM, _interrupt)
    folder = Path(arguments.folder or tempfile.mkdtemp(prefix="v6lf-demo-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return _run(arguments, folder, console)
    except KeyboardInterrupt:
        console.print("\nInterrupted; everything that was started has been stopped.")
        return 130
    except (LargeFileError, ProcessFailed, AzuriteMissing) as error:
        console.print(f"[bold red]The demo failed:[/] {error}", soft_wrap=True)
        return 1
    finally:
        if arguments.keep:
            console.print(f"Kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="v6-largefile demo", description=__doc__)
    parser.add_argument("--small", action="store_true", help=f"{SMALL[0]} MiB of parameters instead of {FULL[0]}")
    parser.add_argument("--rounds", type=int, help=f"rounds of training ({FULL[1]}; {SMALL[1]} with --small)")
    parser.add_argument("--store", choices=("file", "azure"), default="file", help="azure needs Azurite (npm)")
    parser.add_argument(
        "--layout",
        choices=("per-hospital", "interim"),
        default="per-hospital",
        help="interim (with --store azure): five hospitals, one shared container for each direction",
    )
    parser.add_argument("--runner", choices=("auto", "docker", "process"), default="auto", help="how algorithms run")
    parser.add_argument("--encrypted", action="store_true", help="an encrypted collaboration")
    parser.add_argument("--folder", help="work here instead of in a temporary folder")
    parser.add_argument("--keep", action="store_true", help="keep the folder: configurations, logs, stores")
    parser.add_argument("--json", metavar="FILE", help="write the figures to a file, too")
    arguments = parser.parse_args(argv)
    if arguments.layout == "interim" and arguments.store != "azure":
        parser.error("--layout interim needs --store azure: folders cannot be written by one and read by another")
    if arguments.rounds is not None and arguments.rounds < 1:
        parser.error("--rounds: at least 1")
    return arguments


def _run(arguments: argparse.Namespace, folder: Path, console: Console) -> int:
    started = time.monotonic()
    size, rounds = SMALL if arguments.small else FULL
    rounds = arguments.rounds or rounds
    with ExitStack() as stack:
        console.rule("Preparing")
        runner = choose_runner(arguments.runner, lambda text: console.print(text, markup=False, soft_wrap=True))
        plan = _plan(arguments, folder, stack, console)
        data = folder / "data"
        data.mkdir()
        parts = icd_data.write_parts(data, len(plan.hospitals), seed=0)
        for hospital, part in zip(plan.hospitals, parts.hospitals, strict=True):
            hospital.database = part.path
            console.print(f"{hospital.name}: {part.examples:,} texts of {len(part.per_label):,} categories")
        plan.central.database = parts.held_out.path
        console.print(
            f"{plan.central.name}: {parts.held_out.examples:,} held-out texts. ICD-10-CM is a code book: its texts "
            "are not clinical notes.",
            soft_wrap=True,
        )
        system = System(folder, plan.parties, runner=runner, largefile=plan.largefile, encrypted=arguments.encrypted)
        console.print("Starting the server and the nodes, each a process of its own …")
        with system:
            console.rule("Training")
            features = icd_data.features_for(size, len(parts.labels))
            task_id, model = _train(system, plan, runner, parts, features, rounds, console)
            console.rule("Result")
            figures = _show(arguments, system, plan, model, started=started, console=console, task_id=task_id)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(figures, indent=1), "utf-8")
    return 0 if figures["passed"] else 1


def _plan(arguments: argparse.Namespace, folder: Path, stack: ExitStack, console: Console) -> Plan:
    if arguments.store == "file":
        return plan_file(folder, 3)
    server = stack.enter_context(azurite(folder / "azurite"))
    console.print(f"Azurite answers at {server.account_url}")
    return plan_interim(server, 5) if arguments.layout == "interim" else plan_azure(server, 3)


def _train(
    system: System,
    plan: Plan,
    runner: Runner,
    parts: icd_data.Parts,
    features: int,
    rounds: int,
    console: Console,
) -> tuple[int, dict[str, object]]:
    """Create the task as a researcher would, wait for it, fetch the model."""
    client = system.client(plan.central, store=plan.researcher)
    task = client.task.create(
        collaboration=1,
        organizations=[plan.central.organization_id],
        name="train",
        image=runner.image,
        description="federated averaging",
        databases=[{"label": "default"}],
        input_={
            "method": "central",
            "kwargs": {
                "hospitals": [party.organization_id for party in plan.hospitals],
                "rounds": rounds,
                "n_features": features,
                "labels": list(parts.labels),
            },
        },
    )
    if "id" not in task:
        raise LargeFileError(f"The task was not created: {task}")
    files = {name: child.log for name, child in system.nodes.items()}
    begun = time.monotonic()

    def show(name: str, text: str) -> None:
        console.print(f"{time.monotonic() - begun:6.1f} s  {name:<11} {text}", markup=False, soft_wrap=True)

    with LogFollower(files, show):
        status = _wait(client, task["id"], system)
    if status != "completed":
        log = client.request("run", params={"task_id": task["id"]})["data"][0].get("log")
        raise LargeFileError(f"The training ended with status {status}: {log}")
    console.print("The researcher fetches the model from DHD's store …")
    fetched = client.result.from_task(task["id"])["data"][0]
    if fetched["result"] is None:
        raise LargeFileError(f"The model cannot be fetched: {fetched.get('result_error')}")
    console.print(f"Fetched {mib(len(fetched['result']))}.")
    return task["id"], json.loads(fetched["result"])


def _wait(client: object, task_id: int, system: System) -> str:
    request = client.request  # type: ignore[attr-defined]
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        status = request(f"task/{task_id}/status").get("status")
        if status is not None and status not in {"pending", "initializing", "active"}:
            return str(status)
        for child in [*system.nodes.values(), system.server]:
            if child is not None and not child.running:
                raise ProcessFailed(f"{child.name} ended with code {child.process.returncode}:\n{child.tail()}")
        time.sleep(1)
    raise LargeFileError(f"Task {task_id} did not end within {TIMEOUT:.0f} s.")


def _show(
    arguments: argparse.Namespace,
    system: System,
    plan: Plan,
    model: dict[str, object],
    *,
    started: float,
    console: Console,
    task_id: int,
) -> dict[str, object]:
    sizes = evidence.object_sizes(
        [load_large_result_store(block, source="inspection").own for block in plan.inspection]
    )
    rows = evidence.run_rows(system.database_file, sizes)
    attempts = []
    for reader, owner in zip(plan.hospitals, plan.hospitals[1:] + plan.hospitals[:1], strict=True):
        row = next(row for row in rows if row.who == owner.name and row.reference is not None)
        assert row.reference is not None  # noqa: S101 - chosen so
        attempts.append(evidence.try_to_read(reader, owner, row.reference, enforced=arguments.store == "azure"))
    weights = str(model["weights"])
    middle = len(weights) // 2
    # What an inline result would look like in the database: base64 of JSON. Any of both forms would be a payload.
    piece = weights[middle : middle + 96].encode()
    found = any(
        evidence.payload_in_database(system.database_file, form)
        for form in (piece, *(base64.b64encode(piece[shift:])[4:-4] for shift in range(3)))
    )
    shape = model["shape"]
    assert isinstance(shape, list)  # noqa: S101 - the demo's own algorithm made it
    parameters = int(shape[0]) * int(shape[1])
    seconds = time.monotonic() - started
    print_report(
        console,
        rows=rows,
        model=model,
        attempts=attempts,
        database_bytes=system.database_file.stat().st_size,
        payload_found=found,
        parameters=parameters,
        seconds=seconds,
    )
    large = [row for row in rows if row.task_id != task_id or row.who == plan.central.name]
    figures: dict[str, object] = {
        "runs": [
            {
                "run_id": row.run_id,
                "who": row.who,
                "what": row.what,
                "status": row.status,
                "location": row.reference.location if row.reference else None,
                "input_location": row.input_reference.location if row.input_reference else None,
                "stored_bytes": row.stored_bytes,
                "reference_bytes": row.reference.stored_size if row.reference else None,
                "database_bytes": row.database_bytes,
                "seconds": row.seconds,
            }
            for row in rows
        ],
        "rounds": model["rounds"],
        "baseline": model["baseline"],
        "parameters": parameters,
        "attempts": [vars_of(attempt) for attempt in attempts],
        "database_bytes": system.database_file.stat().st_size,
        "payload_in_database": found,
        "seconds": seconds,
    }
    figures["passed"] = (
        not found
        and all(row.reference is not None and row.stored_bytes == row.reference.stored_size for row in large)
        and all(attempt.configuration.startswith("refused") for attempt in attempts)
        and all(attempt.store != "ALLOWED" for attempt in attempts)
        and _beats_baseline(model)
    )
    return figures


def vars_of(attempt: evidence.Attempt) -> dict[str, str]:
    """An attempt as JSON."""
    return {
        "reader": attempt.reader,
        "owner": attempt.owner,
        "location": attempt.location,
        "configuration": attempt.configuration,
        "store": attempt.store,
    }


def _beats_baseline(model: dict[str, object]) -> bool:
    rounds, baseline = model["rounds"], model["baseline"]
    assert isinstance(rounds, list)  # noqa: S101 - the demo's own algorithm made it
    assert isinstance(baseline, dict)  # noqa: S101
    return bool(rounds[-1]["top1"] > 3 * baseline["top1"])


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
