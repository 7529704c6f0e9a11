"""From keys to stores: what each driver needs to know about our own store and about the stores of others.

Every store that can ever be opened is built here, from configuration alone. A name in a location (account, root)
resolves to one endpoint or folder only, whichever entry mentions it.
"""

from __future__ import annotations

import os.path
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points

from vantage6_largefile.config.credentials import ParsedCredential, check_type
from vantage6_largefile.config.endpoints import Endpoint, check_container, parse_endpoint
from vantage6_largefile.config.problems import Mistake, describe
from vantage6_largefile.config.s3 import options_elsewhere
from vantage6_largefile.config.store import Credential, NetworkConfig, StoreConfig, TransferConfig
from vantage6_largefile.config.values import PLACEHOLDER, SAMPLE_IDS, LocationPattern, fill
from vantage6_largefile.errors import InvalidReference
from vantage6_largefile.location import Location, is_segment

#: Drivers that this package brings itself. Others are found by their entry point.
BUILT_IN = ("azure", "file", "s3")
#: Must equal ``stores.base.ENTRY_POINT_GROUP``; that layer lies above this one. A test compares them.
ENTRY_POINT_GROUP = "vantage6_largefile.stores"
#: Characters left for the layout below a store: ``v6lf/<uuid>/c<n>/results/run-<n>/<uuid>``.
MAX_ROOT_LENGTH = 900


def installed_drivers() -> tuple[str, ...]:
    """The names that ``driver`` may have on this machine."""
    return tuple(sorted({*BUILT_IN, *(entry.name for entry in entry_points(group=ENTRY_POINT_GROUP))}))


@dataclass(frozen=True, slots=True)
class OwnStore:
    """Our own store before network and transfer are known; `endpoint` for azure only."""

    root: Location
    options: Mapping[str, str] = field(repr=False)
    endpoint: Endpoint | None = None


@dataclass(frozen=True, slots=True)
class StoreTemplate:
    """A store of someone else, in whose location and options ``{organization_id}`` may still stand."""

    location: LocationPattern
    options: Mapping[str, str] = field(repr=False, hash=False)
    credential: Credential | None
    network: NetworkConfig
    transfer: TransferConfig

    def for_organization(self, organization_id: int) -> StoreConfig:
        """The store of one organisation."""
        return StoreConfig(
            driver=self.location.driver,
            root=self.location.for_organization(organization_id),
            options={key: fill(value, organization_id) for key, value in self.options.items()},
            credential=self.credential,
            network=self.network,
            transfer=self.transfer,
        )


def build_root(driver: str, authority: str, segments: tuple[str, ...]) -> Location:
    """The location of our own store.

    Raises
    ------
    Mistake
        When name and prefix break the grammar or leave no room for the names of objects.
    """
    try:
        root = Location(driver, authority, segments)
    except InvalidReference as error:
        raise Mistake(str(error)) from None
    if len(str(root)) > MAX_ROOT_LENGTH:
        raise Mistake(f"found a store name and prefix of more than {MAX_ROOT_LENGTH} characters, expected less")
    return root


def check_folder(path: str) -> str:
    """The folder of a ``file`` store: absolute, no ``..``, not the root of the file system; it need not exist yet.

    Raises
    ------
    Mistake
        When it is anything else.
    """
    if not os.path.isabs(path) or not path.isprintable() or ".." in path.split("/"):
        raise Mistake(f"found {describe(path)}, expected an absolute path without '..'")
    normal = "/" + os.path.normpath(path).lstrip("/")
    if normal == "/":
        raise Mistake("found the root of the file system, expected a folder of its own")
    return normal


def check_token_transport(url: str, credential: ParsedCredential) -> None:
    """Tokens of an identity are sent over TLS only, also on loopback, and the SDK refuses anything else.

    Raises
    ------
    Mistake
        When a type of credential that gets tokens meets plain http.
    """
    if url.startswith("http://") and credential.credential.type in ("client_secret", "default"):
        raise Mistake(
            f"found {url} with a credential of type {credential.credential.type}, expected https: its tokens are "
            "never sent over plain http; use sas or connection_string with a local emulator"
        )


