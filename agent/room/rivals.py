"""What other agents say in a room: an agent that cannot ask the database hears that way of its successor."""

from collections.abc import Callable

from livekit import rtc

from agent.captions.protocol import EVENTS_TOPIC, epoch_of

__all__ = ["hear_epochs"]


def hear_epochs(room: rtc.Room, on_epoch: Callable[[int], None]) -> None:
    """Call a function with the epoch of each event that somebody without an identity sends.

    Hidden agents have none. People have one, except in their first seconds: so this is no proof.
    """

    def on_data(packet: rtc.DataPacket) -> None:
        if packet.topic == EVENTS_TOPIC and packet.participant is None:
            on_epoch(epoch_of(packet.data))

    room.on("data_received", on_data)
