"""Model parameters inside JSON: base64 text of float32 little-endian bytes, row by row.

The stock wrapper of vantage6 algorithms reads and writes JSON, so 400 MiB of parameters become 534 MiB of text.
What is in this module keeps the copies of that text few: a model is decoded block by block straight into its
array, and a result that lies in a file is never in memory as a whole.
"""

from __future__ import annotations

import binascii
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Matrix: TypeAlias = npt.NDArray[np.float32]

_FLOAT = np.dtype("<f4")
_KEY = b'"weights": "'
_CLOSE = b'"}'
_HEAD_BYTES = 2**20
_BLOCK_BYTES = 6 * 2**20


class DamagedWeights(ValueError):
    """Text that is not the base64 form of an array of the expected shape, or not of finite numbers."""


@dataclass(frozen=True)
class Update:
    """What one hospital sends: a few figures and, readable block by block, its model.

    Attributes
    ----------
    figures : dict of str to object
        The JSON document of the result without its weights.
    blocks : callable
        Gives an iterator over ``(first row, rows)``; raises :class:`DamagedWeights`.
    """

    figures: dict[str, object]
    blocks: Callable[[], Iterator[tuple[int, Matrix]]]


def encode(weights: Matrix) -> str:
    """Give the base64 text of an array. Costs 2.7 times the array's memory for a moment, 1.3 times afterwards."""
    data = np.ascontiguousarray(weights, dtype=_FLOAT)
    return binascii.b2a_base64(data.data, newline=False).decode("ascii")


def decode(text: str, shape: tuple[int, int]) -> Matrix:
    """Give the array of a base64 text. Costs the array and two blocks of some 8 MiB.

    Raises
    ------
    DamagedWeights
        If the text does not hold exactly `shape` finite numbers.
    """
    weights = np.empty(shape, dtype=np.float32)
    for first, rows in _decode_text(text, shape):
        weights[first : first + len(rows)] = rows
    return weights


def update_from_result(result: dict[str, object]) -> Update:
    """Give the update in a result that was already parsed.

    Raises
    ------
    DamagedWeights
        If the result has no weights or no shape.
    """
    figures = {key: value for key, value in result.items() if key != "weights"}
    text = result.get("weights")
    if not isinstance(text, str):
        raise DamagedWeights("The result has no weights.")
    shape = _shape(figures)
    return Update(figures=figures, blocks=lambda: _decode_text(text, shape))


def update_from_file(path: Path) -> Update:
    """Give the update in the result file of a training round, reading its model only when it is asked for.

    The weights are the last entry of that document and everything else is short, so the text of the weights can
    be cut out unparsed: base64 has neither quotes nor escapes.

    Raises
    ------
    DamagedWeights
        If the file is not such a document.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    start = head.find(_KEY) + len(_KEY)
    if start < len(_KEY):
        raise DamagedWeights(f"The result has no weights in its first {_HEAD_BYTES} bytes.")
    try:
        figures = json.loads(head[:start] + _CLOSE)
    except ValueError as exc:
        raise DamagedWeights(f"The result is not JSON: {exc}.") from exc
    del figures["weights"]
    shape = _shape(figures)

    def blocks() -> Iterator[tuple[int, Matrix]]:
        characters = path.stat().st_size - start - len(_CLOSE)
        with path.open("rb") as file:
            file.seek(start)
            yield from _decode(file.read, characters, shape)
            if file.read() != _CLOSE:
                raise DamagedWeights("The result does not end after its weights.")

    return Update(figures=figures, blocks=blocks)


def _decode_text(text: str, shape: tuple[int, int]) -> Iterator[tuple[int, Matrix]]:
    position = 0

    def read(count: int) -> str:
        nonlocal position
        position += count
        return text[position - count : position]

    yield from _decode(read, len(text), shape)


def _decode(
    read: Callable[[int], str | bytes], characters: int, shape: tuple[int, int]
) -> Iterator[tuple[int, Matrix]]:
    """Decode base64 text, read piece by piece, in blocks of whole rows."""
    rows, columns = shape
    row_bytes = columns * _FLOAT.itemsize
    expected = _characters(rows * row_bytes)
    if characters != expected:
        raise DamagedWeights(f"The weights have {characters} characters, {rows} x {columns} numbers need {expected}.")
    # a multiple of three rows is a multiple of three bytes: such a block ends between two groups of four characters
    step = max(3, _BLOCK_BYTES // row_bytes // 3 * 3)
    for first in range(0, rows, step):
        count = min(step, rows - first)
        try:
            data = binascii.a2b_base64(read(_characters(count * row_bytes)))
        except ValueError as exc:
            raise DamagedWeights(f"The weights from row {first} on are not base64: {exc}.") from exc
        # a2b_base64 skips characters outside its alphabet, and then bytes are missing
        if len(data) != count * row_bytes:
            raise DamagedWeights(f"The weights from row {first} on are not base64.")
        block = np.frombuffer(data, dtype=_FLOAT).reshape(count, columns)
        if not np.isfinite(block).all():
            raise DamagedWeights(f"The weights from row {first} on are not all finite numbers.")
        yield first, block


def _characters(count: int) -> int:
    """Length of the base64 form of `count` bytes."""
    return (count + 2) // 3 * 4


def _shape(figures: dict[str, object]) -> tuple[int, int]:
    shape = figures.get("shape")
    if not (isinstance(shape, list) and len(shape) == 2 and all(type(n) is int and n > 0 for n in shape)):
        raise DamagedWeights(f"The result has the shape {shape!r}, expected two positive numbers.")
    return shape[0], shape[1]
