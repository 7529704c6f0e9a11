"""Tink as the oracle for the envelope, and the script that made ``envelope.json`` with it.

The vectors were made once: Tink draws a fresh salt and nonce prefix each time, so another run gives other, equally
valid ones. Run ``python tests/vectors/envelope_oracle.py`` only when the set of vectors is to change.
"""

import base64
import hashlib
import io
import json
from pathlib import Path

import tink
from tink import secret_key_access, streaming_aead
from tink.proto import aes_gcm_hkdf_streaming_pb2, common_pb2

VECTORS = Path(__file__).with_name("envelope.json")
SEGMENT = 1 << 20
FIRST = SEGMENT - 40 - 16
FULL = SEGMENT - 16


def plaintext(size: int) -> bytes:
    """The plaintext of every vector: SHAKE-128 of a fixed text, `size` bytes of it."""
    return hashlib.shake_128(b"v6lf envelope vector").digest(size)


def tink_primitive(key: bytes) -> streaming_aead.StreamingAead:
    """Tink's AES256_GCM_HKDF_1MB under a raw key, without an output prefix."""
    proto = aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingKey(version=0, key_value=key)
    proto.params.ciphertext_segment_size = SEGMENT
    proto.params.derived_key_size = 32
    proto.params.hkdf_hash_type = common_pb2.SHA256
    keyset = {
        "primaryKeyId": 1,
        "key": [
            {
                "keyData": {
                    "typeUrl": "type.googleapis.com/google.crypto.tink.AesGcmHkdfStreamingKey",
                    "value": base64.b64encode(proto.SerializeToString()).decode(),
                    "keyMaterialType": "SYMMETRIC",
                },
                "status": "ENABLED",
                "keyId": 1,
                "outputPrefixType": "RAW",
            }
        ],
    }
    streaming_aead.register()
    handle = tink.json_proto_keyset_format.parse(json.dumps(keyset), secret_key_access.TOKEN)
    return handle.primitive(streaming_aead.StreamingAead)


class _Kept(io.BytesIO):
    """Tink closes what it wrote to; the bytes are wanted afterwards."""

    def close(self) -> None:
        self.kept = self.getvalue()
        super().close()


def tink_seal(key: bytes, associated_data: bytes, data: bytes) -> bytes:
    """What Tink writes for `data`."""
    destination = _Kept()
    with tink_primitive(key).new_encrypting_stream(destination, associated_data) as stream:
        stream.write(data)
    return destination.kept


def tink_open(key: bytes, associated_data: bytes, stored: bytes) -> bytes:
    """What Tink reads from `stored`; raises ``tink.TinkError`` when it refuses it."""
    with tink_primitive(key).new_decrypting_stream(io.BytesIO(stored), associated_data) as stream:
        return stream.read()


def make_vectors() -> list[dict[str, object]]:
    """One vector for each size that matters."""
    run = b"v6lf/1|result|42|0b6e2a1c-4b5f-4c1e-9d3a-2f1e0c9b8a76"
    task = b"v6lf/1|input|3|7|0b6e2a1c-4b5f-4c1e-9d3a-2f1e0c9b8a76"
    cases = [
        ("empty", 0, run),
        ("one byte", 1, run),
        ("small, an input", 100, task),
        ("no associated data", 100, b""),
        ("first segment less one", FIRST - 1, run),
        ("first segment", FIRST, run),
        ("first segment and one", FIRST + 1, run),
        ("two segments", FIRST + FULL, task),
        ("two segments and one", FIRST + FULL + 1, task),
        ("ten segments", FIRST + 9 * FULL, run),
    ]
    vectors = []
    for number, (name, size, associated_data) in enumerate(cases):
        key = hashlib.sha256(f"v6lf envelope vector key {number}".encode()).digest()
        stored = tink_seal(key, associated_data, plaintext(size))
        vector: dict[str, object] = {
            "name": name,
            "key": key.hex(),
            "associated_data": associated_data.decode(),
            "size": size,
            "stored_size": len(stored),
            "header": stored[:40].hex(),
            "stored_sha256": hashlib.sha256(stored).hexdigest(),
        }
        if len(stored) < 200:
            vector["stored"] = stored.hex()
        vectors.append(vector)
    return vectors


if __name__ == "__main__":
    document = {
        "made_by": "the tink package, AES256_GCM_HKDF_1MB, output prefix RAW",
        "plaintext": "the first `size` bytes of SHAKE-128('v6lf envelope vector')",
        "vectors": make_vectors(),
    }
    VECTORS.write_text(json.dumps(document, indent=2) + "\n")
