"""The envelope against the Tink library, both directions, and against vectors that Tink once made."""

import hashlib
import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
import tink

from vantage6_largefile.envelope import Sealer, new_sealer, open_stream
from vantage6_largefile.envelope import seal as seal_module
from vantage6_largefile.envelope.format import FIRST_PLAINTEXT_BYTES, PLAINTEXT_BYTES, SegmentPlan
from vantage6_largefile.reference import stored_size_of

VECTOR_FOLDER = Path(__file__).parents[1] / "vectors"
ASSOCIATED_DATA = b"v6lf/1|result|42|0b6e2a1c-4b5f-4c1e-9d3a-2f1e0c9b8a76"
KEY = bytes(range(32))

BOUNDARIES = [FIRST_PLAINTEXT_BYTES + n * PLAINTEXT_BYTES for n in range(10)]
SIZES = [0, 1, *(boundary + step for boundary in BOUNDARIES for step in (-1, 0, 1))]


def _load_oracle() -> ModuleType:
    spec = importlib.util.spec_from_file_location("envelope_oracle", VECTOR_FOLDER / "envelope_oracle.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


oracle = _load_oracle()
VECTORS = json.loads((VECTOR_FOLDER / "envelope.json").read_text())["vectors"]


def sealer_with(
    monkeypatch: pytest.MonkeyPatch, key: bytes, salt: bytes, prefix: bytes, associated_data: bytes = ASSOCIATED_DATA
) -> Sealer:
    """A sealer whose key, salt and prefix are given, which only a test may do."""
    draws = [key, salt, prefix]

    def draw(length: int) -> bytes:
        value = draws.pop(0)
        assert len(value) == length
        return value

    with monkeypatch.context() as patch:
        patch.setattr(seal_module.secrets, "token_bytes", draw)
        sealer = new_sealer(associated_data)
    assert not draws
    return sealer


@pytest.mark.parametrize("size", SIZES)
def test_tink_reads_what_we_seal(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    data = oracle.plaintext(size)
    sealer = sealer_with(monkeypatch, KEY, b"s" * 32, b"prefix!")

    stored = b"".join(sealer.seal([data]))

    assert len(stored) == stored_size_of(size, encrypted=True) == sealer.stored_size
    assert oracle.tink_open(KEY, ASSOCIATED_DATA, stored) == data


@pytest.mark.parametrize("size", SIZES)
def test_we_read_what_tink_seals(size: int) -> None:
    data = oracle.plaintext(size)
    stored = oracle.tink_seal(KEY, ASSOCIATED_DATA, data)

    assert len(stored) == SegmentPlan(size).stored_size
    assert b"".join(open_stream([stored], KEY, ASSOCIATED_DATA, size=size)) == data


def test_tink_refuses_our_object_under_other_associated_data(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = b"".join(sealer_with(monkeypatch, KEY, b"s" * 32, b"prefix!").seal([b"data"]))

    with pytest.raises(tink.TinkError):
        oracle.tink_open(KEY, ASSOCIATED_DATA + b"0", stored)


def test_a_sealer_draws_its_own_key_salt_and_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []
    draw = seal_module.secrets.token_bytes
    monkeypatch.setattr(seal_module.secrets, "token_bytes", lambda n: (lengths.append(n), draw(n))[1])

    first = b"".join(new_sealer(ASSOCIATED_DATA).seal([b"same"]))
    second = b"".join(new_sealer(ASSOCIATED_DATA).seal([b"same"]))

    assert lengths == [32, 32, 7] * 2
    assert first[1:33] != second[1:33]
    assert first[33:40] != second[33:40]
    assert first[40:] != second[40:]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_vectors_are_sealed_and_opened(monkeypatch: pytest.MonkeyPatch, vector: dict[str, object]) -> None:
    key, header = bytes.fromhex(str(vector["key"])), bytes.fromhex(str(vector["header"]))
    associated_data = str(vector["associated_data"]).encode()
    data = oracle.plaintext(vector["size"])
    sealer = sealer_with(monkeypatch, key, header[1:33], header[33:], associated_data)

    stored = b"".join(sealer.seal([data]))

    assert stored[:40] == header
    assert len(stored) == vector["stored_size"]
    assert hashlib.sha256(stored).hexdigest() == vector["stored_sha256"]
    assert stored.hex() == vector.get("stored", stored.hex())
    assert b"".join(open_stream([stored], key, associated_data, size=len(data))) == data
