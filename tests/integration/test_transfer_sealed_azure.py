"""Encrypted objects against Azurite: one pass up, parallel down, killed in between, in bounded memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import uuid
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from pydantic import SecretStr

from tests.unit.test_envelope_tink import oracle
from vantage6_largefile.config.store import ConnectionStringCredential, SasCredential, StoreConfig
from vantage6_largefile.demo.azurite import AzuriteServer
from vantage6_largefile.envelope import new_sealer, opener, unwrap_key
from vantage6_largefile.errors import IntegrityError, ObjectNotFound
from vantage6_largefile.location import Location
from vantage6_largefile.stores import Store, open_store
from vantage6_largefile.transfer import (
    TransferOptions,
    discard_sealed,
    download_opened,
    iter_opened,
    open_object,
    upload_file,
    upload_sealed,
    upload_stream,
)
from vantage6_largefile.transfer.sealing import half_sealed

pytestmark = pytest.mark.azurite

MIB = 1 << 20
CONTEXT = b"v6lf/1|result|42|0b6e2a1c-7b0e-4c8e-9a35-6d1f6c1c2a11"
KEY = rsa.generate_private_key(65537, 2048)
OPTIONS = TransferOptions(part_size=2 * MIB, concurrency=3, retry_for=10)


def store_of(server: AzuriteServer, container: str, permissions: str | None = None) -> Store:
    credential: ConnectionStringCredential | SasCredential
    if permissions is None:
        credential = ConnectionStringCredential(connection_string=SecretStr(server.connection_string))
    else:
        credential = SasCredential(sas=SecretStr(server.sas(container, permissions)))
    root = Location.parse(f"azure://{server.account}/{container}")
    return open_store(StoreConfig("azure", root, {"account_url": server.account_url}, credential))


@pytest.fixture
def container(azurite_server: AzuriteServer) -> str:
    name = f"c{uuid.uuid4().hex}"
    azurite_server.create_container(name)
    return name


@pytest.fixture
def store(azurite_server: AzuriteServer, container: str) -> Store:
    return store_of(azurite_server, container)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(os.urandom(9 * MIB + 123))
    return path


@pytest.mark.parametrize("size", [0, 1, MIB, 9 * MIB + 5])
@pytest.mark.parametrize("permissions", [None, "cw"])
def test_round_trip(
    azurite_server: AzuriteServer, container: str, store: Store, tmp_path: Path, size: int, permissions: str | None
) -> None:
    data = os.urandom(size)
    (tmp_path / "source").write_bytes(data)
    location = store.root.child("object")
    with new_sealer(CONTEXT) as sealer:
        reader = opener(sealer.wrapped_for(KEY.public_key()), KEY, CONTEXT)
        stored = upload_sealed(
            store_of(azurite_server, container, permissions),
            tmp_path / "source",
            location,
            sealer=sealer,
            size=size,
            media_type="application/octet-stream",
            options=OPTIONS,
            spool=tmp_path / "spool",
            session_file=tmp_path / "session",
        )

    download_opened(store, location, tmp_path / "target", opener=reader, size=size, etag=stored.etag, options=OPTIONS)

    assert (tmp_path / "target").read_bytes() == data
    assert b"".join(store.read(location)) == (tmp_path / "spool").read_bytes()
    assert b"".join(iter_opened(store, location, opener=reader, size=size, options=OPTIONS)) == data
    with open_object(
        store,
        location,
        stored_size=stored.stored_size,
        etag=stored.etag,
        options=OPTIONS,
        opener=reader,
        size=size,
    ) as file:
        file.seek(size // 2)
        assert file.read() == data[size // 2 :]


def test_tink_opens_what_was_stored(store: Store, source: Path, tmp_path: Path) -> None:
    location = store.root.child("object")
    with new_sealer(CONTEXT) as sealer:
        envelope = sealer.wrapped_for(KEY.public_key())
        upload_sealed(
            store,
            source,
            location,
            sealer=sealer,
            media_type="application/octet-stream",
            options=OPTIONS,
            spool=tmp_path / "spool",
        )

    opened = oracle.tink_open(unwrap_key(envelope.key, KEY), CONTEXT, b"".join(store.read(location)))

    assert opened == source.read_bytes()


def test_tampered_object_never_gets_a_name(store: Store, source: Path, tmp_path: Path) -> None:
    with new_sealer(CONTEXT) as sealer:
        reader = opener(sealer.wrapped_for(KEY.public_key()), KEY, CONTEXT)
        segments = list(sealer.seal([source.read_bytes()]))
    segments[3], segments[4] = segments[4], segments[3]
    location = store.root.child("object")
    upload_stream(store, segments, location, media_type="application/octet-stream", options=OPTIONS)
    (tmp_path / "target").mkdir()

    with pytest.raises(IntegrityError):
        download_opened(
            store, location, tmp_path / "target" / "file", opener=reader, size=source.stat().st_size, options=OPTIONS
        )

    assert os.listdir(tmp_path / "target") == []


PROGRAM = textwrap.dedent(
    """
    import os, signal, sys, threading
    from pathlib import Path
    from pydantic import SecretStr
    from vantage6_largefile.config.store import SasCredential, StoreConfig
    from vantage6_largefile.envelope import new_sealer
    from vantage6_largefile.location import Location
    from vantage6_largefile.stores import open_store
    from vantage6_largefile.transfer import TransferOptions, upload_sealed

    url, root, sas, folder, context, when = sys.argv[1:]
    folder = Path(folder)
    credential = SasCredential(sas=SecretStr(sas))
    store = open_store(StoreConfig("azure", Location.parse(root), {"account_url": url}, credential))
    put, sealed, count = store.put_part, threading.Event(), 0

    def put_part(*arguments):
        global count
        if when == "sending":
            sealed.wait(60)
        count += 1
        if count == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return put(*arguments)

    def chunks():
        data = (folder / "source").read_bytes()
        yield data[: 6 << 20]
        if when == "sealing":
            threading.Event().wait()
        yield data[6 << 20 :]

    store.put_part = put_part
    upload_sealed(
        store, chunks(), store.root.child("object"), sealer=new_sealer(context.encode()),
        media_type="application/octet-stream", options=TransferOptions(part_size=1 << 20, concurrency=1),
        spool=folder / "spool", session_file=folder / "session", on_sealed=sealed.set,
    )
    """
)


def die(server: AzuriteServer, container: str, folder: Path, when: str) -> None:
    root = f"azure://{server.account}/{container}"
    arguments = [server.account_url, root, server.sas(container, "rcw"), str(folder), CONTEXT.decode(), when]
    done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL


def test_nothing_is_sealed_twice_under_one_key_after_a_kill_in_mid_sealing(
    azurite_server: AzuriteServer, container: str, store: Store, source: Path, tmp_path: Path
) -> None:
    die(azurite_server, container, tmp_path, "sealing")
    spool, session = tmp_path / "spool", tmp_path / "session"
    assert not spool.exists()
    half = half_sealed(spool).read_bytes()

    discard_sealed(store, spool=spool, session_file=session)
    with new_sealer(CONTEXT) as sealer:
        reader = opener(sealer.wrapped_for(KEY.public_key()), KEY, CONTEXT)
        stored = upload_sealed(
            store,
            source,
            store.root.child("another"),
            sealer=sealer,
            media_type="application/octet-stream",
            options=OPTIONS,
            spool=spool,
            session_file=session,
        )

    again = spool.read_bytes()
    assert again[1:33] != half[1:33]
    assert again[33:40] != half[33:40]
    with pytest.raises(ObjectNotFound):
        store.stat(store.root.child("object"))
    size = source.stat().st_size
    assert b"".join(iter_opened(store, stored.location, opener=reader, size=size, options=OPTIONS)) == (
        source.read_bytes()
    )


def test_upload_goes_on_from_the_spool_after_a_kill_in_mid_sending(
    azurite_server: AzuriteServer, container: str, store: Store, source: Path, tmp_path: Path
) -> None:
    die(azurite_server, container, tmp_path, "sending")
    spool = tmp_path / "spool"
    sealed = spool.read_bytes()
    put, sent = store.put_part, []

    def put_part(session: object, number: int, data: object) -> object:
        sent.append(number)
        return put(session, number, data)  # type: ignore[arg-type]

    store.put_part = put_part  # type: ignore[method-assign,assignment]

    upload_file(
        store,
        spool,
        store.root.child("object"),
        media_type="application/octet-stream",
        options=OPTIONS,
        session_file=tmp_path / "session",
    )

    # Three parts of 1 MiB were acknowledged before the kill; the session keeps its part size.
    assert sorted(sent) == list(range(4, -(-len(sealed) // MIB) + 1))
    assert b"".join(store.read(store.root.child("object"))) == sealed == spool.read_bytes()


def test_memory_does_not_grow_with_the_object(
    azurite_server: AzuriteServer, container: str, store: Store, tmp_path: Path
) -> None:
    """A process of its own seals a stream into the store and downloads it again; its peak of resident memory."""
    program = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from cryptography.hazmat.primitives.asymmetric import rsa
        from pydantic import SecretStr
        from vantage6_largefile.config.store import ConnectionStringCredential, StoreConfig
        from vantage6_largefile.envelope import new_sealer, opener
        from vantage6_largefile.location import Location
        from vantage6_largefile.stores import open_store
        from vantage6_largefile.transfer import TransferOptions, download_opened, upload_sealed

        url, root, text, folder, megabytes = sys.argv[1:]
        credential = ConnectionStringCredential(connection_string=SecretStr(text))
        store = open_store(StoreConfig("azure", Location.parse(root), {"account_url": url}, credential))
        options, folder, megabytes = TransferOptions(), Path(folder), int(megabytes)
        key = rsa.generate_private_key(65537, 2048)
        sealer = new_sealer(b"context")
        reader = opener(sealer.wrapped_for(key.public_key()), key, b"context")
        block = bytes(range(256)) * 4096
        stored = upload_sealed(
            store, (block for _ in range(megabytes)), store.root.child(f"o{megabytes}"), sealer=sealer,
            media_type="application/octet-stream", options=options,
            spool=folder / f"spool{megabytes}", session_file=folder / "session",
        )
        download_opened(
            store, stored.location, folder / f"file{megabytes}", opener=reader, size=sealer.size, options=options
        )
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                print(int(line.split()[1]) // 1024)
        """
    )

    def peak(megabytes: int) -> int:
        arguments = [azurite_server.account_url, str(store.root), azurite_server.connection_string]
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments, str(tmp_path), str(megabytes)],
            capture_output=True,
            text=True,
            timeout=240,
            check=True,
        )
        return int(done.stdout)

    small, large = peak(64), peak(384)

    assert large < small + 32
    assert large < 256
