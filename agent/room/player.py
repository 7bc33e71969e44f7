"""Speaking into a room as several people at once, in real time."""

import asyncio
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from livekit import rtc

from agent.room.join import join, leave
from agent.values import Samples

__all__ = ["Microphone", "Playback", "Player", "Talker"]

SAMPLE_RATE_HZ = 48_000  # what WebRTC sends, without resampling
BLOCK_MS = 50  # sending is a call a block and track; 10 ms ones would keep a core busy with five tracks
LEAD_MS = 200  # handed over ahead of time: it bridges a busy event loop without a hole in the sound
QUEUE_MS = 2 * LEAD_MS

SAMPLES_PER_BLOCK = SAMPLE_RATE_HZ * BLOCK_MS // 1000


class Microphone:
    """A published audio track that speaks mono `int16` samples at 48 kHz."""

    def __init__(self, room: rtc.Room, source: rtc.AudioSource, track: rtc.LocalAudioTrack) -> None:
        self._room = room
        self._source = source
        self._track = track

    @property
    def sid(self) -> str:
        return self._track.sid

    def mute(self) -> None:
        """Go silent for everybody; what is spoken meanwhile is not heard."""
        self._track.mute()

    def unmute(self) -> None:
        self._track.unmute()

    async def speak(self, samples: Samples) -> None:
        """Queue up to 200 ms to be sent; `Playback` speaks longer ones in real time."""
        frame = rtc.AudioFrame(samples.tobytes(), SAMPLE_RATE_HZ, 1, len(samples))
        await self._source.capture_frame(frame)

    async def unpublish(self) -> None:
        """Take the track out of the room."""
        await self._room.local_participant.unpublish_track(self.sid)
        await self.aclose()

    async def aclose(self) -> None:
        await self._source.aclose()


class Talker:
    """One person in a room, with any number of microphones."""

    def __init__(self, room: rtc.Room) -> None:
        self._room = room
        self._microphones: list[Microphone] = []
        self.disconnected = asyncio.Event()
        room.on("disconnected", lambda _: self.disconnected.set())

    @classmethod
    async def join(cls, url: str, token: str) -> Self:
        """Join a room without hearing anybody.

        Raises:
            LiveKitError: The server is away or refuses the token.
        """
        room = rtc.Room()
        await join(room, url, token)
        return cls(room)

    @property
    def identity(self) -> str:
        return self._room.local_participant.identity

    @property
    def room(self) -> rtc.Room:
        return self._room

    async def publish(self) -> Microphone:
        """Publish a microphone; once more for a second one.

        Nobody waits for a subscription: that of a hidden agent is never told.
        """
        source = rtc.AudioSource(SAMPLE_RATE_HZ, 1, queue_size_ms=QUEUE_MS)
        track = rtc.LocalAudioTrack.create_audio_track("microphone", source)
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
        await self._room.local_participant.publish_track(track, options)
        microphone = Microphone(self._room, source, track)
        self._microphones.append(microphone)
        return microphone

    async def leave(self) -> None:
        """Leave the room. Idempotent."""
        await leave(self._room)
        for microphone in self._microphones:
            await microphone.aclose()


class Playback:
    """Tracks that are spoken from one common instant, in real time.

    `started_at` is the wall time, and `started_s` the event loop's, at which sample 0 was given to be sent;
    sample k of every track is sent `k / 48000` seconds later. What the event loop is too late for is left out
    and counted in `skipped_s`, so that the tracks stay in time.
    """

    def __init__(self, tracks: Mapping[Microphone, Samples]) -> None:
        self._tracks = tracks
        self._samples = max(len(samples) for samples in tracks.values())
        self.started_at: float | None = None
        self.started_s: float | None = None
        self.skipped_s = 0.0

    @property
    def duration_s(self) -> float:
        return self._samples / SAMPLE_RATE_HZ

    @property
    def position_s(self) -> float:
        """How much has been spoken."""
        if self.started_s is None:
            return 0.0
        return min(asyncio.get_running_loop().time() - self.started_s, self.duration_s)

    async def run(self) -> None:
        """Speak everything and return when the last sample has been sent."""
        loop = asyncio.get_running_loop()
        self.started_at, self.started_s = time.time(), loop.time()
        for start in range(0, self._samples, SAMPLES_PER_BLOCK):
            due_s = self.started_s + start / SAMPLE_RATE_HZ
            if loop.time() > due_s + BLOCK_MS / 1000:
                self.skipped_s += BLOCK_MS / 1000
                continue
            await asyncio.sleep(due_s - LEAD_MS / 1000 - loop.time())
            block = slice(start, start + SAMPLES_PER_BLOCK)
            await asyncio.gather(
                *(
                    microphone.speak(samples[block])
                    for microphone, samples in self._tracks.items()
                    if start < len(samples)
                )
            )
        await asyncio.sleep(self.started_s + self.duration_s - loop.time())


class Player:
    """The people of a recorded meeting, in a room. As an async context manager they leave at its end."""

    def __init__(self, url: str, token: Callable[[str], str]) -> None:
        """
        Args:
            url: Of the LiveKit server.
            token: Gives the token with which an identity joins.
        """
        self._url = url
        self._token = token
        self.talkers: dict[str, Talker] = {}

    async def join(self, tracks: Mapping[str, Samples]) -> Playback:
        """Join as everybody who has a track, publish their microphones, and give what `run()` will speak.

        The first one joins alone, since the room is created by that token.

        Raises:
            LiveKitError: The server is away or refuses a token.
        """
        first, *others = tracks
        await self._join(first)
        # All are waited for, so that `leave` finds everybody who came in beside one who did not.
        for failure in await asyncio.gather(*map(self._join, others), return_exceptions=True):
            if failure is not None:
                raise failure
        microphones = {await talker.publish(): tracks[identity] for identity, talker in self.talkers.items()}
        return Playback(microphones)

    async def wait_disconnected(self) -> None:
        """Wait until somebody is out of the room, because it closed or the server is gone."""
        waiting = [asyncio.create_task(talker.disconnected.wait()) for talker in self.talkers.values()]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()

    async def leave(self) -> None:
        """Everybody leaves. Idempotent."""
        leaving = (talker.leave() for talker in self.talkers.values())
        for failure in await asyncio.gather(*leaving, return_exceptions=True):
            if failure is not None:
                raise failure

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.leave()

    async def _join(self, identity: str) -> None:
        self.talkers[identity] = await Talker.join(self._url, self._token(identity))
