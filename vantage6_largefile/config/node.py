"""The loader of the ``large_result_store`` block of a node or a Python client (design: section 5)."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from vantage6_largefile.config.blocks import DRIVER_KEYS, StoreBlock
from vantage6_largefile.config.credentials import ParsedCredential, check_type, parse_credential
from vantage6_largefile.config.drivers import (
    BUILT_IN,
    Neighbourhood,
    OwnStore,
    build_root,
    check_folder,
    check_root_name,
    check_token_transport,
    installed_drivers,
)
from vantage6_largefile.config.elsewhere import Entries, check_names, text_options, warn_of_overlap
from vantage6_largefile.config.endpoints import EXPECTED as EXPECTED_ENDPOINT
from vantage6_largefile.config.endpoints import Endpoint, check_container, parse_endpoint
from vantage6_largefile.config.network import load_network, load_transfer
from vantage6_largefile.config.problems import Mistake, Problems, check, describe, suggestion
from vantage6_largefile.config.result_store import LargeResultStore
from vantage6_largefile.config.s3 import AWS, check_bucket, check_name, check_region, parse_endpoint_url, server_options
from vantage6_largefile.config.store import StoreConfig
from vantage6_largefile.config.values import parse_fingerprint, parse_organization_id
from vantage6_largefile.errors import ConfigurationError, InvalidReference
from vantage6_largefile.location import Location

BLOCK = "large_result_store"
#: The keys that say which S3 server is meant: a mistake in one of them is not reported as another one missing.
_SERVER_KEYS = frozenset({"endpoint", "endpoint_url", "region"})


def load_large_result_store(
    block: Mapping[str, object], *, source: str, environ: Mapping[str, str] | None = None
) -> LargeResultStore:
    """Check the ``large_result_store`` block of a node or client and resolve its secrets.

    Reads the secret files and the certificate bundle that it names; makes no connection, creates nothing.

    Parameters
    ----------
    block : mapping
        As read from YAML.
    source : str
        Where it stands, for the message: ``node configuration hospital-a.yaml``.
    environ : mapping, optional
        The environment for ``${env:NAME}``; default is the process's own.

    Raises
    ------
    ConfigurationError
        With every mistake at once. Never contains a secret.
    """
    problems = Problems()
    loaded = _load(block, problems, os.environ if environ is None else environ)
    problems.raise_if_any(source)
    if loaded is None:
        raise ConfigurationError([f"{BLOCK}: found nothing that can be used"], source=source)
    return loaded


def _load(raw: object, problems: Problems, environ: Mapping[str, str]) -> LargeResultStore | None:
    block, broken = check(StoreBlock, raw, BLOCK, problems)
    if block is None:
        return None
    # With a mistake in the switch itself, complaints about endpoints would only mislead.
    allow_custom = block.allow_custom_endpoint or "allow_custom_endpoint" in broken
    network = load_network(block.network, f"{BLOCK}.network", problems, environ)
    transfer = load_transfer(block.transfer, f"{BLOCK}.transfer", problems)
    credential = None
    if block.credential is not None:
        credential = parse_credential(
            block.credential,
            path=f"{BLOCK}.credential",
            problems=problems,
            environ=environ,
            allow_custom=allow_custom,
        )
    credential_broken = block.credential is not None and credential is None
    own = _Own(block, broken, credential, credential_broken, allow_custom, problems).load()
    recipient_keys = _recipient_keys(block.recipient_keys, f"{BLOCK}.recipient_keys", problems)
    # A driver that needs a credential and has none was noted by now.
    unusable = credential_broken or (credential is None and own is None)
    entries = Entries(Neighbourhood(own, credential, unusable, allow_custom, network, transfer), problems, environ)
    readable = entries.readable(block.readable, f"{BLOCK}.readable")
    shared = entries.shared(block.shared, f"{BLOCK}.shared")
    if own is None:
        return None
    check_names(own, readable, shared, problems)
    if not problems.lines:
        warn_of_overlap(own, readable)
    return LargeResultStore(
        own=StoreConfig(
            driver=own.root.driver,
            root=own.root,
            options=own.options,
            credential=credential.credential if credential else None,
            network=network,
            transfer=transfer,
        ),
        threshold=block.threshold,
        inline_limit=block.inline_limit,
        max_result_size=block.max_result_size,
        readable=readable,
        shared=shared,
        recipient_keys=recipient_keys,
        transfer=transfer,
        network=network,
    )


@dataclass(frozen=True, slots=True)
class _Own:
    """Our own store, from the keys that its driver has."""

    block: StoreBlock
    broken: frozenset[str]
    credential: ParsedCredential | None
    credential_broken: bool
    allow_custom: bool
    problems: Problems

    def load(self) -> OwnStore | None:
        """The own store, or None after a mistake that makes it unusable (noted)."""
        driver = self.block.driver
        if driver is None:
            if "driver" not in self.broken:
                self.problems.expected(f"{BLOCK}.driver", None, f"one of {', '.join(installed_drivers())}")
            return None
        if driver not in installed_drivers():
            self.problems.add(
                f"{BLOCK}.driver",
                f"found {describe(driver)}, expected one of {', '.join(installed_drivers())}; "
                f"{suggestion(driver, installed_drivers())}",
            )
            return None
        self._refuse_keys_of_others(driver)
        before = len(self.problems.lines)
        try:
            check_type(self.credential, driver)
        except Mistake as mistake:
            self._note("credential.type", str(mistake))
            return None
        if driver == "azure":
            own = self._azure()
        elif driver == "s3":
            own = self._s3()
        elif driver == "file":
            own = self._file()
        else:
            own = self._other(driver)
        return own if len(self.problems.lines) == before else None

    def _refuse_keys_of_others(self, driver: str) -> None:
        mine = DRIVER_KEYS[driver if driver in BUILT_IN else ""]
        for key in sorted({key for keys in DRIVER_KEYS.values() for key in keys} - set(mine)):
            if getattr(self.block, key) is not None or key in self.broken:
                self.problems.add(f"{BLOCK}.{key}", f"not a key for driver {driver}; remove it")

    def _note(self, key: str, text: str) -> None:
        if key not in self.broken:
            self.problems.add(f"{BLOCK}.{key}", text)

    def _azure(self) -> OwnStore | None:
        endpoint = self._endpoint()
        container = self.block.container
        if container is None:
            self._note("container", "found nothing, expected the name of a container")
        else:
            try:
                check_container(container)
            except Mistake as mistake:
                self._note("container", str(mistake))
                container = None
        if self.credential is None and not self.credential_broken:
            self._note("credential", "found nothing, expected a mapping with a type")
        if self.credential and container and self.credential.container not in (None, container):
            self._note(
                "credential.sas", f"found the SAS URL of another container, expected one of {container} as in container"
            )
        if endpoint is None or container is None:
            return None
        if self.credential is not None:
            try:
                check_token_transport(endpoint.url, self.credential)
            except Mistake as mistake:
                self._note("account_url", str(mistake))
        root = self._root("prefix", "azure", endpoint.account, (container, *(self.block.prefix or ())))
        return OwnStore(root, {"account_url": endpoint.url}, endpoint) if root else None

    def _root(self, key: str, driver: str, authority: str, segments: tuple[str, ...]) -> Location | None:
        try:
            return build_root(driver, authority, segments)
        except Mistake as mistake:
            self._note(key, str(mistake))
            return None

    def _endpoint(self) -> Endpoint | None:
        inside = self.credential.endpoint if self.credential else None
        url = self.block.account_url
        if url is None:
            if inside is None and not self._may_name_endpoint():
                self._note("account_url", f"found nothing, expected {EXPECTED_ENDPOINT}")
            return inside
        try:
            endpoint = parse_endpoint(url, allow_custom=self.allow_custom)
        except Mistake as mistake:
            self._note("account_url", str(mistake))
            return None
        if inside is not None and inside.url != endpoint.url:
            self._note(
                "account_url",
                f"found {endpoint.url}, but the credential is for {inside.url}, expected the same in both; "
                "account_url may be left out",
            )
        return endpoint

    def _may_name_endpoint(self) -> bool:
        """Whether a broken credential would name the endpoint, once it is mended."""
        raw = self.block.credential
        kind = raw.get("type") if isinstance(raw, Mapping) else None
        return self.credential_broken and kind not in ("client_secret", "default")

    def _file(self) -> OwnStore | None:
        name, path = self.block.root, self.block.path
        for key, value, check_value, expectation in (
            ("root", name, check_root_name, "the name of this store in locations, such as hospital-a"),
            ("path", path, check_folder, "an absolute path"),
        ):
            if value is None:
                self._note(key, f"found nothing, expected {expectation}")
                continue
            try:
                check_value(value)
            except Mistake as mistake:
                self._note(key, str(mistake))
                name = None
        if name is None or path is None:
            return None
        root = self._root("prefix", "file", name, self.block.prefix or ())
        return OwnStore(root, {"path": check_folder(path)}) if root else None

    def _s3(self) -> OwnStore | None:
        bucket = self._checked("bucket", check_bucket)
        if self.block.bucket is None:
            self._note("bucket", "found nothing, expected the name of a bucket")
        if self.credential is None and not self.credential_broken:
            self._note("credential", "found nothing, expected a mapping with a type")
        name, options = self._server()
        if name is None or options is None or bucket is None:
            return None
        root = self._root("prefix", "s3", name, (bucket, *(self.block.prefix or ())))
        return OwnStore(root, options) if root else None

    def _server(self) -> tuple[str | None, dict[str, str] | None]:
        """Name and options of the S3 server; None after a mistake."""
        block = self.block
        url = self._checked("endpoint_url", parse_endpoint_url)
        region = self._checked("region", check_region)
        name = block.endpoint
        if name is None and block.endpoint_url is None:
            name = AWS
        if name is None:
            self._note("endpoint", "found nothing, expected the name of this server in locations, such as minio")
            return None, None
        try:
            check_name(name, url)
        except Mistake as mistake:
            self._note("endpoint", str(mistake))
            return None, None
        noted = (url is None and block.endpoint_url is not None) or (region is None and block.region is not None)
        if noted or not _SERVER_KEYS.isdisjoint(self.broken):
            return name, None
        try:
            return name, server_options(name, url, region)
        except Mistake as mistake:
            key, _, text = str(mistake).removeprefix(".").partition(": ")
            self._note(key, text)
            return name, None

    def _checked(self, key: str, check_value: Callable[[str], str]) -> str | None:
        """The value of a key as `check_value` returns it; None when absent, or after a mistake (noted)."""
        value = getattr(self.block, key)
        try:
            return None if value is None else check_value(value)
        except Mistake as mistake:
            self._note(key, str(mistake))
            return None

    def _other(self, driver: str) -> OwnStore | None:
        options = text_options(self.block.options, f"{BLOCK}.options", self.problems)
        expectation = f"the location of this store, {driver}://authority/segment/…"
        if self.block.location is None:
            self._note("location", f"found nothing, expected {expectation}")
            return None
        try:
            given = Location.parse(self.block.location)
        except InvalidReference as error:
            self._note("location", f"found {describe(self.block.location)}: {error}")
            return None
        if given.driver != driver:
            self._note("location", f"found {describe(self.block.location)}, expected {expectation}")
            return None
        root = self._root("location", given.driver, given.authority, given.segments)
        return OwnStore(root, options or {}) if root else None


def _recipient_keys(raw: object, path: str, problems: Problems) -> dict[int, str]:
    if raw is None:
        return {}
    if not isinstance(raw, Mapping):
        problems.expected(path, raw, "a mapping of organisation ids to fingerprints", hidden=True)
        return {}
    keys: dict[int, str] = {}
    for key, value in raw.items():
        where = f"{path}.{key}"
        try:
            organization = parse_organization_id(key)
        except Mistake:
            problems.add(path, f"found the key {describe(key)}, expected an organisation id")
            continue
        if organization in keys:
            problems.add(where, f"found organisation {organization} twice, expected once")
        try:
            keys[organization] = parse_fingerprint(value)
        except Mistake:
            problems.expected(where, value, "a SHA-256 fingerprint of 64 hex digits")
    return keys
