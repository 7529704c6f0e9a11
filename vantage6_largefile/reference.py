"""The reference: the small JSON document that the server keeps instead of the bytes (design: section 3).

A reference is data of another party until it was checked against the *reader's own* context: which server,
collaboration, run or initiating organisation it is about. :func:`check_layout` does that comparison.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictInt, StrictStr, ValidationError

from vantage6_largefile.errors import InvalidReference, UnknownReferenceVersion
from vantage6_largefile.location import Location

VERSION = 1
#: Canonical JSON of a reference must stay below this many bytes.
MAX_REFERENCE_BYTES = 4096
#: Sizes are below 2**53 so that every JSON reader sees the same number.
MAX_SIZE = 2**53 - 1

LAYOUT_ROOT = "v6lf"

ENVELOPE_FORMAT = "tink-aes256-gcm-hkdf-1mb"

#: Media types that may travel in a reference. Readers choose a loader by it, so the list is closed.
MEDIA_TYPES: frozenset[str] = frozenset(
    {
        "application/json",
        "application/octet-stream",
        "application/vnd.apache.parquet",
        "application/vnd.apache.arrow.file",
        "application/vnd.safetensors",
        "application/x-numpy",
        "application/x-pytorch",
        "text/plain",
    }
)

_UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\Z")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
# re.ASCII: \d and strptime would both take the digits of any script.
_TIMESTAMP = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z\Z", re.ASCII)
_COMPACT_JWE = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+){4}\Z")
_ETAG = re.compile(r"[\x21-\x7e]{1,200}\Z")


def is_object_id(text: object) -> bool:
    """Whether `text` is an object id: a lower-case uuid4."""
    return isinstance(text, str) and bool(_UUID4.match(text))


def is_server_id(text: object) -> bool:
    """Whether `text` is a server id: a lower-case uuid."""
    return isinstance(text, str) and bool(_UUID.match(text))


def new_object_id() -> str:
    """A fresh object id."""
    return str(uuid.uuid4())


def now_timestamp() -> str:
    """The time now, as references and run records write it: UTC with microseconds and a final ``Z``."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _matching(pattern: re.Pattern[str], expected: str) -> AfterValidator:
    def check(value: str) -> str:
        if not pattern.match(value):
            raise ValueError(f"expected {expected}")
        return value

    return AfterValidator(check)


def _check_location(value: str) -> str:
    try:
        Location.parse(value)
    except InvalidReference as error:
        raise ValueError(str(error)) from error
    return value


def _check_media_type(value: str) -> str:
    if value not in MEDIA_TYPES:
        raise ValueError(f"expected one of {', '.join(sorted(MEDIA_TYPES))}")
    return value


def _check_timestamp(value: str) -> str:
    try:
        datetime.strptime(value, "%Y-%m-%dT%H:%M:%S.%fZ")
    except ValueError as error:
        raise ValueError("expected a time that exists") from error
    return value


Size = Annotated[StrictInt, Field(ge=0, le=MAX_SIZE)]
MediaType = Annotated[StrictStr, AfterValidator(_check_media_type)]
ObjectId = Annotated[StrictStr, _matching(_UUID4, "a lower-case uuid4")]


