"""Captions of turns that wait for their words, and of turns whose speaker is known."""

from hypothesis import given
from hypothesis import strategies as st

from agent.captions.assembler import MAX_TEXT_CHARS, CaptionAssembler
from agent.values import Caption, Heard, Speaker, Word

NORA, OMAR = Speaker("nora", "Nora"), Speaker("omar", "Omar")


def heard(
    text: str, *, turn: int = 1, utterance: int = 1, final: bool = False, start_ms: int = 1_000
) -> Heard:
    words = tuple(
        Word(word, start_ms + at * 300, start_ms + (at + 1) * 300, 0.9)
        for at, word in enumerate(text.split())
    )
    end_ms = start_ms + 300 * len(words)
    stable = len(words) if final else 0
    return Heard(utterance, final, text, start_ms, end_ms, "en", 0.9, words, stable, turn, f"mic-{turn}")


def both_speak(start_ms: int, end_ms: int) -> dict[str, float]:
    """Omar is the louder one all the time: by voice alone all words would be his."""
    return {"nora": 0.2 * (end_ms - start_ms), "omar": 0.9 * (end_ms - start_ms)}


def nobody_speaks(start_ms: int, end_ms: int) -> dict[str, float]:
    return {}


def named(identity: str) -> Speaker:
    return {"nora": NORA, "omar": OMAR}.get(identity, Speaker(identity, identity))


def state(caption: Caption) -> tuple[str, int, bool, bool, str]:
    return (caption.id, caption.revision, caption.is_waiting, caption.is_final, caption.text)


def test_who_waits_is_shown_by_name_and_without_words():
    caption = CaptionAssembler(2).wait(1, NORA, 1_000)
    assert state(caption) == ("2-1", 1, True, False, "")
    assert (caption.speaker, caption.start_ms, caption.end_ms) == (NORA, 1_000, 1_000)
    assert caption.has_overlap


def test_who_waits_again_is_still_shown_by_the_same_caption():
    assembler = CaptionAssembler(2)
    shown = assembler.wait(1, NORA, 1_000)
    assert assembler.wait(1, NORA, 1_000) is None
    [filled] = assembler.hear(heard("hello"), both_speak, named, "nora")
    assert filled.id == shown.id


def test_first_words_fill_the_caption_that_waited_and_its_final_closes_it():
    assembler = CaptionAssembler(1)
    assembler.wait(1, NORA, 1_000)
    seen = [
        *assembler.hear(heard("how many"), both_speak, named, "nora"),
        *assembler.hear(heard("how many are there", final=True), both_speak, named, "nora"),
    ]
    assert [state(caption) for caption in seen] == [
        ("1-1", 2, False, False, "how many"),
        ("1-1", 3, False, True, "how many are there"),
    ]
    assert assembler.end(1) == []


def test_final_without_a_partial_fills_it_too():
    """As of a turn that was recognised as a whole."""
    assembler = CaptionAssembler(1)
    assembler.wait(1, NORA, 1_000)
    [final] = assembler.hear(heard("how many", final=True), both_speak, named, "nora")
    assert state(final) == ("1-1", 2, False, True, "how many")


def test_turn_that_comes_to_nothing_takes_its_caption_away():
    assembler = CaptionAssembler(1)
    assembler.wait(1, NORA, 1_000)
    [gone] = assembler.end(1)
    assert state(gone) == ("1-1", 2, False, False, "")
    assert assembler.end(1) == []


def test_empty_text_does_not_use_up_the_caption_that_waits():
    assembler = CaptionAssembler(1)
    assembler.wait(1, NORA, 1_000)
    for text in ("", "  ", "\x00"):
        assert assembler.hear(heard(text), both_speak, named, "nora") == []
        assert assembler.hear(heard(text, final=True), both_speak, named, "nora") == []
    [filled] = assembler.hear(heard("yes", utterance=2, final=True), both_speak, named, "nora")
    assert filled.id == "1-1"


def test_turns_that_wait_at_once_each_get_their_own_words():
    assembler = CaptionAssembler(1)
    assembler.wait(1, NORA, 1_000)
    assembler.wait(2, OMAR, 1_200)
    [second] = assembler.hear(heard("right", turn=2, utterance=2, final=True), both_speak, named, "omar")
    [first] = assembler.hear(heard("how many", final=True), both_speak, named, "nora")
    assert (second.id, second.speaker, first.id, first.speaker) == ("1-2", OMAR, "1-1", NORA)


