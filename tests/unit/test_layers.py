"""What import-linter cannot say: no module of the core imports vantage6's node or server, not even lazily."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import vantage6_largefile

ROOT = Path(vantage6_largefile.__file__).parent


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.update({node.module, *(f"{node.module}.{alias.name}" for alias in node.names)})
    return names


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_core_knows_neither_vantage6_node_nor_server(path: Path) -> None:
    forbidden = {
        name
        for name in imported(path)
        if name in {"vantage6.node", "vantage6.server"} or name.startswith(("vantage6.node.", "vantage6.server."))
    }
    assert not forbidden


@pytest.mark.parametrize(("package", "other"), [("node_ext", "server_ext"), ("server_ext", "node_ext")])
def test_node_and_server_extension_do_not_know_each_other(package: str, other: str) -> None:
    for path in (ROOT.parent / package).rglob("*.py"):
        assert not {name for name in imported(path) if name.split(".")[0] == other}, path


def test_algorithm_package_runs_without_this_software() -> None:
    for path in (ROOT / "demo" / "algorithm").rglob("*.py"):
        assert not {name for name in imported(path) if name.split(".")[0] in {"vantage6_largefile", "node_ext"}}, path
