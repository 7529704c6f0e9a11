"""What all tests share."""

from __future__ import annotations

from tests.support import quiet_server  # noqa: F401 - before any test module can import vantage6's server

pytest_plugins = ["tests.support.azurite"]
