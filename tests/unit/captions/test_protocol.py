import json
from datetime import UTC, datetime

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.captions.assembler import MAX_TEXT_CHARS
from agent.captions.protocol import MAX_PACKET_BYTES, caption_body, encode, epoch_of, schema, state_body
from agent.values import Caption, Event, Speaker

AT = datetime(2026, 3, 4, 5, 6, 7, 89_000, tzinfo=UTC)
IDENTITIES = st.text(min_size=1, max_size=64)


def strict(kind: str) -> dict:
    """The schema of what we send: nothing more than it names."""
    return {**schema(kind), "additionalProperties": False}


def sent(kind: str, body: dict, *, seq: int | None = None) -> dict:
    packet = encode(Event("s1", 2, kind, AT, body, seq))
    assert len(packet) <= MAX_PACKET_BYTES
    return json.loads(packet)


captions = st.builds(
    Caption,
    id=st.just("2-7"),
    revision=st.integers(1, 10**6),
    is_final=st.booleans(),
    speaker=st.builds(Speaker, IDENTITIES, st.text(max_size=64)),
    confidence=st.floats(0, 1),
    has_overlap=st.booleans(),
    text=st.text(min_size=1, max_size=50),
    stable_chars=st.integers(0, 50),
    language=st.just("en"),
    start_ms=st.integers(0, 10**9),
    end_ms=st.integers(0, 10**9),
)


@given(captions)
def test_every_caption_fits_its_schema(caption):
    event = sent("caption", caption_body(caption), seq=5 if caption.is_final else None)
    jsonschema.validate(event, strict("caption"))
    assert event["at"] == "2026-03-04T05:06:07.089Z"
    assert event["speaker"]["identity"] == caption.speaker.identity


@given(st.dictionaries(IDENTITIES, st.sampled_from(["e2ee", "not_permitted"]), max_size=20))
def test_every_state_fits_its_schema(unheard):
    body = state_body(
        agent="agent-1",
        captions="live",
        captions_reason=None,
        recording="off",
        recording_reason="disabled",
        storage="database",
        unheard=unheard,
        coverage=0.98765,
        lag_ms=12,
        languages=["en"],
    )
    event = sent("state", body)
    jsonschema.validate(event, strict("state"))
    assert event["unheard_count"] == len(unheard)


def test_state_of_a_large_room_that_nobody_hears_still_fits_into_a_packet():
    body = state_body(
        agent="agent-1",
        captions="off",
        captions_reason="unheard",
        recording="off",
        recording_reason=None,
        storage="journal",
        unheard={f"{number:05}" + "\x01" * 250: "e2ee" for number in range(1_000)},
        coverage=0.0,
        lag_ms=0,
        languages=["en"],
    )
    event = sent("state", body)
    assert event["unheard_count"] == 1_000
    assert 0 < len(event["unheard"]) < 1_000


@pytest.mark.parametrize("character", ["x", "é", "漢", "🎉", '"', "\\"])
def test_longest_caption_with_longest_names_fits_into_a_packet(character):
    speaker = Speaker(character * 256, character * 256)
    caption = Caption("1-1", 1, True, speaker, 1.0, False, character * MAX_TEXT_CHARS, 0, "en", 0, 1)
    sent("caption", caption_body(caption), seq=1)


def test_partial_with_a_seq_and_final_without_break_the_schema():
    speaker = Speaker("n", "N")
    partial = caption_body(Caption("1-1", 1, False, speaker, 1.0, False, "a", 0, "en", 0, 1))
    final = caption_body(Caption("1-1", 1, True, speaker, 1.0, False, "a", 0, "en", 0, 1))
    for body, seq in ((partial, 1), (final, None)):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(sent("caption", body, seq=seq), schema("caption"))


def test_speaker_without_a_name_is_shown_by_identity():
    body = caption_body(Caption("1-1", 1, False, Speaker("user-7", " \x00"), 1.0, False, "a", 0, "en", 0, 1))
    assert body["speaker"] == {"identity": "user-7", "name": "user-7"}


@pytest.mark.parametrize(
    ("packet", "epoch"),
    [
        (b'{"v":1,"kind":"state","epoch":7}', 7),
        (b'{"epoch":"7"}', 0),
        (b"[7]", 0),
        (b"\xff", 0),
        (b"", 0),
        (b"[" * 100_000, 0),
    ],
)
def test_epoch_is_read_from_whatever_somebody_sends(packet: bytes, epoch: int):
    assert epoch_of(packet) == epoch
