"""People come, go, mute, publish twice, or cannot be heard: the right words have the right name."""

import asyncio

from livekit import api, rtc

from agent.cli.local_livekit import LocalLiveKit
from agent.ingest.meeting import Meeting
from agent.room.dispatch import Rooms
from agent.room.player import Playback, Player, Talker
from agent.room.viewer import Viewer
from tests.support.gathering import reading, until
from tests.support.worker import RunningWorker

FINAL_S = 20.0


def said(finals: list[dict]) -> str:
    return " ".join(final["text"] for final in finals).lower()


async def test_somebody_who_was_there_before_the_agent_is_heard(
    livekit: LocalLiveKit, rooms: Rooms, opening: Meeting, room_name: str
):
    """The room is created without asking for the agent, which is asked for later."""
    plain = api.AccessToken(livekit.api_key, livekit.api_secret).with_identity("Nora").with_name("Nora")
    plain.with_grants(api.VideoGrants(room_join=True, room=room_name))
    async with Player(livekit.url, lambda _: plain.to_jwt()) as player:
        playback = await player.join({"Nora": opening.tracks["Nora"]})
        assert not await rooms.agent_is_in(room_name)
        assert await rooms.ensure_dispatched(room_name)
        async with reading(rooms, livekit.url, room_name) as reader:
            await playback.run()
            await until(lambda: "happened" in said(reader.finals), what="her last word", limit_s=FINAL_S)
    assert {final["speaker"]["name"] for final in reader.finals} == {"Nora"}


async def test_muting_and_unmuting_loses_neither_the_name_nor_the_words(
    livekit: LocalLiveKit, rooms: Rooms, opening: Meeting, room_name: str
):
    async with (
        reading(rooms, livekit.url, room_name) as reader,
        Player(livekit.url, lambda identity: rooms.token(room_name, identity)) as player,
    ):
        # Greta's microphone is muted all the time.
        silent = await Talker.join(livekit.url, rooms.token(room_name, "Greta"))
        (await silent.publish()).mute()
        first = await player.join({"Nora": opening.tracks["Nora"][: 3 * 48_000]})
        await first.run()
        (microphone,) = player.talkers["Nora"]._microphones
        microphone.mute()
        await until(
            lambda: "joining" in said(reader.finals), what="the words before the mute", limit_s=FINAL_S
        )
        microphone.unmute()
        await Playback({microphone: opening.tracks["Nora"][round(3.3 * 48_000) :]}).run()
        await until(lambda: "happened" in said(reader.finals), what="the words after it", limit_s=FINAL_S)
        await silent.leave()
    assert {final["speaker"]["name"] for final in reader.finals} == {"Nora"}
    assert reader.states[-1]["unheard"] == []


async def test_somebody_who_publishes_twice_is_not_captioned_twice(
    livekit: LocalLiveKit, rooms: Rooms, opening: Meeting, room_name: str
):
    async with reading(rooms, livekit.url, room_name) as reader:
        nora = await Talker.join(livekit.url, rooms.token(room_name, "Nora"))
        one, two = await nora.publish(), await nora.publish()
        await Playback({one: opening.tracks["Nora"], two: opening.tracks["Nora"]}).run()
        await until(lambda: "happened" in said(reader.finals), what="her last word", limit_s=FINAL_S)
        await nora.leave()
    assert said(reader.finals).count("joining") == 1
    assert {final["speaker"]["name"] for final in reader.finals} == {"Nora"}


async def test_odd_identities_and_names_come_through_unharmed(
    livekit: LocalLiveKit, rooms: Rooms, opening: Meeting, room_name: str
):
    identity, name = "ünï/ c:öde 👩‍💻 'x'", "\u202eNora\n[red]\x1b[31m 👩‍💻"
    token = rooms.token(room_name, identity, name=name)
    async with (
        reading(rooms, livekit.url, room_name) as reader,
        Player(livekit.url, lambda _: token) as player,
    ):
        playback = await player.join({identity: opening.tracks["Nora"][: 4 * 48_000]})
        await playback.run()
        await until(lambda: reader.finals, what="a final", limit_s=FINAL_S)
        await until(lambda: any(text.text for text in reader.texts), what="a text stream")
    assert reader.finals[0]["speaker"] == {"identity": identity, "name": "Nora [red][31m 👩‍💻"}
    assert reader.texts[-1].sender == identity


