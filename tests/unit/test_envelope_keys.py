"""Organisation keys, and the data key wrapped for one of them."""

import base64
import functools
import hashlib
import json
import os
import textwrap
import zlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from vantage6.common import bytes_to_base64s
from vantage6.common.encryption import RSACryptor

from vantage6_largefile.envelope import (
    fingerprint,
    load_private_key,
    load_public_key,
    new_sealer,
    opener,
    read_private_key,
    require_fingerprint,
    unwrap_key,
    wrap_key,
)
from vantage6_largefile.errors import ConfigurationError, EnvelopeKeyError
from vantage6_largefile.reference import ENVELOPE_FORMAT, MAX_REFERENCE_BYTES, Envelope, Reference, parse_reference

OAEP_256 = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
OAEP_1 = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)
PRIVATE = rsa.generate_private_key(65537, 2048)
PUBLIC = PRIVATE.public_key()
OTHER = rsa.generate_private_key(65537, 2048)
DATA_KEY = bytes(range(32))


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, form: PrivateFormat) -> bytes:
    return key.private_bytes(Encoding.PEM, form, NoEncryption())


def public_text(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    data = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(data).decode()


@functools.cache
def key_of_bits(bits: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


# --- keys -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vantage6_key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("key") / "privkey_org.pem"
    RSACryptor.create_new_rsa_key(path)
    return path


def test_a_key_that_vantage6_made_opens_what_was_sealed_for_the_key_that_it_publishes(vantage6_key_file: Path) -> None:
    assert vantage6_key_file.read_bytes().startswith(b"-----BEGIN RSA PRIVATE KEY")
    private_key = read_private_key(vantage6_key_file)
    published = bytes_to_base64s(RSACryptor.create_public_key_bytes(private_key))
    sealer = new_sealer(b"place")

    stored = b"".join(sealer.seal([b"data"]))
    envelope = sealer.wrapped_for(load_public_key(published))

    assert b"".join(opener(envelope, private_key, b"place").open_stream([stored], size=4)) == b"data"


def test_the_reference_of_a_4096_bit_key_stays_small(vantage6_key_file: Path) -> None:
    private_key = read_private_key(vantage6_key_file)
    assert private_key.key_size == 4096
    wrapped = wrap_key(DATA_KEY, private_key.public_key())
    identifier = "0b6e2a1c-4b5f-4c1e-9d3a-2f1e0c9b8a76"

    reference = Reference(
        version=1,
        id=identifier,
        location=f"azure://account/{'x' * 1000}/{identifier}",
        size=4,
        stored_size=60,
        sha256="0" * 64,
        etag="e" * 200,
        media_type="application/octet-stream",
        envelope=Envelope(format=ENVELOPE_FORMAT, key=wrapped),
        created_at="2026-11-22T19:00:00.000000Z",
    )

    assert len(wrapped) < 1400
    assert len(reference.canonical_json()) < MAX_REFERENCE_BYTES
    assert parse_reference(json.loads(reference.canonical_json())) == reference


def test_both_private_key_forms_are_the_same_key() -> None:
    loaded = [load_private_key(pem(PRIVATE, form)) for form in (PrivateFormat.TraditionalOpenSSL, PrivateFormat.PKCS8)]

    assert {fingerprint(key.public_key()) for key in loaded} == {fingerprint(PUBLIC)}
    assert [unwrap_key(wrap_key(DATA_KEY, PUBLIC), key) for key in loaded] == [DATA_KEY, DATA_KEY]


def test_the_fingerprint_is_the_digest_of_the_der_public_key() -> None:
    der = PUBLIC.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    assert fingerprint(PUBLIC) == hashlib.sha256(der).hexdigest()
    assert fingerprint(load_public_key(public_text(PRIVATE))) == fingerprint(PUBLIC)


def test_white_space_in_a_published_key_is_ignored() -> None:
    wrapped = "\r\n".join(textwrap.wrap(public_text(PRIVATE), 64)) + "\n"

    assert fingerprint(load_public_key(wrapped)) == fingerprint(PUBLIC)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "PEM form"),
        (b"not a key", "PEM form"),
        (PUBLIC.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), "PEM form"),
        (pem(ec.generate_private_key(ec.SECP256R1()), PrivateFormat.PKCS8), "not an RSA key"),
        (pem(key_of_bits(1024), PrivateFormat.PKCS8), "1024 bits"),
        (pem(key_of_bits(2040), PrivateFormat.TraditionalOpenSSL), "2040 bits"),
        (PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")), "password"),
    ],
    ids=["empty", "no PEM", "public", "elliptic", "1024", "2040", "password"],
)
def test_a_private_key_that_will_not_do_is_refused(data: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(EnvelopeKeyError, match=message):
        load_private_key(data)

    path = tmp_path / "key.pem"
    path.write_bytes(data)
    with pytest.raises(ConfigurationError, match=message) as caught:
        read_private_key(path)
    assert str(path) in str(caught.value)


def test_a_private_key_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.pem: cannot be read"):
        read_private_key(tmp_path / "nowhere.pem")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has none"),
        (" \n", "has none"),
        ("not base64!", "not the base64"),
        ("!" + public_text(PRIVATE), "not the base64"),
        ("é", "not the base64"),
        (base64.b64encode(b"not a key").decode(), "not the base64"),
        (base64.b64encode(pem(PRIVATE, PrivateFormat.PKCS8)).decode(), "not the base64"),
        (public_text(ec.generate_private_key(ec.SECP256R1())), "not an RSA key"),
        (public_text(key_of_bits(1024)), "1024 bits"),
    ],
    ids=["empty", "blank", "no base64", "more than base64", "no ASCII", "no PEM", "private", "elliptic", "1024"],
)
def test_a_public_key_that_will_not_do_is_refused(text: str, message: str) -> None:
    with pytest.raises(EnvelopeKeyError, match=message):
        load_public_key(text)


