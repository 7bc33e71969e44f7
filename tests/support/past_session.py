"""A session that is over, as the database has it: what was said in a test meeting, and audio of it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from agent.analysis.transcript import Utterance
from agent.ingest.meeting import Meeting, Segment
from agent.recording.segment import SegmentWriter
from agent.values import Samples, Speaker
from persistence.database import Database
from persistence.records import Presence, Stem
from tests.support.stored_session import AT, StoredSession, as_final

__all__ = ["keep_meeting"]

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
    duration = timedelta(seconds=meeting.duration_s)
    session = StoredSession(database, room=room, started_at=datetime.now(UTC) - duration if ended_now else AT)
    session.keep(
        *(as_final(_utterance(number, segment), number) for number, segment in enumerate(meeting.segments, 1))
    )
    end_ms = round(meeting.duration_s * 1000)
    for person, samples in meeting.tracks.items():
        session.keep(Presence(identity=person, name=person, joined_ms=0, left_ms=end_ms))
        if stems_dir is not None:
            session.keep(_stem(stems_dir, session.id, person, samples, meeting.sample_rate_hz))
    session.end(end_ms, is_settled=is_settled)
    return session.id


def _utterance(number: int, segment: Segment) -> Utterance:
    speaker = Speaker(segment.speaker, segment.speaker)
    return Utterance(
        f"1-{number}", speaker, segment.text, round(segment.start_s * 1000), round(segment.end_s * 1000)
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