def check_azure_location(pattern: LocationPattern) -> None:
    """An azure location names a container that Azure would take, whatever the organisation.

    Raises
    ------
    Mistake
        When it does not.
    """
    for sample in SAMPLE_IDS:
        segments = pattern.for_organization(sample).segments
        if not segments:
            raise Mistake(f"found {str(pattern)!r}, expected a container behind the account")
        check_container(segments[0])


class Follows(Exception):
    """Not to be judged: it follows from a mistake in the own store that is noted already."""


@dataclass(frozen=True, slots=True)
class Neighbourhood:
    """What entries about other stores may take over from the block that they stand in."""

    own: OwnStore | None
    own_credential: ParsedCredential | None
    own_credential_broken: bool
    allow_custom: bool
    network: NetworkConfig
    transfer: TransferConfig

    def template(
        self,
        location: LocationPattern,
        *,
        credential: ParsedCredential | None,
        account_url: str | None,
        endpoint_url: str | None,
        region: str | None,
        path: str | None,
        options: Mapping[str, str] | None,
    ) -> StoreTemplate:
        """The store behind an entry of ``readable`` or ``shared``.

        Raises
        ------
        Mistake
            The text is ``.key: what is wrong``.
        Follows
            When the own store would have to be known.
        """
        driver = location.driver
        for key, value, owner in (
            ("account_url", account_url, driver == "azure"),
            ("endpoint_url", endpoint_url, driver == "s3"),
            ("region", region, driver == "s3"),
            ("path", path, driver == "file"),
            ("options", options, driver not in BUILT_IN),
            ("credential", credential, driver != "file"),
        ):
            if value is not None and not owner:
                raise Mistake(f".{key}: not a key for a location of driver {driver}; remove it")
        try:
            check_type(credential, driver)
        except Mistake as mistake:
            raise Mistake(f".credential.type: {mistake}") from None
        if driver == "azure":
            resolved = {"account_url": self._azure_url(location, account_url, credential)}
            credential = credential or self._inherited(location, resolved["account_url"])
            try:
                check_token_transport(resolved["account_url"], credential)
            except Mistake as mistake:
                raise Mistake(f".account_url: {mistake}") from None
        elif driver == "s3":
            resolved, credential = self._s3(location, endpoint_url, region, credential)
        elif driver == "file":
            resolved = {"path": self._folder(location, path)}
        elif driver not in installed_drivers():
            raise Mistake(f".location: found driver {driver!r}, expected one of {', '.join(installed_drivers())}")
        else:
            own = self.own if self.own is not None and self.own.root.driver == driver else None
            resolved = dict(options if options is not None else own.options if own else {})
            credential = credential or (self.own_credential if own else None)
        return StoreTemplate(
            location, resolved, credential.credential if credential else None, self.network, self.transfer
        )

    def _azure_url(
        self, location: LocationPattern, account_url: str | None, credential: ParsedCredential | None
    ) -> str:
        try:
            check_azure_location(location)
        except Mistake as mistake:
            raise Mistake(f".location: {mistake}") from None
        authority = location.text.removeprefix("azure://").partition("/")[0]
        origin = ".account_url"
        if account_url is None and credential is not None and credential.endpoint is not None:
            account_url, origin = credential.endpoint.url, ".credential"
        if account_url is None:
            if self.own is None:
                raise Follows
            account_url = self.own.endpoint.for_account(authority) if self.own.endpoint else None
            if account_url is None:
                raise Mistake(
                    f".account_url: found nothing, expected the endpoint of the account {authority}: it does not "
                    "follow from the endpoint of this node's own store"
                )
            origin = ".location"
        for sample in SAMPLE_IDS:
            try:
                endpoint = parse_endpoint(fill(account_url, sample), allow_custom=self.allow_custom)
            except Mistake as mistake:
                raise Mistake(f"{origin}: {mistake}") from None
            account = location.for_organization(sample).authority
            if endpoint.account != account and origin == ".location":
                raise Mistake(f".location: found the account {account}, expected a name in lower case")
            if endpoint.account != account:
                raise Mistake(
                    f"{origin}: found an endpoint of the account {endpoint.account}, expected one of {account} as in "
                    "the location"
                )
            if credential is not None and credential.endpoint and credential.endpoint.url != endpoint.url:
                inside = credential.endpoint.url
                raise Mistake(f".credential: found the endpoint {inside}, expected {endpoint.url} as in account_url")
            container = location.for_organization(sample).segments[0]
            if credential is not None and credential.container not in (None, container):
                raise Mistake(f".credential: found a SAS URL of another container, expected one of {container}")
        if PLACEHOLDER in account_url:
            return account_url  # in lower case throughout: host names with other letters are no account's
        return parse_endpoint(account_url, allow_custom=self.allow_custom).url

    def _inherited(self, location: LocationPattern, account_url: str) -> ParsedCredential:
        """The block's own credential, where it can open the other store at all."""
        own = self.own_credential
        if self.own is None or self.own_credential_broken:
            raise Follows
        missing = ".credential: found nothing, expected a credential of its own:"
        if own is None or self.own.root.driver == "s3":
            raise Mistake(f"{missing} this node's own store has none that Azure would know")
        if own.account_bound and (self.own.endpoint is None or self.own.endpoint.url != account_url):
            raise Mistake(f"{missing} that of this node's own store was signed by another storage account")
        if own.container_bound and location.for_organization(1).segments[0] != self.own.root.segments[0]:
            raise Mistake(f"{missing} the SAS of this node's own store is for one container only")
        return own

    def _s3(
        self,
        location: LocationPattern,
        endpoint_url: str | None,
        region: str | None,
        credential: ParsedCredential | None,
    ) -> tuple[dict[str, str], ParsedCredential]:
        """Options and credential: those of the own store where the server has the same name, else the entry's own."""
        if self.own is None and (endpoint_url is None or credential is None):
            raise Follows
        own = self.own if self.own is not None and self.own.root.driver == "s3" else None
        own_name = own.root.authority if own else None
        options = options_elsewhere(
            location,
            endpoint_url=endpoint_url,
            region=region,
            own_name=own_name,
            own_options=own.options if own else {},
        )
        if credential is not None:
            return options, credential
        name = location.for_organization(1).authority
        if name != own_name:
            raise Mistake(f".credential: found nothing, expected a credential for the S3 server {name}")
        if self.own_credential is None:
            raise Follows
        return options, self.own_credential

    def _folder(self, location: LocationPattern, path: str | None) -> str:
        name = location.text.removeprefix("file://").partition("/")[0]
        own = self.own if self.own is not None and self.own.root.driver == "file" else None
        if path is None:
            if self.own is None:
                raise Follows
            if own is None or name != own.root.authority:
                raise Mistake(f".path: found nothing, expected the folder that file://{name} stands for")
            return own.options["path"]
        for sample in SAMPLE_IDS:
            try:
                folder = check_folder(fill(path, sample))
            except Mistake as mistake:
                raise Mistake(f".path: {mistake}") from None
        if "{" in path.replace(PLACEHOLDER, ""):
            raise Mistake(f".path: the only placeholder is {PLACEHOLDER}")
        if PLACEHOLDER in path and PLACEHOLDER not in name:
            raise Mistake(f".path: one root name stands for one folder, expected {PLACEHOLDER} in the root name too")
        return path if PLACEHOLDER in path else folder


def check_root_name(name: str) -> None:
    """The root name of a ``file`` store stands as authority in locations.

    Raises
    ------
    Mistake
        When it cannot.
    """
    if not is_segment(name):
        raise Mistake(f"found {describe(name)}, expected a name of letters, digits, '.', '_' and '-'")
