"""Text as its spoken words, so that two ways of writing one thing are no difference.

An engine writes `2%` where the truth says `two percent`, and both are right. As usual in speech recognition,
errors are counted over text in which such differences are gone. English only, like the meetings.

What is done: lower case without accents; contractions that have one reading are written out (`I'm`, `don't`);
numbers, ordinals, percentages and amounts of money become words, four digits that may be a year are read as
one (`1952`, nineteen fifty two), and `and` inside a number is dropped; hesitations (`um`, `mm hmm`), which
have no agreed spelling, are dropped; hyphens separate words, all other punctuation goes away. What is not
done: times of day (`9:10` is nine ten, not ten past nine), dates, units, British against American spelling.
"""

import re
import unicodedata

__all__ = ["spoken_words"]

_UNITS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_SCALES = {10**9: "billion", 10**6: "million", 1000: "thousand", 100: "hundred"}
_ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
_CURRENCIES = {"$": "dollar", "€": "euro", "£": "pound"}
_HESITATIONS = {"hm", "hmm", "mhm", "mm", "mmm", "uh", "um"}
_SPELLINGS = {"ok": "okay", "mr": "mister", "mrs": "missus", "dr": "doctor"}
_LONGEST_NUMBER = 12  # digits; longer ones are read digit by digit

_CONTRACTIONS = (
    (re.compile(r"\bwon't\b"), "will not"),
    (re.compile(r"\bcan't\b|\bcannot\b"), "can not"),
    (re.compile(r"n't\b"), " not"),
    (re.compile(r"\blet's\b"), "let us"),
    (re.compile(r"\b(it|that|there|what|who|he|she)'s\b"), r"\1 is"),
    (re.compile(r"'m\b"), " am"),
    (re.compile(r"'re\b"), " are"),
    (re.compile(r"'ll\b"), " will"),
    (re.compile(r"'ve\b"), " have"),
)
_NUMBER = re.compile(
    r"(?P<currency>[$€£])?\s?"
    r"(?P<whole>\d{1,3}(?:,\d{3})+|\d+)(?:\.(?P<fraction>\d+))?"
    r"(?:(?P<ordinal>st|nd|rd|th)\b)?"
    r"(?P<scale>\s(?:hundred|thousand|million|billion)\b)?"
    r"(?P<percent>\s?%)?"
)
_INITIALS = re.compile(r"\b(?:[a-z]\.){2,}")  # p.m., U.S.
_NOT_A_WORD = re.compile(r"[^a-z0-9]+")
_NUMBER_WORDS = {*_UNITS, *_TENS}
_AFTER_WHICH_AND_IS_DROPPED = set(_SCALES.values())


def spoken_words(text: str) -> list[str]:
    """The words of a text as they are spoken, in one spelling: lower case letters only.

    The words, joined by spaces and given again, come back unchanged.
    """
    text = unicodedata.normalize("NFKD", text.lower().replace("’", "'"))
    text = "".join(character for character in text if not unicodedata.combining(character))
    for pattern, expansion in _CONTRACTIONS:
        text = pattern.sub(expansion, text)
    text = _INITIALS.sub(lambda found: found[0].replace(".", ""), text)
    text = _NUMBER.sub(_read_number, text)
    text = re.sub(r"\bper cent\b", "percent", text.replace("%", " percent ").replace("&", " and "))
    words = _NOT_A_WORD.sub(" ", text.replace("'", "")).split()
    words = [_SPELLINGS.get(word, word) for word in words if word not in _HESITATIONS]
    return [word for index, word in enumerate(words) if not _is_and_in_number(words, index)]


def _is_and_in_number(words: list[str], index: int) -> bool:
    """Whether this is the `and` of `two hundred and thirteen`."""
    return (
        words[index] == "and"
        and 0 < index < len(words) - 1
        and words[index - 1] in _AFTER_WHICH_AND_IS_DROPPED
        and words[index + 1] in _NUMBER_WORDS
    )


def _read_number(found: re.Match[str]) -> str:
    digits, fraction = found["whole"].replace(",", ""), found["fraction"]
    if fraction is None and found["currency"] is None and "," not in found["whole"] and _is_year(digits):
        words = _read_year(int(digits))
    else:
        words = _read_digits(digits)
    if found["ordinal"]:
        words[-1] = _ordinal(words[-1])
    if fraction is not None:
        words += ["point", *(_UNITS[int(digit)] for digit in fraction)]
    if found["scale"]:
        words.append(found["scale"].strip())
    if found["percent"]:
        words.append("percent")
    if found["currency"]:
        name = _CURRENCIES[found["currency"]]
        words.append(name if words == ["one"] else f"{name}s")
    return f" {' '.join(words)} "


def _is_year(digits: str) -> bool:
    return len(digits) == 4 and (1100 <= int(digits) <= 1999 or 2010 <= int(digits) <= 2099)


def _read_year(year: int) -> list[str]:
    century, rest = divmod(year, 100)
    if rest == 0:
        return [*_read_cardinal(century), "hundred"]
    return [*_read_cardinal(century), *(["oh"] if rest < 10 else []), *_read_cardinal(rest)]


def _read_digits(digits: str) -> list[str]:
    if len(digits) > _LONGEST_NUMBER or (len(digits) > 1 and digits.startswith("0")):
        return [_UNITS[int(digit)] for digit in digits]
    return _read_cardinal(int(digits))


def _read_cardinal(number: int) -> list[str]:
    for scale, name in _SCALES.items():
        if number >= scale:
            many, rest = divmod(number, scale)
            return [*_read_cardinal(many), name, *(_read_cardinal(rest) if rest else [])]
    if number < len(_UNITS):
        return [_UNITS[number]]
    tens, unit = divmod(number, 10)
    return [_TENS[tens - 2], *([_UNITS[unit]] if unit else [])]


def _ordinal(word: str) -> str:
    if word in _ORDINALS:
        return _ORDINALS[word]
    return f"{word[:-1]}ieth" if word.endswith("y") else f"{word}th"
