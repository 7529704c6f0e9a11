"""What benchmarks.transfer measures: one operation of one contender, in a process of its own.

Every contender does the same piece of work: an upload reads a file and ends with an object in the store; a download
ends with a file that was brought to disk (fsync). Imports, keys and connections are there before the clock starts: each
does its own operation once with a small object first.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import resource
import shutil
import statistics
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from azure.storage.blob import ContainerClient
from pydantic import SecretStr

from benchmarks.results import MIB
from vantage6_largefile.config.store import ConnectionStringCredential, StoreConfig
from vantage6_largefile.envelope import new_sealer, opener, read_private_key
from vantage6_largefile.location import Location
from vantage6_largefile.reference import Envelope
from vantage6_largefile.stores import Store, open_store
from vantage6_largefile.transfer import (
    TransferOptions,
    download_file,
    download_opened,
    upload_file,
    upload_sealed,
)
from vantage6_largefile.transfer.memory import keep_freed_memory

CONTEXT = b"v6lf/1|result|1|00000000-0000-4000-8000-000000000000"
WARM_UP = 1024


@dataclass(frozen=True)
class Task:
    """What a child process is asked to do. `size` bytes lie in `source`; all else is made below `folder`."""

    name: str
    size: int
    source: str
    folder: str
    root: str
    account_url: str
    connection_string: str
    private_key: str
    part_size: int
    concurrency: int
    repeat: int


class Contender:
    """Operations on one store: ours."""

    def __init__(self, task: Task) -> None:
        self.folder = Path(task.folder)
        self.key_file = Path(task.private_key)
        self.key = read_private_key(self.key_file)
        self.options = TransferOptions(part_size=task.part_size, concurrency=task.concurrency)
        self.store = self._open(task)

    def _open(self, task: Task) -> Store:
        root = Location.parse(task.root)
        if root.driver == "file":
            return open_store(StoreConfig("file", root, {"path": str(self.folder / "store")}, None))
        credential = ConnectionStringCredential(connection_string=SecretStr(task.connection_string))
        return open_store(StoreConfig("azure", root, {"account_url": task.account_url}, credential))

    def upload_plain(self, source: Path, name: str) -> None:
        stored = upload_file(
            self.store, source, self.store.root.child(name), media_type="application/octet-stream", options=self.options
        )
        self._note(name, {"sha256": stored.sha256, "etag": stored.etag})

    def upload_streamed(self, source: Path, name: str) -> None:
        self._upload_sealed(source, name, spooled=False)

    def upload_spooled(self, source: Path, name: str) -> None:
        self._upload_sealed(source, name, spooled=True)

    def _upload_sealed(self, source: Path, name: str, *, spooled: bool) -> None:
        with new_sealer(CONTEXT) as sealer:
            envelope = sealer.wrapped_for(self.key.public_key())
            stored = upload_sealed(
                self.store,
                source,
                self.store.root.child(name),
                sealer=sealer,
                size=source.stat().st_size,
                media_type="application/octet-stream",
                options=self.options,
                spool=self.folder / f"spool-{name}" if spooled else None,
                session_file=self.folder / f"session-{name}" if spooled else None,
            )
        self._note(name, {"envelope": envelope.model_dump(), "etag": stored.etag})

    def download_plain(self, name: str, target: Path, size: int) -> None:
        note = self._noted(name)
        download_file(
            self.store,
            self.store.root.child(name),
            target,
            stored_size=size,
            sha256=str(note["sha256"]),
            etag=str(note["etag"]),
            options=self.options,
        )

    def download_opened(self, name: str, target: Path, size: int) -> None:
        note = self._noted(name)
        download_opened(
            self.store,
            self.store.root.child(name),
            target,
            opener=opener(Envelope.model_validate(note["envelope"]), self.key, CONTEXT),
            size=size,
            etag=str(note["etag"]),
            options=self.options,
        )

    def remove(self, name: str) -> None:
        """What an upload left, after the clock stopped."""
        for path in (self.folder / f"spool-{name}", self.folder / f"note-{name}"):
            path.unlink(missing_ok=True)

    def _note(self, name: str, note: dict[str, object]) -> None:
        (self.folder / f"note-{name}").write_text(json.dumps(note))

    def _noted(self, name: str) -> dict[str, object]:
        note: dict[str, object] = json.loads((self.folder / f"note-{name}").read_text())
        return note


class AzureSdk:
    """The SDK's own calls, with our part size and concurrency, alone and after the stock cryptor."""

    def __init__(self, task: Task) -> None:
        self._client = ContainerClient.from_connection_string(
            task.connection_string,
            Location.parse(task.root).segments[0],
            max_block_size=task.part_size,
            max_single_put_size=task.part_size,
            max_single_get_size=task.part_size,
            max_chunk_get_size=task.part_size,
        )
        self._concurrency = task.concurrency
        self._stock = StockCryptor(Path(task.private_key))

    def upload_plain(self, source: Path, name: str) -> None:
        with source.open("rb") as file:
            self._client.upload_blob(name, file, max_concurrency=self._concurrency)

    def download_plain(self, name: str, target: Path, _size: int) -> None:
        with target.open("wb") as file:
            self._client.download_blob(name, max_concurrency=self._concurrency).readinto(file)
            synced(file)

    def upload_stock(self, source: Path, name: str) -> None:
        with source.open("rb") as file:
            self._client.upload_blob(name, IterableReader(self._stock.encrypt(file)), max_concurrency=self._concurrency)

    def download_stock(self, name: str, target: Path, _size: int) -> None:
        with target.open("wb") as file:
            stream = self._client.download_blob(name, max_concurrency=self._concurrency)
            for piece in self._stock.decrypt(IterableReader(stream.chunks())):
                file.write(piece)
            synced(file)


