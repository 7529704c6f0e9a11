"""PATCH of a run by reference."""

from __future__ import annotations

import json
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from tests.support import server_world
from tests.support.server_world import (
    DHD,
    HOMELESS,
    JWE,
    MAX_INLINE,
    OLD,
    OTHER,
    PLAIN,
    SECRET,
    STORES,
    A,
    B,
    World,
    now,
)
from tests.support.v6server import Caller
from vantage6_largefile.reference import stored_size_of
from vantage6_largefile.wire import EXTENDED_HEADER

world = server_world.world


def columns_of(world: World, run_id: int) -> dict[str, object]:
    """The run's row as it is in the database."""
    engine = sa.create_engine(world.uri)
    try:
        with engine.connect() as connection:
            row = connection.execute(sa.text("SELECT * FROM run WHERE id = :id"), {"id": run_id}).mappings().one()
            return dict(row)
    finally:
        engine.dispose()


def test_reference_is_stored_and_result_column_stays_null(world: World) -> None:
    task_id, runs = world.task()
    document = world.result_reference(runs[A])

    answer = world.finish(runs[A], document, log="done")

    assert answer.status_code == 200, answer.text
    row = columns_of(world, runs[A])
    assert row["result"] is None
    assert row["result_object_id"] == document["id"]
    assert row["status"] == "completed"
    assert row["log"] == "done"
    assert row["finished_at"] is not None
    record = world.user(DHD).get(f"result/{runs[A]}").json()
    assert record["result"] == document["id"]
    assert record["blob_storage_used"] is True
    assert record["result_reference"] == document
    assert (record["organization_id"], record["init_org_id"], record["collaboration_id"]) == (A, DHD, PLAIN)
    assert world.user(DHD).get(f"task/{task_id}").json()["status"] == "completed"


def test_encrypted_collaboration_takes_an_envelope(world: World) -> None:
    _, runs = world.task(collaboration=SECRET)
    document = world.result_reference(runs[A], collaboration=SECRET, encrypted=True)

    answer = world.finish(runs[A], document, by=world.node(A, SECRET))

    assert answer.status_code == 200, answer.text
    assert world.user(DHD).get(f"result/{runs[A]}").json()["result_reference"]["envelope"]["key"] == JWE


def test_location_may_have_the_nodes_prefix(world: World) -> None:
    _, runs = world.task()

    answer = world.finish(runs[A], world.result_reference(runs[A], store=f"{STORES[A]}/ward/7"))

    assert answer.status_code == 200, answer.text


def test_same_reference_again_is_accepted_also_when_the_run_has_finished(world: World) -> None:
    _, runs = world.task()
    document = world.result_reference(runs[A])
    first = world.finish(runs[A], document)
    shuffled = dict(reversed(list(document.items())))

    second = world.finish(runs[A], shuffled, status="failed", log="again")

    assert (first.status_code, second.status_code) == (200, 200)
    assert second.json()["status"] == "completed"
    assert columns_of(world, runs[A])["log"] is None


def test_same_reference_again_before_the_run_has_finished_goes_on_as_stock(world: World) -> None:
    _, runs = world.task()
    document = world.result_reference(runs[A])
    node = world.node(A)
    early = node.patch(f"run/{runs[A]}", json={"result_reference": document, "status": "active"})

    answer = world.finish(runs[A], document)

    assert (early.status_code, answer.status_code) == (200, 200)
    assert answer.json()["status"] == "completed"


@pytest.mark.parametrize("finished", [True, False])
def test_different_reference_later_is_refused(world: World, finished: bool) -> None:
    _, runs = world.task()
    document = world.result_reference(runs[A])
    body = {"result_reference": document, "status": "active", **({"finished_at": now()} if finished else {})}
    world.node(A).patch(f"run/{runs[A]}", json=body).raise_for_status()

    answer = world.finish(runs[A], world.result_reference(runs[A]))

    assert answer.status_code == 409
    assert document["id"] in answer.json()["msg"]
    assert columns_of(world, runs[A])["result_object_id"] == document["id"]


