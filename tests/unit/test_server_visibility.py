"""Who sees whole references: the rule itself, case by case."""

from __future__ import annotations

import pytest

from server_ext.visibility import Reader, RunFacts, may_see_access
from tests.support import quiet_server  # noqa: F401  (must be imported before vantage6's server)

CENTRAL, A, B = 1, 2, 3
#: A run of hospital A, in a task that organisation 5 initiated.
RUN = RunFacts(organization_id=A, init_org_id=5, collaboration_id=10, job_id=100)


def node(organization: int, collaboration: int = 10, *, extended: bool = True) -> Reader:
    return Reader("node", organization, collaboration, extended=extended)


def container(organization: int, *, collaboration: int = 10, job: int | None = 100, extended: bool = True) -> Reader:
    return Reader("container", organization, collaboration, job, extended)


@pytest.mark.parametrize(
    ("reader", "sees"),
    [
        (Reader("user", 5), True),
        (Reader("user", A), True),
        (Reader("user", B), False),
        (Reader("user", CENTRAL), False),
        (node(A), True),
        (node(5), True),
        (node(CENTRAL), True),
        (node(B), False),
        (node(A, extended=False), False),
        (node(CENTRAL, extended=False), False),
        (node(A, 11), False),
        (node(5, 11), False),
        (node(CENTRAL, 11), False),
        (container(A), True),
        (container(5), True),
        (container(CENTRAL), True),
        (container(B), False),
        (container(A, job=101), False),
        (container(CENTRAL, job=101), False),
        (container(CENTRAL, job=None), False),
        (container(CENTRAL, collaboration=11), False),
        (container(CENTRAL, extended=False), False),
    ],
    ids=repr,
)
def test_who_sees_the_whole_reference(reader: Reader, sees: bool) -> None:
    assert may_see_access(reader, RUN, (CENTRAL,)) is sees


def test_nobody_is_central_unless_configured() -> None:
    assert not may_see_access(node(CENTRAL), RUN, ())