def test_second_utterance_of_a_turn_that_waited_is_another_caption():
    assembler = CaptionAssembler(1)
    assembler.wait(1, NORA, 1_000)
    assembler.hear(heard("how many", final=True), both_speak, named, "nora")
    [other] = assembler.hear(heard("are there", utterance=2, final=True), both_speak, named, "nora")
    assert other.id == "1-2"
    assert assembler.end(1) == []


def test_words_that_were_shown_and_came_to_nothing_are_withdrawn_also_of_a_turn_that_waited():
    assembler = CaptionAssembler(1)
    assembler.wait(1, NORA, 1_000)
    assembler.hear(heard("mm"), both_speak, named, "nora")
    [gone] = assembler.hear(heard("", final=True), both_speak, named, "nora")
    assert state(gone) == ("1-1", 3, False, False, "")
    assert assembler.end(1) == []


def test_end_of_a_turn_that_never_waited_changes_nothing():
    assembler = CaptionAssembler(1)
    assembler.hear(heard("yes", final=True), both_speak, named, "nora")
    assert assembler.end(1) == []
    assert assembler.end(99) == []


def test_words_of_a_known_track_are_its_owners_whoever_speaks_louder_meanwhile():
    [final] = CaptionAssembler(1).hear(heard("how many are there", final=True), both_speak, named, "nora")
    assert (final.speaker, final.confidence, final.has_overlap) == (NORA, 1.0, True)


def test_words_of_a_known_track_are_its_owners_also_where_no_voice_was_found():
    [final] = CaptionAssembler(1).hear(heard("mm", final=True), nobody_speaks, named, "nora")
    assert (final.speaker, final.confidence, final.has_overlap) == (NORA, 1.0, False)


def test_words_of_a_sum_go_to_who_has_the_voice():
    [final] = CaptionAssembler(1).hear(heard("how many are there", final=True), both_speak, named, None)
    assert final.speaker == OMAR


def test_endless_text_of_a_turn_that_waited_fills_its_caption_and_goes_on_in_others():
    assembler = CaptionAssembler(1)
    waiting = assembler.wait(1, NORA, 1_000)
    finals = assembler.hear(heard("w" * 10_000, final=True), both_speak, named, "nora")
    assert finals[0].id == waiting.id
    assert len({final.id for final in finals}) == len(finals) == 10_000 // MAX_TEXT_CHARS
    assert {final.speaker for final in finals} == {NORA}


def test_name_is_that_of_the_moment_at_which_the_words_come():
    assembler = CaptionAssembler(1)
    assembler.wait(1, NORA, 1_000)
    renamed = Speaker("nora", "Dr. Nora")
    [final] = assembler.hear(heard("yes", final=True), both_speak, lambda _: renamed, "nora")
    assert final.speaker == renamed


steps = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.integers(1, 4)),
        st.tuples(st.just("end"), st.integers(1, 4)),
        st.tuples(st.just("hear"), st.integers(1, 4), st.sampled_from(["", "a", "a b"]), st.booleans()),
    ),
    max_size=30,
)


@given(steps)
def test_nobody_is_left_waiting_and_no_caption_goes_back(steps):
    """Whatever comes when: a caption rises by one each time, and after a final or its end it is at rest."""
    assembler = CaptionAssembler(1)
    newest: dict[str, Caption] = {}
    open_utterances: dict[int, int] = {}
    waited: set[int] = set()
    utterances = 0
    for kind, turn, *rest in steps:
        if kind == "wait":
            if turn in waited:  # a turn waits once
                continue
            waited.add(turn)
            captions = [assembler.wait(turn, NORA, 0)]
        elif kind == "end":
            captions = assembler.end(turn)
        else:
            text, is_final = rest
            if turn not in open_utterances:
                utterances += 1
                open_utterances[turn] = utterances
            said = heard(text, turn=turn, utterance=open_utterances[turn], final=is_final)
            captions = assembler.hear(said, both_speak, named, "nora")
            if is_final:
                del open_utterances[turn]
        for caption in captions:
            before = newest.get(caption.id)
            assert caption.revision == (before.revision + 1 if before else 1)
            assert before is None or not before.is_final
            assert caption.text or not caption.is_final
            newest[caption.id] = caption
    for turn, utterance in open_utterances.items():
        nothing = heard("", turn=turn, utterance=utterance, final=True)
        for caption in assembler.hear(nothing, both_speak, named, "nora"):
            newest[caption.id] = caption
    for turn in waited:
        for caption in assembler.end(turn):
            newest[caption.id] = caption
    for caption in newest.values():
        assert not caption.is_waiting
        assert caption.is_final == bool(caption.text)
