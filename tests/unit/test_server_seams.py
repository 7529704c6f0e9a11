"""One test for each place where vantage6's code is changed from outside; a release that changes it is noticed here.

That a changed call *behaves* is tested over HTTP (tests/integration/test_server_*.py); here it is whether upstream
still looks where our change was made.
"""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from enum import Enum
from importlib import metadata
from types import CodeType

import pytest
import vantage6.backend.common.base as stock_base
from flask import Flask, request

from server_ext import app, seams
from tests.support import quiet_server  # noqa: F401  (must be imported before vantage6's server)
from vantage6_largefile.reference import parse_reference

app.install()

import vantage6.server  # noqa: E402
from vantage6.server import model  # noqa: E402
from vantage6.server.model.rule import Operation, Scope  # noqa: E402
from vantage6.server.resource import blobstream, run, task  # noqa: E402
from vantage6.server.resource.common import output_schema  # noqa: E402
from vantage6.server.resource.ui import column  # noqa: E402


def code_of(function: object) -> CodeType:
    """The code of the innermost function, below all decorators."""
    return inspect.unwrap(function).__code__  # type: ignore[arg-type]


def constants_of(code: CodeType) -> set[object]:
    """All constants, those in tuples (names of keyword arguments) and nested functions included."""
    found: set[object] = set()
    for constant in code.co_consts:
        if isinstance(constant, tuple):
            found |= set(constant)
        elif isinstance(constant, CodeType):
            found |= constants_of(constant)
        else:
            found.add(constant)
    return found


# --- the version --------------------------------------------------------------------------------------------------


def test_the_tested_version_is_the_installed_one() -> None:
    assert metadata.version("vantage6-server") == seams.TESTED_VERSION


def test_another_version_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(seams.ALLOW_ENVIRONMENT, raising=False)
    monkeypatch.setattr(seams.metadata, "version", lambda _name: "4.16.0")

    with pytest.raises(seams.UntestedVantage6, match=r"4\.16\.0.*4\.15\.2.*V6LF_ALLOW_UNTESTED_VANTAGE6=1"):
        seams.check_version()


def test_another_version_can_be_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(seams.ALLOW_ENVIRONMENT, "1")
    monkeypatch.setattr(seams.metadata, "version", lambda _name: "4.16.0")

    seams.check_version()


# --- when it is applied -------------------------------------------------------------------------------------------


def test_importing_vantage6_server_imports_no_resource_module() -> None:
    program = (
        "import sys, vantage6.server;"
        f"print([name for name in {seams._RESOURCES!r} if 'vantage6.server.resource.' + name in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)

    assert done.stdout.strip() == "[]"


def test_applying_too_late_is_an_error() -> None:
    program = "import vantage6.server.resource.run; from server_ext import seams; seams.apply()"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)

    assert done.returncode == 1
    assert "came after the import" in done.stderr


def test_applying_twice_changes_nothing() -> None:
    before = (run.Run, task.Tasks, len(model.Run.__table__.columns))

    app.install()

    assert (run.Run, task.Tasks, len(model.Run.__table__.columns)) == before


# --- enums --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("member", "text"), [(Operation.VIEW, "v"), (Scope.GLOBAL, "glo"), (Scope.OWN, "own")])
def test_enums_format_as_permissions_need_them(member: Enum, text: str) -> None:
    assert f"{member}" == text
    assert str(member) == text


# --- columns and schemas ------------------------------------------------------------------------------------------


def test_run_has_our_columns() -> None:
    names = {"result_reference", "result_object_id", "input_reference", "input_object_id"}

    assert names <= set(model.Run.__table__.columns.keys())
    assert model.Run(result_object_id="x").result_object_id == "x"


def test_vantage6_adds_missing_columns_itself_so_our_check_must_come_first() -> None:
    assert "_add_missing_columns" in code_of(stock_base.BaseDatabase._connect).co_names


@pytest.mark.parametrize(
    ("instance", "kind"),
    [
        (run.run_schema, "input"),
        (run.run_inc_schema, "input"),
        (run.result_schema, "result"),
        (task.task_run_schema.fields["runs"].schema, "input"),
        (task.task_result_schema.fields["results"].schema, "result"),
        (task.task_result_run_schema.fields["runs"].schema, "input"),
        (task.task_result_run_schema.fields["results"].schema, "result"),
    ],
)
def test_every_schema_instance_that_shows_runs_has_our_fields(instance: object, kind: str) -> None:
    own = {kind, "blob_storage_used", f"{kind}_reference", "organization_id", "init_org_id", "collaboration_id"}
    fields = instance.fields  # type: ignore[attr-defined]

    assert own <= set(fields)
    assert all(type(fields[name]).__name__ == "Function" for name in own)
    assert not {"result_object_id", "input_object_id"} & set(fields)


