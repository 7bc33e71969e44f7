"""Sessions of a few words in a database, for those who read them."""

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from sqlalchemy import Connection, insert

from agent.analysis.statement import Evidence, Statement
from agent.analysis.statistics import Stay, statistics
from agent.analysis.transcript import Transcript, Utterance
from agent.values import Speaker
from persistence import analyses, sessions
from persistence.analyses import Run, Wanting
from persistence.apply import Applier
from persistence.database import Database
from persistence.records import DEFAULT_SPACE, Begun, Ended, Final, Gap, Presence, Record, Usage
from persistence.tables import SCHEMA

__all__ = ["ADA", "AT", "DURATION_MS", "KeptSession", "add_space", "final"]

AT = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)
DURATION_MS = 60_000
ADA, BEN = Speaker("ada", "Ada"), Speaker("ben", "Ben")


def final(number: int, text: str, start_ms: int, *, epoch: int = 1, revision: int = 1) -> Final:
    """What Ada said."""
    return Final(
        id=f"{epoch}-{number}", revision=revision, seq=number, identity="ada", name="Ada", text=text,
        language="en", confidence=0.9, has_overlap=False, start_ms=start_ms, end_ms=start_ms + 900, at=AT,
    )  # fmt: skip


def add_space(database: Database, space: str) -> None:
    with database.write() as connection:
        connection.execute(insert(SCHEMA.tables["space"]).values(id=space, name=space, created_at=AT))


class KeptSession:
    """A session with Ada and Ben that has begun; `say` and `end` have it go on.

    Args:
        after_s: When it began, after `AT`.
    """

    def __init__(
        self, database: Database, *, room: str = "planning", space: str = DEFAULT_SPACE, after_s: float = 0.0
    ) -> None:
        self.id = uuid4().hex
        self._database = database
        self._space = space
        self._started_at = AT + timedelta(seconds=after_s)
        begun = Begun(
            session=self.id,
            epoch=1,
            space=space,
            room=room,
            room_sid=f"RM_{self.id}",
            agent="agent-1",
            worker="worker-1",
            languages=("en",),
            started_at=self._started_at,
            offset_ms=0,
            is_provisional=False,
        )
        self._applier = Applier(database, space, self.id, 1)
        self.say(
            begun,
            Presence(identity="ada", name="Ada", joined_ms=0, left_ms=DURATION_MS),
            Presence(identity="ben", name="Ben", joined_ms=500, left_ms=DURATION_MS),
        )

    def say(self, *records: Record) -> None:
        assert self._applier.apply(records, None) == []

    def end(self, *, is_settled: bool = True) -> None:
        at = self._started_at + timedelta(milliseconds=DURATION_MS)
        self.say(Ended(reason="room_closed", end_ms=DURATION_MS, at=at))
        if is_settled:
            with self._database.write() as connection:
                sessions.settle(connection, self._space, self.id, 1)

    def hear(self) -> None:
        """Some words, some of which were not heard."""
        self.say(
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
        before = analyses.newest(connection, self._space, self.id)
        ended_at = self._started_at + timedelta(milliseconds=DURATION_MS)
        wants = Wanting(self._space, self.id, ended_at, before.version if before is not None else 0)
        run_id = analyses.begin(
            connection, wants, scenario="meeting", scenario_version=1, engine="extractive", language="en"
        )
        analyses.step(connection, run_id, "analyse")
        run = analyses.get(connection, run_id)
        assert run is not None
        return run
