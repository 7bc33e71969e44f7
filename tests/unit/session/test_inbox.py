import asyncio

import numpy as np

from agent.session.source import MAX_AUDIO_BLOCKS, AudioReceived, Inbox, TrackClosed


def block(number: int) -> AudioReceived:
    return AudioReceived("a", np.zeros(800, np.int16), float(number))


async def test_everything_comes_out_in_order_and_at_once():
    inbox = Inbox()
    events = [block(1), TrackClosed("a"), block(2)]
    for event in events:
        inbox.put(event)
    assert list(await inbox.take()) == events


async def test_slow_session_loses_the_oldest_audio_and_no_other_event():
    inbox = Inbox()
    inbox.put(TrackClosed("a"))
    for number in range(MAX_AUDIO_BLOCKS + 3):
        inbox.put(block(number))
    events = await inbox.take()
    assert events[0] == TrackClosed("a")
    assert events[1].received_s == 3.0
    assert len(events) == MAX_AUDIO_BLOCKS + 1
    assert inbox.dropped_ms == 3 * 50


async def test_audio_that_somebody_else_has_heard_is_forgotten_and_nothing_else():
    inbox = Inbox()
    for event in (block(1), TrackClosed("a"), block(2), block(3)):
        inbox.put(event)
    inbox.forget_before(2.0)
    kept = list(await inbox.take())
    assert kept[0] == TrackClosed("a")
    assert [event.received_s for event in kept[1:]] == [3.0]
    assert inbox.dropped_ms == 0


async def test_forgotten_audio_makes_room_for_more():
    inbox = Inbox()
    for number in range(MAX_AUDIO_BLOCKS):
        inbox.put(block(number))
    inbox.forget_before(MAX_AUDIO_BLOCKS / 2)
    for number in range(MAX_AUDIO_BLOCKS // 2):
        inbox.put(block(MAX_AUDIO_BLOCKS + number))
    await inbox.take()
    assert inbox.dropped_ms == 0


async def test_cancelled_wait_loses_nothing():
    inbox = Inbox()
    waiting = asyncio.create_task(inbox.take())
    await asyncio.sleep(0)
    inbox.put(block(1))
    waiting.cancel()
    await asyncio.wait([waiting])
    assert len(await asyncio.wait_for(inbox.take(), 1)) == 1
