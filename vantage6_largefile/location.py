"""Locations: the one grammar for the name of a store or of an object (design: section 3).

``driver://authority/segment/segment/…`` is parsed once into a tuple and only ever compared segment by segment.
Text from a reference is data of another party: it never becomes a host name or a file path by itself. The
authority is a *name* that local configuration resolves.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from vantage6_largefile.errors import InvalidReference

#: A driver is named like an entry point: lower case, digits, dashes.
_DRIVER = re.compile(r"[a-z][a-z0-9-]{0,31}\Z")
#: No ``%``, ``\``, ``?``, ``#``, ``@``, ``:``; never empty, ``.`` or ``..``; a final dot is checked apart.
_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*\Z")
#: Longest text that is looked at: Azure allows 1024 characters of blob name, plus account and container.
MAX_LENGTH = 1200


def is_segment(text: str) -> bool:
    """Whether `text` may be one segment (or the authority) of a location.

    Parameters
    ----------
    text : str
        The candidate, without any slash.

    Returns
    -------
    bool
        True when it matches ``[A-Za-z0-9_][A-Za-z0-9._-]*`` and does not end in a dot.
    """
    return bool(_SEGMENT.match(text)) and not text.endswith(".")


@dataclass(frozen=True, slots=True)
class Location:
    """The name of a store or an object: driver, authority and segments.

    Build it with :meth:`parse` or :meth:`child`, which check the grammar; the constructor checks it too.

    Raises
    ------
    InvalidReference
        When a part breaks the grammar.
    """

    driver: str
    authority: str
    segments: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not _DRIVER.match(self.driver):
            raise InvalidReference(f"Location: driver {self.driver[:40]!r} is not a lower-case driver name.")
        if not is_segment(self.authority):
            raise InvalidReference(f"Location: authority {self.authority[:80]!r} is not allowed in a location.")
        for segment in self.segments:
            if not is_segment(segment):
                raise InvalidReference(
                    f"Location: segment {segment[:80]!r} is not allowed in a location.",
                    advice="Segments match [A-Za-z0-9_][A-Za-z0-9._-]* and do not end in a dot.",
                )
        if len(str(self)) > MAX_LENGTH:
            raise InvalidReference(f"Location: longer than {MAX_LENGTH} characters.")

    @classmethod
    def parse(cls, text: str) -> Location:
        """Parse ``driver://authority/segment/…``.

        Parameters
        ----------
        text : str
            The location. Nothing in it is decoded, normalised or trimmed.

        Returns
        -------
        Location

        Raises
        ------
        InvalidReference
            When the text breaks the grammar.
        """
        if not isinstance(text, str):
            raise InvalidReference(f"Location: expected text, got {type(text).__name__}.")
        if len(text) > MAX_LENGTH:
            raise InvalidReference(f"Location: longer than {MAX_LENGTH} characters.")
        driver, separator, rest = text.partition("://")
        if not separator:
            raise InvalidReference(
                f"Location: {text[:80]!r} has no '://'.", advice="Expected driver://authority/segment/…"
            )
        authority, *segments = rest.split("/")
        return cls(driver, authority, tuple(segments))

    def __str__(self) -> str:
        return f"{self.driver}://" + "/".join((self.authority, *self.segments))

    def child(self, *segments: str) -> Location:
        """The location below this one; each argument is exactly one segment."""
        return Location(self.driver, self.authority, (*self.segments, *segments))

    def contains(self, other: Location) -> bool:
        """Whether `other` is this location or lies below it, compared segment by segment and case-sensitively.

        ``azure://a/hospital-a`` does not contain ``azure://a/hospital-a2``.
        """
        return (
            self.driver == other.driver
            and self.authority == other.authority
            and self.segments == other.segments[: len(self.segments)]
        )

    def relative(self, other: Location) -> tuple[str, ...]:
        """The segments of `other` below this location.

        Raises
        ------
        InvalidReference
            When `other` does not lie below this location.
        """
        if not self.contains(other):
            raise InvalidReference(f"Location {other} does not lie below {self}.")
        return other.segments[len(self.segments) :]
