"""The researcher's client: vantage6's ``UserClient``, for results of any size."""

from vantage6_largefile.client.large_file_client import LargeFileClient

__all__ = ["LargeFileClient"]
