"""The demo's small job, asserted on what is in the stores and in the database, not on what was printed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vantage6_largefile.demo.main import main
from vantage6_largefile.location import Location

MIB = 1 << 20


def run_demo(tmp_path: Path, *arguments: str) -> dict[str, object]:
    figures = tmp_path / "figures.json"
    code = main(["--small", "--rounds", "2", "--folder", str(tmp_path / "demo"), "--json", str(figures), *arguments])
    assert code == 0
    return json.loads(figures.read_text())  # type: ignore[no-any-return]


def check(figures: dict, hospitals: int, expected_store: dict[str, str]) -> None:  # type: ignore[type-arg]
    runs = figures["runs"]
    assert len(runs) == 1 + 2 * hospitals
    assert {run["who"] for run in runs} == set(expected_store)
    for run in runs:
        assert run["status"] == "completed"
        # in the store: the whole model, exactly as long as the reference says; in the database: next to nothing
        assert run["stored_bytes"] == run["reference_bytes"] >= 32 * MIB
        assert run["database_bytes"] < 64 * 1024
        assert Location.parse(expected_store[run["who"]]).contains(Location.parse(run["location"]))
    second_round = [run for run in runs if run["what"] == "round 2"]
    assert len(second_round) == hospitals
    inputs = {run["input_location"] for run in second_round}
    assert len(inputs) == 1, "one input for all hospitals is stored once"
    assert Location.parse(expected_store["dhd"]).contains(Location.parse(inputs.pop()))
    assert figures["parameters"] * 4 >= 32 * MIB
    assert not figures["payload_in_database"]
    assert figures["database_bytes"] < 2 * MIB
    first, second = figures["rounds"]
    assert figures["baseline"]["top1"] < 0.05
    assert second["top1"] > first["top1"] > 0.4
    assert second["top5"] > second["top1"]
    assert len(figures["attempts"]) == hospitals
    assert {attempt["configuration"] for attempt in figures["attempts"]} == {"refused by configuration"}


def test_demo_on_folders(tmp_path: Path) -> None:
    figures = run_demo(tmp_path, "--runner", "process")
    names = ["dhd", "hospital-a", "hospital-b", "hospital-c"]
    check(figures, 3, {name: f"file://{name}" for name in names})
    assert not (tmp_path / "demo").exists(), "the demo cleans up what it made"


def test_demo_encrypted_stores_envelopes(tmp_path: Path) -> None:
    figures = run_demo(tmp_path, "--runner", "process", "--encrypted")
    check(figures, 3, {name: f"file://{name}" for name in ("dhd", "hospital-a", "hospital-b", "hospital-c")})


def test_interim_layout_needs_a_store_with_rights(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--layout", "interim"])
    assert ended.value.code == 2
    assert "needs --store azure" in capsys.readouterr().err
