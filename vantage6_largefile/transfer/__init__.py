"""Moving stored forms between this machine and a store: parallel, retried, verified (design: section 8)."""

from vantage6_largefile.transfer.control import CancelToken, Progress, RateLimiter, TransferOptions
from vantage6_largefile.transfer.download import download_file, iter_object
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
    "discard_upload",
    "download_file",
    "iter_object",
    "upload_file",
    "upload_stream",
]
