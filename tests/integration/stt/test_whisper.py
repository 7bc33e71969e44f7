"""The local engine on real speech: what a caller of the STT interface may rely on.

Streams run under virtual time, fed as a microphone would feed them, so that partials come as they do live.
"""

import asyncio
import re
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from livekit import rtc
from livekit.agents import stt
from livekit.agents.types import APIConnectOptions

from agent.errors import EngineError
from agent.ingest.meeting import Meeting, Segment, load_meeting
from agent.values import SAMPLE_RATE_HZ, Samples
from plugins.stt.traits import FLUSHED
from plugins.stt.whisper import WhisperSTT
from plugins.stt.whisper.decoder import Decoded
from plugins.stt.whisper.engine import WhisperStream
from plugins.stt.whisper.segmenter import Utterance
from plugins.stt.whisper.word import DecodedWord
from tests.support.meetings import INCIDENT_REVIEW
from tests.support.virtual_time import run_virtual

Kind = stt.SpeechEventType

FRAME_S = 0.05
DECODE_S = 0.2  # what a decode is charged in virtual time
NO_RETRY = APIConnectOptions(max_retry=0)


@pytest.fixture(scope="module")
def engine() -> Iterator[WhisperSTT]:
    whisper = WhisperSTT()
    whisper.prewarm()
    yield whisper
    asyncio.run(whisper.aclose())


@pytest.fixture(scope="module")
def meeting() -> Meeting:
    return load_meeting(INCIDENT_REVIEW, sample_rate_hz=SAMPLE_RATE_HZ)


@pytest.fixture(scope="module")
def opening(engine: WhisperSTT, meeting: Meeting) -> list[stt.SpeechEvent]:
    """The events of Nora's opening words: three sentences with pauses between them."""
    return transcribe(engine, cut(meeting, "Nora", 0.0, 10.5))


def cut(meeting: Meeting, speaker: str, start_s: float, end_s: float) -> Samples:
    track = meeting.tracks[speaker]
    return track[round(start_s * SAMPLE_RATE_HZ) : round(end_s * SAMPLE_RATE_HZ)]


def segment(meeting: Meeting, beginning: str) -> Segment:
    return next(said for said in meeting.segments if said.text.startswith(beginning))


