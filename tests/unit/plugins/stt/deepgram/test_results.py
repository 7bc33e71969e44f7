"""Results: what is well-formed becomes speech data within the audio, and nothing else gets through."""

import json
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from plugins.stt.deepgram.results import Alternative, Recording, Results, Word, speech_data
from plugins.stt.deepgram.sdk import AsyncV1SocketClient, ListenV1Results

RESULTS: dict[str, Any] = {
    "type": "Results",
    "channel_index": [0, 1],
    "start": 1.0,
    "duration": 2.0,
    "is_final": True,
    "speech_final": False,
    "from_finalize": True,
    "channel": {
        "alternatives": [
            {
                "transcript": "Hello, world.",
                "confidence": 0.9,
                "words": [
                    {
                        "word": "hello",
                        "start": 1.1,
                        "end": 1.5,
                        "confidence": 0.8,
                        "punctuated_word": "Hello,",
                    },
                    {"word": "world.", "start": 1.6, "end": 2.1, "confidence": 0.99},
                ],
            }
        ]
    },
    "metadata": {"request_id": "42", "model_info": {}, "model_uuid": "7"},
}


def changed(**values: Any) -> dict[str, Any]:
    return {**RESULTS, **values}


def test_words_keep_their_punctuation_times_and_confidence() -> None:
    results = Results.read(RESULTS)
    data = speech_data(results.channel.best, language="en", start_s=1.0, end_s=3.0, audio_s=3.0)

    assert results.end == 3.0
    assert data.text == "Hello, world."
    assert [(str(word), word.start_time, word.end_time, word.confidence) for word in data.words or ()] == [
        ("Hello,", 1.1, 1.5, 0.8),
        ("world.", 1.6, 2.1, 0.99),
    ]
    assert (data.start_time, data.end_time, data.confidence, data.language) == (1.1, 2.1, 0.9, "en")


class OneMessage:
    """A connection that has one message."""

    def __init__(self, message: dict[str, Any]) -> None:
        self._text = json.dumps(message)

    async def recv(self) -> str:
        return self._text


async def by_sdk(message: dict[str, Any]) -> object:
    """What the SDK makes of a message; where it is malformed, that may be nearly anything."""
    return await AsyncV1SocketClient(websocket=cast(Any, OneMessage(message))).recv()


async def test_object_of_the_sdk_is_read_as_the_json_is() -> None:
    message = await by_sdk(RESULTS)

    assert isinstance(message, ListenV1Results)
    assert Results.read(message) == Results.read(RESULTS)


@pytest.mark.parametrize(
    "message",
    [
        {},
        changed(start="soon"),
        changed(start=float("nan")),
        changed(duration=float("inf")),
        changed(duration=None),
        changed(channel=7),
        changed(channel={"alternatives": []}),
        changed(channel={"alternatives": [{"transcript": None}]}),
        changed(channel={"alternatives": [{"transcript": "x", "words": [{"word": "x"}]}]}),
        changed(metadata=None),
    ],
)
async def test_malformed_message_is_refused_whole(message: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Results.read(message)
    with pytest.raises(ValidationError):
        Results.read(await by_sdk(message))


def test_detected_language_wins() -> None:
    heard = Alternative(transcript="Hola", languages=("es", "en"))

    assert speech_data(heard, language="multi", start_s=0, end_s=1, audio_s=1).language == "es"


def test_transcript_without_words_has_the_times_of_its_audio() -> None:
    data = speech_data(
        Alternative(transcript="Hm"), language="en", start_s=1, end_s=2, audio_s=9, offset_s=100
    )

    assert (data.start_time, data.end_time, data.words) == (101.0, 102.0, [])


def test_offset_moves_every_time() -> None:
    heard = Results.read(RESULTS).channel.best
    data = speech_data(heard, language="en", start_s=1.0, end_s=3.0, audio_s=3.0, offset_s=60.0)

    assert [word.start_time for word in data.words or ()] == [61.1, 61.6]
    assert (data.start_time, data.end_time) == (61.1, 62.1)


def test_recording_without_channels_is_refused() -> None:
    with pytest.raises(ValidationError):
        Recording.read({"metadata": {"request_id": "1", "duration": 1.0}, "results": {"channels": []}})


finite = st.floats(-1e6, 1e6)
words = st.lists(
    st.builds(Word, word=st.text(max_size=5), start=finite, end=finite, confidence=finite), max_size=8
)


@given(words, finite, finite, st.floats(0, 1e4))
def test_times_are_in_order_and_inside_the_audio(
    said: list[Word], start_s: float, end_s: float, audio_s: float
) -> None:
    heard = Alternative(transcript="x", words=tuple(said))
    data = speech_data(heard, language="en", start_s=start_s, end_s=end_s, audio_s=audio_s)

    earliest_s = -0.001
    for word in data.words or ():
        assert isinstance(word.start_time, float)
        assert isinstance(word.end_time, float)
        assert isinstance(word.confidence, float)
        assert earliest_s <= word.start_time <= word.end_time <= audio_s + 0.001
        assert 0.0 <= word.confidence <= 1.0
        earliest_s = word.start_time
    assert 0.0 <= data.start_time <= data.end_time <= audio_s + 0.001
