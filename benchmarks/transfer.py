"""Transfers of ours beside the SDK's own calls and the stock cryptor: same store, same run, same part size.

Each operation runs in a fresh process, so that its peak memory is its own. Contenders take turns (A, B, C, A, B, C):
the ratios are those within each round. Each begins with an empty store; dirty pages are written out before
each measurement. `sdk` means ``upload_blob``/``download_blob`` for azure, and a plain copy with fsync for file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import mmap
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from benchmarks.contenders import Task
from benchmarks.results import MIB, Row, Sample, default_path, print_table, row_of, write_json
from vantage6_largefile.demo.azurite import azurite, find_azurite

CONTAINER = "bench"
_POPULATE = getattr(mmap, "MAP_POPULATE", 0)
_MOST_BACKED = 6 << 30
UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


@dataclass(frozen=True)
class Contest:
    """One line of the table.

    Attributes
    ----------
    name : str
        As contenders.operation knows it.
    title : str
    encrypted : bool
    sdk, stock : str or None
        Names of the competitors.
    """

    name: str
    title: str
    encrypted: bool
    sdk: str | None = None
    stock: str | None = None


#: Each group has a store of its own in every round: an upload and the download of what it left.
GROUPS = [
    [
        Contest("sdk:upload_plain", "upload, SDK", False),
        Contest("sdk:download_plain", "download, SDK", False),
    ],
    [
        Contest("ours:upload_plain", "upload, ours, plain", False, sdk="sdk:upload_plain"),
        Contest("ours:download_plain", "download, ours, plain", False, sdk="sdk:download_plain"),
    ],
    [
        Contest("sdk:upload_stock", "upload, stock cryptor and SDK", True, sdk="sdk:upload_plain"),
        Contest("sdk:download_stock", "download, SDK and stock cryptor", True, sdk="sdk:download_plain"),
    ],
    [
        Contest("ours:upload_streamed", "upload, ours, encrypted", True, "sdk:upload_plain", "sdk:upload_stock"),
        Contest("ours:download_opened", "download, ours, encrypted", True, "sdk:download_plain", "sdk:download_stock"),
    ],
    [Contest("ours:upload_spooled", "upload, ours, encrypted, spool", True, "sdk:upload_plain", "sdk:upload_stock")],
]
CONTESTS = sorted((contest for group in GROUPS for contest in group), key=lambda contest: "download" in contest.name)
SEALING = [
    Contest("seal:stock", "sealing only, stock cryptor", True),
    Contest("seal:ours", "sealing only, ours", True, stock="seal:stock"),
]


def parse_size(text: str) -> int:
    """``64MiB`` and the like; a bare number means bytes."""
    for unit, factor in UNITS.items():
        if text.endswith(unit):
            return int(float(text.removesuffix(unit)) * factor)
    return int(text)


def make_source(path: Path, size: int) -> str:
    """A file of random bytes; its sha256."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        left = size
        while left:
            block = os.urandom(min(8 * MIB, left))
            digest.update(block)
            file.write(block)
            left -= len(block)
        os.fsync(file.fileno())
    return digest.hexdigest()


def back_memory(size: int) -> None:
    """Have the kernel hold `size` bytes of free memory that it can give out at once.

    A virtual machine hands free memory back to its host. Getting it again takes about 10 µs per page, several times as
    long as filling it, and hits whoever happens to come next: it is done here, before the clock starts.
    """
    with suppress(OSError, ValueError), mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | _POPULATE) as memory:
        if not _POPULATE:
            for page in range(0, size, mmap.PAGESIZE):
                memory[page] = 1


def measure(task: Task, sha256: str | None) -> Sample:
    """One operation in a process of its own."""
    os.sync()
    back_memory(min(3 * task.size + 512 * MIB, _MOST_BACKED))
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.contenders"],
        input=json.dumps({**asdict(task), "sha256": sha256}),
        text=True,
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"{task.name} failed:\n{done.stderr[-3000:]}")
    return Sample(**json.loads(done.stdout))


