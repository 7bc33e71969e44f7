"""Following a transcript is cheap, however long it is and whatever else is in the database."""

import re

import httpx
import pytest

from agent.values import Speaker
from persistence import transcripts
from persistence.database import Database
from tests.integration.console.test_api import API, BOTH, events
from tests.support.kept_session import KeptSession, final
from tests.support.plans import plans


@BOTH
def test_what_is_new_is_found_by_an_index(database: Database, space: str) -> None:
    KeptSession(database, space=space).keep(*(final(n, "Word.", n) for n in range(1, 3_000)))
    session = KeptSession(database, space=space)
    session.keep(*(final(n, "Word.", n) for n in range(1, 4)))

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
    monkeypatch.setattr("agent.console.store.MAX_UTTERANCES", 2)
    session = KeptSession(database, space=space)
    session.keep(*(final(n, f"Word {n}.", n) for n in range(1, 6)))
    session.end()

    with client.stream("GET", f"{API}/sessions/{session.id}/events") as stream:
        told = [data.get("id", name) for name, data in events(stream.iter_lines())]

    assert told == ["1-1", "1-2", "1-3", "1-4", "1-5", "ended"]


def test_a_stream_that_broke_off_goes_on_near_where_it_did(
    client: httpx.Client, database: Database, space: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.console.events.AGAIN_MS", 1_000)
    session = KeptSession(database, space=space)
    session.keep(*(final(n, f"Word {n}.", 1_000 * n) for n in range(1, 6)))
    session.end()
    path = f"{API}/sessions/{session.id}/events"

    with client.stream("GET", path, params={"since": "3000"}) as stream:
        lines = list(stream.iter_lines())
    [*_, last_id] = [line.removeprefix("id: ") for line in lines if line.startswith("id: ")]
    with client.stream("GET", path, headers={"Last-Event-ID": last_id}) as stream:
        again = [data.get("id") for _, data in events(stream.iter_lines())]

    assert [data.get("id") for _, data in events(iter(lines))] == ["1-3", "1-4", "1-5", None]
    assert again == ["1-4", "1-5", None]
    for since in ("-1", "x", "9" * 20):
        assert client.get(path, params={"since": since}).status_code == 422


@BOTH
def test_newest_words_and_who_spoke_are_found_by_an_index(database: Database, space: str) -> None:
    KeptSession(database, space=space).keep(*(final(n, "Word.", n) for n in range(1, 3_000)))
    session = KeptSession(database, space=space)
    ben = final(2, "Word.", 2).model_copy(update={"identity": "ben", "name": "Ben"})
    renamed = final(4, "Word.", 4).model_copy(update={"name": "Ada L."})
    session.keep(*(final(n, "Word.", n) for n in (1, 3)), ben, renamed)

    with plans(database) as found, database.read() as connection:
        newest = transcripts.newest(connection, space, session.id, limit=2)
        speakers = transcripts.speakers(connection, space, session.id)

    assert [one.id for one in newest] == ["1-3", "1-4"]
    assert speakers == (Speaker("ada", "Ada L."), Speaker("ben", "Ben"))
    assert len(found) == 2
    for plan in found:
        assert "INDEX" in plan.upper()
        assert "Seq Scan" not in plan


def test_live_page_of_a_long_session_begins_with_its_newest_words(
    client: httpx.Client, database: Database, space: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.console.store.MAX_UTTERANCES", 2)
    monkeypatch.setattr("agent.console.pages.MAX_UTTERANCES", 2)
    monkeypatch.setattr("agent.console.pages.MOST_UTTERANCES", 4)
    monkeypatch.setattr("agent.console.pages.LIVE_UTTERANCES", 2)
    session = KeptSession(database, space=space)
    ben = final(1, "Word 1.", 1_000).model_copy(update={"identity": "ben", "name": "Ben"})
    session.keep(ben, *(final(n, f"Word {n}.", 1_000 * n) for n in range(2, 10)))

    page = client.get(f"/sessions/{session.id}/live").text

    assert re.findall(r"Word \d", page) == ["Word 8", "Word 9"]
    assert 'data-since="8000"' in page
    # Who spoke first has the first colour, though what they said is left out.
    assert 'data-identity="ben" data-colour="0"' in page
    assert 'data-identity="ada" data-colour="1"' in page


def test_report_of_a_long_session_has_all_of_it(
    client: httpx.Client, database: Database, space: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.console.pages.MAX_UTTERANCES", 2)
    monkeypatch.setattr("agent.console.pages.MOST_UTTERANCES", 4)
    session = KeptSession(database, space=space)
    session.keep(*(final(n, f"Word {n}.", n) for n in range(1, 10)))
    session.end()

    page = client.get(f"/sessions/{session.id}").text
    report = client.get(f"/sessions/{session.id}/report").text

    assert len(re.findall(r"Word \d", page)) == 4
    assert "The rest is left out here" in page
    assert re.findall(r"Word \d", report) == [f"Word {n}" for n in range(1, 10)]
