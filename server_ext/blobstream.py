"""vantage6's own blob route: the server never moves bytes of our objects."""

from __future__ import annotations

from http import HTTPStatus

import sqlalchemy as sa
from flask import g
from vantage6.server import model
from vantage6.server.permission import Operation
from vantage6.server.resource import blobstream as stock

from server_ext import calls, settings
from server_ext.database import ObjectKind
from vantage6_largefile.reference import is_object_id
from vantage6_largefile.wire import BlobConflict

_ALL = ("user", "node", "container")


class BlobStreamStatus(stock.BlobStreamStatus):  # type: ignore[misc]
    """``GET blobstream/status``: whether a stock party should use the stock blob route. It should not.

    Our nodes answer this call of their containers themselves.
    """

    @calls.endpoint(*_ALL)
    def get(self) -> object:
        """Always false, so that stock parties stay inline."""
        if settings.find() is None:
            return super().get()
        return {"blob_store_enabled": False}, HTTPStatus.OK


class BlobStream(stock.BlobStream):  # type: ignore[misc]
    """``GET blobstream/<id>``: the bytes of our objects are not here."""

    @calls.endpoint(*_ALL)
    def get(self, id: str) -> object:
        """409 with a message for our objects, as stock for anything else."""
        if settings.find() is None or not is_object_id(id):
            return super().get(id)
        found = self._find(id)
        if found is None:
            return super().get(id)
        run, field = found
        if not self._may_view(run):
            return {"msg": "You lack the permission to do that!"}, HTTPStatus.UNAUTHORIZED
        owner = run.organization if field == "result" else run.task.init_org
        conflict = BlobConflict(
            msg=f"stored at {owner.name}'s own container; use LargeFileClient", id=id, run_id=run.id, field=field
        )
        return conflict.model_dump(mode="json"), HTTPStatus.CONFLICT

    def _find(self, object_id: str) -> tuple[model.Run, ObjectKind] | None:
        """The run that an object belongs to; of several with the same input, one that the caller may see."""
        # stock leaves the runs of deleted subtasks behind, without a task
        runs_of = sa.select(model.Run).where(model.Run.task_id.is_not(None)).order_by(model.Run.id)
        result = g.session.execute(runs_of.where(model.Run.result_object_id == object_id)).scalars().first()
        if result is not None:
            return result, "result"
        runs = g.session.execute(runs_of.where(model.Run.input_object_id == object_id)).scalars().all()
        own = self.obtain_organization_id()
        for run in sorted(runs, key=lambda run: run.organization_id != own):
            if self._may_view(run):
                return run, "input"
        return (runs[0], "input") if runs else None

    def _may_view(self, run: model.Run) -> bool:
        """vantage6's rule for a single run (server/resource/run.py: get_single_run)."""
        task = run.task
        return bool(
            self.r_run.allowed_for_org_in_col(Operation.VIEW, task.init_org_id, task.collaboration_id)
            or (self.r_run.v_own.can() and g.user is not None and task.init_user_id == g.user.id)
        )
