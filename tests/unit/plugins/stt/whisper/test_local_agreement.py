"""LocalAgreement-2: confirmed words never change, and the window never loses or repeats any."""

from hypothesis import given
from hypothesis import strategies as st

from plugins.stt.whisper.local_agreement import WINDOW_LIMIT_S, LocalAgreement
from plugins.stt.whisper.word import DecodedWord


def words(text: str, *, word_s: float = 0.3) -> list[DecodedWord]:
    return [
        DecodedWord(f" {part}", at * word_s, (at + 1) * word_s, 0.9, (at,))
        for at, part in enumerate(text.split())
    ]


def texts(decoded: tuple[DecodedWord, ...]) -> str:
    return "".join(word.text for word in decoded).strip()


def test_first_hypothesis_confirms_nothing() -> None:
    agreement = LocalAgreement()
    agreement.update(words("thanks for joining"), window_s=1.0)
    assert agreement.stable_words == 0
    assert texts(agreement.words) == "thanks for joining"


def test_common_prefix_of_two_hypotheses_is_confirmed() -> None:
    agreement = LocalAgreement()
    agreement.update(words("the alert was too"), window_s=1.0)
    agreement.update(words("the alert was two percent"), window_s=1.5)
    assert texts(agreement.prefix) == "the alert was"
    assert texts(agreement.words) == "the alert was two percent"


def test_last_word_is_held_back_because_the_model_completes_sentences() -> None:
    agreement = LocalAgreement()
    agreement.update(words("thanks for joining us."), window_s=1.0)
    agreement.update(words("thanks for joining us."), window_s=1.5)
    assert texts(agreement.prefix) == "thanks for joining"


def test_hypothesis_that_ends_early_takes_no_confirmed_word_back() -> None:
    agreement = LocalAgreement()
    agreement.update(words("one two three four"), window_s=1.0)
    agreement.update(words("one two three four"), window_s=1.5)
    agreement.update([], window_s=2.0)
    assert texts(agreement.words) == "one two three"


def test_long_window_is_trimmed_between_confirmed_words_which_stay_in_the_text() -> None:
    agreement = LocalAgreement()
    said = "a b c d e f g h i j k l m n o p q r s t u v"
    agreement.update(words(said), window_s=6.5)
    agreement.update(words(said), window_s=7.0)
    assert 0 < agreement.window_start_s <= 7.0 - 3.0
    assert all(word.end_s <= agreement.window_start_s for word in agreement.context)
    assert all(word.start_s >= agreement.window_start_s for word in agreement.prefix)
    assert texts(agreement.words) == said


def test_times_in_a_trimmed_window_count_from_the_utterance() -> None:
    agreement = LocalAgreement()
    said = "a b c d e f g h i j k l m n o p q r s t u v"
    agreement.update(words(said), window_s=6.5)
    agreement.update(words(said), window_s=7.0)
    window_start_s = agreement.window_start_s
    agreement.update(words("w x"), window_s=4.0)
    assert agreement.words[-1].start_s == window_start_s + 0.3


def test_unconfirmed_audio_is_never_trimmed() -> None:
    agreement = LocalAgreement()
    for said in ("a b c d e", "v w x y z", "f g h i j"):
        agreement.update(words(said), window_s=WINDOW_LIMIT_S + 10)
    assert agreement.window_start_s == 0.0


def test_times_that_are_found_later_replace_rough_ones() -> None:
    agreement = LocalAgreement()
    agreement.update(words("a b c", word_s=0.5), window_s=1.0)
    agreement.update(words("a b c", word_s=0.5), window_s=1.5)
    prefix = words("a b", word_s=0.2)
    agreement.update([], window_s=2.0, prefix=prefix)
    assert [word.end_s for word in agreement.prefix] == [0.2, 0.4]
    assert agreement.confirmed_until_s == 0.4


def test_decode_of_the_whole_utterance_confirms_like_a_continuation() -> None:
    agreement = LocalAgreement()
    agreement.update(words("the alert was two"), window_s=1.0)
    agreement.update(words("the alert was too"), window_s=1.5)
    assert agreement.adopt(words("the alert was too high."), utterance_s=2.0)
    assert texts(agreement.words) == "the alert was too high."
    assert agreement.stable_words == 4


def test_decode_that_contradicts_a_confirmed_word_is_not_taken() -> None:
    agreement = LocalAgreement()
    agreement.update(words("the alert was"), window_s=1.0)
    agreement.update(words("the alert was"), window_s=1.5)
    assert not agreement.adopt(words("an alert was too high."), utterance_s=2.0)
    assert texts(agreement.words) == "the alert was"


hypotheses = st.lists(
    st.tuples(st.lists(st.sampled_from("abc"), max_size=12).map(" ".join), st.floats(0.1, 28.0)),
    max_size=12,
)


@given(hypotheses)
def test_confirmed_words_never_change(sequence: list[tuple[str, float]]) -> None:
    agreement = LocalAgreement()
    confirmed: tuple[DecodedWord, ...] = ()
    for said, window_s in sequence:
        agreement.update(words(said), window_s=window_s)
        assert agreement.words[: len(confirmed)] == confirmed
        assert agreement.stable_words >= len(confirmed)
        confirmed = agreement.words[: agreement.stable_words]
        assert agreement.context + agreement.prefix == confirmed


@given(hypotheses)
def test_window_only_moves_forward(sequence: list[tuple[str, float]]) -> None:
    agreement = LocalAgreement()
    for said, window_s in sequence:
        before_s = agreement.window_start_s
        agreement.update(words(said), window_s=window_s)
        assert before_s <= agreement.window_start_s <= max(before_s, before_s + window_s)
