"""What was left behind comes into the database: once, in order, and nothing is lost on the way."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
import structlog
from sqlalchemy import event, func, select

from agent.errors import DatabaseAwayError, JournalError
from persistence import schema
from persistence.apply import Applier
from persistence.database import Database
from persistence.journal.drain import DrainReport, drain, drain_all, is_there, last_seqs
from persistence.journal.folder import claim, journals, strangers
from persistence.journal.line import frame
from persistence.journal.reading import read_begun, read_segments, start
from persistence.journal.segment import segment_name
from persistence.journal.writer import Journal, JournalLimits
from persistence.position import Position
from persistence.records import DEFAULT_SPACE, Record
from persistence.tables import SCHEMA
from tests.support.journalled import BEGAN_AT, ROOMY, begun, final, found_in, small
from tests.support.toxiproxy import Toxiproxy
from tests.support.unprivileged import unprivileged_folder

UTTERANCE, PROCESSING_ERROR = SCHEMA.tables["utterance"], SCHEMA.tables["processing_error"]
ROOT = Path(__file__).parents[3]
LIMIT_S = 60.0
SECRET = "the word that somebody said"
FINALS = [final(number) for number in range(1, 31)]

DRAIN = """
import sys
from pathlib import Path
from agent.telemetry.logs import configure_logs
from persistence.database import Database
from persistence.journal.drain import drain_all

configure_logs("error", "json")
for report in drain_all(Path(sys.argv[1]), Database(sys.argv[2])):
    print(report.journal.path.name, report.finals, flush=True)
