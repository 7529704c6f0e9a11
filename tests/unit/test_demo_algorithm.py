"""The demo's algorithm without vantage6 around it: weights as text, training, averaging, evaluation."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("scipy", reason="the demo's extra is not installed")
pytest.importorskip("vantage6.algorithm.tools", reason="the demo's extra is not installed")

import numpy as np

import vantage6_largefile.demo.algorithm
from vantage6_largefile.demo.algorithm import echo, model, weights

LABELS = ["A", "B", "C"]
TEXTS = [("red stone", "A"), ("red rock", "A"), ("green leaf", "B"), ("green tree", "B"), ("blue sea", "C")]


def csv_file(path: Path, texts: list[tuple[str, str]]) -> Path:
    path.write_text("text,label\n" + "".join(f'"{text}",{label}\n' for text, label in texts))
    return path


def numbers(rows: int, columns: int) -> weights.Matrix:
    return np.random.default_rng(0).normal(size=(rows, columns)).astype(np.float32)


def result_file(path: Path, array: weights.Matrix, **changes: object) -> Path:
    document = {"examples": 7, "shape": list(array.shape), "weights": weights.encode(array), **changes}
    path.write_bytes(json.dumps(document).encode())
    return path


def gathered(update: weights.Update) -> weights.Matrix:
    return np.concatenate([rows for _, rows in update.blocks()])


# --- weights -----------------------------------------------------------------------------------------------------


# one block and several, full and partial last blocks, with and without base64 padding
@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 1), (7, 5), (4000, 1918), (4001, 1001), (1, 2_000_000)])
def test_weights_survive_their_text_bit_by_bit(shape: tuple[int, int], tmp_path: Path) -> None:
    array = numbers(*shape)

    text = weights.encode(array)
    update = weights.update_from_file(result_file(tmp_path / "result", array))

    assert np.array_equal(weights.decode(text, shape), array)
    assert np.array_equal(gathered(update), array)
    assert np.array_equal(gathered(weights.update_from_result({"shape": list(shape), "weights": text})), array)
    assert update.figures == {"examples": 7, "shape": list(shape)}


def test_decoded_weights_can_be_trained_on() -> None:
    decoded = weights.decode(weights.encode(numbers(3, 3)), (3, 3))

    decoded += 1


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[:-4], "characters"),
        (lambda text: text + "AAAA", "characters"),
        (lambda text: "-" + text[1:], "not base64"),
        (lambda text: text[:8] + "\u00e9" + text[9:], "not base64"),
        (lambda text: "AADAfwAA" + text[8:], "finite"),
    ],
)
def test_damaged_weights_are_refused(damage: object, message: str) -> None:
    text = damage(weights.encode(numbers(30, 20)))  # type: ignore[operator]

    with pytest.raises(weights.DamagedWeights, match=message):
        weights.decode(text, (30, 20))


def test_a_cut_result_file_is_refused(tmp_path: Path) -> None:
    path = result_file(tmp_path / "result", numbers(30, 20))
    os.truncate(path, path.stat().st_size - 1)

    with pytest.raises(weights.DamagedWeights):
        gathered(weights.update_from_file(path))


@pytest.mark.parametrize(
    "content",
    [b"", b"null", b'{"shape": [1, 1]}', b'{"weights": "AAAAAA=="}', b'[{"shape": [1, 1], "weights": "AAAAAA=="}'],
)
def test_a_file_that_is_no_training_result_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "result"
    path.write_bytes(content)

    with pytest.raises(weights.DamagedWeights):
        weights.update_from_file(path)


@pytest.mark.parametrize("shape", [None, [1], [0, 5], [1.0, 1], [True, 1], "11", [-1, -1]])
def test_an_impossible_shape_is_refused(shape: object, tmp_path: Path) -> None:
    path = result_file(tmp_path / "result", numbers(1, 1), shape=shape)

    with pytest.raises(weights.DamagedWeights, match="shape"):
        weights.update_from_file(path)


def test_entries_after_the_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "result"
    text = weights.encode(numbers(2, 3))
    path.write_text(json.dumps({"shape": [2, 3], "weights": text, "examples": 1}))

    with pytest.raises(weights.DamagedWeights):
        gathered(weights.update_from_file(path))


# --- texts -------------------------------------------------------------------------------------------------------


def test_hashing_is_the_same_on_every_machine() -> None:
    # CRC-32 of "red", "stone" and "red stone" modulo 1000, independently of this code
    row = model.hash_texts(["Red   STONE!"], 1000)

    assert sorted(row.indices.tolist()) == sorted(_crc("red", "stone", "red stone"))
    assert row.data == pytest.approx([1 / math.sqrt(3)] * 3)


def _crc(*tokens: str) -> list[int]:
    """CRC-32 (reflected, 0xEDB88320) by the textbook."""
    found = []
    for token in tokens:
        value = 0xFFFFFFFF
        for byte in token.encode():
            value ^= byte
            for _ in range(8):
                value = (value >> 1) ^ (0xEDB88320 if value & 1 else 0)
        found.append((value ^ 0xFFFFFFFF) % 1000)
    return found


def test_texts_without_words_change_nothing() -> None:
    rows = model.hash_texts(["", "…"], 10)
    weighted = np.zeros((10, 3), dtype=np.float32)

    loss = trained(model.Examples(rows, np.array([0, 1]), 3), weighted)

    assert rows.shape == (2, 10)
    assert loss == pytest.approx(math.log(3))
    assert not weighted.any()


def test_an_unknown_label_is_named_with_its_line(tmp_path: Path) -> None:
    path = csv_file(tmp_path / "data.csv", [("red", "A"), ("red", "Z")])

    with pytest.raises(model.UnusableDatabase, match=r"data\.csv, line 3: unknown label 'Z'"):
        model.read_examples(path, LABELS, 10)


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", "text,label\n"])
def test_a_database_without_examples_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text(content)

    with pytest.raises(model.UnusableDatabase):
        model.read_examples(path, LABELS, 10)


# --- learning ----------------------------------------------------------------------------------------------------


def trained(examples: model.Examples, start: weights.Matrix, seed: int = 0, epochs: int = 5) -> float:
    return model.train(
        start, examples, epochs=epochs, learning_rate=1.0, batch_size=2, seed=seed, progress=lambda _: None
    )


def test_training_learns_its_texts_and_touches_only_their_rows(tmp_path: Path) -> None:
    examples = model.read_examples(csv_file(tmp_path / "data.csv", TEXTS), LABELS, 512)
    untouched = np.setdiff1d(np.arange(512), examples.features.indices)
    weighted = np.zeros((512, 3), dtype=np.float32)

    loss = trained(examples, weighted)

    assert loss < math.log(3) / 2
    assert model.evaluate(weighted, examples) == (1.0, 1.0)
    assert not weighted[untouched].any()


def test_training_is_repeatable_and_depends_on_the_seed(tmp_path: Path) -> None:
    examples = model.read_examples(csv_file(tmp_path / "data.csv", TEXTS), LABELS, 512)
    one, same, other = (np.zeros((512, 3), dtype=np.float32) for _ in range(3))

    trained(examples, one)
    trained(examples, same)
    trained(examples, other, seed=1)

    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_progress_is_told_up_to_the_end(tmp_path: Path) -> None:
    examples = model.read_examples(csv_file(tmp_path / "data.csv", TEXTS), LABELS, 512)
    lines: list[str] = []

    model.train(
        np.zeros((512, 3), dtype=np.float32),
        examples,
        epochs=2,
        learning_rate=1.0,
        batch_size=2,
        seed=0,
        progress=lines.append,
    )

    assert [line.rsplit(",", 1)[0] for line in lines if "100 %" in line] == ["epoch 1, 100 %", "epoch 2, 100 %"]


def update(array: weights.Matrix) -> weights.Update:
    def blocks() -> Iterator[tuple[int, weights.Matrix]]:
        for row in range(len(array)):
            yield row, array[row : row + 1]

    return weights.Update(figures={}, blocks=blocks)


def test_models_are_weighted_by_the_examples_of_each_class() -> None:
    average = model.Average(2, 3)

    average.add(update(np.array([[1, 1, 1], [2, 2, 2]], dtype=np.float32)), np.array([3, 0, 0]))
    average.add(update(np.array([[5, 5, 5], [6, 6, 6]], dtype=np.float32)), np.array([1, 4, 0]))

    # 3:1, 0:4, and evenly where nobody has examples
    assert average.weights() == pytest.approx(np.array([[2, 5, 3], [3, 6, 4]]), rel=1e-6)


def test_an_average_with_a_half_read_model_is_refused() -> None:
    def breaks() -> Iterator[tuple[int, weights.Matrix]]:
        yield 0, np.ones((1, 3), dtype=np.float32)
        raise weights.DamagedWeights("cut")

    average = model.Average(2, 3)
    average.add(update(np.ones((2, 3), dtype=np.float32)), np.array([1, 1, 1]))
    with pytest.raises(weights.DamagedWeights):
        average.add(weights.Update(figures={}, blocks=breaks), np.array([1, 1, 1]))

    with pytest.raises(RuntimeError):
        average.weights()


def test_an_average_of_nothing_is_refused() -> None:
    with pytest.raises(RuntimeError):
        model.Average(2, 3).weights()


def test_top_1_and_top_5_count_what_they_say() -> None:
    labels = [str(number) for number in range(8)]
    # text number n scores class c with 8 - |n - c|: its own class first, then the neighbours
    scores = np.array([[8 - abs(n - c) for c in range(8)] for n in range(8)], dtype=np.float32)
    identity = model.hash_texts([], 8).__class__(np.eye(8, dtype=np.float32))

    right = model.Examples(identity, np.arange(8), len(labels))
    near = model.Examples(identity, np.array([1, 2, 3, 4, 5, 6, 7, 6]), len(labels))
    far = model.Examples(identity, np.array([7, 7, 7, 7, 0, 0, 0, 0]), len(labels))

    assert model.evaluate(scores, right) == (1.0, 1.0)
    assert model.evaluate(scores, near) == (0.0, 1.0)
    assert model.evaluate(scores, far)[0] == 0.0
    assert model.evaluate(scores, far)[1] < 0.5


def test_majority_answers_with_the_most_frequent_classes() -> None:
    examples = model.Examples(model.hash_texts(["x"] * 4, 8), np.array([2, 2, 0, 6]), 7)

    assert model.majority(np.array([9, 1, 50, 8, 7, 6, 0]), examples) == (0.5, 0.75)


# --- the package as an image's content ----------------------------------------------------------------------------


def test_the_package_runs_without_vantage6_largefile(tmp_path: Path) -> None:
    source = Path(vantage6_largefile.demo.algorithm.__file__).parent
    shutil.copytree(source, tmp_path / "renamed_algorithm", ignore=shutil.ignore_patterns("__pycache__"))
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import renamed_algorithm as algorithm\n"
        "assert not [name for name in sys.modules if name.startswith('vantage6_largefile')], sys.modules\n"
        "assert algorithm.central and algorithm.train_round and algorithm.central_echo"
    )

    ended = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=False)

    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("size", [2, 3, 1000, 1_048_576])
def test_echo_size_gives_a_result_of_exactly_that_size(size: int) -> None:
    result = json.dumps(echo.echo_size(size, seed=5)).encode()

    assert len(result) == size
    assert json.loads(result) == echo.pattern(size - 2, 5)


def test_echo_input_gives_back_what_came() -> None:
    assert echo.echo_input("abc") == {
        "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        "payload": "abc",
    }


def test_two_rounds_over_three_hospitals_beat_the_majority(tmp_path: Path) -> None:
    icd_data = pytest.importorskip("vantage6_largefile.demo.icd_data")
    pytest.importorskip("simple_icd_10_cm", reason="the demo's extra is not installed")
    parts = icd_data.write_parts(tmp_path, 3, seed=0)
    hospitals = [model.read_examples(part.path, parts.labels, 4096) for part in parts.hospitals]
    held_out = model.read_examples(parts.held_out.path, parts.labels, 4096)
    current = np.zeros((4096, len(parts.labels)), dtype=np.float32)
    reached = []

    for number in range(2):
        average = model.Average(*current.shape)
        for examples in hospitals:
            local = current.copy()
            model.train(
                local, examples, epochs=1, learning_rate=1.0, batch_size=128, seed=number, progress=lambda _: None
            )
            average.add(update(local), examples.per_class)
        current = average.weights()
        reached.append(model.evaluate(current, held_out)[0])

    baseline = icd_data.majority_baseline(parts)
    assert 20 * baseline.top1 < 0.3 < reached[0] < reached[1]
