"""Who has used how much of speech recognition."""

from hypothesis import given
from hypothesis import strategies as st

from agent.session.usage import NOBODY, UsageMeter


def changes(meter: UsageMeter, sent_ms: int) -> dict[str, tuple[int, int]]:
    return {usage.identity: (usage.speech_ms, usage.stt_ms) for usage in meter.changes(sent_ms, {})}


def test_one_who_speaks_alone_has_used_their_own_speech_and_nobody_the_silence():
    meter = UsageMeter()
    meter.add_speech("nora", 4_000)
    assert changes(meter, 10_000) == {NOBODY: (0, 6_000), "nora": (4_000, 4_000)}


def test_two_who_speak_at_once_share_what_was_sent():
    meter = UsageMeter()
    meter.add_speech("nora", 3_000)
    meter.add_speech("omar", 1_000)
    assert changes(meter, 2_000) == {NOBODY: (0, 0), "nora": (3_000, 1_500), "omar": (1_000, 500)}


def test_totals_go_on_from_one_look_to_the_next():
    meter = UsageMeter()
    meter.add_speech("nora", 1_000)
    changes(meter, 1_000)
    meter.add_speech("omar", 500)
    assert changes(meter, 2_000) == {NOBODY: (0, 500), "omar": (500, 500)}


def test_who_has_used_nothing_more_is_not_told_again():
    meter = UsageMeter()
    meter.add_speech("nora", 1_000)
    changes(meter, 1_000)
    assert changes(meter, 1_000) == {}


@given(
    st.lists(
        st.tuples(st.dictionaries(st.sampled_from("abc"), st.integers(0, 5_000)), st.integers(0, 5_000)),
        max_size=8,
    )
)
def test_everything_that_was_sent_is_somebodys_or_nobodys(steps: list[tuple[dict[str, int], int]]):
    meter = UsageMeter()
    sent_ms = 0
    found: dict[str, tuple[int, int]] = {}
    for voices, sent_now_ms in steps:
        for identity, voice_ms in voices.items():
            meter.add_speech(identity, voice_ms)
        sent_ms += sent_now_ms
        found |= changes(meter, sent_ms)
    assert abs(sum(stt_ms for _, stt_ms in found.values()) - sent_ms) <= len(found) / 2 + 1
