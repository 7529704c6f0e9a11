"""Transfers to and from an S3 server: whole, resumed by another process, and over a network that breaks."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.support.cutting_proxy import Cut, cutting_proxy
from tests.support.s3 import SECRET, S3Server, error_answer
from vantage6_largefile.errors import ObjectExists, StoreUnavailable
from vantage6_largefile.stores import Store
from vantage6_largefile.transfer import (
    StoredObject,
    TransferOptions,
    download_file,
    iter_object,
    retry,
    upload_file,
    upload_stream,
)

pytest_plugins = ["tests.support.s3"]

MIB = 1 << 20
OPTIONS = TransferOptions(part_size=5 * MIB, concurrency=3, retry_for=60)
WRITER = ("PutObject", "AbortMultipartUpload")


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.02)
    monkeypatch.setattr(retry, "LONGEST_WAIT", 0.2)


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    path = tmp_path / "spool"
    path.write_bytes(os.urandom(17 * MIB + 123))
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


def content(s3: S3Server, bucket: str) -> bytes:
    data: bytes = s3.everything.get_object(Bucket=bucket, Key="object")["Body"].read()
    return data


def pending(s3: S3Server, bucket: str) -> list[str]:
    return [entry["Key"] for entry in s3.everything.list_multipart_uploads(Bucket=bucket).get("Uploads", ())]


@pytest.mark.parametrize("size", [0, 1, 5 * MIB, 5 * MIB + 1, 17 * MIB + 123])
def test_round_trip(s3: S3Server, bucket: str, tmp_path: Path, size: int) -> None:
    store, data = s3.store(bucket), os.urandom(size)
    (tmp_path / "spool").write_bytes(data)

    stored = upload(store, tmp_path / "spool")
    known = {"stored_size": stored.stored_size, "sha256": stored.sha256, "etag": stored.etag}
    download_file(store, stored.location, tmp_path / "target", **known, options=OPTIONS)  # type: ignore[arg-type]
    pieces = list(iter_object(store, stored.location, **known, options=OPTIONS))  # type: ignore[arg-type]

    assert content(s3, bucket) == (tmp_path / "target").read_bytes() == b"".join(pieces) == data
    assert stored.etag == store.stat(stored.location).etag
    assert pending(s3, bucket) == []


def test_part_size_below_that_of_the_store_is_raised(s3: S3Server, bucket: str, spool: Path) -> None:
    upload(s3.store(bucket), spool, options=TransferOptions(part_size=MIB, concurrency=2, retry_for=60))
    assert content(s3, bucket) == spool.read_bytes()


def test_stream_is_uploaded(s3: S3Server, bucket: str, spool: Path) -> None:
    store = s3.store(bucket)
    with spool.open("rb") as stream:
        upload_stream(
            store,
            iter(lambda: stream.read(100_001), b""),
            store.root.child("object"),
            media_type="text/plain",
            options=OPTIONS,
        )
    assert content(s3, bucket) == spool.read_bytes()


def test_write_only_credential_uploads_once(s3: S3Server, bucket: str, spool: Path) -> None:
    store = s3.store(bucket, key=s3.key_for(*WRITER))

    upload(store, spool)

    assert content(s3, bucket) == spool.read_bytes()
    with pytest.raises(ObjectExists):
        upload(store, spool)
    assert pending(s3, bucket) == []


def test_busy_store_is_tried_again(s3: S3Server, bucket: str, spool: Path) -> None:
    answered: list[str] = []

    def busy(method: str, path: str, query: dict[str, list[str]]) -> tuple[str, list[tuple[str, str]], bytes] | None:
        answered.append(method)
        return error_answer("503 SLOW DOWN", "SlowDown", **{"Retry-After": "0"}) if len(answered) % 3 == 1 else None

    s3.fault = busy
    stored = upload(s3.store(bucket), spool)
    s3.fault = None

    assert content(s3, bucket) == spool.read_bytes()
    assert stored.stored_size == spool.stat().st_size
    assert len(answered) > 6  # begin, four parts, commit: that many had been enough


@pytest.mark.parametrize("actions", [WRITER, (*WRITER, "GetObject", "ListBucket", "ListMultipartUploadParts")])
def test_commit_whose_answer_is_lost_is_a_success(
    s3: S3Server, bucket: str, spool: Path, actions: tuple[str, ...]
) -> None:
    """The server answers an error after it has made the object, as when a load balancer in front of it gives up."""
    store = s3.store(bucket, key=s3.key_for(*actions))
    lost: list[str] = []

    def lose(method: str, path: str, query: dict[str, list[str]]) -> tuple[str, list[tuple[str, str]], bytes] | None:
        if method == "POST" and "uploadId" in query and not lost:
            lost.append(path)
            parts = [
                {"PartNumber": part["PartNumber"], "ETag": part["ETag"]}
                for part in s3.everything.list_parts(Bucket=bucket, Key="object", UploadId=query["uploadId"][0])[
                    "Parts"
                ]
            ]
            s3.everything.complete_multipart_upload(
                Bucket=bucket, Key="object", UploadId=query["uploadId"][0], MultipartUpload={"Parts": parts}
            )
            return error_answer("504 GATEWAY TIMEOUT", "GatewayTimeout")
        return None

    s3.fault = lose
    upload(store, spool)

    assert len(lost) == 1
    assert content(s3, bucket) == spool.read_bytes()


def test_connections_that_break_while_reading_cost_only_what_was_missing(
    s3: S3Server, bucket: str, spool: Path
) -> None:
    stored = upload(s3.store(bucket), spool)
    with cutting_proxy(s3.port) as proxy:
        proxy.decide = lambda head, number: Cut(after_response_bytes=2 * MIB) if number in (1, 3) else None
        store = s3.store(bucket, url=f"http://127.0.0.1:{proxy.port}")
        pieces = iter_object(
            store,
            stored.location,
            stored_size=stored.stored_size,
            sha256=stored.sha256,
            etag=stored.etag,
            options=OPTIONS,
        )
        assert b"".join(pieces) == spool.read_bytes()

    assert len(proxy.heads) == 4 + 2
    assert all("if-match:" in head.lower() for head in proxy.heads)


@pytest.mark.parametrize("may_list", [True, False])
def test_upload_resumes_after_kill(s3: S3Server, bucket: str, spool: Path, may_list: bool) -> None:
    """A process is killed in mid-upload; another one sends only what the store did not acknowledge."""
    actions = (*WRITER, "ListMultipartUploadParts") if may_list else WRITER
    key = s3.key_for(*actions)
    session_file = spool.with_name("session.jsonl")
    program = textwrap.dedent(
        f"""
        import os, signal, sys
        from pathlib import Path
        from pydantic import SecretStr
        from vantage6_largefile.config.store import AccessKeyCredential, StoreConfig
        from vantage6_largefile.location import Location
        from vantage6_largefile.stores import open_store
        from vantage6_largefile.transfer import TransferOptions, upload_file

        credential = AccessKeyCredential(access_key_id="{key}", secret_access_key=SecretStr("{SECRET}"))
        options = {{"endpoint_url": "{s3.url}", "region": "us-east-1"}}
        store = open_store(StoreConfig("s3", Location.parse("s3://moto/{bucket}"), options, credential))

        put, count = store.put_part, 0

        def put_part(*arguments):
            global count
            count += 1
            if count == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            return put(*arguments)

        store.put_part = put_part
        upload_file(
            store, Path(sys.argv[1]), store.root.child("object"), media_type="application/octet-stream",
            options=TransferOptions(part_size={5 * MIB}, concurrency=1, retry_for=60),
            session_file=Path(sys.argv[2]),
        )
        """
    )
    done = subprocess.run([sys.executable, "-c", program, str(spool), str(session_file)], check=False, timeout=60)
    assert done.returncode < 0
    assert pending(s3, bucket) == ["object"]
    assert s3.calls.count("PUT PutObject") == 2

    upload(s3.store(bucket, key=key), spool, session_file=session_file)

    assert content(s3, bucket) == spool.read_bytes()
    # Four parts in all, none of them sent twice.
    assert s3.calls.count("PUT PutObject") == 4
    assert not session_file.exists()


def test_upload_that_expired_begins_again(s3: S3Server, bucket: str, spool: Path) -> None:
    store, session_file = s3.store(bucket), spool.with_name("session.jsonl")
    s3.fault = lambda method, path, query: (
        error_answer("503 SLOW DOWN", "SlowDown") if method == "POST" and "uploadId" in query else None
    )
    with pytest.raises(StoreUnavailable):
        upload(store, spool, session_file=session_file, options=TransferOptions(5 * MIB, 2, None, 0.5))
    s3.fault = None
    for entry in s3.everything.list_multipart_uploads(Bucket=bucket)["Uploads"]:
        s3.everything.abort_multipart_upload(Bucket=bucket, Key=entry["Key"], UploadId=entry["UploadId"])

    upload(store, spool, session_file=session_file)

    assert content(s3, bucket) == spool.read_bytes()
    assert pending(s3, bucket) == []
