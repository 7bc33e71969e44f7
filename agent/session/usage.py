"""What each participant uses: time of speech, and a share of what speech recognition is paid for."""

from collections import defaultdict
from collections.abc import Iterator, Mapping

from persistence.records import Usage

__all__ = ["NOBODY", "UsageMeter"]

NOBODY = ""  # audio that is recognised while nobody speaks


class UsageMeter:
    """Sums up one epoch. What is recognised is shared out among those who spoke meanwhile."""

    def __init__(self) -> None:
        self._speech_ms: defaultdict[str, float] = defaultdict(float)
        self._stt_ms: defaultdict[str, float] = defaultdict(float)
        self._unshared_ms: dict[str, float] = {}
        self._told: dict[str, Usage] = {}
        self._shared_out_ms = 0

    def add_speech(self, identity: str, voice_ms: float) -> None:
        """Somebody had so much voice."""
        self._speech_ms[identity] += voice_ms
        self._unshared_ms[identity] = self._unshared_ms.get(identity, 0.0) + voice_ms

    def changes(self, sent_ms: int, covered_ms: Mapping[str, float]) -> Iterator[Usage]:
        """What everybody has used so far, of whom it is more than when this was asked last.

        Args:
            sent_ms: What was sent to speech recognition so far, over all participants.
            covered_ms: By identity, the speech that is in final captions so far.
        """
        sent_now_ms, self._shared_out_ms = sent_ms - self._shared_out_ms, sent_ms
        voice_ms = sum(self._unshared_ms.values())
        # Two who speak at once are recognised in one go; nobody is charged for what is not speech.
        used_ms = min(voice_ms, sent_now_ms)
        for identity, own_ms in self._unshared_ms.items():
            if own_ms:
                self._stt_ms[identity] += used_ms * own_ms / voice_ms
        self._stt_ms[NOBODY] += sent_now_ms - used_ms
        self._unshared_ms.clear()
        for identity in sorted(self._speech_ms.keys() | self._stt_ms.keys()):
            speech_ms, stt_ms = round(self._speech_ms[identity]), round(self._stt_ms[identity])
            usage = Usage(
                identity=identity,
                speech_ms=speech_ms,
                stt_ms=stt_ms,
                covered_ms=min(round(covered_ms.get(identity, 0.0)), speech_ms),
            )
            if usage != self._told.get(identity):
                self._told[identity] = usage
                yield usage
