"""A child process that looks like one of docker's containers: started, followed, ended and found again.

``/bin/sh`` starts the stock algorithm wrapper in a session of its own, waits, writes the exit code to a file and ends
whatever else is left in the session. It holds a lock on a file as long as it lives; that, and no process id that
could be used again, tells a running container from a dead one. All state lies in the container's folder, so a node
that was killed finds its containers again.

============== ==================================================================================================
file           content
============== ==================================================================================================
container.json what does not change: name, labels, image, mounts; without it the folder is no container
alive          locked while the supervisor or the algorithm lives
group          the process group, once started
log            stdout and stderr
exit           the exit code, once ended; missing after SIGKILL
home           HOME and working directory of the algorithm
============== ==================================================================================================
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Literal, overload

from docker.errors import APIError, NotFound

_RUN_WRAPPER = "from vantage6.algorithm.tools.wrap import wrap_algorithm; wrap_algorithm()"
# $0 is the container's folder. Signals that end the algorithm are caught, not ignored (which would be inherited),
# because sh has to live on to write the exit code. The last line ends stray children and sh itself, as the end of
# a container's first process does.
_SUPERVISOR = """
put() { echo "$1" >"$2.part" && mv "$2.part" "$2"; }
trap : TERM INT HUP
put $$ "$0/group"
"$@"
put $? "$0/exit"
kill -KILL 0
"""
_SIGKILL, _SIGTERM = signal.SIGKILL, signal.SIGTERM
_KILLED = 128 + _SIGKILL
# stands for "=" in the node's base32 values (vantage6.common.globals.ENV_VAR_EQUALS_REPLACEMENT)
_EQUALS = "!"
_HOST = "http://host.docker.internal"
_POLL_S = 0.05
_PATIENCE_S = 10.0


class Container:
    """One process group; attributes are those of the last :meth:`reload`, as with docker's.

    Parameters
    ----------
    folder : Path
        The container's folder.

    Raises
    ------
    docker.errors.NotFound
        If that is no container (any more).
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.attrs: dict[str, Any] = {}
        self.reload()

    @property
    def id(self) -> str:
        """64 hexadecimal digits."""
        return str(self.attrs["Id"])

    @property
    def name(self) -> str:
        """The name, without Docker's leading slash."""
        return str(self.attrs["Name"]).lstrip("/")

    @property
    def labels(self) -> dict[str, str]:
        """The labels it was started with."""
        return dict(self.attrs["Config"]["Labels"])

    @property
    def status(self) -> str:
        """``created``, ``running`` or ``exited``."""
        return str(self.attrs["State"]["Status"])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Container) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def reload(self) -> None:
        """Look again. ``docker.errors.NotFound`` if it was removed."""
        try:
            attrs = json.loads((self._folder / "container.json").read_text())
        except FileNotFoundError as exc:
            raise NotFound(f"No such container: {self._folder.name}") from exc
        status, code = self._state()
        attrs["State"] = {"Status": status, "Running": status == "running", "ExitCode": code}
        self.attrs = attrs

    @overload
    def logs(self, *, stream: Literal[True], follow: bool = ...) -> Iterator[bytes]: ...
    @overload
    def logs(self, *, stream: Literal[False] = ..., follow: bool = ...) -> bytes: ...
    def logs(self, *, stream: bool = False, follow: bool = True) -> bytes | Iterator[bytes]:
        """Give all output so far, or (`stream`) its lines until the process has ended."""
        if not stream:
            return (self._folder / "log").read_bytes()
        # opened here, so that it can be read to its end even if the container is removed meanwhile
        return self._lines((self._folder / "log").open("rb"), follow=follow)

    def wait(self, timeout: float | None = None) -> dict[str, int]:
        """Wait for the end, for `timeout` seconds at most (then ``TimeoutError``)."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (state := self._state())[0] == "running":
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"Container {self.name} still runs after {timeout} s.")
            time.sleep(_POLL_S)
        return {"StatusCode": state[1]}

    def kill(self, signal: int = _SIGKILL) -> None:
        """Send a signal to the whole process group. ``docker.errors.APIError`` if it is not running."""
        if self._state()[0] != "running":
            raise APIError(f"Container {self.name} is not running")
        self._send(signal)

    def stop(self, timeout: float = 10) -> None:
        """Ask it to end, and kill it after `timeout` seconds. Nothing happens to one that has ended."""
        self._send(_SIGTERM)
        try:
            self.wait(timeout)
        except TimeoutError:
            self._send(_SIGKILL)
            self.wait(_PATIENCE_S)

    def remove(self, *, force: bool = False) -> None:
        """Forget it and delete its log; a running one only with `force`, which kills it first.

        Raises
        ------
        docker.errors.APIError
            If it is running and not forced.
        """
        self.reload()
        if self.status == "running":
            if not force:
                raise APIError(f"Container {self.name} is running: stop it, or remove it with force")
            self._send(_SIGKILL)
            self.wait(_PATIENCE_S)
        # first what makes it a container: whoever lists meanwhile sees it whole or not at all
        (self._folder / "container.json").unlink()
        shutil.rmtree(self._folder)

    def _state(self) -> tuple[str, int]:
        """Status and exit code (0 while there is none)."""
        # asked in this order: a supervisor writes the code before its death gives the lock back
        alive = _is_locked(self._folder / "alive")
        try:
            return "exited", int((self._folder / "exit").read_text())
        except FileNotFoundError:
            pass
        if alive:
            return "running", 0
        return ("exited", _KILLED) if (self._folder / "group").exists() else ("created", 0)

    def _send(self, number: int) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        # the lock tells that somebody of the group lives, and so that the number still is this group's
        while _is_locked(self._folder / "alive") and time.monotonic() < deadline:
            try:
                os.killpg(int((self._folder / "group").read_text()), number)
            except FileNotFoundError:
                time.sleep(_POLL_S)  # it is just being started
            except ProcessLookupError:
                return
            else:
                return

    def _lines(self, file: IO[bytes], *, follow: bool) -> Iterator[bytes]:
        begun = b""
        with file:
            while True:
                ended = not follow or self._state()[0] != "running"
                for piece in file:
                    begun += piece
                    if begun.endswith(b"\n"):
                        yield begun
                        begun = b""
                if ended:
                    break
                time.sleep(_POLL_S)
        if begun:
            yield begun


def start(
    folder: Path, attrs: Mapping[str, object], environment: Mapping[str, str]
) -> tuple[Container, subprocess.Popen[bytes]]:
    """Run the stock algorithm wrapper as a container in a new folder.

    Parameters
    ----------
    folder : Path
        Must not exist.
    attrs : mapping
        What ``Container.attrs`` shall have, without ``State``.
    environment : mapping of str to str
        All variables of the process; HOME is added. Nothing comes from this process's own environment.

    Returns
    -------
    Container, Popen
        The child has to be polled some time, or it stays a zombie after its end.
    """
    home = folder / "home"
    home.mkdir(parents=True)
    (folder / "container.part").write_text(json.dumps(attrs))
    (folder / "container.part").rename(folder / "container.json")
    with (folder / "alive").open("wb") as alive, (folder / "log").open("wb") as output:
        # belongs to the open file, which the child inherits: given back when the last process that has it is gone
        fcntl.flock(alive, fcntl.LOCK_EX)
        child = subprocess.Popen(
            ["/bin/sh", "-c", _SUPERVISOR, str(folder), sys.executable, "-c", _RUN_WRAPPER],
            cwd=home,
            env={"HOME": str(home), **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=[alive.fileno()],
        )
    return Container(folder), child


def rewritten(value: str, mounts: Mapping[str, str]) -> str:
    """Put the path on this machine in place of the place of a mount.

    Parameters
    ----------
    value : str
        Value of an environment variable, plain or in the node's base32 form; it comes back in the same form.
    mounts : mapping of str to str
        Path in the container and path on this machine.
    """
    try:
        plain = base64.b32decode(value.replace(_EQUALS, "=")).decode()
    except (binascii.Error, UnicodeDecodeError):
        return _on_this_machine(value, mounts)
    return base64.b32encode(_on_this_machine(plain, mounts).encode()).decode().replace("=", _EQUALS)


def _on_this_machine(value: str, mounts: Mapping[str, str]) -> str:
    if value == _HOST:
        return "http://127.0.0.1"
    for place in sorted(mounts, key=len, reverse=True):
        if value == place or value.startswith(f"{place}/"):
            return mounts[place] + value[len(place) :]
    return value


def _is_locked(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False