def test_same_object_with_another_envelope_key_is_a_different_reference(world: World) -> None:
    _, runs = world.task(collaboration=SECRET)
    document = world.result_reference(runs[A], collaboration=SECRET, encrypted=True)
    world.finish(runs[A], document, by=world.node(A, SECRET)).raise_for_status()
    rewrapped = {**document, "envelope": {"format": "tink-aes256-gcm-hkdf-1mb", "key": f"{JWE}A"}}

    answer = world.finish(runs[A], rewrapped, by=world.node(A, SECRET))

    assert answer.status_code == 409


def test_inline_result_after_a_reference_is_refused(world: World) -> None:
    _, runs = world.task()
    document = world.result_reference(runs[A])
    world.node(A).patch(f"run/{runs[A]}", json={"result_reference": document}).raise_for_status()

    answer = world.node(A).patch(f"run/{runs[A]}", json={"result": "e30=", "finished_at": now()})

    assert answer.status_code == 409
    assert columns_of(world, runs[A])["result"] is None


def test_patch_without_a_result_keeps_the_reference(world: World) -> None:
    _, runs = world.task()
    document = world.result_reference(runs[A])
    world.node(A).patch(f"run/{runs[A]}", json={"result_reference": document}).raise_for_status()

    answer = world.node(A).patch(f"run/{runs[A]}", json={"finished_at": now(), "status": "completed"})

    assert answer.status_code == 200
    assert columns_of(world, runs[A])["result_object_id"] == document["id"]


def test_reference_for_a_run_that_finished_without_one_is_refused_as_stock_does(world: World) -> None:
    _, runs = world.task()
    world.node(A).patch(f"run/{runs[A]}", json={"finished_at": now(), "status": "failed"}).raise_for_status()

    answer = world.finish(runs[A], world.result_reference(runs[A]))

    assert answer.status_code == 400
    assert "already finished" in answer.json()["msg"]
    assert columns_of(world, runs[A])["result_object_id"] is None


def test_result_and_reference_together_are_refused(world: World) -> None:
    _, runs = world.task()

    answer = world.finish(runs[A], world.result_reference(runs[A]), result="e30=")

    assert answer.status_code == 400
    assert "not both" in answer.json()["msg"]
    assert columns_of(world, runs[A])["finished_at"] is None


def test_reference_without_the_header_is_refused_with_a_hint(world: World) -> None:
    _, runs = world.task()

    answer = world.finish(runs[A], world.result_reference(runs[A]), by=world.node(A, extended=False))

    assert answer.status_code == 400
    assert EXTENDED_HEADER in answer.json()["msg"]


@pytest.mark.parametrize(
    ("organization", "collaboration"), [(B, PLAIN), (A, OTHER), (DHD, PLAIN)], ids=["other-org", "other-col", "central"]
)
def test_run_of_another_node_is_not_changed(world: World, organization: int, collaboration: int) -> None:
    _, runs = world.task()

    answer = world.finish(runs[A], world.result_reference(runs[A]), by=world.node(organization, collaboration))
    inline = world.node(organization, collaboration).patch(f"run/{runs[A]}", json={"result": "e30="})

    assert (answer.status_code, inline.status_code) == (401, 401)
    row = columns_of(world, runs[A])
    assert (row["result_object_id"], row["result"], row["finished_at"]) == (None, None, None)


def test_unknown_run_is_404(world: World) -> None:
    for run_id in (987654, 2**31, 10**30):
        assert world.finish(run_id, world.result_reference(1)).status_code == 404


@pytest.mark.parametrize("kind", ["user", "container"])
def test_patch_is_for_nodes_only(world: World, kind: str) -> None:
    task_id, runs = world.task()
    caller = world.user(DHD) if kind == "user" else world.container(A, task_id)

    answer = world.finish(runs[A], world.result_reference(runs[A]), by=caller)

    assert answer.status_code == 403


# --- references that are wrong ------------------------------------------------------------------------------------


