"""The placement rule itself, case by case."""

from __future__ import annotations

import pytest

from server_ext.placement import ParentNode, Situation, decide
from tests.support import quiet_server  # noqa: F401  (must be imported before vantage6's server)

CENTRAL, A, B = 1, 2, 3
LIMIT = 1000


def decided(situation: Situation, size: int = LIMIT + 1, central: tuple[int, ...] = (CENTRAL,)) -> tuple[str, str]:
    answer = decide(situation, size=size, central_organizations=central, max_inline_result=LIMIT)
    return answer.placement, answer.reason


def top_level(*, client: bool, location: bool = True) -> Situation:
    return Situation(A, may_register=location, made_by_client=client, is_subtask=False)


def subtask(*parents: ParentNode, location: bool = True) -> Situation:
    return Situation(A, may_register=location, made_by_client=False, is_subtask=True, parent_nodes=parents)


@pytest.mark.parametrize(
    ("situation", "size", "placement"),
    [
        (top_level(client=True), 0, "reference"),
        (top_level(client=True), LIMIT + 1, "reference"),
        (top_level(client=False), LIMIT, "inline"),
        (top_level(client=False), LIMIT + 1, "reference"),
        (top_level(client=True, location=False), LIMIT, "inline"),
        (top_level(client=True, location=False), LIMIT + 1, "refuse"),
        (top_level(client=False, location=False), LIMIT + 1, "refuse"),
        (subtask(ParentNode("central", CENTRAL, True)), 0, "reference"),
        (subtask(ParentNode("a", A, True)), 0, "reference"),
        (subtask(ParentNode("central", CENTRAL, False)), LIMIT, "inline"),
        (subtask(ParentNode("central", CENTRAL, False)), LIMIT + 1, "refuse"),
        (subtask(ParentNode("b", B, True)), LIMIT, "inline"),
        (subtask(ParentNode("b", B, True)), LIMIT + 1, "refuse"),
        (subtask(ParentNode("central", CENTRAL, True), ParentNode("b", B, True)), LIMIT + 1, "refuse"),
        (subtask(ParentNode("central", CENTRAL, True), ParentNode("a", A, True)), LIMIT + 1, "reference"),
        (subtask(), LIMIT, "inline"),
        (subtask(), LIMIT + 1, "refuse"),
        (subtask(ParentNode("central", CENTRAL, True), location=False), LIMIT + 1, "refuse"),
    ],
)
def test_placement(situation: Situation, size: int, placement: str) -> None:
    assert decided(situation, size)[0] == placement


def test_refusal_names_the_node_and_the_limit() -> None:
    _, reason = decided(subtask(ParentNode("node of B", B, True)))

    assert "'node of B'" in reason
    assert "largefile.max_inline_result" in reason
    assert "largefile.central_organizations" in reason


def test_a_reason_is_given_whenever_the_answer_is_not_the_store() -> None:
    assert decided(subtask(ParentNode("b", B, False)), 1)[1]
    assert decided(top_level(client=False), 1)[1]


def test_reason_of_any_length_fits_the_answer() -> None:
    assert len(decided(subtask(ParentNode("n" * 5000, B, False)))[1]) <= 2000