async def test_encrypted_microphone_is_said_and_never_heard_as_noise(
    livekit: LocalLiveKit, rooms: Rooms, opening: Meeting, room_name: str
):
    async with reading(rooms, livekit.url, room_name) as reader:
        room = rtc.Room()
        key = rtc.KeyProviderOptions(shared_key=b"nobody tells the agent")
        encryption = rtc.E2EEOptions(key_provider_options=key)
        await room.connect(
            livekit.url, rooms.token(room_name, "Secret"), rtc.RoomOptions(encryption=encryption)
        )
        secret = Talker(room)
        microphone = await secret.publish()
        await until(lambda: reader.unheard == {"Secret": "e2ee"}, what="that she cannot be heard")
        assert reader.states[-1]["captions"] == "off"
        await Playback({microphone: opening.tracks["Nora"][: 4 * 48_000]}).run()
        microphone.mute()
        await until(lambda: reader.unheard == {}, what="that a muted microphone is not unheard")
        assert reader.captions == []
        await secret.leave()


async def test_microphone_that_the_agent_may_not_hear_is_said(
    livekit: LocalLiveKit, rooms: Rooms, room_name: str
):
    async with reading(rooms, livekit.url, room_name) as reader:
        shy = await Talker.join(livekit.url, rooms.token(room_name, "Shy"))
        shy.room.local_participant.set_track_subscription_permissions(
            allow_all_participants=False, participant_permissions=[]
        )
        await shy.publish()
        await until(lambda: reader.unheard == {"Shy": "not_permitted"}, what="that he cannot be heard")
        shy.room.local_participant.set_track_subscription_permissions(
            allow_all_participants=True, participant_permissions=[]
        )
        await until(lambda: reader.unheard == {}, what="that he can be heard again")
        await shy.leave()
        assert reader.unheard == {}


async def test_people_who_leave_are_not_said_to_be_unheard(
    livekit: LocalLiveKit, rooms: Rooms, room_name: str
):
    async with reading(rooms, livekit.url, room_name) as reader:
        nora = await Talker.join(livekit.url, rooms.token(room_name, "Nora"))
        await nora.publish()
        await nora.leave()
        omar = await Talker.join(livekit.url, rooms.token(room_name, "Omar"))
        await omar.publish()
        before = len(reader.states)
        await until(lambda: len(reader.states) > before, what="the next state")
        assert all(state["unheard"] == [] for state in reader.states)
        await omar.leave()


async def test_room_that_is_closed_while_its_agent_is_on_its_way_harms_no_other(
    livekit: LocalLiveKit, rooms: Rooms, worker: RunningWorker, room_name: str
):
    server = api.LiveKitAPI(livekit.url.replace("ws", "http"), livekit.api_key, livekit.api_secret)
    try:
        for number in range(4):
            name = f"{room_name}-{number}"
            async with Viewer() as viewer:
                await viewer.join(livekit.url, rooms.token(name, "viewer"))
                await asyncio.sleep(number * 0.1)
                await server.room.delete_room(api.DeleteRoomRequest(room=name))
    finally:
        await server.aclose()
    async with reading(rooms, livekit.url, room_name) as reader:
        await until(lambda: reader.states, what="the state of the next room")
    logged = worker.log.read_text(encoding="utf-8")
    assert "unhandled exception" not in logged
    assert worker.logged("session.failed") == []


async def test_room_that_ends_while_its_session_is_live_ends_the_session(
    livekit: LocalLiveKit, rooms: Rooms, worker: RunningWorker, room_name: str
):
    server = api.LiveKitAPI(livekit.url.replace("ws", "http"), livekit.api_key, livekit.api_secret)
    try:
        async with reading(rooms, livekit.url, room_name) as reader:
            await server.room.delete_room(api.DeleteRoomRequest(room=room_name))
            await until(lambda: reader.viewer.closed_reason, what="the end of the room")
        await worker.until_logged("session.ended", within_s=FINAL_S, room=room_name)
        assert worker.logged("session.failed", room=room_name) == []
    finally:
        await server.aclose()
