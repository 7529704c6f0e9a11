"""The ``largefile`` block of a server (design: section 5). The server holds no storage credential of ours."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field, SecretStr, StrictInt, StrictStr

from vantage6_largefile.config.blocks import SIZE, Block
from vantage6_largefile.config.drivers import check_azure_location
from vantage6_largefile.config.problems import Mistake, Problems, check, describe
from vantage6_largefile.config.s3 import check_s3_location
from vantage6_largefile.config.secrets import resolve
from vantage6_largefile.config.store import MIB
from vantage6_largefile.config.values import (
    PLACEHOLDER,
    Bytes,
    LocationPattern,
    parse_organization,
    parse_organization_id,
)
from vantage6_largefile.errors import ConfigurationError
from vantage6_largefile.location import Location

log = logging.getLogger(__name__)

BLOCK = "largefile"
DEFAULT_MAX_INLINE_RESULT = 16 * MIB


class ServerBlock(Block):
    """The block itself."""

    central_organizations: object = Field(None)
    locations: object = Field(None)
    max_inline_result: Bytes = Field(
        DEFAULT_MAX_INLINE_RESULT, ge=1, le=256 * MIB, description=f"{SIZE}, at most 256MiB"
    )
    retention_days: StrictInt | None = Field(
        None, ge=1, le=36500, description="a whole number of days, or null to keep results until they are deleted"
    )
    legacy_store: object = Field(None, repr=False)


class LegacyBlock(Block):
    """``legacy_store``: the keys of the stock ``large_result_store`` block, by their stock names."""

    type: StrictStr | None = Field(None, description="'azure'")
    storage_account_name: StrictStr | None = Field(None, description="the name of a storage account")
    container_name: StrictStr | None = Field(None, description="the name of a container")
    tenant_id: object = Field(None, repr=False)
    client_id: object = Field(None, repr=False)
    client_secret: object = Field(None, repr=False)
    connection_string: object = Field(None, repr=False)


@dataclass(frozen=True, slots=True)
class LegacyStore:
    """The store of a server that used the stock blob route before: only to read and clean up what it stored.

    Attributes
    ----------
    settings : mapping of str to SecretStr
        By their stock names.
    """

    settings: Mapping[str, SecretStr] = field(repr=False, hash=False)

    def as_stock_config(self) -> dict[str, str]:
        """The dict that vantage6's own storage service takes. Holds secrets in the clear: for that call only."""
        return {key: value.get_secret_value() for key, value in self.settings.items()}


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """The ``largefile`` block, checked. Holds the secrets of `legacy_store` at most, shows none.

    Attributes
    ----------
    central_organizations : tuple of int
        Ids of the organisations whose nodes aggregate and may read the stores of others.
    locations : mapping of (int or "*") to tuple of LocationPattern
    max_inline_result : int
        Plaintext bytes above which a value is not taken inline.
    retention_days : int or None
        None keeps results until they are deleted.
    legacy_store : LegacyStore or None
    """

    central_organizations: tuple[int, ...]
    locations: Mapping[int | Literal["*"], tuple[LocationPattern, ...]] = field(hash=False)
    max_inline_result: int
    retention_days: int | None
    legacy_store: LegacyStore | None

    def allowed_locations(self, organization_id: int) -> tuple[Location, ...]:
        """The stores in which an organisation may register objects; empty when it may not register any.

        An entry of its own replaces the ``*`` entry, it does not add to it.
        """
        patterns = self.locations.get(organization_id)
        if patterns is None:
            patterns = self.locations.get("*", ())
        return tuple(pattern.for_organization(organization_id) for pattern in patterns)

    def is_allowed(self, organization_id: int, location: Location) -> bool:
        """Whether an organisation may register an object at `location`."""
        return any(allowed.contains(location) for allowed in self.allowed_locations(organization_id))


def load_largefile(
    block: Mapping[str, object],
    *,
    stock_large_result_store: object | None,
    source: str,
    environ: Mapping[str, str] | None = None,
) -> ServerConfig:
    """Check the ``largefile`` block of a server.

    Parameters
    ----------
    block : mapping
        As read from YAML.
    stock_large_result_store : object or None
        What the server's configuration has under ``large_result_store``: a mistake beside this block, because stock
        code would send every payload through the server (empty counts as absent, as it does for stock code).
    source : str
        Where it stands, for the message.
    environ : mapping, optional
        The environment for ``${env:NAME}`` in ``legacy_store``; default is the process's own.

    Raises
    ------
    ConfigurationError
        With every mistake at once. Never contains a secret.
    """
    problems = Problems()
    if stock_large_result_store:
        problems.add(
            "large_result_store",
            f"found vantage6's own block beside {BLOCK}, expected one of the two; move it to {BLOCK}.legacy_store "
            "(same keys), where it serves to read and clean up what is stored there",
        )
    loaded = _load(block, problems, os.environ if environ is None else environ)
    problems.raise_if_any(source)
    if loaded is None:
        raise ConfigurationError([f"{BLOCK}: found nothing that can be used"], source=source)
    return loaded


