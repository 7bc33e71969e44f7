"""Following a transcript is cheap, however long it is and whatever else is in the database."""

import httpx
import pytest

from persistence import transcripts
from persistence.database import Database
from tests.integration.console.test_api import API, BOTH, events
from tests.support.kept_session import KeptSession, final
from tests.support.plans import plans


@BOTH
def test_what_is_new_is_found_by_an_index(database: Database, space: str) -> None:
    KeptSession(database, space=space).say(*(final(n, "Word.", n) for n in range(1, 3_000)))
    session = KeptSession(database, space=space)
    session.say(*(final(n, "Word.", n) for n in range(1, 4)))

    with plans(database) as found, database.read() as connection:
        new = transcripts.unseen(connection, space, session.id, {"1-1": 1, "1-3": 1})
        none = transcripts.unseen(connection, space, session.id, {"1-1": 1, "1-2": 1, "1-3": 1})

    assert ([one.id for one in new], none) == (["1-2"], ())
    assert len(found) == 4
    for plan in found:
        assert "INDEX" in plan.upper()
        assert "Seq Scan" not in plan


def test_a_long_transcript_comes_in_parts_and_whole(
    client: httpx.Client, database: Database, space: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("store", "events"):
        monkeypatch.setattr(f"agent.console.{module}.MAX_UTTERANCES", 2)
    session = KeptSession(database, space=space)
    session.say(*(final(n, f"Word {n}.", n) for n in range(1, 6)))
    session.end()

    with client.stream("GET", f"{API}/sessions/{session.id}/events") as stream:
        told = [data.get("id", name) for name, data in events(stream.iter_lines())]

    assert told == ["1-1", "1-2", "1-3", "1-4", "1-5", "ended"]
