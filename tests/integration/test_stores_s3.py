"""The ``s3`` driver against an S3 server: the suite for drivers, rights, wrong configuration, faults, secrets."""

from __future__ import annotations

import dataclasses
import hashlib
import uuid
from collections.abc import Callable

import pytest

from tests.support.cutting_proxy import Cut, cutting_proxy
from tests.support.s3 import SECRET, S3Server, error_answer
from vantage6_largefile.config.store import NetworkConfig
from vantage6_largefile.demo.azurite import free_port
from vantage6_largefile.errors import (
    LargeFileError,
    ObjectExists,
    StoreAccessDenied,
    StoreMisconfigured,
    StoreUnavailable,
    UploadSessionLost,
)
from vantage6_largefile.location import Location
from vantage6_largefile.stores import Part, Store, UploadSession, open_store
from vantage6_largefile.stores.conformance import StoreConformance

pytest_plugins = ["tests.support.s3"]

MIB = 1 << 20


class TestS3Store(StoreConformance):
    part_size = 5 * MIB
    prefix = ""

    def open_store(self, request: pytest.FixtureRequest) -> Store:
        server: S3Server = request.getfixturevalue("s3")
        name: str = request.getfixturevalue("bucket")
        return server.store(name, prefix=self.prefix)


class TestS3StoreWithPrefix(TestS3Store):
    prefix = "/hospital-a/v6"


# --- rights -----------------------------------------------------------------------------------------------------------


def write(store: Store, name: str, data: bytes) -> Location:
    location = store.root.child(name)
    session = store.begin(location, media_type="application/json", part_size=5 * MIB)
    store.commit(session, [store.put_part(session, 1, data)])
    return location


CALLS: dict[str, Callable[[Store, Location], object]] = {
    "read": lambda store, location: list(store.read(location)),
    "stat": lambda store, location: store.stat(location),
    "delete": lambda store, location: store.delete(location),
    "list": lambda store, location: list(store.list(store.root)),
    "write": lambda store, location: write(store, f"new-{uuid.uuid4()}", b"x"),
}
WRITER = ("PutObject", "AbortMultipartUpload")
READER = ("GetObject", "ListBucket")


@pytest.mark.parametrize(
    ("actions", "allowed"),
    [
        (WRITER, {"write"}),
        (READER, {"read", "stat", "list"}),
        (("GetObject",), {"read", "stat"}),
        (("DeleteObject",), {"delete"}),
        ((*WRITER, *READER, "DeleteObject"), set(CALLS)),
    ],
)
@pytest.mark.parametrize("call", CALLS)
def test_each_call_needs_the_documented_right(
    s3: S3Server, bucket: str, actions: tuple[str, ...], allowed: set[str], call: str
) -> None:
    location = write(s3.store(bucket), "object", b"x")
    store = s3.store(bucket, key=s3.key_for(*actions))

    if call in allowed:
        CALLS[call](store, location)
    else:
        with pytest.raises(StoreAccessDenied):
            CALLS[call](store, location)


def test_write_only_credential_uploads_and_learns_the_etag_and_overwrites_nothing(s3: S3Server, bucket: str) -> None:
    store, reader = s3.store(bucket, key=s3.key_for(*WRITER)), s3.store(bucket)
    location = store.root.child("object")
    session = store.begin(location, media_type="text/plain", part_size=5 * MIB)
    part = store.put_part(session, 1, b"x")

    assert store.list_parts(session) is None
    assert store.commit(session, [part]).etag == reader.stat(location).etag
    with pytest.raises(ObjectExists):
        write(store, "object", b"y")
    assert b"".join(reader.read(location)) == b"x"


def test_whoever_may_not_list_is_not_told_what_is_missing(s3: S3Server, bucket: str) -> None:
    store = s3.store(bucket, key=s3.key_for("GetObject", "DeleteObject"))

    for call in ("read", "stat"):
        with pytest.raises(StoreAccessDenied, match="may not learn"):
            CALLS[call](store, store.root.child("absent"))
    store.delete(store.root.child("absent"))


# --- conditional create -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [0, 1, 2])
@pytest.mark.parametrize("there_by", ["multipart", "put"])
def test_existing_key_is_refused_by_the_server_itself(s3: S3Server, bucket: str, parts: int, there_by: str) -> None:
    """No look beforehand: the one request that makes the object is refused."""
    store = s3.store(bucket)
    location = store.root.child("object")
    if there_by == "multipart":
        write(store, "object", b"first")
    else:
        s3.everything.put_object(Bucket=bucket, Key="object", Body=b"first")
    session = store.begin(location, media_type="text/plain", part_size=5 * MIB)
    put = [store.put_part(session, number, b"x" * 5 * MIB) for number in range(1, parts + 1)]
    s3.calls.clear()

    with pytest.raises(ObjectExists):
        store.commit(session, put)

    assert s3.calls == [f"{'POST' if parts else 'PUT'} PutObject"]
    assert b"".join(store.read(location)) == b"first"


