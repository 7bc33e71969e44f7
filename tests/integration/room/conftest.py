"""Rooms of a real livekit-server with a real agent in them."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from agent.cli.local_livekit import LocalLiveKit
from agent.ingest.meeting import Meeting, load_meeting
from agent.room.dispatch import Rooms
from tests.support.gathering import settings_for
from tests.support.meetings import INCIDENT_REVIEW
from tests.support.worker import RunningWorker


@pytest_asyncio.fixture
async def rooms(livekit: LocalLiveKit, worker: RunningWorker) -> AsyncIterator[Rooms]:
    """The rooms of the server, for people who ask for the worker's agent."""
    async with Rooms(settings_for(livekit, agent_name=worker.agent_name)) as rooms:
        yield rooms


@pytest.fixture(scope="session")
def whole_meeting() -> Meeting:
    return load_meeting(INCIDENT_REVIEW)


@pytest.fixture(scope="session")
def opening() -> Meeting:
    """Nora speaks three sentences, from 1 to 9.8 s, and nobody else does."""
    return load_meeting(INCIDENT_REVIEW, end_s=10)
