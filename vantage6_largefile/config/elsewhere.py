"""The ``readable`` and ``shared`` blocks: stores that are not this party's own."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from vantage6_largefile.config.blocks import ElsewhereBlock, ReadableBlock, SharedBlock
from vantage6_largefile.config.credentials import parse_credential
from vantage6_largefile.config.drivers import Follows, Neighbourhood, OwnStore, StoreTemplate
from vantage6_largefile.config.problems import Mistake, Problems, check, describe
from vantage6_largefile.config.result_store import Readable, Shared
from vantage6_largefile.config.values import PLACEHOLDER, LocationPattern, parse_organization
from vantage6_largefile.location import is_segment

log = logging.getLogger(__name__)

#: The option that says what the authority of a location stands for.
_MEANING = {"azure": "account_url", "file": "path", "s3": "endpoint_url"}


def text_options(raw: object, path: str, problems: Problems) -> dict[str, str] | None:
    """The ``options`` of a driver that this package does not bring: text by name. None when absent or broken."""
    if raw is None:
        return None
    if not isinstance(raw, Mapping):
        problems.expected(path, raw, "a mapping of text to text", hidden=True)
        return None
    options = {}
    for key, value in raw.items():
        if not isinstance(key, str) or not isinstance(value, str):
            problems.expected(f"{path}.{key}", value, "text (numbers and true/false need quotes)", hidden=True)
        else:
            options[key] = value
    return options


@dataclass(frozen=True, slots=True)
class Entries:
    """Reads the entries of one configuration."""

    around: Neighbourhood
    problems: Problems
    environ: Mapping[str, str]

    def readable(self, raw: object, path: str) -> tuple[Readable, ...]:
        """The entries of ``readable`` that are without mistake."""
        entries: list[Readable] = []
        for where, item in self._items(raw, path):
            block, _ = check(ReadableBlock, item, where, self.problems)
            if block is None:
                continue
            organization: int | Literal["*"] | None = None
            try:
                organization = parse_organization(block.organization)
            except Mistake:
                self.problems.expected(f"{where}.organization", block.organization, "an organisation id or '*'")
            location = self._location(block.location, f"{where}.location")
            if organization == "*" and location is not None and not location.has_placeholder:
                self.problems.add(
                    f"{where}.location",
                    f"found {str(location)!r}, which is the same for every organisation, expected {PLACEHOLDER} in it, "
                    f"or an organisation id instead of '*'",
                )
                continue
            store = self._store(block, location, where)
            if organization is None or store is None:
                continue
            if any(e.organization == organization and e.location == store.location for e in entries):
                self.problems.add(where, f"found {store.location} twice for organisation {organization}, expected once")
            entries.append(Readable(organization, store))
        return tuple(entries)

    def shared(self, raw: object, path: str) -> tuple[Shared, ...]:
        """The entries of ``shared`` that are without mistake."""
        entries: list[Shared] = []
        for where, item in self._items(raw, path):
            block, broken = check(SharedBlock, item, where, self.problems)
            if block is None:
                continue
            name = block.name
            if "name" not in broken and (name is None or not is_segment(name)):
                self.problems.expected(f"{where}.name", name, "a name of letters, digits, '.', '_' and '-'")
                name = None
            if name is not None and any(entry.name == name for entry in entries):
                self.problems.add(f"{where}.name", f"found {name!r} twice, expected every name once")
            manifest = None if block.manifest is None else tuple(block.manifest.split("/"))
            if "manifest" not in broken and (manifest is None or not all(map(is_segment, manifest))):
                self.problems.expected(
                    f"{where}.manifest", block.manifest, "the path of the list of checksums, below the location"
                )
                manifest = None
            location = self._location(block.location, f"{where}.location")
            if location is not None and location.has_placeholder:
                self.problems.add(f"{where}.location", f"found {PLACEHOLDER}, which has no meaning here, expected none")
                continue
            store = self._store(block, location, where)
            if name is not None and manifest is not None and store is not None:
                config = store.for_organization(1)  # no placeholder: the same for all
                entries.append(Shared(name, config, config.root.child(*manifest)))
        return tuple(entries)

    def _items(self, raw: object, path: str) -> Iterator[tuple[str, object]]:
        if raw is None:
            return
        if not isinstance(raw, list | tuple):
            self.problems.expected(path, raw, "a list of entries", hidden=True)
            return
        for index, item in enumerate(raw):
            yield f"{path}[{index}]", item

    def _location(self, raw: object, path: str) -> LocationPattern | None:
        try:
            return LocationPattern.parse(raw)
        except Mistake as mistake:
            self.problems.add(path, f"found {describe(raw)}: {mistake}")
            return None

    def _store(self, block: ElsewhereBlock, location: LocationPattern | None, where: str) -> StoreTemplate | None:
        before = len(self.problems.lines)
        credential = None
        if block.credential is not None:
            credential = parse_credential(
                block.credential,
                path=f"{where}.credential",
                problems=self.problems,
                environ=self.environ,
                allow_custom=self.around.allow_custom,
            )
        options = text_options(block.options, f"{where}.options", self.problems)
        if location is None or len(self.problems.lines) > before:
            return None
        try:
            return self.around.template(
                location,
                credential=credential,
                account_url=block.account_url,
                endpoint_url=block.endpoint_url,
                region=block.region,
                path=block.path,
                options=options,
            )
        except Mistake as mistake:
            key, _, text = str(mistake).partition(": ")
            self.problems.add(f"{where}{key}", text)
        except Follows:
            pass
        return None


def check_names(own: OwnStore, readable: tuple[Readable, ...], shared: tuple[Shared, ...], problems: Problems) -> None:
    """One name in locations (account, server, root) stands for one endpoint or folder, whichever entry has it."""
    meaning: dict[tuple[str, str], tuple[str, str]] = {}
    stores = [("the node's own store", own.root.driver, own.root.authority, own.options)]
    stores += [
        (f"readable[{i}]", e.location.driver, e.location.text.split("/")[2], e.store.options)
        for i, e in enumerate(readable)
    ]
    stores += [(f"shared[{i}]", e.location.driver, e.location.authority, e.store.options) for i, e in enumerate(shared)]
    for where, driver, authority, options in stores:
        resolved = options.get(_MEANING.get(driver, ""))
        if driver == "s3":
            # Of a server, the buckets may lie in different regions: only the URL says which server it is.
            resolved = resolved or "AWS"
        if resolved is None:
            continue
        first = meaning.setdefault((driver, authority), (where, resolved))
        if first[1] != resolved:
            problems.add(
                f"large_result_store.{where}",
                f"found {driver}://{authority} for {resolved}, but {first[0]} has it for {first[1]}; expected one "
                "meaning for one name",
            )


def warn_of_overlap(own: OwnStore, readable: tuple[Readable, ...]) -> None:
    """Say once, in the log, where two organisations write into the same place.

    No mistake in itself: objects carry server, run and organisation in their names. But neither the store's rights
    nor this configuration keep such organisations apart.
    """
    places = [("this node's own store", own.root)]
    places += [
        (f"organisation {entry.organization}", entry.location.for_organization(entry.organization))
        for entry in readable
        if entry.organization != "*"
    ]
    for (who, place), (other, other_place) in combinations(places, 2):
        if who != other and (place.contains(other_place) or other_place.contains(place)):
            log.warning(
                "large_result_store.readable: %s (%s) and %s (%s) share a place; give each its own container or prefix",
                who,
                place,
                other,
                other_place,
            )
