"""The demo's final table, for a person, and the same as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from vantage6_largefile.demo.evidence import Attempt, RunRow
from vantage6_largefile.location import Location
from vantage6_largefile.reference import LAYOUT_ROOT

#: Measured with vantage6 4.15.2 on PostgreSQL: larger results end in "invalid memory alloc request size".
STOCK_DATABASE_LIMIT_MIB = 385


def mib(size: int | None) -> str:
    """A size for people."""
    if size is None:
        return "-"
    return f"{size / 2**20:,.1f} MiB" if size >= 2**17 else f"{size:,} B"


def short_location(location: Location) -> str:
    """A location without the parts that are the same in every row: server id and collaboration."""
    root = location.segments.index(LAYOUT_ROOT)
    store = "/".join((location.authority, *location.segments[:root]))
    return f"{location.driver}://{store}/…/{location.segments[-2]}/{location.segments[-1][:8]}…"


def print_report(
    console: Console,
    *,
    rows: Sequence[RunRow],
    model: Mapping[str, object],
    attempts: Sequence[Attempt],
    database_bytes: int,
    payload_found: bool,
    parameters: int,
    seconds: float,
) -> None:
    """Print all that the demo found."""
    runs = _table(console, "Where every result is")
    for heading in ("run", "who", "what", "status", "stored at"):
        runs.add_column(heading, justify="right" if heading == "run" else "left", overflow="fold")
    for heading in ("in store", "in database", "seconds"):
        runs.add_column(heading, justify="right")
    for row in rows:
        runs.add_row(
            str(row.run_id),
            row.who,
            row.what,
            row.status,
            short_location(row.reference.parsed_location) if row.reference else "the server's database",
            mib(row.stored_bytes),
            mib(row.database_bytes),
            f"{row.seconds:.1f}",
        )
    console.print(runs)

    quality = _table(console, "What the model has learnt (texts of codes that no hospital has seen)")
    for heading in ("", "top-1", "top-5", "seconds"):
        quality.add_column(heading, justify="left" if not heading else "right")
    baseline = _mapping(model["baseline"])
    quality.add_row("majority baseline", f"{baseline['top1']:.1%}", f"{baseline['top5']:.1%}", "")
    for item in _list(model["rounds"]):
        quality.add_row(
            f"after round {item['round']}", f"{item['top1']:.1%}", f"{item['top5']:.1%}", f"{item['seconds']:.1f}"
        )
    console.print(quality)

    walls = _table(console, "One hospital tries to read another's object")
    for heading in ("who", "whose", "by its configuration", "past it, with its credential"):
        walls.add_column(heading, overflow="fold")
    for attempt in attempts:
        walls.add_row(attempt.reader, attempt.owner, attempt.configuration, attempt.store)
    console.print(walls)

    console.print(
        f"Parameters: {parameters:,} (float32, {mib(parameters * 4)}). Stock vantage6 4.15.2 fails from "
        f"{STOCK_DATABASE_LIMIT_MIB} MiB on its database route; here the database has {mib(database_bytes)} in all."
    )
    console.print(
        "Payload in the database: "
        + ("[bold red]FOUND[/]" if payload_found else "[bold green]none[/] (searched for bytes of the model)")
    )
    console.print(f"Done in {seconds:.0f} s.")


def _table(console: Console, title: str) -> Table:
    # A title of the table itself would be folded to the table's width.
    console.print(f"\n[bold]{title}[/]")
    return Table()


def _mapping(value: object) -> Mapping[str, float]:
    if not isinstance(value, Mapping):
        raise TypeError("the model's result has no such table")
    return value


def _list(value: object) -> list[Mapping[str, float]]:
    if not isinstance(value, list):
        raise TypeError("the model's result has no such list")
    return value
