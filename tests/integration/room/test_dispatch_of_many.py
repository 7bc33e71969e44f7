"""No room that asks for the agent is left without it by a burst, a limit or the dispatch mode."""

import asyncio
from contextlib import AsyncExitStack

from livekit import api

from agent.cli.local_livekit import LocalLiveKit
from agent.room.dispatch import Rooms
from agent.room.viewer import Viewer
from tests.support.gathering import settings_for, until

BURST = 6
COMES_S = 3.0
ALL_IN_S = 60.0  # each of their processes loads a model, on two cores


async def test_six_rooms_created_at_once_all_get_their_agent(
    livekit: LocalLiveKit, rooms: Rooms, room_name: str
):
    names = [f"{room_name}-{number}" for number in range(BURST)]
    async with AsyncExitStack() as stack:
        viewers = [await stack.enter_async_context(Viewer()) for _ in names]
        await asyncio.gather(
            *(
                viewer.join(livekit.url, rooms.token(name, "viewer"))
                for viewer, name in zip(viewers, names, strict=True)
            )
        )
        came = await asyncio.gather(*(rooms.wait_for_agent(name, ALL_IN_S) for name in names))
        assert came == [True] * BURST


async def test_full_worker_takes_no_more_and_takes_again_when_a_room_has_ended(
    livekit: LocalLiveKit, start_worker, room_name: str
):
    worker = await start_worker({"ROOMSCRIBE_WORKER__MAX_JOBS": "1"})
    async with Rooms(settings_for(livekit, agent_name=worker.agent_name)) as rooms:
        first, second = f"{room_name}-1", f"{room_name}-2"
        async with Viewer() as viewer, Viewer() as other:
            await viewer.join(livekit.url, rooms.token(first, "viewer"))
            assert await rooms.wait_for_agent(first, ALL_IN_S)
            await other.join(livekit.url, rooms.token(second, "viewer"))
            await viewer.leave()
            await worker.until_logged("session.ended", within_s=ALL_IN_S, room=first)
            assert not await rooms.agent_is_in(second)
        async with asyncio.timeout(ALL_IN_S):
            attempt = 0
            while not await comes_to(f"{room_name}-again-{attempt}", rooms, livekit.url):
                attempt += 1


async def comes_to(room: str, rooms: Rooms, url: str) -> bool:
    """Whether the agent comes to a new room. LiveKit learns only every 2.5 s that a worker is free again."""
    async with Viewer() as viewer:
        await viewer.join(url, rooms.token(room, "viewer"))
        return await rooms.wait_for_agent(room, COMES_S)


async def test_automatic_agent_comes_to_every_room_but_those_that_name_another(
    livekit: LocalLiveKit, start_worker, room_name: str
):
    await start_worker({"ROOMSCRIBE_DISPATCH__MODE": "automatic", "LIVEKIT_AGENT_NAME": "not-this"})
    settings = settings_for(livekit, mode="automatic")
    async with Rooms(settings) as rooms, Viewer() as viewer, Viewer() as other:
        await viewer.join(livekit.url, rooms.token(room_name, "viewer"))
        assert await rooms.wait_for_agent(room_name, ALL_IN_S)
        elsewhere = f"{room_name}-other"
        token = api.AccessToken(livekit.api_key, livekit.api_secret).with_identity("viewer")
        token.with_grants(api.VideoGrants(room_join=True, room=elsewhere))
        agents = [api.RoomAgentDispatch(agent_name="somebody-else")]
        await other.join(livekit.url, token.with_room_config(api.RoomConfiguration(agents=agents)).to_jwt())
        await until(lambda: other.room.isconnected(), what="the other room")
        # Its one dispatch is the other agent's, so there is nothing to wait for.
        server = api.LiveKitAPI(livekit.url.replace("ws", "http"), livekit.api_key, livekit.api_secret)
        try:
            dispatches = await server.agent_dispatch.list_dispatch(elsewhere)
        finally:
            await server.aclose()
        assert [dispatch.agent_name for dispatch in dispatches] == ["somebody-else"]
        assert not await rooms.agent_is_in(elsewhere)
