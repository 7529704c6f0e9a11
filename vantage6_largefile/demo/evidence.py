"""What the demo shows at its end, taken from the stores and the database themselves and not from what parties say."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vantage6_largefile.config import LargeResultStore, StoreConfig, load_large_result_store
from vantage6_largefile.demo.system import Party
from vantage6_largefile.errors import LocationRefused, StoreAccessDenied
from vantage6_largefile.location import Location
from vantage6_largefile.reference import Reference, parse_reference
from vantage6_largefile.stores import open_store


@dataclass(frozen=True)
class RunRow:
    """One run in the table.

    Attributes
    ----------
    run_id, task_id : int
    who : str
        The organisation that ran it.
    what : str
        Name of the task.
    status : str
    reference : Reference or None
        Of the result.
    input_reference : Reference or None
    database_bytes : int
        All that the server's database keeps of input and result, references included.
    stored_bytes : int or None
        Size of the result's object, as the store says.
    seconds : float
        From start to end, as the server recorded them.
    """

    run_id: int
    task_id: int
    who: str
    what: str
    status: str
    reference: Reference | None
    input_reference: Reference | None
    database_bytes: int
    stored_bytes: int | None
    seconds: float


_RUNS = """
select run.id, run.task_id, organization.name, task.name, run.status, run.result_reference, run.input_reference,
       length(coalesce(run.result, '')) + length(coalesce(run.input, ''))
       + length(coalesce(run.result_reference, '')) + length(coalesce(run.input_reference, '')),
       coalesce((julianday(run.finished_at) - julianday(run.started_at)) * 86400.0, 0)
from run join task on task.id = run.task_id join organization on organization.id = run.organization_id
order by run.id
"""


def run_rows(database: Path, stat: Mapping[str, int]) -> list[RunRow]:
    """All runs, straight from the server's SQLite file.

    Parameters
    ----------
    database : Path
    stat : mapping of str to int
        Sizes of all objects by location, as :func:`object_sizes` found them.
    """
    import json

    rows = []
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        for run_id, task_id, who, what, status, result, input_, size, seconds in connection.execute(_RUNS):
            reference = parse_reference(json.loads(result)) if result else None
            rows.append(
                RunRow(
                    run_id,
                    task_id,
                    who,
                    what,
                    status,
                    reference,
                    parse_reference(json.loads(input_)) if input_ else None,
                    int(size),
                    stat.get(reference.location) if reference else None,
                    float(seconds),
                )
            )
    return rows


def object_sizes(stores: Sequence[StoreConfig]) -> dict[str, int]:
    """Sizes of all objects in some stores, opened with credentials that may list."""
    sizes: dict[str, int] = {}
    for config in stores:
        store = open_store(config)
        try:
            sizes.update({str(info.location): info.size for info in store.list(store.root)})
        finally:
            store.close()
    return sizes


@dataclass(frozen=True)
class Attempt:
    """One party's try to read another's object."""

    reader: str
    owner: str
    location: str
    configuration: str
    store: str


def try_to_read(reader: Party, owner: Party, reference: Reference, *, enforced: bool) -> Attempt:
    """Let one hospital's identity try to read another's object: by its configuration, then past it.

    Parameters
    ----------
    reader, owner : Party
    reference : Reference
        Of the owner's object.
    enforced : bool
        Whether the store checks identities. Folders of one user on one machine do not.
    """
    assert reader.block is not None  # noqa: S101 - every party of the demo is extended
    config = load_large_result_store(reader.block, source=f"the node of {reader.name}")
    location = reference.parsed_location
    try:
        config.store_for_reading(
            location, organization_id=owner.organization_id, own_organization_id=reader.organization_id
        )
        by_configuration = "ALLOWED"
    except LocationRefused:
        by_configuration = "refused by configuration"
    by_store = "not asked (folders of one user: nothing but the configuration keeps them apart)"
    if enforced:
        by_store = _ask_store(config, location)
    return Attempt(reader.name, owner.name, str(location), by_configuration, by_store)


def _ask_store(config: LargeResultStore, location: Location) -> str:
    """Go past the configuration: use this party's credential on the other's container."""
    import dataclasses

    root = Location(location.driver, location.authority, location.segments[:1])
    store = open_store(dataclasses.replace(config.own, root=root))
    try:
        for _ in store.read(location, length=16):
            return "ALLOWED"
        return "ALLOWED"
    except StoreAccessDenied:
        return "refused by the store"
    finally:
        store.close()


def payload_in_database(database: Path, payload: bytes) -> bool:
    """Whether a piece of a payload occurs anywhere in the database's files."""
    for path in (database, database.with_name(database.name + "-wal")):
        if path.exists() and payload in path.read_bytes():
            return True
    return False
