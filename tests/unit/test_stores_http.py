"""HTTP sessions: which way they go, and what they leave alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from vantage6_largefile.config.store import NetworkConfig
from vantage6_largefile.stores.http import bypasses_proxy, http_session


class Server(ThreadingHTTPServer):
    """Answers everything with 200 and notes the request lines and headers."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lines: list[str] = []
        self.authorizations: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.lines.append(self.requestline)
        self.server.authorizations.append(self.headers.get("Authorization"))
        if self.path.endswith("/redirect"):
            self.send_response(307)
            self.send_header("Location", f"{self.server.url}/followed")
        else:
            self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def other(server: Server) -> Iterator[Server]:
    with Server() as other:
        thread = threading.Thread(target=other.serve_forever)
        thread.start()
        yield other
        other.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("url", "entry", "bypasses"),
    [
        ("https://a.hospital.nl/x", "hospital.nl", True),
        ("https://a.hospital.nl/x", ".hospital.nl", True),
        ("https://hospital.nl/x", ".hospital.nl", True),
        ("https://A.Hospital.NL/x", "a.hospital.nl", True),
        ("https://nothospital.nl/x", "hospital.nl", False),
        ("https://hospital.nl.example/x", "hospital.nl", False),
        ("https://a.hospital.nl:8443/x", "a.hospital.nl:8443", True),
        ("https://a.hospital.nl/x", "a.hospital.nl:8443", False),
        ("https://a.hospital.nl/x", "*", True),
        ("https://10.1.2.3/x", "10.0.0.0/8", True),
        ("https://10.1.2.3/x", "10.1.2.3", True),
        ("https://11.1.2.3/x", "10.0.0.0/8", False),
        ("https://[fd00::1]/x", "fd00::/8", True),
        ("https://[fd00::1]/x", "10.0.0.0/8", False),
        ("https://11.1.2.3/x", "*", True),
        ("http://169.254.169.254/metadata", "hospital.nl", True),
    ],
)
def test_no_proxy_entries(url: str, entry: str, bypasses: bool) -> None:
    assert bypasses_proxy(url, (entry,)) is bypasses


def test_configured_proxy_is_used_whatever_the_environment_says(
    server: Server, other: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "*")
    with http_session(NetworkConfig(https_proxy=other.url), connections=1) as session:
        session.get(f"{server.url}/x", timeout=10)

    assert server.lines == []
    assert other.lines == [f"GET {server.url}/x HTTP/1.1"]


def test_configured_exception_goes_directly(server: Server, other: Server) -> None:
    network = NetworkConfig(https_proxy=other.url, no_proxy=("127.0.0.0/8",))
    with http_session(network, connections=1) as session:
        session.get(f"{server.url}/x", timeout=10)

    assert other.lines == []
    assert server.lines == ["GET /x HTTP/1.1"]


def test_without_configuration_the_environment_decides(
    server: Server, other: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", other.url)
    monkeypatch.setenv("http_proxy", other.url)
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    with http_session(NetworkConfig(), connections=1) as session:
        session.get(f"{server.url}/x", timeout=10)

    assert server.lines == []
    assert len(other.lines) == 1


def test_password_of_netrc_is_never_sent(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    with http_session(NetworkConfig(), connections=1) as session:
        session.get(f"{server.url}/x", timeout=10)
        session.get(f"{server.url}/x", timeout=10, headers={"Authorization": "SharedKey of the SDK"})

    assert server.authorizations == [None, "SharedKey of the SDK"]


def test_redirect_is_not_followed(server: Server) -> None:
    with http_session(NetworkConfig(), connections=1) as session:
        answer = session.get(f"{server.url}/redirect", timeout=10, allow_redirects=True)

    assert answer.status_code == 307
    assert server.lines == ["GET /redirect HTTP/1.1"]


def test_certificates_of_the_configuration_are_used(tmp_path: Path) -> None:
    bundle = tmp_path / "hospital.pem"
    with http_session(NetworkConfig(ca_bundle=str(bundle)), connections=1) as session:
        settings = session.merge_environment_settings("https://a.hospital.nl", {}, False, True, None)

    assert settings["verify"] == str(bundle)
