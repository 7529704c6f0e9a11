"""The administrator's page: every key is explained, every example loads as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from vantage6_largefile.config import load_large_result_store, load_largefile
from vantage6_largefile.config.blocks import (
    DRIVER_KEYS,
    NetworkBlock,
    ReadableBlock,
    SharedBlock,
    StoreBlock,
    TransferBlock,
)
from vantage6_largefile.config.credentials import LATER, TYPES
from vantage6_largefile.config.server import LegacyBlock, ServerBlock
from vantage6_largefile.errors import ConfigurationError

PAGE = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")
BLOCKS = (StoreBlock, TransferBlock, NetworkBlock, ReadableBlock, SharedBlock, ServerBlock, LegacyBlock)


def examples(key: str) -> list[dict[str, Any]]:
    texts = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    documents = [yaml.safe_load(text) for text in texts]
    return [document[key] for document in documents if key in document]


def test_every_key_and_type_is_explained() -> None:
    keys = {
        *(key for block in BLOCKS for key in block.model_fields),
        *(key for keys in DRIVER_KEYS.values() for key in keys),
        *(key for needed, allowed in TYPES.values() for key in (*needed, *allowed)),
        *TYPES,
        *LATER,
    }

    assert [key for key in sorted(keys) if f"`{key}`" not in PAGE] == []


@pytest.mark.parametrize("block", examples("large_result_store"))
def test_every_example_of_a_node_loads(block: dict[str, Any], tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("canary\n")
    secret.chmod(0o600)
    text = yaml.safe_dump(block).replace("/run/secrets/v6_storage", str(secret))

    assert load_large_result_store(yaml.safe_load(text), source="x", environ={"V6_STORAGE_SECRET": "canary"})


@pytest.mark.parametrize("block", examples("largefile"))
def test_every_example_of_a_server_loads(block: dict[str, Any]) -> None:
    assert load_largefile(block, stock_large_result_store=None, source="x", environ={})


def test_there_are_examples() -> None:
    assert len(examples("large_result_store")) == 5
    assert len(examples("largefile")) == 1


def test_the_defaults_are_those_of_the_page() -> None:
    rows = dict(re.findall(r"^\| `([a-z_]+)` \| `([^`]+)` \|", PAGE, re.MULTILINE))
    documented = {
        key: yaml.safe_load(rows[key])
        for key in ("threshold", "inline_limit", "part_size", "concurrency", "max_bandwidth", "retry_for")
    }
    transfer = {key: documented.pop(key) for key in TransferBlock.model_fields}

    block = {"driver": "file", "root": "a", "path": "/srv"}
    explicit = load_large_result_store({**block, **documented, "transfer": transfer}, source="x", environ={})

    assert explicit == load_large_result_store(block, source="x", environ={})
    server = {"max_inline_result": rows["max_inline_result"]}
    assert load_largefile(server, stock_large_result_store=None, source="x") == load_largefile(
        {}, stock_large_result_store=None, source="x"
    )


def test_the_message_on_the_page_is_what_is_said() -> None:
    block = {
        "driver": "azure",
        "account_url": "https://dhdplugin.blob.core.windows.net",
        "container": "Ziekenhuis_A",
        "treshold": 1,
        "credential": {
            "type": "client_secret",
            "tenant_id": "t",
            "client_id": "c",
            "client_secret": "${env:V6_STORAGE}",
        },
    }

    with pytest.raises(ConfigurationError) as caught:
        load_large_result_store(block, source="node configuration hospital-a.yaml", environ={})

    head, *lines = str(caught.value).splitlines()
    assert head in PAGE
    assert all(line in PAGE for line in lines)
