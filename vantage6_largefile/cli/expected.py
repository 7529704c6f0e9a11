"""What an object must be when it is read by hand: by its reference, by a digest, or only by the store's own word."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click

from vantage6_largefile.errors import InvalidReference
from vantage6_largefile.location import Location
from vantage6_largefile.reference import parse_reference
from vantage6_largefile.stores import ObjectInfo, Store
from vantage6_largefile.transfer import CancelToken, TransferOptions
from vantage6_largefile.transfer.local import local_disk
from vantage6_largefile.transfer.retry import Patience


@dataclass(frozen=True, slots=True)
class Expected:
    """What the stored form of an object must be.

    Attributes
    ----------
    stored_size : int
    sha256 : str or None
        None: nobody said, nothing can be verified.
    etag : str or None
    """

    stored_size: int
    sha256: str | None
    etag: str | None


def announced(
    location: Location, sha256: str | None, reference_file: Path | None
) -> Callable[[Store, TransferOptions, CancelToken], Expected]:
    """What the caller says of the object; a size that nobody said is asked of the store.

    Raises
    ------
    InvalidReference
        The file is no reference, or that of another object.
    click.UsageError
        Both were given.
    """
    if reference_file is not None:
        if sha256 is not None:
            raise click.UsageError("--sha256 and --reference say the same twice; give one of them.")
        expected = _of_reference(location, reference_file)
        return lambda _store, _options, _cancel: expected

    def ask(store: Store, options: TransferOptions, cancel: CancelToken) -> Expected:
        info = look(store, location, options, cancel)
        return Expected(info.size, sha256, info.etag)

    return ask


def look(store: Store, location: Location, options: TransferOptions, cancel: CancelToken) -> ObjectInfo:
    """What the store says of an object; tried again as long as a transfer would be."""
    return Patience(location, options.retry_for, cancel).call(lambda: store.stat(location))


def _of_reference(location: Location, file: Path) -> Expected:
    try:
        with local_disk(file):
            document = json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        raise InvalidReference(f"{file} is not JSON.") from None
    reference = parse_reference(document)
    if reference.parsed_location != location:
        raise InvalidReference(f"{file} is the reference of {reference.location}, not of {location}.")
    return Expected(reference.stored_size, reference.sha256, reference.etag)
