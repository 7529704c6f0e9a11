"""Ctrl-C in the middle of the demo: nothing keeps running, nothing is left."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil


def processes_of(folder: Path) -> list[psutil.Process]:
    """Processes that were started for the demo: its folder is in their command line or their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            words = [*process.cmdline(), *process.environ().values()]
        except psutil.Error:
            continue
        if any(str(folder) in word for word in words):
            found.append(process)
    return found


def test_interrupt_stops_everything_and_removes_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    output = tmp_path / "output"
    command = [sys.executable, "-m", "vantage6_largefile.cli.main", "demo", "--small", "--runner", "process"]
    with output.open("wb") as sink:
        demo = subprocess.Popen(
            [*command, "--folder", str(folder)], stdout=sink, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 120
        while "epoch 1" not in output.read_text() and time.monotonic() < deadline:
            assert demo.poll() is None, output.read_text()
            time.sleep(0.2)
        started = processes_of(folder)
        assert len(started) >= 6, "the demo itself, the server, four nodes"

        demo.send_signal(signal.SIGINT)

        assert demo.wait(60) == 130
        assert "everything that was started has been stopped" in output.read_text()
        assert not folder.exists()
        assert processes_of(folder) == []
    finally:
        if demo.poll() is None:
            demo.kill()
            demo.wait()