def test_a_pinned_fingerprint_is_held_against_the_key_of_the_server() -> None:
    require_fingerprint(PUBLIC, fingerprint(PUBLIC), owner="organisation 7")
    require_fingerprint(PUBLIC, f" {fingerprint(PUBLIC).upper()} ", owner="organisation 7")

    with pytest.raises(EnvelopeKeyError, match="organisation 7"):
        require_fingerprint(PUBLIC, fingerprint(OTHER.public_key()), owner="organisation 7")
    with pytest.raises(EnvelopeKeyError, match="64 hex digits"):
        require_fingerprint(PUBLIC, fingerprint(PUBLIC)[:-1], owner="organisation 7")


def test_no_message_holds_a_part_of_a_private_key() -> None:
    text = pem(PRIVATE, PrivateFormat.PKCS8).decode()
    damaged = text.replace(text[200:210], "!!!!!!!!!!")

    with pytest.raises(EnvelopeKeyError) as caught:
        load_private_key(damaged.encode())

    assert not any(line in str(caught.value) for line in text.splitlines()[1:-1])
    assert caught.value.__suppress_context__


# --- the wrapped data key -------------------------------------------------------------------------------------------


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def header_json(**changes: object) -> bytes:
    """The header of this format for PRIVATE, with changes; None leaves a field out."""
    header = {"alg": "RSA-OAEP-256", "enc": "A256GCM", "kid": fingerprint(PUBLIC), **changes}
    fields = {name: value for name, value in header.items() if value is not None}
    return json.dumps(fields, separators=(",", ":")).encode()


def jwe_by_hand(
    header: bytes,
    content: bytes = DATA_KEY,
    *,
    recipient: rsa.RSAPublicKey = PUBLIC,
    pad: padding.AsymmetricPadding = OAEP_256,
    key_bytes: int = 32,
) -> str:
    """A compact JWE as RFC 7516 has it, made without the library under test."""
    content_key, nonce, protected = os.urandom(key_bytes), os.urandom(12), b64(header)
    sealed = AESGCM(content_key).encrypt(nonce, content, protected.encode())
    return ".".join(
        [protected, b64(recipient.encrypt(content_key, pad)), b64(nonce), b64(sealed[:-16]), b64(sealed[-16:])]
    )


def test_a_jwe_made_by_hand_is_unwrapped() -> None:
    assert unwrap_key(jwe_by_hand(header_json()), PRIVATE) == DATA_KEY


def test_what_we_wrap_is_read_by_hand() -> None:
    protected, encrypted_key, nonce, content, tag = wrap_key(DATA_KEY, PUBLIC).split(".")

    content_key = PRIVATE.decrypt(unb64(encrypted_key), OAEP_256)

    assert json.loads(unb64(protected)) == {"alg": "RSA-OAEP-256", "enc": "A256GCM", "kid": fingerprint(PUBLIC)}
    assert len(content_key) == 32
    assert AESGCM(content_key).decrypt(unb64(nonce), unb64(content) + unb64(tag), protected.encode()) == DATA_KEY


