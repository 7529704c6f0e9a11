"""The texts of the demo: ICD-10-CM as shipped in the package ``simple_icd_10_cm``, divided over hospitals.

A text is the description, an inclusion term or an "includes" note of a code; its label is the three-character
category of that code. Codes with a seventh character are left out: it says which encounter of the same injury it
is, so those 50,000 texts repeat others with ", sequela" and the like at the end.

Held out are all texts of every tenth code, so the model is asked about codes that no hospital has seen. A category
itself is never held out: every category has training texts, and categories without subcategories (about one in ten)
are classes that are trained and never asked for. Texts that also occur in training, whatever their code, are removed
from the held-out part. What remains has close relatives in training ("left" and "right" are two codes).

Hospitals differ: every chapter of ICD-10-CM has one hospital that gets most of its texts. Everything follows from
the seed by hashing, so the parts are the same on every machine.
"""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

HELD_OUT_SHARE = 0.1
FAVOURITE_SHARE = 0.7
COLUMNS = ("text", "label")


@dataclass(frozen=True)
class Part:
    """One CSV file with the columns ``text`` and ``label``.

    Attributes
    ----------
    path : Path
        The file.
    examples : int
        Number of texts.
    per_label : mapping of str to int
        Number of texts per category.
    chapters : tuple of str
        The chapters of which this hospital gets most (none for the held-out part).
    """

    path: Path
    examples: int
    per_label: Mapping[str, int]
    chapters: tuple[str, ...] = ()


@dataclass(frozen=True)
class Parts:
    """What :func:`write_parts` wrote.

    Attributes
    ----------
    hospitals : tuple of Part
        Training texts, one part per hospital.
    held_out : Part
        The central node's texts.
    labels : tuple of str
        All categories, sorted: the classes of the model.
    """

    hospitals: tuple[Part, ...]
    held_out: Part
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Baseline:
    """Share of held-out texts that the most frequent training labels get right."""

    top1: float
    top5: float
    labels: tuple[str, ...]


@dataclass(frozen=True)
class _Text:
    text: str
    code: str
    chapter: str

    @property
    def label(self) -> str:
        return self.code[:3]


def write_parts(directory: Path, hospitals: int, seed: int) -> Parts:
    """Write ``hospital-1.csv`` and so on, and ``held-out.csv``, into an existing directory.

    Takes some 5 s, most of which is loading the classification. Existing files are overwritten.

    Raises
    ------
    ValueError
        If there is not at least one hospital.
    """
    if hospitals < 1:
        raise ValueError(f"{hospitals} hospitals: at least one is needed.")
    texts = _texts()
    training = [text for text in texts if not _held_out(text.code, seed)]
    seen = {_folded(text.text) for text in training}
    held_out = [text for text in texts if _held_out(text.code, seed) and _folded(text.text) not in seen]
    favourites = _favourites(training, hospitals)
    shares: list[list[_Text]] = [[] for _ in range(hospitals)]
    for text in training:
        shares[_hospital(text, favourites[text.chapter], hospitals, seed)].append(text)
    return Parts(
        hospitals=tuple(
            _write(
                directory / f"hospital-{number}.csv",
                share,
                tuple(chapter for chapter, favourite in favourites.items() if favourite == number - 1),
            )
            for number, share in enumerate(shares, start=1)
        ),
        held_out=_write(directory / "held-out.csv", held_out, ()),
        labels=tuple(sorted({text.label for text in texts})),
    )


def majority_baseline(parts: Parts) -> Baseline:
    """Always answer with the labels that are most frequent over all hospitals' training texts."""
    training: Counter[str] = Counter()
    for part in parts.hospitals:
        training.update(part.per_label)
    ranked = sorted(training, key=lambda label: (-training[label], label))[:5]
    right = [parts.held_out.per_label.get(label, 0) / parts.held_out.examples for label in ranked]
    return Baseline(top1=right[0], top5=sum(right), labels=tuple(ranked))


def features_for(mebibytes: int, classes: int) -> int:
    """Give the smallest number of features whose model has at least so many MiB of float32 parameters."""
    return -(-mebibytes * 2**20 // (classes * 4))


def _texts() -> list[_Text]:
    # half a second and 200 MB: only when it is wanted
    import simple_icd_10_cm as icd

    texts: dict[tuple[str, str], _Text] = {}
    for chapter in (code for code in icd.get_all_codes() if icd.is_chapter(code)):
        for code in icd.get_descendants(chapter):
            if not icd.is_category_or_subcategory(code) or icd.is_extended_subcategory(code):
                continue
            terms = [icd.get_description(code), *icd.get_inclusion_term(code), *icd.get_includes(code)]
            for term in terms:
                text = _Text(" ".join(term.split()), code, chapter)
                # the same text twice in one category is one example; a category of its own may repeat it
                texts.setdefault((text.label, _folded(text.text)), text)
    return list(texts.values())


def _held_out(code: str, seed: int) -> bool:
    return len(code) > 3 and _chance(seed, "held out", code) < HELD_OUT_SHARE


def _favourites(training: Iterable[_Text], hospitals: int) -> dict[str, int]:
    """Give each chapter a hospital, the largest chapters first, each to the hospital that has least."""
    sizes = Counter(text.chapter for text in training)
    load = [0] * hospitals
    favourites: dict[str, int] = {}
    for chapter in sorted(sizes, key=lambda chapter: (-sizes[chapter], chapter)):
        hospital = load.index(min(load))
        favourites[chapter] = hospital
        load[hospital] += sizes[chapter]
    return favourites


def _hospital(text: _Text, favourite: int, hospitals: int, seed: int) -> int:
    chance = _chance(seed, "hospital", text.code, text.text)
    if hospitals == 1 or chance < FAVOURITE_SHARE:
        return favourite
    others = [hospital for hospital in range(hospitals) if hospital != favourite]
    return others[int((chance - FAVOURITE_SHARE) / (1 - FAVOURITE_SHARE) * len(others)) % len(others)]


def _write(path: Path, texts: list[_Text], chapters: tuple[str, ...]) -> Part:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows((text.text, text.label) for text in texts)
    return Part(path, len(texts), Counter(text.label for text in texts), chapters)


def _folded(text: str) -> str:
    return text.casefold()


def _chance(seed: int, *parts: str) -> float:
    """A number in [0, 1) that is the same on every machine and for every order of the texts."""
    digest = hashlib.blake2b("\0".join([str(seed), *parts]).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
