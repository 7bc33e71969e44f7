"""How values are put into words on pages: times, lengths, shares, and why something is missing. Pure."""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from types import MappingProxyType

__all__ = [
    "drop",
    "due",
    "duration",
    "gap",
    "missing",
    "moment",
    "plural",
    "share",
    "step",
    "time",
    "timestamp",
]

# What codes mean to a person. One that is not known here is shown as it is, without underscores.
DROPS: Mapping[str, str] = MappingProxyType(
    {
        "no_quote": "no words were given for it",
        "unknown_utterance": "it pointed at words that are not in the transcript",
        "not_consecutive": "its words are not one person's in a row",
        "quote_not_found": "its words were not found where it said",
        "negation": "its words say the opposite",
        "number": "it has a number that its words do not have",
        "owner_absent": "its owner was not there",
        "owner_ambiguous": "its owner may be several people",
        "due_not_said": "its date was not said",
        "unsupported": "its words do not say it",
    }
)
GAPS: Mapping[str, str] = MappingProxyType(
    {
        "agent_away": "no agent was there",
        "engine": "no speech engine could be reached",
        "backlog": "the speech engine could not keep up",
    }
)
MISSING: Mapping[str, str] = MappingProxyType(
    {
        "audio": "audio that could not be read",
        "journal": "words that were still on a worker's disk",
    }
)
STEPS: Mapping[str, str] = MappingProxyType(
    {
        "": "waiting for its turn",
        "settle": "waiting for the last words and sounds",
        "statistics": "counting who spoke how long",
        "analyse": "looking for statements and checking their evidence",
        "store": "writing it down",
        "mix": "mixing the recording",
    }
)


def time(at_ms: int) -> str:
    """A session time: `1:02` or `1:00:02`."""
    minutes, seconds = divmod(max(at_ms, 0) // 1000, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def duration(ms: int) -> str:
    """How long something is, by its two largest units: `1 h 5 min`, `1 min 47 s`, `12 s`."""
    if 0 < ms < 1000:
        return "less than 1 s"
    minutes, seconds = divmod(round(max(ms, 0) / 1000), 60)
    hours, minutes = divmod(minutes, 60)
    units = [(hours, "h"), (minutes, "min"), (seconds, "s")]
    while len(units) > 1 and not units[0][0]:
        units.pop(0)
    return " ".join(f"{count} {unit}" for count, unit in units[:2] if count) or "0 s"


def moment(at: datetime) -> str:
    """A wall time in UTC: `3 May 2026, 09:05 UTC`."""
    at = at.astimezone(UTC)
    return f"{at.day} {at:%b %Y, %H:%M} UTC"


def timestamp(at: datetime) -> str:
    """The same for programs: RFC 3339 in UTC."""
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def share(part: float) -> str:
    """A share in per cent; what is nearly all or nearly nothing is not said to be all or nothing."""
    if 0 < part < 0.01:
        return "less than 1 %"
    return f"{99 if 0.99 < part < 1 else round(part * 100)} %"


def plural(count: int, one: str, many: str = "") -> str:
    """`1 person`, `2 people`."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def due(said: str) -> str:
    """Until when: a date is written out, words of somebody begin like a sentence."""
    try:
        day = date.fromisoformat(said.strip())
    except ValueError:
        return said[:1].upper() + said[1:]
    return f"{day.day} {day:%b %Y}"


def drop(reason: str) -> str:
    """Why a statement was dropped."""
    return _known(DROPS, reason)


def gap(reason: str) -> str:
    """Why something was not heard."""
    return _known(GAPS, reason)


def missing(what: str) -> str:
    """What an analysis had to do without."""
    return _known(MISSING, what)


def step(name: str) -> str:
    """What an analysis is doing."""
    return _known(STEPS, name)


def _known(words: Mapping[str, str], code: str) -> str:
    return words.get(code) or code.replace("_", " ")
