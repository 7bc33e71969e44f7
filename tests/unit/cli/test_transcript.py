from typing import Any

import pytest

from agent.cli.transcript import Line, Notice, Transcript

ADA = {"identity": "ada", "name": "Ada"}


def caption(**changes: Any) -> dict[str, Any]:
    event = {
        "v": 1, "kind": "caption", "session": "s", "epoch": 1, "id": "1-1", "rev": 1, "final": False,
        "speaker": ADA, "waiting": False, "text": "Hello", "start_ms": 1_000,
    }  # fmt: skip
    return event | changes


def state(**changes: Any) -> dict[str, Any]:
    event = {
        "v": 1, "kind": "state", "session": "s", "epoch": 1, "captions": "live", "captions_reason": None,
        "recording": "on", "recording_reason": None, "unheard": [],
    }  # fmt: skip
    return event | changes


def test_a_partial_is_open_until_its_final_is_printed() -> None:
    transcript = Transcript()

    assert transcript.take(caption()) == []
    assert [line.text for line in transcript.open_lines] == ["Hello"]
    assert transcript.take(caption(rev=2, final=True, text="Hello all.")) == [
        Line("ada", "Ada", "Hello all.", 1_000)
    ]
    assert transcript.open_lines == []


def test_a_late_partial_does_not_bring_a_final_back() -> None:
    transcript = Transcript()
    transcript.take(caption(rev=2, final=True))

    transcript.take(caption(rev=1))

    assert transcript.open_lines == []


def test_an_open_caption_without_text_is_withdrawn_unless_it_waits() -> None:
    transcript = Transcript()
    transcript.take(caption())
    transcript.take(caption(id="1-2", text="", waiting=True, start_ms=2_000))

    transcript.take(caption(rev=2, text=""))

    assert [line.start_ms for line in transcript.open_lines] == [2_000]


def test_open_captions_stand_in_the_order_of_their_beginnings() -> None:
    transcript = Transcript()
    transcript.take(caption(id="1-2", text="second", start_ms=2_000))
    transcript.take(caption(id="1-1", text="first", start_ms=1_000))

    assert [line.text for line in transcript.open_lines] == ["first", "second"]


def test_an_agent_that_was_succeeded_is_not_listened_to() -> None:
    transcript = Transcript()
    transcript.take(caption(epoch=1))
    transcript.take(caption(epoch=2, id="2-1", text="from the successor"))

    assert transcript.take(caption(epoch=1, rev=9, final=True)) == []
    assert [line.text for line in transcript.open_lines] == ["from the successor"]


def test_a_new_session_begins_anew() -> None:
    transcript = Transcript()
    transcript.take(caption(epoch=3, rev=5))

    transcript.take(caption(session="t", epoch=1, rev=1, text="another meeting"))

    assert [line.text for line in transcript.open_lines] == ["another meeting"]


def test_control_characters_of_others_never_reach_the_terminal() -> None:
    transcript = Transcript()
    speaker = {"identity": "eve\x07", "name": "\x1b]0;owned\x07Eve\u202e"}

    [line] = transcript.take(caption(final=True, speaker=speaker, text="a\x1b[2Jb\nc\x9bd"))

    assert line == Line("eve", "]0;ownedEve", "a[2Jb cd", 1_000)


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"kind": "caption", "session": "s", "epoch": "one"},
        caption(speaker=None),
        caption(speaker={"identity": 7}),
        caption(rev="x"),
        caption(text=None),
        state(unheard=None),
        {"kind": "unknown", "session": "s", "epoch": 1},
    ],
)
def test_an_event_of_another_shape_is_ignored(event: dict[str, Any]) -> None:
    transcript = Transcript()

    assert transcript.take(event) == []
    assert transcript.open_lines == []


def test_state_is_said_when_it_changes_and_when_it_is_good_again() -> None:
    transcript = Transcript()
    degraded = state(captions="degraded", captions_reason="engine away")

    assert transcript.take(state()) == []
    assert transcript.take(degraded) == [Notice("captions: degraded, engine away")]
    assert transcript.take(degraded) == []
    assert transcript.take(state()) == [Notice("captions: all right again")]


def test_who_is_not_heard_is_named_with_the_reason() -> None:
    unheard = [{"identity": "Omar", "reason": "e2ee"}]

    assert Transcript().take(state(unheard=unheard)) == [
        Notice("Omar is not heard: the microphone is end-to-end encrypted")
    ]


@pytest.mark.parametrize(
    ("start_ms", "clock"), [(0, "00:00"), (61_999, "01:01"), (3_599_000, "59:59"), (3_600_000, "1:00:00")]
)
def test_the_clock_has_hours_from_the_first_one_on(start_ms: int, clock: str) -> None:
    assert Line("ada", "Ada", "", start_ms).clock == clock


def test_what_people_are_to_be_told_is_printed() -> None:
    notice = {
        "v": 1,
        "kind": "notice",
        "session": "s",
        "epoch": 1,
        "code": "limit_idle",
        "text": "All\x1b over.",
    }

    assert Transcript().take(notice) == [Notice("All over.")]
