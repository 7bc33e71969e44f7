"""`roomscribe sessions`: which sessions were kept, all about one but what was said, and how to end one."""

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from sqlalchemy import Connection

    from persistence.catalogue import SessionDetail, SessionSummary
    from persistence.database import Database
    from persistence.records import Failure, Gap, Presence, Usage

__all__ = ["app", "detail_json", "find_session", "reading", "stays", "summary_json"]

DEFAULT_LIMIT = 20
MIN_PREFIX = 6  # characters of an id that name a session
SHORT_ID = 12  # of 32 characters: no two sessions share so many
PIPED_WIDTH = 1000  # columns where there is no terminal to fit into: nothing is cut or wrapped
UNKNOWN = "?"
EVERYBODY = "everybody"
ENDED_BY = "api"  # as a session says that was ended so: its room gets no agent any more
ASKED_BY = "cli"
AGENT_WAIT_S = 10.0  # for its agent to end it, which looks at its commands each second
SAID_AFTER_S = 1.0  # a wait that is longer is said
POLL_S = 0.2

app = typer.Typer(
    help="Look at the sessions that were kept, and end one.", no_args_is_help=True, rich_markup_mode=None
)


@app.command("list")
def list_(
    context: typer.Context,
    room: Annotated[str | None, typer.Option("--room", metavar="NAME", help="Of this room alone.")] = None,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", min=1, help="So many at most.")
    ] = DEFAULT_LIMIT,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List sessions, the newest first.

    A terminal shows the beginnings of their ids, by which other commands know them as well.
    """
    from persistence.catalogue import list_sessions
    from persistence.records import DEFAULT_SPACE

    with reading(context) as connection:
        page = list_sessions(connection, DEFAULT_SPACE, room=room, limit=limit)
    if as_json:
        _print_json([summary_json(summary) for summary in page.items])
    elif page.items:
        _print_list(page.items)
    else:
        typer.echo("no sessions" if room is None else f"no sessions of room {room}")
    if page.next is not None:
        typer.echo(f"there are more: --limit {2 * limit} shows older ones too", err=True)


@app.command()
def show(
    context: typer.Context,
    session: Annotated[str, typer.Argument(metavar="ID", help="Its id, or the beginning of it.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show all about a session but what was said.

    Times of day are UTC; all others count from the beginning of the session, as hours, minutes and seconds.
    """
    from persistence.catalogue import get_session
    from persistence.records import DEFAULT_SPACE

    with reading(context) as connection:
        found = find_session(connection, session)
        detail = get_session(connection, DEFAULT_SPACE, found)
    assert detail is not None  # nothing is ever removed within a transaction
    if as_json:
        _print_json(detail_json(detail))
    else:
        console = _console()
        for part in _shown(detail):
            console.print(part)