@contextmanager
def round_of(store: str, folder: Path) -> Iterator[dict[str, str]]:
    """An empty store and an empty folder for one group; how to reach them."""
    place = Path(tempfile.mkdtemp(dir=folder))
    try:
        if store == "file":
            (place / "store").mkdir()
            yield {"folder": str(place), "root": "file://bench", "account_url": "", "connection_string": ""}
            return
        with azurite(place / "azurite") as server:
            server.create_container(CONTAINER)
            yield {
                "folder": str(place),
                "root": f"azure://{server.account}/{CONTAINER}",
                "account_url": server.account_url,
                "connection_string": server.connection_string,
            }
    finally:
        shutil.rmtree(place)


def rows_of(contests: list[Contest], samples: dict[str, list[Sample]], size: int, store: str) -> list[Row]:
    """The table's lines about one size in one store."""
    prefix = f"{store}: " if store else ""
    sdk_title = "plain copy" if store == "file" else "SDK"
    return [
        row_of(
            prefix + contest.title.replace("SDK", sdk_title),
            size,
            samples[contest.name],
            encrypted=contest.encrypted,
            sdk=samples.get(contest.sdk or "", []),
            stock=samples.get(contest.stock or "", []),
        )
        for contest in contests
        if contest.name in samples
    ]


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1MiB,64MiB,1GiB", help="comma-separated (default: %(default)s)")
    parser.add_argument("--stores", default="azure,file", help="comma-separated (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=5, help="rounds; the medians are reported (default: %(default)s)")
    parser.add_argument("--only", default="", help="comma-separated parts of names, e.g. sdk:upload_plain,streamed")
    parser.add_argument("--part-size", default="8MiB")
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--folder", type=Path, help="where to work (default: the system's folder for such files)")
    parser.add_argument("--json", type=Path, help="where the results go (default: benchmarks/results/)")
    arguments = parser.parse_args()
    if "azure" in arguments.stores:
        find_azurite()
    wanted = [part for part in arguments.only.split(",") if part]

    def chosen(contests: list[Contest]) -> list[Contest]:
        return [contest for contest in contests if not wanted or any(part in contest.name for part in wanted)]

    # Ended politely, it still stops its Azurite and removes its gigabytes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    rows: list[Row] = []
    folder = Path(tempfile.mkdtemp(prefix="v6lf-bench-", dir=arguments.folder))
    try:
        private_key = folder / "key.pem"
        key = rsa.generate_private_key(65537, 4096)
        private_key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))

        def task(contest: Contest, size: int, place: dict[str, str]) -> Task:
            return Task(
                name=contest.name,
                size=size,
                source=str(folder / "source"),
                private_key=str(private_key),
                part_size=parse_size(arguments.part_size),
                concurrency=arguments.concurrency,
                repeat=20 if size <= 4 * MIB else 1,
                **place,
            )

        nowhere = {"folder": str(folder), "root": "file://bench", "account_url": "", "connection_string": ""}
        sealing: dict[str, list[Sample]] = {}
        for number in range(arguments.runs if chosen(SEALING) else 0):
            for contest in chosen(SEALING):
                print(f"round {number + 1}: {contest.name}", file=sys.stderr)
                sealing.setdefault(contest.name, []).append(measure(task(contest, 1 << 30, nowhere), None))
        rows += rows_of(SEALING, sealing, 1 << 30, "")
        for size in map(parse_size, arguments.sizes.split(",")):
            sha256 = make_source(folder / "source", size)
            for store in arguments.stores.split(","):
                samples: dict[str, list[Sample]] = {}
                for number in range(arguments.runs):
                    # Turned round in every other round, so that nobody always comes first or last.
                    for group in GROUPS[:: -1 if number % 2 else 1]:
                        if not chosen(group):
                            continue
                        with round_of(store, folder) as place:
                            for contest in chosen(group):
                                sample = measure(task(contest, size, place), sha256)
                                samples.setdefault(contest.name, []).append(sample)
                                print(
                                    f"round {number + 1}: {store} {size / MIB:,.0f} MiB {contest.name}: "
                                    f"{sample.seconds:.3f} s, CPU {sample.cpu_seconds:.2f} s",
                                    file=sys.stderr,
                                )
                rows += rows_of(CONTESTS, samples, size, store)
    finally:
        shutil.rmtree(folder)
    print_table(rows)
    path = arguments.json or default_path("transfer")
    write_json(rows, path)
    print(path)


if __name__ == "__main__":
    main()
