"""An HTTP proxy on loopback that injects faults by rule, and remembers what it saw and when.

It stands in front of a real store, speaks HTTP/1.1 with kept-open connections, and forwards everything that no rule
is about byte by byte. Nothing is ever sent twice by it.
"""

from __future__ import annotations

import re
import socket
import struct
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

_PIECE = 64 * 1024
_TICK = 0.05


# --- faults -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """Answer with a status of our own. With `forward` the store has done the work all the same."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    forward: bool = False


@dataclass(frozen=True)
class Reset:
    """Reset the connection: before the store has seen anything, after so many bytes of the body, or after its work."""

    after_body_bytes: int | None = 0
    forward: bool = False


@dataclass(frozen=True)
class CutAnswer:
    """The store's own answer, its declared length included, of whose body only so many bytes come.

    Then the connection is closed, or with `hang` nothing happens any more. ``body_bytes=None`` sends not even the
    head.
    """

    body_bytes: int | None
    hang: bool = False


@dataclass(frozen=True)
class Trickle:
    """Request and answer go through whole, in small pieces with pauses."""

    bytes_per_second: int


Fault = Answer | Reset | CutAnswer | Trickle


@dataclass(frozen=True, eq=False)
class Rule:
    """Which requests meet a fault.

    Attributes
    ----------
    method : str
    target : str
        Searched as a regular expression in path and query.
    nth : collection of int or None
        Of the requests that fit method and target, counted from 1; None is all of them.
    """

    fault: Fault
    method: str = "PUT|GET|HEAD|DELETE"
    target: str = ""
    nth: Collection[int] | None = None


#: Requests of an upload, as Azure has them.
PART = r"comp=block&"
COMMIT = r"comp=blocklist"


# --- what was seen ------------------------------------------------------------------------------------------------


@dataclass
class Seen:
    """One request. Times are of :func:`time.monotonic`.

    Attributes
    ----------
    began_at, answered_at, ended_at : float
        When its head had come in; just before the first byte of its answer went out (so the other side has it later
        than that); when the last byte had gone out, or the connection was cut.
    forwarded : bool
        Whether the whole of it reached the store.
    status : int or None
        Of the answer that was sent back; None when there was none.
    """

    method: str
    target: str
    began_at: float
    answered_at: float | None = None
    ended_at: float | None = None
    forwarded: bool = False
    status: int | None = None

    @property
    def block(self) -> int | None:
        """The number of the part, for the upload of a part."""
        found = parse_qs(urlsplit(self.target).query)
        if self.method != "PUT" or found.get("comp") != ["block"]:
            return None
        return int(b64decode(found["blockid"][0])[-6:])


