"""POST of a task with inputs by reference."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
import sqlalchemy as sa

from tests.support import server_world
from tests.support.server_world import (
    DHD,
    ENCRYPTED_INPUT,
    HOMELESS,
    IMAGE,
    INLINE_INPUT,
    MAX_INLINE,
    OLD,
    OTHER,
    PLAIN,
    SECRET,
    STORES,
    A,
    B,
    World,
)
from tests.support.v6server import Caller
from vantage6_largefile.wire import NOT_EXTENDED

world = server_world.world


@pytest.fixture
def rows(world: World) -> Iterator[sa.engine.Connection]:
    """The database itself."""
    engine = sa.create_engine(world.uri, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def post(
    world: World, *entries: dict[str, object], by: Caller | None = None, collaboration: int = PLAIN, **more: object
) -> requests.Response:
    """POST a task with these organisation entries."""
    return (by or world.user(DHD)).post(
        "task", json={**world.task_body(list(entries), collaboration=collaboration), **more}
    )


def count_tasks(world: World) -> int:
    """How many tasks there are."""
    return int(world.user(DHD).get("task", params={"per_page": 1}).headers["total-count"])


def test_input_reference_is_in_the_run_when_the_node_asks(world: World, rows: sa.engine.Connection) -> None:
    document = world.input_reference()

    answer = post(world, {"id": A, "input_reference": document})

    assert answer.status_code == 201, answer.text
    task_id, runs = world.runs_of(answer.json()["id"])
    record = world.node(A).get("run", params={"state": "open", "task_id": task_id, "include": "task"}).json()["data"][0]
    assert record["input"] == document["id"]
    assert record["blob_storage_used"] is True
    assert record["input_reference"] == document
    assert (record["organization_id"], record["init_org_id"], record["collaboration_id"]) == (A, DHD, PLAIN)
    row = rows.execute(sa.text("SELECT * FROM run WHERE id = :id"), {"id": runs[A]}).mappings().one()
    assert row["input"] is None
    assert row["input_object_id"] == document["id"]
    assert row["result_reference"] is None


def test_inline_and_referenced_inputs_go_together(world: World) -> None:
    document = world.input_reference()

    answer = post(world, {"id": A, "input_reference": document}, {"id": OLD, "input": INLINE_INPUT})

    _, runs = world.runs_of(answer.json()["id"])
    of_a = world.user(DHD).get(f"run/{runs[A]}").json()
    of_old = world.user(DHD).get(f"run/{runs[OLD]}").json()
    assert (of_a["input"], of_a["blob_storage_used"]) == (document["id"], True)
    assert (of_old["input"], of_old["blob_storage_used"]) == (INLINE_INPUT, False)


def test_one_object_for_several_organizations_with_a_key_for_each(world: World) -> None:
    first = world.input_reference(collaboration=SECRET, encrypted=True)
    second = {**first, "envelope": {**first["envelope"], "key": "e30.a2V5.aXY.Y3Q.b3RoZXI"}}

    answer = post(
        world, {"id": A, "input_reference": first}, {"id": B, "input_reference": second}, collaboration=SECRET
    )

    assert answer.status_code == 201, answer.text
    _, runs = world.runs_of(answer.json()["id"])
    assert world.node(A, SECRET).get(f"run/{runs[A]}").json()["input_reference"] == first
    assert world.node(B, SECRET).get(f"run/{runs[B]}").json()["input_reference"] == second


@pytest.mark.parametrize("change", [{"size": 5, "stored_size": 5}, {"sha256": "cd" * 32}, {"etag": "x"}])
def test_one_object_with_references_that_differ_is_refused(world: World, change: dict[str, object]) -> None:
    first = world.input_reference()

    answer = post(world, {"id": A, "input_reference": first}, {"id": B, "input_reference": {**first, **change}})

    assert answer.status_code == 400
    assert "differ" in answer.json()["msg"]


def test_same_object_in_a_second_task_is_refused(world: World) -> None:
    document = world.input_reference()
    post(world, {"id": A, "input_reference": document}).raise_for_status()
    before = count_tasks(world)

    answer = post(world, {"id": A, "input_reference": document})

    assert answer.status_code == 409
    assert "already used" in answer.json()["msg"]
    assert count_tasks(world) == before


def test_of_many_tasks_with_one_object_at_once_one_is_made(world: World) -> None:
    document = world.input_reference()
    world.user(DHD)
    before = count_tasks(world)

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: post(world, {"id": A, "input_reference": document}), range(4)))

    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
    assert count_tasks(world) == before + 1


def test_id_of_a_result_is_never_an_input(world: World) -> None:
    _, runs = world.task((DHD,))
    result = world.result_reference(runs[DHD], store=STORES[DHD])
    world.finish(runs[DHD], result, by=world.node(DHD)).raise_for_status()

    as_it_is = post(world, {"id": A, "input_reference": result})
    as_input = post(world, {"id": A, "input_reference": world.input_reference(id=result["id"])})

    assert (as_it_is.status_code, as_input.status_code) == (400, 409)


# --- subtasks -----------------------------------------------------------------------------------------------------


def test_container_makes_subtasks_with_an_input_of_its_node(world: World) -> None:
    parent, _ = world.task((DHD,))
    container = world.container(DHD, parent)
    document = world.input_reference()

    first = post(world, {"id": A, "input_reference": document}, by=container)
    again = post(world, {"id": B, "input_reference": document}, by=container)

    assert (first.status_code, again.status_code) == (201, 201), first.text + again.text
    assert first.json()["parent"]["id"] == parent


def test_container_of_another_job_may_not_reuse_the_object(world: World) -> None:
    parents = [world.task((DHD,))[0] for _ in range(2)]
    document = world.input_reference()
    post(world, {"id": A, "input_reference": document}, by=world.container(DHD, parents[0])).raise_for_status()

    answer = post(world, {"id": A, "input_reference": document}, by=world.container(DHD, parents[1]))

    assert answer.status_code == 409


def test_other_organization_in_the_same_job_may_not_reuse_the_object(world: World) -> None:
    parent, _ = world.task((DHD, A))
    document = world.input_reference()
    post(world, {"id": B, "input_reference": document}, by=world.container(DHD, parent)).raise_for_status()
    theirs = world.input_reference(A, store=STORES[A], id=document["id"])

    answer = post(world, {"id": B, "input_reference": theirs}, by=world.container(A, parent))

    assert answer.status_code == 409


@pytest.mark.parametrize("change", [{"sha256": "cd" * 32}, {"size": 7, "stored_size": 7}])
def test_reuse_in_a_job_with_other_bytes_is_refused(world: World, change: dict[str, object]) -> None:
    parent, _ = world.task((DHD,))
    container = world.container(DHD, parent)
    document = world.input_reference()
    post(world, {"id": A, "input_reference": document}, by=container).raise_for_status()

    answer = post(world, {"id": B, "input_reference": {**document, **change}}, by=container)

    assert answer.status_code == 409


# --- what is refused ----------------------------------------------------------------------------------------------


def test_receiver_whose_node_is_stock_is_named(world: World) -> None:
    before = count_tasks(world)

    document = world.input_reference()
    answer = post(world, {"id": A, "input_reference": document}, {"id": OLD, "input_reference": document})

    assert answer.status_code == 409
    assert "'old' (id=4)" in answer.json()["msg"]
    assert "hospital-a" not in answer.json()["msg"]
    assert answer.json()[NOT_EXTENDED] == [OLD]
    assert count_tasks(world) == before
    assert post(world, {"id": A, "input_reference": document}).status_code == 201


def test_input_and_reference_together_are_refused(world: World) -> None:
    answer = post(world, {"id": A, "input": INLINE_INPUT, "input_reference": world.input_reference()})

    assert answer.status_code == 400
    assert "not both" in answer.json()["msg"]


def test_wrong_references_are_refused_and_make_no_task(world: World) -> None:
    good = world.input_reference()
    layout = str(good["location"]).removeprefix(STORES[DHD])
    nested: object = "x"
    for _ in range(500):
        nested = [nested]
    cases: dict[str, tuple[object, int]] = {
        "another's store": ({**good, "location": STORES[A] + layout}, 403),
        "look-alike": ({**good, "location": "azure://acct/dhd2" + layout}, 403),
        "dot dot": ({**good, "location": "azure://acct/x/../dhd" + layout}, 400),
        "percent": ({**good, "location": "azure://acct/%64hd" + layout}, 400),
        "other initiator": (world.input_reference(A), 400),
        "other collaboration": (world.input_reference(collaboration=OTHER), 400),
        "other server": ({**good, "location": str(good["location"]).replace(world.server_id, str(uuid.uuid4()))}, 400),
        "a result's layout": (world.result_reference(1, store=STORES[DHD]), 400),
        "envelope in a plain collaboration": (world.input_reference(encrypted=True), 400),
        "unknown version": ({**good, "version": 99}, 400),
        "wrong stored size": ({**good, "stored_size": 1}, 400),
        "unknown key": ({**good, "x": 1}, 400),
        "huge": ({**good, "etag": "x" * 1_000_000}, 400),
        "nested": ({**good, "location": nested}, 400),
        "list": ([good], 400),
        "text": ("reference", 400),
        "false": (False, 400),
    }
    before = count_tasks(world)

    answers = {name: post(world, {"id": A, "input_reference": document}) for name, (document, _) in cases.items()}

    assert {name: answer.status_code for name, answer in answers.items()} == {
        name: status for name, (_, status) in cases.items()
    }
    assert count_tasks(world) == before


def test_plain_object_in_an_encrypted_collaboration_is_refused(world: World) -> None:
    answer = post(
        world, {"id": A, "input_reference": world.input_reference(collaboration=SECRET)}, collaboration=SECRET
    )

    assert answer.status_code == 400
    assert "encrypted" in answer.json()["msg"]


def test_initiator_without_location_is_refused(world: World) -> None:
    document = world.input_reference(HOMELESS)

    answer = post(world, {"id": A, "input_reference": document}, by=world.user(HOMELESS))

    assert answer.status_code == 403
    assert "largefile.locations" in answer.json()["msg"]


def test_outsider_learns_nothing_about_nodes(world: World) -> None:
    document = world.input_reference(OLD, collaboration=SECRET, store=STORES[OLD], encrypted=True)

    answer = post(world, {"id": A, "input_reference": document}, by=world.user(OLD), collaboration=SECRET)

    assert answer.status_code == 401


@pytest.mark.parametrize(
    "entry",
    [
        {"id": A},
        {"id": A, "input": None},
        {"id": A, "input": 5},
        {"id": A, "input": {"method": "x"}},
        {"id": A, "input": "a"},
        {"id": str(A), "input_reference": {}},
        {"id": True, "input_reference": {}},
        {"id": [A], "input_reference": {}},
        {"input_reference": {}},
    ],
    ids=repr,
)
def test_malformed_entries_are_400(world: World, entry: dict[str, object]) -> None:
    assert post(world, entry).status_code == 400


def test_an_organization_given_twice_is_refused(world: World) -> None:
    document = world.input_reference()

    answer = post(world, {"id": A, "input_reference": document}, {"id": A, "input_reference": document})

    assert answer.status_code == 400


@pytest.mark.parametrize(
    "body", [[], "x", None, {"organizations": "x"}, {"organizations": [[]]}, {"organizations": []}]
)
def test_malformed_bodies_are_400(world: World, body: object) -> None:
    assert world.user(DHD).post("task", json=body).status_code == 400


def test_deeply_nested_body_is_400(world: World) -> None:
    user = world.user(DHD)
    as_json = Caller(user.api, {**user.headers, "Content-Type": "application/json"})

    answer = as_json.post("task", data=b'{"organizations": ' + b"[" * 100_000)

    assert answer.status_code == 400


@pytest.mark.parametrize("flag", ["yes", 1, None, {}])
def test_flag_must_be_true_or_false(world: World, flag: object) -> None:
    answer = post(world, {"id": A, "input": INLINE_INPUT}, largefile_client=flag)

    assert answer.status_code == 400
    assert "largefile_client" in answer.json()["msg"]


def test_nodes_may_not_make_tasks(world: World) -> None:
    answer = world.node(A).post("task", json=world.task_body([{"id": A, "input": INLINE_INPUT}]))

    # stock refuses a node with a bare exception
    assert answer.status_code == 500


# --- inline inputs ------------------------------------------------------------------------------------------------


def test_inline_input_over_the_limit_is_refused_naming_the_setting(world: World) -> None:
    before = count_tasks(world)

    answer = post(world, {"id": A, "input": "A" * (((MAX_INLINE + 5000) // 3) * 4)})

    assert answer.status_code == 413
    assert "largefile.max_inline_result" in answer.json()["msg"]
    assert count_tasks(world) == before


def test_stocks_own_check_of_inline_inputs_still_works(world: World) -> None:
    readable = post(world, {"id": A, "input": INLINE_INPUT}, collaboration=SECRET)
    unreadable = post(world, {"id": A, "input": ENCRYPTED_INPUT})

    assert (readable.status_code, unreadable.status_code) == (400, 400)
    assert "requires encryption" in readable.json()["msg"]


def test_column_names_call_goes_through_our_checks(world: World) -> None:
    body = {"db_label": "default", "collaboration_id": PLAIN}

    inline = world.user(DHD).post("column", json={**body, "organizations": [{"id": A, "input": INLINE_INPUT}]})
    stolen = world.user(DHD).post(
        "column", json={**body, "organizations": [{"id": A, "input_reference": world.input_reference(store=STORES[A])}]}
    )

    assert inline.status_code == 201, inline.text
    assert stolen.status_code == 403


def test_mark_of_our_client_is_kept(world: World, rows: sa.engine.Connection) -> None:
    ours, _ = world.task(client=True)
    stock, _ = world.task(client=False)

    marked = set(rows.execute(sa.text("SELECT task_id FROM largefile_task")).scalars())

    assert ours in marked
    assert stock not in marked


def test_stock_client_call_shape_is_unchanged(world: World) -> None:
    body = {
        "name": "n",
        "image": IMAGE,
        "description": "d",
        "organizations": [{"id": A, "input": INLINE_INPUT}],
        "databases": [{"label": "default"}],
        "collaboration_id": PLAIN,
        "store_id": None,
        "server_url": "http://localhost:5000/api",
    }
    del body["store_id"]

    answer = world.user(DHD).post("task", json=body)

    assert answer.status_code == 201, answer.text
    assert answer.json()["databases"] == [{"label": "default", "parameters": "{}"}]