def test_wrapping_twice_gives_two_texts() -> None:
    assert wrap_key(DATA_KEY, PUBLIC) != wrap_key(DATA_KEY, PUBLIC)


def test_a_key_of_more_than_6144_bits_is_served() -> None:
    large = rsa.generate_private_key(65537, 6400)

    assert unwrap_key(wrap_key(DATA_KEY, large.public_key()), large) == DATA_KEY


@pytest.mark.parametrize("length", [0, 16, 31, 33, 64])
def test_only_32_bytes_are_wrapped_or_unwrapped(length: int) -> None:
    with pytest.raises(EnvelopeKeyError, match=f"{length} bytes, expected 32"):
        wrap_key(bytes(length), PUBLIC)
    with pytest.raises(EnvelopeKeyError, match="content is not 32 bytes"):
        unwrap_key(jwe_by_hand(header_json(), bytes(length)), PRIVATE)


def test_the_key_of_another_recipient_is_refused() -> None:
    with pytest.raises(EnvelopeKeyError, match="not for this organisation"):
        unwrap_key(wrap_key(DATA_KEY, OTHER.public_key()), PRIVATE)


def test_a_jwe_for_another_recipient_that_claims_to_be_mine_is_refused() -> None:
    with pytest.raises(EnvelopeKeyError, match="damaged"):
        unwrap_key(jwe_by_hand(header_json(), recipient=OTHER.public_key()), PRIVATE)


