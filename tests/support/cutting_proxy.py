"""A TCP proxy on loopback that breaks connections where a test wants it: the faults that a real network makes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class Cut:
    """What happens to one request.

    Attributes
    ----------
    after_request_bytes : int or None
        The connection to the client is closed when so many bytes of the request came in.
    after_response_bytes : int or None
        The whole request reaches the server; the connection is closed when so many bytes of the answer went back.
    """

    after_request_bytes: int | None = None
    after_response_bytes: int | None = None


@dataclass
class CuttingProxy:
    """A running proxy.

    Attributes
    ----------
    port : int
    decide : callable
        Given the head of a request (text) and its number; the cut to make, or None.
    heads : list of str
        The heads of all requests so far.
    """

    port: int
    decide: Callable[[str, int], Cut | None] = lambda head, number: None
    heads: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def see(self, head: str) -> Cut | None:
        with self._lock:
            self.heads.append(head)
            number = len(self.heads)
        return self.decide(head, number)


@contextmanager
def cutting_proxy(server_port: int) -> Iterator[CuttingProxy]:
    """A proxy in front of a server on loopback; every connection carries one request at a time, as HTTP/1.1 does."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = CuttingProxy(listener.getsockname()[1])
        stopping = threading.Event()
        threads: list[threading.Thread] = []
        listener.settimeout(0.1)

        def accept() -> None:
            while not stopping.is_set():
                try:
                    client, _ = listener.accept()
                except TimeoutError:
                    continue
                thread = threading.Thread(target=_serve, args=(client, server_port, proxy, stopping), daemon=True)
                thread.start()
                threads.append(thread)

        acceptor = threading.Thread(target=accept, daemon=True)
        acceptor.start()
        try:
            yield proxy
        finally:
            stopping.set()
            acceptor.join()
            for thread in threads:
                thread.join(5)


def _serve(client: socket.socket, server_port: int, proxy: CuttingProxy, stopping: threading.Event) -> None:
    with client, suppress(OSError), socket.create_connection(("127.0.0.1", server_port)) as server:
        for side in (client, server):
            side.settimeout(0.1)
        while not stopping.is_set():
            message = _read_head(client, stopping)
            if message is None:
                return
            head, begun = message
            cut = proxy.see(head) or Cut()
            if not _forward(client, server, head, begun, cut.after_request_bytes, stopping):
                return
            answer = _read_head(server, stopping)
            if answer is None:
                return
            head_only = head.startswith("HEAD ")
            if not _forward(server, client, *answer, cut.after_response_bytes, stopping, no_body=head_only):
                return


def _read_head(source: socket.socket, stopping: threading.Event) -> tuple[str, bytes] | None:
    """The head of the next message, and what came of its body with it; None when the other side has closed."""
    data = b""
    while b"\r\n\r\n" not in data:
        if stopping.is_set():
            return None
        try:
            more = source.recv(65536)
        except TimeoutError:
            continue
        if not more:
            return None
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    return head.decode("latin-1") + "\r\n\r\n", body


def _forward(
    source: socket.socket,
    target: socket.socket,
    head: str,
    begun: bytes,
    cut_after: int | None,
    stopping: threading.Event,
    *,
    no_body: bool = False,
) -> bool:
    """Forward one message; False when the connection was cut or has ended."""
    fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
    status = head.split(" ")[1] if head.startswith("HTTP/") else ""
    chunked = "chunked" in fields.get("transfer-encoding", "") and not no_body and status not in ("204", "304")
    length = 0 if no_body or status in ("204", "304") else int(fields.get("content-length", "0"))
    sent = 0
    pending, body_seen, tail = head.encode("latin-1") + begun, len(begun), begun
    while True:
        if cut_after is not None and sent + len(pending) > cut_after:
            with suppress(OSError):
                target.sendall(pending[: cut_after - sent])
            return False
        target.settimeout(30)
        target.sendall(pending)
        target.settimeout(0.1)
        sent += len(pending)
        if tail.endswith(b"0\r\n\r\n") if chunked else body_seen >= length:
            return True
        pending = b""
        while not pending:
            if stopping.is_set():
                return False
            try:
                pending = source.recv(65536)
            except TimeoutError:
                continue
            if not pending:
                return False
        body_seen += len(pending)
        tail = (tail + pending)[-5:]
