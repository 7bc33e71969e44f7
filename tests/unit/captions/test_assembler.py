from hypothesis import given
from hypothesis import strategies as st

from agent.captions.assembler import MAX_TEXT_CHARS, CaptionAssembler
from agent.values import Heard, Speaker, Word


def heard(
    text: str, *, final: bool = False, utterance: int = 1, stable: int = 0, each_ms: int = 300
) -> Heard:
    spoken = tuple(Word(word, i * each_ms, (i + 1) * each_ms, 0.9) for i, word in enumerate(text.split()))
    return Heard(
        utterance, final, text, 0, len(spoken) * each_ms, "en", 0.9, spoken, len(spoken) if final else stable
    )


def nora_then_felix(start_ms: int, end_ms: int) -> dict[str, float]:
    """Nora speaks for the first 1.2 s, then Felix."""
    return {
        "nora": float(max(0, min(end_ms, 1_200) - max(start_ms, 0))),
        "felix": float(max(0, end_ms - max(start_ms, 1_200))),
    }


def named(identity: str) -> Speaker:
    return Speaker(identity, identity.capitalize())


def test_partials_of_an_utterance_revise_one_caption_that_its_final_closes():
    assembler = CaptionAssembler(epoch=3)
    seen = [
        *assembler.hear(heard("thanks"), nora_then_felix, named),
        *assembler.hear(heard("thanks for", stable=1), nora_then_felix, named),
        *assembler.hear(heard("Thanks for joining.", final=True), nora_then_felix, named),
    ]
    assert [(c.id, c.revision, c.is_final, c.text) for c in seen] == [
        ("3-1", 1, False, "thanks"),
        ("3-1", 2, False, "thanks for"),
        ("3-1", 3, True, "Thanks for joining."),
    ]
    assert seen[1].stable_chars == len("thanks")
    assert {c.speaker for c in seen} == {Speaker("nora", "Nora")}


def test_unchanged_partial_is_not_sent_again_but_its_final_is():
    assembler = CaptionAssembler(1)
    assembler.hear(heard("thanks"), nora_then_felix, named)
    assert assembler.hear(heard("thanks"), nora_then_felix, named) == []
    (final,) = assembler.hear(heard("thanks", final=True), nora_then_felix, named)
    assert final.is_final


def test_two_speakers_in_one_utterance_become_two_captions_with_their_own_ids():
    assembler = CaptionAssembler(1)
    assembler.hear(heard("how many are"), nora_then_felix, named)
    finals = assembler.hear(heard("how many are there two hundred", final=True), nora_then_felix, named)
    assert [(c.id, c.speaker.identity, c.text) for c in finals] == [
        ("1-1", "nora", "how many are there"),
        ("1-2", "felix", "two hundred"),
    ]


def test_caption_that_a_later_revision_does_not_confirm_is_withdrawn():
    assembler = CaptionAssembler(1)
    assembler.hear(heard("how many are there two hundred"), nora_then_felix, named)
    changed = assembler.hear(heard("how many are there", final=True), nora_then_felix, named)
    assert [(c.id, c.is_final, c.text) for c in changed] == [
        ("1-1", True, "how many are there"),
        ("1-2", False, ""),
    ]


def test_utterance_that_came_to_nothing_withdraws_what_was_shown():
    assembler = CaptionAssembler(1)
    assembler.hear(heard("mm"), nora_then_felix, named)
    (gone,) = assembler.hear(heard("", final=True), nora_then_felix, named)
    assert (gone.id, gone.revision, gone.is_final, gone.text) == ("1-1", 2, False, "")


def test_endless_text_becomes_captions_that_fit_into_a_packet():
    word = "x" * 999
    finals = CaptionAssembler(1).hear(
        heard(" ".join([word] * 7), final=True, each_ms=1), nora_then_felix, named
    )
    assert len(finals) > 1
    assert all(len(c.text) <= MAX_TEXT_CHARS for c in finals)
    assert "".join(c.text for c in finals).replace(" ", "") == word * 7


texts = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=12).map(" ".join)


@given(st.lists(st.lists(texts, min_size=1, max_size=6), min_size=1, max_size=5))
def test_captions_never_go_back_in_revision_and_nothing_follows_a_final(utterances):
    assembler = CaptionAssembler(1)
    revisions: dict[str, int] = {}
    finals: set[str] = set()
    for number, states in enumerate(utterances):
        for index, text in enumerate(states):
            is_final = index == len(states) - 1
            for caption in assembler.hear(
                heard(text, final=is_final, utterance=number), nora_then_felix, named
            ):
                assert caption.id not in finals
                assert caption.revision == revisions.get(caption.id, 0) + 1
                assert 0 <= caption.stable_chars <= len(caption.text)
                revisions[caption.id] = caption.revision
                if caption.is_final:
                    assert caption.text
                    finals.add(caption.id)
