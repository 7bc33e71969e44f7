"""A speech service that goes away while somebody speaks: what the room is told, and what it gets."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from difflib import SequenceMatcher
from itertools import pairwise

import pytest

from agent.cli.local_livekit import LocalLiveKit
from agent.ingest.meeting import Meeting
from agent.room.player import Player
from benchmarks.normalise import spoken_words
from tests.support.counting_room import says, serving, session_of, until_kept
from tests.support.deepgram import KEY, Behaviour, DeepgramServer, understanding
from tests.support.gathering import Reader, reading, until

AWAY_S = 6.0
TOLERANCE_MS = 300  # words are placed to so much
# Where the connection breaks, which is anywhere, a word may be cut: misheard on one side, heard on both.
MISHEARD_WORDS = 3


@pytest.fixture
async def service() -> AsyncIterator[DeepgramServer]:
    async with understanding() as server:
        yield server


def using(service: DeepgramServer, engines: str) -> dict[str, str]:
    """The settings of a worker that uses this service."""
    return {
        "ROOMSCRIBE_STT__ENGINES": engines,
        "ROOMSCRIBE_STT__DEEPGRAM__API_KEY": KEY,
        "ROOMSCRIBE_STT__DEEPGRAM__BASE_URL": service.url,
    }


async def test_room_is_told_that_its_engine_is_away_and_then_gets_every_word_once(
    livekit: LocalLiveKit, start_worker, service: DeepgramServer, opening: Meeting, room_name: str
):
    worker = await start_worker(using(service, "deepgram"))
    async with serving(livekit, worker) as (settings, rooms):
        async with (
            reading(rooms, livekit.url, room_name) as reader,
            Player(livekit.url, lambda identity: rooms.token(room_name, identity)) as player,
        ):
            playback = await player.join(opening.tracks)
            async with asyncio.TaskGroup() as playing:
                playing.create_task(playback.run())
                await until(lambda: reader.captions, what="that she is captioned")
                await until(says(reader, captions="live"), what="that all is well")
                await service.behave(Behaviour(refuse=True))
                await until(
                    says(reader, captions="degraded", captions_reason="engine"), what="that the room is told"
                )
                await asyncio.sleep(AWAY_S)
                assert says(reader, captions="degraded", captions_reason="engine")()
                await service.behave(Behaviour())
            await until_all_is_said(reader, opening)
            await until(says(reader, captions="live", captions_reason=None), what="that all is well again")
            await until_kept(settings, reader.finals[0]["session"], reader.finals)
        await until(
            lambda: session_of(settings, room_name).summary.status == "ended", what="the end of the session"
        )
        kept = session_of(settings, room_name)

    assert_said_once_by_nora(reader, opening)
    assert kept.finals == len(reader.finals)
    assert kept.gaps == ()


async def test_captions_go_on_by_the_next_engine_when_a_service_is_killed(
    livekit: LocalLiveKit, start_worker, service: DeepgramServer, opening: Meeting, room_name: str
):
    worker = await start_worker(using(service, "deepgram,whisper"))
    async with (
        serving(livekit, worker) as (_, rooms),
        reading(rooms, livekit.url, room_name) as reader,
        Player(livekit.url, lambda identity: rooms.token(room_name, identity)) as player,
    ):
        playback = await player.join(opening.tracks)
        async with asyncio.TaskGroup() as playing:
            playing.create_task(playback.run())
            await until(lambda: reader.captions, what="that she is captioned")
            await service.behave(Behaviour(refuse=True))
        await until_all_is_said(reader, opening)

    assert service.counts.connections == 1
    assert "degraded" not in {state["captions"] for state in reader.states}
    assert_said_once_by_nora(reader, opening)


async def until_all_is_said(reader: Reader, meeting: Meeting) -> None:
    """Wait for the words: turns that waited may be captioned in any order."""
    said = Counter(words_of(segment.text for segment in meeting.segments))

    def is_said() -> bool:
        missing = said - Counter(words_of(final["text"] for final in reader.finals))
        return missing.total() <= MISHEARD_WORDS

    await until(is_said, what="all that was said")


def assert_said_once_by_nora(reader: Reader, meeting: Meeting) -> None:
    assert {final["speaker"]["name"] for final in reader.finals} == {"Nora"}
    assert len({final["id"] for final in reader.finals}) == len(reader.finals)
    finals = sorted(reader.finals, key=lambda final: final["start_ms"])
    for before, after in pairwise(finals):
        assert after["start_ms"] >= before["end_ms"] - TOLERANCE_MS, (before, after)
    said = words_of(segment.text for segment in meeting.segments)
    heard = words_of(final["text"] for final in finals)
    assert len(heard) <= len(said) + MISHEARD_WORDS, heard
    matches = SequenceMatcher(None, said, heard, autojunk=False).get_matching_blocks()
    assert sum(match.size for match in matches) >= len(said) - MISHEARD_WORDS, heard


def words_of(texts: Iterable[str]) -> list[str]:
    return [word for text in texts for word in spoken_words(text)]
