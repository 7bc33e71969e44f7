"""What an analysis of a kind of session looks for: a file in `prompts/`. Pure.

A scenario is a text with TOML between two lines of `+++` at its beginning; what follows is what a model is
told, in sections that begin with `# name`.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agent.errors import ConfigError

__all__ = ["KINDS", "Kind", "Scenario", "parse"]

FENCE = "+++"
SYSTEM = "system"  # the section that every scenario has; the others are called as its kinds of statement
KINDS = ("decision", "action", "question", "risk", "highlight")  # those that are found without a model
_HEADING = re.compile(r"^# +(\S.*?)\s*$", re.MULTILINE)


class Kind(BaseModel):
    """A kind of statement, as the scenario calls it and as pages show it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Literal["decision", "action", "question", "risk", "highlight"]
    title: Annotated[str, Field(min_length=1, max_length=60)]
    has_owner: bool = False


class _Front(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$")]
    version: Annotated[int, Field(ge=1)]
    title: Annotated[str, Field(min_length=1, max_length=60)]
    language: Annotated[str, Field(pattern=r"^[a-z]{2,3}$")]
    statements: Annotated[tuple[Kind, ...], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class Scenario:
    """What to look for, and the texts for who looks.

    Attributes:
        id: Its name, which is that of its file.
        version: Rises with every change of what it finds.
        title: For people.
        language: In which its texts and titles are, as an ISO 639-1 code.
        kinds: Of statements, in the order in which they are shown.
        texts: By the heading of their section.
    """

    id: str
    version: int
    title: str
    language: str
    kinds: tuple[Kind, ...]
    texts: Mapping[str, str]


def parse(name: str, source: str) -> Scenario:
    """Read a scenario.

    Args:
        name: Of its file, without the ending: its id has to be the same.
        source: All of the file.

    Raises:
        ConfigError: Something is missing or wrong; the message names the file and the place.
    """
    lines = source.replace("\r\n", "\n").split("\n")
    if lines[0].strip() != FENCE or FENCE not in (line.strip() for line in lines[1:]):
        raise ConfigError(f"scenario {name}: it has to begin with TOML between two lines of {FENCE}")
    end = next(number for number, line in enumerate(lines[1:], 1) if line.strip() == FENCE)
    try:
        # With a line in the place of the fence, so that errors count lines as the file does.
        front = _Front.model_validate(tomllib.loads("\n".join(["", *lines[1:end], ""])))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"scenario {name}: between the lines of {FENCE} is no TOML: {error}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"scenario {name}: {place} is wrong: {first['msg']}") from None
    if front.id != name:
        raise ConfigError(f"scenario {name}: its id is {front.id!r}; it has to be the name of the file")
    kinds = [kind.id for kind in front.statements]
    if (twice := _twice(kinds)) is not None:
        raise ConfigError(f"scenario {name}: statements has the kind {twice!r} twice; leave one")
    texts = _texts(name, "\n".join(lines[end + 1 :]))
    if missing := [section for section in (SYSTEM, *kinds) if section not in texts]:
        raise ConfigError(
            f"scenario {name}: the section {missing[0]!r} is missing; "
            f"write a line `# {missing[0]}` with a text below it"
        )
    return Scenario(front.id, front.version, front.title, front.language, front.statements, texts)


def _texts(name: str, body: str) -> Mapping[str, str]:
    headings = list(_HEADING.finditer(body))
    if not headings or body[: headings[0].start()].strip():
        raise ConfigError(f"scenario {name}: its text has to begin with a heading, `# {SYSTEM}`")
    ends = [*(heading.start() for heading in headings[1:]), len(body)]
    texts = {
        heading.group(1): body[heading.end() : end].strip()
        for heading, end in zip(headings, ends, strict=True)
    }
    if (twice := _twice([heading.group(1) for heading in headings])) is not None:
        raise ConfigError(f"scenario {name}: the section {twice!r} is there twice; leave one")
    if empty := [title for title, text in texts.items() if not text]:
        raise ConfigError(f"scenario {name}: the section {empty[0]!r} is empty")
    return texts


def _twice(names: Sequence[str]) -> str | None:
    """The first of several names that comes again."""
    return next((name for place, name in enumerate(names) if name in names[:place]), None)
