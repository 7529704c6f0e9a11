"""From the command line to a store: which configuration, and which of its stores a name or location means."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from vantage6_largefile.config import LargeResultStore, StoreConfig, load_large_result_store
from vantage6_largefile.config.node import BLOCK
from vantage6_largefile.config.values import PLACEHOLDER
from vantage6_largefile.errors import ConfigurationError, InvalidReference, LocationRefused
from vantage6_largefile.location import Location

#: No organisation: `store_for_reading` then looks at the entries of ``readable`` only.
_NOBODY = -1


@dataclass(frozen=True, slots=True)
class Place:
    """A location, and the store that it lies in.

    Attributes
    ----------
    own : bool
        Whether it lies in the party's own store; all others are for reading.
    """

    location: Location
    store: StoreConfig
    own: bool


def load_config(path: Path) -> LargeResultStore:
    """The ``large_result_store`` block of a node configuration, or of a file that holds nothing but the block.

    Raises
    ------
    ConfigurationError
        With every mistake at once; never quotes the file, which may hold secrets.
    """
    try:
        document = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigurationError([f"cannot be read: {error.strerror}"], source=str(path)) from error
    except UnicodeDecodeError:
        raise ConfigurationError(["is not text in UTF-8"], source=str(path)) from None
    except yaml.YAMLError as error:
        # The parser's own message quotes the line, which may be the one with the secret.
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
        raise ConfigurationError([f"{where}is not YAML"], source=str(path)) from None
    if not isinstance(document, Mapping):
        raise ConfigurationError([f"expected a mapping with the block {BLOCK}"], source=str(path))
    block = document.get(BLOCK, document)
    if BLOCK not in document and "driver" not in document:
        raise ConfigurationError([f"found neither the block {BLOCK} nor its key driver"], source=str(path))
    if not isinstance(block, Mapping):
        raise ConfigurationError([f"{BLOCK}: expected a mapping"], source=str(path))
    return load_large_result_store(block, source=str(path))


def object_place(config: LargeResultStore, text: str) -> Place:
    """The object that a name (below the own store's root) or a full location means.

    Raises
    ------
    InvalidReference
        The text breaks the grammar of locations, or names a store and no object.
    LocationRefused
        The location lies neither in the own store nor in one of ``readable``.
    """
    place = prefix_place(config, text)
    if place.location == place.store.root:
        raise InvalidReference(f"{text!r} names a store and no object in it.")
    return place


def prefix_place(config: LargeResultStore, text: str) -> Place:
    """What to list: as :func:`object_place`, but the store itself is allowed, and so is a slash at the end."""
    own = config.own
    if "://" not in text:
        name = text.removesuffix("/")
        return Place(own.root.child(*name.split("/")) if name else own.root, own, own=True)
    location = Location.parse(text.removesuffix("/"))
    if own.root.contains(location):
        return Place(location, own, own=True)
    for organization in _writers(config, location):
        try:
            store = config.store_for_reading(location, organization_id=organization, own_organization_id=_NOBODY)
        except LocationRefused:
            continue
        return Place(location, store, own=False)
    raise LocationRefused(
        f"{location} lies neither in the own store {own.root} nor in one of {BLOCK}.readable.",
        advice="Name an object of these, or add an entry to readable if this identity is meant to read it.",
    )


def _writers(config: LargeResultStore, location: Location) -> Iterator[int]:
    """The organisations whose ``readable`` entry may hold `location`: the one named there, or the one in the text."""
    for entry in config.readable:
        if entry.organization != "*":
            yield entry.organization
            continue
        first, *rest = (re.escape(piece) for piece in entry.location.text.split(PLACEHOLDER))
        pattern = first + "".join(("([1-9][0-9]{0,9})" if i == 0 else r"\1") + piece for i, piece in enumerate(rest))
        match = re.match(pattern + r"(?:/|\Z)", str(location))
        if match:
            yield int(match[1])
