"""What every benchmark writes: one JSON document, and the same as a table."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from rich.console import Console
from rich.table import Table

MIB = 1 << 20
_PACKAGES = ("vantage6-largefile", "vantage6-common", "azure-storage-blob", "azure-core", "requests", "cryptography")


@dataclass(frozen=True)
class Sample:
    """One measured run.

    Attributes
    ----------
    seconds, cpu_seconds : float
        Wall clock, and user and system time of the measured process.
    peak_rss_mib : float
    """

    seconds: float
    cpu_seconds: float
    peak_rss_mib: float


@dataclass(frozen=True)
class Row:
    """One line of a benchmark; medians over its runs. A ratio above 1 means that ours is faster."""

    name: str
    size: int
    encrypted: bool
    seconds: float
    cpu_seconds: float
    peak_rss_mib: float
    ratio_to_sdk: float | None = None
    ratio_to_stock: float | None = None

    def to_dict(self) -> dict[str, object]:
        """Without the ratios that there are not."""
        return {key: value for key, value in asdict(self).items() if value is not None}


def row_of(
    name: str,
    size: int,
    samples: Sequence[Sample],
    *,
    encrypted: bool,
    sdk: Sequence[Sample] = (),
    stock: Sequence[Sample] = (),
) -> Row:
    """The row of one contender.

    The ratio to a competitor is the median of the ratios within each round, in which both ran one after the other: on
    a machine whose speed drifts that is steadier than the ratio of two medians.
    """
    return Row(
        name=name,
        size=size,
        encrypted=encrypted,
        seconds=statistics.median(sample.seconds for sample in samples),
        cpu_seconds=statistics.median(sample.cpu_seconds for sample in samples),
        peak_rss_mib=max(sample.peak_rss_mib for sample in samples),
        ratio_to_sdk=_ratio(samples, sdk),
        ratio_to_stock=_ratio(samples, stock),
    )


def _ratio(ours: Sequence[Sample], theirs: Sequence[Sample]) -> float | None:
    if not theirs:
        return None
    return statistics.median(their.seconds / our.seconds for our, their in zip(ours, theirs, strict=True))


def machine() -> dict[str, object]:
    """What the numbers depend on, without a name of the machine."""
    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].partition(":")[2].strip() if lines else model
    return {
        "system": platform.system(),
        "release": platform.release(),
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // MIB,
        "load": os.getloadavg(),
    }


def versions() -> dict[str, str]:
    """Of Python and of the packages that move bytes."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        found[name] = metadata.version(name)
    return found


def write_json(rows: Sequence[Row], path: Path, *, extra: Mapping[str, object] | None = None) -> None:
    """Write the document of a benchmark."""
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "machine": machine(),
        "versions": versions(),
        **(extra or {}),
        "rows": [row.to_dict() for row in rows],
    }
    path.write_text(json.dumps(document, indent=2) + "\n")


def default_path(name: str) -> Path:
    """Where the results of a run go when nobody says otherwise; not committed."""
    return Path(__file__).parent / "results" / f"{name}-{time.strftime('%Y%m%dT%H%M%S')}.json"


def print_table(rows: Sequence[Row]) -> None:
    """The rows for people."""
    table = Table("what", "size", "seconds", "MiB/s", "CPU s", "peak RSS MiB", "× SDK", "× stock")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(
            row.name,
            f"{row.size / MIB:,.0f} MiB",
            f"{row.seconds:.3f}",
            f"{row.size / MIB / row.seconds:,.0f}",
            f"{row.cpu_seconds:.2f}",
            f"{row.peak_rss_mib:.0f}",
            "" if row.ratio_to_sdk is None else f"{row.ratio_to_sdk:.2f}",
            "" if row.ratio_to_stock is None else f"{row.ratio_to_stock:.2f}",
        )
    Console(width=130).print(table)
