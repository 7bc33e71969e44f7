"""A session as one file: its page without a server, a script or a player, to be kept and passed on. Pure."""

from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from markupsafe import Markup

from agent.console import html, view
from agent.console.models import AnalysisOut, SessionOut, UtteranceOut

__all__ = ["render"]


def render(session: SessionOut, transcript: Sequence[UtteranceOut], analysis: AnalysisOut | None) -> str:
    """A report as HTML that asks for no other file.

    Args:
        transcript: All of it, by its time.
        analysis: The newest; None where there is none.
    """
    return html.render(
        "report.html",
        session=session,
        analysis=analysis,
        view=view.make(session, transcript, analysis),
        style=_style(),
    )


@cache
def _style() -> Markup:
    text = files("agent.console").joinpath("static", "console.css").read_text(encoding="utf-8")
    return Markup(text)  # ours: there is nothing of anybody else in it
