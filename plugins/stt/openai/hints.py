"""What a model is told about the speech ahead of it: language and key terms. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Hints", "hints_for"]

# The newest models take key terms as such; these take no hints but the language; all others take a prompt.
_TAKE_KEYWORDS = ("gpt-transcribe", "gpt-live-transcribe")
_TAKE_NOTHING = ("gpt-realtime-whisper", "gpt-4o-transcribe-diarize")


@dataclass(frozen=True, slots=True)
class Hints:
    """Either `keywords` or a `prompt`, or neither."""

    language: str
    keywords: tuple[str, ...] = ()
    prompt: str = ""

    def is_echo(self, text: str) -> bool:
        """Say whether a transcript is only the prompt. Models write it down where they hear no speech."""
        return bool(self.prompt) and text.strip().rstrip(".") == self.prompt


def hints_for(model: str, language: str, keyterms: Sequence[str]) -> Hints:
    """Put key terms the way that a model takes them.

    Args:
        model: As the service names it.
        language: ISO 639-1 code.
        keyterms: Names and terms that may come up.
    """
    terms = tuple(term for term in (term.strip() for term in keyterms) if term)
    if model.startswith(_TAKE_NOTHING):
        return Hints(language)
    if model.startswith(_TAKE_KEYWORDS):
        return Hints(language, keywords=terms)
    return Hints(language, prompt=", ".join(terms))
