from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("psutil", reason="psutil is in the dependency group bench")

from agent.ingest.meeting import Meeting, Segment
from benchmarks import live
from benchmarks.alignment import Word
from benchmarks.cut import Cut
from benchmarks.delays import Delays, Received
from benchmarks.process_cost import ProcessCost
from benchmarks.scoring import ErrorCount, Scores


def caption(id_: str, *, final: bool, text: str = "Right.") -> Received:
    event: Mapping[str, Any] = {
        "kind": "caption",
        "id": id_,
        "final": final,
        "text": text,
        "speaker": {"identity": "omar", "name": "Omar"},
        "start_ms": 1000,
        "end_ms": 1500,
    }
    return Received(datetime(2025, 3, 1, tzinfo=UTC), event)


def measured(delays: Delays, *, cpu_s: float, pss_bytes: int) -> live._Measured:
    segment = Segment("Omar", "Right.", -0.5, 8.0)  # the cut goes through it
    meeting = Meeting("a", {"Omar": np.zeros(0, np.int16)}, 48_000, 10.0, (segment,))
    return live._Measured(
        cut=Cut(Path("a"), meeting, [Word("right", 7.0, 8.0, "Omar", 0, matched=True)]),
        delays=delays,
        scores=Scores(wer=ErrorCount(1, 10), cpwer=ErrorCount(2, 10)),
        partials_share_s=[0.004],
        finals_share_s=[0.002],
        sent_s=12.0,
        cost=ProcessCost(cpu_s, 10.0, pss_bytes),
        load=0.5,
        skipped_s=0.0,
    )


def test_a_caption_is_open_until_it_is_final_or_withdrawn() -> None:
    log = [
        caption("1-1", final=False),
        caption("1-1", final=True),
        caption("1-2", final=False),
        caption("1-2", final=False, text=""),
        caption("1-3", final=False),
    ]

    assert live._open_captions(log) == {"1-3"}


def test_only_finals_are_scored() -> None:
    log = [caption("1-1", final=False), caption("1-1", final=True, text="Right, yes.")]

    assert list(live._finals(log)) == [Segment("Omar", "Right, yes.", 1.0, 1.5)]


def test_meetings_are_pooled_into_one_set_of_figures() -> None:
    one = measured(Delays((0.5,), (0.4,), (1.0,), 1, 0, 1, 0), cpu_s=2.0, pss_bytes=100_000_000)
    other = measured(Delays((0.7,), (0.6,), (), 2, 1, 1, 1), cpu_s=4.0, pss_bytes=120_000_000)

    figures = {figure.name: figure.value for figure in live._figures([one, other])}

    assert figures["shown_p50"] == 0.5
    assert figures["shown_max"] == 0.7
    assert figures["final_p95"] == 1.0
    assert (figures["words"], figures["words_never_shown"], figures["turns_without_final"]) == (3, 1, 1)
    assert (figures["wer"], figures["cpwer"]) == (10.0, 20.0)
    assert (figures["stt_seconds"], figures["speech_seconds"], figures["stt_per_speech"]) == (24.0, 16.0, 1.5)
    assert (figures["job_cpu"], figures["job_pss"]) == (0.3, 120.0)


def test_a_run_in_which_nothing_was_heard_has_figures_all_the_same() -> None:
    deaf = measured(Delays((), (), (), 1, 1, 1, 1), cpu_s=0.0, pss_bytes=1)

    figures = {figure.name: figure.value for figure in live._figures([deaf])}

    assert figures["shown_p50"] is None
    assert figures["final_p50"] is None
    assert list(live._remarks([deaf]))


def test_what_dominates_is_said_from_the_measured_parts() -> None:
    slow_engine = measured(Delays((0.5,), (0.4,), (1.0,), 1, 0, 1, 0), cpu_s=2.0, pss_bytes=1)
    slow_way = measured(Delays((0.5,), (0.1,), (1.0,), 1, 0, 1, 0), cpu_s=2.0, pss_bytes=1)

    assert next(live._remarks([slow_engine])).startswith("What dominates: recognition.")
    assert next(live._remarks([slow_way])).startswith("What dominates: the caption's way to the viewer.")
