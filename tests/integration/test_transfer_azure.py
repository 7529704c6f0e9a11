"""Transfers to and from Azurite, over a network that breaks."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.support.cutting_proxy import Cut, CuttingProxy, cutting_proxy
from vantage6_largefile.config.store import ConnectionStringCredential, Credential, SasCredential, StoreConfig
from vantage6_largefile.demo.azurite import AzuriteServer
from vantage6_largefile.errors import (
    IntegrityError,
    ObjectChanged,
    ObjectExists,
    StoreAccessDenied,
    StoreUnavailable,
    TransferCancelled,
)
from vantage6_largefile.location import Location
from vantage6_largefile.stores import Store, open_store
from vantage6_largefile.transfer import (
    CancelToken,
    StoredObject,
    TransferOptions,
    download_file,
    iter_object,
    retry,
    upload_file,
    upload_stream,
)

pytestmark = pytest.mark.azurite

MIB = 1 << 20
OPTIONS = TransferOptions(part_size=MIB, concurrency=3, retry_for=60)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.02)
    monkeypatch.setattr(retry, "LONGEST_WAIT", 0.2)


def store_of(
    server: AzuriteServer, container: str, *, permissions: str | None = None, port: int | None = None
) -> Store:
    credential: Credential = ConnectionStringCredential(connection_string=SecretStr(server.connection_string))
    if permissions is not None:
        credential = SasCredential(sas=SecretStr(server.sas(container, permissions)))
    url = f"http://127.0.0.1:{port or server.port}/{server.account}"
    root = Location.parse(f"azure://{server.account}/{container}")
    return open_store(StoreConfig("azure", root, {"account_url": url}, credential))


@pytest.fixture
def container(azurite_server: AzuriteServer) -> str:
    name = f"c{uuid.uuid4().hex}"
    azurite_server.create_container(name)
    return name


@pytest.fixture
def store(azurite_server: AzuriteServer, container: str) -> Store:
    return store_of(azurite_server, container)


@pytest.fixture
def proxy(azurite_server: AzuriteServer) -> Iterator[CuttingProxy]:
    with cutting_proxy(azurite_server.port) as proxy:
        yield proxy


@pytest.fixture
def through_proxy(azurite_server: AzuriteServer, container: str, proxy: CuttingProxy) -> Store:
    return store_of(azurite_server, container, port=proxy.port)


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    path = tmp_path / "spool"
    path.write_bytes(os.urandom(7 * MIB + 123))
    return path


def upload(store: Store, path: Path, *, options: TransferOptions = OPTIONS, **kwargs: object) -> StoredObject:
    return upload_file(
        store,
        path,
        store.root.child("object"),
        media_type="application/octet-stream",
        options=options,
        **kwargs,  # type: ignore[arg-type]
    )


def content(store: Store) -> bytes:
    return b"".join(store.read(store.root.child("object")))


# --- the ordinary way ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, 9 * MIB + 5])
def test_round_trip(store: Store, tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "spool").write_bytes(data)

    stored = upload(store, tmp_path / "spool")
    download_file(
        store,
        stored.location,
        tmp_path / "target",
        stored_size=stored.stored_size,
        sha256=stored.sha256,
        etag=stored.etag,
        options=OPTIONS,
    )

    assert (tmp_path / "target").read_bytes() == data
    assert stored.etag == store.stat(stored.location).etag


def test_write_only_credential_uploads_and_does_no_more(
    azurite_server: AzuriteServer, container: str, store: Store, spool: Path
) -> None:
    writer = store_of(azurite_server, container, permissions="cw")
    writer.check()

    stored = upload(writer, spool)

    assert content(store) == spool.read_bytes()
    for call in (
        writer.stat,
        writer.delete,
        lambda location: list(writer.read(location)),
        lambda _: list(writer.list(writer.root)),
    ):
        with pytest.raises(StoreAccessDenied):
            call(stored.location)
    with pytest.raises(ObjectExists):
        upload(writer, spool)


# --- the network breaks while uploading ---------------------------------------------------------------------------


def test_connections_that_break_in_mid_part_cost_only_that_part(
    store: Store, through_proxy: Store, proxy: CuttingProxy, spool: Path
) -> None:
    proxy.decide = lambda head, number: Cut(after_request_bytes=300_000) if number in (2, 3, 5) else None

    upload(through_proxy, spool)

    assert content(store) == spool.read_bytes()
    # 8 parts, 3 of them twice, and the commit.
    assert len(proxy.heads) == 8 + 3 + 1


def test_commit_whose_answer_is_lost_is_a_success(
    store: Store, through_proxy: Store, proxy: CuttingProxy, spool: Path
) -> None:
    lost: list[str] = []

    def decide(head: str, number: int) -> Cut | None:
        if "comp=blocklist" in head and not lost:
            lost.append(head)
            return Cut(after_response_bytes=0)
        return None

    proxy.decide = decide

    stored = upload(through_proxy, spool)

    assert len(lost) == 1
    assert content(store) == spool.read_bytes()
    assert stored.etag == store.stat(stored.location).etag


def test_commit_whose_answer_is_lost_is_a_success_for_a_write_only_credential(
    azurite_server: AzuriteServer, container: str, store: Store, proxy: CuttingProxy, spool: Path
) -> None:
    writer = store_of(azurite_server, container, permissions="cw", port=proxy.port)
    lost: list[str] = []

    def decide(head: str, number: int) -> Cut | None:
        if "comp=blocklist" in head and not lost:
            lost.append(head)
            return Cut(after_response_bytes=0)
        return None

    proxy.decide = decide

    stored = upload(writer, spool)

    assert stored.etag is None
    assert content(store) == spool.read_bytes()


def test_store_that_dies_in_mid_upload_is_given_up_in_time(own_azurite: AzuriteServer, spool: Path) -> None:
    own_azurite.create_container("hospital-a")
    store = store_of(own_azurite, "hospital-a")
    killed = threading.Event()

    def kill(done: int, total: int | None, rate: float) -> None:
        if done >= 2 * MIB and not killed.is_set():
            killed.set()
            own_azurite.kill()

    started = time.monotonic()
    # slow enough for a report, and so the kill, to come before the end
    options = TransferOptions(part_size=MIB, concurrency=1, max_bandwidth=4 * MIB, retry_for=1)
    with pytest.raises(StoreUnavailable, match=str(store.root)):
        upload(store, spool, progress=kill, options=options)

    assert killed.is_set()
    assert time.monotonic() - started < 60


def test_store_that_comes_back_is_gone_on_with(own_azurite: AzuriteServer, tmp_path: Path) -> None:
    own_azurite.create_container("hospital-a")
    store = store_of(own_azurite, "hospital-a")
    spool = tmp_path / "spool"
    spool.write_bytes(os.urandom(30 * MIB))
    restarts: list[threading.Thread] = []

    def restart(done: int, total: int | None, rate: float) -> None:
        if not restarts:
            own_azurite.stop()
            restarts.append(threading.Thread(target=own_azurite.start))
            restarts[0].start()

    upload(store, spool, progress=restart)
    restarts[0].join()

    assert content(store) == spool.read_bytes()


@pytest.mark.parametrize("permissions", ["cw", "rcw"])
def test_upload_resumes_after_kill(
    azurite_server: AzuriteServer, container: str, store: Store, proxy: CuttingProxy, spool: Path, permissions: str
) -> None:
    """A process is killed in mid-upload; another one sends only what the store did not acknowledge."""
    session_file = spool.with_name("session.jsonl")
    program = textwrap.dedent(
        """
        import os, signal, sys
        from pathlib import Path
        from pydantic import SecretStr
        from vantage6_largefile.config.store import SasCredential, StoreConfig
        from vantage6_largefile.location import Location
        from vantage6_largefile.stores import open_store
        from vantage6_largefile.transfer import TransferOptions, upload_file

        url, root, sas, spool, session = sys.argv[1:]
        credential = SasCredential(sas=SecretStr(sas))
        store = open_store(StoreConfig("azure", Location.parse(root), {"account_url": url}, credential))
        put, count = store.put_part, 0

        def put_part(*arguments):
            global count
            count += 1
            if count == 5:
                os.kill(os.getpid(), signal.SIGKILL)
            return put(*arguments)

        store.put_part = put_part
        upload_file(
            store, Path(spool), store.root.child("object"), media_type="application/octet-stream",
            options=TransferOptions(part_size=1 << 20, concurrency=1), session_file=Path(session),
        )
        """
    )
    killed = subprocess.run(
        [
            sys.executable,
            "-c",
            program,
            azurite_server.account_url,
            str(store.root),
            azurite_server.sas(container, permissions),
            str(spool),
            str(session_file),
        ],
        timeout=120,
        check=False,
    )
    assert killed.returncode == -9
    writer = store_of(azurite_server, container, permissions=permissions, port=proxy.port)

    upload(writer, spool, session_file=session_file)

    assert len([head for head in proxy.heads if "comp=block&" in head]) == 4
    assert content(store) == spool.read_bytes()
    assert not session_file.exists()


def test_blocks_that_the_store_dropped_are_sent_again(
    azurite_server: AzuriteServer, container: str, store: Store, spool: Path
) -> None:
    """As after a week: our record says that parts are there, the store knows none of them."""
    session_file = spool.with_name("session.jsonl")
    cancel = CancelToken()
    with pytest.raises(TransferCancelled):
        upload(store, spool, session_file=session_file, cancel=cancel, progress=lambda *_: cancel.cancel())
    location = store.root.child("object")
    upload_stream(store, [b"x"], location, media_type="application/octet-stream", options=OPTIONS)
    store.delete(location)
    writer = store_of(azurite_server, container, permissions="cw")

    upload(writer, spool, session_file=session_file)

    assert content(store) == spool.read_bytes()


# --- the network breaks while downloading -------------------------------------------------------------------------


def test_broken_downloads_are_taken_up_again(
    store: Store, through_proxy: Store, proxy: CuttingProxy, spool: Path, tmp_path: Path
) -> None:
    stored = upload(store, spool)
    proxy.decide = lambda head, number: Cut(after_response_bytes=400_000) if number in (1, 4, 6) else None

    download_file(
        through_proxy,
        stored.location,
        tmp_path / "target",
        stored_size=stored.stored_size,
        sha256=stored.sha256,
        etag=stored.etag,
        options=OPTIONS,
    )

    assert (tmp_path / "target").read_bytes() == spool.read_bytes()


def test_store_that_dies_in_mid_download_leaves_no_file(
    own_azurite: AzuriteServer, spool: Path, tmp_path: Path
) -> None:
    own_azurite.create_container("hospital-a")
    store = store_of(own_azurite, "hospital-a")
    stored = upload(store, spool)
    target = tmp_path / "target" / "result"
    target.parent.mkdir()

    with pytest.raises(StoreUnavailable):
        download_file(
            store,
            stored.location,
            target,
            stored_size=stored.stored_size,
            sha256=stored.sha256,
            options=TransferOptions(part_size=MIB, concurrency=1, retry_for=1),
            progress=lambda *_: own_azurite.kill(),
        )

    assert os.listdir(target.parent) == []


def test_object_that_is_replaced_is_found_by_its_etag(store: Store, spool: Path) -> None:
    stored = upload(store, spool)
    store.delete(stored.location)
    upload_stream(store, [os.urandom(stored.stored_size)], stored.location, media_type="text/plain", options=OPTIONS)

    with pytest.raises(ObjectChanged):
        list(
            iter_object(
                store,
                stored.location,
                stored_size=stored.stored_size,
                sha256=stored.sha256,
                etag=stored.etag,
                options=OPTIONS,
            )
        )
    with pytest.raises(IntegrityError):
        list(iter_object(store, stored.location, stored_size=stored.stored_size, sha256=stored.sha256, options=OPTIONS))


# --- memory -------------------------------------------------------------------------------------------------------


def test_memory_does_not_grow_with_the_object(azurite_server: AzuriteServer, container: str, store: Store) -> None:
    """A process of its own streams an object up and down again and says its peak of resident memory."""
    program = textwrap.dedent(
        """
        import hashlib, sys
        from pydantic import SecretStr
        from vantage6_largefile.config.store import ConnectionStringCredential, StoreConfig
        from vantage6_largefile.location import Location
        from vantage6_largefile.stores import open_store
        from vantage6_largefile.transfer import TransferOptions, iter_object, upload_stream

        url, root, text, megabytes = sys.argv[1:]
        credential = ConnectionStringCredential(connection_string=SecretStr(text))
        store = open_store(StoreConfig("azure", Location.parse(root), {"account_url": url}, credential))
        options = TransferOptions(part_size=4 << 20, concurrency=3)
        block = bytes(range(256)) * 4096
        stored = upload_stream(
            store, (block for _ in range(int(megabytes))), store.root.child("o" + megabytes),
            media_type="application/octet-stream", options=options,
        )
        for piece in iter_object(
            store, stored.location, stored_size=stored.stored_size, sha256=stored.sha256, options=options
        ):
            pass
        # not ru_maxrss: that one begins with the memory of the process that started this one
        print(next(int(line.split()[1]) // 1024 for line in open("/proc/self/status") if line.startswith("VmHWM")))
        """
    )

    def peak(megabytes: int) -> int:
        arguments = [azurite_server.account_url, str(store.root), azurite_server.connection_string, str(megabytes)]
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=240, check=True
        )
        return int(done.stdout)

    small, large = peak(32), peak(256)

    assert large < small + 32
    assert large < 256
