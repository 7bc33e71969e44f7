"""The Realtime API's messages: what is asked for, and that nothing said by the service can break a stream."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.stt.openai import protocol
from plugins.stt.openai.hints import Hints
from plugins.stt.openai.protocol import (
    Committed,
    Completed,
    Configured,
    Delta,
    Failed,
    Irrelevant,
    Malformed,
    Refused,
)
from plugins.stt.openai.transcript import Usage

ITEM_EVENT = "conversation.item.input_audio_transcription"

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KINDS = st.sampled_from(
    ["error", "input_audio_buffer.committed"]
    + [f"{ITEM_EVENT}.{kind}" for kind in ("delta", "completed", "failed", "segment")]
)
FIELDS = st.sampled_from(["item_id", "delta", "transcript", "usage", "error"])


def parse(**message: Any) -> protocol.Message:
    return protocol.parse(json.dumps(message))


def test_session_only_transcribes_and_takes_turns_from_us() -> None:
    message = json.loads(protocol.configure("gpt-live-transcribe", Hints("en", keywords=("Ines", "Nora"))))
    assert message["type"] == "session.update"
    assert message["session"] == {
        "type": "transcription",
        "audio": {
            "input": {
                "format": {"type": "audio/pcm", "rate": 24_000},
                "transcription": {
                    "model": "gpt-live-transcribe",
                    "language": "en",
                    "keywords": ["Ines", "Nora"],
                },
                "turn_detection": None,
            }
        },
    }


def test_model_that_takes_a_prompt_gets_no_keywords() -> None:
    message = json.loads(protocol.configure("whisper-1", Hints("en", prompt="Ines, Nora")))
    transcription = message["session"]["audio"]["input"]["transcription"]
    assert transcription == {"model": "whisper-1", "language": "en", "prompt": "Ines, Nora"}


def test_audio_is_sent_as_it_is() -> None:
    message = json.loads(protocol.append(b"\x01\x02\x03\x04"))
    assert message["type"] == "input_audio_buffer.append"
    assert base64.b64decode(message["audio"]) == b"\x01\x02\x03\x04"


def test_commit_names_its_turn_so_that_a_refusal_can() -> None:
    assert json.loads(protocol.commit("turn_3"))["event_id"] == "turn_3"


def test_what_is_said_of_an_item_is_understood() -> None:
    assert parse(type="input_audio_buffer.committed", item_id="a") == Committed("a")
    assert parse(type=f"{ITEM_EVENT}.delta", item_id="a", delta=" word") == Delta("a", " word")
    usage = {"type": "tokens", "input_tokens": 14, "output_tokens": 45, "total_tokens": 59}
    assert parse(type=f"{ITEM_EVENT}.completed", item_id="a", transcript=" Hi. ", usage=usage) == Completed(
        "a", "Hi.", Usage(input_tokens=14, output_tokens=45)
    )
    error = {"type": "transcription_error", "code": "audio_unintelligible", "message": "No."}
    assert parse(type=f"{ITEM_EVENT}.failed", item_id="a", error=error) == Failed("a", "audio_unintelligible")


def test_session_that_is_ready_is_known() -> None:
    assert parse(type="session.updated", session={}) == Configured()


def test_item_that_is_completed_without_a_text_has_failed() -> None:
    assert parse(type=f"{ITEM_EVENT}.completed", item_id="a", transcript=None) == Failed("a", "malformed")


@pytest.mark.parametrize(
    "kind",
    ["session.created", "rate_limits.updated", "conversation.item.added", f"{ITEM_EVENT}.segment", "new"],
)
def test_what_does_not_matter_is_known_to_be_irrelevant(kind: str) -> None:
    assert parse(type=kind, item_id="a") == Irrelevant()


@pytest.mark.parametrize(
    "data",
    [
        "",
        "{",
        "[]",
        "null",
        "[" * 100_000,
        b"\xff\xfe",
        '{"type": 5}',
        json.dumps({"type": f"{ITEM_EVENT}.delta", "delta": "no"}),
        json.dumps({"type": f"{ITEM_EVENT}.delta", "item_id": "a", "delta": 5}),
        json.dumps({"type": f"{ITEM_EVENT}.completed", "item_id": "", "transcript": "no"}),
    ],
)
def test_nonsense_is_malformed(data: str | bytes) -> None:
    assert protocol.parse(data) == Malformed()


@given(st.text() | st.binary() | JSON.map(json.dumps))
def test_nothing_that_comes_is_an_exception(data: str | bytes) -> None:
    protocol.parse(data)


@given(KINDS, st.dictionaries(FIELDS, JSON))
def test_no_content_of_a_known_message_is_an_exception(kind: str, content: dict[str, Any]) -> None:
    parse(type=kind, **content)


def refused(**error: Any) -> Refused:
    message = parse(type="error", error=error)
    assert isinstance(message, Refused)
    return message


@pytest.mark.parametrize(
    ("error", "status_code"),
    [
        ({"type": "invalid_request_error", "code": "invalid_api_key"}, 401),
        ({"type": "insufficient_quota", "code": "insufficient_quota"}, 429),
        ({"type": "rate_limit_error", "code": None}, 429),
        ({"type": "server_error"}, 500),
        ({"type": "invalid_request_error", "code": "invalid_value", "event_id": "append"}, 400),
        ({"type": "invalid_request_error", "code": "invalid_value"}, None),
        ({}, None),
    ],
)
def test_error_that_ends_a_session_has_a_status(
    error: dict[str, str | None], status_code: int | None
) -> None:
    assert refused(**error).status_code == status_code


def test_errors_that_are_no_failure_are_told_apart() -> None:
    assert refused(type="invalid_request_error", code="session_expired").is_expiry
    assert refused(type="invalid_request_error", code="input_audio_buffer_commit_empty").is_empty_commit
