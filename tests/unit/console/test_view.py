"""The shape of a session's page: nothing of the transcript is lost, and evidence lies on its words."""

from hypothesis import given
from hypothesis import strategies as st

from agent.console.models import GapOut, SpeakerOut
from agent.console.view import (
    COLOURS,
    LANE_HEIGHT,
    LEAST_STRETCH,
    WIDTH,
    Block,
    Silence,
    View,
    make,
    people_of,
)
from tests.support.console_values import ADA, BEN, analysis, evidence, session, statement, utterance


def shown(view: View) -> list[tuple[str, list[str]]]:
    return [
        (block.person.name, ["".join(piece.text for piece in line.pieces) for line in block.lines])
        for block in view.transcript
        if isinstance(block, Block)
    ]


def test_consecutive_utterances_of_a_speaker_are_in_one_block() -> None:
    said = [utterance(1, ADA, "One."), utterance(2, ADA, "Two."), utterance(3, BEN, "Three.")]
    assert shown(make(session(), said, None)) == [("Ada Lovelace", ["One.", "Two."]), ("Ben", ["Three."])]


def test_long_silence_and_a_gap_part_what_one_person_says() -> None:
    said = [utterance(1, ADA, "One."), utterance(2, ADA, "Two.", 50_000)]
    assert len(shown(make(session(), said, None))) == 2
    said = [utterance(1, ADA, "One."), utterance(2, ADA, "Two.", 3_000)]
    view = make(session(GapOut(start_ms=2_000, end_ms=2_900, identity="", reason="agent_away")), said, None)
    assert [type(each) for each in view.transcript] == [Block, Silence, Block]
    assert view.missing_ms == 900


def test_gap_names_whom_it_is_of_even_if_they_never_spoke() -> None:
    gaps = [
        GapOut(start_ms=0, end_ms=1, identity=identity, reason="engine") for identity in ("ben", "eve", "")
    ]
    silences = [each for each in make(session(*gaps), [], None).transcript if isinstance(each, Silence)]
    assert [each.person and each.person.name for each in silences] == ["Ben", "eve", None]


def test_evidence_lies_on_its_words_and_several_may_share_them() -> None:
    said = utterance(1, ADA, "We agreed. It fires at two.")
    view = make(
        session(),
        [said],
        analysis(
            statement("decision", "It fires at two", evidence(said, 11, 26)),
            statement("risk", "Something else", evidence(said, 0, 19)),
        ),
    )
    [block] = view.transcript
    assert isinstance(block, Block)
    assert [(piece.text, piece.evidence, piece.begins) for piece in block.lines[0].pieces] == [
        ("We agreed. ", ("2-1",), ("2-1",)),
        ("It fires", ("1-1", "2-1"), ("1-1",)),
        (" at two", ("1-1",), ()),
        (".", (), ()),
    ]
    decision, risk = (group.items[0] for group in view.groups)
    assert (decision.references[0].is_whole, risk.references[0].is_whole) == (True, False)


def test_kinds_are_in_the_order_of_the_scenario() -> None:
    said = utterance(1, ADA, "Well.")
    about = evidence(said, 0, 4)
    view = make(
        session(), [said], analysis(statement("risk", "Bad", about), statement("decision", "Good", about))
    )
    assert [group.title for group in view.groups] == ["Decisions", "Risks"]
    assert view.empty_kinds == ("Actions",)


def test_owner_is_shown_only_where_the_kind_has_one() -> None:
    said = utterance(1, ADA, "Well.")
    found = [statement(kind, "So", evidence(said, 0, 4), owner=BEN) for kind in ("decision", "action")]
    decisions, actions = make(session(), [said], analysis(*found)).groups
    assert decisions.items[0].owner is None
    assert actions.items[0].owner is not None
    assert actions.items[0].owner.name == "Ben"


def test_people_of_one_name_are_told_apart_and_more_than_the_colours_are_named() -> None:
    twins = people_of([SpeakerOut(identity="ada-1", name="Ada"), SpeakerOut(identity="ada-2", name="Ada")])
    assert [person.name for person in twins.values()] == ["Ada (ada-1)", "Ada (ada-2)"]
    many = people_of(SpeakerOut(identity=str(number), name="") for number in range(COLOURS + 1))
    assert len({person.name for person in many.values()}) == COLOURS + 1
    assert {person.colour for person in many.values()} == set(range(COLOURS))


def test_picture_of_a_long_session_has_no_more_stretches_than_can_be_seen() -> None:
    said = [utterance(number, (ADA, BEN)[number % 2], "Word.") for number in range(5_000)]
    view = make(session(), said, None)
    assert len(view.stretches) <= 2 * WIDTH / LEAST_STRETCH
    for lane in (0, LANE_HEIGHT):
        its = [each for each in view.stretches if each.y == lane]
        assert its[0].x <= WIDTH / 1_000
        assert its[-1].x + its[-1].width > WIDTH - 2 * LEAST_STRETCH


@given(
    st.text(min_size=1).filter(str.strip),
    st.lists(st.tuples(st.integers(-3, 30), st.integers(-3, 30)), max_size=5),
)
def test_marked_text_is_the_text(text: str, spans: list[tuple[int, int]]) -> None:
    said = utterance(1, ADA, text)
    found = [evidence(said, *span) for span in spans]
    view = make(session(), [said], analysis(statement("risk", "Something", *found)))
    assert shown(view) == [("Ada Lovelace", [text])]
