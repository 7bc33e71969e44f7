"""The steps of an analysis. Each may be done again: what it writes it writes in the place of what was there.

What a step gives is written down by the workflow, as plain JSON values.
"""

import threading
from collections.abc import Mapping
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import structlog
from pydantic import TypeAdapter
from sqlalchemy import Connection

from agent.analysis.evidence import check
from agent.analysis.extractive import extract
from agent.analysis.keywords import keywords
from agent.analysis.language import language_of
from agent.analysis.scenario import Scenario
from agent.analysis.statement import Statement
from agent.analysis.statistics import Stay, statistics
from agent.analysis.transcript import Transcript, Utterance
from agent.config import Settings
from agent.errors import InputError
from agent.recording.listening_mix import MEDIA_TYPE, render
from agent.values import Speaker
from persistence import analyses, renderings
from persistence.analyses import Run
from persistence.catalogue import SessionDetail, SessionSummary, get_session, is_complete
from persistence.clock import database_time
from persistence.database import Database
from persistence.records import Presence
from persistence.transcripts import iter_finals

__all__ = ["STEPS", "Steps"]

log = structlog.get_logger(__name__)

STEPS = ("settle", "statistics", "analyse", "store", "mix")

JOURNAL_MISSING = "journal"  # not all that was said is known yet to be in the database
AUDIO_MISSING = "audio"  # some of the audio could not be read

STATEMENTS = TypeAdapter(tuple[Statement, ...])


