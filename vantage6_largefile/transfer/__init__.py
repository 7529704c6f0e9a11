"""Moving stored forms between this machine and a store: parallel, retried, verified (design: section 8)."""

from vantage6_largefile.transfer.control import CancelToken, Progress, RateLimiter, TransferOptions
from vantage6_largefile.transfer.download import download_file, iter_object
from vantage6_largefile.transfer.object_file import open_object
from vantage6_largefile.transfer.opened import download_opened, iter_opened
from vantage6_largefile.transfer.sealed import discard_sealed, upload_sealed
from vantage6_largefile.transfer.session import StoredObject
from vantage6_largefile.transfer.upload import discard_upload, upload_file
from vantage6_largefile.transfer.writer import ObjectWriter, upload_stream

__all__ = [
    "CancelToken",
    "ObjectWriter",
    "Progress",
    "RateLimiter",
    "StoredObject",
    "TransferOptions",
    "discard_sealed",
    "discard_upload",
    "download_file",
    "download_opened",
    "iter_object",
    "iter_opened",
    "open_object",
    "upload_file",
    "upload_sealed",
    "upload_stream",
]