def wrong_references(world: World, run_id: int) -> dict[str, tuple[object, int]]:
    """What a node may try, and the status that it must get."""
    good = world.result_reference(run_id)
    object_id = str(good["id"])
    nested: object = "x"
    for _ in range(500):
        nested = [nested]
    layout = str(good["location"]).removeprefix(STORES[A])

    def at(store: str) -> dict[str, object]:
        return {**good, "location": store + layout}

    return {
        "another's location": (world.result_reference(run_id, store=STORES[B]), 403),
        "look-alike of the own one": (at("azure://acct/hospital-a2"), 403),
        "look-alike by case": (at("azure://acct/Hospital-A"), 403),
        "other account": (at("azure://acct2/hospital-a"), 403),
        "other driver": (at("s3://acct/hospital-a"), 403),
        "above the own one": (at("azure://acct"), 403),
        "dot dot": (at("azure://acct/hospital-b/../hospital-a"), 400),
        "dot dot out of it": (at("azure://acct/hospital-a/../hospital-b"), 400),
        "percent-encoded dots": (at("azure://acct/hospital-a/%2e%2e/hospital-b"), 400),
        "percent-encoded slash": (at("azure://acct/hospital-a%2f.."), 400),
        "empty segment": (at("azure://acct/hospital-a/"), 400),
        "query": (at("azure://acct/hospital-a?x=1"), 400),
        "credentials": (at("azure://user:pw@acct/hospital-a"), 400),
        "backslash": (at("azure://acct/hospital-a\\.."), 400),
        "non-ASCII": (at("azure://acct/hospitäl-a"), 400),
        "NUL": (at("azure://acct/hospital-a\x00"), 400),
        "another run's layout": ({**world.result_reference(run_id + 1)}, 400),
        "another collaboration's layout": (world.result_reference(run_id, collaboration=OTHER), 400),
        "an input's layout": (world.input_reference(A, store=STORES[A]), 400),
        "another server's layout": (
            {**good, "location": str(good["location"]).replace(world.server_id, str(uuid.uuid4()))},
            400,
        ),
        "layout with something behind it": ({**good, "location": f"{good['location']}/x"}, 400),
        "id that is not the location's": ({**good, "id": str(uuid.uuid4())}, 400),
        "upper-case id": ({**good, "id": object_id.upper()}, 400),
        "uuid of another version": (
            world.result_reference(run_id, id="7b0e8c1e-0000-1000-8000-000000000000"),
            400,
        ),
        "unknown version": ({**good, "version": 2}, 400),
        "version as text": ({**good, "version": "1"}, 400),
        "version as true": ({**good, "version": True}, 400),
        "no version": ({key: value for key, value in good.items() if key != "version"}, 400),
        "unknown key": ({**good, "sas": "sig=abc"}, 400),
        "wrong stored size": ({**good, "stored_size": 5}, 400),
        "stored size of an envelope": ({**good, "stored_size": stored_size_of(1 << 20, encrypted=True)}, 400),
        "negative size": ({**good, "size": -1, "stored_size": -1}, 400),
        "huge size": ({**good, "size": 2**64, "stored_size": 2**64}, 400),
        "fractional size": ({**good, "size": 1.5, "stored_size": 1.5}, 400),
        "short digest": ({**good, "sha256": "ab"}, 400),
        "unknown media type": ({**good, "media_type": "application/x-python-pickle"}, 400),
        "huge": ({**good, "etag": "x" * 5_000_000}, 400),
        "huge location": (at("azure://acct/hospital-a/" + "a" * 100_000), 400),
        "nested": ({**good, "envelope": nested}, 400),
        "nested version": ({**good, "version": nested}, 400),
        "envelope in a plain collaboration": (world.result_reference(run_id, encrypted=True), 400),
        "list": ([good], 400),
        "text": (json.dumps(good), 400),
        "number": (7, 400),
        "true": (True, 400),
        "empty": ({}, 400),
    }


def test_wrong_references_are_refused_and_change_nothing(world: World) -> None:
    _, runs = world.task()
    cases = wrong_references(world, runs[A])

    answers = {name: world.finish(runs[A], document) for name, (document, _) in cases.items()}

    statuses = {name: answer.status_code for name, answer in answers.items()}
    assert statuses == {name: status for name, (_, status) in cases.items()}
    assert all(len(answer.json()["msg"]) < 5000 for answer in answers.values())
    row = columns_of(world, runs[A])
    assert (row["result_object_id"], row["finished_at"], row["status"]) == (None, None, "pending")
    assert world.finish(runs[A], world.result_reference(runs[A])).status_code == 200


