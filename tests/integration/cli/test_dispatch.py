import pytest
from livekit import api

from agent.cli.local_livekit import LocalLiveKit
from agent.config import load_settings
from agent.errors import LiveKitError
from agent.room import dispatch
from agent.room.dispatch import ROLE_ATTRIBUTE, Errand, Rooms
from agent.room.player import Talker
from tests.integration.cli.conftest import AGENT_NAME, HiddenAgent, until_in


def test_a_token_lets_a_person_in_and_never_hides_them(livekit: LocalLiveKit, rooms: Rooms) -> None:
    token = rooms.token("r", "ada", name="Ada", role="host")

    claims = api.TokenVerifier(livekit.api_key, livekit.api_secret).verify(token)
    assert (claims.identity, claims.name) == ("ada", "Ada")
    assert claims.attributes == {ROLE_ATTRIBUTE: "host"}
    assert claims.room_config is not None
    assert [agent.agent_name for agent in claims.room_config.agents] == [AGENT_NAME]
    assert claims.video is not None
    assert claims.video.room == "r"
    assert not claims.video.hidden
    assert not claims.video.can_update_own_metadata


async def test_a_room_that_is_not_there_is_left_alone(
    rooms: Rooms, server: api.LiveKitAPI, room_name: str
) -> None:
    assert not await rooms.ensure_dispatched(room_name)
    assert not await rooms.agent_is_in(room_name)
    assert not (await server.room.list_rooms(api.ListRoomsRequest(names=[room_name]))).rooms


async def test_who_creates_a_room_by_our_token_has_asked_the_agent(
    livekit: LocalLiveKit, rooms: Rooms, server: api.LiveKitAPI, room_name: str
) -> None:
    talker = await Talker.join(livekit.url, rooms.token(room_name, "ada"))

    assert not await rooms.ensure_dispatched(room_name)
    assert len(await server.agent_dispatch.list_dispatch(room_name)) == 1
    await talker.leave()


async def test_the_agent_is_asked_once_into_a_room_that_was_there_before(
    rooms: Rooms, server: api.LiveKitAPI, room_name: str
) -> None:
    await server.room.create_room(api.CreateRoomRequest(name=room_name))

    assert await rooms.ensure_dispatched(room_name)
    assert not await rooms.ensure_dispatched(room_name)
    dispatches = await server.agent_dispatch.list_dispatch(room_name)
    assert [one.agent_name for one in dispatches if one.agent_name] == [AGENT_NAME]


async def test_agent_whose_dispatch_nobody_took_is_asked_anew(
    rooms: Rooms, room_name: str, server: api.LiveKitAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when somebody watches a room before Roomscribe runs."""
    await server.room.create_room(api.CreateRoomRequest(name=room_name))
    assert await rooms.ensure_dispatched(room_name)
    monkeypatch.setattr(dispatch, "LOST_AFTER_S", 0.0)

    assert await rooms.ensure_dispatched(room_name)


async def test_agent_that_is_in_the_room_is_not_asked_anew(
    rooms: Rooms,
    room_name: str,
    server: api.LiveKitAPI,
    hidden_agent: HiddenAgent,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await server.room.create_room(api.CreateRoomRequest(name=room_name))
    assert await rooms.ensure_dispatched(room_name)
    await hidden_agent.join(room_name)
    await until_in(server, room_name, "agent-")
    monkeypatch.setattr(dispatch, "LOST_AFTER_S", 0.0)

    assert not await rooms.ensure_dispatched(room_name)


async def test_in_automatic_mode_nobody_is_asked(
    environment: None, server: api.LiveKitAPI, room_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROOMSCRIBE_DISPATCH__MODE", "automatic")
    await server.room.create_room(api.CreateRoomRequest(name=room_name))

    async with Rooms(load_settings()) as rooms:
        assert not await rooms.ensure_dispatched(room_name)
        token = rooms.token(room_name, "ada")

    assert api.TokenVerifier("key", "secret").verify(token, verify_signature=False).room_config is None


async def test_a_hidden_agent_is_found_by_its_name(
    rooms: Rooms, hidden_agent: HiddenAgent, room_name: str
) -> None:
    await hidden_agent.join(room_name)

    assert await rooms.wait_for_agent(room_name, 10)


async def test_a_person_and_another_agent_are_not_ours(
    livekit: LocalLiveKit, rooms: Rooms, room_name: str
) -> None:
    other = HiddenAgent(livekit, "another")
    await other.join(room_name)
    talker = await Talker.join(livekit.url, rooms.token(room_name, "agent-ada"))

    assert not await rooms.wait_for_agent(room_name, 0)
    await talker.leave()
    await other.room.disconnect()


async def test_a_wrong_secret_is_said(environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVEKIT_API_SECRET", "not the secret of this server, but as long")

    async with Rooms(load_settings()) as rooms:
        with pytest.raises(LiveKitError, match=r"refuses the key 'devkey'.*set LIVEKIT_API_KEY"):
            await rooms.ping()


async def test_people_are_counted_without_agents_and_recorders(
    livekit: LocalLiveKit, rooms: Rooms, hidden_agent: HiddenAgent, room_name: str
) -> None:
    assert await rooms.people_in(room_name) == 0
    grants = api.VideoGrants(room_join=True, room=room_name, hidden=True, recorder=True)
    token = api.AccessToken(livekit.api_key, livekit.api_secret).with_identity("tape").with_grants(grants)
    ada = await Talker.join(livekit.url, rooms.token(room_name, "ada"))
    tape = await Talker.join(livekit.url, token.to_jwt())
    await hidden_agent.join(room_name)
    assert await rooms.wait_for_agent(room_name, 10)

    assert await rooms.people_in(room_name) == 1
    (agent,) = await rooms.agents_in(room_name)
    assert agent.sid.startswith("PA_")
    assert agent.identity.startswith("agent-")
    await ada.leave()
    assert await rooms.people_in(room_name) == 0
    await tape.leave()


async def test_who_was_asked_and_when_is_known_in_both_modes(
    livekit: LocalLiveKit, rooms: Rooms, room_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A room that asked nobody has asked whoever serves rooms in automatic mode."""
    asks = await Talker.join(livekit.url, rooms.token(room_name, "ada"))
    monkeypatch.setenv("ROOMSCRIBE_DISPATCH__MODE", "automatic")
    async with Rooms(load_settings()) as automatic:
        plain = await Talker.join(livekit.url, automatic.token(f"{room_name}-2", "ada"))

        asked_at = await rooms.asked_at(room_name)
        assert asked_at is not None
        assert await rooms.asked_at(f"{room_name}-2") is None
        assert await automatic.asked_at(room_name) is None
        assert await automatic.asked_at(f"{room_name}-2") is not None
        found = {room.name: room.sid for room in await rooms.open_rooms()}
        assert {room_name, f"{room_name}-2"} <= found.keys()
    await rooms.dispatch(room_name, Errand(sid=found[room_name]))
    again_at = await rooms.asked_at(room_name)
    assert again_at is not None
    assert again_at > asked_at
    await asks.leave()
    await plain.leave()
