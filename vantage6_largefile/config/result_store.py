"""What a loaded ``large_result_store`` block offers to node and client."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from vantage6_largefile.config.drivers import StoreTemplate
from vantage6_largefile.config.store import NetworkConfig, StoreConfig, TransferConfig
from vantage6_largefile.config.values import LocationPattern
from vantage6_largefile.errors import LocationRefused
from vantage6_largefile.location import Location
from vantage6_largefile.reference import LAYOUT_ROOT

# v6lf/<server-id>/c<n>/results/run-<n>/<id>
_LAYOUT_LENGTH = 6


@dataclass(frozen=True, slots=True)
class Readable:
    """One entry of ``readable``: a store of an organisation that this node's identity may read.

    Attributes
    ----------
    organization : int or "*"
        ``*`` is every organisation that has no entry of its own.
    store : StoreTemplate
    """

    organization: int | Literal["*"]
    store: StoreTemplate

    @property
    def location(self) -> LocationPattern:
        """The location, in which ``{organization_id}`` may stand."""
        return self.store.location


@dataclass(frozen=True, slots=True)
class Shared:
    """One entry of ``shared``: a read-only store that algorithms may read by name.

    Attributes
    ----------
    name : str
    store : StoreConfig
    manifest : Location
        The list of checksums of what may be read; lies below the store's root.
    """

    name: str
    store: StoreConfig
    manifest: Location

    @property
    def location(self) -> Location:
        """The store's root."""
        return self.store.root


@dataclass(frozen=True, slots=True)
class LargeResultStore:
    """The ``large_result_store`` block, checked. Holds secrets, shows none.

    Attributes
    ----------
    own : StoreConfig
        Where this party writes its results and the inputs it sends.
    threshold : int
        Plaintext bytes from which a result goes to the store; 0 is always.
    inline_limit : int
        Largest object, in plaintext bytes, that is handed inline to algorithm images that know nothing else.
    max_result_size : int or None
        Plaintext bytes above which results are refused; None is no limit.
    readable : tuple of Readable
    shared : tuple of Shared
    recipient_keys : mapping of int to str
        Pinned SHA-256 fingerprints (64 lower-case hex digits) by organisation id.
    transfer : TransferConfig
    network : NetworkConfig
    """

    own: StoreConfig
    threshold: int
    inline_limit: int
    max_result_size: int | None
    readable: tuple[Readable, ...]
    shared: tuple[Shared, ...]
    recipient_keys: Mapping[int, str] = field(hash=False)
    transfer: TransferConfig
    network: NetworkConfig

    def store_for_reading(self, location: Location, *, organization_id: int, own_organization_id: int) -> StoreConfig:
        """The store through which an object may be read.

        The own store is for own objects only: an object that another organisation is said to have written is read
        through that organisation's ``readable`` entry or not at all, and the other way round.

        Parameters
        ----------
        location : Location
            Of the object.
        organization_id : int
            Who wrote the object, as the server names it for that run or task.
        own_organization_id : int
            This node's organisation.

        Raises
        ------
        LocationRefused
            Naming organisation, location and the missing entry.
        """
        if organization_id == own_organization_id and self.own.root.contains(location):
            return self.own
        entries = [entry for entry in self.readable if entry.organization == organization_id]
        # Whoever has an entry is meant to write there and nowhere else: "*" does not widen it.
        entries = entries or [entry for entry in self.readable if entry.organization == "*"]
        stores = [entry.store.for_organization(organization_id) for entry in entries]
        fitting = [store for store in stores if store.root.contains(location)]
        if fitting:
            return max(fitting, key=lambda store: len(store.root.segments))
        raise LocationRefused(
            f"This node may not read {location}, an object of organisation {organization_id}: no entry of "
            f"large_result_store.readable for that organisation contains it"
            + (f" (there are {', '.join(str(store.root) for store in stores[:5])})." if stores else "."),
            advice=f"Add {{organization: {organization_id}, location: {_store_of(location)}}} to "
            "large_result_store.readable of this node if it is meant to read this store.",
        )


def _store_of(location: Location) -> Location:
    """The store part of an object's location: what stands before the layout, or all but the object's name."""
    segments = location.segments
    if len(segments) >= _LAYOUT_LENGTH and segments[-_LAYOUT_LENGTH] == LAYOUT_ROOT:
        return Location(location.driver, location.authority, segments[:-_LAYOUT_LENGTH])
    return Location(location.driver, location.authority, segments[:-1])
