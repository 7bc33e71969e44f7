"""Sessions in a database as Roomscribe leaves them there, for those who test or show the pages."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from agent.analysis.evidence import check
from agent.analysis.extractive import ENGINE, extract
from agent.analysis.keywords import keywords
from agent.analysis.language import language_of
from agent.analysis.statistics import Stay, statistics
from agent.analysis.transcript import Transcript, Utterance
from agent.recording.listening_mix import render
from agent.values import Speaker
from persistence import analyses, renderings
from persistence.analyses import Run
from persistence.database import Database
from persistence.records import DEFAULT_SPACE, Gap, Presence, Usage
from persistence.renderings import Source
from tests.support.meetings import INCIDENT_REVIEW
from tests.support.stored_session import StoredSession, as_final

__all__ = [
    "Live",
    "add_analysis",
    "add_ended",
    "add_incident_review",
    "add_live",
    "add_recording",
    "incident_review",
]

KINDS = ("decision", "action", "question", "risk", "highlight")
WORKER = "worker-1"
DURATION_MS = 106_416  # of the recorded meeting


class Live(StoredSession):
    """A session that goes on: its agent can be made to hear something."""

    finals = 0

    def say(self, name: str, text: str, start_ms: int, end_ms: int, *, identity: str = "") -> None:
        self.finals += 1
        utterance = Utterance(
            f"1-{self.finals}", Speaker(identity or name.lower(), name), text, start_ms, end_ms
        )
        self.keep(as_final(utterance, self.finals, _told_at(self, utterance)))


def add_live(database: Database, room: str, started_at: datetime, names: Sequence[str]) -> Live:
    """A session that has begun."""
    live = Live(database, room=room, started_at=started_at)
    live.keep(*(Presence(identity=name.lower(), name=name, joined_ms=0) for name in names))
    return live


def add_ended(database: Database, room: str, started_at: datetime, duration_ms: int) -> str:
    """A session that is over, in which nobody said anything."""
    session = StoredSession(database, room=room, started_at=started_at, is_live=False)
    session.end(duration_ms)
    return session.id


def add_incident_review(
    database: Database, started_at: datetime, *, room: str = "incident-review", gaps: Sequence[Gap] = ()
) -> str:
    """The recorded meeting with what its truth says, as a session that is over."""
    transcript = incident_review()
    session = StoredSession(database, room=room, started_at=started_at, is_live=False)
    session.keep(
        *(
            Presence(identity=who.identity, name=who.name, joined_ms=0, left_ms=DURATION_MS)
            for who in transcript.people
        ),
        *(
            as_final(each, number, _told_at(session, each), has_overlap=_is_spoken_over(each, transcript))
            for number, each in enumerate(transcript, 1)
        ),
        *(
            Usage(identity=who.identity, speech_ms=spoken, stt_ms=spoken, covered_ms=spoken)
            for who in transcript.people
            for spoken in [sum(each.end_ms - each.start_ms for each in transcript if each.speaker == who)]
        ),
        *gaps,
    )
    session.end(DURATION_MS)
    return session.id


def incident_review() -> Transcript:
    """What is said in the recorded meeting."""
    # The truth alone: the audio takes seconds to decode.
    truth = json.loads((INCIDENT_REVIEW / "truth.json").read_text(encoding="utf-8"))
    return Transcript(
        Utterance(
            f"1-{number}",
            Speaker(segment["speaker"].lower(), segment["speaker"]),
            segment["text"],
            round(1000 * segment["start"]),
            round(1000 * segment["end"]),
        )
        for number, segment in enumerate(sorted(truth["segments"], key=lambda segment: segment["start"]), 1)
    )


def add_analysis(
    database: Database, session: str, outcome: Literal["done", "begun", "failed"] = "done"
) -> Run:
    """What the extractive engine makes of the recorded meeting, or a run that came to nothing."""
    transcript, language = incident_review(), language_of("en")
    with database.write() as connection:
        [wants] = [one for one in analyses.wanting(connection, limit=100) if one.session_id == session]
        run_id = analyses.begin(
            connection, wants, scenario="meeting", scenario_version=1, engine=ENGINE, language="en"
        )
        run = analyses.get(connection, run_id)
        assert run is not None
        if outcome == "failed":
            analyses.step(connection, run.id, "mix")
            analyses.fail(connection, run, "disk_full", "The disk is full; free some space, then try again.")
        elif outcome == "done":
            claims = extract(transcript, language, KINDS)
            checked = check(claims, transcript, language)
            stays = [Stay(who, 0, DURATION_MS) for who in transcript.people]
            analyses.store(
                connection,
                run,
                checked.statements,
                claims=len(claims),
                drops={str(reason): count for reason, count in checked.drops.items()},
                statistics=asdict(statistics(transcript, stays, DURATION_MS)),
                keywords=keywords(transcript, language),
            )
            analyses.finish(connection, run.id, [])
    return run


def add_recording(database: Database, session: str, folder: Path) -> None:
    """Everybody's audio of the recorded meeting, mixed into one file."""
    sources = [
        Source(track.stem.lower(), WORKER, track.name, 48_000, 0, DURATION_MS)
        for track in sorted(INCIDENT_REVIEW.glob("*.ogg"))
    ]
    path = f"{DEFAULT_SPACE}/{session}.m4a"
    rendered = render(sources, INCIDENT_REVIEW, folder / path, duration_ms=DURATION_MS)
    with database.write() as connection:
        renderings.put(
            connection,
            DEFAULT_SPACE,
            session,
            path=path,
            media_type="audio/mp4",
            duration_ms=rendered.duration_ms,
            size_bytes=rendered.size_bytes,
        )


def _told_at(session: StoredSession, utterance: Utterance) -> datetime:
    return session.started_at + timedelta(milliseconds=utterance.end_ms)


def _is_spoken_over(utterance: Utterance, transcript: Transcript) -> bool:
    return any(
        other is not utterance and other.start_ms < utterance.end_ms and utterance.start_ms < other.end_ms
        for other in transcript
    )
