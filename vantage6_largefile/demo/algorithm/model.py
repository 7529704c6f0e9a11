"""A linear classifier over hashed words and word pairs: features, local training, averaging, evaluation.

The model is one float32 array of ``features x classes``, zero at the start. A text is the set of its words and
pairs of neighbouring words; each is hashed to a row with CRC-32 (the same on every machine, unlike Python's
``hash``), and the scores of a text are the sum of its rows divided by the root of their number.

Training is softmax regression in mini-batches. A step reads and writes only the rows that occur in its batch, so
its cost does not depend on the size of the model. The step size of a row falls with the gradients it has seen
(one number per row, not one per parameter), so that rare words, which are what tells one category from another,
learn as fast as frequent ones.

Averaging is federated averaging *per class*: the column of a class is weighted by the number of examples of that
class at each hospital. With the usual weights (all examples of a hospital) a hospital that hardly ever sees a
class pulls that class's column towards what it believes about it, which is nothing but "never"; hospitals differ
much in what they treat, so this costs accuracy. A class without any example is averaged evenly.
"""

from __future__ import annotations

import csv
import re
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from .weights import Matrix, Update

Integers = npt.NDArray[np.int64]

_WORD = re.compile(r"[a-z0-9]+")
_EVALUATION_ROWS = 512


class UnusableDatabase(ValueError):
    """A database that is not a CSV file with the columns ``text`` and ``label``, or has an unknown label."""


@dataclass(frozen=True)
class Examples:
    """Texts as rows of hashed features, with the class number of each."""

    features: csr_matrix
    classes: Integers
    class_count: int

    def __len__(self) -> int:
        return int(self.classes.shape[0])

    @property
    def per_class(self) -> Integers:
        """Number of examples of each class."""
        return np.bincount(self.classes, minlength=self.class_count).astype(np.int64)


def read_examples(path: Path, labels: Sequence[str], n_features: int) -> Examples:
    """Read a CSV file with the columns ``text`` and ``label`` and hash its texts.

    Raises
    ------
    UnusableDatabase
        If a column is missing, a label is not one of `labels`, or there is no example at all.
    """
    numbers = {label: number for number, label in enumerate(labels)}
    texts: list[str] = []
    classes: list[int] = []
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if not {"text", "label"} <= set(reader.fieldnames or ()):
            raise UnusableDatabase(f"{path.name} has the columns {reader.fieldnames}, expected text and label.")
        for row in reader:
            if row["label"] not in numbers:
                raise UnusableDatabase(f"{path.name}, line {reader.line_num}: unknown label {row['label']!r}.")
            texts.append(row["text"])
            classes.append(numbers[row["label"]])
    if not texts:
        raise UnusableDatabase(f"{path.name} has no examples.")
    return Examples(hash_texts(texts, n_features), np.array(classes, dtype=np.int64), len(labels))


def hash_texts(texts: Iterable[str], n_features: int) -> csr_matrix:
    """Hash texts to rows of unit length with `n_features` columns."""
    columns: list[int] = []
    ends = [0]
    values: list[float] = []
    for text in texts:
        words = _WORD.findall(text.lower())
        tokens = {*words, *(f"{one} {two}" for one, two in pairwise(words))}
        hashed = sorted({zlib.crc32(token.encode()) % n_features for token in tokens})
        columns += hashed
        values += [max(len(hashed), 1) ** -0.5] * len(hashed)
        ends.append(len(columns))
    arrays = (np.array(values, np.float32), np.array(columns, np.int32), np.array(ends, np.int32))
    return csr_matrix(arrays, shape=(len(ends) - 1, n_features))


