"""The algorithm containers of this node: which token belongs to which run, and what each may ask the proxy for."""

from __future__ import annotations

import hmac
import shutil
import threading
from dataclasses import dataclass, field
from pathlib import Path

from vantage6_largefile.reading import ReadableObject


@dataclass
class SpooledInput:
    """A task input that a container has sent to the proxy and not yet used in a task.

    Attributes
    ----------
    id : str
        What the container got for it. Only this container may use it.
    path : Path
        Plaintext, in the node's spool folder.
    size : int
        Bytes.
    sha256 : str
        Hex digest of the plaintext; equal inputs for several organisations are stored once.
    """

    id: str
    path: Path
    size: int
    sha256: str


@dataclass
class ContainerSession:
    """What the proxy knows of one running container."""

    run_id: int
    task_id: int
    collaboration_id: int
    spool: Path
    inputs: dict[str, SpooledInput] = field(default_factory=dict)
    results: dict[str, ReadableObject] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


class ContainerSessions:
    """Sessions by token. A request whose token is not here does not come from a container of this node."""

    def __init__(self, spool: Path) -> None:
        self._spool = spool
        self._lock = threading.Lock()
        self._by_token: dict[str, ContainerSession] = {}
        # What an earlier process left is plaintext that nobody will ask for again.
        shutil.rmtree(spool, ignore_errors=True)
        spool.mkdir(mode=0o700, parents=True, exist_ok=True)

    def open(self, token: str, *, run_id: int, task_id: int, collaboration_id: int) -> ContainerSession:
        """Begin the session of a container that is about to start."""
        session = ContainerSession(run_id, task_id, collaboration_id, self._spool / f"run-{run_id}")
        with self._lock:
            self._by_token[token] = session
        return session

    def find(self, authorization: str | None) -> ContainerSession | None:
        """The session of an ``Authorization: Bearer`` header, or None."""
        if authorization is None or not authorization.startswith("Bearer "):
            return None
        token = authorization.removeprefix("Bearer ").strip()
        with self._lock:
            for known, session in self._by_token.items():
                if hmac.compare_digest(known.encode(), token.encode()):
                    return session
        return None

    def close(self, run_id: int) -> None:
        """End the sessions of a run and remove what it left in the spool."""
        with self._lock:
            ended = [token for token, session in self._by_token.items() if session.run_id == run_id]
            sessions = [self._by_token.pop(token) for token in ended]
        for session in sessions:
            shutil.rmtree(session.spool, ignore_errors=True)
