"""The ``memory`` driver: objects in the memory of one process. It imports only what drivers of others may rely on."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator, Sequence

from vantage6_largefile.config.store import StoreConfig
from vantage6_largefile.errors import ConfigurationError, ObjectChanged, ObjectExists, ObjectNotFound, UploadSessionLost
from vantage6_largefile.location import Location
from vantage6_largefile.stores.base import ObjectInfo, Part, StoreLimits, UploadSession, require_inside

MIB = 1 << 20


class MemoryStore:
    """Everything is gone when the process ends."""

    def __init__(self, root: Location, limit: int) -> None:
        self._root = root
        self._limit = limit
        self._lock = threading.Lock()
        self._objects: dict[Location, tuple[bytes, ObjectInfo]] = {}
        self._uploads: dict[str, dict[int, bytes]] = {}

    @property
    def root(self) -> Location:
        return self._root

    @property
    def limits(self) -> StoreLimits:
        return StoreLimits(min_part=1, max_part=self._limit, max_parts=10_000)

    def check(self) -> None:
        pass

    def begin(self, location: Location, *, media_type: str, part_size: int) -> UploadSession:
        require_inside(self._root, location)
        session = UploadSession(str(location), secrets.token_hex(16), media_type, part_size)
        with self._lock:
            self._uploads[session.token] = {}
        return session

    def put_part(self, session: UploadSession, number: int, data: bytes | memoryview) -> Part:
        parts = self._parts(session)
        with self._lock:
            parts[number] = bytes(data)
        return Part(number, len(data), f"{number}")

    def list_parts(self, session: UploadSession) -> Sequence[Part]:
        parts = self._parts(session)
        with self._lock:
            return [Part(number, len(parts[number]), f"{number}") for number in sorted(parts)]

    def commit(self, session: UploadSession, parts: Sequence[Part]) -> ObjectInfo:
        there = self._parts(session)
        location = Location.parse(session.location)
        with self._lock:
            if location in self._objects:
                raise ObjectExists(f"{location} is already there; it was not touched.")
            data = b"".join(there[part.number] for part in sorted(parts, key=lambda part: part.number))
            info = ObjectInfo(location, len(data), f'"{secrets.token_hex(8)}"', time.time())
            self._objects[location] = data, info
            del self._uploads[session.token]
        return info

    def abort(self, session: UploadSession) -> None:
        require_inside(self._root, Location.parse(session.location))
        with self._lock:
            self._uploads.pop(session.token, None)

    def read(
        self, location: Location, *, offset: int = 0, length: int | None = None, if_match: str | None = None
    ) -> Iterator[bytes]:
        data, info = self._object(location)
        if if_match not in (None, info.etag):
            raise ObjectChanged(f"{location} is not the object that was expected.")
        end = len(data) if length is None else min(len(data), offset + length)
        for start in range(offset, end, MIB):
            yield data[start : min(start + MIB, end)]

    def stat(self, location: Location) -> ObjectInfo:
        return self._object(location)[1]

    def delete(self, location: Location) -> None:
        self._object(location)
        with self._lock:
            del self._objects[location]

    def list(self, prefix: Location) -> Iterator[ObjectInfo]:
        require_inside(self._root, prefix, or_root=True)
        with self._lock:
            found = [info for location, (_, info) in self._objects.items() if prefix.contains(location)]
        return iter(found)

    def close(self) -> None:
        pass

    def _object(self, location: Location) -> tuple[bytes, ObjectInfo]:
        require_inside(self._root, location)
        with self._lock:
            if location not in self._objects:
                raise ObjectNotFound(f"{location} is not there.")
            return self._objects[location]

    def _parts(self, session: UploadSession) -> dict[int, bytes]:
        require_inside(self._root, Location.parse(session.location))
        with self._lock:
            if session.token not in self._uploads:
                raise UploadSessionLost(f"The upload of {session.location} is not known (any more).")
            return self._uploads[session.token]


def open_store(config: StoreConfig) -> MemoryStore:
    """Open the store of a configuration: what the entry point names."""
    limit = config.options.get("max_part", str(64 * MIB))
    if not limit.isdecimal():
        raise ConfigurationError(["options.max_part: expected a number of bytes"])
    return MemoryStore(config.root, int(limit))
