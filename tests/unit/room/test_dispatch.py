import pytest

from agent.room.dispatch import Errand


@pytest.mark.parametrize(
    "errand",
    [Errand(), Errand("RM_1"), Errand("RM_1", handover="agent-1"), Errand("RM_1", died="agent-\u00e9\n")],
)
def test_an_errand_arrives_as_it_was_given(errand: Errand) -> None:
    assert Errand.decode(errand.encode()) == errand


def test_without_an_errand_there_is_no_metadata() -> None:
    assert Errand().encode() == ""


@pytest.mark.parametrize(
    "metadata",
    [
        "",
        "hello",
        "[]",
        "null",
        '{"theirs": 1}',
        '{"roomscribe": "RM_1"}',
        '{"roomscribe": {"sid": 1, "new": 2}}',
        "[" * 100_000,
    ],
)
def test_metadata_of_somebody_else_is_no_errand(metadata: str) -> None:
    assert Errand.decode(metadata) == Errand()


def test_what_a_later_version_adds_is_ignored() -> None:
    assert Errand.decode('{"roomscribe": {"sid": "RM_1", "new": "x"}, "theirs": {}}') == Errand("RM_1")