def test_malformed_bodies_are_400(world: World) -> None:
    _, runs = world.task()
    path, node = f"run/{runs[A]}", world.node(A)
    bodies = [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"[" * 100_000, b'{"result_reference": ' + b"[" * 100_000]

    as_json = Caller(node.api, {**node.headers, "Content-Type": "application/json"})

    statuses = [caller.patch(path, data=body).status_code for body in bodies for caller in (node, as_json)]

    assert statuses == [400] * len(statuses)


def test_no_envelope_in_an_encrypted_collaboration_is_refused(world: World) -> None:
    _, runs = world.task(collaboration=SECRET)

    answer = world.finish(runs[A], world.result_reference(runs[A], collaboration=SECRET), by=world.node(A, SECRET))

    assert answer.status_code == 400
    assert "encrypted" in answer.json()["msg"]


def test_organization_without_location_may_not_register(world: World) -> None:
    _, runs = world.task((HOMELESS,))

    answer = world.finish(runs[HOMELESS], world.result_reference(runs[HOMELESS]), by=world.node(HOMELESS))

    assert answer.status_code == 403
    assert "largefile.locations" in answer.json()["msg"]


# --- object ids belong to one object ------------------------------------------------------------------------------


def test_id_of_another_result_is_refused(world: World) -> None:
    _, first = world.task()
    _, second = world.task()
    document = world.result_reference(first[A])
    world.finish(first[A], document).raise_for_status()

    answer = world.finish(second[A], world.result_reference(second[A], id=document["id"]))

    assert answer.status_code == 409
    assert "already used" in answer.json()["msg"]


def test_id_of_an_input_is_refused(world: World) -> None:
    document = world.input_reference()
    body = world.task_body([{"id": A, "input_reference": document}])
    task = world.user(DHD).post("task", json=body).json()
    _, runs = world.runs_of(task["id"])

    answer = world.finish(runs[A], world.result_reference(runs[A], id=document["id"]))

    assert answer.status_code == 409


def test_id_of_a_deleted_result_is_refused(world: World) -> None:
    task_id, first = world.task()
    document = world.result_reference(first[A])
    world.finish(first[A], document).raise_for_status()
    world.user(DHD).delete(f"task/{task_id}").raise_for_status()
    _, second = world.task()

    answer = world.finish(second[A], world.result_reference(second[A], id=document["id"]))

    assert answer.status_code == 409


def test_of_many_references_at_once_one_is_stored(world: World) -> None:
    _, runs = world.task()
    documents = [world.result_reference(runs[A]) for _ in range(4)]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda document: world.finish(runs[A], document), documents * 2))

    by_document = {str(document["id"]): set() for document in documents}
    for document, answer in zip(documents * 2, answers, strict=True):
        by_document[str(document["id"])].add(answer.status_code)
    stored = str(columns_of(world, runs[A])["result_object_id"])
    assert by_document.pop(stored) == {200}
    assert all(statuses == {409} for statuses in by_document.values())


# --- inline results -----------------------------------------------------------------------------------------------


def test_inline_result_is_taken_as_stock(world: World) -> None:
    _, runs = world.task()

    answer = world.node(A, extended=False).patch(
        f"run/{runs[A]}", json={"result": "e30=", "finished_at": now(), "status": "completed"}
    )

    assert answer.status_code == 200
    record = world.user(DHD).get(f"result/{runs[A]}").json()
    assert (record["result"], record["blob_storage_used"], record["result_reference"]) == ("e30=", False, None)
    assert "collaboration_id" not in record


def test_inline_result_that_looks_like_an_id_is_not_taken_for_one(world: World) -> None:
    _, runs = world.task()
    value = str(uuid.uuid4())

    world.node(A).patch(f"run/{runs[A]}", json={"result": value, "finished_at": now()}).raise_for_status()

    record = world.user(DHD).get(f"result/{runs[A]}").json()
    assert (record["result"], record["blob_storage_used"]) == (value, False)


