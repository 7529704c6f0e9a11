"""The demo's texts: real, divided the same way on every machine, and nothing held out is trained on."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("simple_icd_10_cm", reason="the demo's extra is not installed")

from vantage6_largefile.demo import icd_data


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> icd_data.Parts:
    return icd_data.write_parts(tmp_path_factory.mktemp("parts"), 3, seed=0)


def rows(path: Path) -> list[tuple[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return [(row["text"], row["label"]) for row in csv.DictReader(file)]


def test_parts_are_the_same_for_the_same_seed_only(parts: icd_data.Parts, tmp_path: Path) -> None:
    (tmp_path / "same").mkdir()
    (tmp_path / "other").mkdir()

    same = icd_data.write_parts(tmp_path / "same", 3, seed=0)
    other = icd_data.write_parts(tmp_path / "other", 3, seed=1)

    for one, two, three in zip(
        [*parts.hospitals, parts.held_out],
        [*same.hospitals, same.held_out],
        [*other.hospitals, other.held_out],
        strict=True,
    ):
        assert one.path.read_bytes() == two.path.read_bytes()
        assert one.path.read_bytes() != three.path.read_bytes()


def test_no_held_out_text_is_trained_on(parts: icd_data.Parts) -> None:
    training = {text.casefold() for part in parts.hospitals for text, _ in rows(part.path)}

    held_out = [text.casefold() for text, _ in rows(parts.held_out.path)]

    assert len(held_out) > 4000
    assert not training.intersection(held_out)


def test_every_category_has_training_texts(parts: icd_data.Parts) -> None:
    trained = {label for part in parts.hospitals for _, label in rows(part.path)}

    assert trained == set(parts.labels)
    assert list(parts.labels) == sorted(parts.labels)
    assert len(parts.labels) > 1900


def test_counts_are_those_of_the_files(parts: icd_data.Parts) -> None:
    for part in (*parts.hospitals, parts.held_out):
        content = rows(part.path)
        assert part.examples == len(content)
        assert part.per_label == Counter(label for _, label in content)


def test_each_hospital_gets_most_of_its_chapters(parts: icd_data.Parts) -> None:
    import simple_icd_10_cm as icd

    chapter_of = {
        code[:3]: chapter
        for chapter in (code for code in icd.get_all_codes() if icd.is_chapter(code))
        for code in icd.get_descendants(chapter)
        if icd.is_category_or_subcategory(code)
    }
    per_chapter = [Counter(chapter_of[label] for _, label in rows(part.path)) for part in parts.hospitals]

    for part, own in zip(parts.hospitals, per_chapter, strict=True):
        assert part.chapters
        mine = sum(own[chapter] for chapter in part.chapters)
        everybody = sum(one[chapter] for one in per_chapter for chapter in part.chapters)
        assert mine / everybody == pytest.approx(icd_data.FAVOURITE_SHARE, abs=0.02)


def test_majority_baseline_is_what_the_most_frequent_labels_get_right(parts: icd_data.Parts) -> None:
    frequent = Counter(label for part in parts.hospitals for _, label in rows(part.path)).most_common(5)
    wanted = [label for _, label in rows(parts.held_out.path)]

    baseline = icd_data.majority_baseline(parts)

    assert baseline.top1 == pytest.approx(wanted.count(frequent[0][0]) / len(wanted))
    assert baseline.top5 == pytest.approx(sum(wanted.count(label) for label, _ in frequent) / len(wanted))
    assert 0 < baseline.top1 < baseline.top5 < 0.1


def test_one_hospital_gets_everything(parts: icd_data.Parts, tmp_path: Path) -> None:
    alone = icd_data.write_parts(tmp_path, 1, seed=0)

    assert alone.hospitals[0].examples == sum(part.examples for part in parts.hospitals)


def test_no_hospital_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one"):
        icd_data.write_parts(tmp_path, 0, seed=0)


@pytest.mark.parametrize("mebibytes", [1, 32, 400])
def test_features_for_gives_the_smallest_model_of_the_size(mebibytes: int) -> None:
    features = icd_data.features_for(mebibytes, 1918)

    assert (features - 1) * 1918 * 4 < mebibytes * 2**20 <= features * 1918 * 4
