"""What the driver does with engines that work, break, stall and come back, under virtual time."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from agent.audio.activity import WINDOW_MS
from agent.audio.floor import RING_MS
from agent.transcription.engine import Engine, EngineDown, EngineUp, Missed, TurnEnds, TurnWaits
from agent.transcription.transcriber import Transcriber
from plugins.stt.traits import Traits
from tests.support.speech_windows import VOICE, windows_of
from tests.support.telling_stt import Health, TellingSTT
from tests.support.transcribing import OVERLAPPING, PLAIN, SUM, TALK, assert_all_heard_once, said, transcribe


def test_each_final_is_one_persons_and_overlap_costs_no_word():
    run = transcribe(OVERLAPPING, (TellingSTT, PLAIN))
    assert_all_heard_once(run, OVERLAPPING)
    assert {waits.track_id for waits in run.of(TurnWaits)} == {"b", "c"}
    assert len(run.of(TurnEnds)) == len({heard.turn for heard in run.finals})
    assert run.of(Missed) == []


def test_words_are_placed_where_they_were_spoken_also_in_a_turn_that_waited():
    run = transcribe(OVERLAPPING, (TellingSTT, PLAIN))
    for heard in run.finals:
        assert [(word.start_ms, word.end_ms) for word in heard.words] == [
            (int(word.text) * WINDOW_MS, (int(word.text) + 1) * WINDOW_MS) for word in heard.words
        ]


@pytest.mark.parametrize("answers_s", [0.0, 0.05, 1.5])
def test_stream_that_breaks_costs_no_word_and_brings_none_twice(answers_s):
    for breaks_at_s in (0.3, 2.0, 2.4, 3.0, 5.0):
        health = Health(answer_s=answers_s, breaks_at_s=breaks_at_s)
        run = transcribe(OVERLAPPING, (lambda health=health: TellingSTT(health), PLAIN), then_s=10)
        assert_all_heard_once(run, OVERLAPPING)
        assert run.transcriber.replayed_turns >= 1
        assert len(health.streams) == 2


def test_engine_that_is_away_is_said_and_what_was_said_meanwhile_comes_when_it_is_back():
    health = Health(refuses=True)
    run = transcribe(
        OVERLAPPING,
        (lambda: TellingSTT(health), PLAIN),
        at={15.0: lambda: setattr(health, "refuses", False)},
        then_s=60,
    )
    assert_all_heard_once(run, OVERLAPPING)
    assert [type(told) for told in run.of(EngineDown) + run.of(EngineUp)] == [EngineDown, EngineUp]
    assert run.of(EngineDown)[0].reason == "APIConnectionError"


def test_engine_that_is_asked_too_much_says_so_and_is_left_alone():
    health = Health(is_busy=True)
    run = transcribe(
        TALK,
        (lambda: TellingSTT(health), PLAIN),
        at={9.0: lambda: setattr(health, "is_busy", False)},
        then_s=30,
    )
    assert_all_heard_once(run, TALK)
    assert run.of(EngineDown)[0].reason == "too_many_requests"
    assert len(health.streams) <= 5


def test_stalled_stream_is_given_up_and_its_turns_are_sent_to_the_next():
    health = Health(is_stalled=True)
    run = transcribe(
        TALK,
        (lambda: TellingSTT(health), PLAIN),
        at={9.0: lambda: setattr(health, "is_stalled", False)},
        then_s=30,
    )
    assert_all_heard_once(run, TALK)
    assert run.transcriber.replayed_turns >= 1


def test_what_nobody_could_recognise_for_too_long_is_told_as_missed():
    health = Health(refuses=True)
    run = transcribe(TALK, (lambda: TellingSTT(health), PLAIN), then_s=RING_MS / 1000 + 15)
    missed = run.of(Missed)
    assert {each.reason for each in missed} == {"engine"}
    spans = [(each.start_ms, each.end_ms) for each in missed]
    for window in TALK:
        if window.probability == VOICE:
            assert any(start <= window.start_ms < end for start, end in spans)


def test_second_engine_takes_over_and_the_first_is_gone_back_to_between_turns():
    health, spare = Health(refuses=True), Health()
    windows = windows_of("a", [(at, at + 1_600) for at in range(0, 60_000, 2_560)], 60_000)
    run = transcribe(
        windows,
        (lambda: TellingSTT(health), PLAIN),
        (lambda: TellingSTT(spare), PLAIN),
        # In the middle of a turn.
        at={20.48 + 0.8: lambda: setattr(health, "refuses", False)},
    )
    assert run.of(EngineDown) == []
    assert run.transcriber.failovers >= 1
    assert sum(stream.flushes for stream in spare.streams) > 3
    assert sum(stream.flushes for stream in health.streams) > 3
    assert [stream.unflushed_s for stream in spare.streams if stream.unflushed_s] == [], "left within a turn"
    # None but the first turn, which the first engine has refused.
    assert run.transcriber.replayed_turns <= 1
    assert len({heard.turn for heard in run.finals}) == len(run.finals) == len(run.of(TurnEnds))
    assert_all_heard_once(run, windows)


def test_waiting_turns_that_are_over_are_recognised_beside_the_stream():
    health = Health()
    run = transcribe(OVERLAPPING, (lambda: TellingSTT(health), replace(PLAIN, recognizes=True)))
    assert_all_heard_once(run, OVERLAPPING)
    assert health.recognitions >= 1


def test_recognition_that_fails_goes_over_the_stream_in_the_end():
    class NoRecognitions(TellingSTT):
        async def _recognize_impl(self, buffer, **options):
            raise ValueError("not today")

    run = transcribe(OVERLAPPING, (NoRecognitions, replace(PLAIN, recognizes=True)), then_s=60)
    assert_all_heard_once(run, OVERLAPPING)


def test_slow_engine_gets_a_second_stream_for_those_who_wait_and_gives_it_up():
    health = Health()
    run = transcribe(OVERLAPPING, (lambda: TellingSTT(health), replace(PLAIN, burst_rate=1.25)), then_s=30)
    assert_all_heard_once(run, OVERLAPPING)
    assert len(health.streams) == 2
    assert run.transcriber.billed_s < 41 + 41 - 10


def test_engine_gets_no_more_than_its_rate():
    health = Health(refuses=True)
    run = transcribe(
        windows_of("a", [(0, 9_600)], 10_048),
        (lambda: TellingSTT(health), replace(PLAIN, burst_rate=2.0)),
        at={10.0: lambda: setattr(health, "refuses", False)},
        then_s=40,
    )
    [stream] = [stream for stream in health.streams if stream.arrivals_s]
    assert stream.arrivals_s[-1] - stream.arrivals_s[0] >= (stream.heard_s - 0.4) / 2
    assert_all_heard_once(run, windows_of("a", [(0, 9_600)], 10_048))


def test_turn_on_which_every_stream_breaks_does_not_take_the_others_along():
    poison = said(TALK)[100]
    health = Health(breaks_on=lambda sample: sample == poison)
    run = transcribe(TALK, (lambda: TellingSTT(health), PLAIN), then_s=90)
    words = set(run.words("a"))
    missed = [span for each in run.of(Missed) for span in [(each.start_ms, each.end_ms)]]
    for number in said(TALK):
        at_ms = number * WINDOW_MS
        assert number in words or any(start <= at_ms < end for start, end in missed)
    assert poison not in words
    assert len(words) > len(said(TALK)) / 2


def test_engine_that_tells_no_end_is_followed_by_the_time_of_its_finals():
    run = transcribe(
        OVERLAPPING, (lambda: TellingSTT(acknowledges=False), replace(PLAIN, acknowledges=False)), then_s=15
    )
    assert_all_heard_once(run, OVERLAPPING)


@pytest.mark.parametrize(
    ("traits", "is_sum"),
    [([PLAIN], False), ([SUM], True), ([PLAIN, SUM], True)],
    ids=["floor", "sum", "mixed"],
)
def test_one_engine_that_gives_no_final_on_request_has_all_hear_the_sum(traits: list[Traits], is_sum: bool):
    engines = [Engine(f"engine-{number}", TellingSTT(), each) for number, each in enumerate(traits)]
    assert Transcriber(engines).is_sum is is_sum


class Knowing(TellingSTT):
    """Notes which key terms it is told, and how much audio its open streams have had by then."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[list[str], list[float]]] = []

    def update_keyterms(self, terms: Sequence[str]) -> None:
        self.told.append((list(terms), [stream.heard_s for stream in self.health.streams]))


