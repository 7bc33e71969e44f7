"""`roomscribe export`: what was said in a session, as a file."""

import tempfile
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from agent.captions.formats import Cue, Transcript
    from persistence.records import Final

__all__ = ["export"]

IN_MEMORY_BYTES = 1_000_000  # what is larger waits on the disk


class Format(StrEnum):
    TXT = "txt"
    SRT = "srt"
    VTT = "vtt"
    JSON = "json"


def export(
    context: typer.Context,
    session: Annotated[str, typer.Argument(metavar="ID", help="Its id, or the beginning of it.")],
    chosen: Annotated[
        Format | None, typer.Option("--format", help="Without it as FILE ends, else txt.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="FILE", help="What is there already is replaced, all at once."),
    ] = None,
) -> None:
    """Print what was said in a session: all final captions.

    As text (txt), as subtitles (srt, vtt), or as JSON with all that is known of them. Names that several
    share have the identity behind them.
    """
    from agent.captions.formats import FORMATS
    from agent.cli.output import save, show
    from agent.cli.sessions import find_session, reading

    write = FORMATS[chosen or _format_of(output)]
    # Whoever reads slowly, as a pager does, must not hold the database meanwhile.
    with tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES) as waiting:
        with reading(context) as connection:
            transcript = _transcript(connection, find_session(connection, session))
            for piece in write(transcript):
                waiting.write(piece.encode())
        if transcript.ended_at is None:
            typer.echo("the session is not over: this is what was said so far", err=True)
        waiting.seek(0)
        if output is not None:
            save(waiting, output)
        else:
            show(waiting)


def _format_of(output: Path | None) -> Format:
    ending = output.suffix.lower().removeprefix(".") if output is not None else ""
    return Format(ending) if ending in set(Format) else Format.TXT


def _transcript(connection: "Connection", session_id: str) -> "Transcript":
    from agent.captions.formats import Stay, Transcript, Unheard
    from agent.cli.sessions import stays
    from agent.values import Speaker
    from persistence.catalogue import get_session
    from persistence.records import DEFAULT_SPACE
    from persistence.transcripts import iter_finals

    detail = get_session(connection, DEFAULT_SPACE, session_id)
    assert detail is not None  # nothing is ever removed within a transaction
    there = [Stay(Speaker(s.identity, s.name), s.joined_ms, s.left_ms) for s in stays(detail.presences)]
    # Read twice, since names are told apart before the first of them is written.
    spoke = {
        Speaker(final.identity, final.name) for final in iter_finals(connection, DEFAULT_SPACE, session_id)
    }
    return Transcript(
        session=detail.summary.id,
        room=detail.summary.room,
        languages=detail.summary.languages,
        started_at=detail.summary.started_at,
        ended_at=detail.summary.ended_at,
        ended_by=detail.summary.ended_by,
        stays=there,
        gaps=[Unheard(gap.start_ms, gap.end_ms, gap.identity, gap.reason) for gap in detail.gaps],
        speakers=spoke | {stay.speaker for stay in there},
        cues=_cues(iter_finals(connection, DEFAULT_SPACE, session_id)),
    )


def _cues(finals: "Iterable[Final]") -> "Iterable[Cue]":
    from agent.captions.formats import Cue
    from agent.values import Speaker

    for final in finals:
        yield Cue(
            id=final.id,
            revision=final.revision,
            speaker=Speaker(final.identity, final.name),
            text=final.text,
            language=final.language,
            confidence=final.confidence,
            has_overlap=final.has_overlap,
            start_ms=final.start_ms,
            end_ms=final.end_ms,
        )
