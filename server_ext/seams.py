"""Every place where vantage6's own code is changed from outside; nothing else in this package does that.

Each touch names what it replaces in vantage6 4.15.2 and has a test that fails when upstream changes it
(``tests/unit/test_server_seams.py``). :func:`apply` must run before anything imports vantage6's resource modules:
``import vantage6.server`` builds the model and the output schemas, the resource modules instantiate the schemas.
"""

from __future__ import annotations

import logging
import os
import sys
from importlib import metadata

import vantage6.server
from marshmallow import fields
from sqlalchemy import event
from vantage6.server import model
from vantage6.server.model.rule import Operation, Scope
from vantage6.server.resource.common import output_schema

from server_ext import visibility
from server_ext.database import ObjectKind, run_columns
from vantage6_largefile.errors import LargeFileError

log = logging.getLogger(__name__)

TESTED_VERSION = "4.15.2"
#: Set to 1 to start with another version of vantage6-server.
ALLOW_ENVIRONMENT = "V6LF_ALLOW_UNTESTED_VANTAGE6"

_RESOURCES = ("run", "task", "blobstream", "ui.column", "event")
_applied: set[str] = set()


class UntestedVantage6(LargeFileError):
    """vantage6-server has another version than the one that the seams were made for."""


def apply() -> None:
    """Turn vantage6's server code in this process into ours. Repeating it does nothing.

    Raises
    ------
    UntestedVantage6
        Another version of vantage6-server is installed, and the environment does not allow that.
    RuntimeError
        A resource module of vantage6 was imported too early.
    """
    if "all" in _applied:
        return
    check_version()
    mend_enums()
    early = [name for name in _RESOURCES if f"vantage6.server.resource.{name}" in sys.modules]
    if early:
        raise RuntimeError(f"server_ext.seams.apply() came after the import of vantage6's resources {early}.")
    add_columns()
    _extend_schemas()
    _replace_resources()
    _listen()
    _applied.add("all")


def check_version() -> None:
    """Refuse to work on a version of vantage6-server that was not tested.

    Raises
    ------
    UntestedVantage6
        The message names both versions and the way around.
    """
    version = metadata.version("vantage6-server")
    if version == TESTED_VERSION:
        return
    if os.environ.get(ALLOW_ENVIRONMENT) == "1":
        log.warning(
            "vantage6-server %s was not tested with this software, which was made for %s.", version, TESTED_VERSION
        )
        return
    raise UntestedVantage6(
        f"vantage6-server {version} is installed; this software was made for {TESTED_VERSION} and changes its insides.",
        advice=f"Install vantage6-server=={TESTED_VERSION}, or set {ALLOW_ENVIRONMENT}=1 to try it anyway.",
    )


def mend_enums() -> None:
    """Make vantage6's permissions work on Python 3.11 and later.

    server/model/rule.py: ``class Operation(str, Enum)`` and ``Scope`` are put in f-strings as ``v`` and ``glo``
    (server/permission.py: ``f"{operation}_{Scope.GLOBAL}"``); since 3.11 such an enum formats as ``Operation.VIEW``.
    """
    for enum in (Operation, Scope):
        enum.__str__ = str.__str__


def add_columns() -> None:
    """server/model/run.py: four columns more in ``Run``."""
    if "columns" in _applied:
        return
    for name, column in run_columns().items():
        setattr(model.Run, name, column)
    _applied.add("columns")


def _extend_schemas() -> None:
    """server/resource/common/output_schema.py: what answers say of a run's input and result.

    The classes were built when ``vantage6.server`` was imported. Their instances (server/resource/run.py and task.py,
    at import) copy ``_declared_fields``, and so do the nested ones of ``task?include=runs,results``.
    """
    for schema in (output_schema.RunSchema, output_schema.RunTaskIncludedSchema):
        schema._declared_fields.update(_reference_fields("input"))
    output_schema.ResultSchema._declared_fields.update(_reference_fields("result"))


def _reference_fields(kind: ObjectKind) -> dict[str, fields.Field]:
    return {
        kind: fields.Function(lambda run: visibility.shown_value(run, kind)),
        "blob_storage_used": fields.Function(lambda run: visibility.shown_blob_storage_used(run, kind)),
        f"{kind}_reference": fields.Function(lambda run: visibility.shown_reference(run, kind)),
        "organization_id": fields.Function(lambda run: visibility.shown_context(run, kind, "organization_id")),
        "init_org_id": fields.Function(lambda run: visibility.shown_context(run, kind, "init_org_id")),
        "collaboration_id": fields.Function(lambda run: visibility.shown_context(run, kind, "collaboration_id")),
    }


def _replace_resources() -> None:
    """Module globals that vantage6's own code looks up when it is called."""
    from vantage6.server.resource import blobstream as stock_blobstream
    from vantage6.server.resource import run as stock_run
    from vantage6.server.resource import task as stock_task

    from server_ext import blobstream, runs, tasks

    # server/resource/run.py: setup() registers Runs and Run
    stock_run.Runs = runs.Runs
    stock_run.Run = runs.Run
    # server/resource/task.py: setup() registers Tasks, post_task() calls Tasks._check_input and others by this name;
    # server/resource/ui/column.py imports the name, later than this
    stock_task.Tasks = tasks.Tasks
    # server/resource/blobstream.py: setup() registers both
    stock_blobstream.BlobStream = blobstream.BlobStream
    stock_blobstream.BlobStreamStatus = blobstream.BlobStreamStatus


def _listen() -> None:
    """SQLAlchemy events of vantage6's model."""
    from server_ext import runs, tasks

    # server/resource/task.py: post_task() constructs each Run and saves it at once
    event.listen(model.Run, "init", tasks.fill_run)
    event.listen(model.Run, "before_insert", tasks.register_input)
    # server/resource/run.py: patch() sets the fields and saves
    event.listen(model.Run, "before_update", runs.store_result)
    event.listen(model.Task, "after_insert", tasks.mark_task)
    # server/resource/node.py: post() and delete()
    event.listen(model.Node, "after_insert", tasks.forget_node)
    event.listen(model.Node, "after_delete", tasks.forget_node)


def replace_server_app(server_app: type) -> None:
    """server/__init__.py: ``run_server`` and others construct the module's global ``ServerApp``."""
    vantage6.server.ServerApp = server_app
