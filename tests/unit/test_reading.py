"""What a reader accepts: its own store, the writer's readable entry, and bytes that are what the reference says."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from vantage6_largefile.config import load_large_result_store
from vantage6_largefile.errors import (
    IntegrityError,
    InvalidReference,
    LocationRefused,
    ObjectNotFound,
    ResultNotAllowed,
)
from vantage6_largefile.reading import ReadableObject, Reader, input_of_record, result_of_record
from vantage6_largefile.reference import ResultContext, new_object_id, now_timestamp, object_location, parse_reference
from vantage6_largefile.stores import open_store
from vantage6_largefile.transfer import CancelToken, TransferOptions, upload_file

SERVER = "0b6e2a1c-4d4e-4a7b-8a55-9c6f6e1f2a3b"
CENTRAL, HOSPITAL_A, HOSPITAL_B = 1, 2, 3
DATA = b"a model " * 400_000


class Stores:
    """Folders of three organisations, and a reader that is the central one."""

    def __init__(self, folder: Path) -> None:
        for name in ("dhd", "hospital-a", "hospital-b", "hospital-a2"):
            (folder / name).mkdir()
        self.folder = folder
        self.config = load_large_result_store(
            {
                "driver": "file",
                "root": "dhd",
                "path": str(folder / "dhd"),
                "transfer": {"retry_for": "1s"},
                "readable": [
                    {"organization": HOSPITAL_A, "location": "file://hospital-a", "path": str(folder / "hospital-a")}
                ],
            },
            source="test",
        )
        self.reader = Reader(
            config=self.config,
            own=open_store(self.config.own),
            organization_id=CENTRAL,
            encrypted=False,
            private_key=None,
            options=TransferOptions.from_config(self.config.transfer),
            cancel=CancelToken(),
        )

    def put(self, name: str, run_id: int, data: bytes = DATA) -> dict[str, object]:
        block = {"driver": "file", "root": name, "path": str(self.folder / name)}
        store = open_store(load_large_result_store(block, source="test").own)
        source = self.folder / "source"
        source.write_bytes(data)
        identity = new_object_id()
        location = object_location(store.root, ResultContext(SERVER, 1, run_id), identity)
        stored = upload_file(store, source, location, media_type="application/json", options=TransferOptions())
        return {
            "version": 1,
            "id": identity,
            "location": str(location),
            "size": len(data),
            "stored_size": stored.stored_size,
            "sha256": hashlib.sha256(data).hexdigest(),
            "etag": stored.etag,
            "media_type": "application/json",
            "envelope": None,
            "created_at": now_timestamp(),
        }

    def item(self, document: dict[str, object], writer: int, run_id: int = 5) -> ReadableObject:
        return ReadableObject(parse_reference(document), ResultContext(SERVER, 1, run_id), writer)


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    return Stores(tmp_path)


def record(document: object, **changes: object) -> dict[str, object]:
    return {"id": 5, "collaboration_id": 1, "organization_id": HOSPITAL_A, "result_reference": document, **changes}


def test_object_of_a_readable_store_is_streamed_whole(stores: Stores) -> None:
    item = result_of_record(record(stores.put("hospital-a", 5)), SERVER)
    assert item is not None
    assert b"".join(stores.reader.stream(item)) == DATA


def test_own_object_is_read_without_a_readable_entry(stores: Stores) -> None:
    item = stores.item(stores.put("dhd", 5), CENTRAL)
    assert b"".join(stores.reader.stream(item)) == DATA


def test_store_without_an_entry_is_refused_before_it_is_touched(stores: Stores) -> None:
    item = stores.item(stores.put("hospital-b", 5), HOSPITAL_B)
    with pytest.raises(LocationRefused, match=r"hospital-b.*readable|readable.*hospital-b"):
        stores.reader.stream(item)


def test_entry_of_one_organisation_does_not_open_it_for_objects_of_another(stores: Stores) -> None:
    item = stores.item(stores.put("hospital-a", 5), HOSPITAL_B)
    with pytest.raises(LocationRefused):
        stores.reader.stream(item)


def test_own_store_does_not_hold_objects_of_others(stores: Stores) -> None:
    item = stores.item(stores.put("dhd", 5), HOSPITAL_A)
    with pytest.raises(LocationRefused):
        stores.reader.stream(item)


def test_prefix_look_alike_is_refused(stores: Stores) -> None:
    item = stores.item(stores.put("hospital-a2", 5), HOSPITAL_A)
    with pytest.raises(LocationRefused):
        stores.reader.stream(item)


@pytest.mark.parametrize(
    "changes",
    [{"id": 6}, {"collaboration_id": 2}],
    ids=["another run", "another collaboration"],
)
def test_reference_of_another_place_is_refused(stores: Stores, changes: dict[str, object]) -> None:
    with pytest.raises(InvalidReference, match="belongs to another"):
        result_of_record(record(stores.put("hospital-a", 5), **changes), SERVER)


def test_reference_of_another_server_is_refused(stores: Stores) -> None:
    with pytest.raises(InvalidReference, match="belongs to another"):
        result_of_record(record(stores.put("hospital-a", 5)), SERVER.replace("0b", "0c"))


def test_result_is_no_input(stores: Stores) -> None:
    document = stores.put("hospital-a", 5)
    with pytest.raises(InvalidReference, match="belongs to another"):
        input_of_record({"id": 5, "collaboration_id": 1, "init_org_id": 2, "input_reference": document}, SERVER)


def test_record_without_the_writer_is_refused(stores: Stores) -> None:
    with pytest.raises(InvalidReference, match="no organization_id"):
        result_of_record(record(stores.put("hospital-a", 5), organization_id=None), SERVER)


def test_hidden_location_is_told_apart_from_a_broken_reference(stores: Stores) -> None:
    reference = parse_reference(stores.put("hospital-a", 5))
    with pytest.raises(ResultNotAllowed, match="aggregated"):
        result_of_record(record(reference.without_access()), SERVER)


def test_inline_record_has_no_object() -> None:
    assert result_of_record(record(None), SERVER) is None


def test_encrypted_object_is_refused_in_a_plain_collaboration(stores: Stores) -> None:
    document = stores.put("hospital-a", 5)
    size = int(str(document["size"]))
    document["envelope"] = {"format": "tink-aes256-gcm-hkdf-1mb", "key": "a.b.c.d.e"}
    document["stored_size"] = size + 40 + 16 * 4
    with pytest.raises(InvalidReference, match="collaboration's objects are plain"):
        stores.reader.stream(stores.item(document, HOSPITAL_A))


def test_damaged_object_is_found_before_its_end_is_handed_out(stores: Stores) -> None:
    document = stores.put("hospital-a", 5)
    path = next((stores.folder / "hospital-a").rglob(str(document["id"])))
    path.chmod(0o600)
    damaged = bytearray(path.read_bytes())
    damaged[100] ^= 1
    path.write_bytes(damaged)
    document["etag"] = None
    got = bytearray()
    with pytest.raises(IntegrityError):
        got.extend(byte for chunk in stores.reader.stream(stores.item(document, HOSPITAL_A)) for byte in chunk)
    assert len(got) < len(DATA)


def test_object_of_another_size_is_an_integrity_error(stores: Stores) -> None:
    document = stores.put("hospital-a", 5)
    document["size"] = document["stored_size"] = len(DATA) - 1
    with pytest.raises(IntegrityError):
        b"".join(stores.reader.stream(stores.item(document, HOSPITAL_A)))


def test_missing_object_is_told_apart(stores: Stores) -> None:
    document = stores.put("hospital-a", 5)
    next((stores.folder / "hospital-a").rglob(str(document["id"]))).unlink()
    with pytest.raises(ObjectNotFound):
        b"".join(stores.reader.stream(stores.item(document, HOSPITAL_A)))
