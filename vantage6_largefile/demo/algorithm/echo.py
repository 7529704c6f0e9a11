"""Functions that tests call: exact sizes, stock calls only, and outputs that a node must refuse."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from pathlib import Path
from typing import NoReturn

import numpy as np
from vantage6.algorithm.client import AlgorithmClient
from vantage6.algorithm.tools.decorators import algorithm_client

Json = dict[str, object]


def pattern(size: int, seed: int = 0) -> str:
    """Give `size` characters that need no escape in JSON and do not repeat (pseudo-random hexadecimal digits)."""
    return np.random.default_rng(seed).bytes((size + 1) // 2).hex()[:size]


def echo_size(size: int, *, seed: int = 0, pause: float = 0.0) -> str:
    """Give a string whose JSON form, and so the whole result, has exactly `size` bytes (at least 2).

    Tests rebuild it: the result is ``json.dumps(pattern(size - 2, seed))``. With `pause` (seconds) the run takes
    that long before, which gives a test time to interfere.
    """
    print(f"echo: a result of {size} bytes", flush=True)
    time.sleep(pause)
    return pattern(size - 2, seed)


def echo_input(payload: str) -> Json:
    """Give back what came in, with its SHA-256."""
    return {"sha256": _sha256(payload), "payload": payload}


@algorithm_client  # type: ignore[untyped-decorator]
def central_echo(client: AlgorithmClient, organizations: list[int], size: int, *, seed: int = 0) -> Json:
    """Send `size` bytes to subtasks and read them back, by the calls that every existing algorithm makes.

    Returns
    -------
    dict
        ``sent`` (SHA-256 of what was sent) and ``received``: per result ``input`` (the SHA-256 that the subtask
        computed), ``result`` (SHA-256 of what came back) and ``size``. A result that the stock client could not
        read is None there.
    """
    payload = pattern(size, seed)
    task = client.task.create(
        input_={"method": "echo_input", "kwargs": {"payload": payload}}, organizations=organizations, name="echo"
    )
    results = client.wait_for_results(task["id"])
    return {"sent": _sha256(payload), "received": [result and _received(result) for result in results]}


def write_nothing(*, remove: bool = False) -> NoReturn:
    """End well without an output: the node's empty file stays as it is, or is removed."""
    if remove:
        _output_file().unlink()
    _leave()


def write_symlink(target: str | None = None) -> NoReturn:
    """End well with a symbolic link as output; it points to `target`, or to the run's own token."""
    output = _output_file()
    output.unlink()
    output.symlink_to(target or os.environ["TOKEN_FILE"])
    _leave()


def look_around(root: str | None = None) -> Json:
    """List what this run can see below `root` (the folder that holds its own run folder) and in its environment.

    Returns
    -------
    dict
        ``root``, ``files`` (paths relative to it, sorted, links not followed) and ``environment`` (names only).
    """
    start = Path(root) if root else _output_file().parent.parent
    files = [
        str((Path(folder) / name).relative_to(start)) for folder, _, names in os.walk(start) for name in sorted(names)
    ]
    return {"root": str(start), "files": sorted(files), "environment": sorted(os.environ)}


def _received(result: Json) -> Json:
    payload = str(result["payload"])
    return {"input": result["sha256"], "result": _sha256(payload), "size": len(payload)}


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _output_file() -> Path:
    return Path(os.environ["OUTPUT_FILE"])


def _leave() -> NoReturn:
    # past the wrapper, which would write its own output
    sys.stdout.flush()
    os._exit(0)
