"""A session that is over, as the database has it: what was said in a test meeting, and audio of it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

from agent.ingest.meeting import Meeting
from agent.recording.segment import SegmentWriter
from agent.values import SAMPLE_RATE_HZ, Samples
from persistence import sessions
from persistence.apply import Applier
from persistence.database import Database
from persistence.records import Begun, Ended, Final, Presence, Record, Stem

__all__ = ["keep_meeting"]

AT = datetime(2026, 3, 1, 9, 0, 0, tzinfo=UTC)
BITRATE_KBPS = 32


def keep_meeting(
    database: Database,
    meeting: Meeting,
    *,
    stems_dir: Path | None = None,
    room: str = "standup",
    is_settled: bool = True,
    ended_now: bool = False,
) -> str:
    """Keep a meeting as if everybody had been captioned without a fault; gives the session's id.

    Args:
        stems_dir: Where each speaker's audio goes; without it there is none.
        is_settled: Whether its agent's journal is all in the database.
        ended_now: Whether it ends at this moment; else it did long ago.
    """
    finals = [
        _final(number, segment.speaker, segment.text, segment.start_s, segment.end_s)
        for number, segment in enumerate(meeting.segments, 1)
    ]
    end_ms = round(meeting.duration_s * 1000)
    return _keep_session(
        database,
        finals,
        dict(meeting.tracks),
        end_ms,
        sample_rate_hz=meeting.sample_rate_hz,
        stems_dir=stems_dir,
        room=room,
        is_settled=is_settled,
        ended_now=ended_now,
    )


def _keep_session(
    database: Database,
    finals: list[Final],
    tracks: dict[str, Samples],
    end_ms: int,
    *,
    sample_rate_hz: int = SAMPLE_RATE_HZ,
    stems_dir: Path | None = None,
    room: str = "standup",
    is_settled: bool = True,
    ended_now: bool = False,
) -> str:
    """Keep a session of one agent.

    Args:
        finals: What was said.
        tracks: Each person's `int16` samples, from the beginning of the session.
        end_ms: How long it was.
    """
    session = uuid4().hex
    began_at = datetime.now(UTC) - timedelta(milliseconds=end_ms) if ended_now else AT
    begun = Begun(
        session=session,
        epoch=1,
        room=room,
        room_sid=f"RM_{session}",
        agent="agent-1",
        worker="worker-1",
        languages=("en",),
        started_at=began_at,
        offset_ms=0,
        is_provisional=True,
    )
    records: list[Record] = [begun, *finals]
    for person, samples in tracks.items():
        records.append(Presence(identity=person, name=person, joined_ms=0, left_ms=end_ms))
        if stems_dir is not None:
            records.append(_stem(stems_dir, session, person, samples, sample_rate_hz))
    records.append(Ended(reason="room_closed", end_ms=end_ms, at=began_at + timedelta(milliseconds=end_ms)))
    assert Applier(database, begun.space, session, 1).apply(records, None) == []
    if is_settled:
        with database.write() as connection:
            sessions.settle(connection, begun.space, session, 1)
    return session


def _final(number: int, speaker: str, text: str, start_s: float, end_s: float) -> Final:
    return Final(
        id=f"1-{number}",
        revision=1,
        seq=number,
        identity=speaker,
        name=speaker,
        text=text,
        language="en",
        confidence=1.0,
        has_overlap=False,
        start_ms=round(start_s * 1000),
        end_ms=round(end_s * 1000),
        at=AT + timedelta(seconds=end_s),
    )


def _stem(stems_dir: Path, session: str, person: str, samples: Samples, sample_rate_hz: int) -> Stem:
    path = Path("default", session, "1", f"TR_{person}-0001.ogg")
    file = stems_dir / path
    file.parent.mkdir(parents=True, exist_ok=True)
    writer = SegmentWriter(file, sample_rate_hz, BITRATE_KBPS)
    writer.write(samples)
    writer.close()
    return Stem(
        track=f"TR_{person}",
        number=1,
        identity=person,
        path=str(path),
        sample_rate_hz=sample_rate_hz,
        start_ms=0,
        duration_ms=len(samples) * 1000 // sample_rate_hz,
        size_bytes=file.stat().st_size,
    )
