"""Child processes with a log file each, ended by their own pid and never by name."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

#: Seconds that a process gets to end politely.
GRACE = 25.0


class ProcessFailed(RuntimeError):
    """A process ended, or did not come up; the message has the end of its log."""


def free_port() -> int:
    """A port that is free now on all addresses of this machine."""
    with socket.socket() as probe:
        probe.bind(("0.0.0.0", 0))  # noqa: S104 - only asked for, nothing listens
        return int(probe.getsockname()[1])


@dataclass
class Child:
    """One running process."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def tail(self, lines: int = 25) -> str:
        """The end of its log."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text("utf-8", "replace").splitlines()[-lines:])

    def wait_for(self, text: str, *, timeout: float) -> None:
        """Wait until its log has `text`.

        Raises
        ------
        ProcessFailed
            When it ends before, or `timeout` seconds pass.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self.log.exists() and text in self.log.read_text("utf-8", "replace"):
                return
            if not self.running:
                raise ProcessFailed(f"{self.name} ended with code {self.process.returncode}:\n{self.tail()}")
            time.sleep(0.2)
        raise ProcessFailed(f"{self.name} did not log {text!r} within {timeout:.0f} s:\n{self.tail()}")

    def stop(self, grace: float = GRACE) -> None:
        """End it politely, then by force."""
        if self.running:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(grace)
            except subprocess.TimeoutExpired:
                self.kill()
        self.process.wait()

    def kill(self) -> None:
        """End it at once."""
        if self.running:
            self.process.kill()
        self.process.wait()


@dataclass
class Children:
    """All processes that one run has started, ended in reverse order."""

    logs: Path
    started: list[Child] = field(default_factory=list)

    def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Child:
        """Start a process in a session of its own: Ctrl-C reaches only us, and we end the others in order."""
        self.logs.mkdir(parents=True, exist_ok=True)
        log = self.logs / f"{name}.log"
        with log.open("ab") as sink:
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {}), "PYTHONUNBUFFERED": "1"},
                cwd=cwd,
                start_new_session=True,
            )
        child = Child(name, process, log)
        self.started.append(child)
        return child

    def stop(self) -> None:
        """End all of them: asked together, then waited for one by one."""
        for child in reversed(self.started):
            if child.running:
                child.process.send_signal(signal.SIGTERM)
        for child in reversed(self.started):
            child.stop()
        self.started.clear()
