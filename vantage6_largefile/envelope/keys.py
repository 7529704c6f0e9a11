"""The RSA keys of vantage6 organisations: loading, checking, fingerprints.

vantage6 writes private keys as PEM in PKCS#1 (``BEGIN RSA PRIVATE KEY``), other tools in PKCS#8; the server hands
out public keys as the base64 of a PEM (``vantage6.common.encryption.RSACryptor``).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from vantage6_largefile.errors import ConfigurationError, EnvelopeKeyError

MIN_KEY_BITS = 2048
#: Above this the wrapped data key would not fit in a reference.
MAX_KEY_BITS = 8192

_FINGERPRINT = re.compile(r"[0-9a-f]{64}\Z")


def load_private_key(pem: bytes) -> RSAPrivateKey:
    """Load an organisation's private key.

    Parameters
    ----------
    pem : bytes
        PEM, PKCS#1 or PKCS#8, without a password (vantage6 knows no passwords on keys).

    Returns
    -------
    RSAPrivateKey

    Raises
    ------
    EnvelopeKeyError
        When it is no RSA private key of 2048 to 8192 bits. The message never holds any part of the key.
    """
    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError:
        raise EnvelopeKeyError(
            "Private key: it is protected by a password.", advice="vantage6 reads keys without a password only."
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        # "from None": the message of the parser may quote what it was given
        raise EnvelopeKeyError(
            "Private key: not a private key in PEM form (PKCS#1 or PKCS#8).",
            advice="Make one with `v6 node create-private-key`.",
        ) from None
    if not isinstance(key, RSAPrivateKey):
        raise EnvelopeKeyError("Private key: not an RSA key.", advice="vantage6 organisations have RSA keys.")
    _check_bits(key.key_size, "Private key")
    return key


def read_private_key(path: Path) -> RSAPrivateKey:
    """Read the private key file that a configuration names.

    Raises
    ------
    ConfigurationError
        When the file cannot be read or :func:`load_private_key` refuses it; the message names the file.
    """
    try:
        return load_private_key(path.read_bytes())
    except OSError as error:
        raise ConfigurationError([f"{path}: cannot be read: {error.strerror}"], source="the private key") from error
    except EnvelopeKeyError as error:
        raise ConfigurationError([f"{path}: {error}"], source="the private key") from error


def load_public_key(text: str) -> RSAPublicKey:
    """Load a recipient's public key as the vantage6 server hands it out.

    Parameters
    ----------
    text : str
        Base64 of a PEM, field ``public_key`` of an organisation. White space is ignored, as stock vantage6 does.

    Returns
    -------
    RSAPublicKey

    Raises
    ------
    EnvelopeKeyError
        When it is empty, no RSA public key, or not of 2048 to 8192 bits.
    """
    encoded = "".join(text.split())
    if not encoded:
        raise EnvelopeKeyError(
            "Public key: the organisation has none.", advice="Its node uploads one when it starts with encryption on."
        )
    try:
        key = load_pem_public_key(base64.b64decode(encoded, validate=True))
    except (binascii.Error, ValueError, UnsupportedAlgorithm):
        raise EnvelopeKeyError("Public key: not the base64 of a public key in PEM form.") from None
    if not isinstance(key, RSAPublicKey):
        raise EnvelopeKeyError("Public key: not an RSA key.", advice="vantage6 organisations have RSA keys.")
    _check_bits(key.key_size, "Public key")
    return key


def fingerprint(public_key: RSAPublicKey) -> str:
    """Sha256, in lower-case hex, of the key's DER SubjectPublicKeyInfo: the same however the key was written."""
    return hashlib.sha256(public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def require_fingerprint(public_key: RSAPublicKey, expected: str, *, owner: str) -> None:
    """Check a public key that came from the server against a pinned fingerprint.

    Parameters
    ----------
    public_key : RSAPublicKey
        As the server handed it out.
    expected : str
        The pinned fingerprint: 64 hex digits.
    owner : str
        Whose key it should be, for the message, such as ``"organisation 7"``.

    Raises
    ------
    EnvelopeKeyError
        When it is another key. Nothing may be sealed for it.
    """
    pinned = expected.strip().lower()
    if not _FINGERPRINT.match(pinned):
        raise EnvelopeKeyError(f"Public key of {owner}: the pinned fingerprint is not 64 hex digits.")
    if not hmac.compare_digest(fingerprint(public_key), pinned):
        raise EnvelopeKeyError(
            f"Public key of {owner}: its fingerprint is {fingerprint(public_key)}, but {pinned} is pinned.",
            advice="Ask that organisation, not the server, which one is right, then change recipient_keys.",
        )


def _check_bits(bits: int, what: str) -> None:
    if not MIN_KEY_BITS <= bits <= MAX_KEY_BITS:
        raise EnvelopeKeyError(
            f"{what}: RSA of {bits} bits.", advice=f"Keys of {MIN_KEY_BITS} to {MAX_KEY_BITS} bits are accepted."
        )
