"""What server, node and client say to each other beside the stock calls: names and shapes, written once.

The calls themselves are in the design, section 6; the server's half is in ``server_ext``, the others' in
``node_ext`` and ``vantage6_largefile.client``.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictInt

from vantage6_largefile.reference import MediaType, ObjectId, Size

#: Version of the calls, as ``capabilities`` tells it.
API_VERSION = 1
#: Header by which an extended node marks its own requests and those it forwards for its containers.
EXTENDED_HEADER = "X-V6LF-Version"
#: Top-level key in POST /task by which our client marks a task as its own.
CLIENT_FLAG = "largefile_client"
#: Keys that an organisation entry of POST /task, a PATCH of a run, or an answer may carry.
INPUT_REFERENCE = "input_reference"
RESULT_REFERENCE = "result_reference"
#: Key in the 409 of POST /task: ids of the organisations whose node cannot read an input by reference.
NOT_EXTENDED = "not_extended"


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Capabilities(BaseModel):
    """Answer of ``GET largefile/capabilities``. Unknown keys are ignored: a newer server may say more."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    version: StrictInt
    server_id: str
    max_inline_result: Size
    central_organizations: tuple[int, ...] = ()


class PlacementRequest(_Shape):
    """Body of ``POST largefile/runs/<id>/placement``."""

    size: Size
    media_type: MediaType


class PlacementAnswer(_Shape):
    """Answer of ``POST largefile/runs/<id>/placement``. `reason` says why, for the run's log."""

    placement: Literal["inline", "reference", "refuse"]
    reason: Annotated[str, Field(max_length=2000)] = ""


class NodeRegistration(_Shape):
    """Body of ``PUT largefile/nodes/me``."""

    version: Annotated[str, Field(min_length=1, max_length=64)]


class BlobConflict(BaseModel):
    """Body of the 409 that ``GET blobstream/<id>`` answers for our objects."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    msg: str
    id: ObjectId
    run_id: StrictInt
    field: Literal["input", "result"]
