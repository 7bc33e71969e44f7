"""What viewers are told of how the captions are doing: state, coverage and lag."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace

import jsonschema
import pytest

from agent.captions.protocol import encode, schema
from agent.session.session import DELAYED_MS, STATE_INTERVAL_S
from agent.session.source import SourceEvent, TrackOpened
from agent.values import Samples, Speaker, Track
from plugins.stt.traits import Traits
from tests.support.numbered_speech import NumberSTT, heard, numbered, said
from tests.support.scripted_source import ScriptedSource, audio
from tests.support.transcribing import PLAIN
from tests.support.virtual_session import Published, run_session

# Somebody says something for a second in each four.
SENTENCES = numbered(1, [(at_s, at_s + 1) for at_s in range(1, 69, 4)], 70)
AWAY_S, BACK_S = 12.0, 42.0
LONG_S = 10.0  # what nobody would call live

Do = Callable[[NumberSTT], None]


def run(*tracks: Samples, traits: Traits = PLAIN, at: dict[float, Do] | None = None) -> Published:
    """Everybody is there from the beginning; `at` some seconds something is done to the engine."""
    script: list[tuple[float, SourceEvent]] = []
    for number, samples in enumerate(tracks):
        opened = Track(f"mic-{number}", Speaker(f"p{number}", f"Person {number}"))
        script += [(0, TrackOpened(opened)), *audio(opened.id, samples, start_s=0, block_ms=128)]

    def new_engine() -> NumberSTT:
        engine = NumberSTT()
        for when_s, do in (at or {}).items():
            asyncio.get_running_loop().call_at(when_s, do, engine)
        return engine

    published = run_session(ScriptedSource(script), new_engine, traits=traits)
    for _, event in published.events:
        if event.kind == "state":
            jsonschema.validate(json.loads(encode(event)), schema("state"))
    return published


def refuse(engine: NumberSTT) -> None:
    engine.refuses = True


def accept(engine: NumberSTT) -> None:
    engine.refuses = False


def told(published: Published, figure: str, from_s: float, until_s: float) -> list[float]:
    """What states said of a figure in this time, in order."""
    return [
        event.body[figure]
        for at_s, event in published.events
        if event.kind == "state" and from_s < at_s <= until_s
    ]


@pytest.fixture(scope="module")
def outage() -> Published:
    """The engine is away for half a minute, which is less than audio is kept."""
    return run(SENTENCES, at={AWAY_S: refuse, BACK_S: accept})


def test_each_stretch_of_speech_is_shown_once_however_often_an_engine_is_tried(outage: Published):
    waiting = [caption for caption in outage.captions if caption.is_waiting]
    assert waiting
    assert len({caption.id for caption in waiting}) == len({caption.start_ms for caption in waiting})
    closed = {caption.id for caption in outage.captions if not caption.is_waiting}
    assert {caption.id for caption in waiting} <= closed


def test_coverage_falls_with_what_an_engine_did_not_hear_and_rises_with_what_it_does():
    """It answers all the while, so that nothing else tells."""
    samples = numbered(1, [(1, 6), (21, 26), (31, 36)], 45)

    def deafen(engine: NumberSTT) -> None:
        engine.is_deaf = not engine.is_deaf

    published = run(samples, at={15.0: deafen, 29.0: deafen})
    assert set(told(published, "coverage", 0, 20.5)) == {1.0}
    assert told(published, "coverage", 26, 35) == [pytest.approx(1 / 2, abs=0.02)]
    assert told(published, "coverage", 37, 44) == [pytest.approx(2 / 3, abs=0.02)]
    assert published.report.coverage == pytest.approx(2 / 3, abs=0.02)
    assert published.captions_states == [("live", None), ("off", "ended")]


def test_engine_that_is_away_is_told_as_degraded_and_live_when_it_is_back(outage: Published):
    before, degraded, *after = outage.captions_states
    assert (before, degraded) == (("live", None), ("degraded", "engine"))
    # How late it is then depends on when it was tried again, which is partly random.
    assert set(after[:-2]) <= {("live", None), ("delayed", "backlog")}
    assert after[-2:] == [("live", None), ("off", "ended")]
    assert "engine" not in told(outage, "captions_reason", 0, AWAY_S)
    # What was said meanwhile comes all the same.
    assert sorted(heard(outage.finals, "p0")) == said(SENTENCES)
    assert outage.report.coverage == pytest.approx(1.0, abs=0.02)


def test_lag_rises_while_an_engine_is_away(outage: Published):
    away = told(outage, "lag_ms", AWAY_S + STATE_INTERVAL_S / 2, BACK_S)
    assert len(away) >= 2
    assert away == sorted(away)
    assert away[-1] >= LONG_S * 1000


def test_lag_of_what_was_said_during_an_outage_is_told_and_is_soon_over(outage: Published):
    assert max(told(outage, "lag_ms", 0, AWAY_S)) < 2_000
    assert max(told(outage, "lag_ms", BACK_S, BACK_S + STATE_INTERVAL_S)) >= LONG_S * 1000
    assert max(told(outage, "lag_ms", BACK_S + STATE_INTERVAL_S, 70)) < 2_000


def test_backlog_is_told_as_delayed_and_live_when_it_is_over():
    """Two who speak at once for longer than one of them is called late."""
    published = run(
        numbered(1, [(1, 11)], 40), numbered(2, [(1.5, 11)], 40), traits=replace(PLAIN, burst_rate=1.5)
    )
    assert published.captions_states == [
        ("live", None),
        ("delayed", "backlog"),
        ("live", None),
        ("off", "ended"),
    ]
    late_s = next(
        at_s
        for at_s, event in published.events
        if event.kind == "state" and event.body["captions"] == "delayed"
    )
    assert late_s == pytest.approx(1.5 + DELAYED_MS / 1000, abs=1.0)
    assert max(told(published, "lag_ms", late_s, 40)) >= DELAYED_MS
    assert told(published, "coverage", 30, 40)[-1] == pytest.approx(1.0, abs=0.02)