def train(
    weights: Matrix,
    examples: Examples,
    *,
    epochs: int,
    learning_rate: float,
    batch_size: int,
    seed: int,
    progress: Callable[[str], None],
) -> float:
    """Train `weights` in place and give the mean loss (nats per text) of the last epoch.

    Needs, besides the model, about 50 MB: the rows of one batch, three times. The step sizes start anew each
    call, so that nothing but the model has to travel.
    """
    chance = np.random.default_rng(seed)
    seen = np.zeros(weights.shape[0], dtype=np.float32)
    mean = 0.0
    for epoch in range(1, epochs + 1):
        order = chance.permutation(len(examples))
        total, tenths, spoken = 0.0, 0, time.monotonic()
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            total += _step(weights, seen, examples.features[chosen], examples.classes[chosen], learning_rate)
            done = start + len(chosen)
            mean = total / done
            if done * 10 // len(order) > tenths and (time.monotonic() - spoken > 0.5 or done == len(order)):
                tenths, spoken = done * 10 // len(order), time.monotonic()
                progress(f"epoch {epoch}, {tenths * 10} %, loss {mean:.2f}")
    return mean


def _step(
    weights: Matrix, seen: npt.NDArray[np.float32], batch: csr_matrix, classes: Integers, learning_rate: float
) -> float:
    """One step of softmax regression on the rows that occur in the batch; gives the summed loss before it."""
    touched, local = np.unique(batch.indices, return_inverse=True)
    small = csr_matrix((batch.data, local.astype(np.int32), batch.indptr), shape=(batch.shape[0], len(touched)))
    rows = weights[touched]
    scores = small @ rows
    scores -= scores.max(axis=1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=1, keepdims=True)
    own = (np.arange(len(classes)), classes)
    # a probability of 0 in float32 is not minus infinity bits of surprise
    loss = -float(np.log(np.maximum(scores[own], 1e-30)).sum())
    scores[own] -= 1
    gradient = small.T @ scores
    seen[touched] += np.einsum("ij,ij->i", gradient, gradient)
    gradient *= (-learning_rate / np.sqrt(seen[touched] + 1e-6))[:, None]
    rows += gradient
    weights[touched] = rows
    return loss


class Average:
    """Running average of the hospitals' models, weighted per class (see the module's text).

    Models are added one after the other, block by block, and not kept: it needs one model's memory.
    """

    def __init__(self, n_features: int, n_classes: int) -> None:
        self._sum: Matrix = np.zeros((n_features, n_classes), dtype=np.float32)
        self._total = np.zeros(n_classes, dtype=np.float32)
        self._complete = True

    def add(self, update: Update, per_class: Integers) -> None:
        """Add a model that was trained on so many examples of each class.

        Raises
        ------
        DamagedWeights
            If the model cannot be read; the average is then useless and :meth:`weights` refuses.
        """
        # classes that nobody has are averaged evenly; where anybody has examples this is lost in the rounding
        share = np.maximum(per_class, 1e-9).astype(np.float32)
        self._complete = False
        for first, rows in update.blocks():
            self._sum[first : first + len(rows)] += rows * share
        self._total += share
        self._complete = True

    def weights(self) -> Matrix:
        """Give the averaged model. To be called once, after the last :meth:`add`; it uses the same memory."""
        if not self._complete or not self._total.all():
            raise RuntimeError("There is nothing to average, or adding a model failed.")
        self._sum /= self._total
        return self._sum


def evaluate(weights: Matrix, examples: Examples) -> tuple[float, float]:
    """Share of texts whose category is the first, and among the first five, of the model's answers."""
    first = five = 0
    for start in range(0, len(examples), _EVALUATION_ROWS):
        scores = examples.features[start : start + _EVALUATION_ROWS] @ weights
        wanted = examples.classes[start : start + _EVALUATION_ROWS]
        width = min(5, scores.shape[1])
        best = np.argpartition(-scores, width - 1, axis=1)[:, :width]
        first += int((scores.argmax(axis=1) == wanted).sum())
        five += int((best == wanted[:, None]).any(axis=1).sum())
    return first / len(examples), five / len(examples)


def majority(per_class: Integers, examples: Examples) -> tuple[float, float]:
    """Top-1 and top-5 of always answering with the classes that are most frequent in training."""
    ranked = np.argsort(-per_class, kind="stable")
    top1 = float((examples.classes == ranked[0]).mean())
    top5 = float(np.isin(examples.classes, ranked[:5]).mean())
    return top1, top5
