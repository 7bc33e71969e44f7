"""Who said the words that were recognised in a sum of several voices."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from agent.values import Word

__all__ = ["UNKNOWN", "Run", "VoiceIn", "attribute", "run_of"]

VoiceIn = Callable[[int, int], Mapping[str, float]]
"""Gives the milliseconds of voice between two session times, by identity of all who could be heard there."""

UNKNOWN = ""  # the identity of a run in which several could be heard, and nobody's voice was found
SWITCH_COST_MS = 200  # word times are off by about as much, so less voice than that proves no other speaker
WORD_MARGIN_MS = 40  # a recogniser gives short words no length at all
MIN_VOICE_MS = 60.0  # two windows of the detector: less in a whole utterance is noise, and names nobody
OVERLAP_MS = 300  # a second voice shorter than this is breath, bleed or the edge of a turn


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive words of one person: `words[first:last]` of what was attributed.

    `confidence` is the share of this person's voice among all voice in the run, 0 where there is none.
    """

    identity: str
    first: int
    last: int
    start_ms: int
    end_ms: int
    confidence: float
    has_overlap: bool


def attribute(words: Sequence[Word], start_ms: int, end_ms: int, voice_in: VoiceIn) -> list[Run]:
    """Split an utterance into runs of words, each with the person who has the most voice in it.

    A change of speaker must explain at least `SWITCH_COST_MS` of voice that would else be another's: the
    cheapest assignment of words to speakers under that cost is found by dynamic programming (Viterbi).

    Args:
        words: The recognised words in order; none where the engine gives no word times.
        start_ms: Where the utterance begins, in session time.
        end_ms: Where it ends.
        voice_in: How much voice each person had between two session times.

    Returns:
        At least one run; together they cover all words.
    """
    whole = voice_in(start_ms - WORD_MARGIN_MS, end_ms + WORD_MARGIN_MS)
    speakers = sorted(identity for identity, voice_ms in whole.items() if voice_ms >= MIN_VOICE_MS)
    if not speakers and len(whole) == 1:
        speakers = list(whole)  # nobody else could be heard, whatever the detector says
    if not words or len(speakers) < 2:
        strongest = max(speakers, key=whole.__getitem__, default=UNKNOWN)
        return [_run(strongest, 0, len(words), start_ms, end_ms, voice_in)]
    voices = [voice_in(w.start_ms - WORD_MARGIN_MS, w.end_ms + WORD_MARGIN_MS) for w in words]
    path = _cheapest_path(voices, speakers)
    runs = []
    first = 0
    for index in range(1, len(words) + 1):
        if index == len(words) or path[index] != path[first]:
            begin_ms = start_ms if first == 0 else words[first].start_ms
            finish_ms = end_ms if index == len(words) else words[index - 1].end_ms
            runs.append(_run(path[first], first, index, begin_ms, max(begin_ms, finish_ms), voice_in))
            first = index
    return runs


def run_of(identity: str, words: int, start_ms: int, end_ms: int, voice_in: VoiceIn) -> Run:
    """All `words` words of an utterance as one person's, whose own track they were heard in.

    Its confidence is 1: who else spoke meanwhile was not in that track.
    """
    run = _run(identity, 0, words, start_ms, end_ms, voice_in)
    return replace(run, confidence=1.0)


def _cheapest_path(voices: Sequence[Mapping[str, float]], identities: Sequence[str]) -> list[str]:
    """For each word the identity that leaves the least voice unexplained."""
    costs = dict.fromkeys(identities, 0.0)
    steps: list[dict[str, str]] = []
    for voice in voices:
        total = sum(voice.values())
        cheapest = min(identities, key=costs.__getitem__)
        step, following = {}, {}
        for identity in identities:
            stays = costs[identity] <= costs[cheapest] + SWITCH_COST_MS
            origin = identity if stays else cheapest
            step[identity] = origin
            following[identity] = (
                costs[origin] + (0 if stays else SWITCH_COST_MS) + total - voice.get(identity, 0.0)
            )
        steps.append(step)
        costs = following
    path = [min(identities, key=costs.__getitem__)]
    for step in reversed(steps[1:]):
        path.append(step[path[-1]])
    return path[::-1]


def _run(identity: str, first: int, last: int, start_ms: int, end_ms: int, voice_in: VoiceIn) -> Run:
    voice = voice_in(start_ms, end_ms)
    total = sum(voice.values())
    share = voice.get(identity, 0.0) / total if total > 0 else 0.0
    others = max((ms for other, ms in voice.items() if other != identity), default=0.0)
    return Run(identity, first, last, start_ms, end_ms, round(share, 3), others >= OVERLAP_MS)