def test_key_terms_that_change_in_mid_session_reach_each_engine_and_break_no_stream():
    """The engine in use has its stream open; the one in reserve has none yet, and one takes no terms."""
    used, reserve = Knowing(), Knowing()
    run = transcribe(
        TALK,
        (lambda: used, PLAIN),
        (TellingSTT, PLAIN),
        (lambda: reserve, PLAIN),
        keyterms_at={1.0: ["Frankfurt"], 5.0: ["Frankfurt", "error budget"], 7.0: []},
    )
    assert [terms for terms, _ in used.told] == [["Frankfurt"], ["Frankfurt", "error budget"], []]
    heard_s = [heard for _, streams in used.told for heard in streams]
    assert len(heard_s) == len(used.told), "a stream is open each time, the same"
    assert 0 < heard_s[0] < heard_s[1] <= heard_s[2]
    assert reserve.told == [(terms, []) for terms, _ in used.told]
    assert len(used.health.streams) == 1
    assert_all_heard_once(run, TALK)


def test_key_terms_that_an_engine_refuses_cost_neither_words_nor_the_engine():
    class Refusing(TellingSTT):
        def update_keyterms(self, terms: Sequence[str]) -> None:
            raise ValueError("not these")

    reserve = Knowing()
    run = transcribe(
        TALK, (Refusing, PLAIN), (lambda: reserve, PLAIN), keyterms_at={1.0: ["Frankfurt"], 5.0: ["Mainz"]}
    )
    assert [terms for terms, _ in reserve.told] == [["Frankfurt"], ["Mainz"]], "the next one is told"
    assert run.of(EngineDown) == []
    assert run.transcriber.failovers == 0
    assert_all_heard_once(run, TALK)
