"""Fill an empty database with organisations, users and nodes, by the stock server's own import. For demo and tests.

Runs before our migration: what it leaves is the database of a stock server, so that the upgrade which follows is
the one that a running server goes through.
"""

from __future__ import annotations

import sys
from pathlib import Path

import yaml


def main() -> None:
    """``python -m server_ext.fixture server.yaml fixture.yaml``."""
    import vantage6.server  # noqa: F401 - loads the models and makes gevent patch first
    from vantage6.server.controller import fixture
    from vantage6.server.model.base import Database

    config = yaml.safe_load(Path(sys.argv[1]).read_text("utf-8"))
    entities = yaml.safe_load(Path(sys.argv[2]).read_text("utf-8"))
    Database().connect(uri=config["uri"], allow_drop_all=False)
    fixture.load(entities)


if __name__ == "__main__":
    main()