class PlainCopy:
    """A plain copy with fsync into a folder and out of it, alone and after the stock cryptor."""

    def __init__(self, task: Task) -> None:
        self._store = Path(task.folder) / "store"
        self._stock = StockCryptor(Path(task.private_key))

    def upload_plain(self, source: Path, name: str) -> None:
        _copy(source, self._store / name)

    def download_plain(self, name: str, target: Path, _size: int) -> None:
        _copy(self._store / name, target)

    def upload_stock(self, source: Path, name: str) -> None:
        with source.open("rb") as file, (self._store / name).open("wb") as target:
            target.writelines(self._stock.encrypt(file))
            synced(target)

    def download_stock(self, name: str, target: Path, _size: int) -> None:
        with (self._store / name).open("rb") as file, target.open("wb") as sink:
            sink.writelines(self._stock.decrypt(file))
            synced(sink)


class StockCryptor:
    """vantage6's own encryption of streams (AES-256-CTR, unauthenticated)."""

    def __init__(self, private_key: Path) -> None:
        from vantage6.common.encryption import RSACryptor

        self._cryptor = RSACryptor(private_key)

    def encrypt(self, stream: io.BufferedIOBase) -> Iterator[bytes]:
        chunks: Iterator[bytes] = self._cryptor.encrypt_stream(stream, self._cryptor.public_key_str)
        return chunks

    def decrypt(self, stream: io.BufferedIOBase | IterableReader) -> Iterator[bytes]:
        chunks: Iterator[bytes] = self._cryptor.decrypt_stream(stream)
        return chunks


