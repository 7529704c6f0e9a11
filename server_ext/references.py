"""The checks that a reference passes before the server keeps it."""

from __future__ import annotations

from http import HTTPStatus

from server_ext.calls import Refused
from server_ext.settings import Settings
from vantage6_largefile.errors import InvalidReference
from vantage6_largefile.reference import ObjectContext, Reference, check_layout

#: A stock encrypted value is three base64 parts: an RSA-wrapped key (at most 512 bytes), a nonce, the ciphertext.
#: A plaintext that just fits the limit must not fail on what the encryption adds.
INLINE_OVERHEAD = 4096


def check_place(
    reference: Reference, context: ObjectContext, *, organization_id: int, encrypted: bool, settings: Settings
) -> None:
    """Check that a reference is about the right object, in a place where its writer may have objects.

    Parameters
    ----------
    reference : Reference
        As a node or client sent it, with its format checked.
    context : ObjectContext
        What the object must be, as the server knows it.
    organization_id : int
        The organisation that wrote it.
    encrypted : bool
        Whether the collaboration is encrypted.

    Raises
    ------
    Refused
        400 for another object's layout or an envelope that does not fit the collaboration, 403 for a location that
        the configuration does not give to this organisation.
    """
    try:
        store = check_layout(reference, context)
    except InvalidReference as error:
        raise Refused(HTTPStatus.BAD_REQUEST, str(error)) from None
    if not settings.config.is_allowed(organization_id, store):
        raise Refused(
            HTTPStatus.FORBIDDEN,
            f"Reference {reference.id}: {store} is not among the locations of organization id={organization_id} "
            "in the server's configuration (largefile.locations).",
        )
    if encrypted and reference.envelope is None:
        raise Refused(
            HTTPStatus.BAD_REQUEST, f"Reference {reference.id}: the collaboration is encrypted, the object is not."
        )
    if not encrypted and reference.envelope is not None:
        raise Refused(
            HTTPStatus.BAD_REQUEST, f"Reference {reference.id}: the collaboration is not encrypted, the object is."
        )


def check_inline_size(value: object, settings: Settings, *, what: str, setting_advice: str) -> None:
    """Check that an inline value is not larger than the server takes.

    The size is estimated from the base64 text, ``len * 3 / 4``, with :data:`INLINE_OVERHEAD` bytes to spare.

    Raises
    ------
    Refused
        413 naming the setting.
    """
    if not isinstance(value, str):
        return
    limit = settings.config.max_inline_result
    size = len(value) * 3 // 4
    if size > limit + INLINE_OVERHEAD:
        raise Refused(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"{what} has about {size} bytes; this server takes at most {limit} bytes inline "
            f"(largefile.max_inline_result). {setting_advice}",
        )
