"""Show what happens while it happens: the lines of the nodes' logs that a person wants to see."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

#: Lines of algorithms, and our own lines about objects; vantage6 logs much more than that.
_ALGORITHM = re.compile(r"\[Task (\d+)\]: (.+)")
_OWN = re.compile(r" (?:node_ext|vantage6_largefile)[\w.]*: (.+)")
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
#: What the stock wrapper of every algorithm says, each time.
_BORING = re.compile(r"info >|wrapper for|^\s*$|Container in collaboration|Key created by|Can only use image")


class LogFollower:
    """Follows log files in a thread and hands on the lines worth showing.

    Parameters
    ----------
    files : mapping of str to Path
        Log files by the name that is shown.
    show : callable
        Called with name and text.
    """

    def __init__(self, files: Mapping[str, Path], show: Callable[[str, str], None]) -> None:
        self._files = dict(files)
        self._show = show
        self._stop = threading.Event()
        self._positions: dict[str, int] = {}
        self._thread = threading.Thread(target=self._run, name="log-follower", daemon=True)

    def __enter__(self) -> LogFollower:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # One more look, so that the last lines are shown too.
        time.sleep(0.5)
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            last = self._stop.is_set()
            for name, path in self._files.items():
                self._look(name, path)
            if last:
                return
            self._stop.wait(0.5)

    def _look(self, name: str, path: Path) -> None:
        if not path.exists():
            return
        with path.open("rb") as file:
            file.seek(self._positions.get(name, 0))
            data = file.read()
        complete = data.rfind(b"\n") + 1
        self._positions[name] = self._positions.get(name, 0) + complete
        for line in data[:complete].decode("utf-8", "replace").splitlines():
            text = interesting(line)
            if text is not None:
                self._show(name, text)


def interesting(line: str) -> str | None:
    """What of a log line is worth showing, or None."""
    line = _ANSI.sub("", line)
    found = _ALGORITHM.search(line)
    if found:
        return None if _BORING.search(found[2]) else found[2].strip()
    found = _OWN.search(line)
    return found[1].strip() if found else None
