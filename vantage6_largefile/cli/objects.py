"""``v6-largefile object``: put, get, look at, list, remove and verify objects of a configured store by hand."""

from __future__ import annotations

import os
import re
import secrets
import shlex
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import click

from vantage6_largefile.cli.expected import announced, look
from vantage6_largefile.cli.place import Place, load_config, object_place, prefix_place
from vantage6_largefile.cli.running import EXIT_CODES, Answer, answering, interruptible
from vantage6_largefile.config import LargeResultStore
from vantage6_largefile.errors import (
    LocationRefused,
    ObjectExists,
    ObjectNotFound,
    StoreAccessDenied,
    StoreUnavailable,
    TransferCancelled,
)
from vantage6_largefile.location import Location
from vantage6_largefile.progress import progress_on_stderr
from vantage6_largefile.reference import MEDIA_TYPES
from vantage6_largefile.stores import ObjectInfo, Store, open_store
from vantage6_largefile.transfer import (
    CancelToken,
    Progress,
    TransferOptions,
    download_file,
    iter_object,
    upload_file,
)
from vantage6_largefile.transfer.local import local_disk

_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_NAMES = (
    "NAME is relative to the configured store (its prefix included); a full location, driver://…, may also lie in one "
    "of the stores under 'readable'."
)
_STORED_FORM = (
    "Objects are moved in their stored form: what is encrypted stays so, nothing is encrypted or decrypted here."
)


def _help(*paragraphs: str) -> str:
    return "\n\n".join(paragraphs)


_CONFIG = click.option(
    "-c",
    "--config",
    "config_file",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A node's configuration (YAML), or a file with only its block large_result_store.",
)
_QUIET = click.option("-q", "--quiet", is_flag=True, help="No progress.")
_RETRY_FOR = click.option(
    "--retry-for",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Give up when nothing moved for so long; default: transfer.retry_for of the configuration.",
)


