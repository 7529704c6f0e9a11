"""What every driver promises, as tests that a driver's author runs against the real store.

Subclass it in a test module and say how the store is opened; pytest finds the rest::

    class TestMyStore(StoreConformance):
        def open_store(self, request):
            return open_store(StoreConfig(driver="mine", ...))

The store must be one that the credential may write, read, list and delete in; every test uses names of its own.
This is the only module of the package that imports pytest.
"""

# ruff: noqa: S101 - these are tests

from __future__ import annotations

import itertools
import json
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from vantage6_largefile.errors import LocationRefused, ObjectChanged, ObjectExists, ObjectNotFound
from vantage6_largefile.location import Location
from vantage6_largefile.stores.base import ObjectInfo, Part, Store, UploadSession

MEDIA_TYPE = "application/octet-stream"


class StoreConformance:
    """The suite; see the module's text."""

    #: Bytes of one part in these tests; raise it for a store whose smallest part is larger.
    part_size = 256 * 1024

    def open_store(self, request: pytest.FixtureRequest) -> Store:
        """Open the store to test. Fixtures are at hand through ``request.getfixturevalue``."""
        raise NotImplementedError

    @pytest.fixture
    def store(self, request: pytest.FixtureRequest) -> Iterator[Store]:
        store = self.open_store(request)
        yield store
        store.close()

    @pytest.fixture
    def place(self, store: Store) -> Location:
        return store.root.child("conformance", uuid.uuid4().hex)

    # --- helpers -------------------------------------------------------------------------------------------------

    def begin(self, store: Store, location: Location) -> UploadSession:
        return store.begin(location, media_type=MEDIA_TYPE, part_size=self.part_size)

    def put_all(self, store: Store, session: UploadSession, data: bytes) -> list[Part]:
        starts = range(0, len(data), self.part_size)
        return [
            store.put_part(session, number, data[start : start + self.part_size])
            for number, start in enumerate(starts, start=1)
        ]

    def write(self, store: Store, location: Location, data: bytes) -> ObjectInfo:
        session = self.begin(store, location)
        return store.commit(session, self.put_all(store, session, data))

    # --- round trip ----------------------------------------------------------------------------------------------

    def test_protocol_is_complete(self, store: Store) -> None:
        assert isinstance(store, Store)
        limits = store.limits
        assert 1 <= limits.min_part <= self.part_size <= limits.max_part
        assert limits.max_parts >= 1000

    def test_check_accepts_a_store_that_is_there(self, store: Store) -> None:
        store.check()

    @pytest.mark.parametrize("parts_and_bytes", [(0, 0), (0, 1), (1, -1), (1, 0), (1, 1), (2, 0), (3, 17)])
    def test_round_trip(self, store: Store, place: Location, parts_and_bytes: tuple[int, int]) -> None:
        size = parts_and_bytes[0] * self.part_size + parts_and_bytes[1]
        data = os.urandom(size)
        location = place.child("object")

        info = self.write(store, location, data)

        assert (info.location, info.size) == (location, size)
        assert b"".join(store.read(location)) == data
        assert store.stat(location).size == size

    def test_parts_come_in_any_order_and_in_parallel(self, store: Store, place: Location) -> None:
        data = os.urandom(6 * self.part_size + 5)
        location = place.child("object")
        session = self.begin(store, location)
        pieces = [
            (number, data[start : start + self.part_size])
            for number, start in enumerate(range(0, len(data), self.part_size), start=1)
        ]

        with ThreadPoolExecutor(4) as pool:
            parts = list(pool.map(lambda piece: store.put_part(session, *piece), reversed(pieces)))
        store.commit(session, parts)

        assert b"".join(store.read(location)) == data

    def test_part_that_is_sent_again_replaces_the_first(self, store: Store, place: Location) -> None:
        location = place.child("object")
        session = self.begin(store, location)
        first = os.urandom(self.part_size)
        store.put_part(session, 1, os.urandom(self.part_size))
        store.put_part(session, 2, b"a longer last part")

        parts = [store.put_part(session, 2, b"last"), store.put_part(session, 1, first)]
        store.commit(session, parts)

        assert b"".join(store.read(location)) == first + b"last"

    def test_buffer_may_be_used_again_after_a_part_was_put(self, store: Store, place: Location) -> None:
        location = place.child("object")
        session = self.begin(store, location)
        buffer = bytearray(b"x" * self.part_size)

        parts = [store.put_part(session, 1, memoryview(buffer))]
        buffer[:] = b"y" * self.part_size
        parts.append(store.put_part(session, 2, memoryview(buffer)[:3]))
        store.commit(session, parts)

        assert b"".join(store.read(location)) == b"x" * self.part_size + b"yyy"

    def test_session_survives_serialisation(self, store: Store, place: Location) -> None:
        location = place.child("object")
        session = self.begin(store, location)
        parts = self.put_all(store, session, b"d" * self.part_size)

        again = UploadSession.from_dict(json.loads(json.dumps(session.to_dict())))
        parts.append(store.put_part(again, 2, b"e"))
        store.commit(again, parts)

        assert again == session
        assert b"".join(store.read(location)) == b"d" * self.part_size + b"e"

    def test_many_threads_share_one_store(self, store: Store, place: Location) -> None:
        contents = {place.child(f"object-{number}"): os.urandom(self.part_size + number) for number in range(8)}

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda location: self.write(store, location, contents[location]), contents))
            read = list(pool.map(lambda location: b"".join(store.read(location)), contents))

        assert read == list(contents.values())

    # --- nothing is seen early, nothing is overwritten --------------------------------------------------------------

    def test_nothing_is_visible_before_commit(self, store: Store, place: Location) -> None:
        location = place.child("object")
        session = self.begin(store, location)
        self.put_all(store, session, b"x" * (self.part_size + 1))

        with pytest.raises(ObjectNotFound):
            store.stat(location)
        with pytest.raises(ObjectNotFound):
            list(store.read(location))
        assert list(store.list(place)) == []
        store.abort(session)

    def test_existing_object_is_never_overwritten(self, store: Store, place: Location) -> None:
        location = place.child("object")
        before = self.write(store, location, b"first")

        with pytest.raises(ObjectExists):
            self.write(store, location, b"second")
        with pytest.raises(ObjectExists):
            self.write(store, location, b"")

        assert b"".join(store.read(location)) == b"first"
        assert store.stat(location) == before

    def test_two_uploads_of_one_object_do_not_mix(self, store: Store, place: Location) -> None:
        location = place.child("object")
        ours, theirs = self.begin(store, location), self.begin(store, location)
        our_parts = [store.put_part(ours, 1, b"a" * self.part_size)]
        their_parts = [store.put_part(theirs, 1, b"b" * self.part_size)]
        their_parts.append(store.put_part(theirs, 2, b"b"))
        our_parts.append(store.put_part(ours, 2, b"a"))

        store.commit(ours, our_parts)

        with pytest.raises(ObjectExists):
            store.commit(theirs, their_parts)
        assert b"".join(store.read(location)) == b"a" * self.part_size + b"a"

    def test_of_simultaneous_commits_one_wins_whole(self, store: Store, place: Location) -> None:
        location = place.child("object")
        bodies = [bytes([65 + number]) * (self.part_size + number) for number in range(6)]
        uploads = [(session := self.begin(store, location), self.put_all(store, session, body)) for body in bodies]

        def commit(upload: tuple[UploadSession, Sequence[Part]]) -> bool:
            try:
                store.commit(*upload)
            except ObjectExists:
                return False
            return True

        with ThreadPoolExecutor(len(uploads)) as pool:
            won = list(pool.map(commit, uploads))

        assert won.count(True) == 1
        assert b"".join(store.read(location)) == bodies[won.index(True)]

    # --- abort and parts ---------------------------------------------------------------------------------------------

    def test_abort_leaves_nothing_to_see(self, store: Store, place: Location) -> None:
        location = place.child("object")
        session = self.begin(store, location)
        self.put_all(store, session, b"x" * (2 * self.part_size))

        store.abort(session)
        store.abort(session)

        with pytest.raises(ObjectNotFound):
            store.stat(location)
        assert list(store.list(place)) == []
        self.write(store, location, b"the name is free")

    def test_parts_of_this_upload_are_listed(self, store: Store, place: Location) -> None:
        location = place.child("object")
        other = self.begin(store, location)
        session = self.begin(store, location)
        store.put_part(other, 3, b"not ours")
        put = [store.put_part(session, 2, b"tail"), store.put_part(session, 1, b"x" * self.part_size)]

        listed = store.list_parts(session)

        assert listed is None or list(listed) == sorted(put, key=lambda part: part.number)
        store.abort(other)
        store.abort(session)

    # --- reading -----------------------------------------------------------------------------------------------------

    def test_ranges(self, store: Store, place: Location) -> None:
        data = os.urandom(3 * self.part_size)
        location = place.child("object")
        self.write(store, location, data)
        size = len(data)
        edges = [0, 1, self.part_size - 1, self.part_size, self.part_size + 1, size - 1, size]

        for start, end in itertools.combinations_with_replacement(edges, 2):
            assert b"".join(store.read(location, offset=start, length=end - start)) == data[start:end]
        assert b"".join(store.read(location, offset=7)) == data[7:]

    def test_range_beyond_the_end_yields_what_there_is(self, store: Store, place: Location) -> None:
        location, empty = place.child("object"), place.child("empty")
        self.write(store, location, b"0123456789")
        self.write(store, empty, b"")

        assert b"".join(store.read(location, offset=8, length=100)) == b"89"
        assert b"".join(store.read(location, offset=10, length=1)) == b""
        assert b"".join(store.read(location, offset=11)) == b""
        assert b"".join(store.read(empty, offset=0, length=1)) == b""
        assert b"".join(store.read(empty)) == b""

    def test_etag_holds_a_reader_to_the_object(self, store: Store, place: Location) -> None:
        location = place.child("object")
        info = self.write(store, location, b"0123456789")
        etag = store.stat(location).etag
        assert etag is not None
        assert info.etag in (etag, None)

        assert b"".join(store.read(location, offset=2, length=3, if_match=etag)) == b"234"
        store.delete(location)
        self.write(store, location, b"another object")

        with pytest.raises(ObjectChanged):
            list(store.read(location, if_match=etag))

    def test_what_is_not_there_is_not_found(self, store: Store, place: Location) -> None:
        calls: list[Callable[[Location], object]] = [
            store.stat,
            lambda location: list(store.read(location)),
            lambda location: list(store.read(location, offset=5, length=5, if_match='"0x8D"')),
            store.delete,
        ]
        self.write(store, place.child("object"), b"x")
        for location in (place.child("absent"), place.child("absent", "deeper"), place.child("object", "below")):
            for call in calls:
                with pytest.raises(ObjectNotFound):
                    call(location)

    # --- outside -----------------------------------------------------------------------------------------------------

    def test_locations_outside_the_root_are_refused(self, store: Store) -> None:
        root = store.root
        outside = [Location(root.driver, root.authority + "2", (*root.segments, "object"))]
        outside.append(Location("elsewhere", root.authority, (*root.segments, "object")))
        if root.segments:
            *front, last = root.segments
            outside.append(Location(root.driver, root.authority, (*front, last + "2", "object")))
            outside.append(Location(root.driver, root.authority, (*front, "object")))
        for location in (*outside, root):
            with pytest.raises(LocationRefused):
                self.begin(store, location)
            with pytest.raises(LocationRefused):
                list(store.read(location))
            with pytest.raises(LocationRefused):
                store.stat(location)
            with pytest.raises(LocationRefused):
                store.delete(location)
            forged = UploadSession(str(location), "0" * 32, MEDIA_TYPE, self.part_size)
            for call in (
                store.list_parts,
                store.abort,
                lambda s: store.put_part(s, 1, b""),
                lambda s: store.commit(s, []),
            ):
                with pytest.raises(LocationRefused):
                    call(forged)
        for location in outside:
            with pytest.raises(LocationRefused):
                list(store.list(location))

    # --- list and delete ---------------------------------------------------------------------------------------------

    def test_list_compares_whole_segments(self, store: Store, place: Location) -> None:
        inside = {place.child("a", "1"), place.child("a", "b", "2"), place.child("a", "b", "c", "3")}
        for location in (*inside, place.child("ab", "4"), place.child("b")):
            self.write(store, location, str(location).encode())

        listed = list(store.list(place.child("a")))

        assert {info.location for info in listed} == inside
        for info in listed:
            assert info == store.stat(info.location)
            assert info.modified is not None

    def test_list_of_nothing_is_empty(self, store: Store, place: Location) -> None:
        assert list(store.list(place.child("never", "written"))) == []

    def test_list_of_the_root_shows_objects_and_no_uploads(self, store: Store, place: Location) -> None:
        session = self.begin(store, place.child("unfinished"))
        self.put_all(store, session, b"x" * self.part_size)
        self.write(store, place.child("object"), b"x")

        ours = [info.location for info in store.list(store.root) if place.contains(info.location)]

        assert ours == [place.child("object")]
        store.abort(session)

    def test_deleted_object_is_gone(self, store: Store, place: Location) -> None:
        location, neighbour = place.child("a", "object"), place.child("a", "neighbour")
        self.write(store, location, b"x")
        self.write(store, neighbour, b"y")

        store.delete(location)

        with pytest.raises(ObjectNotFound):
            store.stat(location)
        with pytest.raises(ObjectNotFound):
            store.delete(location)
        assert [info.location for info in store.list(place)] == [neighbour]
