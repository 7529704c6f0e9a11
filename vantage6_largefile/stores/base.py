"""The store protocol: the few calls that every driver offers (design: section 8).

A driver is dumb on purpose: it moves given bytes in one call and maps the errors of its SDK to
:mod:`vantage6_largefile.errors`. Parallelism, retry, hashing, bandwidth limits and progress live above it, in
:mod:`vantage6_largefile.transfer`, once for all drivers. Drivers are thread-safe.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from vantage6_largefile.errors import LocationRefused
from vantage6_largefile.location import Location

#: Entry point group under which third parties register a driver (name = driver, value = opener).
ENTRY_POINT_GROUP = "vantage6_largefile.stores"


def require_inside(root: Location, location: Location, *, or_root: bool = False) -> None:
    """Refuse a location that is not in the store; drivers call it before anything else.

    Parameters
    ----------
    or_root : bool
        Whether the store itself is meant too (a prefix to list), not only what lies below it.

    Raises
    ------
    LocationRefused
    """
    if not root.contains(location) or (location == root and not or_root):
        raise LocationRefused(f"{location} does not lie in the store {root}; it is not touched.")


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """What one upload to this store may look like. All in bytes, except `max_parts`."""

    min_part: int
    max_part: int
    max_parts: int


@dataclass(frozen=True, slots=True)
class UploadSession:
    """One upload that has begun. Serialisable, so that another process can go on with it; holds no secret.

    Attributes
    ----------
    location : str
        The object that will appear on commit.
    token : str
        What the driver needs to name the parts of this upload apart from those of any other upload of the same
        object: a random id, a multipart upload id, a temporary name.
    media_type : str
        Stored with the object where the store can.
    part_size : int
        Bytes of every part but the last, so that a part's number says where in the object it lies.
    """

    location: str
    token: str
    media_type: str
    part_size: int

    def to_dict(self) -> dict[str, str | int]:
        """A JSON document from which :meth:`from_dict` makes the same session."""
        return {
            "location": self.location,
            "token": self.token,
            "media_type": self.media_type,
            "part_size": self.part_size,
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, object]) -> UploadSession:
        """The session that :meth:`to_dict` wrote.

        Raises
        ------
        ValueError
            When the document is not one that :meth:`to_dict` writes.
        """
        location, token, media_type, part_size = (
            document.get(key) for key in ("location", "token", "media_type", "part_size")
        )
        if not (isinstance(location, str) and isinstance(token, str) and isinstance(media_type, str)):
            raise ValueError("an upload session has the texts location, token and media_type")
        if not isinstance(part_size, int) or isinstance(part_size, bool) or part_size < 1:
            raise ValueError("the part_size of an upload session is a positive number of bytes")
        return cls(location, token, media_type, part_size)


@dataclass(frozen=True, slots=True)
class Part:
    """One part that the store has acknowledged.

    Attributes
    ----------
    number : int
        1-based position.
    size : int
        Bytes.
    tag : str
        What commit needs to name it: an etag, a block id.
    """

    number: int
    size: int
    tag: str


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a store says of an object.

    Attributes
    ----------
    location : Location
    size : int
        Bytes of the stored form.
    etag : str or None
        None where the credential may not learn it.
    modified : float or None
        By the store's clock, seconds since the epoch.
    """

    location: Location
    size: int
    etag: str | None = None
    modified: float | None = field(default=None, compare=False)


@runtime_checkable
class Store(Protocol):
    """A place for objects, opened from local configuration.

    Every method raises only :class:`~vantage6_largefile.errors.StoreError` and its children for what goes wrong
    between us and the store. Locations given to a store must lie below :attr:`root`; anything else is
    :class:`~vantage6_largefile.errors.LocationRefused` and never reaches the SDK.
    """

    @property
    def root(self) -> Location:
        """The configured store (container or folder, with its prefix)."""

    @property
    def limits(self) -> StoreLimits:
        """Part sizes and counts that this store takes."""

    def check(self) -> None:
        """Show at start-up that the store answers, the container is there and the credential is known.

        Works with every credential, also one that may only write: being refused a *read* is no error here.

        Raises
        ------
        StoreUnavailable, StoreAccessDenied, StoreMisconfigured
        """

    def begin(self, location: Location, *, media_type: str, part_size: int) -> UploadSession:
        """Begin an upload. Nothing is visible under `location` before :meth:`commit`.

        Parameters
        ----------
        part_size : int
            Bytes that every part but the last will have, within :attr:`limits`.
        """

    def put_part(self, session: UploadSession, number: int, data: bytes | memoryview) -> Part:
        """Store one part. Repeating a number replaces that part; parts may come in any order and in parallel.

        `data` is read only while the call lasts: the caller may use the buffer again afterwards.
        """

    def list_parts(self, session: UploadSession) -> Sequence[Part] | None:
        """The parts that the store has, or None where the credential may not ask.

        Raises
        ------
        UploadSessionLost
            When the store knows the upload no longer.
        """

    def commit(self, session: UploadSession, parts: Sequence[Part]) -> ObjectInfo:
        """Make the object appear, whole, from `parts` in the order of their numbers. Never overwrites.

        Atomic: either the whole object is there or nothing is. No parts make an empty object.

        Raises
        ------
        ObjectExists
            When an object of that name is there. It was not touched.
        UploadSessionLost
            When the store knows the upload, or one of its parts, no longer.
        """

    def abort(self, session: UploadSession) -> None:
        """Give the upload up and remove what can be removed. Repeating it is no error."""

    def read(
        self, location: Location, *, offset: int = 0, length: int | None = None, if_match: str | None = None
    ) -> Iterator[bytes]:
        """Stream the bytes from `offset`, in pieces of at most a few MiB or one part.

        The first request is made when the first piece is asked for. A range that goes beyond the object yields
        what there is of it, possibly nothing; a connection that breaks is an error and never a short stream.

        Parameters
        ----------
        offset, length : int
            Bytes; `length` None means to the end.
        if_match : str, optional
            The etag that the object must still have.

        Raises
        ------
        ObjectNotFound
            The object is not there (its container is).
        ObjectChanged
            The object is not the one of `if_match`.
        """

    def stat(self, location: Location) -> ObjectInfo:
        """Size and etag of an object."""

    def delete(self, location: Location) -> None:
        """Remove an object.

        Raises
        ------
        ObjectNotFound
            When it was not there: the caller decides whether that is well.
        """

    def list(self, prefix: Location) -> Iterator[ObjectInfo]:
        """All objects below `prefix` (segment-wise), in no particular order."""

    def close(self) -> None:
        """Close connections. The store is not used afterwards."""