def frame(samples: Samples, *, sample_rate_hz: int = SAMPLE_RATE_HZ, channels: int = 1) -> rtc.AudioFrame:
    return rtc.AudioFrame(samples.tobytes(), sample_rate_hz, channels, len(samples) // channels)


def frames(samples: Samples) -> Iterator[rtc.AudioFrame]:
    size = round(FRAME_S * SAMPLE_RATE_HZ)
    for first in range(0, len(samples), size):
        yield frame(samples[first : first + size])


def transcribe(
    engine: WhisperSTT, *turns: Samples, offset_s: float = 0.0, is_paced: bool = True
) -> list[stt.SpeechEvent]:
    """Push turns with a flush after each, as they are spoken or all at once, and return all events."""

    async def push(stream: stt.RecognizeStream) -> None:
        for turn in turns:
            for part in frames(turn):
                if is_paced:
                    await asyncio.sleep(FRAME_S)
                stream.push_frame(part)
            stream.flush()
        stream.end_input()

    async def session() -> list[stt.SpeechEvent]:
        async with engine.stream(conn_options=NO_RETRY) as stream, asyncio.TaskGroup() as tasks:
            stream.start_time_offset = offset_s
            tasks.create_task(push(stream))
            return [event async for event in stream]

    return run_virtual(session(), charge=lambda _function, _took_s: DECODE_S)


def data_of(events: list[stt.SpeechEvent], kind: Kind) -> list[stt.SpeechData]:
    return [event.alternatives[0] for event in events if event.type == kind]


def finals(events: list[stt.SpeechEvent]) -> list[stt.SpeechData]:
    return data_of(events, Kind.FINAL_TRANSCRIPT)


def plain_words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", text.lower())


def utterances(events: list[stt.SpeechEvent]) -> list[list[stt.SpeechEvent]]:
    """The events from each START_OF_SPEECH to the next one."""
    events = [event for event in events if event.request_id != FLUSHED]
    starts = [at for at, event in enumerate(events) if event.type == Kind.START_OF_SPEECH]
    return [events[start:end] for start, end in pairwise([*starts, len(events)])]


def test_speech_becomes_its_words(opening: list[stt.SpeechEvent], meeting: Meeting) -> None:
    said = plain_words(segment(meeting, "Thanks for joining").text)
    heard = plain_words(" ".join(final.text for final in finals(opening)))
    assert len(set(said) & set(heard)) >= 0.9 * len(set(said))


def test_every_utterance_has_start_interims_final_usage_and_end_in_this_order(
    opening: list[stt.SpeechEvent],
) -> None:
    assert len(utterances(opening)) == 3
    for events in utterances(opening):
        kinds = "".join({kind: kind.name[0] for kind in Kind}[event.type] for event in events)
        assert re.fullmatch("SI+FRE", kinds)
        assert len({event.request_id for event in events}) == 1


def test_words_are_timed_inside_their_speech(opening: list[stt.SpeechEvent], meeting: Meeting) -> None:
    said = segment(meeting, "Thanks for joining")
    for data in data_of(opening, Kind.INTERIM_TRANSCRIPT) + finals(opening):
        assert data.words
        assert " ".join(data.words) == data.text
        assert said.start_s - 0.1 <= data.start_time < data.end_time <= said.end_s + 0.1
        assert 0.0 < data.confidence <= 1.0
        earliest_s = data.start_time
        for word in data.words:
            assert isinstance(word.start_time, float)
            assert isinstance(word.end_time, float)
            assert isinstance(word.confidence, float)
            assert earliest_s <= word.start_time <= word.end_time <= data.end_time
            assert 0.0 <= word.confidence <= 1.0
            earliest_s = word.start_time


def test_stable_words_do_not_change_until_the_final(opening: list[stt.SpeechEvent]) -> None:
    confirmed = 0
    for events in utterances(opening):
        interims = data_of(events, Kind.INTERIM_TRANSCRIPT)
        for before, after in pairwise(interims):
            assert before.metadata is not None
            stable = before.metadata["stable_words"]
            assert (before.words or [])[:stable] == (after.words or [])[:stable]
            confirmed += stable
    assert confirmed > 0


def test_usage_is_the_seconds_of_speech(opening: list[stt.SpeechEvent]) -> None:
    used = [event.recognition_usage for event in opening if event.recognition_usage is not None]
    spoken = [final.end_time - final.start_time for final in finals(opening)]
    assert [usage.audio_duration for usage in used] == pytest.approx(spoken)


def test_finals_depend_on_the_samples_and_not_on_when_they_come(
    engine: WhisperSTT, meeting: Meeting, opening: list[stt.SpeechEvent]
) -> None:
    at_once = finals(transcribe(engine, cut(meeting, "Nora", 0.0, 10.5), is_paced=False))
    assert [(final.text, final.start_time) for final in at_once] == [
        (final.text, final.start_time) for final in finals(opening)
    ]


def test_flush_ends_a_turn_that_has_no_silence_after_it(engine: WhisperSTT, meeting: Meeting) -> None:
    first, second = segment(meeting, "So the alert"), segment(meeting, "I thought we renew")
    turns = [cut(meeting, said.speaker, said.start_s, said.end_s) for said in (first, second)]
    heard = finals(transcribe(engine, *turns))
    assert "alert threshold was too high" in heard[0].text
    assert "renew those automatically" in heard[1].text
    border_s = first.end_s - first.start_s
    assert heard[0].end_time == pytest.approx(border_s, abs=0.1)
    assert heard[1].start_time >= border_s


def test_offset_moves_every_time(engine: WhisperSTT, meeting: Meeting) -> None:
    said = segment(meeting, "No objection")
    samples = cut(meeting, said.speaker, said.start_s - 0.5, said.end_s)
    [plain] = finals(transcribe(engine, samples))
    [moved] = finals(transcribe(engine, samples, offset_s=100.0))
    assert moved.start_time == pytest.approx(plain.start_time + 100.0, abs=0.5)
    assert (moved.words or [])[0].start_time == pytest.approx(moved.start_time)


def kinds(events: list[stt.SpeechEvent]) -> list[str]:
    return ["FLUSHED" if event.request_id == FLUSHED else event.type.name for event in events]


def test_each_flush_is_answered_once_after_the_last_event_of_its_turn(
    engine: WhisperSTT, meeting: Meeting
) -> None:
    turns = [
        np.concatenate([cut(meeting, "Nora", 0.0, 6.5), SILENCE]),  # two utterances
        SILENCE,
        cut(meeting, "Omar", 23.6, 24.4),
    ]
    events = [kind for kind in kinds(transcribe(engine, *turns)) if kind != "INTERIM_TRANSCRIPT"]
    one = ["START_OF_SPEECH", "FINAL_TRANSCRIPT", "RECOGNITION_USAGE", "END_OF_SPEECH"]
    assert events == [*one, *one, "FLUSHED", "FLUSHED", *one, "FLUSHED"]


def test_flush_without_audio_before_it_is_not_answered(engine: WhisperSTT) -> None:
    async def session() -> list[stt.SpeechEvent]:
        async with engine.stream(conn_options=NO_RETRY) as stream:
            stream.flush()
            stream.push_frame(frame(SILENCE))
            stream.flush()
            stream.flush()
            stream.end_input()
            return [event async for event in stream]

    events = run_virtual(session())
    assert [(event.type, event.request_id) for event in events] == [(Kind.END_OF_SPEECH, FLUSHED)]


async def push_turn(stream: WhisperStream, samples: Samples, *, prepared: bool) -> float:
    """Push a turn that has fallen silent, wait as a session does, flush it; gives the time of the flush."""
    for part in frames(samples):
        await asyncio.sleep(FRAME_S)
        stream.push_frame(part)
    await asyncio.sleep(0.1)
    if prepared:
        stream.prepare_final()
    await asyncio.sleep(0.25)
    stream.flush()
    return asyncio.get_running_loop().time()


def final_after_s(engine: WhisperSTT, samples: Samples, *, prepared: bool) -> tuple[str, float]:
    """The final of a turn, and how long after the flush it came."""

    async def session() -> tuple[str, float]:
        stream = engine.stream(conn_options=NO_RETRY)
        async with stream:
            pushing = asyncio.create_task(push_turn(stream, samples, prepared=prepared))
            async for event in stream:
                if event.type == Kind.FINAL_TRANSCRIPT:
                    final, came_s = event.alternatives[0].text, asyncio.get_running_loop().time()
                if event.request_id == FLUSHED:
                    return final, came_s - await pushing
            raise AssertionError("the stream ended")

    return run_virtual(session(), charge=lambda _function, _took_s: DECODE_S)


def test_final_that_was_prepared_comes_with_the_flush(engine: WhisperSTT, meeting: Meeting) -> None:
    said = segment(meeting, "No objection")
    samples = cut(meeting, said.speaker, said.start_s - 0.2, said.end_s + 0.2)
    plain, plain_s = final_after_s(engine, samples, prepared=False)
    prepared, prepared_s = final_after_s(engine, samples, prepared=True)
    assert prepared == plain
    assert plain_s == pytest.approx(DECODE_S, abs=0.001)
    assert prepared_s == pytest.approx(0.0, abs=0.001)


def test_final_that_was_prepared_too_early_is_at_most_an_interim(
    engine: WhisperSTT, meeting: Meeting, opening: list[stt.SpeechEvent]
) -> None:
    samples = cut(meeting, "Nora", 0.0, 10.5)

    async def push(stream: WhisperStream) -> None:
        for index, part in enumerate(frames(samples)):
            await asyncio.sleep(FRAME_S)
            stream.push_frame(part)
            if index % 25 == 0:
                stream.prepare_final()
        stream.end_input()

    async def session() -> list[stt.SpeechEvent]:
        stream = engine.stream(conn_options=NO_RETRY)
        async with stream, asyncio.TaskGroup() as tasks:
            tasks.create_task(push(stream))
            return [event async for event in stream]

    events = run_virtual(session(), charge=lambda _function, _took_s: DECODE_S)
    assert [final.text for final in finals(events)] == [final.text for final in finals(opening)]
    for utterance in utterances(events):
        interims = data_of(utterance, Kind.INTERIM_TRANSCRIPT)
        for before, after in pairwise(interims):
            stable = (before.metadata or {})["stable_words"]
            assert (before.words or [])[:stable] == (after.words or [])[:stable]


@pytest.mark.parametrize(
    ("speaker", "start_s", "end_s", "text"),
    [
        ("Felix", 18.855, 19.255, "Yes"),  # of "Yes, of all orders."
        ("Felix", 76.052, 76.332, "No"),  # of "No objection."
        ("Omar", 23.719, 24.315, "Right"),
        ("Omar", 67.636, 68.479, ""),  # "Mm hmm.", which has no agreed spelling
        ("Ines", 100.702, 101.269, "Okay"),  # with a full stop or a question mark
    ],
)
@pytest.mark.parametrize("gain", [1.0, 0.1])
def test_brief_answer_is_not_taken_for_noise(
    engine: WhisperSTT, meeting: Meeting, speaker: str, start_s: float, end_s: float, text: str, gain: float
) -> None:
    lead, answer = cut(meeting, speaker, start_s - 0.2, start_s), cut(meeting, speaker, start_s, end_s)
    turn = gain * np.concatenate([lead, answer, SILENCE[: SAMPLE_RATE_HZ // 5]])
    [final] = finals(transcribe(engine, turn.astype(np.int16)))
    assert final.text.startswith(text)
    assert final.text


def word(text: str) -> DecodedWord:
    return DecodedWord(text, 0.0, 0.3, 0.9, (1,))


@pytest.mark.parametrize(
    ("voiced_windows", "decoded", "dropped"),
    [
        (7, Decoded((word(" No."),), is_sure=True), {}),
        (7, Decoded((word(" No."),), is_sure=False), {}),
        (0, Decoded((word(" No."),), is_sure=True), {}),
        (3, Decoded((word(" you"),), is_sure=False), {"not_speech": 1}),
        (7, Decoded((), is_sure=True), {"no_words": 1}),
        (0, Decoded((), is_sure=False), {"no_words": 1}),
    ],
)
def test_final_is_dropped_only_if_voice_activity_and_the_model_agree(
    voiced_windows: int, decoded: Decoded, dropped: dict[str, int]
) -> None:
    whisper = WhisperSTT()
    utterance = Utterance(0, 0, 3_200, voiced_windows, SILENCE[:3_200])
    assert whisper.accept(utterance, decoded) == (() if dropped else decoded.words)
    assert whisper.dropped == dropped


TIME_S = np.arange(5 * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ


def pluck(frequency_hz: float) -> Samples:
    time_s = TIME_S[: SAMPLE_RATE_HZ // 2]
    return (8000 * np.exp(-3 * time_s) * np.sin(2 * np.pi * frequency_hz * time_s)).astype(np.int16)


def chords() -> Samples:
    root_hz = np.array([220.0, 196.0, 261.6, 174.6])[(2 * TIME_S).astype(int) % 4]
    chord = sum(np.sin(2 * np.pi * root_hz * ratio * TIME_S) for ratio in (1.0, 1.25, 1.5, 2.0))
    return np.asarray(3000 * chord).astype(np.int16)


def hum(swell_hz: float) -> Samples:
    """The mains and its harmonics, swelling so many times a second."""
    harmonics = sum(np.sin(2 * np.pi * 50 * count * TIME_S + count) / count for count in range(1, 12))
    return np.asarray(3000 * harmonics * (1 + 0.8 * np.sin(2 * np.pi * swell_hz * TIME_S))).astype(np.int16)


SOUNDS = {
    "silence": np.zeros(5 * SAMPLE_RATE_HZ, np.int16),
    "white noise": np.random.default_rng(7).normal(0, 3000, 5 * SAMPLE_RATE_HZ).astype(np.int16),
    "melody": np.concatenate([pluck(220 * 2 ** (step / 12)) for step in (0, 4, 7, 12, 7, 4, 0)]),
    "chords": chords(),
    "hum": hum(0.0),
    "swelling hum": hum(4.0),
    "clicks": np.where(np.arange(5 * SAMPLE_RATE_HZ) % 4000 == 0, 30_000, 0).astype(np.int16),
}
SILENCE = SOUNDS["silence"][: SAMPLE_RATE_HZ * 6 // 5]


@pytest.mark.parametrize("sound", SOUNDS)
def test_sound_without_speech_is_a_turn_without_words_and_without_a_decode(
    engine: WhisperSTT, sound: str
) -> None:
    before = dict(engine.dropped)
    assert kinds(transcribe(engine, SOUNDS[sound])) == ["FLUSHED"]
    assert engine.dropped == before


@pytest.mark.parametrize("sound", SOUNDS)
def test_sound_in_a_turn_too_short_to_decide_on_is_decoded_and_its_words_are_dropped(
    engine: WhisperSTT, sound: str
) -> None:
    before = sum(engine.dropped.values())
    assert kinds(transcribe(engine, SOUNDS[sound][: SAMPLE_RATE_HZ * 4 // 5])) == ["FLUSHED"]
    assert sum(engine.dropped.values()) == before + 1


@pytest.mark.parametrize("sound", SOUNDS)
def test_sound_that_opens_an_utterance_gives_no_words_either(sound: str) -> None:
    whisper = WhisperSTT()
    samples = SOUNDS[sound]
    decoded = asyncio.run(whisper.run(lambda decoder: decoder.decode_final(samples)))
    assert whisper.accept(Utterance(0, 0, len(samples), 4, samples), decoded) == ()
    assert sum(whisper.dropped.values()) == 1
    asyncio.run(whisper.aclose())


def test_recording_of_another_format_is_recognised_at_once(engine: WhisperSTT) -> None:
    recording = load_meeting(INCIDENT_REVIEW, start_s=16.9, end_s=19.0).tracks["Ines"]
    stereo = frame(np.repeat(recording, 2), sample_rate_hz=48_000, channels=2)
    [data] = asyncio.run(engine.recognize(stereo, conn_options=NO_RETRY)).alternatives
    assert data.text.startswith("4% of all orders")
    assert [str(word) for word in data.words or []] == data.text.split()


def test_recording_without_speech_has_an_empty_text(engine: WhisperSTT) -> None:
    event = asyncio.run(engine.recognize(frame(SOUNDS["silence"]), conn_options=NO_RETRY))
    assert event.type == Kind.FINAL_TRANSCRIPT
    assert event.alternatives[0].text == ""


def test_decoder_continues_the_words_it_is_given(engine: WhisperSTT, meeting: Meeting) -> None:
    said = segment(meeting, "So the alert")
    samples = cut(meeting, said.speaker, said.start_s, said.end_s)
    whole = asyncio.run(engine.run(lambda decoder: decoder.decode_partial(samples)))
    rest = asyncio.run(engine.run(lambda decoder: decoder.decode_partial(samples, prefix=whole.words[:3])))
    assert [word.text for word in rest.prefix + rest.words] == [word.text for word in whole.words]
    assert rest.words[0].start_s >= whole.words[1].start_s


def test_rough_times_change_no_word_and_lie_where_something_was_spoken(
    engine: WhisperSTT, meeting: Meeting
) -> None:
    said = segment(meeting, "So the alert")
    samples = cut(meeting, said.speaker, said.start_s, said.end_s)
    exact = asyncio.run(engine.run(lambda decoder: decoder.decode_partial(samples)))
    rough = asyncio.run(engine.run(lambda decoder: decoder.decode_partial(samples, spoken_s=(0.5, 3.0))))
    assert [word.text for word in rough.words] == [word.text for word in exact.words]
    assert [rough.words[0].start_s, rough.words[-1].end_s] == [0.5, 3.0]
    assert all(before.end_s == after.start_s for before, after in pairwise(rough.words))


def test_streams_in_parallel_do_not_mix(engine: WhisperSTT, meeting: Meeting) -> None:
    async def one(beginning: str) -> str:
        said = segment(meeting, beginning)
        async with engine.stream(conn_options=NO_RETRY) as stream:
            for part in frames(cut(meeting, said.speaker, said.start_s, said.end_s)):
                stream.push_frame(part)
            stream.end_input()
            return " ".join(final.text for final in finals([event async for event in stream]))

    async def both() -> list[str]:
        return list(await asyncio.gather(one("Two percent is fine"), one("How many are there")))

    assert asyncio.run(both()) == ["2% is fine with me.", "How many are there?"]


def test_closing_does_not_wait_for_audio_that_nobody_asks_for_any_more(meeting: Meeting) -> None:
    async def session() -> None:
        whisper = WhisperSTT()
        stream = whisper.stream(conn_options=NO_RETRY)
        for part in frames(cut(meeting, "Nora", 0.0, 5.0)):
            stream.push_frame(part)
        await asyncio.sleep(0)
        await whisper.aclose()
        await whisper.aclose()
        assert [event async for event in stream if event.type == Kind.FINAL_TRANSCRIPT] == []

    asyncio.run(session())


def test_unknown_model_is_refused_when_it_is_named() -> None:
    with pytest.raises(EngineError, match=r'stt\.whisper\.model "tinny" is unknown; known: tiny\.en'):
        WhisperSTT(model="tinny")


def test_unknown_language_is_refused_when_the_model_is_loaded() -> None:
    with pytest.raises(EngineError, match=r'stt\.language "fr" is unknown to .*; known: en'):
        WhisperSTT(language="fr").prewarm()


def test_frame_of_several_channels_is_refused(engine: WhisperSTT) -> None:
    async def session() -> None:
        async with engine.stream(conn_options=NO_RETRY) as stream:
            with pytest.raises(ValueError, match="2 channels"):
                stream.push_frame(frame(SOUNDS["silence"], channels=2))

    asyncio.run(session())
