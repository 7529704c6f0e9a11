"""One upload, from its beginning to its commit or abort; what is sent in between is the business of others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vantage6_largefile.errors import (
    LargeFileError,
    ObjectExists,
    ObjectNotFound,
    StoreAccessDenied,
    StoreMisconfigured,
    StoreUnavailable,
    UploadSessionLost,
)
from vantage6_largefile.location import Location
from vantage6_largefile.stores.base import ObjectInfo, Part, Store, StoreLimits, UploadSession
from vantage6_largefile.transfer.control import MIB, CancelToken, Meter, Progress, TransferOptions
from vantage6_largefile.transfer.parts import PartSender
from vantage6_largefile.transfer.record import SpoolState, UploadRecord
from vantage6_largefile.transfer.retry import Patience

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object that was committed.

    Attributes
    ----------
    location : Location
    stored_size : int
        Bytes of the stored form.
    sha256 : str
        Hex, of the stored form.
    etag : str or None
        None where the credential may not learn it.
    """

    location: Location
    stored_size: int
    sha256: str
    etag: str | None


def part_size_for(size: int | None, limits: StoreLimits, options: TransferOptions) -> int:
    """The bytes of one part for an object of `size` bytes (None: unknown) in a store with these limits.

    Raises
    ------
    StoreMisconfigured
        When the store takes no object of that size.
    """
    part = min(max(options.burst, limits.min_part), limits.max_part)
    if size is None or size <= part * limits.max_parts:
        return part
    if size > limits.max_part * limits.max_parts:
        raise StoreMisconfigured(
            f"An object of {size} bytes is more than the store takes ({limits.max_part * limits.max_parts} bytes)."
        )
    least = -(-size // limits.max_parts)
    return min(-(-least // MIB) * MIB, limits.max_part)


class Upload:
    """One upload: begin or go on, send parts, commit or abort.

    Parameters
    ----------
    size : int or None
        Bytes of the whole; None when not known yet.
    """

    def __init__(
        self,
        store: Store,
        location: Location,
        *,
        size: int | None,
        options: TransferOptions,
        progress: Progress | None,
        cancel: CancelToken | None,
    ) -> None:
        self._store = store
        self._location = location
        self._size = size
        self._options = options
        self._progress = progress
        self._patience = Patience(location, options.retry_for, cancel)
        self._session: UploadSession | None = None
        self._sender: PartSender | None = None
        self._meter: Meter | None = None
        self._unanswered = False
        #: The record on local disk, when one is kept.
        self.record: UploadRecord | None = None
        #: Parts that the store has from before, by number.
        self.there: Mapping[int, Part] = {}

    def begin(self, media_type: str) -> None:
        """Begin a new upload."""
        part_size = part_size_for(self._size, self._store.limits, self._options)
        self._session = self._patience.call(
            lambda: self._store.begin(self._location, media_type=media_type, part_size=part_size)
        )

    def keep_record(self, path: Path, spool: SpoolState | None) -> UploadRecord:
        """Keep a record of the upload that has begun; without `spool` of one whose file is still being sealed."""
        self.record = UploadRecord.create(path, self.session, spool)
        return self.record

    def go_on(self, record: UploadRecord) -> None:
        """Go on with the upload of a record.

        Raises
        ------
        UploadSessionLost
            When the store knows the upload no longer.
        """
        self.record = record
        self._session = record.session
        # After a commit that may have worked, the store has no unfinished upload to tell of: the next commit shows.
        listed = None if record.committing else self._patience.call(lambda: self._store.list_parts(record.session))
        if listed is None:
            self.there = dict(record.parts)
        else:
            sizes = {part.number: part.size for part in listed}
            self.there = {n: part for n, part in record.parts.items() if sizes.get(n) == part.size}

    @property
    def session(self) -> UploadSession:
        """The session that has begun."""
        if self._session is None:
            raise RuntimeError("the upload has not begun")
        return self._session

    @property
    def note(self) -> Callable[[Part, str], None] | None:
        """What to call with each part that the store acknowledged; None without a record."""
        return None if self.record is None else self.record.acknowledge

    def sender(self) -> PartSender:
        """What sends the parts of this upload; :meth:`close` lets go of it."""
        if self._sender is None:
            self._meter = Meter(self._progress, self._size, sum(part.size for part in self.there.values()))
            self._sender = PartSender(
                self._store,
                self.session,
                options=self._options,
                patience=self._patience,
                meter=self._meter,
                size=self._size,
            )
        return self._sender

    def commit(self, parts: Sequence[Part], size: int) -> ObjectInfo:
        """Make the object appear; a name that is taken is ours only if a commit of ours went unanswered.

        Raises
        ------
        ObjectExists, UploadSessionLost, StoreError, TransferStalled, TransferCancelled
        """
        if self.record is not None:
            self._unanswered = self.record.committing
            self.record.announce_commit()

        def attempt() -> ObjectInfo:
            try:
                return self._store.commit(self.session, parts)
            except StoreUnavailable:
                self._unanswered = True
                raise
            except (ObjectExists, UploadSessionLost) as error:
                if not self._unanswered:
                    raise
                return self._ours(size, error)

        info = self._patience.call(attempt)
        self.forget()
        if self._meter is not None:
            self._meter.finish()
        return info

    def _ours(self, size: int, error: ObjectExists | UploadSessionLost) -> ObjectInfo:
        """The object that our unanswered commit made, if it did; else raises `error`."""
        try:
            info = self._store.stat(self._location)
        except StoreAccessDenied:
            # A credential that may only write cannot look. "Exists" then speaks for us: object ids are random.
            if isinstance(error, UploadSessionLost):
                raise error from None
            return ObjectInfo(self._location, size)
        except ObjectNotFound:
            raise error from None
        if info.size != size:
            raise ObjectExists(
                f"{self._location} is already there with {info.size} bytes instead of {size}; it was not touched."
            ) from error
        return info

    def give_up(self) -> None:
        """No thread of this upload shall wait or try any longer: it failed elsewhere. Returns at once."""
        self._patience.give_up()

    def close(self) -> None:
        """Let go of threads and buffers; waits for the requests that are on their way. Idempotent."""
        if self._sender is not None:
            self._sender.stop()

    def abort(self) -> None:
        """Give the upload up; a failure to do so is logged and hides nothing."""
        self.close()
        if self._session is None:
            return
        try:
            self._store.abort(self._session)
            self.forget()
        except LargeFileError as error:
            logger.warning("The unfinished upload of %s could not be removed from the store: %s", self._location, error)

    def forget(self) -> None:
        """Remove the record of this upload."""
        if self.record is not None:
            self.record.remove()
            self.record = None