def deflated(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


REFUSED_HEADERS = {
    "zip": (header_json(zip="DEF"), "zip"),
    "crit": (header_json(crit=["kid"]), "crit"),
    "crit, empty": (header_json(crit=[]), "crit"),
    "b64": (header_json(b64=True), "b64"),
    "extra": (header_json(typ="JWT"), "typ"),
    "jwk": (header_json(jwk={"kty": "oct"}), "jwk"),
    "x5u": (header_json(x5u="https://example.org"), "x5u"),
    "apu, unknown to RSA": (header_json(apu="AA"), "apu"),
    "p2c": (header_json(p2c=10**9), "p2c"),
    "without kid": (header_json(kid=None), "alg, enc,"),
    "without alg": (header_json(alg=None), "expected alg, enc, kid"),
    "without enc": (header_json(enc=None), "expected alg, enc, kid"),
    "empty": (b"{}", "nothing"),
    "kid of another": (header_json(kid=fingerprint(OTHER.public_key())), "not for this organisation"),
    "kid cut": (header_json(kid=fingerprint(PUBLIC)[:-1]), "not for this organisation"),
    "kid in capitals": (header_json(kid=fingerprint(PUBLIC).upper()), "not for this organisation"),
    "kid not ASCII": (header_json(kid="é"), "not for this organisation"),
    "kid a number": (header_json(kid=7), "not for this organisation"),
    "kid a list": (header_json(kid=[fingerprint(PUBLIC)]), "not for this organisation"),
    "alg none": (header_json(alg="none"), "alg is 'none'"),
    "alg RSA1_5": (header_json(alg="RSA1_5"), "alg is 'RSA1_5'"),
    "alg RSA-OAEP": (header_json(alg="RSA-OAEP"), "alg is 'RSA-OAEP'"),
    "alg dir": (header_json(alg="dir"), "alg is 'dir'"),
    "alg A256KW": (header_json(alg="A256KW"), "alg is 'A256KW'"),
    "alg in small letters": (header_json(alg="rsa-oaep-256"), "alg is"),
    "alg a list": (header_json(alg=["RSA-OAEP-256"]), "alg is"),
    "enc A128GCM": (header_json(enc="A128GCM"), "enc is 'A128GCM'"),
    "enc CBC": (header_json(enc="A256CBC-HS512"), "enc is"),
    "alg twice": (header_json()[:-1] + b',"alg":"RSA-OAEP-256"}', "alg, alg"),
    "kid twice": (b'{"kid":"x",' + header_json()[1:], "kid, kid"),
    "a list": (b"[]", "not a JSON object|nothing"),
    "a list of pairs": (b'[["alg", "RSA-OAEP-256"], ["enc", "A256GCM"], ["kid", "x"]]', "not a JSON object"),
    "a number": (b"7", "not a JSON object"),
    "a text": (b'"alg"', "not a JSON object"),
    "no JSON": (b"{", "not JSON"),
    "no UTF-8": (b"\xff\xfe", "not JSON"),
    "deep": (b"[" * 1200, "not JSON"),
}


@pytest.mark.parametrize(("header", "message"), REFUSED_HEADERS.values(), ids=REFUSED_HEADERS.keys())
def test_every_other_header_is_refused(header: bytes, message: str) -> None:
    pad = {b"RSA1_5": padding.PKCS1v15(), b'"RSA-OAEP"': OAEP_1}
    chosen = next((value for mark, value in pad.items() if mark in header), OAEP_256)
    content = deflated(DATA_KEY) if b"zip" in header else DATA_KEY
    wrapped = jwe_by_hand(header, content, pad=chosen, key_bytes=16 if b"A128GCM" in header else 32)

    with pytest.raises(EnvelopeKeyError, match=message):
        unwrap_key(wrapped, PRIVATE)


@pytest.mark.parametrize("alg", ["none", "dir"])
def test_a_jwe_without_an_encrypted_key_is_refused(alg: str) -> None:
    protected, _, nonce, content, tag = jwe_by_hand(header_json(alg=alg)).split(".")
    for named in (protected, b64(header_json())):
        with pytest.raises(EnvelopeKeyError):
            unwrap_key(f"{named}..{nonce}.{content}.{tag}", PRIVATE)


@pytest.mark.parametrize("pad", [padding.PKCS1v15(), OAEP_1], ids=["PKCS1v15", "OAEP SHA-1"])
def test_a_header_that_lies_about_the_padding_is_refused(pad: padding.AsymmetricPadding) -> None:
    with pytest.raises(EnvelopeKeyError, match="damaged"):
        unwrap_key(jwe_by_hand(header_json(), pad=pad), PRIVATE)


@pytest.mark.parametrize("part", range(5))
def test_a_flipped_bit_in_any_part_is_refused(part: int) -> None:
    whole = wrap_key(DATA_KEY, PUBLIC).split(".")
    raw = unb64(whole[part])
    for position in sorted({0, len(raw) // 2, len(raw) - 1}):
        changed = bytearray(raw)
        changed[position] ^= 1
        parts = [*whole[:part], b64(bytes(changed)), *whole[part + 1 :]]
        with pytest.raises(EnvelopeKeyError):
            unwrap_key(".".join(parts), PRIVATE)


@pytest.mark.parametrize("part", range(5))
@pytest.mark.parametrize("change", ["empty", "shorter", "longer", "no base64"])
def test_a_part_of_another_length_is_refused(part: int, change: str) -> None:
    whole = wrap_key(DATA_KEY, PUBLIC).split(".")
    raw = unb64(whole[part])
    new = {"empty": "", "shorter": b64(raw[:-3]), "longer": b64(raw + b"\0\0\0"), "no base64": "!" + whole[part][1:]}

    with pytest.raises(EnvelopeKeyError):
        unwrap_key(".".join([*whole[:part], new[change], *whole[part + 1 :]]), PRIVATE)


@pytest.mark.parametrize("style", ["spaced", "reordered", "escaped"])
def test_the_same_header_written_otherwise_is_refused(style: str) -> None:
    compact = header_json()
    fields = json.loads(compact)
    written = {
        "spaced": json.dumps(fields, indent=2).encode(),
        "reordered": json.dumps(dict(reversed(fields.items())), separators=(",", ":")).encode(),
        "escaped": compact.replace(b'"alg"', b'"\\u0061lg"'),
    }[style]
    assert json.loads(written) == fields

    with pytest.raises(EnvelopeKeyError, match="compact JSON"):
        unwrap_key(jwe_by_hand(written), PRIVATE)


@pytest.mark.parametrize(
    "text",
    ["", "....", "a.b.c.d", "a.b.c.d.e.f", "x" * 3000, ".".join("é" * 5), "\ud800....", json.dumps({"protected": "x"})],
)
def test_what_is_no_compact_jwe_is_refused(text: str) -> None:
    with pytest.raises(EnvelopeKeyError):
        unwrap_key(text, PRIVATE)


def test_a_jwe_that_would_not_fit_in_a_reference_is_not_looked_at() -> None:
    with pytest.raises(EnvelopeKeyError, match="not a compact JWE"):
        unwrap_key(jwe_by_hand(header_json(), bytes(2000)), PRIVATE)


def test_messages_hold_neither_the_jwe_nor_the_data_key() -> None:
    wrapped = jwe_by_hand(header_json(), bytes(range(31)))

    with pytest.raises(EnvelopeKeyError) as caught:
        unwrap_key(wrapped, PRIVATE)

    assert wrapped[-40:] not in str(caught.value)
    assert bytes(range(31)).hex() not in str(caught.value)