@app.command()
def end(
    context: typer.Context,
    session: Annotated[str, typer.Argument(metavar="ID", help="Its id, or the beginning of it.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """End a session that goes on; its room gets no agent any more.

    Its agent gives out what it has heard, and leaves. Where none answers within 10 s, the session is ended
    without it. One that has ended already is left as it is.
    """
    from persistence import commands
    from persistence.catalogue import get_session
    from persistence.records import DEFAULT_SPACE

    with _opened(context) as database:
        with database.read() as connection:
            found = find_session(connection, session)
            had_ended = commands.ended_by(connection, DEFAULT_SPACE, found) is not None
        has_answered = None if had_ended else _end(database, found)
        with database.read() as connection:
            detail = get_session(connection, DEFAULT_SPACE, found)
    assert detail is not None  # nothing is ever removed
    if as_json:
        _print_json({**summary_json(detail.summary), "agent_answered": has_answered})
    else:
        typer.echo(_ended(detail.summary, has_answered=has_answered))


@contextmanager
def reading(context: typer.Context) -> "Iterator[Connection]":
    """The database of the settings, to be read from.

    Raises:
        InputError: There is none; the message says what to do.
        DatabaseError: It is away, or not up to date; the message says what to do.
    """
    with _opened(context) as database, database.read() as connection:
        yield connection


def find_session(connection: "Connection", given: str) -> str:
    """The session that an id or the beginning of one means; of a merged one what it became, which is said.

    Raises:
        InputError: It means none, or several, or is too short to mean one.
    """
    from agent.errors import InputError
    from persistence.catalogue import find_by_prefix, resolve
    from persistence.records import DEFAULT_SPACE

    found = resolve(connection, DEFAULT_SPACE, given)
    if found is None and len(given) < MIN_PREFIX:
        raise InputError(
            f"{given!r} is too short; give an id, or the first {MIN_PREFIX} or more characters of one, as "
            "`roomscribe sessions list` names them"
        )
    if found is None:
        meant = find_by_prefix(connection, DEFAULT_SPACE, given)
        if len(meant) > 1:
            raise InputError(f"{given} is the beginning of {len(meant)} sessions' ids; give more of it")
        found = next(iter(meant), None)
    if found is None:
        raise InputError(
            f"there is no session {given}; give an id, or the first {MIN_PREFIX} or more characters of one, "
            "as `roomscribe sessions list` names them"
        )
    if not found.startswith(given):
        typer.echo(f"session {given} was merged into {found}, which is meant from here on", err=True)
    return str(found)


def stays(presences: "Iterable[Presence]") -> "list[Presence]":
    """Who was there when, by their beginnings: agents that followed each other saw the same people."""
    joined: dict[tuple[str, str], list[Presence]] = {}
    for presence in sorted(presences, key=lambda presence: presence.joined_ms):
        known = joined.setdefault((presence.identity, presence.name), [])
        # An agent that crashed did not see them leave, and its successor found them there.
        if known and (known[-1].left_ms is None or presence.joined_ms <= known[-1].left_ms):
            known[-1] = known[-1].model_copy(update={"left_ms": _later(known[-1].left_ms, presence.left_ms)})
        else:
            known.append(presence)
    every = [stay for known in joined.values() for stay in known]
    return sorted(every, key=lambda stay: (stay.joined_ms, stay.identity))


def summary_json(summary: "SessionSummary") -> dict[str, Any]:
    """A session as JSON data: `id`, `room`, `status`, `epoch`, `languages`, `started_at`, `heard_at`,
    `ended_at` and `ended_by`, the last two of which are null as long as it goes on.
    """
    return {
        "id": summary.id,
        "room": summary.room,
        "status": summary.status,
        "epoch": summary.epoch,
        "languages": list(summary.languages),
        "started_at": _rfc3339(summary.started_at),
        "heard_at": _rfc3339(summary.heard_at),
        "ended_at": _rfc3339(summary.ended_at) if summary.ended_at is not None else None,
        "ended_by": summary.ended_by or None,
    }


def detail_json(detail: "SessionDetail") -> dict[str, Any]:
    """All about a session as JSON data: what `summary_json` gives, and `room_sids`, `epochs`, `participants`,
    `finals` (their number), `gaps`, `audio`, `usage` and `failures`.

    A gap of everybody and what nobody has used have null for an identity.
    """
    return {
        **summary_json(detail.summary),
        "room_sids": list(detail.sids),
        "epochs": [
            {
                "epoch": epoch.epoch,
                "agent": epoch.agent,
                "worker": epoch.worker,
                "began_at": _rfc3339(epoch.began_at),
                "published_as": epoch.published_as,
                "published_epoch": epoch.published_epoch,
            }
            for epoch in detail.epochs
        ],
        "participants": [_plain(stay) for stay in stays(detail.presences)],
        "finals": detail.finals,
        "gaps": [_plain(gap) for gap in detail.gaps],
        "audio": {
            "segments": detail.stems,
            "duration_ms": detail.stems_ms,
            "size_bytes": detail.stems_bytes,
        },
        "usage": [_plain(usage) for usage in detail.usage],
        "failures": [{**_plain(failure), "at": _rfc3339(failure.at)} for failure in detail.failures],
    }


@contextmanager
def _opened(context: typer.Context) -> "Iterator[Database]":
    """The database of the settings, up to date; errors as for `reading`."""
    from agent.cli.existing import existing_database
    from agent.config import load_settings
    from persistence import schema

    with closing(existing_database(load_settings(context.obj))) as database:
        schema.check(database)
        yield database


def _end(database: "Database", session: str) -> bool:
    """Have a session ended by its agent, or end it where none does so in time.

    Returns:
        Whether its agent answered, or ended it for another reason.

    Raises:
        RoomscribeError: Its agent refuses to.
    """
    from agent.errors import RoomscribeError
    from persistence import commands, sessions
    from persistence.records import DEFAULT_SPACE

    with database.write() as connection:
        asked = commands.ask(
            connection,
            space=DEFAULT_SPACE,
            session_id=session,
            kind=commands.END,
            body={"reason": ENDED_BY},
            asked_by=ASKED_BY,
        )
    began_s = time.monotonic()
    is_said = has_answered = False
    while (waited_s := time.monotonic() - began_s) < AGENT_WAIT_S:
        with database.read() as connection:
            has_ended = commands.ended_by(connection, DEFAULT_SPACE, session) is not None
            command = commands.find(connection, DEFAULT_SPACE, asked)
        if has_ended:
            # Its room may go on with a session that ended for another reason, and shall then not be told
            # to end it.
            with database.write() as connection:
                commands.answer(connection, DEFAULT_SPACE, asked, commands.DONE)
            return True
        assert command is not None  # nothing is ever removed
        has_answered = command.done_at is not None
        if command.outcome.startswith(commands.REFUSED):
            reason = command.outcome.removeprefix(commands.REFUSED)
            raise RoomscribeError(f"session {session} goes on: its agent refuses to end it: {reason}")
        if waited_s >= SAID_AFTER_S and not is_said:
            typer.echo(f"waiting for the agent of session {session}, {AGENT_WAIT_S:.0f} s at most", err=True)
            is_said = True
        time.sleep(POLL_S)
    # The command stays, for an agent that is slow to find.
    with database.write() as connection:
        is_ours = sessions.end_without_agent(connection, DEFAULT_SPACE, session, ENDED_BY)
    return has_answered or not is_ours


def _ended(summary: "SessionSummary", *, has_answered: bool | None) -> str:
    from agent.captions.text import clean

    if has_answered is None:
        return f"session {summary.id} had ended already, by {clean(summary.ended_by)}"
    if has_answered:
        return f"session {summary.id} is ended, by {clean(summary.ended_by)}"
    return (
        f"session {summary.id} is ended, by {clean(summary.ended_by)}; no agent of it answered within "
        f"{AGENT_WAIT_S:.0f} s, and one that still runs leaves when it next looks at its commands"
    )


def _plain(record: "Failure | Gap | Presence | Usage") -> dict[str, Any]:
    """A record as JSON data, without its envelope. What is everybody's or nobody's has no identity."""
    values = record.model_dump(exclude={"v", "kind"})
    return {**values, "identity": values["identity"] or None} if "identity" in values else values


def _later(one_ms: int | None, other_ms: int | None) -> int | None:
    """When somebody left of whom two agents say so; who was there last knows better than who crashed."""
    if one_ms is None or other_ms is None:
        return other_ms
    return max(one_ms, other_ms)


def _print_list(summaries: "Iterable[SessionSummary]") -> None:
    from rich.table import Table
    from rich.text import Text

    from agent.captions.text import clean

    console = _console()
    table = Table(box=None)
    for heading in ("session", "began (UTC)", "duration", "ended by"):
        table.add_column(heading, no_wrap=True)
    table.add_column("room")  # the last one, where a name in another direction disturbs no column
    for summary in summaries:
        table.add_row(
            summary.id[:SHORT_ID] if console.is_terminal else summary.id,
            f"{summary.started_at:%Y-%m-%d %H:%M}",
            Text(_duration(summary), style="green" if summary.ended_at is None else ""),
            Text(clean(summary.ended_by)),
            Text(clean(summary.room), no_wrap=True, overflow="ellipsis"),
        )
    console.print(table)


def _shown(detail: "SessionDetail") -> "Iterator[RenderableType]":
    yield _head(detail)
    if detail.presences:
        yield _participants(detail)
    if detail.gaps:
        yield _gaps(detail)
    if detail.failures:
        yield _failures(detail)


def _head(detail: "SessionDetail") -> "Table":
    from rich.filesize import decimal
    from rich.table import Table
    from rich.text import Text

    from agent.captions.formats import clock
    from agent.captions.text import clean

    summary = detail.summary
    ended = (
        f"{_day(summary.ended_at)}, by {clean(summary.ended_by)}, after {_duration(summary)}"
        if summary.ended_at is not None
        else f"{summary.status}, last heard of {_day(summary.heard_at)}"
    )
    speech_ms, stt_ms, covered_ms = (
        sum(getattr(usage, name) for usage in detail.usage) for name in ("speech_ms", "stt_ms", "covered_ms")
    )
    table = Table.grid(padding=(0, 2))
    for key, value in (
        ("session", summary.id),
        *(
            ("merged", f"{epoch.published_as}, which began without the database, is a part of it")
            for epoch in detail.epochs
            if epoch.published_as != summary.id
        ),
        ("room", clean(summary.room)),
        ("LiveKit", ", ".join(detail.sids)),
        ("began", _day(summary.started_at)),
        ("ended", ended),
        ("languages", ", ".join(summary.languages)),
        *(
            ("agent", f"{clean(e.agent)} of {clean(e.worker)}, from {_day(e.began_at)} (epoch {e.epoch})")
            for e in detail.epochs
        ),
        ("finals", str(detail.finals)),
        ("gaps", str(len(detail.gaps) or "none")),
        (
            "audio",
            f"{clock(detail.stems_ms)} in {_count(detail.stems, 'segment')}, {decimal(detail.stems_bytes)}"
            if detail.stems
            else "none",
        ),
        ("usage", f"{clock(speech_ms)} of speech, {clock(stt_ms)} sent to the speech engine"),
        (
            "coverage",
            f"{covered_ms / speech_ms:.0%} of the speech is in captions" if speech_ms else "no speech",
        ),
        ("failures", str(len(detail.failures) or "none")),
    ):
        table.add_row(Text(key, style="bold"), Text(value))
    return table


def _participants(detail: "SessionDetail") -> "Table":
    from rich.table import Table
    from rich.text import Text

    from agent.captions.formats import clock
    from agent.captions.text import clean

    speech_ms = {usage.identity: usage.speech_ms for usage in detail.usage}
    by_identity: dict[str, list[Presence]] = {}
    for stay in stays(detail.presences):
        by_identity.setdefault(stay.identity, []).append(stay)
    is_live = detail.summary.ended_at is None
    table = Table("there", "speech", "identity", "name", box=None)
    for identity, its_stays in by_identity.items():
        names = dict.fromkeys(clean(stay.name) for stay in its_stays)
        there = (f"{clock(s.joined_ms)}-{_until(s, is_live=is_live)}" for s in its_stays)
        table.add_row(
            "\n".join(there),
            clock(speech_ms.get(identity, 0)),
            Text(clean(identity)),
            Text(", ".join(names)),
        )
    return _titled(table, _count(len(by_identity), "participant"))


def _gaps(detail: "SessionDetail") -> "Table":
    from rich.table import Table
    from rich.text import Text

    from agent.captions.formats import clock
    from agent.captions.text import clean

    table = Table("not heard", "why", "who", box=None)
    for gap in detail.gaps:
        table.add_row(
            f"{clock(gap.start_ms)}-{clock(gap.end_ms)}",
            Text(clean(gap.reason)),
            Text(clean(gap.identity) or EVERYBODY),
        )
    return _titled(table, _count(len(detail.gaps), "gap"))


def _failures(detail: "SessionDetail") -> "Table":
    from rich.table import Table
    from rich.text import Text

    from agent.captions.text import clean

    table = Table("at (UTC)", "stage", "code", "what", box=None)
    for failure in detail.failures:
        table.add_row(
            f"{failure.at:%Y-%m-%d %H:%M:%S}",
            Text(clean(failure.stage)),
            Text(clean(failure.code)),
            Text(clean(failure.message)),
        )
    return _titled(table, _count(len(detail.failures), "failure"))


def _titled(table: "Table", title: str) -> "Table":
    table.title = f"\n{title}"
    table.title_style = "bold"
    table.title_justify = "left"
    return table


def _until(stay: "Presence", *, is_live: bool) -> str:
    from agent.captions.formats import clock

    if stay.left_ms is not None:
        return clock(stay.left_ms)
    return "now" if is_live else UNKNOWN


def _duration(summary: "SessionSummary") -> str:
    from agent.captions.formats import clock

    if summary.ended_at is None:
        return summary.status
    return clock(max(round((summary.ended_at - summary.started_at).total_seconds() * 1000), 0))


def _day(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _rfc3339(at: datetime) -> str:
    from agent.captions.protocol import timestamp

    return timestamp(at)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"


def _print_json(value: object) -> None:
    # ASCII only: other people's control characters must not reach a terminal.
    typer.echo(json.dumps(value, indent=2))


def _console() -> "Console":
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    return console