"""


def leave_behind(
    folder: Path,
    records: Sequence[Record] = FINALS,
    session: str = "ab12",
    epoch: int = 1,
    limits: JournalLimits = ROOMY,
) -> Path:
    """A journal as a process leaves it that was killed."""
    journal = Journal.create(folder, begun(session, epoch), limits)
    for record in records:
        journal.append([record])
    journal.close(is_applied=False)
    return journal.path


def drain_only(folder: Path, database: Database) -> DrainReport:
    report = drain(found_in(folder), database)
    assert report is not None
    return report


def said(database: Database, session: str = "ab12") -> list[int]:
    """The numbers of all finals in the database."""
    query = select(UTTERANCE.c.seq).where(UTTERANCE.c.session_id == session).order_by(UTTERANCE.c.seq)
    with database.read() as connection:
        return list(connection.execute(query).scalars())


def problems(database: Database) -> list[str]:
    with database.read() as connection:
        return list(connection.execute(select(PROCESSING_ERROR.c.message)).scalars())


def harm(path: Path, number: int, at: int) -> None:
    file = path / segment_name(number)
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)


def place_of(number: int) -> int:
    """Where a final begins in a journal of one segment that holds all of them."""
    return len(frame(begun())) + sum(len(frame(record)) for record in FINALS[: number - 1])


def test_what_was_left_behind_is_brought_over_and_removed(tmp_path: Path, database: Database) -> None:
    leave_behind(tmp_path / "journal", limits=small())
    report = drain_only(tmp_path / "journal", database)
    assert said(database) == [record.seq for record in FINALS]
    assert (report.finals, report.refused, report.damages) == (30, 0, ())
    assert (report.is_removed, report.problem) == (True, "")
    assert list((tmp_path / "journal").iterdir()) == []
    assert problems(database) == []


def test_only_what_the_database_lacks_is_brought_over(tmp_path: Path, database: Database) -> None:
    journal = Journal.create(tmp_path / "journal", begun(), small())
    applier = Applier(database, DEFAULT_SPACE, "ab12", 1)
    journal.append(FINALS[:20])
    after = Position(1, 0)
    while after < journal.end:
        stretch = journal.read(after)
        applier.apply(stretch.records, stretch.end)
        after = stretch.end
        journal.forget_before(after)
    journal.append(FINALS[20:])
    journal.close(is_applied=False)
    report = drain_only(tmp_path / "journal", database)
    assert report.finals == 10
    assert report.is_removed
    assert said(database) == [record.seq for record in FINALS]


def test_a_journal_that_was_applied_but_not_removed_is_removed(tmp_path: Path, database: Database) -> None:
    journal = Journal.create(tmp_path / "journal", begun(), ROOMY)
    journal.append(FINALS)
    stretch = journal.read(Position(1, 0))
    Applier(database, DEFAULT_SPACE, "ab12", 1).apply(stretch.records, stretch.end)
    journal.close(is_applied=False)
    report = drain_only(tmp_path / "journal", database)
    assert (report.records, report.is_removed) == (0, True)


def test_a_torn_end_is_dropped_and_is_no_damage(tmp_path: Path, database: Database) -> None:
    path = leave_behind(tmp_path / "journal")
    file = path / segment_name(1)
    file.write_bytes(file.read_bytes()[:-10] + bytes(1_000))
    report = drain_only(tmp_path / "journal", database)
    assert said(database) == [record.seq for record in FINALS[:-1]]
    assert report.is_removed
    assert problems(database) == []


def test_a_damaged_journal_is_brought_over_as_far_as_it_can_be_and_kept_aside(
    tmp_path: Path, database: Database
) -> None:
    folder = tmp_path / "journal"
    path = leave_behind(folder, [final(record.seq, SECRET) for record in FINALS])
    place = len(frame(begun())) + 6 * len(frame(final(1, SECRET)))
    harm(path, 1, place + 50)
    with structlog.testing.capture_logs() as logs:
        report = drain_only(folder, database)
    assert said(database) == [number for number in range(1, 31) if number != 7]
    assert (report.finals, report.is_removed) == (29, False)
    assert [damage.position for damage in report.damages] == [Position(1, place)]
    assert [entry["offset_bytes"] for entry in logs if entry["event"] == "journal.damaged"] == [place]
    (told,) = problems(database)
    assert f"segment 1, byte {place}" in told
    assert str(folder / "ab12-1.damaged") in told
    assert SECRET not in f"{told} {logs} {report}"
    # It is not drained again, and told once.
    assert drain_all(folder, database) == []
    assert [path.name for path in folder.iterdir()] == ["ab12-1.damaged"]
    assert problems(database) == [told]


def test_a_damage_that_an_earlier_try_went_past_is_still_told(tmp_path: Path, database: Database) -> None:
    path = leave_behind(tmp_path / "journal")
    harm(path, 1, place_of(7) + 50)
    Applier(database, DEFAULT_SPACE, "ab12", 1).apply(
        [begun(), *FINALS[:6], *FINALS[7:20]], Position(1, place_of(21))
    )
    report = drain_only(tmp_path / "journal", database)
    assert (report.finals, len(report.damages)) == (10, 1)
    assert said(database) == [number for number in range(1, 31) if number != 7]


def test_a_journal_whose_beginning_is_damaged_is_known_by_its_other_segments(
    tmp_path: Path, database: Database
) -> None:
    path = leave_behind(tmp_path / "journal", limits=small())
    harm(path, 1, 20)
    report = drain_only(tmp_path / "journal", database)
    assert said(database) == [record.seq for record in FINALS]
    assert [damage.position for damage in report.damages] == [Position(1, 0)]


def test_a_journal_of_which_nothing_says_whose_it_is_is_kept_aside(
    tmp_path: Path, database: Database
) -> None:
    folder = tmp_path / "journal"
    harm(leave_behind(folder), 1, 20)
    report = drain_only(folder, database)
    assert report.records == 0
    assert "nothing says which session this is" in report.problem
    assert [path.name for path in folder.iterdir()] == ["ab12-1.damaged"]


def test_a_record_that_the_database_refuses_keeps_the_journal_aside_and_nothing_else(
    tmp_path: Path, database: Database
) -> None:
    refused = FINALS[6].model_copy(update={"seq": 2**70})
    leave_behind(tmp_path / "journal", [*FINALS[:6], refused, *FINALS[7:]])
    report = drain_only(tmp_path / "journal", database)
    assert said(database) == [number for number in range(1, 31) if number != 7]
    assert (report.refused, report.finals, report.is_removed) == (1, 29, False)
    assert found_in(tmp_path / "journal").is_damaged


def test_a_refused_record_is_kept_also_where_the_drain_that_met_it_was_killed(
    tmp_path: Path, database: Database
) -> None:
    refused = FINALS[6].model_copy(update={"seq": 2**70})
    path = leave_behind(tmp_path / "journal", [*FINALS[:6], refused, *FINALS[7:]])
    info = found_in(tmp_path / "journal")
    first = read_begun(info)
    assert first is not None
    applier = Applier(database, first.space, first.session, first.epoch, is_live=False)
    for found in read_segments(info, start(info)):
        applier.apply([entry.record for entry in found.entries], found.entries[-1].end)
    # Killed here: somebody else drains it.
    report = drain_only(tmp_path / "journal", database)
    assert (report.refused, report.is_removed) == (1, False)
    assert not path.exists()
    assert [info.is_damaged for info in journals(tmp_path / "journal")] == [True]


def test_the_oldest_journal_comes_first_and_one_that_is_live_not_at_all(
    tmp_path: Path, database: Database
) -> None:
    folder = tmp_path / "journal"
    for session, epoch, minutes in (("a", 2, 5), ("b", 1, 9), ("c", 1, 0), ("a", 1, 5), ("live", 1, 1)):
        record = begun(session, epoch, BEGAN_AT + timedelta(minutes=minutes))
        journal = Journal.create(folder, record.model_copy(update={"room_sid": f"RM_{session}"}), ROOMY)
        journal.append([final(1)])
        if session != "live":
            journal.close(is_applied=False)
    order: list[str] = []
    reports = drain_all(folder, database, progress=lambda report: order.append(report.journal.path.name))
    assert order == [report.journal.path.name for report in reports] == ["c-1", "a-1", "a-2", "b-1"]
    assert [path.name for path in folder.iterdir()] == ["live-1"]
    journal.close(is_applied=False)


def test_one_journal_that_cannot_be_read_does_not_keep_the_others_back(
    tmp_path: Path, database: Database
) -> None:
    folder = tmp_path / "journal"
    unreadable = leave_behind(folder, session="bad")
    (unreadable / segment_name(1)).unlink()
    (unreadable / segment_name(1)).mkdir()
    leave_behind(folder, session="good")
    reports = {report.journal.session: report for report in drain_all(folder, database)}
    assert reports["good"].is_removed
    assert "cannot be read" in reports["bad"].problem
    assert said(database, "good") == [record.seq for record in FINALS]


def test_a_journal_that_cannot_be_entered_does_not_keep_the_others_back() -> None:
    with unprivileged_folder() as data, closing(Database(f"sqlite:///{data / 'roomscribe.db'}")) as database:
        schema.upgrade(database)
        folder = data / "journal"
        leave_behind(folder, session="bad").chmod(0)
        leave_behind(folder, session="good")
        reports = {report.journal.session: report for report in drain_all(folder, database)}
        assert reports["good"].is_removed
        assert "cannot be locked: Permission denied" in reports["bad"].problem
        assert is_there(folder, "planning") is False


def test_what_is_no_journal_is_named_and_left_alone(tmp_path: Path, database: Database) -> None:
    folder = tmp_path / "journal"
    leave_behind(folder)
    (folder / "notes.txt").write_text("mine")
    assert strangers(folder) == [folder / "notes.txt"]
    assert len(drain_all(folder, database)) == 1
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_one_room_can_be_drained_alone(tmp_path: Path, database: Database) -> None:
    folder = tmp_path / "journal"
    leave_behind(folder)
    room = read_begun(journals(folder)[0]).room
    assert drain_all(folder, database, room=f"not {room}") == []
    assert is_there(folder, room)
    assert len(drain_all(folder, database, room=room)) == 1
    assert not is_there(folder, room)


def test_nothing_is_logged_at_each_look_of_what_stays(tmp_path: Path, database: Database) -> None:
    folder = tmp_path / "journal"
    (leave_behind(folder, session="kept") / "notes.txt").write_text("mine")
    unreadable = leave_behind(folder, session="bad")
    (unreadable / segment_name(1)).unlink()
    (unreadable / segment_name(1)).mkdir()
    harm(leave_behind(folder, session="harmed"), 1, place_of(7) + 50)
    # A disk that does not let it be kept aside, for a while.
    (folder / "harmed-1.damaged" / "something").mkdir(parents=True)
    with structlog.testing.capture_logs() as logs:
        for _ in range(2):
            problems_told = {report.journal.session: report.problem for report in drain_all(folder, database)}
            assert all(problems_told[session] for session in ("kept", "bad", "harmed"))
    assert logs == []
    shutil.rmtree(folder / "harmed-1.damaged")
    with structlog.testing.capture_logs() as logs:
        drain_all(folder, database)
    assert [(entry["event"], entry["journal"]) for entry in logs] == [("journal.damaged", "harmed-1")]


def test_a_journal_that_has_lost_its_beginning_goes_where_the_database_knows_it(
    tmp_path: Path, database: Database
) -> None:
    path = leave_behind(tmp_path / "journal")
    Applier(database, DEFAULT_SPACE, "ab12", 1).apply([begun(), *FINALS[:6]], Position(1, place_of(7)))
    harm(path, 1, 20)
    report = drain_only(tmp_path / "journal", database)
    assert (report.finals, [damage.position for damage in report.damages]) == (24, [Position(1, 0)])
    assert said(database) == [record.seq for record in FINALS]


def test_a_journal_of_a_space_that_is_not_there_is_kept_aside(tmp_path: Path, database: Database) -> None:
    folder = tmp_path / "journal"
    journal = Journal.create(folder, begun().model_copy(update={"space": "unknown"}), ROOMY)
    journal.append(many(600))  # more than go into one batch
    journal.close(is_applied=False)
    report = drain_only(folder, database)
    assert (report.records, report.is_removed) == (0, False)
    assert [path.name for path in folder.iterdir()] == ["ab12-1.damaged"]


def test_a_journal_in_which_something_else_lies_is_brought_over_and_told(
    tmp_path: Path, database: Database
) -> None:
    path = leave_behind(tmp_path / "journal")
    (path / "notes.txt").write_text("mine")
    report = drain_only(tmp_path / "journal", database)
    assert said(database) == [record.seq for record in FINALS]
    assert "cannot be removed" in report.problem
    assert (path / "notes.txt").exists()
    (path / "notes.txt").unlink()
    assert drain_only(tmp_path / "journal", database).is_removed


def many(count: int) -> list[Record]:
    return [final(number) for number in range(1, count + 1)]


def test_a_database_that_goes_away_in_the_middle_keeps_what_it_has_and_the_journal_the_rest(
    tmp_path: Path, postgres_url: str, toxiproxy: Toxiproxy
) -> None:
    direct = Database(postgres_url)
    schema.upgrade(direct)
    leave_behind(tmp_path / "journal", many(3_000))
    proxy = toxiproxy.proxy(postgres_url)
    proxy.add_toxic("limit_data", stream="upstream", bytes=600_000)
    cut_off = Database(proxy.url)
    with pytest.raises(DatabaseAwayError):
        drain_all(tmp_path / "journal", cut_off)
    cut_off.close()
    before = len(said(direct))
    assert 0 < before < 3_000
    assert before % 500 in (0, 499)  # whole batches; the first one holds the beginning too
    report = drain_only(tmp_path / "journal", direct)
    assert (report.finals, report.is_removed) == (3_000 - before, True)
    assert said(direct) == list(range(1, 3_001))
    direct.close()


def test_a_database_whose_disk_fills_up_in_the_middle_keeps_what_it_has_and_the_journal_the_rest(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path / 'roomscribe.db'}"
    roomy = Database(url)
    schema.upgrade(roomy)
    leave_behind(tmp_path / "journal", many(3_000))
    with roomy.read() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    full = Database(url)
    event.listen(
        full.engine, "connect", lambda driver, _: driver.execute(f"PRAGMA max_page_count = {pages + 100}")
    )
    with pytest.raises(DatabaseAwayError, match="full"):
        drain_all(tmp_path / "journal", full)
    full.close()
    before = len(said(roomy))
    assert 0 < before < 3_000
    report = drain_only(tmp_path / "journal", roomy)
    assert (report.finals, report.is_removed) == (3_000 - before, True)
    assert said(roomy) == list(range(1, 3_001))
    roomy.close()


def draining(folder: Path, url: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", DRAIN, str(folder), url], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )


def test_a_journal_that_another_process_holds_is_skipped(
    tmp_path: Path, database: Database, database_url: str
) -> None:
    leave_behind(tmp_path / "journal")
    info = found_in(tmp_path / "journal")
    with claim(info) as ours:
        assert ours is not None
        with draining(tmp_path / "journal", database_url) as other:
            assert other.communicate(timeout=LIMIT_S) == ("", None)
        assert drain(info, database) is None
    assert said(database) == []
    assert drain_only(tmp_path / "journal", database).is_removed
    assert drain(info, database) is None


def test_two_processes_that_drain_at_once_drain_each_journal_once(
    tmp_path: Path, database: Database, database_url: str
) -> None:
    folder = tmp_path / "journal"
    sessions = [f"s{number:02}" for number in range(20)]
    for session in sessions:
        leave_behind(folder, session=session)
    with draining(folder, database_url) as one, draining(folder, database_url) as other:
        lines = [
            line for process in (one, other) for line in process.communicate(timeout=LIMIT_S)[0].split("\n")
        ]
        assert (one.returncode, other.returncode) == (0, 0)
    assert sorted(filter(None, lines)) == [f"{session}-1 30" for session in sessions]
    assert list(folder.iterdir()) == []


def test_a_drainer_that_is_killed_is_followed_by_the_next_one(
    tmp_path: Path, database: Database, database_url: str
) -> None:
    folder = tmp_path / "journal"
    for number in range(12):
        leave_behind(folder, many(600), session=f"s{number:02}", limits=small(20_000))
    with draining(folder, database_url) as process:
        assert process.stdout is not None
        for _ in range(3):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    reports = drain_all(folder, database)
    assert all(report.is_removed for report in reports)
    assert len(reports) < 12
    assert list(folder.iterdir()) == []
    with database.read() as connection:
        assert connection.execute(select(func.count()).select_from(UTTERANCE)).scalar_one() == 12 * 600


def test_a_folder_that_cannot_be_read_is_told(tmp_path: Path, database: Database) -> None:
    (tmp_path / "journal").write_text("a file")
    with pytest.raises(JournalError, match="journal"):
        drain_all(tmp_path / "journal", database)


def test_no_folder_is_nothing_to_drain(tmp_path: Path, database: Database) -> None:
    assert drain_all(tmp_path / "journal", database) == []


def test_last_number_in_a_journal_is_known_while_somebody_holds_it(tmp_path: Path):
    held = Journal.create(tmp_path, begun("ab12", 1), small())
    for record in FINALS:
        held.append([record])
    leave_behind(tmp_path, FINALS[:7], session="cd34", epoch=2)
    try:
        assert last_seqs(tmp_path, "planning") == {"ab12": 30, "cd34": 7}
        assert last_seqs(tmp_path, "another room") == {}
    finally:
        held.close(is_applied=False)
