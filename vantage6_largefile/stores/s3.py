"""The ``s3`` driver: objects in a bucket of Amazon S3 or of any server that speaks its language, on boto3.

``s3://<server>/<bucket>/a/b`` is the key ``a/b``. An upload is a multipart upload, whose id keeps two uploads of one
key apart; completing it demands that no object of that name exists (``If-None-Match: *``). A server that ignores this
condition would let an object be overwritten: docs/stores.md says how to find out.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import datetime
from typing import TYPE_CHECKING

from vantage6_largefile.config.store import StoreConfig
from vantage6_largefile.errors import (
    ObjectNotFound,
    StoreAccessDenied,
    StoreError,
    StoreMisconfigured,
    UploadSessionLost,
)
from vantage6_largefile.location import Location, is_segment
from vantage6_largefile.stores.base import ObjectInfo, Part, StoreLimits, UploadSession, require_inside
from vantage6_largefile.stores.s3_client import body, s3_client
from vantage6_largefile.stores.s3_errors import BAD_CREDENTIAL, SDK_ERRORS, code_of, mapped, status_of, translate

if TYPE_CHECKING:
    from botocore.client import BaseClient

log = logging.getLogger(__name__)

MIB = 1 << 20
GIB = 1 << 30
MAX_PARTS = 10_000
#: Bytes of one piece of a stream that is read.
PIECE = MIB
# Servers make upload ids of many forms. An empty one is the one that must never be sent: without it, the request to
# put a part is the request to put an object.
_TOKEN = re.compile(r"[!-~]{1,1024}\Z")


class S3Store:
    """Objects in one bucket. See :class:`~vantage6_largefile.stores.base.Store` for the calls.

    Parameters
    ----------
    root : Location
        ``s3://<server>/<bucket>/<prefix…>``.
    client : BaseClient
        Of that server; closed by :meth:`close`.
    """

    def __init__(self, root: Location, client: BaseClient) -> None:
        self._root = root
        self._bucket = root.segments[0]
        self._client = client

    @property
    def root(self) -> Location:
        """The configured bucket with its prefix."""
        return self._root

    @property
    def limits(self) -> StoreLimits:
        """Those of S3: 10,000 parts of 5 MiB (the last one less) to 5 GiB."""
        return StoreLimits(min_part=5 * MIB, max_part=5 * GIB, max_parts=MAX_PARTS)

    def check(self) -> None:
        """Two questions about a key of a random name, which neither make nor change anything.

        First it is read: whoever may read and list is told that the key, or the bucket, is not there. A credential
        that may not is refused; it then puts a part into an upload that does not exist. Whoever may write is told
        so. Refused twice means that nothing is allowed.
        """
        names = {"Bucket": self._bucket, "Key": _key(self._root.child(f"v6lf-check-{secrets.token_hex(8)}"))}
        try:
            self._client.get_object(**names)["Body"].close()
            return
        except SDK_ERRORS as error:
            problem = translate(error, self._root, "check")
            if isinstance(problem, ObjectNotFound):
                return
            if not isinstance(problem, StoreAccessDenied) or code_of(error) in BAD_CREDENTIAL or not code_of(error):
                raise problem from None
        try:
            self._client.upload_part(**names, UploadId=secrets.token_hex(16), PartNumber=1, Body=b"")
        except SDK_ERRORS as error:
            problem = translate(error, self._root, "check")
            if not isinstance(problem, UploadSessionLost | ObjectNotFound):
                raise problem from None

    # --- upload --------------------------------------------------------------------------------------------------

    def begin(self, location: Location, *, media_type: str, part_size: int) -> UploadSession:
        """Ask the server for the id of a multipart upload."""
        names = self._names(location)
        with mapped(location, "begin the upload of", writing=True):
            answer = self._client.create_multipart_upload(**names, ContentType=media_type)
        return UploadSession(str(location), str(answer["UploadId"]), media_type, part_size)

    def put_part(self, session: UploadSession, number: int, data: bytes | memoryview) -> Part:
        """Upload one part. The server checks its SHA-256."""
        location, upload = self._upload_of(session)
        if not 1 <= number <= MAX_PARTS:
            raise ValueError(f"there is no part {number}")
        with mapped(location, "upload a part of", writing=True):
            answer = self._client.upload_part(**upload, PartNumber=number, Body=body(data), ContentLength=len(data))
        return Part(number, len(data), str(answer["ETag"]))

    def list_parts(self, session: UploadSession) -> Sequence[Part] | None:
        """The parts of this upload; 1000 per request."""
        location, upload = self._upload_of(session)
        try:
            return [
                Part(int(part["PartNumber"]), int(part["Size"]), str(part["ETag"]))
                for page in self._client.get_paginator("list_parts").paginate(**upload)
                for part in page.get("Parts", ())
            ]
        except SDK_ERRORS as error:
            problem = translate(error, location, "list the parts of")
            if isinstance(problem, StoreAccessDenied) and code_of(error) not in BAD_CREDENTIAL:
                return None
            raise problem from None

    def commit(self, session: UploadSession, parts: Sequence[Part]) -> ObjectInfo:
        """Complete the multipart upload, on condition that no object of that name exists."""
        location, upload = self._upload_of(session)
        if not parts:
            return self._commit_empty(session, location)
        ordered = sorted(parts, key=lambda part: part.number)
        listed = [{"PartNumber": part.number, "ETag": part.tag} for part in ordered]
        try:
            answer = self._client.complete_multipart_upload(
                **upload, MultipartUpload={"Parts": listed}, IfNoneMatch="*"
            )
        except SDK_ERRORS as error:
            if code_of(error) == "ConditionalRequestConflict":
                # S3 wants it so: after this answer, the upload has to be made anew, with all its parts.
                raise UploadSessionLost(
                    f"Another request for {location} came between; its upload has to begin again."
                ) from None
            raise translate(error, location, "commit", writing=True) from None
        return ObjectInfo(location, sum(part.size for part in ordered), _quoted(answer.get("ETag")))

    def _commit_empty(self, session: UploadSession, location: Location) -> ObjectInfo:
        """A multipart upload has at least one part, so an empty object is put as such."""
        with mapped(location, "commit", writing=True):
            answer = self._client.put_object(
                **self._names(location), Body=b"", ContentType=session.media_type, IfNoneMatch="*"
            )
        try:
            self.abort(session)
        except StoreError as error:
            # The object is there: that its unused upload lies about does not make the commit a failure.
            log.warning("The unused multipart upload of %s could not be removed from the store: %s", location, error)
        return ObjectInfo(location, 0, _quoted(answer.get("ETag")))

    def abort(self, session: UploadSession) -> None:
        """Remove the upload with its parts; the server frees their space."""
        location, upload = self._upload_of(session)
        try:
            self._client.abort_multipart_upload(**upload)
        except SDK_ERRORS as error:
            problem = translate(error, location, "give up the upload of", writing=True)
            if not isinstance(problem, UploadSessionLost):
                raise problem from None

    # --- objects -------------------------------------------------------------------------------------------------

    def read(
        self, location: Location, *, offset: int = 0, length: int | None = None, if_match: str | None = None
    ) -> Iterator[bytes]:
        """Stream a range with one request, in pieces of 1 MiB."""
        return self._read(self._names(location), location, offset, length, if_match)

    def _read(
        self, names: dict[str, str], location: Location, offset: int, length: int | None, if_match: str | None
    ) -> Iterator[bytes]:
        if length == 0:
            return
        asked = dict(names)
        if if_match is not None:
            asked["IfMatch"] = if_match
        ranged = offset > 0 or length is not None
        if ranged:
            asked["Range"] = f"bytes={offset}-{'' if length is None else offset + length - 1}"
        try:
            answer = self._client.get_object(**asked)
            with closing(answer["Body"]) as stream:
                if ranged and answer["ResponseMetadata"]["HTTPStatusCode"] != 206:
                    raise StoreMisconfigured(f"Cannot read {location}: the store does not honour ranges.")
                while piece := stream.read(PIECE):
                    yield piece
        except SDK_ERRORS as error:
            if code_of(error) == "InvalidRange" or status_of(error) == 416:
                return
            raise translate(error, location, "read") from None

    def stat(self, location: Location) -> ObjectInfo:
        """The head of an object. One request more when it is not there, to tell it from a bucket that is not."""
        names = self._names(location)
        try:
            answer = self._client.head_object(**names)
        except SDK_ERRORS as error:
            problem = translate(error, location, "look at")
            if isinstance(problem, ObjectNotFound):
                self._require_bucket()
            raise problem from None
        return _info(location, answer["ContentLength"], answer.get("ETag"), answer.get("LastModified"))

    def _require_bucket(self) -> None:
        """An answer to HEAD has no body, and 404 for the bucket looks like 404 for the object."""
        try:
            self._client.head_bucket(Bucket=self._bucket)
        except SDK_ERRORS as error:
            problem = translate(error, self._root, "look at")
            if isinstance(problem, ObjectNotFound):
                raise StoreMisconfigured(
                    f"Cannot look at {self._root}: the bucket is not there.",
                    advice="Create the bucket, or change 'bucket'.",
                ) from None
            if not isinstance(problem, StoreAccessDenied):
                raise problem from None

    def delete(self, location: Location) -> None:
        """Delete an object. S3 says the same whether it was there or not, so it is looked for first.

        A credential that may delete but not look is not told that an object was not there.
        """
        names = self._names(location)
        try:
            self.stat(location)
        except StoreAccessDenied:
            log.debug("Deleting %s without knowing whether it is there: the credential may not look.", location)
        with mapped(location, "delete"):
            self._client.delete_object(**names)

    def list(self, prefix: Location) -> Iterator[ObjectInfo]:
        """All objects below `prefix` whose keys are locations; 1000 per request."""
        require_inside(self._root, prefix, or_root=True)
        return self._list(prefix)

    def _list(self, prefix: Location) -> Iterator[ObjectInfo]:
        bucket = Location(prefix.driver, prefix.authority, prefix.segments[:1])
        start = "".join(segment + "/" for segment in prefix.segments[1:])
        with mapped(prefix, "list"):
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=start):
                for entry in page.get("Contents", ()):
                    segments = entry["Key"].split("/")
                    if all(is_segment(segment) for segment in segments):
                        location = bucket.child(*segments)
                        yield _info(location, entry["Size"], entry.get("ETag"), entry.get("LastModified"))

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    # --- names ---------------------------------------------------------------------------------------------------

    def _names(self, location: Location) -> dict[str, str]:
        require_inside(self._root, location)
        return {"Bucket": self._bucket, "Key": _key(location)}

    def _upload_of(self, session: UploadSession) -> tuple[Location, dict[str, str]]:
        location = Location.parse(session.location)
        names = self._names(location)
        if not _TOKEN.match(session.token):
            raise UploadSessionLost(f"Upload of {location}: its token is not one of this driver.")
        return location, {**names, "UploadId": session.token}


def _key(location: Location) -> str:
    return "/".join(location.segments[1:])


def _info(location: Location, size: int, etag: str | None, modified: datetime | None) -> ObjectInfo:
    return ObjectInfo(location, int(size), _quoted(etag), modified.timestamp() if modified is not None else None)


def _quoted(etag: str | None) -> str | None:
    # Some servers leave away the quotes that belong to it in a condition.
    return etag if not etag or etag.endswith('"') else f'"{etag}"'


def open_store(config: StoreConfig) -> S3Store:
    """Open the store of a configuration (entry point of the driver)."""
    return S3Store(config.root, s3_client(config))
