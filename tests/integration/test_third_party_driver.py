"""A driver from another distribution: installed beside this package, found, configured and run through the suite."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from vantage6_largefile.config import load_large_result_store
from vantage6_largefile.errors import ConfigurationError

DISTRIBUTION = Path(__file__).parents[1] / "third_party_driver"
BLOCK = {"driver": "memory", "location": "memory://here/hospital-a", "options": {}}
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for ``sys.path`` with the distribution in it, put there by what an installer does with a pure wheel."""
    target = tmp_path_factory.mktemp("site")
    project = (DISTRIBUTION / "pyproject.toml").read_text(encoding="utf-8")
    name, version = (re.search(rf'^{key} = "(.+)"$', project, re.MULTILINE)[1] for key in ("name", "version"))  # type: ignore[index]
    group, entry = re.search(r'^\[project\.entry-points\."(.+)"\]\n(\w+) = "(.+)"$', project, re.MULTILINE).group(1, 0)  # type: ignore[union-attr]
    key, value = re.search(r'^(\w+) = "(.+)"$', entry, re.MULTILINE).groups()  # type: ignore[union-attr]
    module = DISTRIBUTION / "v6lf_memory_store.py"
    (target / module.name).write_bytes(module.read_bytes())
    info = target / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{key} = {value}\n")
    return target


def run(installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(installed), str(REPOSITORY)])}
    return subprocess.run(
        [sys.executable, *arguments],
        check=False,
        env=environment,
        cwd=installed,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_driver_that_is_not_installed_is_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match="'memory'"):
        load_large_result_store(BLOCK, source="the test")


def test_driver_of_another_distribution_runs_through_the_suite(installed: Path, tmp_path: Path) -> None:
    suite = tmp_path / "test_memory.py"
    suite.write_bytes((DISTRIBUTION / "conformance_of_memory.py").read_bytes())

    done = run(installed, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(suite))

    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= 25  # type: ignore[index]
    assert "skipped" not in done.stdout


def test_transfers_need_nothing_of_the_driver_but_the_protocol(installed: Path, tmp_path: Path) -> None:
    program = """
import hashlib, os, sys
from pathlib import Path
from vantage6_largefile.config import load_large_result_store
from vantage6_largefile.stores import open_store
from vantage6_largefile.transfer import TransferOptions, iter_object, upload_file

block = {"driver": "memory", "location": "memory://here/hospital-a", "options": {}}
store = open_store(load_large_result_store(block, source="the test").own)
path = Path(sys.argv[1])
path.write_bytes(os.urandom(3_000_001))
options = TransferOptions(part_size=1 << 20, concurrency=3)
stored = upload_file(store, path, store.root.child("object"), media_type="text/plain", options=options)
pieces = iter_object(store, stored.location, stored_size=stored.stored_size, sha256=stored.sha256, options=options)
assert b"".join(pieces) == path.read_bytes()
"""
    done = run(installed, "-c", program, str(tmp_path / "file"))

    assert done.returncode == 0, done.stderr
