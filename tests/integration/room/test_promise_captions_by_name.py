"""The promise: one stream hears everybody in a real room, and viewers see by name who says what."""

from collections import Counter

import jsonschema

from agent.captions.protocol import schema
from agent.cli.local_livekit import LocalLiveKit
from agent.ingest.meeting import Meeting, Segment
from agent.room.dispatch import Rooms
from agent.room.player import Player
from benchmarks.normalise import spoken_words
from tests.support.gathering import Reader, reading, until
from tests.support.overlap import overlapping
from tests.support.worker import RunningWorker

LONG_TURN_S = 2.0
LAST_FINAL_S = 30.0
AROUND_S = 3.0  # far more than late audio moves a track by, and little enough to tell when it was said


async def test_everybody_is_captioned_by_name_while_they_speak(
    livekit: LocalLiveKit, worker: RunningWorker, rooms: Rooms, whole_meeting: Meeting, room_name: str
):
    async with (
        reading(rooms, livekit.url, room_name, "reader") as reader,
        reading(rooms, livekit.url, room_name, "stock-client") as stock,
        Player(livekit.url, lambda identity: rooms.token(room_name, identity)) as player,
    ):
        playback = await player.join(whole_meeting.tracks)
        await playback.run()
        shown_while_speaking = len(reader.finals)
        await until(
            lambda: reader.finals and "helpful" in reader.finals[-1]["text"],
            what="the final of the last words",
            limit_s=LAST_FINAL_S,
        )
        seen_by_reader = set(reader.viewer.room.remote_participants)
        seen_by_speaker = set(player.talkers["Nora"].room.remote_participants)

    people = set(whole_meeting.tracks) | {"reader", "stock-client"}
    assert seen_by_reader == people - {"reader"}
    assert seen_by_speaker == people - {"Nora"}
    assert reader.viewer.forged == 0

    for event in reader.events:
        jsonschema.validate(dict(event.data), schema(event.data["kind"]))
    assert [final["seq"] for final in reader.finals] == list(range(1, len(reader.finals) + 1))
    assert shown_while_speaking > len(reader.finals) / 2
    assert_partials_come_before_their_finals(reader)
    assert_long_lone_turns_have_their_speakers_name(reader, whole_meeting)
    assert_who_speaks_over_somebody_is_captioned_by_name(reader, whole_meeting)
    assert_stock_client_sees_the_same(reader, stock)
    logged = worker.log.read_text(encoding="utf-8")
    assert not [final["text"] for final in reader.finals if final["text"] in logged]
    assert livekit.api_secret not in logged


def assert_partials_come_before_their_finals(reader: Reader) -> None:
    finished: set[str] = set()
    revised: set[str] = set()
    for caption in reader.captions:
        assert caption["id"] not in finished
        if caption["final"]:
            finished.add(caption["id"])
        else:
            revised.add(caption["id"])
    assert len(revised & finished) > len(finished) / 2


def assert_long_lone_turns_have_their_speakers_name(reader: Reader, meeting: Meeting) -> None:
    offset_s = session_offset_s(reader, meeting)
    turns = [turn for turn in meeting.segments if is_long_and_alone(turn, meeting)]
    assert len(turns) == 4
    for turn in turns:
        shares = dict.fromkeys(meeting.tracks, 0.0)
        for final in reader.finals:
            begin_s, end_s = final["start_ms"] / 1000 - offset_s, final["end_ms"] / 1000 - offset_s
            overlap_s = min(end_s, turn.end_s) - max(begin_s, turn.start_s)
            shares[final["speaker"]["name"]] += max(overlap_s, 0.0)
        assert max(shares, key=shares.__getitem__) == turn.speaker, (turn, shares)
        assert shares[turn.speaker] > (turn.end_s - turn.start_s) / 2, (turn, shares)


def assert_who_speaks_over_somebody_is_captioned_by_name(reader: Reader, meeting: Meeting) -> None:
    offset_s = session_offset_s(reader, meeting)
    turns = [turn for turn in overlapping(meeting.segments) if len(spoken_words(turn.text)) > 1]
    assert len(turns) == 9
    for turn in turns:
        begin_ms = 1000 * (offset_s + turn.start_s - AROUND_S)
        end_ms = 1000 * (offset_s + turn.end_s + AROUND_S)
        captioned = [
            word
            for final in reader.finals
            if final["speaker"]["name"] == turn.speaker
            and final["end_ms"] > begin_ms
            and final["start_ms"] < end_ms
            for word in spoken_words(final["text"])
        ]
        said = Counter(spoken_words(turn.text))
        assert (Counter(captioned) & said).total() >= said.total() / 2, (turn, captioned)


def session_offset_s(reader: Reader, meeting: Meeting) -> float:
    """Where the meeting begins in session time: its first words tell."""
    first = next(final for final in reader.finals if "joining" in final["text"])
    return first["start_ms"] / 1000 - meeting.segments[0].start_s


def is_long_and_alone(turn: Segment, meeting: Meeting) -> bool:
    return turn.end_s - turn.start_s > LONG_TURN_S and not any(
        other is not turn and other.start_s < turn.end_s and other.end_s > turn.start_s
        for other in meeting.segments
    )


def assert_stock_client_sees_the_same(reader: Reader, stock: Reader) -> None:
    """LiveKit's own attributes carry the segment, whether it is final, and whose track was heard."""
    finals = {
        text.attributes["lk.segment_id"]: (text.sender, text.text)
        for text in stock.texts
        if text.attributes["lk.transcription_final"] == "true"
    }
    assert finals == {final["id"]: (final["speaker"]["identity"], final["text"]) for final in reader.finals}
    assert any(text.attributes["lk.transcription_final"] == "false" for text in stock.texts)
    assert all(text.attributes["lk.transcribed_track_id"].startswith("TR_") for text in stock.texts)
