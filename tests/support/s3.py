"""An S3 server on loopback: moto, with what the real service adds to it. Import the fixtures where they are needed.

moto keeps buckets, objects and multipart uploads and answers as S3 does, ``If-None-Match`` on completing an upload
included. Around it stands what it lacks:

* a conditional write is one step (moto looks, and then writes: two requests at once would both pass);
* a part or commit of an upload that is not there (any more) is refused as ``NoSuchUpload`` (moto fails with 500);
* rights by access key, by the action that S3 asks for at each call. It is our table and not Amazon's policy engine;
  signatures are not checked.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import parse_qs

import boto3
import pytest
from botocore.config import Config
from moto.core import DEFAULT_ACCOUNT_ID
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from moto.s3.models import s3_backends
from pydantic import SecretStr
from werkzeug.serving import make_server

from vantage6_largefile.config.store import AccessKeyCredential, StoreConfig, TransferConfig
from vantage6_largefile.location import Location
from vantage6_largefile.stores import Store, open_store

#: What the access key of this id may do is everything.
ALL = "all"
SECRET = "s3cr3t-canary-of-an-access-key"
#: Given to a hook: method, path, query. Returns the answer to give instead of the server's, or None.
Fault = Callable[[str, str, dict[str, list[str]]], "tuple[str, list[tuple[str, str]], bytes] | None"]

Environ = dict[str, Any]
StartResponse = Callable[..., Any]


def error_answer(status: str, code: str, **headers: str) -> tuple[str, list[tuple[str, str]], bytes]:
    """An error as S3 words it."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{SECRET}</Message></Error>".encode()
    fields = {"Content-Type": "application/xml", "Content-Length": str(len(body)), "x-amz-request-id": "id-1"}
    return status, list({**fields, **headers}.items()), body


@dataclass
class S3Server:
    """A running server.

    Attributes
    ----------
    url : str
    rights : dict
        Access key id → the actions that it may do; ids that are not there may do everything.
    fault : callable or None
        Answers in the place of the server.
    calls : list of str
        Method and action of every request so far.
    headers : dict
        Those of the last request, names in lower case.
    """

    url: str = ""
    rights: dict[str, frozenset[str]] = field(default_factory=dict)
    fault: Fault | None = None
    calls: list[str] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @cached_property
    def everything(self) -> Any:
        """A client of everything, past our own code."""
        config = Config(s3={"addressing_style": "path"}, ignore_configured_endpoint_urls=True, proxies={})
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=ALL,
            aws_secret_access_key=SECRET,
            config=config,
        )

    def config(self, bucket: str, *, prefix: str = "", key: str = ALL, url: str | None = None) -> StoreConfig:
        return StoreConfig(
            "s3",
            Location.parse(f"s3://moto/{bucket}{prefix}"),
            {"endpoint_url": url or self.url, "region": "us-east-1"},
            AccessKeyCredential(access_key_id=key, secret_access_key=SecretStr(SECRET)),
            transfer=TransferConfig(),
        )

    def store(self, bucket: str, *, prefix: str = "", key: str = ALL, url: str | None = None) -> Store:
        return open_store(self.config(bucket, prefix=prefix, key=key, url=url))

    def key_for(self, *actions: str) -> str:
        """A new access key that may do these actions only, on every bucket."""
        name = f"key-{uuid.uuid4().hex[:8]}"
        self.rights[name] = frozenset(actions)
        return name


def action_of(method: str, key: str, query: dict[str, list[str]]) -> str:
    """The action of a policy that S3 asks for at a request."""
    if not key:
        return "ListBucket"
    if "uploadId" in query and method == "GET":
        return "ListMultipartUploadParts"
    if "uploadId" in query and method == "DELETE":
        return "AbortMultipartUpload"
    return {"GET": "GetObject", "HEAD": "GetObject", "DELETE": "DeleteObject"}.get(method, "PutObject")


class _Around:
    """The application around moto's."""

    def __init__(self, server: S3Server) -> None:
        self._server = server
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._one_at_a_time = threading.Lock()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        query = parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True)
        bucket, _, key = path.lstrip("/").partition("/")
        action = action_of(method, key, query)
        self._server.calls.append(f"{method} {action}")
        self._server.headers = {
            name.removeprefix("HTTP_").replace("_", "-").lower(): str(value)
            for name, value in environ.items()
            if name.startswith("HTTP_") or name == "CONTENT_LENGTH"
        }
        access_key = environ.get("HTTP_AUTHORIZATION", "").partition("Credential=")[2].partition("/")[0]
        allowed = self._server.rights.get(access_key)
        instead = self._server.fault(method, path, query) if self._server.fault else None
        if instead is None and allowed is not None and action not in allowed:
            instead = error_answer("403 FORBIDDEN", "AccessDenied")
        if instead is None and method in ("PUT", "POST") and "uploadId" in query:
            there = s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets.get(bucket)
            known = there is None or query["uploadId"][0] in there.multiparts
            if not known and (method == "PUT" or key not in there.keys):
                instead = error_answer("404 NOT FOUND", "NoSuchUpload")
        if instead is None and "HTTP_IF_NONE_MATCH" in environ:
            with self._one_at_a_time:
                return self._answer(environ, start_response)
        if instead is None and allowed is not None and "ListBucket" not in allowed and method in ("GET", "HEAD"):
            # Whoever may not list is not told what is not there.
            status, headers, body = self._held(environ)
            if not status.startswith("404") or b"NoSuchBucket" in body:
                start_response(status, headers)
                return [body]
            instead = error_answer("403 FORBIDDEN", "AccessDenied")
        if instead is None:
            return self._answer(environ, start_response)
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        start_response(instead[0], instead[1])
        return [] if method == "HEAD" else [instead[2]]

    def _answer(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        answer: Iterable[bytes] = self._moto(environ, start_response)
        return answer

    def _held(self, environ: Environ) -> tuple[str, list[tuple[str, str]], bytes]:
        began: list[Any] = []
        body = b"".join(self._moto(environ, lambda status, headers, *rest: began.extend((status, headers))))
        return began[0], began[1], body


class _QuietHandler(MotoRequestHandler):
    def log(self, *_: Any) -> None:
        pass


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """A server in this process, on a free port of loopback."""
    logging.getLogger("botocore").setLevel(logging.INFO)
    server = S3Server()
    http = make_server("127.0.0.1", 0, _Around(server), threaded=True, request_handler=_QuietHandler)
    server.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


@pytest.fixture(scope="session")
def running_s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture
def s3(running_s3: S3Server) -> Iterator[S3Server]:
    """The server, with nothing left of the test before."""
    yield running_s3
    running_s3.fault = None
    running_s3.rights.clear()
    running_s3.calls.clear()


@pytest.fixture
def bucket(s3: S3Server) -> Iterator[str]:
    """A bucket of the test's own."""
    name = f"b{uuid.uuid4().hex}"
    client = s3.everything
    client.create_bucket(Bucket=name)
    yield name
    s3.fault = None
    for upload in client.list_multipart_uploads(Bucket=name).get("Uploads", ()):
        client.abort_multipart_upload(Bucket=name, Key=upload["Key"], UploadId=upload["UploadId"])
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=name):
        for entry in page.get("Contents", ()):
            client.delete_object(Bucket=name, Key=entry["Key"])
    client.delete_bucket(Bucket=name)