class FaultProxy:
    """A running proxy. Made by :func:`fault_proxy`.

    Attributes
    ----------
    port : int
    rules : list of Rule
        The first that fits a request decides. May be changed at any time.
    requests : list of Seen
        In the order in which their heads came in.
    bytes_per_second : int or None
        How fast bodies go through, over all connections.
    on_body : callable or None
        Told, in the proxy's thread, how many bytes of request bodies came in so far, before the piece goes on.
    on_request, on_answer : callable or None
        Told of every request before anything is done about it, and when the store has answered it.
    """

    def __init__(self, backend_port: int) -> None:
        self.rules: list[Rule] = []
        self.requests: list[Seen] = []
        self.bytes_per_second: int | None = None
        self.on_body: Callable[[int], None] | None = None
        self.on_request: Callable[[Seen], None] | None = None
        self.on_answer: Callable[[Seen], None] | None = None
        self._backend_port = backend_port
        self._counts: dict[Rule, int] = {}
        self._lock = threading.Lock()
        self._body_bytes = 0
        self._line_free_at = 0.0
        self._stopping = threading.Event()
        self._connections: dict[socket.socket, threading.Thread] = {}
        self._listener: socket.socket | None = None
        self._acceptor: threading.Thread | None = None
        self.port = 0
        self.come_back()

    # --- being there ---------------------------------------------------------------------------------------------

    def go_away(self) -> None:
        """Refuse connections from now on, and reset those that are open."""
        listener, self._listener = self._listener, None
        if listener is None:
            return
        # A thread that sits in accept() is not woken by close() alone.
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        if self._acceptor is not None:
            self._acceptor.join()
        with self._lock:
            connections = list(self._connections.items())
        for client, _ in connections:
            _reset(client)
        for _, thread in connections:
            if thread is not threading.current_thread():
                thread.join(10)

    def come_back(self) -> None:
        """Listen again, on the same port."""
        listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
        self.port = listener.getsockname()[1]
        self._listener = listener
        self._acceptor = threading.Thread(target=self._accept, args=(listener,), daemon=True)
        self._acceptor.start()

    def narrow(self, size: int) -> None:
        """Take in at most about `size` bytes per new connection that have not gone on yet, as a slow line would."""
        assert self._listener is not None
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)

    def stop(self) -> None:
        """End it, hanging connections included."""
        self._stopping.set()
        self.go_away()

    def forget(self) -> None:
        """Forget all requests and counts."""
        with self._lock:
            self.requests.clear()
            self._counts.clear()
            self._body_bytes = 0

    def parts(self) -> dict[int, list[Seen]]:
        """The uploads of parts, by the number of the part."""
        found: dict[int, list[Seen]] = {}
        for seen in list(self.requests):
            if seen.block is not None:
                found.setdefault(seen.block, []).append(seen)
        return found

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
            with self._lock:
                self._connections[client] = thread
            thread.start()

    # --- serving -------------------------------------------------------------------------------------------------

    def _serve(self, client: socket.socket) -> None:
        try:
            with client, socket.create_connection(("127.0.0.1", self._backend_port)) as server:
                server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                from_client, from_server = _Messages(client), _Messages(server)
                while self._exchange(from_client, from_server):
                    pass
        except (OSError, _Ended):
            pass
        finally:
            with self._lock:
                self._connections.pop(client, None)

    def _exchange(self, client: _Messages, server: _Messages) -> bool:
        """One request and its answer; False when the connection is over."""
        head = client.head()
        if head is None:
            return False
        method, target, _ = head.split("\r\n", 1)[0].split(" ", 2)
        seen = Seen(method, target, time.monotonic())
        fault = self._note(seen)
        try:
            if self.on_request is not None:
                self.on_request(seen)
            return self._answer(client, server, head, seen, fault)
        finally:
            seen.ended_at = time.monotonic()

    def _note(self, seen: Seen) -> Fault | None:
        with self._lock:
            self.requests.append(seen)
            for rule in list(self.rules):
                if re.fullmatch(rule.method, seen.method) and re.search(rule.target, seen.target):
                    count = self._counts[rule] = self._counts.get(rule, 0) + 1
                    if rule.nth is None or count in rule.nth:
                        return rule.fault
        return None

    def _answer(self, client: _Messages, server: _Messages, head: str, seen: Seen, fault: Fault | None) -> bool:
        pace = fault.bytes_per_second if isinstance(fault, Trickle) else None
        refused = isinstance(fault, Answer | Reset) and not fault.forward
        if not refused:
            server.socket.sendall(head.encode("latin-1"))
        sent = 0
        for piece in client.body(head):
            if isinstance(fault, Reset) and not fault.forward and sent >= (fault.after_body_bytes or 0):
                break
            self._body_came(len(piece))
            self._pace(len(piece), pace)
            if not refused:
                server.socket.sendall(piece)
            sent += len(piece)
        if refused and isinstance(fault, Reset):
            _reset(client.socket)
            return False
        if refused and isinstance(fault, Answer):
            return self._own_answer(client, seen, fault)
        seen.forwarded = True
        answer = server.head()
        if answer is None:
            return False
        body = server.body(answer, none=seen.method == "HEAD")
        if self.on_answer is not None:
            self.on_answer(seen)
        match fault:
            case Answer():
                for _ in body:
                    pass
                return self._own_answer(client, seen, fault)
            case Reset():
                for _ in body:
                    pass
                _reset(client.socket)
                return False
            case CutAnswer():
                return self._cut(client, answer, body, fault)
        seen.status = int(answer.split(" ", 2)[1])
        seen.answered_at = time.monotonic()
        client.socket.sendall(answer.encode("latin-1"))
        for piece in body:
            for start in range(0, len(piece), 4096) if pace else (0,):
                small = piece[start : start + 4096] if pace else piece
                self._pace(len(small), pace)
                client.socket.sendall(small)
        return "connection: close" not in answer.lower()

    def _own_answer(self, client: _Messages, seen: Seen, fault: Answer) -> bool:
        fields = {"Content-Length": "0", **fault.headers}
        lines = [f"HTTP/1.1 {fault.status} Fault", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
        seen.status = fault.status
        seen.answered_at = time.monotonic()
        client.socket.sendall("\r\n".join(lines).encode("latin-1"))
        return True

    def _cut(self, client: _Messages, answer: str, body: Iterator[bytes], fault: CutAnswer) -> bool:
        if fault.body_bytes is not None:
            client.socket.sendall(answer.encode("latin-1"))
            left = fault.body_bytes
            for piece in body:
                client.socket.sendall(piece[:left])
                left -= min(left, len(piece))
                if left == 0:
                    break
        if fault.hang:
            client.wait_for_end(self._stopping)
        return False

    def _body_came(self, size: int) -> None:
        with self._lock:
            self._body_bytes += size
            total = self._body_bytes
        if self.on_body is not None:
            self.on_body(total)

    def _pace(self, size: int, own: int | None) -> None:
        if own is not None:
            self._stopping.wait(size / own)
        elif self.bytes_per_second is not None:
            with self._lock:
                start = max(time.monotonic(), self._line_free_at)
                self._line_free_at = start + size / self.bytes_per_second
            self._stopping.wait(max(0.0, start - time.monotonic()))


class _Ended(Exception):
    """The other side closed in the middle of a message."""


class _Messages:
    """The messages that come in on one connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._begun = b""

    def head(self) -> str | None:
        """The head of the next message; None when the other side has closed."""
        while b"\r\n\r\n" not in self._begun:
            more = self.socket.recv(_PIECE)
            if not more:
                return None
            self._begun += more
        head, _, self._begun = self._begun.partition(b"\r\n\r\n")
        return head.decode("latin-1") + "\r\n\r\n"

    def body(self, head: str, *, none: bool = False) -> Iterator[bytes]:
        """What belongs to that head, raw."""
        lines = (line.partition(":") for line in head.split("\r\n")[1:])
        fields = {name.lower(): value.strip().lower() for name, _, value in lines}
        status = head.split(" ", 2)[1] if head.startswith("HTTP/") else ""
        if none or status in ("204", "304"):
            return
        if "chunked" in fields.get("transfer-encoding", ""):
            yield from self._chunked()
            return
        left = int(fields.get("content-length", "0"))
        while left:
            piece = self._some()[:left]
            self._begun = self._begun[len(piece) :]
            left -= len(piece)
            yield piece

    def _chunked(self) -> Iterator[bytes]:
        size = -1
        while size != 0:
            while b"\r\n" not in self._begun:
                self._more()
            size = int(self._begun.partition(b"\r\n")[0].split(b";")[0], 16)
            whole = self._begun.index(b"\r\n") + 2 + size + 2
            while len(self._begun) < whole:
                self._more()
            piece, self._begun = self._begun[:whole], self._begun[whole:]
            yield piece

    def _some(self) -> bytes:
        if not self._begun:
            self._more()
        return self._begun

    def _more(self) -> None:
        more = self.socket.recv(_PIECE)
        if not more:
            raise _Ended
        self._begun += more

    def wait_for_end(self, stopping: threading.Event) -> None:
        """Return when the other side has closed, or when `stopping` is set."""
        self.socket.settimeout(_TICK)
        while not stopping.is_set():
            with suppress(TimeoutError):
                if not self.socket.recv(_PIECE):
                    return


def _reset(connection: socket.socket) -> None:
    """End a connection by RST instead of FIN; wakes a thread that waits on it."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # Only the last close sends the RST, and another thread may hold the descriptor: shutdown wakes it.
        connection.shutdown(socket.SHUT_RD)
        connection.close()


@contextmanager
def fault_proxy(backend_port: int) -> Iterator[FaultProxy]:
    """A proxy in front of a server on loopback, without any rule yet."""
    proxy = FaultProxy(backend_port)
    try:
        yield proxy
    finally:
        proxy.stop()
