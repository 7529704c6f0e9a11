"""Small values as people write them: sizes, durations, prefixes, organisation ids, patterns of locations."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import BeforeValidator

from vantage6_largefile.config.problems import Mistake
from vantage6_largefile.errors import InvalidReference
from vantage6_largefile.location import Location, is_segment
from vantage6_largefile.reference import MAX_SIZE

_SIZE = re.compile(r"\s*([0-9]{1,16}(?:\.[0-9]{1,6})?)\s*([kmgt]i?b|b)?\s*\Z", re.IGNORECASE | re.ASCII)
_SIZE_UNITS = {"b": 1, "": 1} | {
    f"{letter}{infix}b": base**power
    for power, letter in enumerate("kmgt", start=1)
    for infix, base in (("", 1000), ("i", 1024))
}
_DURATION = re.compile(r"\s*([0-9]{1,9})\s*(s|m|h|d)\s*\Z", re.IGNORECASE | re.ASCII)
_DURATION_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
MAX_ORGANIZATION_ID = 2**31 - 1

PLACEHOLDER = "{organization_id}"


def parse_size(value: object) -> int:
    """Bytes from ``1MiB``, ``8 MiB``, ``500MB``, ``1.5GiB`` or an int. ``MB`` is 1000², ``MiB`` is 1024².

    Raises
    ------
    Mistake
        For anything else: floats, negative numbers, fractions of a byte, more than 2**53 - 1.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    else:
        match = _SIZE.match(value) if isinstance(value, str) else None
        if match is None:
            raise Mistake("expected a size")
        exact = Decimal(match[1]) * _SIZE_UNITS[(match[2] or "").lower()]
        size = int(exact)
        if size != exact:
            raise Mistake("expected whole bytes")
    if not 0 <= size <= MAX_SIZE:
        raise Mistake("expected a size that exists")
    return size


def parse_rate(value: object) -> int:
    """Bytes per second: a size, with or without ``/s`` behind it."""
    return parse_size(value.rstrip().removesuffix("/s") if isinstance(value, str) else value)


def parse_duration(value: object) -> float:
    """Seconds from ``24h``, ``30m``, ``90s``, ``7d`` or an int of seconds.

    Raises
    ------
    Mistake
        For anything else.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        seconds = value
    else:
        match = _DURATION.match(value) if isinstance(value, str) else None
        if match is None:
            raise Mistake("expected a duration")
        seconds = int(match[1]) * _DURATION_UNITS[match[2].lower()]
    if not 0 <= seconds <= 10**12:
        raise Mistake("expected a duration that exists")
    return float(seconds)


def parse_prefix(value: object) -> tuple[str, ...]:
    """Segments from ``""``, ``ziekenhuis-a/`` or ``a/b``; one final slash is dropped, nothing else is mended."""
    if not isinstance(value, str):
        raise Mistake("expected text")
    text = value.removesuffix("/")
    segments = tuple(text.split("/")) if text else ()
    if (value and not text) or not all(is_segment(segment) for segment in segments):
        raise Mistake("expected segments")
    return segments


def parse_organization_id(value: object) -> int:
    """An organisation id: a positive int, or its digits as text (YAML and JSON keys are often text)."""
    if isinstance(value, str) and re.fullmatch(r"[1-9][0-9]{0,9}", value, re.ASCII):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_ORGANIZATION_ID:
        raise Mistake("expected an organisation id")
    return value


def parse_organization(value: object) -> int | Literal["*"]:
    """An organisation id, or ``*`` for all that have no entry of their own."""
    return "*" if value == "*" else parse_organization_id(value)


def parse_fingerprint(value: object) -> str:
    """64 lower-case hex digits from a SHA-256 fingerprint, also when written ``AB:CD:…``."""
    text = value.replace(":", "").lower() if isinstance(value, str) else ""
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise Mistake("expected a fingerprint")
    return text


Bytes = Annotated[int, BeforeValidator(parse_size)]
BytesPerSecond = Annotated[int, BeforeValidator(parse_rate)]
Seconds = Annotated[float, BeforeValidator(parse_duration)]
Prefix = Annotated[tuple[str, ...], BeforeValidator(parse_prefix)]


@dataclass(frozen=True, slots=True)
class LocationPattern:
    """A configured location, in which ``{organization_id}`` may stand for digits. Build it with :meth:`parse`.

    The digits are filled in before the grammar is applied and before anything is compared, so a pattern matches
    whole segments, never a beginning of one.
    """

    text: str

    @classmethod
    def parse(cls, value: object) -> LocationPattern:
        """Check that every organisation id gives a location.

        Raises
        ------
        Mistake
            Saying which part is wrong.
        """
        if not isinstance(value, str):
            raise Mistake("expected driver://authority/segment/…")
        driver = value.partition("://")[0]
        if "{" in driver:
            raise Mistake("no placeholder can stand in the driver's name")
        if "{" in value.replace(PLACEHOLDER, "") or "}" in value.replace(PLACEHOLDER, ""):
            raise Mistake(f"the only placeholder is {PLACEHOLDER}")
        pattern = cls(value)
        try:
            # A single slash at the end is a habit; the grammar has no empty segment, and says so.
            for sample in SAMPLE_IDS:
                pattern.for_organization(sample)
        except InvalidReference as error:
            raise Mistake(f"{error} Expected driver://authority/segment/… without a final slash") from None
        return pattern

    @property
    def has_placeholder(self) -> bool:
        """Whether the location differs by organisation."""
        return PLACEHOLDER in self.text

    @property
    def driver(self) -> str:
        """The driver's name."""
        return self.text.partition("://")[0]

    def for_organization(self, organization_id: int) -> Location:
        """The location of one organisation."""
        return Location.parse(fill(self.text, organization_id))

    def __str__(self) -> str:
        return self.text


#: The shortest and the longest id: what is allowed for both is allowed for all in between.
SAMPLE_IDS = (1, MAX_ORGANIZATION_ID)


def fill(text: str, organization_id: int) -> str:
    """`text` with the digits of an organisation id in place of ``{organization_id}``."""
    return text.replace(PLACEHOLDER, str(int(organization_id)))
