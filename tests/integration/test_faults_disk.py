"""The local disk is full, in earnest: a file system of two megabytes, or a limit that the system sets on files."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.fault_world import MIB, World, world

pytestmark = pytest.mark.azurite

__all__ = ["world"]

#: What the disk takes.
ROOM = 2 * MIB
SIZE = 5 * MIB + 3

PROGRAM = textwrap.dedent(
    """
    import json, os, sys
    from pathlib import Path
    from pydantic import SecretStr
    from vantage6_largefile.config.store import SasCredential, StoreConfig
    from vantage6_largefile.envelope import new_sealer
    from vantage6_largefile.errors import LargeFileError
    from vantage6_largefile.location import Location
    from vantage6_largefile.stores import open_store
    from vantage6_largefile.transfer import TransferOptions, download_file, upload_file, upload_sealed

    job = json.loads(sys.argv[1])
    disk = Path(job["disk"])
    if job["mount"]:
        assert os.system(f"mount -t tmpfs -o size={job['room']} none {disk}") == 0
    root = Location.parse(job["root"])
    if root.driver == "file":
        store = open_store(StoreConfig("file", root, {"path": str(disk)}, None))
    else:
        credential = SasCredential(sas=SecretStr(job["sas"]))
        store = open_store(StoreConfig("azure", root, {"account_url": job["url"]}, credential))
    location = root.child("object")
    options = TransferOptions(part_size=1 << 19, concurrency=2, retry_for=0)
    media = "application/octet-stream"
    source = Path(job["source"])


    def download():
        target = disk / "result"
        download_file(
            store, location, target, stored_size=job["size"], sha256=job["sha256"], etag=None, options=options
        )


    def download_without_reserving():
        del os.posix_fallocate  # as on systems that have none
        download()


    def seal():
        upload_sealed(
            store, source, location, sealer=new_sealer(b"context"), media_type=media, options=options,
            spool=disk / "spool", session_file=disk / "session",
        )


    def seal_without_reserving():
        del os.posix_fallocate
        seal()


    def record():
        with open(disk / "filler", "wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(bytes(4096))
            except OSError:
                pass
        upload_file(
            store, source, location, media_type=media, options=options, session_file=disk / "session"
        )


    def upload():
        upload_file(store, source, location, media_type=media, options=options)


    error = None
    try:
        locals()[job["do"]]()
    except LargeFileError as problem:
        error = [type(problem).__name__, str(problem)]
    visible = [name for name in os.listdir(disk) if not name.startswith(".v6lf-uploads")]
    print(json.dumps({"error": error, "left": sorted(visible)}))
    """
)


def _may_mount() -> bool:
    unshare = shutil.which("unshare")
    if unshare is None:
        return False
    # In a mount namespace of its own: nobody else sees it, and nothing is left of it.
    command = [unshare, "-rm", "sh", "-c", "mount -t tmpfs -o size=64k none /mnt"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture(params=["small file system", "limit on files"])
def full_disk(request: pytest.FixtureRequest, world: World, tmp_path: Path) -> Callable[..., dict[str, object]]:
    """Does one thing in a process whose disk is too small; says how it ended and what is left on the disk."""
    mount = request.param == "small file system"
    if mount and not _may_mount():
        pytest.skip("this machine lets nobody mount a file system in a namespace; the other variant runs")
    disk = tmp_path / "disk"
    disk.mkdir()

    def do(what: str, **job: object) -> dict[str, object]:
        document = {
            "do": what,
            "mount": mount,
            "room": ROOM,
            "disk": str(disk),
            "root": str(world.direct.root),
            "url": f"http://127.0.0.1:{world.proxy.port}/{world.server.account}",
            "sas": world.server.sas(world.container, "rcw"),
            "source": str(tmp_path / "spool"),
            **job,
        }
        command = [sys.executable, "-c", PROGRAM, json.dumps(document)]

        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, ROOM))

        done = subprocess.run(
            ["unshare", "-rm", *command] if mount else command,
            preexec_fn=None if mount else limit,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        answer: dict[str, object] = json.loads(done.stdout)
        return answer

    return do


def assert_full(answer: dict[str, object]) -> None:
    assert isinstance(answer["error"], list)
    kind, message = answer["error"]
    assert kind == "StoreFull"
    assert "disk" in message


@pytest.mark.parametrize("what", ["download", "download_without_reserving"])
def test_download_to_a_full_disk_leaves_nothing(
    world: World, full_disk: Callable[..., dict[str, object]], what: str
) -> None:
    stored = world.upload(world.direct, world.file(SIZE))

    answer = full_disk(what, size=stored.stored_size, sha256=stored.sha256)

    assert_full(answer)
    assert answer["left"] == []


def test_download_that_does_not_fit_asks_the_store_for_nothing(
    world: World, full_disk: Callable[..., dict[str, object]]
) -> None:
    stored = world.upload(world.direct, world.file(SIZE))

    full_disk("download", size=stored.stored_size, sha256=stored.sha256)

    assert world.proxy.requests == []


@pytest.mark.parametrize("what", ["seal", "seal_without_reserving"])
def test_spooling_to_a_full_disk_commits_nothing_and_leaves_no_spool(
    world: World, full_disk: Callable[..., dict[str, object]], what: str
) -> None:
    world.file(SIZE)

    answer = full_disk(what)

    assert_full(answer)
    assert world.objects() == []
    assert "spool" not in str(answer["left"])


def test_upload_to_a_store_whose_disk_is_full_leaves_no_object(
    world: World, full_disk: Callable[..., dict[str, object]]
) -> None:
    world.file(SIZE)

    answer = full_disk("upload", root="file://hospital-a")

    assert isinstance(answer["error"], list)
    assert answer["error"][0] == "StoreFull"
    assert answer["left"] == []


@pytest.mark.parametrize("full_disk", ["small file system"], indirect=True)
def test_upload_whose_record_cannot_be_written_commits_nothing(
    world: World, full_disk: Callable[..., dict[str, object]]
) -> None:
    world.file(SIZE)

    answer = full_disk("record")

    assert_full(answer)
    assert world.objects() == []
