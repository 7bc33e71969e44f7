"""What an analysis reads: who said what, and when. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from agent.values import Speaker

__all__ = ["Transcript", "Utterance"]


@dataclass(frozen=True, slots=True)
class Utterance:
    """A final caption. Offsets of evidence count characters of its `text`."""

    id: str
    speaker: Speaker
    text: str
    start_ms: int
    end_ms: int

    def at_ms(self, offset: int) -> int:
        """About when the character at an offset was said: no times of single words are stored."""
        share = min(max(offset, 0) / len(self.text), 1.0) if self.text else 0.0
        return self.start_ms + round(share * (self.end_ms - self.start_ms))


class Transcript:
    """The utterances of a session in the order in which they were said, and who was there.

    Args:
        utterances: In order; each id once.
        present: Those who were there without a word.
    """

    def __init__(self, utterances: Iterable[Utterance], present: Iterable[Speaker] = ()) -> None:
        self._utterances = tuple(utterances)
        self._by_id = {utterance.id: utterance for utterance in self._utterances}
        # The place of each among what its speaker said.
        counts: dict[str, int] = {}
        self._places: dict[str, int] = {}
        for utterance in self._utterances:
            identity = utterance.speaker.identity
            self._places[utterance.id] = counts[identity] = counts.get(identity, -1) + 1
        speakers = [utterance.speaker for utterance in self._utterances]
        self.people = tuple(dict.fromkeys([*speakers, *present]))

    def __iter__(self) -> Iterator[Utterance]:
        return iter(self._utterances)

    def __len__(self) -> int:
        return len(self._utterances)

    def get(self, id_: str) -> Utterance | None:
        """The utterance with this id, if there is one."""
        return self._by_id.get(id_)

    def are_consecutive(self, utterances: Iterable[Utterance]) -> bool:
        """Whether one person said them one after the other, whoever spoke in between."""
        chosen = list(utterances)
        if len({utterance.speaker.identity for utterance in chosen}) > 1:
            return False
        places = [self._places[utterance.id] for utterance in chosen]
        return places == list(range(places[0], places[0] + len(places))) if places else True
