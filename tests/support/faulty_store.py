"""A real store between whose calls a test can step: to count them, to fail them, to wait in them.

What it does not fail on purpose is done by the store behind it. Faults that a network makes belong into integration
tests with a real server; this is for faults at one exact call, before or after it took effect.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from vantage6_largefile.location import Location
from vantage6_largefile.stores import ObjectInfo, Part, Store, StoreLimits, UploadSession

#: Called with the number of the call (1-based) of its kind; raises to fail it.
Hook = Callable[[int], None]


class FaultyStore:
    """`behind`, with hooks by call name: ``before["put_part"]``, ``after["commit"]``, …

    Attributes
    ----------
    calls : Counter
        How often each call was made.
    sent : list of int
        Numbers of the parts that were put.
    """

    def __init__(self, behind: Store) -> None:
        self._behind = behind
        self.calls: Counter[str] = Counter()
        self.before: dict[str, Hook] = {}
        self.after: dict[str, Hook] = {}
        self.sent: list[int] = []

    def _enter(self, name: str) -> int:
        self.calls[name] += 1
        number = self.calls[name]
        if name in self.before:
            self.before[name](number)
        return number

    def _leave(self, name: str, number: int) -> None:
        if name in self.after:
            self.after[name](number)

    @property
    def root(self) -> Location:
        return self._behind.root

    @property
    def limits(self) -> StoreLimits:
        return self._behind.limits

    def check(self) -> None:
        self._behind.check()

    def begin(self, location: Location, *, media_type: str, part_size: int) -> UploadSession:
        number = self._enter("begin")
        session = self._behind.begin(location, media_type=media_type, part_size=part_size)
        self._leave("begin", number)
        return session

    def put_part(self, session: UploadSession, number: int, data: bytes | memoryview) -> Part:
        call = self._enter("put_part")
        part = self._behind.put_part(session, number, data)
        self.sent.append(number)
        self._leave("put_part", call)
        return part

    def list_parts(self, session: UploadSession) -> Sequence[Part] | None:
        self._enter("list_parts")
        return self._behind.list_parts(session)

    def commit(self, session: UploadSession, parts: Sequence[Part]) -> ObjectInfo:
        number = self._enter("commit")
        info = self._behind.commit(session, parts)
        self._leave("commit", number)
        return info

    def abort(self, session: UploadSession) -> None:
        self._enter("abort")
        self._behind.abort(session)

    def read(
        self, location: Location, *, offset: int = 0, length: int | None = None, if_match: str | None = None
    ) -> Iterator[bytes]:
        number = self._enter("read")
        yield from self._behind.read(location, offset=offset, length=length, if_match=if_match)
        self._leave("read", number)

    def stat(self, location: Location) -> ObjectInfo:
        self._enter("stat")
        return self._behind.stat(location)

    def delete(self, location: Location) -> None:
        self._behind.delete(location)

    def list(self, prefix: Location) -> Iterator[ObjectInfo]:
        return self._behind.list(prefix)

    def close(self) -> None:
        self._behind.close()


def failing(error: Exception, *calls: int) -> Hook:
    """A hook that raises `error` at these calls; at every call when none is named."""

    def hook(number: int) -> None:
        if not calls or number in calls:
            raise error

    return hook