def test_conflict_at_commit_asks_for_a_new_upload(s3: S3Server, bucket: str) -> None:
    store = s3.store(bucket)
    session = store.begin(store.root.child("object"), media_type="text/plain", part_size=5 * MIB)
    parts = [store.put_part(session, 1, b"x")]
    s3.fault = lambda method, path, query: error_answer("409 CONFLICT", "ConditionalRequestConflict")

    with pytest.raises(UploadSessionLost):
        store.commit(session, parts)
    with pytest.raises(StoreUnavailable):
        store.commit(session, [])


def test_failure_behind_a_status_of_success_is_none(s3: S3Server, bucket: str) -> None:
    """S3 begins to answer before the object is complete; the error then comes in the body of a 200."""
    store = s3.store(bucket)
    session = store.begin(store.root.child("object"), media_type="text/plain", part_size=5 * MIB)
    parts = [store.put_part(session, 1, b"x")]
    s3.fault = lambda method, path, query: error_answer("200 OK", "InternalError")

    with pytest.raises(StoreUnavailable):
        store.commit(session, parts)


# --- sessions ---------------------------------------------------------------------------------------------------------


def pending(s3: S3Server, bucket: str) -> list[str]:
    return [upload["Key"] for upload in s3.everything.list_multipart_uploads(Bucket=bucket).get("Uploads", ())]


def test_abort_leaves_no_multipart_upload(s3: S3Server, bucket: str) -> None:
    store = s3.store(bucket)
    session = store.begin(store.root.child("object"), media_type="text/plain", part_size=5 * MIB)
    part = store.put_part(session, 1, b"x")
    assert pending(s3, bucket) == ["object"]

    store.abort(session)
    store.abort(session)

    assert pending(s3, bucket) == []
    for call in (
        lambda: store.put_part(session, 2, b"y"),
        lambda: store.list_parts(session),
        lambda: store.commit(session, [part]),
    ):
        with pytest.raises(UploadSessionLost):
            call()


def test_empty_object_leaves_no_multipart_upload(s3: S3Server, bucket: str) -> None:
    store = s3.store(bucket)
    location = store.root.child("object")

    store.commit(store.begin(location, media_type="text/plain", part_size=5 * MIB), [])

    assert store.stat(location).size == 0
    assert pending(s3, bucket) == []


