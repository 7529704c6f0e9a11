"""The data key of one object, wrapped for one recipient: a compact JWE, RSA-OAEP-256 + A256GCM.

The format leaves no choice: the protected header is one text, with exactly ``alg``, ``enc`` and ``kid``. Everything
else that JWE allows (other algorithms, compression, extensions) is refused before any cryptography starts.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from vantage6_largefile.envelope.format import KEY_BYTES
from vantage6_largefile.envelope.keys import MAX_KEY_BITS, fingerprint
from vantage6_largefile.errors import EnvelopeKeyError

KEY_ALGORITHM = "RSA-OAEP-256"
CONTENT_ALGORITHM = "A256GCM"
#: Longest JWE that is looked at; the field of the reference has the same limit.
MAX_JWE_CHARACTERS = 2048

_ASK_WRITER = "Ask the writer to send it again, or look whether the key of this organisation was replaced."


def _registry() -> jwe.JWERegistry:
    registry = jwe.JWERegistry(algorithms=[KEY_ALGORITHM, CONTENT_ALGORITHM])
    # joserfc's own limit would stop at RSA-6144
    registry.max_encrypted_key_length = -(-MAX_KEY_BITS // 6)
    return registry


_REGISTRY = _registry()


def wrap_key(data_key: bytes, public_key: RSAPublicKey) -> str:
    """Wrap a data key so that only the holder of the private key can read it.

    Parameters
    ----------
    data_key : bytes
        Exactly 32 bytes.
    public_key : RSAPublicKey
        The recipient's key, from :func:`~vantage6_largefile.envelope.keys.load_public_key`.

    Returns
    -------
    str
        Compact JWE; 916 characters for RSA-4096. Each call gives another text: store it, do not compare it.

    Raises
    ------
    EnvelopeKeyError
        When the data key does not have 32 bytes.
    """
    if len(data_key) != KEY_BYTES:
        raise EnvelopeKeyError(f"Data key: {len(data_key)} bytes, expected {KEY_BYTES}.")
    header = _protected_header(fingerprint(public_key))
    return jwe.encrypt_compact(dict(header), data_key, RSAKey.import_key(public_key), registry=_REGISTRY)


def unwrap_key(wrapped: str, private_key: RSAPrivateKey) -> bytes:
    """Unwrap the data key of an object.

    Parameters
    ----------
    wrapped : str
        Compact JWE, as in the reference: data of another party.
    private_key : RSAPrivateKey
        This organisation's key.

    Returns
    -------
    bytes
        The data key, 32 bytes.

    Raises
    ------
    EnvelopeKeyError
        When the header is not exactly ``alg``, ``enc`` and ``kid`` with the values of this format, the key was
        wrapped for another recipient, the JWE is damaged, or its content is not 32 bytes.
    """
    if len(wrapped) > MAX_JWE_CHARACTERS or not wrapped.isascii() or wrapped.count(".") != 4:
        raise EnvelopeKeyError("Wrapped data key: not a compact JWE.", advice=_ASK_WRITER)
    _check_header(wrapped.partition(".")[0], mine=fingerprint(private_key.public_key()))
    try:
        content = jwe.decrypt_compact(wrapped, RSAKey.import_key(private_key), registry=_REGISTRY).plaintext
    except (JoseError, ValueError):
        # "from None": nothing of what was decrypted half-way may reach a traceback
        raise EnvelopeKeyError("Wrapped data key: it is damaged.", advice=_ASK_WRITER) from None
    if content is None or len(content) != KEY_BYTES:
        raise EnvelopeKeyError(f"Wrapped data key: its content is not {KEY_BYTES} bytes.", advice=_ASK_WRITER)
    return content


def _protected_header(kid: str) -> dict[str, str]:
    return {"alg": KEY_ALGORITHM, "enc": CONTENT_ALGORITHM, "kid": kid}


def _encoded(header: dict[str, str]) -> str:
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode("ascii")


def _check_header(segment: str, *, mine: str) -> None:
    """Refuse every protected header but the one text that this format allows for this recipient.

    The reader knows that text beforehand, so nothing depends on how a parser sees equal names, numbers or white space.
    What is parsed below serves the message only.
    """
    if hmac.compare_digest(segment.encode(), _encoded(_protected_header(mine)).encode()):
        return
    try:
        padded = segment + "=" * (-len(segment) % 4)
        pairs = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True), object_pairs_hook=list)
    except (binascii.Error, ValueError, RecursionError):
        raise EnvelopeKeyError("Wrapped data key: its header is not JSON.", advice=_ASK_WRITER) from None
    if not isinstance(pairs, list) or not all(isinstance(pair, tuple) for pair in pairs):
        raise EnvelopeKeyError("Wrapped data key: its header is not a JSON object.", advice=_ASK_WRITER)
    names = sorted(str(name)[:40] for name, _ in pairs)
    if names != ["alg", "enc", "kid"]:
        raise EnvelopeKeyError(
            f"Wrapped data key: its header has {', '.join(names[:12]) or 'nothing'}, expected alg, enc, kid only.",
            advice=_ASK_WRITER,
        )
    header = dict(pairs)
    for name, expected in (("alg", KEY_ALGORITHM), ("enc", CONTENT_ALGORITHM)):
        if header[name] != expected:
            raise EnvelopeKeyError(
                f"Wrapped data key: {name} is {str(header[name])[:40]!r}, expected {expected!r}.", advice=_ASK_WRITER
            )
    if header["kid"] != mine:
        raise EnvelopeKeyError(
            f"Wrapped data key: it was wrapped for the key {str(header['kid'])[:64]!r}, not for this organisation's "
            f"{mine}.",
            advice=_ASK_WRITER,
        )
    raise EnvelopeKeyError(
        "Wrapped data key: its header is not compact JSON with alg, enc, kid in this order.", advice=_ASK_WRITER
    )
