"""A session's speech recognition under virtual time, with engines that tell which audio they were given."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import inf

from agent.audio.activity import Window
from agent.audio.front_end import Closed, Opened
from agent.transcription.engine import Engine, Told
from agent.transcription.transcriber import Transcriber
from agent.values import Heard
from plugins.stt.traits import Traits
from tests.support.speech_windows import VOICE, in_time, windows_of
from tests.support.telling_stt import TellingSTT
from tests.support.virtual_time import run_virtual

__all__ = ["OVERLAPPING", "PLAIN", "SUM", "TALK", "Run", "assert_all_heard_once", "said", "transcribe"]

PLAIN = Traits(
    finalizes=True,
    acknowledges=True,
    recognizes=False,
    live_turns=1,
    burst_rate=inf,
    has_word_times=True,
    speculates=False,
    bills="stream",
    stall_after_s=5.0,
)
SUM = replace(PLAIN, finalizes=False, acknowledges=False)  # of an engine that gives no final on request


@dataclass
class Run:
    """What a transcriber told, each with when."""

    told: list[tuple[float, Told]] = field(default_factory=list)
    transcriber: Transcriber | None = None

    def of(self, kind: type) -> list:
        return [told for _, told in self.told if isinstance(told, kind)]

    @property
    def finals(self) -> list[Heard]:
        return [heard for heard in self.of(Heard) if heard.is_final and heard.text]

    def words(self, track_id: str) -> list[int]:
        return [
            int(word) for heard in self.finals if heard.track_id == track_id for word in heard.text.split()
        ]


def transcribe(
    windows: Sequence[Window],
    *engines: tuple[Callable[[], TellingSTT], Traits],
    at: dict[float, Callable[[], None]] | None = None,
    keyterms_at: dict[float, Sequence[str]] | None = None,
    then_s: float = 5.0,
) -> Run:
    """Let the windows come in real time, then go on for `then_s`, and finish.

    `at` some seconds something is done, or key terms are set.
    """
    run = Run()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        made = [
            Engine(f"engine-{number}", make(), traits)
            for number, (make, traits) in enumerate(engines, start=1)
        ]
        run.transcriber = transcriber = Transcriber(made)
        running = asyncio.create_task(transcriber.run(lambda told: run.told.append((loop.time(), told))))
        for when_s, do in (at or {}).items():
            loop.call_at(when_s, do)
        for when_s, terms in (keyterms_at or {}).items():
            loop.call_at(when_s, transcriber.set_keyterms, terms)
        tracks = sorted({window.track_id for window in windows})
        transcriber.push([Opened(track) for track in tracks], 0)
        for window in windows:
            await asyncio.sleep(max(window.end_ms / 1000 - loop.time(), 0))
            transcriber.push([window], window.end_ms)
        transcriber.push([Closed(track) for track in tracks], round(loop.time() * 1000))
        end_s = loop.time() + then_s
        while loop.time() < end_s:
            await asyncio.sleep(0.2)
            transcriber.push([], round(loop.time() * 1000))
        transcriber.finish()
        async with asyncio.timeout(30):
            await running
        transcriber.give_up()
        for engine in made:
            await engine.stt.aclose()

    run_virtual(main())
    return run


def said(windows: Sequence[Window]) -> list[int]:
    return [int(window.samples[0]) for window in windows if window.probability == VOICE]


def assert_all_heard_once(run: Run, windows: Sequence[Window]) -> None:
    for track_id in {window.track_id for window in windows}:
        words = run.words(track_id)
        own = [window for window in windows if window.track_id == track_id]
        assert set(said(own)) <= set(words), "words were lost"
        assert not [word for word, count in Counter(words).items() if count > 1], "words came twice"


TALK = windows_of("a", [(320, 2_560), (4_000, 6_400), (8_000, 9_600)], 11_008)
OVERLAPPING = list(
    in_time(
        TALK,
        windows_of("b", [(1_600, 3_200), (5_600, 6_720)], 11_008),
        windows_of("c", [(2_240, 2_880)], 11_008),
    )
)
