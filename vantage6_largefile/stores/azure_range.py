"""One range of a blob as a stream of what really came in.

The SDK's own downloader hands out whole chunks only: what came of a chunk before its connection broke is thrown away,
it tries three times by itself, with sleeps that nobody can cancel, and a line that breaks more often than once per
chunk never gets anything through. The transfer above takes a read up again at the byte where it broke, so it needs
every byte that came. The request goes through the SDK's pipeline, so that headers, credential, proxy and errors are
those of all other requests.
"""

from __future__ import annotations

from collections.abc import Iterator

from azure.core.exceptions import HttpResponseError, IncompleteReadError
from azure.core.rest import HttpRequest, HttpResponse
from azure.storage.blob import BlobClient


def stream_range(blob: BlobClient, offset: int, length: int | None, if_match: str | None) -> Iterator[bytes]:
    """The bytes of a range, in the pieces of the transport.

    Raises
    ------
    HttpResponseError
        The service refused; 416 when the range begins behind the end.
    AzureError
        The connection broke, also when the answer ended before its declared length.
    """
    end = "" if length is None else str(offset + length - 1)
    headers = {"x-ms-version": blob.api_version, "x-ms-range": f"bytes={offset}-{end}"}
    if if_match is not None:
        headers["If-Match"] = if_match
    # The client has no public way to send a request of one's own; its pipeline is what it sends all others with.
    answer = blob._pipeline.run(HttpRequest("GET", blob.url, headers=headers), stream=True)
    response: HttpResponse = answer.http_response
    with response:
        if response.status_code not in (200, 206):
            response.read()
            raise HttpResponseError(response=response)
        yield from _whole(response)


def _whole(response: HttpResponse) -> Iterator[bytes]:
    """The body, which must have the length that its head declares."""
    declared = response.headers.get("Content-Length")
    left = int(declared) if declared is not None and declared.isdigit() else None
    for piece in response.iter_raw():
        if left is not None:
            left -= len(piece)
        yield piece
    if left:
        raise IncompleteReadError(message="the answer ended early")
