"""Sealing: one plaintext to one stored form, once (design: section 4)."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import BinaryIO

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from vantage6_largefile.envelope.format import (
    FIRST_PLAINTEXT_BYTES,
    KEY_BYTES,
    PLAINTEXT_BYTES,
    PREFIX_BYTES,
    SALT_BYTES,
    Buffer,
    SegmentCipher,
    cut,
    make_header,
    object_name,
)
from vantage6_largefile.envelope.wrap import wrap_key
from vantage6_largefile.errors import IntegrityError
from vantage6_largefile.reference import ENVELOPE_FORMAT, Envelope, stored_size_of


class Sealer:
    """Seals one plaintext once, with a data key, salt and nonce prefix of its own.

    What must be sent again, in a retry or after a restart, is the ciphertext that this gave: keep it. A second
    plaintext, or the same one after its source changed, under the same key and nonces would break GCM; so the second
    :meth:`seal` raises, also when the first one was cut short. Then make a new sealer and start from nothing.

    Parameters
    ----------
    associated_data : bytes
        What binds the object to its place: ``ResultContext.associated_data`` or ``InputContext.associated_data``.
    """

    def __init__(self, associated_data: bytes) -> None:
        key = secrets.token_bytes(KEY_BYTES)
        self._name = object_name(associated_data)
        self._header = make_header(secrets.token_bytes(SALT_BYTES), secrets.token_bytes(PREFIX_BYTES))
        self._cipher: SegmentCipher | None = SegmentCipher(key, associated_data, self._header)
        self._key: bytes | None = key
        # taken once and never released: of two threads, one gets it. It also keeps a sealer from being pickled.
        self._once = threading.Lock()
        self._size: int | None = None

    def __repr__(self) -> str:
        return f"<Sealer for {self._name}>"

    def __enter__(self) -> Sealer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.forget()

    @property
    def size(self) -> int:
        """Bytes of plaintext that were sealed.

        Raises
        ------
        RuntimeError
            Before the last segment was taken: the stored form is not complete.
        """
        if self._size is None:
            raise RuntimeError(f"{self._name}: sealing has not finished.")
        return self._size

    @property
    def stored_size(self) -> int:
        """Bytes of the stored form. Raises like :attr:`size`."""
        return stored_size_of(self.size, encrypted=True)

    def seal(self, chunks: Iterable[Buffer], *, size: int | None = None) -> Iterator[bytes]:
        """Seal a plaintext. May be called once.

        Uses about 2 MiB whatever the size, and the CPU time of AES-GCM: chunks of ``bytes`` that are much larger
        than 1 MiB, or that fall together with segments (:func:`segment_chunks`), are sealed without a copy.

        Parameters
        ----------
        chunks : iterable of bytes-like
            The plaintext in chunks of any size.
        size : int, optional
            How many bytes the source should give. When it gives another number it changed while it was read.

        Returns
        -------
        iterator of bytes
            The stored form, segment by segment: pieces of exactly 1 MiB, the last one shorter or equal.

        Raises
        ------
        RuntimeError
            At once, when this sealer was used before or its key was forgotten.
        IntegrityError
            While iterating, when the source does not give `size` bytes; the last segment is then not given, so what was
            given so far can never be taken for a whole object.
        """
        if not self._once.acquire(blocking=False):
            raise RuntimeError(f"{self._name}: a sealer seals one plaintext once. Make a new one.")
        cipher, self._cipher = self._cipher, None
        if cipher is None:
            raise RuntimeError(f"{self._name}: the data key was forgotten. Make a new sealer.")
        return self._seal(cipher, chunks, size)

    def _seal(self, cipher: SegmentCipher, chunks: Iterable[Buffer], expected: int | None) -> Iterator[bytes]:
        total = 0
        for index, (plaintext, last) in enumerate(cut(chunks, FIRST_PLAINTEXT_BYTES, PLAINTEXT_BYTES)):
            total += len(plaintext)
            if expected is not None and (total > expected or (last and total < expected)):
                raise IntegrityError(
                    f"{self._name}: the plaintext should have {expected} bytes, but "
                    f"{'ended after' if total < expected else 'has at least'} {total}; it changed while it was read.",
                    advice="Start again with a new sealer once nobody writes to the source.",
                )
            segment = cipher.seal(index, plaintext, last=last)
            if last:
                self._size = total
            yield self._header + segment if index == 0 else segment

    def wrapped_for(self, public_key: RSAPublicKey) -> Envelope:
        """The envelope with the data key wrapped for one recipient. May be called for any number of recipients.

        Parameters
        ----------
        public_key : RSAPublicKey
            Of the organisation that will read the object.

        Raises
        ------
        RuntimeError
            After :meth:`forget`.
        """
        if self._key is None:
            raise RuntimeError(f"{self._name}: the data key was forgotten; it cannot be wrapped any more.")
        return Envelope(format=ENVELOPE_FORMAT, key=wrap_key(self._key, public_key))

    def forget(self) -> None:
        """Drop the data key. Sealing that has begun goes on to its end; nobody can be added as a recipient."""
        self._key = None
        self._cipher = None


def segment_chunks(file: BinaryIO) -> Iterator[bytes]:
    """Read a file in chunks that fall together with segments, so that :meth:`Sealer.seal` copies nothing.

    Parameters
    ----------
    file : binary file
        Read from its position to its end; short reads are no error, they only cost copies.
    """
    wanted = FIRST_PLAINTEXT_BYTES
    while chunk := file.read(wanted):
        yield chunk
        wanted = PLAINTEXT_BYTES


def new_sealer(associated_data: bytes) -> Sealer:
    """A sealer for one new object, with a fresh data key.

    Parameters
    ----------
    associated_data : bytes
        ``context.associated_data(object_id)`` of the object's place.
    """
    return Sealer(associated_data)
