"""The suite against this driver. Run where both packages are installed: pytest conformance_of_memory.py"""

from __future__ import annotations

import pytest

from vantage6_largefile.config import load_large_result_store
from vantage6_largefile.stores import Store, open_store
from vantage6_largefile.stores.conformance import StoreConformance

BLOCK = {"driver": "memory", "location": "memory://here/hospital-a", "options": {"max_part": "1048576"}}


class TestMemoryStore(StoreConformance):
    def open_store(self, request: pytest.FixtureRequest) -> Store:
        return open_store(load_large_result_store(BLOCK, source="the test").own)


def test_block_of_the_driver_passes_the_loader_and_reaches_the_driver() -> None:
    loaded = load_large_result_store({**BLOCK, "options": {"max_part": "5"}}, source="the test")

    assert open_store(loaded.own).limits.max_part == 5
    assert type(open_store(loaded.own)).__module__ == "v6lf_memory_store"
