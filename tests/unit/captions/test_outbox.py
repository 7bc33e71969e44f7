import itertools
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from agent.captions.outbox import MAX_EVENTS, MAX_PARTIALS, Outbox
from agent.values import Caption, Event, Speaker

AT = datetime(2026, 1, 1, tzinfo=UTC)


def caption(number: int, revision: int, *, final: bool = False) -> Event:
    made = Caption(
        f"1-{number}", revision, final, Speaker("n", "N"), 1.0, False, f"text {revision}", 0, "en", 0, 1
    )
    return Event("s", 1, "caption", AT, {}, seq=1 if final else None, caption=made)


def drained(outbox: Outbox, now_ms: int) -> list[tuple[str, int]]:
    got = []
    while (event := outbox.get(now_ms)) is not None:
        got.append((event.caption.id, event.caption.revision))
    return got


def test_partials_wait_for_their_turn_and_the_newest_wins():
    outbox = Outbox(partials_per_s=4)
    outbox.put(caption(1, 1))
    assert drained(outbox, 1_000) == [("1-1", 1)]
    outbox.put(caption(1, 2))
    outbox.put(caption(1, 3))
    assert drained(outbox, 1_100) == []
    assert outbox.due_ms() == 1_250
    assert drained(outbox, 1_250) == [("1-1", 3)]


def test_finals_never_wait_and_drop_the_partials_of_their_caption():
    outbox = Outbox(partials_per_s=4)
    outbox.put(caption(1, 1))
    drained(outbox, 1_000)
    outbox.put(caption(1, 2))
    outbox.put(caption(1, 3, final=True))
    assert drained(outbox, 1_001) == [("1-1", 3)]
    assert outbox.is_empty


def test_two_open_captions_take_turns():
    outbox = Outbox(partials_per_s=4)
    sent = []
    for now_ms in range(0, 1_000, 125):
        outbox.put(caption(1, now_ms + 1))
        outbox.put(caption(2, now_ms + 1))
        sent += drained(outbox, now_ms)
    assert {identity for identity, _ in sent} == {"1-1", "1-2"}
    assert len(sent) == 4


def test_queue_that_nobody_empties_stays_bounded_and_counts():
    outbox = Outbox(partials_per_s=4)
    for number in range(MAX_PARTIALS + 10):
        outbox.put(caption(number, 1))
    for number in range(MAX_EVENTS + 7):
        outbox.put(caption(1_000 + number, 1, final=True))
    assert outbox.dropped == 10 + 7
    assert len(drained(outbox, 0)) == MAX_EVENTS + 1


@given(st.lists(st.tuples(st.integers(1, 4), st.booleans(), st.integers(0, 400)), max_size=60))
def test_every_final_comes_out_once_in_order_and_partials_keep_their_pace(script):
    outbox = Outbox(partials_per_s=4)
    now_ms, finals, out, partial_times = 0, [], [], []
    for revision, (number, is_final, pause_ms) in enumerate(script, 1):
        now_ms += pause_ms
        outbox.put(caption(number, revision, final=is_final))
        if is_final:
            finals.append((f"1-{number}", revision))
        while (event := outbox.get(now_ms)) is not None:
            if event.caption.is_final:
                out.append((event.caption.id, event.caption.revision))
            else:
                partial_times.append(now_ms)
    assert out == finals
    assert all(later - earlier >= 250 for earlier, later in itertools.pairwise(partial_times))