class IterableReader:
    """An iterator of bytes as something to read from, with as few copies as that allows."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def read(self, size: int = -1) -> bytes:
        """Exactly `size` bytes, fewer at the end only."""
        got: list[memoryview] = []
        missing = size if size >= 0 else sys.maxsize
        while missing:
            if not self._rest:
                self._rest = memoryview(next(self._chunks, b""))
                if not self._rest:
                    break
            piece, self._rest = self._rest[:missing], self._rest[missing:]
            got.append(piece)
            missing -= len(piece)
        return b"".join(got)


def synced(file: io.BufferedWriter) -> None:
    """On disk when this returns."""
    file.flush()
    os.fsync(file.fileno())


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    with target.open("rb") as file:
        os.fsync(file.fileno())


def seal(task: Task) -> Callable[[], None]:
    """Only sealing, from memory to nowhere."""
    data = os.urandom(16 * MIB)
    key = read_private_key(Path(task.private_key)).public_key()

    # As every transfer does that seals.
    keep_freed_memory()

    def run() -> None:
        with new_sealer(CONTEXT) as sealer:
            sealer.wrapped_for(key)
            for _ in sealer.seal(_Endless(data, task.size).chunks()):
                pass

    return run


def seal_stock(task: Task) -> Callable[[], None]:
    """The same with the stock cryptor."""
    data = os.urandom(16 * MIB)
    stock = StockCryptor(Path(task.private_key))

    def run() -> None:
        for _ in stock.encrypt(_Endless(data, task.size)):  # type: ignore[arg-type]
            pass

    return run


class _Endless:
    """The same 16 MiB again and again, `size` bytes in all; reading costs one copy, as from a file in memory."""

    def __init__(self, data: bytes, size: int) -> None:
        self._data = data
        self._left = size

    def read(self, size: int) -> bytes:
        count = min(size, self._left, len(self._data))
        self._left -= count
        start = self._left % (len(self._data) - count + 1)
        return self._data[start : start + count]

    def chunks(self) -> Iterator[bytes]:
        from vantage6_largefile.envelope import segment_chunks

        return segment_chunks(self)  # type: ignore[arg-type]


def operation(task: Task) -> Callable[[], None]:
    """What is measured."""
    who, _, what = task.name.partition(":")
    if who == "seal":
        return seal(task) if what == "ours" else seal_stock(task)
    classes: dict[str, type[Contender] | type[AzureSdk] | type[PlainCopy]] = {"ours": Contender, "sdk": AzureSdk}
    if task.root.startswith("file:"):
        classes["sdk"] = PlainCopy
    contender = classes[who](task)
    method = getattr(contender, what)
    # The object that the uploads of this contender and kind leave is the one that its downloads read.
    kind = what.partition("_")[2].replace("opened", "streamed")
    if what.startswith("upload"):
        warm = Path(task.folder) / f"warm-{uuid.uuid4().hex}"
        warm.write_bytes(bytes(WARM_UP))
        method(warm, warm.name)
        warm.unlink()
        names = iter([f"{who}-{kind}-{task.size}", *(uuid.uuid4().hex for _ in range(task.repeat))])
        return lambda: method(Path(task.source), next(names))
    target = Path(task.folder) / f"target-{uuid.uuid4().hex}"

    def download() -> None:
        method(f"{who}-{kind}-{task.size}", target, task.size)

    if task.repeat > 1:
        download()
    else:
        _connect(task)
    return download


def _connect(task: Task) -> None:
    """Let the server's side be awake before a single large download."""
    if not task.root.startswith("file:"):
        with closing(ContainerClient.from_connection_string(task.connection_string, "bench")) as client:
            client.exists()


def peak_rss_mib() -> float:
    """Of this process; the resource module would tell that of its parent when that was larger."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(MIB):
            digest.update(chunk)
    return digest.hexdigest()


def main() -> None:
    """Do one task (JSON on stdin), print its sample (JSON)."""
    logging.disable(logging.WARNING)
    document = json.load(sys.stdin)
    expected = document.pop("sha256", None)
    task = Task(**document)
    run = operation(task)
    seconds = []
    cpu = 0.0
    for _ in range(task.repeat):
        before = resource.getrusage(resource.RUSAGE_SELF)
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
        after = resource.getrusage(resource.RUSAGE_SELF)
        cpu += after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    sample = {
        "seconds": statistics.median(seconds),
        "cpu_seconds": cpu / task.repeat,
        "peak_rss_mib": peak_rss_mib(),
    }
    for target in Path(task.folder).glob("target-*"):
        if expected is not None and _digest(target) != expected:
            raise SystemExit(f"{task.name}: what was downloaded is not what was uploaded")
        target.unlink()
    for spool in Path(task.folder).glob("spool-*"):
        spool.unlink()
    print(json.dumps(sample))


if __name__ == "__main__":
    main()