class Envelope(BaseModel):
    """How the stored form is encrypted, and the data key wrapped for the reader (design: section 4)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["tink-aes256-gcm-hkdf-1mb"]
    key: Annotated[StrictStr, Field(max_length=2048), _matching(_COMPACT_JWE, "a compact JWE")] = Field(repr=False)


class Reference(BaseModel):
    """A reference, version 1. Use :func:`parse_reference` for anything that came from outside.

    Attributes
    ----------
    version : int
        Always 1.
    id : str
        uuid4, lower case, unique over the whole server.
    location : str
        Where the object is; its last segment equals `id`.
    size : int
        Bytes of the plaintext.
    stored_size : int
        Bytes of the stored form.
    sha256 : str
        Lower-case hex digest of the stored form.
    etag : str or None
        The store's tag at commit; None where the credential cannot learn it.
    media_type : str
        One of :data:`MEDIA_TYPES`.
    envelope : Envelope or None
        None for a plain object.
    created_at : str
        UTC with microseconds, ``2026-11-22T19:00:00.000000Z``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Annotated[StrictInt, Field(ge=1, le=1)]
    id: ObjectId
    location: Annotated[StrictStr, AfterValidator(_check_location)]
    size: Size
    stored_size: Size
    sha256: Annotated[StrictStr, _matching(_SHA256, "64 lower-case hex digits")]
    etag: Annotated[StrictStr, _matching(_ETAG, "1 to 200 printable characters")] | None = None
    media_type: MediaType
    envelope: Envelope | None = None
    created_at: Annotated[
        StrictStr,
        _matching(_TIMESTAMP, "UTC as 2026-11-22T19:00:00.000000Z"),
        AfterValidator(_check_timestamp),
    ]

    @property
    def parsed_location(self) -> Location:
        """The location as a tuple of segments."""
        return Location.parse(self.location)

    def canonical_json(self) -> str:
        """JSON with sorted keys and no white space: equal references give equal text."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))

    def without_access(self) -> dict[str, Any]:
        """What a party may see that may know of the object but not where it is or how to open it."""
        return {"version": self.version, "id": self.id, "size": self.size, "media_type": self.media_type}


def parse_reference(document: object) -> Reference:
    """Check a reference that came from another party.

    Parameters
    ----------
    document : object
        The parsed JSON document.

    Returns
    -------
    Reference

    Raises
    ------
    UnknownReferenceVersion
        When ``version`` is not one that this software knows; the message names it.
    InvalidReference
        When anything else breaks the format; the message names every field that does.
    """
    if not isinstance(document, Mapping):
        raise InvalidReference(f"Reference: expected a JSON object, got {type(document).__name__}.")
    version = document.get("version")
    if type(version) is not int or version != VERSION:
        raise UnknownReferenceVersion(
            f"Reference: unknown version {_describe_version(version)}; this software knows version {VERSION}.",
            advice="Upgrade vantage6-largefile on this side.",
        )
    try:
        reference = Reference.model_validate(dict(document))
    except ValidationError as error:
        problems = "; ".join(
            f"{_describe_path(item['loc'])}: {item['msg']}"
            for item in error.errors(include_input=False, include_url=False)[:12]
        )
        raise InvalidReference(f"Reference: {problems}.") from None
    if len(reference.canonical_json().encode()) >= MAX_REFERENCE_BYTES:
        raise InvalidReference(f"Reference {reference.id}: not below {MAX_REFERENCE_BYTES} bytes.")
    if reference.parsed_location.segments[-1:] != (reference.id,):
        raise InvalidReference(f"Reference {reference.id}: the location does not end in the object id.")
    expected = stored_size_of(reference.size, encrypted=reference.envelope is not None)
    if reference.stored_size != expected:
        raise InvalidReference(
            f"Reference {reference.id}: stored_size is {reference.stored_size}, but a plaintext of "
            f"{reference.size} bytes has a stored form of {expected} bytes."
        )
    return reference


def _describe_version(version: object) -> str:
    # str() of a huge int or of deeply nested lists raises; of anything but a short scalar the type says enough.
    if version is None or isinstance(version, bool | float):
        return str(version)
    if isinstance(version, int):
        return str(version) if abs(version) < 10**20 else "a huge number"
    return ascii(version[:40]) if isinstance(version, str) else f"of type {type(version).__name__}"


def _describe_path(loc: tuple[int | str, ...]) -> str:
    # Keys are data of another party too: no line break or control character of theirs gets into a log.
    path = ".".join(str(part) for part in loc)[:80] or "document"
    return path if path.isascii() and path.isprintable() else ascii(path)


# --- sizes of the stored form -----------------------------------------------------------------------------------

# Tink streaming AEAD, AES256_GCM_HKDF_1MB: 1 MiB ciphertext segments with a 16-byte tag each; the first one
# also holds the 40-byte header. https://developers.google.com/tink/streaming-aead/aes_gcm_hkdf_streaming
SEGMENT_BYTES = 1 << 20
HEADER_BYTES = 40
TAG_BYTES = 16


def stored_size_of(size: int, *, encrypted: bool) -> int:
    """Bytes of the stored form of `size` bytes of plaintext.

    Parameters
    ----------
    size : int
        Bytes of plaintext.
    encrypted : bool
        Whether the stored form is the envelope.
    """
    if not encrypted:
        return size
    first = SEGMENT_BYTES - HEADER_BYTES - TAG_BYTES
    rest = max(0, size - first)
    segments = 1 + -(-rest // (SEGMENT_BYTES - TAG_BYTES))
    return size + HEADER_BYTES + segments * TAG_BYTES


# --- layout -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ResultContext:
    """What an object must be when it is the result of a run, as the reader itself knows it."""

    server_id: str
    collaboration_id: int
    run_id: int

    def segments(self, object_id: str) -> tuple[str, ...]:
        """The last segments that the object's location must have."""
        return (LAYOUT_ROOT, self.server_id, f"c{self.collaboration_id}", "results", f"run-{self.run_id}", object_id)

    def associated_data(self, object_id: str) -> bytes:
        """The associated data that binds an envelope to this place (design: section 4)."""
        return f"v6lf/1|result|{self.run_id}|{object_id}".encode("ascii")


@dataclass(frozen=True, slots=True)
class InputContext:
    """What an object must be when it is the input of a task, as the reader itself knows it."""

    server_id: str
    collaboration_id: int
    initiating_organization_id: int

    def segments(self, object_id: str) -> tuple[str, ...]:
        """The last segments that the object's location must have."""
        return (
            LAYOUT_ROOT,
            self.server_id,
            f"c{self.collaboration_id}",
            "inputs",
            f"o{self.initiating_organization_id}",
            object_id,
        )

    def associated_data(self, object_id: str) -> bytes:
        """The associated data that binds an envelope to this place (design: section 4)."""
        return f"v6lf/1|input|{self.collaboration_id}|{self.initiating_organization_id}|{object_id}".encode("ascii")


ObjectContext = ResultContext | InputContext


def object_location(root: Location, context: ObjectContext, object_id: str) -> Location:
    """Where an object of `context` lies in the store `root` (which includes the configured prefix)."""
    return root.child(*context.segments(object_id))


def check_layout(reference: Reference, context: ObjectContext) -> Location:
    """Check that a reference is about exactly the object that the reader asked for.

    Parameters
    ----------
    reference : Reference
        As the server gave it.
    context : ResultContext or InputContext
        As the reader itself knows it, never taken from the reference.

    Returns
    -------
    Location
        The part of the location before the layout: store and prefix.

    Raises
    ------
    InvalidReference
        When any component of the layout differs: other server, collaboration, run, organisation or id.
    """
    location = reference.parsed_location
    expected = context.segments(reference.id)
    if location.segments[-len(expected) :] != expected:
        raise InvalidReference(
            f"Reference {reference.id}: the location {location} does not end in {'/'.join(expected)}; "
            "it belongs to another server, collaboration, run or organisation."
        )
    return Location(location.driver, location.authority, location.segments[: -len(expected)])
