"""The ``azure`` driver against Azurite: rights, wrong configuration, redirects, secrets."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pydantic import SecretStr

from vantage6_largefile.config.store import ConnectionStringCredential, Credential, SasCredential, StoreConfig
from vantage6_largefile.demo.azurite import AzuriteServer, free_port
from vantage6_largefile.errors import (
    LargeFileError,
    ObjectExists,
    StoreAccessDenied,
    StoreError,
    StoreMisconfigured,
    StoreUnavailable,
    UploadSessionLost,
)
from vantage6_largefile.location import Location
from vantage6_largefile.stores import Store, UploadSession, open_store
from vantage6_largefile.stores.base import Part

pytestmark = pytest.mark.azurite


@pytest.fixture
def container(azurite_server: AzuriteServer) -> str:
    name = f"c{uuid.uuid4().hex}"
    azurite_server.create_container(name)
    return name


def store_of(server: AzuriteServer, container: str, credential: Credential, url: str | None = None) -> Store:
    root = Location.parse(f"azure://{server.account}/{container}")
    return open_store(StoreConfig("azure", root, {"account_url": url or server.account_url}, credential))


def key(server: AzuriteServer) -> Credential:
    return ConnectionStringCredential(connection_string=SecretStr(server.connection_string))


def wrong_key(server: AzuriteServer) -> Credential:
    text = server.connection_string.replace(server.account_key[:8], "AAAAAAAA")
    return ConnectionStringCredential(connection_string=SecretStr(text))


def sas(server: AzuriteServer, container: str, permissions: str) -> Credential:
    return SasCredential(sas=SecretStr(server.sas(container, permissions)))


def write(store: Store, name: str, data: bytes) -> Location:
    location = store.root.child(name)
    session = store.begin(location, media_type="application/json", part_size=1 << 20)
    store.commit(session, [store.put_part(session, 1, data)])
    return location


# --- rights -----------------------------------------------------------------------------------------------------------

CALLS: dict[str, Callable[[Store, Location], object]] = {
    "read": lambda store, location: list(store.read(location)),
    "stat": lambda store, location: store.stat(location),
    "delete": lambda store, location: store.delete(location),
    "list": lambda store, location: list(store.list(store.root)),
    "write": lambda store, location: write(store, f"new-{uuid.uuid4()}", b"x"),
}


@pytest.mark.parametrize(
    ("permissions", "allowed"),
    [
        ("cw", {"write"}),
        ("r", {"read", "stat"}),
        ("l", {"list"}),
        ("rl", {"read", "stat", "list"}),
        ("d", {"delete"}),
        ("rcwdl", set(CALLS)),
    ],
)
@pytest.mark.parametrize("call", CALLS)
def test_rights_are_those_of_the_sas(
    azurite_server: AzuriteServer, container: str, permissions: str, allowed: set[str], call: str
) -> None:
    location = write(store_of(azurite_server, container, key(azurite_server)), "object", b"x")
    store = store_of(azurite_server, container, sas(azurite_server, container, permissions))

    if call in allowed:
        CALLS[call](store, location)
    else:
        with pytest.raises(StoreAccessDenied):
            CALLS[call](store, location)


def test_write_only_credential_cannot_list_parts_and_says_so(azurite_server: AzuriteServer, container: str) -> None:
    store = store_of(azurite_server, container, sas(azurite_server, container, "cw"))
    session = store.begin(store.root.child("object"), media_type="text/plain", part_size=1 << 20)
    store.put_part(session, 1, b"x")

    assert store.list_parts(session) is None


def test_write_only_credential_does_not_overwrite_and_learns_the_etag(
    azurite_server: AzuriteServer, container: str
) -> None:
    store = store_of(azurite_server, container, sas(azurite_server, container, "cw"))
    reader = store_of(azurite_server, container, key(azurite_server))
    location = store.root.child("object")
    session = store.begin(location, media_type="text/plain", part_size=1 << 20)

    info = store.commit(session, [store.put_part(session, 1, b"x")])

    assert info.etag == reader.stat(location).etag
    with pytest.raises(ObjectExists):
        write(store, "object", b"y")


def test_sas_of_another_container_opens_nothing(azurite_server: AzuriteServer, container: str) -> None:
    other = f"{container}-b"
    azurite_server.create_container(other)
    location = write(store_of(azurite_server, other, key(azurite_server)), "object", b"x")
    store = store_of(azurite_server, other, sas(azurite_server, container, "rcwdl"))

    for call in CALLS.values():
        with pytest.raises(StoreAccessDenied):
            call(store, location)


# --- check ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("permissions", ["cw", "r", "w", "rcwdl", "rl"])
def test_check_accepts_every_useful_credential_and_leaves_nothing(
    azurite_server: AzuriteServer, container: str, permissions: str
) -> None:
    store_of(azurite_server, container, sas(azurite_server, container, permissions)).check()

    with azurite_server.client() as client:
        blobs = client.get_container_client(container).list_blobs(include=["uncommittedblobs", "deleted"])
        assert list(blobs) == []


@pytest.mark.parametrize("permissions", ["cw", "r", "rcwdl"])
def test_check_finds_an_unknown_container(azurite_server: AzuriteServer, permissions: str) -> None:
    store = store_of(azurite_server, "not-there", sas(azurite_server, "not-there", permissions))

    with pytest.raises(StoreMisconfigured, match="ContainerNotFound"):
        store.check()


def test_check_finds_a_wrong_key(azurite_server: AzuriteServer, container: str) -> None:
    with pytest.raises(StoreAccessDenied):
        store_of(azurite_server, container, wrong_key(azurite_server)).check()


def test_check_finds_a_malformed_key(azurite_server: AzuriteServer, container: str) -> None:
    text = SecretStr(f"AccountName={azurite_server.account};AccountKey=not base64!")
    with pytest.raises(StoreAccessDenied, match="malformed"):
        store_of(azurite_server, container, ConnectionStringCredential(connection_string=text)).check()


def test_check_finds_an_expired_sas(azurite_server: AzuriteServer, container: str) -> None:
    expired = azurite_server.sas(container, "rcw", lifetime=timedelta(hours=-1))
    with pytest.raises(StoreAccessDenied):
        store_of(azurite_server, container, SasCredential(sas=SecretStr(expired))).check()


def test_check_finds_an_unknown_account(azurite_server: AzuriteServer, container: str) -> None:
    url = azurite_server.account_url.replace(azurite_server.account, "unknown")
    with pytest.raises(StoreError) as caught:
        store_of(azurite_server, container, key(azurite_server), url).check()
    assert isinstance(caught.value, StoreMisconfigured | StoreAccessDenied)


def test_check_finds_a_host_that_does_not_answer(azurite_server: AzuriteServer, container: str) -> None:
    url = f"http://127.0.0.1:{free_port()}/{azurite_server.account}"
    with pytest.raises(StoreUnavailable, match="refused"):
        store_of(azurite_server, container, key(azurite_server), url).check()


def test_check_needs_some_right(azurite_server: AzuriteServer, container: str) -> None:
    with pytest.raises(StoreAccessDenied, match="lacks this right"):
        store_of(azurite_server, container, sas(azurite_server, container, "d")).check()


# --- the rest ---------------------------------------------------------------------------------------------------------


def test_no_message_holds_a_secret(azurite_server: AzuriteServer, container: str) -> None:
    token = azurite_server.sas(container, "d")
    dead = f"http://127.0.0.1:{free_port()}/{azurite_server.account}"
    signature = token.split("sig=")[1].split("&")[0]
    messages = []
    for url in (None, dead):
        store = store_of(azurite_server, container, SasCredential(sas=SecretStr(token)), url)
        for name, call in CALLS.items():
            if name == "delete" and url is None:
                continue
            with pytest.raises(LargeFileError) as caught:
                call(store, store.root.child("object"))
            messages.append(f"{caught.getrepr(style='long', chain=True)} {caught.value!r}")

    assert len(messages) == 9
    assert all(str(store.root) in message for message in messages)
    assert all(signature not in message for message in messages)


def test_media_type_is_stored(azurite_server: AzuriteServer, container: str) -> None:
    write(store_of(azurite_server, container, key(azurite_server)), "object", b"{}")

    with azurite_server.client() as client:
        properties = client.get_blob_client(container, "object").get_blob_properties()
    assert properties.content_settings.content_type == "application/json"


def test_blobs_whose_names_are_no_locations_are_not_listed(azurite_server: AzuriteServer, container: str) -> None:
    store = store_of(azurite_server, container, key(azurite_server))
    with azurite_server.client() as client:
        for name in ("of someone else.txt", ".hidden", "a/b/c."):
            client.get_blob_client(container, name).upload_blob(b"x")
    location = write(store, "object", b"x")

    assert [info.location for info in store.list(store.root)] == [location]


def test_content_encoding_of_an_object_is_not_undone(azurite_server: AzuriteServer, container: str) -> None:
    from azure.storage.blob import ContentSettings

    store = store_of(azurite_server, container, key(azurite_server))
    with azurite_server.client() as client:
        blob = client.get_blob_client(container, "object")
        blob.upload_blob(b"not gzip at all", content_settings=ContentSettings(content_encoding="gzip"))

    assert b"".join(store.read(store.root.child("object"))) == b"not gzip at all"
    assert b"".join(store.read(store.root.child("object"), offset=4, length=4)) == b"gzip"


def test_commit_with_a_block_that_was_never_sent_is_a_lost_session(
    azurite_server: AzuriteServer, container: str
) -> None:
    store = store_of(azurite_server, container, key(azurite_server))
    session = store.begin(store.root.child("object"), media_type="text/plain", part_size=1 << 20)
    part = store.put_part(session, 1, b"x")

    with pytest.raises(UploadSessionLost):
        store.commit(session, [part, Part(2, 1, f"{session.token}000002")])


@pytest.mark.parametrize("token", ["", "..", "x" * 32, "0" * 31])
def test_forged_token_is_refused(azurite_server: AzuriteServer, container: str, token: str) -> None:
    store = store_of(azurite_server, container, key(azurite_server))
    session = UploadSession(str(store.root.child("object")), token, "text/plain", 1 << 20)

    with pytest.raises(UploadSessionLost):
        store.put_part(session, 1, b"x")


@pytest.fixture
def redirecting() -> Iterator[tuple[str, list[str]]]:
    """A server that sends everybody to itself, elsewhere, and notes who comes."""
    came: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            came.append(self.path)
            self.send_response(307)
            self.send_header("Location", f"http://localhost:{self.server.server_port}/followed")  # type: ignore[attr-defined]
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_HEAD = do_PUT = do_DELETE = answer

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", came
        server.shutdown()
        thread.join()


def test_redirects_are_not_followed(
    azurite_server: AzuriteServer, container: str, redirecting: tuple[str, list[str]]
) -> None:
    url, came = redirecting
    store = store_of(azurite_server, container, key(azurite_server), f"{url}/{azurite_server.account}")

    for call in (*CALLS.values(), lambda store, location: store.check()):
        with pytest.raises(StoreMisconfigured, match="Redirects are not followed"):
            call(store, store.root.child("object"))

    assert len(came) == len(CALLS) + 1
    assert not [path for path in came if "followed" in path]
