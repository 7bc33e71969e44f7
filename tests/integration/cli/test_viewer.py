import asyncio
from collections.abc import AsyncIterator, Callable

import pytest_asyncio
from livekit import api, rtc

from agent.captions.protocol import EVENTS_TOPIC
from agent.cli.local_livekit import LocalLiveKit
from agent.room.dispatch import Rooms
from agent.room.player import Talker
from agent.room.viewer import TRANSCRIPTION_TOPIC, Viewer
from tests.integration.cli.conftest import HiddenAgent

LIMIT_S = 10.0


@pytest_asyncio.fixture
async def viewer(
    livekit: LocalLiveKit, rooms: Rooms, room_name: str, hidden_agent: HiddenAgent
) -> AsyncIterator[Viewer]:
    """In a room with the agent."""
    async with Viewer() as viewer:
        await viewer.join(livekit.url, rooms.token(room_name, "viewer"))
        await hidden_agent.join(room_name)
        yield viewer


async def test_events_come_in_order_with_their_time(viewer: Viewer, hidden_agent: HiddenAgent) -> None:
    for number in range(1, 4):
        await hidden_agent.say("Hello", number=number)

    received = []
    async with asyncio.timeout(LIMIT_S):
        async for event in viewer.events():
            received.append(event)
            if len(received) == 3:
                break

    assert [event.data["seq"] for event in received] == [1, 2, 3]
    assert sorted(event.received_at for event in received) == [event.received_at for event in received]


async def test_what_a_participant_sends_as_the_agent_is_counted_and_dropped(
    livekit: LocalLiveKit, rooms: Rooms, room_name: str, viewer: Viewer, hidden_agent: HiddenAgent
) -> None:
    known = asyncio.Event()
    viewer.room.on("participant_connected", lambda _: known.set())
    eve = await Talker.join(livekit.url, rooms.token(room_name, "eve"))
    await asyncio.wait_for(known.wait(), LIMIT_S)

    await eve.room.local_participant.publish_data(b'{"kind": "caption"}', topic=EVENTS_TOPIC)
    await asyncio.wait_for(until(lambda: viewer.forged == 1), LIMIT_S)
    await hidden_agent.say("Genuine")

    event = await asyncio.wait_for(anext(viewer.events()), LIMIT_S)
    assert event.data["text"] == "Genuine"
    await eve.leave()


async def test_what_is_no_json_object_is_counted(viewer: Viewer, hidden_agent: HiddenAgent) -> None:
    for data in (b"\xff", b"[1]"):
        await hidden_agent.room.local_participant.publish_data(data, topic=EVENTS_TOPIC)

    await asyncio.wait_for(until(lambda: viewer.malformed == 2), LIMIT_S)


async def test_who_reads_too_slowly_loses_the_oldest(
    livekit: LocalLiveKit, rooms: Rooms, room_name: str, hidden_agent: HiddenAgent
) -> None:
    async with Viewer(capacity=2) as viewer:
        await viewer.join(livekit.url, rooms.token(room_name, "viewer"))
        await hidden_agent.join(room_name)
        for number in range(1, 6):
            await hidden_agent.say("Hello", number=number)
        await asyncio.wait_for(until(lambda: viewer.dropped == 3), LIMIT_S)

        assert (await anext(viewer.events())).data["seq"] == 4


async def test_captions_come_as_text_streams_too(
    livekit: LocalLiveKit, rooms: Rooms, room_name: str, viewer: Viewer, hidden_agent: HiddenAgent
) -> None:
    ada = await Talker.join(livekit.url, rooms.token(room_name, "ada"))
    attributes = {"lk.segment_id": "1-1", "lk.transcription_final": "true"}
    writer = await hidden_agent.room.local_participant.stream_text(
        topic=TRANSCRIPTION_TOPIC, attributes=attributes, sender_identity="ada"
    )
    await writer.write("Hello all.")
    await writer.aclose()

    text = await asyncio.wait_for(anext(viewer.texts()), LIMIT_S)

    assert (text.sender, text.text) == ("ada", "Hello all.")
    assert text.attributes == attributes
    await ada.leave()


async def test_a_viewer_stays_through_a_full_reconnect(viewer: Viewer, hidden_agent: HiddenAgent) -> None:
    reconnected = asyncio.Event()
    viewer.room.on("reconnected", lambda: reconnected.set())
    await viewer.room.simulate_scenario(rtc.SimulateScenarioKind.SIMULATE_FULL_RECONNECT)
    await asyncio.wait_for(reconnected.wait(), LIMIT_S)

    await hidden_agent.say("Still there?")

    event = await asyncio.wait_for(anext(viewer.events()), LIMIT_S)
    assert event.data["text"] == "Still there?"
    assert viewer.closed_reason is None


async def test_events_end_when_the_room_is_closed(
    server: api.LiveKitAPI, room_name: str, viewer: Viewer
) -> None:
    await server.room.delete_room(api.DeleteRoomRequest(room=room_name))

    async with asyncio.timeout(LIMIT_S):
        assert [event async for event in viewer.events()] == []
        assert [text async for text in viewer.texts()] == []
    assert viewer.closed_reason == "room_deleted"


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  a counter has nothing to wait for
        await asyncio.sleep(0.01)