TOO_LARGE = "A" * ((MAX_INLINE + 5000) * 4 // 3)


def test_inline_result_over_the_limit_is_refused_naming_the_setting(world: World) -> None:
    _, runs = world.task()

    answer = world.node(A).patch(f"run/{runs[A]}", json={"result": TOO_LARGE, "finished_at": now()})

    assert answer.status_code == 413
    assert "largefile.max_inline_result" in answer.json()["msg"]
    assert columns_of(world, runs[A])["finished_at"] is None


def test_too_large_a_result_of_a_stock_node_fails_the_run_with_the_reason(world: World) -> None:
    task_id, runs = world.task((OLD,))

    answer = world.node(OLD, extended=False).patch(f"run/{runs[OLD]}", json={"result": TOO_LARGE, "finished_at": now()})

    assert answer.status_code == 413
    row = columns_of(world, runs[OLD])
    assert (row["status"], row["result"]) == ("failed", None)
    assert row["finished_at"] is not None
    assert "largefile.max_inline_result" in str(row["log"])
    assert world.user(DHD).get(f"task/{task_id}").json()["status"] == "failed"


def test_too_large_a_result_of_another_node_fails_nothing(world: World) -> None:
    _, runs = world.task()

    answer = world.node(B, extended=False).patch(f"run/{runs[A]}", json={"result": TOO_LARGE, "finished_at": now()})

    assert answer.status_code == 401
    assert columns_of(world, runs[A])["status"] == "pending"


def test_inline_result_of_exactly_the_limit_is_taken_with_what_encryption_adds(world: World) -> None:
    _, runs = world.task()
    value = "A" * (MAX_INLINE * 4 // 3 + 800)

    answer = world.node(A).patch(f"run/{runs[A]}", json={"result": value, "finished_at": now()})

    assert answer.status_code == 200


@pytest.mark.parametrize(
    "moment", ["2026-11-22T19:00:00+00:00", "2026-11-22T19:00:00Z", "2026-11-22T20:00:00+01:00", "2026-11-22T19:00:00"]
)
def test_times_in_other_iso_forms_are_normalised(world: World, moment: str) -> None:
    _, runs = world.task()

    answer = world.finish(runs[A], world.result_reference(runs[A]), finished_at=moment, started_at=moment)

    assert answer.status_code == 200, answer.text
    assert answer.json()["finished_at"].startswith("2026-11-22T19:00:00")
    assert answer.json()["started_at"].startswith("2026-11-22T19:00:00")


@pytest.mark.parametrize("moment", ["yesterday", "", "0001-01-01T00:00:00+14:00", "2026-13-01T00:00:00"])
def test_times_that_are_none_are_400(world: World, moment: str) -> None:
    _, runs = world.task()

    answer = world.finish(runs[A], world.result_reference(runs[A]), finished_at=moment)

    assert answer.status_code == 400


def test_run_of_a_deleted_subtask_is_404(world: World) -> None:
    parent, _ = world.task((DHD,))
    _, runs = world.task((A,), by=world.container(DHD, parent), client=False)
    document = world.result_reference(runs[A])
    world.user(DHD).delete(f"task/{parent}").raise_for_status()

    patched = world.finish(runs[A], document)
    placed = world.node(A).post(
        f"largefile/runs/{runs[A]}/placement", json={"size": 1, "media_type": "application/json"}
    )

    assert (patched.status_code, placed.status_code) == (404, 404)
    assert "deleted" in patched.json()["msg"]


def test_object_of_a_deleted_subtask_is_404_on_the_blob_route(world: World) -> None:
    parent, _ = world.task((DHD,))
    _, runs = world.task((A,), by=world.container(DHD, parent), client=False)
    document = world.result_reference(runs[A])
    world.finish(runs[A], document).raise_for_status()
    world.user(DHD).delete(f"task/{parent}").raise_for_status()

    assert world.user(DHD).get(f"blobstream/{document['id']}").status_code == 404
