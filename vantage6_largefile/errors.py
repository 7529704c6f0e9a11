"""Every error of this package, as one tree by what the caller can do about it.

Each error says what happened, to which object, and what to do. Drivers map the errors of their SDK to this
tree once (``stores/*.py``), nothing above a driver ever sees an SDK error.

=============================  =====================================================
error                          what the caller can do
=============================  =====================================================
:class:`ConfigurationError`    change the configuration
:class:`InvalidReference`      nothing: data of another party is refused
:class:`LocationRefused`       change ``readable``, or accept that it is not ours
:class:`StoreUnavailable`      try again later
:class:`StoreAccessDenied`     have the rights of the identity changed
:class:`StoreMisconfigured`    change the configuration of the store
:class:`ObjectNotFound`        nothing: the object is not there
:class:`ObjectExists`          choose another name
:class:`IntegrityError`        do not use the bytes, ask the writer
:class:`ServerUnavailable`     try again later
:class:`ServerRejected`        read the reason, do not try the same again
=============================  =====================================================
"""

from __future__ import annotations

from collections.abc import Sequence


class LargeFileError(Exception):
    """Base of all errors of this package.

    Parameters
    ----------
    message : str
        What happened, to which object. Never contains a secret.
    advice : str, optional
        What the reader of the message can do.
    """

    def __init__(self, message: str, *, advice: str | None = None) -> None:
        self.message = message
        self.advice = advice
        super().__init__(message)

    def __str__(self) -> str:
        return f"{self.message} {self.advice}" if self.advice else self.message


# --- configuration -------------------------------------------------------------------------------------------


class ConfigurationError(LargeFileError):
    """One or more mistakes in a configuration; all of them at once.

    Attributes
    ----------
    problems : tuple of str
        One line per mistake: the key's path, what was found, what was expected.
    """

    def __init__(self, problems: Sequence[str], *, source: str = "configuration") -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        head = f"{count} mistake{'s' if count != 1 else ''} in {source}:"
        super().__init__("\n".join([head, *(f"  - {p}" for p in self.problems)]))


# --- references and locations: data of other parties ------------------------------------------------------------


class InvalidReference(LargeFileError):
    """A reference or location breaks the format, or does not fit what it is used for."""


class UnknownReferenceVersion(InvalidReference):
    """A reference of a version that this software does not know."""


class LocationRefused(LargeFileError):
    """A well-formed location that this configuration does not allow to be read or registered."""


# --- stores ------------------------------------------------------------------------------------------------------


class StoreError(LargeFileError):
    """Something went wrong between us and a store."""


class StoreUnavailable(StoreError):
    """The store does not answer, or answers that it cannot now: try again later.

    Attributes
    ----------
    retry_after : float or None
        Seconds the store asked us to wait, when it said so.
    """

    def __init__(self, message: str, *, advice: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message, advice=advice)
        self.retry_after = retry_after


class StoreAccessDenied(StoreError):
    """The store knows who we are (or that we are nobody) and refuses."""


class StoreMisconfigured(StoreError):
    """The store, container or root is not there, or the request can never work with this configuration."""


class StoreFull(StoreError):
    """No space (or quota) left in the store or on the local disk."""


class ObjectNotFound(StoreError):
    """The container is there, the object is not."""


class ObjectExists(StoreError):
    """An object of that name is already there; it was not touched."""


class UploadSessionLost(StoreError):
    """The store no longer knows the upload (aborted, expired, or committed by someone else)."""


# --- bytes -------------------------------------------------------------------------------------------------------


class IntegrityError(LargeFileError):
    """Stored bytes are not what was written: wrong size, digest or authentication tag."""


class ObjectChanged(IntegrityError):
    """The object was replaced while it was being read, or is not the one the reference names."""


class EnvelopeError(IntegrityError):
    """The encrypted stored form is damaged, cut, reordered or not meant for this place."""


class EnvelopeKeyError(EnvelopeError):
    """The data key of an envelope cannot be unwrapped: other recipient, damaged or malformed JWE."""


class TransferCancelled(LargeFileError):
    """The caller cancelled the transfer; nothing was committed."""


class TransferStalled(StoreUnavailable):
    """No byte moved for longer than the stall limit."""


class SpoolMismatch(IntegrityError):
    """A spool file does not match the record of the upload that it belongs to; it is never sent."""


# --- vantage6 server ---------------------------------------------------------------------------------------------


class ServerUnavailable(LargeFileError):
    """The vantage6 server does not answer, or answers 5xx/429: try again later."""


class ServerRejected(LargeFileError):
    """The vantage6 server answered, and refused.

    Attributes
    ----------
    status : int
        HTTP status of the answer.
    """

    def __init__(self, message: str, *, status: int, advice: str | None = None) -> None:
        super().__init__(message, advice=advice)
        self.status = status


# --- results, as a reader sees them --------------------------------------------------------------------------------


class ResultError(LargeFileError):
    """A result or input cannot be had."""


class ResultNotYetThere(ResultError):
    """The run has not finished; its result does not exist yet."""


class ResultNotAllowed(ResultError):
    """The object exists but this reader may not read it."""


class ResultMissing(ResultError):
    """The reference is there, the object is gone."""


class ResultExpired(ResultError):
    """The object was given up early or its retention has passed."""


class ResultTooLarge(ResultError):
    """The result exceeds a limit that a configuration sets (named in the message)."""


class BadOutput(LargeFileError):
    """An algorithm left no usable output file: missing, empty, a symlink, several links, not a regular file."""
