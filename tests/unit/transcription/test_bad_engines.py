"""What the driver makes of engines that answer with nothing, with nonsense, out of order, or not at all.

The outcome is the same throughout: every word is heard once and under its speaker's name, or its time is told
as missed; who was shown as waiting is not left waiting; and nothing hangs.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf, nan
from typing import Any

import pytest
from livekit.agents import APIConnectionError, stt
from livekit.agents.types import TimedString

from agent.audio.activity import WINDOW_MS, Window
from agent.audio.floor import RING_MS
from agent.captions.protocol import MAX_PACKET_BYTES, encode
from agent.session.source import TrackOpened
from agent.transcription.engine import EngineDown, EngineUp, Missed, TurnEnds, TurnWaits
from agent.values import Heard, Speaker, Track
from plugins.stt.traits import Traits
from tests.support.numbered_speech import noise
from tests.support.scripted_source import ScriptedSource, audio
from tests.support.scripted_stt import Say, ScriptedSTT, speech
from tests.support.speech_windows import VOICE, in_time, windows_of
from tests.support.telling_stt import Health, TellingStream, TellingSTT
from tests.support.transcribing import (
    OVERLAPPING,
    PLAIN,
    TALK,
    Run,
    assert_all_heard_once,
    said,
    transcribe,
)
from tests.support.virtual_session import run_session

FINAL, INTERIM = stt.SpeechEventType.FINAL_TRANSCRIPT, stt.SpeechEventType.INTERIM_TRANSCRIPT
RECOGNIZING = replace(PLAIN, recognizes=True)
TIMELESS = replace(PLAIN, has_word_times=False)
UNTOLD = replace(PLAIN, acknowledges=False)  # an engine that tells no end

Event = stt.SpeechEvent
Bend = Callable[[Event], Sequence[Event]]


class BentSTT(TellingSTT):
    """Tells its windows, each event as a test bends it, and raises in the calls that a test names.

    Args:
        bend: From what an engine would say to what this one says instead.
        fails: Calls that raise; `times` of them in all, then they work.
    """

    def __init__(
        self,
        bend: Bend = lambda event: [event],
        *,
        fails: str = "",
        times: float = inf,
        health: Health | None = None,
        acknowledges: bool = True,
    ) -> None:
        super().__init__(health, acknowledges=acknowledges)
        self.bend = bend
        self._fails = fails
        self._times = times

    def called(self, call: str) -> None:
        if call == self._fails and self._times > 0:
            self._times -= 1
            raise ValueError(f"not in {call}")

    def stream(self, **options: Any) -> "BentStream":
        self.called("stream")
        stream = BentStream(self, options["conn_options"])
        self.health.streams.append(stream)
        return stream

    async def _recognize_impl(self, buffer: Any, **options: Any) -> Any:
        self.called("recognize")
        bent = self.bend(await super()._recognize_impl(buffer, **options))
        return bent[0] if bent else None


class BentStream(TellingStream):
    _engine: BentSTT

    async def _run(self) -> None:
        self._engine.called("run")
        await super()._run()

    def push_frame(self, frame: Any) -> None:
        self._engine.called("push_frame")
        super().push_frame(frame)

    def flush(self) -> None:
        self._engine.called("flush")
        super().flush()

    def prepare_final(self) -> None:
        self._engine.called("prepare_final")

    async def aclose(self) -> None:
        await super().aclose()
        self._engine.called("aclose")

    def _send(self, event: Event) -> None:
        for each in self._engine.bend(event):
            super()._send(each)


def bent(bend: Callable[[stt.SpeechData], stt.SpeechData], *kinds: stt.SpeechEventType) -> Bend:
    """Bends the transcripts of these kinds, or all of them."""

    def bend_event(event: Event) -> Sequence[Event]:
        if event.type not in (kinds or (FINAL, INTERIM)):
            return [event]
        return [Event(event.type, alternatives=[bend(event.alternatives[0])])]

    return bend_event


def timed(
    data: stt.SpeechData, at: Callable[[float, float], tuple[Any, Any]], *, of_words: bool = True
) -> stt.SpeechData:
    """The same text, with every start and end as `at` has it."""
    start, end = at(data.start_time, data.end_time)
    words = [
        TimedString(str(word), start_time=times[0], end_time=times[1])
        for word in data.words or ()
        for times in [at(float(word.start_time), float(word.end_time))]
    ]
    return replace(data, start_time=start, end_time=end, words=words if of_words else None)


def assert_heard_or_missed(run: Run, windows: Sequence[Window]) -> None:
    """Nothing is lost silently, nothing comes twice, and nobody is left waiting."""
    assert run.transcriber is not None
    missed = run.of(Missed)
    for track_id in {window.track_id for window in windows}:
        words = run.words(track_id)
        assert not [word for word, count in Counter(words).items() if count > 1], "words came twice"
        for window in windows:
            if window.track_id == track_id and window.probability == VOICE:
                spans = [(each.start_ms, each.end_ms) for each in missed if each.track_id in ("", track_id)]
                is_missed = any(start <= window.start_ms < end for start, end in spans)
                assert int(window.samples[0]) in words or is_missed, f"{track_id} at {window.start_ms} ms"
    assert {waits.turn for waits in run.of(TurnWaits)} <= {ends.turn for ends in run.of(TurnEnds)}


def assert_right_names_and_times(run: Run) -> None:
    """Each word under the track that said it, within the time of its own turn."""
    spans = {ends.turn: ends for ends in run.of(TurnEnds)}
    for heard in run.of(Heard):
        if heard.text:
            turn = spans[heard.turn]
            assert heard.track_id == turn.track_id
            assert turn.start_ms - WINDOW_MS <= heard.start_ms <= heard.end_ms <= turn.end_ms + WINDOW_MS
            spoken_ms = [int(word) * WINDOW_MS for word in heard.text.split()]
            assert turn.start_ms - WINDOW_MS <= min(spoken_ms) <= max(spoken_ms) <= turn.end_ms


# --- An engine that returns nothing


@pytest.mark.parametrize("traits", [PLAIN, RECOGNIZING, TIMELESS], ids=["stream", "recognize", "timeless"])
def test_engine_that_hears_nothing_leaves_nobody_waiting(traits: Traits):
    """It has answered: there is no gap, and the coverage tells the rest."""

    def bend(event: Event) -> Sequence[Event]:
        return [] if event.type in (FINAL, INTERIM) else [event]

    class Deaf(BentSTT):
        async def _recognize_impl(self, buffer: Any, **options: Any) -> Any:
            await super()._recognize_impl(buffer, **options)
            return Event(FINAL, alternatives=[])

    run = transcribe(OVERLAPPING, (lambda: Deaf(bend), traits))
    assert run.of(Heard) == []
    assert run.of(Missed) == []
    assert run.of(EngineDown) == []
    assert run.transcriber.replayed_turns == 0
    assert {waits.turn for waits in run.of(TurnWaits)} <= {ends.turn for ends in run.of(TurnEnds)}


def test_recognition_that_returns_no_event_costs_no_word():
    class Nothing(TellingSTT):
        async def _recognize_impl(self, buffer: Any, **options: Any) -> Any:
            return None

    run = transcribe(OVERLAPPING, (Nothing, RECOGNIZING), then_s=60)
    assert_all_heard_once(run, OVERLAPPING)


def test_recognition_that_cancels_itself_costs_no_word():
    """As libraries do that cancel a request of their own."""

    class Cancelled(TellingSTT):
        async def _recognize_impl(self, buffer: Any, **options: Any) -> Any:
            raise asyncio.CancelledError

    run = transcribe(OVERLAPPING, (Cancelled, RECOGNIZING), then_s=60)
    assert_all_heard_once(run, OVERLAPPING)


def test_engine_that_never_answers_is_told_as_missed():
    run = transcribe(TALK, (lambda: TellingSTT(Health(is_stalled=True)), PLAIN), then_s=RING_MS / 1000 + 15)
    assert run.finals == []
    assert {each.reason for each in run.of(Missed)} == {"engine"}
    assert_heard_or_missed(run, TALK)


def test_engine_that_tells_no_end_and_says_nothing_is_asked_twice_and_believed():
    """Each turn is long past its answer before the next one begins."""
    windows = windows_of("a", [(320, 2_560), (20_000, 22_000), (40_000, 42_000)], 60_000)
    asked: list[str] = []

    def bend(event: Event) -> Sequence[Event]:
        if event.type is FINAL:
            asked.append(event.alternatives[0].text)
        return []

    run = transcribe(windows, (lambda: BentSTT(bend, acknowledges=False), UNTOLD))
    assert list(Counter(asked).values()) == [2, 2, 2]
    assert len(run.of(TurnEnds)) == 3
    assert run.of(Heard) == run.of(Missed) == []
    assert run.transcriber.replayed_turns == 3


# --- Empty finals


@pytest.mark.parametrize("text", ["", "   ", "\u200b\x00", "\n"], ids=["empty", "blanks", "unseen", "line"])
def test_empty_finals_around_the_real_ones_change_nothing(text: str):
    empty = Event(FINAL, alternatives=[stt.SpeechData(language="en", text=text)])

    def bend(event: Event) -> Sequence[Event]:
        return [empty, event, empty] if event.type is FINAL else [event]

    run = transcribe(OVERLAPPING, (lambda: BentSTT(bend), PLAIN))
    finals = [heard for heard in run.finals if heard.text.strip("\u200b\x00\n ")]
    run.told = [(at_s, told) for at_s, told in run.told if not isinstance(told, Heard) or told in finals]
    assert_all_heard_once(run, OVERLAPPING)
    assert len(finals) == len(run.of(TurnEnds))


def test_empty_finals_in_mid_turn_settle_nothing_that_has_no_words_yet():
    """What an empty final is about it does not say: a stream that breaks later has to be replayed whole."""
    empty = Event(FINAL, alternatives=[stt.SpeechData(language="en", text="")])

    def bend(event: Event) -> Sequence[Event]:
        return [event, empty] if event.type is INTERIM else [event]

    for breaks_at_s in (1.0, 2.0, 3.0):
        health = Health(breaks_at_s=breaks_at_s)
        run = transcribe(OVERLAPPING, (lambda health=health: BentSTT(bend, health=health), PLAIN), then_s=10)
        assert_heard_or_missed(run, OVERLAPPING)


def test_event_without_alternatives_is_passed_over():
    nothing = [Event(kind, alternatives=[]) for kind in stt.SpeechEventType]
    run = transcribe(OVERLAPPING, (lambda: BentSTT(lambda event: [*nothing, event]), PLAIN))
    assert_all_heard_once(run, OVERLAPPING)


# --- Finals out of order


def test_final_that_comes_after_that_of_a_later_turn_is_still_its_speakers():
    held: list[Event] = []

    def bend(event: Event) -> Sequence[Event]:
        if event.type is not FINAL:
            return [event]
        held.append(event)
        if len(held) < 2:
            return []
        later, earlier = held.pop(), held.pop()
        return [later, earlier]

    run = transcribe(OVERLAPPING, (lambda: BentSTT(bend), PLAIN))
    assert len(run.finals) == len(run.of(TurnEnds)) // 2 * 2
    assert_right_names_and_times(run)
    for track_id in "abc":
        assert max(Counter(run.words(track_id)).values(), default=1) == 1


def test_parts_of_a_turn_that_come_in_the_wrong_order_keep_their_times():
    def halves(event: Event) -> Sequence[Event]:
        if event.type is not FINAL:
            return [event]
        data = event.alternatives[0]
        words = list(data.words or ())
        middle = len(words) // 2
        parts = [part for part in (words[middle:], words[:middle]) if part]
        return [
            Event(
                FINAL,
                alternatives=[
                    replace(
                        data,
                        text=" ".join(part),
                        words=part,
                        start_time=float(part[0].start_time),
                        end_time=float(part[-1].end_time),
                    )
                ],
            )
            for part in parts
        ]

    run = transcribe(OVERLAPPING, (lambda: BentSTT(halves), PLAIN))
    assert_all_heard_once(run, OVERLAPPING)
    for heard in run.finals:
        assert [word.start_ms for word in heard.words] == [int(word.text) * WINDOW_MS for word in heard.words]


# --- Times outside the audio

TIMES: dict[str, Callable[[float, float], tuple[Any, Any]]] = {
    "before": lambda start, end: (start - 1_000, end - 1_000),
    "after": lambda start, end: (start + 1_000, end + 1_000),
    "nan": lambda start, end: (nan, nan),
    "infinite": lambda start, end: (-inf, inf),
    "none": lambda start, end: (None, None),
    "zero": lambda start, end: (0.0, 0.0),
    "backwards": lambda start, end: (end, start),
}


@pytest.mark.parametrize("traits", [PLAIN, RECOGNIZING], ids=["stream", "recognize"])
@pytest.mark.parametrize("times", TIMES)
def test_times_outside_the_audio_move_no_word_to_another_time_or_name(times: str, traits: Traits):
    """They are put to the edge of the turn whose answer is due, or the words get the time of all of it."""
    for of_words in (True, False):
        bend = bent(lambda data, of_words=of_words: timed(data, TIMES[times], of_words=of_words))
        run = transcribe(OVERLAPPING, (lambda bend=bend: BentSTT(bend), traits), then_s=10)
        assert run.of(EngineDown) == [], "an engine that is off by its times is not down"
        assert_right_names_and_times(run)
        assert_all_heard_once(run, OVERLAPPING)


@pytest.mark.parametrize("times", TIMES)
def test_times_outside_the_audio_of_a_recognition_end_no_session(times: str):
    class BentRecognition(TellingSTT):
        async def _recognize_impl(self, buffer: Any, **options: Any) -> Event:
            event = await super()._recognize_impl(buffer, **options)
            return Event(FINAL, alternatives=[timed(event.alternatives[0], TIMES[times])])

    run = transcribe(OVERLAPPING, (BentRecognition, RECOGNIZING), then_s=60)
    assert_right_names_and_times(run)
    assert_all_heard_once(run, OVERLAPPING)


@pytest.mark.parametrize("traits", [PLAIN, RECOGNIZING], ids=["stream", "recognize"])
def test_times_in_the_audio_of_another_turn_are_believed(traits: Traits):
    """A final may be late, and its time is all that tells whose it is; name and time agree then at least."""
    run = transcribe(
        OVERLAPPING,
        (lambda: BentSTT(bent(lambda data: timed(data, lambda start, end: (0.3, 0.4)), FINAL)), traits),
    )
    ends = {each.turn: each for each in run.of(TurnEnds)}
    for heard in run.finals:
        turn = ends[heard.turn]
        assert heard.track_id == turn.track_id
        assert turn.start_ms <= heard.start_ms <= heard.end_ms <= turn.end_ms
    assert sum(len(heard.words) for heard in run.finals) >= len(said(OVERLAPPING))
    assert run.of(EngineDown) == []


def test_confidence_that_is_no_number_is_no_confidence():
    run = transcribe(TALK, (lambda: BentSTT(bent(lambda data: replace(data, confidence=nan))), PLAIN))
    assert_all_heard_once(run, TALK)
    assert {heard.confidence for heard in run.finals} == {0.0}


# --- Another language, and too much of it


@pytest.mark.parametrize("language", ["ru", "zh-Hant-TW", ""])
def test_another_language_than_asked_is_shown_as_it_is(language: str):
    bend = bent(lambda data: replace(data, language=language, text="Добрый день", words=None))
    run = transcribe(TALK, (lambda: BentSTT(bend), PLAIN))
    assert {(heard.text, heard.language) for heard in run.finals} == {("Добрый день", language)}
    assert len(run.finals) == 3
    assert run.of(Missed) == []


@pytest.mark.parametrize("is_final", [True, False], ids=["final", "partial"])
@pytest.mark.parametrize(
    "text",
    ["w" * 10_000, "word " * 2_000, "\N{PILE OF POO}" * 10_000, '"\\' * 5_000],
    ids=["word", "words", "emoji", "escaped"],
)
def test_text_of_ten_thousand_characters_becomes_captions_that_each_fit_into_a_packet(
    text: str, is_final: bool
):
    source = ScriptedSource(
        [(0, TrackOpened(Track("mic", Speaker("nora", "Nora")))), *audio("mic", noise(3), start_s=0)]
    )
    script = [Say(1.0, speech(text, start_s=0.2, final=is_final, each_s=0.001)), Say(2.0, _final("short"))]
    published = run_session(source, lambda: ScriptedSTT(script))
    for _, event in published.events:
        assert len(encode(event)) <= MAX_PACKET_BYTES
    finals = [caption.text for caption in published.finals]
    assert finals[-1] == "short"
    if is_final:
        assert "".join(finals[:-1]).replace(" ", "") == text.replace(" ", "")
    withdrawn = {caption.id for caption in published.captions if not caption.text}
    shown = {caption.id for caption in published.captions}
    assert shown == withdrawn | {caption.id for caption in published.finals}, "partials were left behind"
    assert published.report.dropped_events == 0


def _final(text: str) -> Event:
    return speech(text, start_s=1.5, final=True)


# --- An exception on each call

CALLS = ["stream", "run", "push_frame", "flush", "prepare_final", "aclose", "recognize"]
SPECULATING = replace(RECOGNIZING, speculates=True)


@pytest.mark.parametrize("call", CALLS)
def test_exception_that_comes_once_costs_no_word(call: str):
    run = transcribe(OVERLAPPING, (lambda: BentSTT(fails=call, times=1), SPECULATING), then_s=30)
    assert_all_heard_once(run, OVERLAPPING)
    downs, ups = run.of(EngineDown), run.of(EngineUp)
    assert {down.reason for down in downs} <= {"ValueError"}
    # One in the last call of all is nobody's business any more.
    assert len(downs) - len(ups) <= (call == "aclose")


@pytest.mark.parametrize("call", CALLS)
def test_exception_on_every_call_is_said_and_what_it_costs_is_told(call: str):
    run = transcribe(OVERLAPPING, (lambda: BentSTT(fails=call), SPECULATING), then_s=RING_MS / 1000 + 30)
    assert_heard_or_missed(run, OVERLAPPING)
    if call in ("stream", "run", "push_frame"):
        assert run.of(EngineDown)[0].reason == "ValueError"
    if call in ("prepare_final", "aclose", "recognize"):
        assert_all_heard_once(run, OVERLAPPING)


def test_exception_after_each_frame_is_no_loop_without_end():
    health = Health(breaks_on=lambda sample: True)
    run = transcribe(OVERLAPPING, (lambda: TellingSTT(health), PLAIN), then_s=RING_MS / 1000 + 30)
    assert run.finals == []
    assert run.of(EngineDown)[0].reason == "APIConnectionError"
    assert_heard_or_missed(run, OVERLAPPING)
    assert len(health.streams) < 40


def test_engine_that_ends_each_stream_by_itself_is_tried_again_with_patience():
    class Brief(TellingSTT):
        def stream(self, **options: Any) -> TellingStream:
            stream = super().stream(**options)
            stream.end_input()
            return stream

    health = Health()
    run = transcribe(TALK, (lambda: Brief(health), PLAIN), then_s=RING_MS / 1000 + 30)
    assert_heard_or_missed(run, TALK)
    assert len(health.streams) < 40


@pytest.mark.parametrize("recognizes", [False, True])
def test_last_answer_that_is_slow_has_no_stream_opened_after_stream_meanwhile(recognizes: bool):
    """A session ends while one lane has nothing left to do, and an answer is due on the side."""

    class Polite(TellingSTT):
        """Whose streams take a moment to close, so that a loop that opens them takes time."""

        def stream(self, **options: Any) -> TellingStream:
            stream = PoliteStream(self, options["conn_options"])
            self.health.streams.append(stream)
            return stream

    class PoliteStream(TellingStream):
        has_unflushed = False

        async def _run(self) -> None:
            await super()._run()
            await asyncio.sleep(0.01)

        def push_frame(self, frame: Any) -> None:
            self.has_unflushed = True
            super().push_frame(frame)

        def flush(self) -> None:
            if self.has_unflushed:
                self.has_unflushed = False
                super().flush()

    health = Health(answer_s=2.0)
    traits = replace(PLAIN, live_turns=1 if recognizes else 2, recognizes=recognizes)
    windows = list(
        in_time(
            windows_of("a", [(0, 2_240)], 3_200),
            windows_of("b", [(1_600, 2_560)], 3_200),
        )
    )
    run = transcribe(windows, (lambda: Polite(health), traits), then_s=0)
    assert_all_heard_once(run, windows)
    assert len(health.streams) <= 3


def test_broken_engine_beside_a_good_one_costs_no_word():
    for call in ("run", "flush", "push_frame"):
        run = transcribe(
            OVERLAPPING, (lambda call=call: BentSTT(fails=call), PLAIN), (TellingSTT, PLAIN), then_s=20
        )
        assert_all_heard_once(run, OVERLAPPING)
        assert run.of(EngineDown) == []


def test_error_of_a_service_is_told_by_its_kind_and_not_by_its_words():
    class Talkative(TellingSTT):
        def stream(self, **options: Any) -> TellingStream:
            raise APIConnectionError("key sk-123 was refused")

    run = transcribe(TALK, (Talkative, PLAIN), then_s=RING_MS / 1000 + 15)
    assert {down.reason for down in run.of(EngineDown)} == {"APIConnectionError"}