def test_no_other_schema_shows_runs() -> None:
    of_runs = {
        name
        for name, schema in vars(output_schema).items()
        if inspect.isclass(schema) and getattr(getattr(schema, "Meta", None), "model", None) is model.Run
    }

    assert of_runs == {"ResultSchema", "RunSchema", "RunTaskIncludedSchema"}


def test_limited_view_is_that_of_the_reference() -> None:
    from tests.support.server_world import reference
    from vantage6_largefile.reference import Reference, ResultContext

    document = reference(ResultContext("0" * 8 + "-0000-4000-8000-" + "0" * 12, 1, 1), "file://root", 5)

    assert Reference.model_construct(**document).without_access() == parse_reference(document).without_access()


# --- module globals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "name"),
    [(run, "Runs"), (run, "Run"), (task, "Tasks"), (blobstream, "BlobStream"), (blobstream, "BlobStreamStatus")],
)
def test_resource_is_ours_and_setup_looks_it_up_when_called(module: object, name: str) -> None:
    assert getattr(module, name).__module__.startswith("server_ext.")
    assert name in code_of(module.setup).co_names  # type: ignore[attr-defined]


def test_column_names_call_uses_our_tasks() -> None:
    assert column.Tasks is task.Tasks
    assert "post_task" in code_of(column.ColumnNames.post).co_names


def test_server_app_is_ours_and_run_server_looks_it_up_when_called() -> None:
    assert vantage6.server.ServerApp is app.LargeFileServerApp
    assert "ServerApp" in code_of(vantage6.server.run_server).co_names


def test_server_app_loads_resources_by_a_method_that_we_override() -> None:
    stock_app = app.LargeFileServerApp.__mro__[1]

    assert "load_resources" in code_of(stock_app.__init__).co_names
    services = constants_of(code_of(stock_app.load_resources))
    assert {"socketio", "storage_adapter", "mail", "api", "permissions", "config"} <= services


def test_resources_are_constructed_with_the_services_that_we_pass() -> None:
    from vantage6.server.resource import ServicesResources

    parameters = list(inspect.signature(ServicesResources.__init__).parameters)

    assert parameters == ["self", "socketio", "storage_adapter", "mail", "api", "permissions", "config"]


# --- what our overrides rely on in the methods they call ----------------------------------------------------------


def test_stock_post_task_checks_inputs_through_the_global_before_it_writes_anything() -> None:
    stock_tasks = task.Tasks.__mro__[1]
    source = inspect.getsource(stock_tasks.post_task)

    assert "Tasks" in code_of(stock_tasks.post_task).co_names
    assert source.index("Tasks._check_input(") < source.index("db.Task(") < source.index("task.save()")
    assert source.index("can_for_col(P.CREATE") < source.index("Tasks._check_input(")
    assert source.index("__verify_container_permissions(") < source.index("Tasks._check_input(")
    assert source.index("run.save()") < source.index('"new_task"')


def test_stock_post_task_constructs_runs_with_the_arguments_that_we_replace() -> None:
    code = code_of(task.Tasks.__mro__[1].post_task)

    assert {"task", "organization", "input", "status", "blob_storage_used"} <= constants_of(code)


def test_stock_patch_reads_the_kept_body_and_saves_the_run() -> None:
    stock_run = run.Run.__mro__[1]
    code = code_of(stock_run.patch)

    assert {"get_json", "save", "finished_at", "organization_id"} <= set(code.co_names)


def test_flask_keeps_the_parsed_body() -> None:
    with Flask("x").test_request_context(json={"a": 1, "b": 2}):
        request.get_json().pop("a")

        assert request.get_json() == {"b": 2}


def test_stock_rejects_our_keys_so_they_must_be_taken_out() -> None:
    assert "result_reference" in run.run_input_schema.validate({"result_reference": {}}, partial=True)
    assert "largefile_client" in task.task_input_schema.validate({"largefile_client": True})


def test_runs_are_listed_by_a_method_that_we_override() -> None:
    stock_runs = run.Runs.__mro__[1]

    assert "get_query_multiple_runs" in code_of(stock_runs.get).co_names


def test_only_for_raises_a_bare_exception_which_is_why_we_check_first() -> None:
    from vantage6.server.resource import only_for

    source = inspect.getsource(only_for)

    assert "raise Exception(msg)" in source


def test_entry_point_of_stock_takes_the_configuration_from_the_same_place() -> None:
    spec = importlib.util.find_spec("vantage6.server.wsgi")
    source = spec.loader.get_source("vantage6.server.wsgi")  # type: ignore[union-attr,attr-defined]

    assert "config_file = sys.argv[1]" in source
    assert "run_server(config_file, system_folders=False)" in source
    assert "app = server_app.app" in source
