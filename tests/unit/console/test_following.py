"""However many follow a session, the database is asked once, and only as long as somebody does."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import cast

import pytest
from starlette.types import Message

from agent.console.events import AGAIN_MS, EventStream
from agent.console.following import Viewers
from agent.console.models import UtteranceOut
from agent.console.store import News, Revised, Store
from agent.errors import DatabaseError
from persistence.api_keys import ApiKey
from persistence.transcripts import FinalCursor
from tests.support.console_values import ADA, AT, utterance

KEY = ApiKey("1", "default", "a test", AT, None, None)
LIMIT_S = 20.0


class Said:
    """A session in memory, in the place of a `Store`: `finals` can be added to."""

    def __init__(self, *finals: UtteranceOut) -> None:
        self.finals = list(finals)
        self.looks = 0
        self.has_ended = False
        self.failure: Exception | None = None

    def revisions(self, _space: str, _session_id: str) -> dict[str, int]:
        return {each.id: 1 for each in self.finals}

    def news(self, _space: str, session_id: str, seen: Mapping[str, int]) -> News:
        self.looks += 1
        if self.failure is not None:
            raise self.failure
        new = tuple(Revised(each, 1) for each in self.finals if each.id not in seen)
        return News(session_id, new, self.has_ended, self.has_ended)

    def said(
        self, _space: str, _session_id: str, after: FinalCursor
    ) -> tuple[tuple[Revised, ...], FinalCursor | None]:
        return tuple(Revised(each, 1) for each in self.finals if each.start_ms >= after.start_ms), None


class Viewer:
    """Somebody who follows a session: `sent` is what they were sent, as text."""

    def __init__(self, viewers: Viewers, said: Said, *, since_ms: int = 0, last_id: str = "") -> None:
        self.sent = ""
        self.is_reading = asyncio.Event()  # who does not read has the stream wait
        self.is_reading.set()
        store = cast(Store, said)
        self._stream = EventStream(
            viewers, store, self._key, "space", "s", since_ms=since_ms, last_id=last_id
        )

    async def __call__(self) -> None:
        scope = {"type": "http", "asgi": {"spec_version": "2.4"}}
        await self._stream(scope, asyncio.Event().wait, self._send)  # type: ignore[arg-type]

    @property
    def ids(self) -> list[str]:
        """The utterances that they were told."""
        return re.findall(r'"id":"([^"]+)"', self.sent)

    async def until_told(self, *ids: str) -> None:
        async with asyncio.timeout(LIMIT_S):
            while self.ids != list(ids):  # noqa: ASYNC110  it tells nobody
                await asyncio.sleep(0.001)

    async def _send(self, message: Message) -> None:
        self.sent += message.get("body", b"").decode()
        await self.is_reading.wait()

    async def _key(self) -> ApiKey | None:
        return KEY


@asynccontextmanager
async def following(*viewers: Viewer) -> AsyncIterator[list["asyncio.Task[None]"]]:
    tasks = [asyncio.create_task(viewer()) for viewer in viewers]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.console.following.POLL_S", 0.01)


async def test_all_who_follow_a_session_share_one_look_which_ends_with_the_last_of_them() -> None:
    said = Said(utterance(1, ADA, "One."))
    viewers = Viewers(cast(Store, said))
    seen = [Viewer(viewers, said) for _ in range(10)]
    async with following(*seen) as tasks:
        for viewer in seen:
            await viewer.until_told("1-1")
        looks_before = said.looks
        said.finals.append(utterance(2, ADA, "Two."))
        for viewer in seen:
            await viewer.until_told("1-1", "1-2")
        assert viewers.count == 10
        names = [task.get_name() for task in asyncio.all_tasks()]
        assert names.count("console.following") == 1
        assert said.looks > looks_before
        for task in tasks[1:]:
            task.cancel()
        await asyncio.gather(*tasks[1:], return_exceptions=True)
        said.finals.append(utterance(3, ADA, "Three."))
        await seen[0].until_told("1-1", "1-2", "1-3")
    assert viewers.count == 0
    assert "console.following" not in [task.get_name() for task in asyncio.all_tasks()]


async def test_who_wants_what_was_said_since_a_time_is_told_nothing_before_it() -> None:
    said = Said(utterance(1, ADA, "One."), utterance(5, ADA, "Five."))
    viewers = Viewers(cast(Store, said))
    viewer = Viewer(viewers, said, since_ms=5_000)
    async with following(viewer):
        await viewer.until_told("1-5")
        said.finals += [utterance(2, ADA, "Two."), utterance(6, ADA, "Six.")]
        await viewer.until_told("1-5", "1-6")


async def test_who_connects_again_is_told_the_last_minutes_again_and_no_more() -> None:
    late_ms = AGAIN_MS + 60_000
    said = Said(
        utterance(1, ADA, "One."), utterance(2, ADA, "Two.", 70_000), utterance(3, ADA, "Three.", late_ms)
    )
    viewers = Viewers(cast(Store, said))
    first = Viewer(viewers, said)
    async with following(first):
        await first.until_told("1-1", "1-2", "1-3")
    last_id = re.findall(r"^id: (.+)$", first.sent, re.MULTILINE)[-1]
    again, elsewhere = (
        Viewer(viewers, said, last_id=last_id),
        Viewer(viewers, said, last_id=f"{late_ms}-other"),
    )
    async with following(again, elsewhere):
        await again.until_told("1-2", "1-3")
        # An id of a session that this one was merged from, or of nobody, says nothing about this one.
        await elsewhere.until_told("1-1", "1-2", "1-3")


@pytest.mark.parametrize("last_id", ["x", "-s", "٣-s", "9" * 5_000 + "-s", "-1-s", "1e3-s"])
async def test_an_id_that_no_stream_gave_is_left_out_of_account(last_id: str) -> None:
    said = Said(utterance(1, ADA, "One."))
    viewer = Viewer(Viewers(cast(Store, said)), said, last_id=last_id)
    async with following(viewer):
        await viewer.until_told("1-1")


async def test_who_reads_too_slowly_is_let_go_and_nothing_is_kept_for_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("agent.console.following.MAX_CHANGES", 3)
    said = Said()
    viewers = Viewers(cast(Store, said))
    slow, quick = Viewer(viewers, said), Viewer(viewers, said)
    async with following(slow, quick) as (slow_task, _):
        said.finals.append(utterance(0, ADA, "Word."))
        await slow.until_told("1-0")
        slow.is_reading.clear()
        said.finals.append(utterance(1, ADA, "Word."))
        await slow.until_told("1-0", "1-1")
        for number in range(2, 6):
            said.finals.append(utterance(number, ADA, "Word."))
            await quick.until_told(*(f"1-{each}" for each in range(number + 1)))
        slow.is_reading.set()
        async with asyncio.timeout(LIMIT_S):
            await slow_task
        assert slow.ids == ["1-0", "1-1"]
        assert "event: ended" not in slow.sent


async def test_a_session_that_is_over_ends_each_stream_after_its_last_words() -> None:
    said = Said(utterance(1, ADA, "One."))
    viewers = Viewers(cast(Store, said))
    first = Viewer(viewers, said)
    async with following(first) as (task,):
        await first.until_told("1-1")
        said.finals.append(utterance(2, ADA, "Two."))
        said.has_ended = True
        async with asyncio.timeout(LIMIT_S):
            await task
        assert first.ids == ["1-1", "1-2"]
        assert first.sent.endswith('event: ended\ndata: {"session": "s"}\n\n')


async def test_a_look_that_fails_ends_the_streams_and_the_next_viewer_has_another_one() -> None:
    said = Said(utterance(1, ADA, "One."))
    viewers = Viewers(cast(Store, said))
    seen = [Viewer(viewers, said), Viewer(viewers, said)]
    async with following(*seen) as tasks:
        for viewer in seen:
            await viewer.until_told("1-1")
        said.failure = DatabaseError("there is no such table")
        async with asyncio.timeout(LIMIT_S):
            results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, DatabaseError) for result in results)
    said.failure = None
    after = Viewer(viewers, said)
    async with following(after):
        await after.until_told("1-1")


async def test_the_end_of_the_server_ends_every_stream_and_those_that_come_then() -> None:
    said = Said(utterance(1, ADA, "One."))
    viewers = Viewers(cast(Store, said))
    first, second = Viewer(viewers, said), Viewer(viewers, said)
    async with following(first) as (task,), asyncio.timeout(LIMIT_S):
        await first.until_told("1-1")
        viewers.close()
        await task
        await second()
    assert "event: ended" not in first.sent + second.sent
    assert viewers.count == 0
