"""Makes text that came from outside fit to be shown."""

import unicodedata

__all__ = ["clean"]

# Controls, surrogates and unassigned code points, and what turns the direction of the text around it.
UNWANTED = {"Cc", "Cs", "Cn", "Zl", "Zp"}
DIRECTION_OVERRIDES = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def clean(text: str) -> str:
    """The text in one line, without control characters and direction overrides.

    Emoji, combining marks and right-to-left letters stay as they are.
    """
    kept = (
        " " if character.isspace() else character
        for character in text
        if character.isspace()
        or (unicodedata.category(character) not in UNWANTED and character not in DIRECTION_OVERRIDES)
    )
    return " ".join("".join(kept).split())