class Steps:
    """What is done for an attempt at a run, step by step. Everything blocks.

    Args:
        database: With a connection for each run at once.
        scenarios: By their ids.
    """

    def __init__(self, settings: Settings, database: Database, scenarios: Mapping[str, Scenario]) -> None:
        self._settings = settings
        self._database = database
        self._scenarios = scenarios
        self._working = threading.Lock()  # one run at a time keeps a processor busy

    def is_settled(self, connection: Connection, run: Run) -> bool:
        """Whether a run need not wait any more for what a session's agents kept, on whatever disk it is."""
        # One that was ended without its agent ended long before anybody could wait for it.
        waited = database_time(connection) - max(run.session_ended_at, run.created_at)
        return waited > timedelta(seconds=self._settings.analysis.settle_s) or is_complete(
            connection, run.space_id, run.session_id
        )

    def settle(self, run_id: str, attempt: int) -> list[str]:
        """What is missing of what was kept, now that it was waited for."""
        run = self._begin(run_id, attempt, "settle")
        with self._database.read() as connection:
            return [] if is_complete(connection, run.space_id, run.session_id) else [JOURNAL_MISSING]

    def count(self, run_id: str, attempt: int) -> dict[str, Any]:
        """The statistics of the session, and its keywords."""
        run = self._begin(run_id, attempt, "statistics")
        transcript, stays, duration_ms = self._read(run)
        with self._working:
            counted = statistics(transcript, stays, duration_ms)
            words = keywords(transcript, language_of(run.language))
        return {"statistics": asdict(counted), "keywords": list(words)}

    def analyse(self, run_id: str, attempt: int) -> dict[str, Any]:
        """Statements that hold, how many there were, and what became of the others."""
        run = self._begin(run_id, attempt, "analyse")
        scenario = self._scenarios.get(run.scenario)
        if scenario is None:
            raise InputError(
                f"scenario {run.scenario} is not there any more; put its file back, then `roomscribe retry`"
            )
        transcript, _, _ = self._read(run)
        language = language_of(run.language)
        with self._working:
            claims = extract(transcript, language, [kind.id for kind in scenario.kinds])
            checked = check(claims, transcript, language)
        return {
            "statements": STATEMENTS.dump_python(checked.statements, mode="json"),
            "claims": len(claims),
            "drops": {str(reason): count for reason, count in checked.drops.items()},
        }

    def store(
        self, run_id: str, attempt: int, counted: Mapping[str, Any], analysed: Mapping[str, Any]
    ) -> None:
        """Write down what was found."""
        self._begin(run_id, attempt, "store")
        with self._database.write() as connection:
            analyses.store(
                connection,
                _run(connection, run_id, attempt),
                STATEMENTS.validate_python(analysed["statements"]),
                claims=analysed["claims"],
                drops=analysed["drops"],
                statistics=counted["statistics"],
                keywords=counted["keywords"],
            )

    def mix(self, run_id: str, attempt: int) -> list[str]:
        """Mix everybody's audio into one file for listening; gives what was missing.

        Raises:
            RecordingError: It cannot be written.
        """
        run = self._begin(run_id, attempt, "mix")
        with self._database.read() as connection:
            duration_ms = _duration_ms(_detail(connection, run).summary)
            sources = renderings.closed_stems(connection, run.space_id, run.session_id)
        stems_dir = self._settings.stems_dir
        duration_ms = max([duration_ms, *(source.start_ms + source.duration_ms for source in sources)])
        if not sources or not duration_ms:
            return []
        # Where none can be seen, as on another machine, a mix that was made before is better than silence.
        if not any((stems_dir / source.path).is_file() for source in sources):
            return [AUDIO_MISSING]
        path = f"{run.space_id}/{run.session_id}.m4a"
        with self._working:
            rendered = render(
                sources, stems_dir, self._settings.renderings_dir / path, duration_ms=duration_ms
            )
        with self._database.write() as connection:
            _run(connection, run_id, attempt)
            renderings.put(
                connection,
                run.space_id,
                run.session_id,
                path=path,
                media_type=MEDIA_TYPE,
                duration_ms=rendered.duration_ms,
                size_bytes=rendered.size_bytes,
            )
        return [AUDIO_MISSING] if rendered.missing else []

    def finish(self, run_id: str, attempt: int, missing: list[str]) -> None:
        """The run is done."""
        with self._database.write() as connection:
            _run(connection, run_id, attempt)
            analyses.finish(connection, run_id, missing)
        log.info("analysis.done", run=run_id, incomplete=missing)

    def fail(self, run_id: str, attempt: int, code: str, message: str) -> None:
        """The run has failed, and an admin is told why, unless a later attempt is made by now."""
        with self._database.write() as connection:
            run = analyses.locked(connection, run_id)
            if run is not None and run.attempt != attempt:
                log.info("analysis.superseded", run=run_id, attempt=attempt)
                return
            if run is not None:
                analyses.fail(connection, run, code, message)
        log.error("analysis.failed", run=run_id, code=code, problem=message)

    def _begin(self, run_id: str, attempt: int, step: str) -> Run:
        with self._database.write() as connection:
            run = _run(connection, run_id, attempt)
            analyses.step(connection, run_id, step)
            if _detail(connection, run).summary.ended_at != run.session_ended_at:
                raise InputError(
                    f"session {run.session_id} went on after this analysis began; its next end begins another"
                )
        log.info("analysis.step", run=run_id, session=run.session_id, step=step)
        return run

    def _read(self, run: Run) -> tuple[Transcript, list[Stay], int]:
        with self._database.read() as connection:
            detail = _detail(connection, run)
            utterances = [
                Utterance(
                    final.id, Speaker(final.identity, final.name), final.text, final.start_ms, final.end_ms
                )
                for final in iter_finals(connection, run.space_id, run.session_id)
            ]
        duration_ms = _duration_ms(detail.summary)
        stays = [_stay(presence, duration_ms) for presence in detail.presences]
        return Transcript(utterances, [stay.speaker for stay in stays]), stays, duration_ms


def _run(connection: Connection, run_id: str, attempt: int) -> Run:
    """The run, as long as this attempt of it is the newest: another analyst may have taken it over.

    It stays the newest until the transaction ends, so that whatever writes for it asks first.
    """
    run = analyses.locked(connection, run_id)
    if run is None:
        raise InputError(f"analysis {run_id} is not there any more")
    if run.attempt != attempt:
        raise InputError(f"attempt {attempt} of analysis {run_id} is not the newest any more")
    return run


def _detail(connection: Connection, run: Run) -> SessionDetail:
    detail = get_session(connection, run.space_id, run.session_id)
    if detail is None:
        raise InputError(f"session {run.session_id} is not there any more")
    return detail


def _duration_ms(summary: SessionSummary) -> int:
    end = summary.ended_at or summary.heard_at
    return max(round((end - summary.started_at) / timedelta(milliseconds=1)), 0)


def _stay(presence: Presence, duration_ms: int) -> Stay:
    left_ms = presence.left_ms if presence.left_ms is not None else max(duration_ms, presence.joined_ms)
    return Stay(Speaker(presence.identity, presence.name), presence.joined_ms, left_ms)
