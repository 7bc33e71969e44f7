"""Sessions of a few words in a database, for those who read them."""

from dataclasses import asdict
from datetime import timedelta

from sqlalchemy import Connection

from agent.analysis.statement import Evidence, Statement
from agent.analysis.statistics import Stay, statistics
from agent.analysis.transcript import Transcript, Utterance
from agent.values import Speaker
from persistence import analyses
from persistence.analyses import Run, Wanting
from persistence.database import Database
from persistence.records import DEFAULT_SPACE, Final, Gap, Presence, Usage
from tests.support.stored_session import AT, StoredSession, as_final

__all__ = ["ADA", "DURATION_MS", "KeptSession", "final"]

DURATION_MS = 60_000
WORD_MS = 900
ADA, BEN = Speaker("ada", "Ada"), Speaker("ben", "Ben")


def final(number: int, text: str, start_ms: int, *, epoch: int = 1, revision: int = 1) -> Final:
    """What Ada said."""
    utterance = Utterance(f"{epoch}-{number}", ADA, text, start_ms, start_ms + WORD_MS)
    return as_final(utterance, number, revision=revision)


class KeptSession(StoredSession):
    """A session with Ada and Ben.

    Args:
        after_s: When it began, after `AT`.
    """

    def __init__(
        self, database: Database, *, room: str = "planning", space: str = DEFAULT_SPACE, after_s: float = 0.0
    ) -> None:
        super().__init__(database, room=room, space=space, started_at=AT + timedelta(seconds=after_s))
        self._database = database
        self.keep(
            Presence(identity="ada", name="Ada", joined_ms=0, left_ms=DURATION_MS),
            Presence(identity="ben", name="Ben", joined_ms=500, left_ms=DURATION_MS),
        )

    def end(self, end_ms: int = DURATION_MS, *, is_settled: bool = True) -> None:
        super().end(end_ms, is_settled=is_settled)

    def hear(self) -> None:
        """Some words, some of which were not heard."""
        self.keep(
            final(1, "Good morning.", 1_000),
            final(2, "We ship on Friday.", 3_000),
            Gap(start_ms=5_000, end_ms=6_000, reason="agent_away"),
            Usage(identity="ada", speech_ms=2_000, stt_ms=2_000, covered_ms=1_500),
        )

    def begin_analysis(self) -> Run:
        """An analysis has begun, which is the newest then."""
        with self._database.write() as connection:
            return self._begin_analysis(connection)

    def analyse(self, *, kind: str = "decision", fails: str = "") -> Run:
        """Have it analysed: one statement of a kind, or the reason why that failed."""
        with self._database.write() as connection:
            run = self._begin_analysis(connection)
            if fails:
                analyses.fail(connection, run, "failed", fails)
                return run
            words = "We ship on Friday."
            evidence = Evidence("1-2", 0, len(words), ADA, words, 3_000, 3_900)
            found = Statement(kind, words, (evidence,), ADA, "Friday", 0.8, "lexical")
            said = Transcript([Utterance("1-2", ADA, words, 3_000, 3_900)], [BEN])
            analyses.store(
                connection,
                run,
                [found],
                claims=3,
                drops={"quote_not_found": 2},
                statistics=asdict(statistics(said, [Stay(ADA, 0, DURATION_MS)], DURATION_MS)),
                keywords=["ship"],
            )
            analyses.finish(connection, run.id, ["journal"])
        return run

    def _begin_analysis(self, connection: Connection) -> Run:
        before = analyses.newest(connection, self.space, self.id)
        ended_at = self.started_at + timedelta(milliseconds=DURATION_MS)
        wants = Wanting(self.space, self.id, ended_at, before.version if before is not None else 0)
        run_id = analyses.begin(
            connection, wants, scenario="meeting", scenario_version=1, engine="extractive", language="en"
        )
        analyses.step(connection, run_id, "analyse")
        run = analyses.get(connection, run_id)
        assert run is not None
        return run