def test_empty_object_is_there_even_if_its_upload_may_not_be_removed(
    s3: S3Server, bucket: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = s3.store(bucket, key=s3.key_for("PutObject"))
    location = store.root.child("object")

    store.commit(store.begin(location, media_type="text/plain", part_size=5 * MIB), [])

    assert s3.store(bucket).stat(location).size == 0
    assert "could not be removed" in caplog.text


def test_all_parts_are_listed_however_many_pages_there_are(s3: S3Server, bucket: str) -> None:
    store = s3.store(bucket)
    session = store.begin(store.root.child("object"), media_type="text/plain", part_size=5 * MIB)
    put = [store.put_part(session, number, b"%d" % number) for number in range(1, 1004)]

    assert store.list_parts(session) == put


def test_commit_with_a_part_that_was_never_sent_is_a_lost_session(s3: S3Server, bucket: str) -> None:
    store = s3.store(bucket)
    session = store.begin(store.root.child("object"), media_type="text/plain", part_size=5 * MIB)
    part = store.put_part(session, 1, b"x" * 5 * MIB)

    with pytest.raises(UploadSessionLost):
        store.commit(session, [part, Part(2, 1, '"0123"')])


@pytest.mark.parametrize("token", ["", " ", "a b", "x\n", "é", "x" * 1025])
def test_forged_token_is_refused_before_anybody_is_asked(s3: S3Server, bucket: str, token: str) -> None:
    """Without an id, the request to put a part would put an object."""
    store = s3.store(bucket)
    session = UploadSession(str(store.root.child("object")), token, "text/plain", 5 * MIB)

    for call in (
        lambda: store.put_part(session, 1, b"x"),
        lambda: store.list_parts(session),
        lambda: store.commit(session, []),
        lambda: store.abort(session),
    ):
        with pytest.raises(UploadSessionLost):
            call()

    assert s3.calls == ["PUT ListBucket"]  # that was the making of the bucket


# --- check ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("actions", [WRITER, ("PutObject",), READER, (*WRITER, *READER), (*WRITER, "GetObject")])
def test_check_accepts_every_useful_credential_and_leaves_nothing(
    s3: S3Server, bucket: str, actions: tuple[str, ...]
) -> None:
    s3.store(bucket, key=s3.key_for(*actions)).check()

    assert pending(s3, bucket) == []
    assert list(s3.store(bucket).list(s3.store(bucket).root)) == []


def test_check_needs_some_right(s3: S3Server, bucket: str) -> None:
    with pytest.raises(StoreAccessDenied, match="lacks this right"):
        s3.store(bucket, key=s3.key_for("DeleteObject")).check()


@pytest.mark.parametrize("actions", [WRITER, READER])
def test_check_finds_an_unknown_bucket(s3: S3Server, actions: tuple[str, ...]) -> None:
    with pytest.raises(StoreMisconfigured, match="NoSuchBucket"):
        s3.store("not-there", key=s3.key_for(*actions)).check()


def test_check_finds_a_host_that_does_not_answer(s3: S3Server) -> None:
    with pytest.raises(StoreUnavailable, match="refused"):
        s3.store("not-there", url=f"http://127.0.0.1:{free_port()}").check()


def test_unknown_bucket_is_no_missing_object(s3: S3Server) -> None:
    store = s3.store("not-there")

    for call in CALLS.values():
        with pytest.raises(StoreMisconfigured):
            call(store, store.root.child("object"))


@pytest.mark.parametrize(
    ("status", "code", "expected", "words"),
    [
        ("403 FORBIDDEN", "InvalidAccessKeyId", StoreAccessDenied, "access key"),
        ("403 FORBIDDEN", "SignatureDoesNotMatch", StoreAccessDenied, "access key"),
        ("400 BAD REQUEST", "ExpiredToken", StoreAccessDenied, "expired"),
        ("403 FORBIDDEN", "RequestTimeTooSkewed", StoreMisconfigured, "clock of this machine is wrong"),
        ("503 SLOW DOWN", "SlowDown", StoreUnavailable, "SlowDown"),
        ("400 BAD REQUEST", "RequestTimeout", StoreUnavailable, "RequestTimeout"),
    ],
)
def test_check_says_what_is_wrong_and_asks_once(
    s3: S3Server, bucket: str, status: str, code: str, expected: type[Exception], words: str
) -> None:
    store = s3.store(bucket)
    s3.calls.clear()
    s3.fault = lambda method, path, query: error_answer(status, code)

    with pytest.raises(expected, match=words):
        store.check()

    assert len(s3.calls) == 1


# --- the rest ---------------------------------------------------------------------------------------------------------


def test_store_that_says_when_to_come_back_is_heard_and_not_asked_twice(s3: S3Server, bucket: str) -> None:
    store = s3.store(bucket)
    s3.fault = lambda method, path, query: error_answer("503 SLOW DOWN", "SlowDown", **{"Retry-After": "17"})
    s3.calls.clear()

    for call in CALLS.values():
        with pytest.raises(StoreUnavailable) as caught:
            call(store, store.root.child("object"))
        assert caught.value.retry_after == 17

    assert len(s3.calls) == len(CALLS)


def test_redirects_are_not_followed(s3: S3Server, bucket: str) -> None:
    store = s3.store(bucket)
    elsewhere = {"Location": f"{s3.url}/followed/object", "x-amz-bucket-region": "eu-south-2"}
    for status, code in (
        ("307 TEMPORARY REDIRECT", "TemporaryRedirect"),
        ("301 MOVED PERMANENTLY", "PermanentRedirect"),
        ("400 BAD REQUEST", "AuthorizationHeaderMalformed"),
    ):
        s3.calls.clear()
        s3.fault = lambda method, path, query: error_answer(status, code, **elsewhere)  # noqa: B023

        for name, call in CALLS.items():
            if status.startswith("400") and name in ("stat", "delete"):
                continue  # the answer to a HEAD has no code
            with pytest.raises(StoreMisconfigured, match=r"is in eu-south-2\. Redirects are not followed"):
                call(store, store.root.child("object"))
        with pytest.raises(StoreMisconfigured, match="Redirects are not followed"):
            store.check()

        assert len(s3.calls) == (4 if status.startswith("400") else len(CALLS) + 1)


def test_server_that_ignores_ranges_is_found_out(s3: S3Server, bucket: str) -> None:
    store = s3.store(bucket)
    location = write(store, "object", b"0123456789")
    s3.fault = lambda method, path, query: ("200 OK", [("Content-Length", "10")], b"0123456789")

    with pytest.raises(StoreMisconfigured, match="ranges"):
        list(store.read(location, offset=5))


def test_media_type_is_stored(s3: S3Server, bucket: str) -> None:
    store = s3.store(bucket)
    write(store, "object", b"{}")
    store.commit(store.begin(store.root.child("empty"), media_type="application/json", part_size=5 * MIB), [])

    for name in ("object", "empty"):
        assert s3.everything.head_object(Bucket=bucket, Key=name)["ContentType"] == "application/json"


def test_keys_that_are_no_locations_are_not_listed(s3: S3Server, bucket: str) -> None:
    store = s3.store(bucket)
    for name in ("of someone else.txt", ".hidden", "a/b/c.", "folder/", "a//b", "é"):
        s3.everything.put_object(Bucket=bucket, Key=name, Body=b"x")
    location = write(store, "object", b"x")

    assert [info.location for info in store.list(store.root)] == [location]


def test_content_encoding_of_an_object_is_not_undone(s3: S3Server, bucket: str) -> None:
    store = s3.store(bucket)
    s3.everything.put_object(Bucket=bucket, Key="object", Body=b"not gzip at all", ContentEncoding="gzip")

    assert b"".join(store.read(store.root.child("object"))) == b"not gzip at all"
    assert b"".join(store.read(store.root.child("object"), offset=4, length=4)) == b"gzip"


def test_parts_are_sent_plainly_with_their_digest_signed(s3: S3Server, bucket: str) -> None:
    """No trailers, no chunks, no checksum headers: what every server understands."""
    store = s3.store(bucket)
    session = store.begin(store.root.child("object"), media_type="text/plain", part_size=5 * MIB)

    store.put_part(session, 1, b"x" * 100)

    assert s3.calls[-1] == "PUT PutObject"
    assert s3.headers["content-length"] == "100"
    assert s3.headers["x-amz-content-sha256"] == hashlib.sha256(b"x" * 100).hexdigest()
    for word in ("trailer", "aws-chunked", "transfer-encoding", "checksum", "content-md5"):
        assert word not in str(s3.headers).lower()


def test_environment_does_not_send_us_elsewhere(s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = f"http://127.0.0.1:{free_port()}"
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.setenv(name, elsewhere)
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_supported")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-someone-else")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "9")

    store = s3.store(bucket)

    write(store, "object", b"x")
    assert store.stat(store.root.child("object")).size == 1


