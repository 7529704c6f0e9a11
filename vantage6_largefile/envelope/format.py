"""The wire format of an envelope: sizes, header, and how one segment is sealed and opened.

Tink streaming AEAD, AES256_GCM_HKDF_1MB (https://developers.google.com/tink/streaming-aead/aes_gcm_hkdf_streaming):
a header (length byte, salt, nonce prefix), then segments of 1 MiB of ciphertext with a 16-byte tag each, the first
one shorter by the header. Each segment's nonce holds its number and whether it is the last, so that none can be
dropped, repeated or moved. docs/envelope-format.md is the specification.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from vantage6_largefile.errors import EnvelopeError
from vantage6_largefile.reference import HEADER_BYTES, SEGMENT_BYTES, TAG_BYTES, stored_size_of

KEY_BYTES = 32
SALT_BYTES = 32
PREFIX_BYTES = 7
#: Plaintext bytes of the first full segment, and of every other full one.
FIRST_PLAINTEXT_BYTES = SEGMENT_BYTES - HEADER_BYTES - TAG_BYTES
PLAINTEXT_BYTES = SEGMENT_BYTES - TAG_BYTES
#: The segment number has 32 bits in the nonce.
MAX_SEGMENTS = 2**32

Buffer = bytes | bytearray | memoryview

DO_NOT_USE = "Do not use the bytes. Fetch the object again; if it stays so, ask the writer to send it again."


def object_name(associated_data: bytes) -> str:
    """How messages name the object: its associated data, which holds the object id and no secret."""
    return f"Object {associated_data[:120].decode('ascii', 'backslashreplace')}"


def plaintext_size_of(stored_size: int) -> int:
    """Bytes of plaintext in an envelope of `stored_size` bytes; the inverse of ``stored_size_of``.

    Raises
    ------
    EnvelopeError
        When no envelope has that size.
    """
    segments = -(-stored_size // SEGMENT_BYTES)
    size = stored_size - HEADER_BYTES - segments * TAG_BYTES
    if size < 0 or stored_size_of(size, encrypted=True) != stored_size:
        raise EnvelopeError(f"No envelope has a stored form of {stored_size} bytes.", advice=DO_NOT_USE)
    return size


@dataclass(frozen=True, slots=True)
class SegmentPlan:
    """Which bytes of the stored form hold which bytes of the plaintext.

    Segments lie at multiples of 1 MiB of the stored form, the header counted to the first one: a part that
    starts and ends at such multiples holds whole segments.

    Parameters
    ----------
    size : int
        Bytes of the plaintext.

    Raises
    ------
    EnvelopeError
        When the format cannot hold that many bytes (4 PiB) or the size is negative.
    """

    size: int

    def __post_init__(self) -> None:
        if self.size < 0 or self.count > MAX_SEGMENTS:
            raise EnvelopeError(f"No envelope can hold {self.size} bytes.")

    @property
    def stored_size(self) -> int:
        """Bytes of the stored form."""
        return stored_size_of(self.size, encrypted=True)

    @property
    def count(self) -> int:
        """How many segments there are; at least one."""
        return -(-self.stored_size // SEGMENT_BYTES)

    def stored_range(self, index: int) -> tuple[int, int]:
        """Offset and length of segment `index` in the stored form; the first one includes the header."""
        self._check(index)
        offset = index * SEGMENT_BYTES
        return offset, min(SEGMENT_BYTES, self.stored_size - offset)

    def plaintext_range(self, index: int) -> tuple[int, int]:
        """Offset and length of the plaintext of segment `index`."""
        self._check(index)
        offset = max(0, index * PLAINTEXT_BYTES - HEADER_BYTES)
        end = min(self.size, (index + 1) * PLAINTEXT_BYTES - HEADER_BYTES)
        return offset, end - offset

    def index_of(self, position: int) -> int:
        """The segment that holds the plaintext byte at `position`."""
        if not 0 <= position < self.size:
            raise IndexError(f"byte {position} of a plaintext of {self.size} bytes")
        return (position + HEADER_BYTES) // PLAINTEXT_BYTES

    def _check(self, index: int) -> None:
        if not 0 <= index < self.count:
            raise IndexError(f"segment {index} of {self.count}")


def make_header(salt: bytes, prefix: bytes) -> bytes:
    """The 40 bytes before the first segment."""
    return bytes([HEADER_BYTES]) + salt + prefix


class SegmentCipher:
    """Seals and opens single segments under one data key, salt and nonce prefix; safe to share between threads.

    The caller answers for sealing each segment number once only: two plaintexts under one nonce break GCM. Use
    :class:`~vantage6_largefile.envelope.seal.Sealer`, which makes sure of it.

    Parameters
    ----------
    key : bytes
        The data key, 32 bytes.
    associated_data : bytes
        From the caller's own context.
    header : bytes
        The 40 bytes before the first segment.

    Raises
    ------
    EnvelopeError
        When the header is not one of this format.
    """

    def __init__(self, key: bytes, associated_data: bytes, header: bytes) -> None:
        self._name = object_name(associated_data)
        if len(header) != HEADER_BYTES or header[0] != HEADER_BYTES:
            raise EnvelopeError(f"{self._name}: it does not begin with the header of an envelope.", advice=DO_NOT_USE)
        if len(key) != KEY_BYTES:
            raise EnvelopeError(f"{self._name}: the data key has {len(key)} bytes, expected {KEY_BYTES}.")
        salt, self._prefix = header[1 : 1 + SALT_BYTES], header[1 + SALT_BYTES :]
        self._aead = AESGCM(HKDF(SHA256(), KEY_BYTES, salt, associated_data).derive(key))

    def seal(self, index: int, plaintext: Buffer, *, last: bool) -> bytes:
        """Ciphertext and tag of segment `index`."""
        return self._aead.encrypt(self._nonce(index, last), plaintext, None)

    def open(self, index: int, ciphertext: Buffer, *, last: bool) -> bytes:
        """The plaintext of segment `index`.

        Raises
        ------
        EnvelopeError
            When the tag does not fit: damaged, another segment, another object, another key.
        """
        try:
            return self._aead.decrypt(self._nonce(index, last), ciphertext, None)
        except InvalidTag:
            raise EnvelopeError(
                f"{self._name}: segment {index} does not verify: it is damaged, or was sealed as another segment, for "
                "another place or with another key.",
                advice=DO_NOT_USE,
            ) from None

    def _nonce(self, index: int, last: bool) -> bytes:
        if not 0 <= index < MAX_SEGMENTS:
            raise EnvelopeError(f"{self._name}: an envelope holds no segment {index}.")
        return self._prefix + index.to_bytes(4, "big") + (b"\x01" if last else b"\x00")


def cut(chunks: Iterable[Buffer], first: int, rest: int) -> Iterator[tuple[memoryview, bool]]:
    """Cut a stream of chunks of any size into pieces of fixed size, and tell the last one apart.

    A piece is held back until a further byte, or the end, was seen. Nothing is copied where a piece lies whole in a
    chunk; else it is put together in one buffer of `max(first, rest)` bytes.

    Parameters
    ----------
    chunks : iterable of bytes-like
        Chunks may be reused by their source once the next one is asked for.
    first, rest : int
        Bytes of the first piece, and of all others.

    Yields
    ------
    tuple of memoryview and bool
        The piece, valid until the next step only, and whether it is the last. All pieces but the last are full. No
        bytes at all give one empty last piece; there is no other empty piece.
    """
    window = memoryview(bytearray(max(first, rest)))
    capacity, filled = first, 0
    whole: memoryview | None = None
    for chunk in chunks:
        view = memoryview(chunk).cast("B")
        position = 0
        while position < len(view):
            if whole is not None:
                yield whole, False
                whole, capacity = None, rest
            elif filled == capacity:
                yield window[:filled], False
                capacity, filled = rest, 0
            piece = view[position : position + capacity - filled]
            position += len(piece)
            # A piece at the end of its chunk is held back while the source makes the next chunk. Only `bytes` are
            # sure to stay as they are meanwhile.
            stays = position < len(view) or isinstance(view.obj, bytes)
            if len(piece) == capacity and stays:
                whole = piece
            else:
                window[filled : filled + len(piece)] = piece
                filled += len(piece)
    if whole is not None:
        yield whole, True
    else:
        yield window[:filled], True
