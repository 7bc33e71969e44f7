"""What is known of a language: empty words, negations, numbers, cues. Data lies in `languages/`. Pure."""

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from agent.analysis.text import Token

__all__ = ["Language", "language_of"]

STEM_CHARACTERS = 5  # "certificate" and "certificates", "renew" and "renewal" count as one word
FALLBACK = "en"


@dataclass(frozen=True, slots=True)
class Language:
    """A language, by its ISO 639-1 code. All words are folded, and so is what `cues` are looked for in."""

    code: str
    stop_words: frozenset[str]
    negations: frozenset[str]
    numbers: Mapping[str, int]
    multipliers: Mapping[str, int]
    cues: Mapping[str, tuple[re.Pattern[str], ...]]

    def cue(self, name: str, text: str) -> re.Match[str] | None:
        """The first place in a folded text that has a cue of this name."""
        found = (pattern.search(text) for pattern in self.cues.get(name, ()))
        return next((match for match in found if match is not None), None)

    def content(self, words: Iterable[Token]) -> frozenset[str]:
        """The beginnings of the words that say what a text is about; numbers are left to `values`."""
        return frozenset(
            word.text[:STEM_CHARACTERS]
            for word in words
            if word.text not in self.stop_words and not self._is_number(word.text)
        )

    def is_negated(self, words: Iterable[Token]) -> bool:
        """Whether it says that something is not so: two negations are none."""
        return sum(word.text in self.negations for word in words) % 2 == 1

    def values(self, words: Sequence[Token]) -> frozenset[int | float]:
        """The numbers in a text, written in digits or in words, as `two hundred and thirteen`."""
        found: set[int | float] = set()
        total = group = 0
        is_open = False
        for index, word in enumerate(words):
            if word.text in self.numbers:
                unit = self.numbers[word.text]
                # "twenty three" is one number, "two three" are two.
                if is_open and group % 10 ** len(str(unit)) != 0:
                    found.add(total + group)
                    total = group = 0
                group, is_open = group + unit, True
            elif is_open and word.text in self.multipliers:
                if (factor := self.multipliers[word.text]) == 100:
                    group *= factor
                else:
                    total, group = total + group * factor, 0
            elif is_open and word.text == "and" and self._goes_on(words, index + 1):
                continue
            else:
                if is_open:
                    found.add(total + group)
                    total, group, is_open = 0, 0, False
                if (value := _digits(word.text)) is not None:
                    found.add(value)
        if is_open:
            found.add(total + group)
        return frozenset(found)

    def _goes_on(self, words: Sequence[Token], index: int) -> bool:
        return index < len(words) and words[index].text in self.numbers

    def _is_number(self, word: str) -> bool:
        return word in self.numbers or word in self.multipliers or word[0].isdigit()


@cache
def language_of(tag: str) -> Language:
    """What is known of a language.

    Args:
        tag: A BCP 47 tag. English stands in for what there is no file of: nothing of it will be recognised.
    """
    folder = files("agent.analysis") / "languages"
    code = tag.partition("-")[0].lower()
    file = folder / f"{code}.toml"
    if not file.is_file():
        code, file = FALLBACK, folder / f"{FALLBACK}.toml"
    data = tomllib.loads(file.read_text(encoding="utf-8"))
    return Language(
        code,
        frozenset(data["stop_words"].split()),
        frozenset(data["negations"].split()),
        data["numbers"],
        data["multipliers"],
        {name: tuple(re.compile(each) for each in patterns) for name, patterns in data["cues"].items()},
    )


def _digits(word: str) -> int | float | None:
    """A number in digits: 1,000 and 2.5, but no 12:30 and no 3/4."""
    plain = word.replace(",", "") if all(len(part) == 3 for part in word.split(",")[1:]) else word
    try:
        value = float(plain)
    except ValueError:
        return None
    return int(value) if value.is_integer() else value
