"""Turns what an engine heard into captions: an id, revisions, and whose words they are."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from agent.captions.attribution import Run, VoiceIn, attribute, run_of
from agent.captions.text import clean
from agent.values import Caption, Heard, Speaker, Word

__all__ = ["CaptionAssembler"]

UNSPACED = {"zh", "yue", "ja", "th", "lo", "my", "km", "bo"}  # written without blanks between words
MAX_TEXT_CHARS = 2_000  # four bytes each, and the packet still holds names and times within 15 000 bytes


class CaptionAssembler:
    """Assembles the captions of one session.

    An utterance becomes one caption for each run of one speaker's words. While it is open its captions are
    revised in place; with its final they become final and are never touched again. A turn that has to wait
    for its words has an empty caption, which its first words fill.
    """

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch
        self._last_number = 0
        self._open: dict[int, list[Caption]] = {}
        self._waiting: dict[int, Caption] = {}  # by turn

    def wait(self, turn: int, speaker: Speaker, start_ms: int) -> Caption | None:
        """Show that somebody speaks whose words will come; None where that is shown already."""
        if turn in self._waiting:
            return None
        caption = self._waiting[turn] = Caption(
            id=self._new_id(),
            revision=1,
            is_final=False,
            speaker=speaker,
            confidence=1.0,
            has_overlap=True,
            text="",
            stable_chars=0,
            language="",
            start_ms=start_ms,
            end_ms=start_ms,
            is_waiting=True,
        )
        return caption

    def end(self, turn: int) -> list[Caption]:
        """No more words of a turn will come; one that waited for its first is withdrawn."""
        caption = self._waiting.pop(turn, None)
        return [] if caption is None else [_withdrawn(caption)]

    def hear(
        self,
        heard: Heard,
        voice_in: VoiceIn,
        speaker_of: Callable[[str], Speaker],
        identity: str | None = None,
    ) -> list[Caption]:
        """Give the captions that this changes, in order.

        Args:
            heard: The newest state of an utterance.
            voice_in: How much voice each identity had between two session times.
            speaker_of: Who an identity is.
            identity: Whose words they all are, where that is known.
        """
        before = self._open.pop(heard.utterance, [])
        if not before and clean(heard.text) and (waiting := self._waiting.pop(heard.turn, None)):
            before = [waiting]
        after = []
        changed = []
        for index, part in enumerate(_parts(heard, voice_in, identity)):
            old = before[index] if index < len(before) else None
            new = self._revise(old, heard, part, speaker_of(part.run.identity))
            after.append(new)
            if new is not old:
                changed.append(new)
        changed.extend(_withdrawn(old) for old in before[len(after) :])
        if not heard.is_final:
            self._open[heard.utterance] = after
        return changed

    def _revise(self, old: Caption | None, heard: Heard, part: "_Part", speaker: Speaker) -> Caption:
        new = Caption(
            id=old.id if old else self._new_id(),
            revision=old.revision + 1 if old else 1,
            is_final=heard.is_final,
            speaker=speaker,
            confidence=part.run.confidence,
            has_overlap=part.run.has_overlap,
            text=part.text,
            stable_chars=len(part.text) if heard.is_final else part.stable_chars,
            language=heard.language,
            start_ms=part.run.start_ms,
            end_ms=part.run.end_ms,
        )
        if old is None or heard.is_final:
            return new
        shown = (old.text, old.speaker, old.stable_chars)
        return old if shown == (new.text, new.speaker, new.stable_chars) else new

    def _new_id(self) -> str:
        self._last_number += 1
        return f"{self._epoch}-{self._last_number}"


@dataclass(frozen=True, slots=True)
class _Part:
    run: Run
    text: str
    stable_chars: int


def _parts(heard: Heard, voice_in: VoiceIn, identity: str | None) -> Iterator[_Part]:
    if not clean(heard.text):
        return
    if identity is None:
        runs = attribute(heard.words, heard.start_ms, heard.end_ms, voice_in)
    else:
        runs = [run_of(identity, len(heard.words), heard.start_ms, heard.end_ms, voice_in)]
    if len(runs) == 1:
        # The engine's own text knows better than its words where blanks and hyphens go.
        words = heard.words[: heard.stable_words]
        yield from _within_limit(runs[0], clean(heard.text), len(_joined(words, heard.language)))
        return
    for run in runs:
        words = heard.words[run.first : run.last]
        stable = words[: max(0, heard.stable_words - run.first)]
        if text := _joined(words, heard.language):
            yield from _within_limit(run, text, len(_joined(stable, heard.language)))


def _within_limit(run: Run, text: str, stable_chars: int) -> Iterator[_Part]:
    """An engine that loses itself may give a text without end: it becomes several captions."""
    for begin in range(0, len(text), MAX_TEXT_CHARS):
        piece = text[begin : begin + MAX_TEXT_CHARS]
        yield _Part(run, piece, min(max(stable_chars - begin, 0), len(piece)))


def _joined(words: Sequence[Word], language: str) -> str:
    blank = "" if language.partition("-")[0] in UNSPACED else " "
    return blank.join(text for word in words if (text := clean(word.text)))


def _withdrawn(caption: Caption) -> Caption:
    """This caption is to be taken away."""
    return replace(
        caption,
        revision=caption.revision + 1,
        text="",
        stable_chars=0,
        confidence=0.0,
        is_waiting=False,
    )