def _load(raw: object, problems: Problems, environ: Mapping[str, str]) -> ServerConfig | None:
    block, _ = check(ServerBlock, raw, BLOCK, problems)
    if block is None:
        return None
    legacy = None
    if block.legacy_store is not None:
        legacy = _legacy_store(block.legacy_store, f"{BLOCK}.legacy_store", problems, environ)
    config = ServerConfig(
        central_organizations=_central(block.central_organizations, f"{BLOCK}.central_organizations", problems),
        locations=_locations(block.locations, f"{BLOCK}.locations", problems),
        max_inline_result=block.max_inline_result,
        retention_days=block.retention_days,
        legacy_store=legacy,
    )
    if not problems.lines and not config.locations:
        log.warning("%s.locations is empty: no organisation may register results by reference", BLOCK)
    return config


def _central(raw: object, path: str, problems: Problems) -> tuple[int, ...]:
    if raw is None:
        return ()
    if not isinstance(raw, list | tuple):
        problems.expected(path, raw, "a list of organisation ids")
        return ()
    ids: list[int] = []
    for index, item in enumerate(raw):
        try:
            organization = parse_organization_id(item)
        except Mistake:
            problems.expected(
                f"{path}[{index}]", item, "an organisation id (names can be changed by an organisation's own admins)"
            )
            continue
        if organization in ids:
            problems.add(f"{path}[{index}]", f"found organisation {organization} twice, expected once")
        ids.append(organization)
    return tuple(ids)


def _locations(raw: object, path: str, problems: Problems) -> dict[int | Literal["*"], tuple[LocationPattern, ...]]:
    if raw is None:
        return {}
    if not isinstance(raw, Mapping):
        problems.expected(path, raw, "a mapping of organisation ids, or '*', to lists of locations")
        return {}
    locations: dict[int | Literal["*"], tuple[LocationPattern, ...]] = {}
    for key, value in raw.items():
        try:
            organization = parse_organization(key)
        except Mistake:
            problems.add(path, f"found the key {describe(key)}, expected an organisation id or '*'")
            continue
        where = f"{path}.{organization}"
        if organization in locations:
            problems.add(where, f"found organisation {organization} twice, expected once")
        # `7:` with nothing behind it: nothing is allowed, "*" included.
        items = [] if value is None else value
        if not isinstance(items, list | tuple):
            problems.expected(where, value, "a list of locations")
            continue
        patterns = (_pattern(item, organization, f"{where}[{index}]", problems) for index, item in enumerate(items))
        locations[organization] = tuple(pattern for pattern in patterns if pattern is not None)
    return locations


def _pattern(item: object, organization: int | Literal["*"], path: str, problems: Problems) -> LocationPattern | None:
    try:
        pattern = LocationPattern.parse(item)
    except Mistake as mistake:
        problems.add(path, f"found {describe(item)}: {mistake}")
        return None
    if organization == "*" and not pattern.has_placeholder:
        problems.add(
            path,
            f"found {str(pattern)!r}, which is the same for every organisation, expected {PLACEHOLDER} in it, or an "
            "organisation id instead of '*'",
        )
        return None
    if pattern.driver in ("azure", "s3"):
        try:
            (check_azure_location if pattern.driver == "azure" else check_s3_location)(pattern)
        except Mistake as mistake:
            problems.add(path, str(mistake))
            return None
    return pattern


def _legacy_store(raw: object, path: str, problems: Problems, environ: Mapping[str, str]) -> LegacyStore | None:
    block, broken = check(LegacyBlock, raw, path, problems)
    if block is None:
        return None
    settings: dict[str, SecretStr] = {}
    for key in type(block).model_fields:
        value = getattr(block, key)
        if value is None or key == "type":
            continue
        try:
            settings[key] = SecretStr(resolve(value, path=f"{path}.{key}", environ=environ))
        except Mistake as mistake:
            problems.add(f"{path}.{key}", str(mistake))
    if block.type not in (None, "azure"):
        problems.expected(f"{path}.type", block.type, "'azure', the only store that vantage6 itself has")
    principal = ("tenant_id", "client_id", "client_secret", "storage_account_name")
    needed = ["container_name", *(principal if block.connection_string is None else ())]
    for key in needed:
        if getattr(block, key) is None and key not in broken:
            alternative = f"all of {', '.join(principal)}, or else connection_string"
            problems.expected(
                f"{path}.{key}", None, "the name of a container" if key == "container_name" else alternative
            )
    return LegacyStore(settings)