def _digest(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and not _SHA256.match(value.lower()):
        raise click.BadParameter("expected 64 hex digits")
    return value.lower() if value is not None else None


_SHA256_OPTION = click.option("--sha256", callback=_digest, metavar="HEX", help="What the stored form must be.")
_REFERENCE = click.option(
    "--reference",
    "reference_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE.json",
    help="The reference of the object: its size, sha256 and etag are what must be found.",
)


@click.group(
    "object",
    epilog=EXIT_CODES,
    help=_help(
        "Objects of a configured store, by hand.",
        _NAMES,
        _STORED_FORM,
        "With --json, stdout holds exactly one JSON document; progress and messages go to stderr.",
    ),
)
def objects() -> None:
    """Group of the commands; its help is above."""


# --- put ---------------------------------------------------------------------------------------------------------


@objects.command(
    "put",
    epilog=EXIT_CODES,
    help=_help(
        "Upload FILE as it is, as the object NAME (default: the file's name). Never overwrites.",
        _STORED_FORM,
        "The object appears whole, at the end, or not at all. With --session an upload that was interrupted, by "
        "Ctrl-C, by a store that is away or by a crash, goes on where it was when the same command is run again.",
    ),
)
@_CONFIG
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("name", required=False)
@click.option(
    "--session",
    "session_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where to keep the record of this upload, by which it can go on; removed when it is done.",
)
@click.option(
    "--media-type", type=click.Choice(sorted(MEDIA_TYPES)), default="application/octet-stream", show_default=True
)
@_SHA256_OPTION
@_RETRY_FOR
@_QUIET
@answering
def put(
    config_file: Path,
    file: Path,
    name: str | None,
    session_file: Path | None,
    media_type: str,
    sha256: str | None,
    retry_for: float | None,
    quiet: bool,
) -> Answer:
    """Upload a file."""
    config = load_config(config_file)
    place = _own(object_place(config, name if name is not None else file.name), config)
    options = _options(config, retry_for)

    def work(store: Store, progress: Progress | None, cancel: CancelToken) -> Answer:
        if session_file is None or not session_file.exists():
            _require_absent(store, place.location, options, cancel)
        stored = upload_file(
            store,
            file,
            place.location,
            media_type=media_type,
            options=options,
            progress=progress,
            cancel=cancel,
            session_file=session_file,
            sha256=sha256,
        )
        document: dict[str, object] = {
            "location": str(stored.location),
            "stored_size": stored.stored_size,
            "sha256": stored.sha256,
            "etag": stored.etag,
        }
        text = f"Stored {stored.location}: {stored.stored_size} bytes, sha256 {stored.sha256}."
        return Answer(document, text)

    try:
        return _transfer(place, f"put {file.name}", quiet, work)
    except (StoreUnavailable, TransferCancelled):
        if session_file is not None and session_file.exists():
            click.echo(f"To go on, run this again:\n  {_command_line()}", err=True)
        elif session_file is None:
            click.echo("Nothing was stored. With --session FILE an upload can be gone on with.", err=True)
        raise


def _require_absent(store: Store, location: Location, options: TransferOptions, cancel: CancelToken) -> None:
    """Find out before hours of sending, where the credential lets us, that the name is taken; commit checks again."""
    try:
        look(store, location, options, cancel)
    except (ObjectNotFound, StoreAccessDenied):
        return
    raise ObjectExists(f"{location} is already there; it was not touched.", advice="Choose another name.")


def _command_line() -> str:
    return shlex.join(["v6-largefile", *sys.argv[1:]])


# --- get, verify -------------------------------------------------------------------------------------------------


@objects.command(
    "get",
    epilog=EXIT_CODES,
    help=_help(
        "Download the object NAME (or a full location) to FILE, which appears whole or not at all.",
        _NAMES,
        _STORED_FORM,
        "With --sha256 or --reference the bytes are verified before FILE gets its name; without, the answer says that "
        "nothing could be verified.",
    ),
)
@_CONFIG
@click.argument("name", metavar="NAME|LOCATION")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@_SHA256_OPTION
@_REFERENCE
@click.option("--force", is_flag=True, help="Replace FILE when it is there.")
@_RETRY_FOR
@_QUIET
@answering
def get(
    config_file: Path,
    name: str,
    file: Path,
    sha256: str | None,
    reference_file: Path | None,
    force: bool,
    retry_for: float | None,
    quiet: bool,
) -> Answer:
    """Download an object."""
    config = load_config(config_file)
    place = object_place(config, name)
    expected_of = announced(place.location, sha256, reference_file)
    if not force and os.path.lexists(file):
        raise _file_exists(file)
    options = _options(config, retry_for)

    def work(store: Store, progress: Progress | None, cancel: CancelToken) -> Answer:
        expected = expected_of(store, options, cancel)
        target = file if force else file.with_name(f".{file.name[:80]}.{secrets.token_hex(8)}.got")
        download_file(
            store,
            place.location,
            target,
            stored_size=expected.stored_size,
            sha256=expected.sha256,
            etag=expected.etag,
            options=options,
            progress=progress,
            cancel=cancel,
        )
        if not force:
            _name_without_overwriting(target, file)
        verified = expected.sha256 is not None
        document: dict[str, object] = {
            "location": str(place.location),
            "file": str(file),
            "stored_size": expected.stored_size,
            "sha256": expected.sha256,
            "verified": verified,
        }
        how = "verified by its sha256." if verified else "NOT verified: neither --sha256 nor --reference was given."
        return Answer(document, f"Got {place.location} as {file}: {expected.stored_size} bytes, {how}")

    return _transfer(place, f"get {place.location.segments[-1]}", quiet, work)


def _file_exists(file: Path) -> ObjectExists:
    return ObjectExists(f"{file} is already there; it was not touched.", advice="--force replaces it.")


def _name_without_overwriting(temporary: Path, file: Path) -> None:
    """Give a whole file its name, also when somebody made one of that name while we were busy."""
    try:
        with local_disk(file):
            try:
                os.link(temporary, file)
            except FileExistsError:
                raise _file_exists(file) from None
            except OSError:
                # No hard links on this file system: as good as it gets.
                if os.path.lexists(file):
                    raise _file_exists(file) from None
                os.rename(temporary, file)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


@objects.command(
    "verify",
    epilog=EXIT_CODES,
    help=_help("Read an object and check that it is what was written; nothing is kept.", _NAMES),
)
@_CONFIG
@click.argument("name", metavar="NAME|LOCATION")
@_SHA256_OPTION
@_REFERENCE
@_RETRY_FOR
@_QUIET
@answering
def verify(
    config_file: Path,
    name: str,
    sha256: str | None,
    reference_file: Path | None,
    retry_for: float | None,
    quiet: bool,
) -> Answer:
    """Check an object."""
    if sha256 is None and reference_file is None:
        raise click.UsageError("--sha256 or --reference says what the object must be; one of them is needed.")
    config = load_config(config_file)
    place = object_place(config, name)
    expected_of = announced(place.location, sha256, reference_file)
    options = _options(config, retry_for)

    def work(store: Store, progress: Progress | None, cancel: CancelToken) -> Answer:
        expected = expected_of(store, options, cancel)
        pieces = iter_object(
            store,
            place.location,
            stored_size=expected.stored_size,
            sha256=expected.sha256,
            etag=expected.etag,
            options=options,
            progress=progress,
            cancel=cancel,
        )
        with closing(pieces):
            for _ in pieces:
                pass
        document: dict[str, object] = {
            "location": str(place.location),
            "stored_size": expected.stored_size,
            "sha256": expected.sha256,
            "verified": True,
        }
        return Answer(document, f"{place.location} is what was written: {expected.stored_size} bytes.")

    return _transfer(place, f"verify {place.location.segments[-1]}", quiet, work)


# --- stat, ls, rm ------------------------------------------------------------------------------------------------


@objects.command("stat", epilog=EXIT_CODES, help=_help("Size, etag and time of an object.", _NAMES))
@_CONFIG
@click.argument("name", metavar="NAME|LOCATION")
@answering
def stat(config_file: Path, name: str) -> Answer:
    """Look at an object."""
    place = object_place(load_config(config_file), name)
    with closing(open_store(place.store)) as store:
        info = store.stat(place.location)
    lines = [f"{key + ':':<10}{value}" for key, value in _document(info).items() if value is not None]
    return Answer(_document(info), "\n".join(lines))


@objects.command("ls", epilog=EXIT_CODES, help=_help("Objects below PREFIX, by name; default: all.", _NAMES))
@_CONFIG
@click.argument("prefix", default="")
@answering
def ls(config_file: Path, prefix: str) -> Answer:
    """List objects."""
    place = prefix_place(load_config(config_file), prefix)
    with closing(open_store(place.store)) as store:
        found = sorted(store.list(place.location), key=lambda info: info.location.segments)
    lines = [f"{info.size:>15}  {_time(info.modified) or '-':<20}  {info.location}" for info in found]
    return Answer([_document(info) for info in found], "\n".join(lines))


@objects.command(
    "rm",
    epilog=EXIT_CODES,
    help=_help(
        "Remove one object of the own store; asks first.",
        "A reference that the server keeps of it stays, and can no longer be read.",
    ),
)
@_CONFIG
@click.argument("name", metavar="NAME|LOCATION")
@click.option("--yes", is_flag=True, help="Do not ask.")
@answering
def rm(config_file: Path, name: str, yes: bool) -> Answer:
    """Remove an object."""
    config = load_config(config_file)
    place = _own(object_place(config, name), config)
    if not yes:
        click.confirm(f"Remove {place.location}? Its reference can no longer be read.", abort=True, err=True)
    with closing(open_store(place.store)) as store:
        store.delete(place.location)
    return Answer({"location": str(place.location), "removed": True}, f"Removed {place.location}.")


# --- what they share ---------------------------------------------------------------------------------------------


def _own(place: Place, config: LargeResultStore) -> Place:
    if not place.own:
        raise LocationRefused(f"{place.location} is not in the own store {config.own.root}; others are for reading.")
    return place


def _options(config: LargeResultStore, retry_for: float | None) -> TransferOptions:
    transfer = config.transfer if retry_for is None else replace(config.transfer, retry_for=retry_for)
    return TransferOptions.from_config(transfer)


def _transfer(
    place: Place, what: str, quiet: bool, work: Callable[[Store, Progress | None, CancelToken], Answer]
) -> Answer:
    with closing(open_store(place.store)) as store, progress_on_stderr(what, quiet=quiet) as progress:
        return interruptible(lambda cancel: work(store, progress, cancel))


def _document(info: ObjectInfo) -> dict[str, object]:
    return {
        "location": str(info.location),
        "size": info.size,
        "etag": info.etag,
        "modified": _time(info.modified),
    }


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
