"""The ``azure`` driver: objects as block blobs, on azure-storage-blob.

``azure://<account>/<container>/a/b`` is the blob ``a/b``. An upload is a set of uncommitted blocks whose ids begin
with the upload's own random token, so that two uploads of one blob never mix; commit is one *Put Block List* that
demands that no blob of that name exists. Azure removes blocks that nobody committed after a week: that is also how
an aborted upload ends, because no request removes uncommitted blocks and leaves nothing behind.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import IO, cast

from azure.core import MatchConditions
from azure.core.exceptions import AzureError, HttpResponseError
from azure.storage.blob import BlobBlock, BlobClient, BlobProperties, ContainerClient, ContentSettings

from vantage6_largefile.config.store import StoreConfig
from vantage6_largefile.errors import (
    ObjectChanged,
    ObjectNotFound,
    StoreAccessDenied,
    UploadSessionLost,
)
from vantage6_largefile.location import Location, is_segment
from vantage6_largefile.stores.azure_client import container_client
from vantage6_largefile.stores.azure_errors import BAD_CREDENTIAL, code_of, mapped, translate
from vantage6_largefile.stores.azure_range import stream_range
from vantage6_largefile.stores.base import ObjectInfo, Part, StoreLimits, UploadSession, require_inside
from vantage6_largefile.stores.http import SEND_BLOCK

MIB = 1 << 20
_TOKEN = re.compile(r"[0-9a-f]{32}\Z")
# Azure wants all block ids of a blob to be of equal length, and takes 50,000 blocks.
_BLOCK_ID = re.compile(r"([0-9a-f]{32})(\d{6})\Z")


class AzureStore:
    """Objects as block blobs in one container. See :class:`~vantage6_largefile.stores.base.Store` for the calls.

    Parameters
    ----------
    root : Location
        ``azure://<account>/<container>/<prefix…>``.
    client : ContainerClient
        Of that container; closed by :meth:`close`.
    """

    def __init__(self, root: Location, client: ContainerClient) -> None:
        self._root = root
        self._client = client

    @property
    def root(self) -> Location:
        """The configured container with its prefix."""
        return self._root

    @property
    def limits(self) -> StoreLimits:
        """Those of block blobs: 50,000 blocks of at most 4000 MiB."""
        return StoreLimits(min_part=1, max_part=4000 * MIB, max_parts=50_000)

    def check(self) -> None:
        """Two questions about a blob of a random name, which neither make nor change anything.

        First its properties are asked for: whoever may read is told that the blob, or the container, is not there.
        A credential that may not read is refused before the service looks for the container; it then asks to commit
        a block that does not exist, on the condition of an etag that does not exist either. Whoever may write is
        told that this cannot be, or that the container is not there. Refused twice means that nothing is allowed.
        """
        blob = self._client.get_blob_client("/".join((*self._root.segments[1:], f"v6lf-check-{secrets.token_hex(8)}")))
        try:
            blob.get_blob_properties()
            return
        except AzureError as error:
            problem = translate(error, self._root, "check")
            if isinstance(problem, ObjectNotFound):
                return
            if not isinstance(problem, StoreAccessDenied) or code_of(error) in BAD_CREDENTIAL:
                raise problem from None
        try:
            blob.commit_block_list(
                [BlobBlock(_block_id("0" * 32, 1))],
                etag='"0x0"',
                match_condition=MatchConditions.IfNotModified,
            )
        except AzureError as error:
            problem = translate(error, self._root, "check")
            if not isinstance(problem, ObjectChanged | UploadSessionLost | ObjectNotFound):
                raise problem from None

    # --- upload --------------------------------------------------------------------------------------------------

    def begin(self, location: Location, *, media_type: str, part_size: int) -> UploadSession:
        """Draw a token; Azure has no request for it."""
        require_inside(self._root, location)
        return UploadSession(str(location), secrets.token_hex(16), media_type, part_size)

    def put_part(self, session: UploadSession, number: int, data: bytes | memoryview) -> Part:
        """Stage one block."""
        location, blob = self._upload_of(session)
        size = len(data)
        block_id = _block_id(session.token, number)
        with mapped(location, "upload a part of", writing=True):
            blob.stage_block(block_id, cast("IO[bytes]", _Body(data)), length=size)
        return Part(number, size, block_id)

    def list_parts(self, session: UploadSession) -> Sequence[Part] | None:
        """The uncommitted blocks of this upload; a blob that is not there has none."""
        location, blob = self._upload_of(session)
        try:
            _, blocks = blob.get_block_list("uncommitted")
        except AzureError as error:
            problem = translate(error, location, "list the parts of")
            if isinstance(problem, ObjectNotFound):
                return []
            if isinstance(problem, StoreAccessDenied) and code_of(error) not in BAD_CREDENTIAL:
                return None
            raise problem from None
        found = ((_BLOCK_ID.match(block.id or ""), block) for block in blocks)
        parts = [
            Part(int(match[2]), block.size or 0, match[0])
            for match, block in found
            if match and match[1] == session.token
        ]
        return sorted(parts, key=lambda part: part.number)

    def commit(self, session: UploadSession, parts: Sequence[Part]) -> ObjectInfo:
        """Put the block list, on condition that no blob of that name exists."""
        location, blob = self._upload_of(session)
        ordered = sorted(parts, key=lambda part: part.number)
        with mapped(location, "commit", writing=True):
            answer = blob.commit_block_list(
                [BlobBlock(part.tag) for part in ordered],
                content_settings=ContentSettings(content_type=session.media_type),
                match_condition=MatchConditions.IfMissing,
            )
        etag, modified = answer.get("etag"), answer.get("last_modified")
        return ObjectInfo(
            location,
            sum(part.size for part in ordered),
            _quoted(etag) if isinstance(etag, str) else None,
            modified.timestamp() if isinstance(modified, datetime) else None,
        )

    def abort(self, session: UploadSession) -> None:
        """Nothing to do: blocks that are never committed are not visible, and Azure removes them after a week."""
        self._upload_of(session)

    # --- objects -------------------------------------------------------------------------------------------------

    def read(
        self, location: Location, *, offset: int = 0, length: int | None = None, if_match: str | None = None
    ) -> Iterator[bytes]:
        """Stream a range with one request, in pieces of at most 256 KiB."""
        return self._read(self._blob(location), location, offset, length, if_match)

    def _read(
        self, blob: BlobClient, location: Location, offset: int, length: int | None, if_match: str | None
    ) -> Iterator[bytes]:
        if length == 0:
            return
        try:
            yield from stream_range(blob, offset, length, if_match)
        except HttpResponseError as error:
            if error.status_code == 416:
                return
            if error.status_code == 412:
                self._raise_if_gone(blob, location)
            raise translate(error, location, "read") from None
        except AzureError as error:
            raise translate(error, location, "read") from None

    def _raise_if_gone(self, blob: BlobClient, location: Location) -> None:
        """A condition on a blob that is not there fails as a condition: ask which of the two it was."""
        with mapped(location, "read"):
            blob.get_blob_properties()

    def stat(self, location: Location) -> ObjectInfo:
        """The properties of a blob."""
        blob = self._blob(location)
        with mapped(location, "look at"):
            return _info(location, blob.get_blob_properties())

    def delete(self, location: Location) -> None:
        """Delete a blob together with its snapshots."""
        blob = self._blob(location)
        with mapped(location, "delete"):
            blob.delete_blob(delete_snapshots="include")

    def list(self, prefix: Location) -> Iterator[ObjectInfo]:
        """All blobs below `prefix` whose names are locations; folders of a hierarchical namespace are none."""
        require_inside(self._root, prefix, or_root=True)
        return self._list(prefix)

    def _list(self, prefix: Location) -> Iterator[ObjectInfo]:
        container = Location(prefix.driver, prefix.authority, prefix.segments[:1])
        start = "".join(segment + "/" for segment in prefix.segments[1:])
        with mapped(prefix, "list"):
            for blob in self._client.list_blobs(name_starts_with=start, include=["metadata"]):
                segments = blob.name.split("/")
                if all(is_segment(segment) for segment in segments) and not _is_folder(blob):
                    yield _info(container.child(*segments), blob)

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    # --- names ---------------------------------------------------------------------------------------------------

    def _blob(self, location: Location) -> BlobClient:
        require_inside(self._root, location)
        return self._client.get_blob_client("/".join(location.segments[1:]))

    def _upload_of(self, session: UploadSession) -> tuple[Location, BlobClient]:
        location = Location.parse(session.location)
        blob = self._blob(location)
        if not _TOKEN.match(session.token):
            raise UploadSessionLost(f"Upload of {location}: its token is not one of this driver.")
        return location, blob


class _Body:
    """Bytes as the HTTP library wants them so that it sends them in blocks: each has the whole timeout of the line.

    Given `bytes`, it would allow one timeout for the whole part, which a slow line does not make.
    """

    def __init__(self, data: bytes | memoryview) -> None:
        self._view = memoryview(data)
        self._at = 0

    def __len__(self) -> int:
        return len(self._view)

    def __iter__(self) -> Iterator[memoryview]:
        while piece := self.read(SEND_BLOCK):
            yield piece

    def read(self, size: int = -1) -> memoryview:
        end = len(self._view) if size < 0 else min(len(self._view), self._at + size)
        piece = self._view[self._at : end]
        self._at = end
        return piece

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, len(self._view))[whence]
        return self._at


def _block_id(token: str, number: int) -> str:
    if not 1 <= number <= 999_999:
        raise ValueError(f"there is no part {number}")
    return f"{token}{number:06d}"


def _is_folder(blob: BlobProperties) -> bool:
    return (blob.metadata or {}).get("hdi_isfolder", "").lower() == "true"


def _info(location: Location, blob: BlobProperties) -> ObjectInfo:
    modified = blob.last_modified.timestamp() if blob.last_modified is not None else None
    return ObjectInfo(location, blob.size, _quoted(blob.etag) if blob.etag else None, modified)


def _quoted(etag: str) -> str:
    # A listing names the etag without the quotes that belong to it everywhere else.
    return etag if etag.endswith('"') else f'"{etag}"'


def open_store(config: StoreConfig) -> AzureStore:
    """Open the store of a configuration (entry point of the driver)."""
    return AzureStore(config.root, container_client(config))
