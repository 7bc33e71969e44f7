"""The words that a session was about. Pure."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from agent.analysis.language import Language
from agent.analysis.text import Token, tokens
from agent.analysis.transcript import Transcript

__all__ = ["keywords"]

LEAST_UTTERANCES = 2  # what was said once is not what it was about
LEAST_CHARACTERS = 3


def keywords(transcript: Transcript, language: Language, most: int = 12) -> tuple[str, ...]:
    """The words of content that come in most utterances, the most frequent first.

    Forms of one word count as one, which is shown as it was said most often. Names of those who were there
    are left out: who spoke is known already.
    """
    names = {word.text for person in transcript.people for word in _words(person.name)}
    forms: dict[str, Counter[str]] = {}
    said_in: Counter[str] = Counter()
    for utterance in transcript:
        stems: set[str] = set()
        for word in _words(utterance.text):
            content = language.content([word])
            if word.text in names or len(word.text) < LEAST_CHARACTERS or not content:
                continue
            (stem,) = content
            stems.add(stem)
            forms.setdefault(stem, Counter())[word.text] += 1
        said_in.update(stems)
    rated = sorted(
        (stem for stem, count in said_in.items() if count >= LEAST_UTTERANCES),
        key=lambda stem: (-said_in[stem], -forms[stem].total(), stem),
    )
    return tuple(min(forms[stem], key=lambda form: (-forms[stem][form], form)) for stem in rated[:most])


def _words(text: str) -> Iterator[Token]:
    """The words of a text; of "Anna's" it is "anna", in languages that say so with an apostrophe."""
    for token in tokens(text):
        yield replace(token, text=token.text.removesuffix("'s"))