def test_requests_go_through_the_configured_proxy(s3: S3Server, bucket: str) -> None:
    with cutting_proxy(s3.port) as proxy:
        through = NetworkConfig(https_proxy=f"http://user:{SECRET}@127.0.0.1:{proxy.port}")
        past = NetworkConfig(https_proxy=f"http://127.0.0.1:{free_port()}", no_proxy=("127.0.0.0/8",))
        for network in (through, past):
            store = open_store(dataclasses.replace(s3.config(bucket), network=network))
            assert list(store.list(store.root)) == []

    assert len(proxy.heads) == 1
    assert proxy.heads[0].startswith(f"GET {s3.url}/{bucket}")


def test_no_message_holds_a_secret(s3: S3Server, bucket: str) -> None:
    """The test server repeats the secret in the text of its errors, as a server may repeat the request."""
    denied = s3.key_for()
    messages = []
    for url in (None, f"http://127.0.0.1:{free_port()}"):
        store = s3.store(bucket, key=denied, url=url)
        for call in CALLS.values():
            with pytest.raises(LargeFileError) as caught:
                call(store, store.root.child("object"))
            messages.append(f"{caught.getrepr(style='long', chain=True)} {caught.value!r}")

    assert len(messages) == 2 * len(CALLS)
    assert all(str(store.root) in message for message in messages)
    # The traceback shows this file's source, but no value of it.
    assert all(SECRET not in message for message in messages)


def test_connection_that_breaks_in_mid_answer_is_no_short_stream(s3: S3Server, bucket: str) -> None:
    location = write(s3.store(bucket), "object", b"x" * 5 * MIB)
    with cutting_proxy(s3.port) as proxy:
        proxy.decide = lambda head, number: Cut(after_response_bytes=2 * MIB)
        store = s3.store(bucket, url=f"http://127.0.0.1:{proxy.port}")

        with pytest.raises(StoreUnavailable, match=r"broke|closed|reset"):
            list(store.read(location))
