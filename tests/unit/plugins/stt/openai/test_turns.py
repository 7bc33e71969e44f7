"""Turns: each flush is answered once, in the order of the flushes, whatever the order of the answers."""

from hypothesis import given
from hypothesis import strategies as st

from plugins.stt.openai.transcript import Usage
from plugins.stt.openai.turns import Turn, Turns


def committed(*items: str) -> Turns:
    turns = Turns()
    for item in items:
        turns.hear(1600)
        turns.commit()
        turns.name(item)
    return turns


def taken(turns: Turns) -> list[tuple[str, bool]]:
    return [(turn.text, turn.is_answered) for turn in turns.take()]


@given(st.permutations(range(6)))
def test_answers_in_any_order_leave_in_the_order_of_the_flushes(order: list[int]) -> None:
    turns = committed(*(f"item_{number}" for number in range(6)))
    left: list[Turn] = []
    for number in order:
        assert turns.answer(f"item_{number}", f"text {number}", Usage())
        left += [turn for turn in turns.take() if turn.is_answered]
    assert [turn.text for turn in left] == [f"text {number}" for number in range(6)]
    assert [turn.start for turn in left] == [1600 * number for number in range(6)]
    assert turns.is_idle


def test_text_is_shown_as_it_grows_and_only_when_it_has() -> None:
    turns = committed("a")
    assert taken(turns) == []
    turns.extend("a", "Good")
    assert taken(turns) == [("Good", False)]
    turns.extend("a", " ")
    assert taken(turns) == []
    turns.extend("a", "morning")
    assert taken(turns) == [("Good morning", False)]
    turns.answer("a", "Good morning.", Usage())
    assert taken(turns) == [("Good morning.", True)]


def test_text_of_a_later_turn_waits_until_the_earlier_one_is_answered() -> None:
    turns = committed("a", "b")
    turns.extend("b", "Later")
    assert taken(turns) == []
    turns.answer("a", "Earlier", Usage())
    assert taken(turns) == [("Earlier", True), ("Later", False)]


def test_model_that_writes_early_names_the_item_before_it_is_committed() -> None:
    turns = Turns()
    turns.hear(800)
    turns.extend("a", "Good")
    assert taken(turns) == [("Good", False)]
    turns.hear(800)
    turns.commit()
    turns.hear(1600)
    turns.name("a")
    turns.extend("b", "Next")
    turns.answer("a", "Good morning.", Usage())
    assert taken(turns) == [("Good morning.", True), ("Next", False)]
    assert turns.is_open


def test_answer_comes_once() -> None:
    turns = committed("a", "b")
    assert turns.answer("a", "Yes", Usage())
    assert taken(turns) == [("Yes", True)]
    assert not turns.answer("a", "No", Usage())
    turns.extend("a", "No")
    assert taken(turns) == []
    assert turns.answer("b", "Right", Usage())
    assert taken(turns) == [("Right", True)]


def test_late_word_of_a_turn_that_is_over_is_not_taken_for_the_next_one_s() -> None:
    turns = committed("a")
    turns.answer("a", "Yes", Usage())
    assert taken(turns) == [("Yes", True)]
    turns.hear(1600)
    turns.commit()
    assert not turns.answer("a", "Yes", Usage())
    turns.name("b")
    assert turns.answer("b", "Right", Usage())


def test_answer_that_nobody_asked_for_is_told() -> None:
    assert not Turns().answer("a", "What?", Usage())
    turns = Turns()
    turns.hear(1600)
    assert not turns.answer("a", "What?", Usage())


def test_text_of_an_item_that_is_nobody_s_is_forgotten_when_the_turn_s_own_is_named() -> None:
    turns = Turns()
    turns.hear(1600)
    turns.extend("stray", "What?")
    turns.commit()
    assert not turns.answer("unknown", "What?", Usage())
    turns.name("a")
    assert not turns.answer("stray", "What?", Usage())
    assert taken(turns) == []
    turns.extend("a", "Right")
    assert taken(turns) == [("Right", False)]
    assert turns.answer("a", "Right.", Usage())


def test_item_that_is_named_twice_is_one_turn_s() -> None:
    turns = committed("a")
    turns.hear(1600)
    turns.commit()
    turns.name("a")
    turns.name("b")
    assert turns.answer("a", "First", Usage())
    assert turns.answer("b", "Second", Usage())


def test_item_that_is_named_after_its_answer_is_not_the_next_turn_s() -> None:
    turns = Turns()
    turns.hear(1600)
    turns.extend("a", "First")
    turns.commit()
    turns.hear(1600)
    turns.commit()
    assert turns.answer("a", "First", Usage())
    turns.name("a")
    turns.name("b")
    assert turns.answer("b", "Second", Usage())
    assert taken(turns) == [("First", True), ("Second", True)]


def test_turn_that_becomes_no_item_is_answered_with_nothing() -> None:
    turns = Turns()
    for _ in range(3):
        turns.hear(1600)
        turns.commit()
    turns.name("a")
    assert turns.refuse("turn_2")
    turns.name("c")
    turns.answer("c", "Third", Usage())
    turns.answer("a", "First", Usage())
    assert taken(turns) == [("First", True), ("", True), ("Third", True)]


def test_refusal_without_a_name_means_the_first_turn_without_an_item() -> None:
    turns = committed("a")
    assert not turns.refuse(None)
    turns.hear(1600)
    turns.commit()
    assert turns.refuse(None)
    turns.answer("a", "First", Usage())
    assert taken(turns) == [("First", True), ("", True)]


def test_stream_time_goes_on_over_turns_and_sessions() -> None:
    turns = committed("a")
    turns.answer("a", "", Usage())
    taken(turns)
    turns.forget_items()
    turns.hear(800)
    turns.hear(800)
    turn = turns.commit()
    assert (turn.start, turn.end) == (1600, 3200)
