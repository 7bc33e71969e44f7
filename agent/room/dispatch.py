"""Who is asked to come into a room: people by a token, the agent by a dispatch."""

import asyncio
import json
import os
import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Literal, Self

import aiohttp
from livekit import api

from agent.config import Settings
from agent.errors import LiveKitError

__all__ = ["ROLE_ATTRIBUTE", "AgentInRoom", "Errand", "OpenRoom", "Role", "Rooms"]

Role = Literal["host", "moderator", "guest"]

ROLE_ATTRIBUTE = "roomscribe.role"
AGENT_NAME_ATTRIBUTE = "lk.agent.name"  # set by livekit-agents; empty for one that comes without being asked
AGENT_IDENTITY_PREFIX = "agent-"  # of the identities that livekit-agents gives
ERRAND_KEY = "roomscribe"  # of ours in the metadata of a dispatch, which others may use as well
TOKEN_LIFE = timedelta(hours=6)  # to join; who is in stays in
REQUEST_S = 5.0  # it takes 5 ms on one machine
POLL_S = 0.2
LOST_AFTER_S = 10.0  # a worker takes a dispatch within three seconds; a cold process joins in as many


@dataclass(frozen=True, slots=True)
class Errand:
    """What a dispatch tells the job, in its metadata.

    Args:
        sid: The LiveKit room that is meant; a job that finds another one under the name leaves.
        handover: The identity of the agent that is to be relieved.
        died: The identity of an agent that died there; LiveKit goes on listing it for a while.
    """

    sid: str = ""
    handover: str = ""
    died: str = ""

    def encode(self) -> str:
        """As metadata; empty where there is nothing to tell."""
        said = {key: value for key, value in asdict(self).items() if value}
        return json.dumps({ERRAND_KEY: said}, separators=(",", ":")) if said else ""

    @classmethod
    def decode(cls, metadata: str) -> Self:
        """Read metadata; an empty errand where it is somebody else's, or there is none."""
        try:
            parsed = json.loads(metadata)
        except (ValueError, RecursionError):
            return cls()
        said = parsed.get(ERRAND_KEY) if isinstance(parsed, dict) else None
        if not isinstance(said, dict):
            return cls()
        names = (field.name for field in fields(cls))
        return cls(**{name: said[name] for name in names if isinstance(said.get(name), str)})


@dataclass(frozen=True, slots=True)
class OpenRoom:
    """A room that is open, and the SID that LiveKit gave it this time."""

    name: str
    sid: str


@dataclass(frozen=True, slots=True)
class AgentInRoom:
    """One of our agents that is in a room."""

    identity: str
    sid: str
    joined_at: datetime


class Rooms:
    """The rooms of a LiveKit server. Use it as an async context manager.

    In explicit mode every token asks for the agent in its room configuration, which LiveKit heeds when the
    token's holder creates the room, and `ensure_dispatched` asks where the room was there before. In
    automatic mode the agent comes by itself.
    """

    def __init__(self, settings: Settings) -> None:
        self._livekit = settings.livekit
        self._secret = settings.livekit.api_secret.get_secret_value()
        self._agent_name = settings.dispatch.agent_name if settings.dispatch.mode == "explicit" else ""
        self._api = api.LiveKitAPI(
            settings.livekit.http_url,
            settings.livekit.api_key,
            self._secret,
            timeout=aiohttp.ClientTimeout(total=REQUEST_S),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections to it. Idempotent."""
        await self._api.aclose()

    def token(self, room: str, identity: str, *, name: str = "", role: Role = "guest") -> str:
        """A token with which a person joins a room. It never makes them hidden: only the agent is."""
        grants = api.VideoGrants(room_join=True, room=room)
        token = api.AccessToken(self._livekit.api_key, self._secret)
        token.with_identity(identity).with_name(name or identity).with_ttl(TOKEN_LIFE).with_grants(grants)
        token.with_attributes({ROLE_ATTRIBUTE: role})
        if self._agent_name:
            dispatch = api.RoomAgentDispatch(agent_name=self._agent_name)
            token.with_room_config(api.RoomConfiguration(agents=[dispatch]))
        return token.to_jwt()

    async def ping(self) -> None:
        """Ask the server something that needs the key.

        Raises:
            LiveKitError: It is away or refuses us.
        """
        with self._explained():
            await self._api.room.list_rooms(api.ListRoomsRequest(names=["-"]))

    async def ensure_dispatched(self, room: str) -> bool:
        """Ask the agent into a room that is there, unless it has been asked. Tells whether it was asked now.

        LiveKit drops a dispatch that no worker takes at once, but goes on listing it: one that is old, in a
        room without our agent, is lost and asked for anew.

        A room that is not there yet needs none of this. Who joins calls it afterwards, so that nobody can
        have created the room without asking in between.

        Raises:
            LiveKitError: The server is away or refuses us.
        """
        if not self._agent_name:
            return False
        with self._explained():
            found = await self._api.room.list_rooms(api.ListRoomsRequest(names=[room]))
            if not found.rooms:
                return False
        asked_at = await self.asked_at(room)
        if asked_at is not None and time.time() - asked_at.timestamp() < LOST_AFTER_S:
            return False
        if asked_at is not None and await self.agent_is_in(room):
            return False
        await self.dispatch(room)
        return True

    async def asked_at(self, room: str) -> datetime | None:
        """When our agent was last asked into a room, by LiveKit's clock; None where it was not.

        In automatic mode the room's own coming into being asked it, unless the room names other agents.

        Raises:
            LiveKitError: The server is away or refuses us, or, after three seconds, the room is not there.
        """
        with self._explained():
            dispatches = await self._api.agent_dispatch.list_dispatch(room)
        asked_at_ns = [d.state.created_at for d in dispatches if d.agent_name == self._agent_name]
        return datetime.fromtimestamp(max(asked_at_ns) / 1e9, UTC) if asked_at_ns else None

    async def dispatch(self, room: str, errand: Errand = Errand()) -> None:
        """Ask the agent into a room. One that is not there is made, so make sure of it before.

        Raises:
            LiveKitError: The server is away or refuses us.
        """
        request = api.CreateAgentDispatchRequest(
            agent_name=self._agent_name, room=room, metadata=errand.encode()
        )
        with self._explained():
            await self._api.agent_dispatch.create_dispatch(request)

    async def open_rooms(self, names: Sequence[str] = ()) -> list[OpenRoom]:
        """All rooms that are open, or those of them that have these names.

        Raises:
            LiveKitError: The server is away or refuses us.
        """
        with self._explained():
            found = await self._api.room.list_rooms(api.ListRoomsRequest(names=names))
        return [OpenRoom(room.name, room.sid) for room in found.rooms]

    async def open_sids(self, names: Sequence[str]) -> set[str]:
        """The SIDs of those of these rooms that are open.

        Raises:
            LiveKitError: The server is away or refuses us.
        """
        return {room.sid for room in await self.open_rooms(names)} if names else set()

    async def agent_is_in(self, room: str) -> bool:
        """Whether our agent is in a room. It is hidden from clients, not from the server's API.

        Raises:
            LiveKitError: The server is away or refuses us.
        """
        return any(self._is_our_agent(participant) for participant in await self._participants(room))

    async def agents_in(self, room: str) -> list[AgentInRoom]:
        """Our agents in a room, the one that joined first before the others.

        Raises:
            LiveKitError: The server is away or refuses us.
        """
        agents = [
            AgentInRoom(
                participant.identity,
                participant.sid,
                datetime.fromtimestamp(
                    (participant.joined_at_ms or participant.joined_at * 1000) / 1000, UTC
                ),
            )
            for participant in await self._participants(room)
            if self._is_our_agent(participant)
        ]
        return sorted(agents, key=lambda agent: (agent.joined_at, agent.identity))

    async def people_in(self, room: str) -> int:
        """How many people are in a room: neither agents nor recorders, which do not keep it open either.

        Raises:
            LiveKitError: The server is away or refuses us.
        """
        return sum(_is_person(participant) for participant in await self._participants(room))

    async def wait_for_agent(self, room: str, timeout_s: float) -> bool:
        """Wait until our agent is in a room; tells whether it came in time.

        Raises:
            LiveKitError: The server is away or refuses us.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while not await self.agent_is_in(room):
            if loop.time() >= deadline:
                return False
            await asyncio.sleep(POLL_S)
        return True

    async def _participants(self, room: str) -> Sequence[api.ParticipantInfo]:
        """Who is in a room, and nobody where it is not there. (The list of rooms counts them 5 s late.)"""
        with self._explained():
            try:
                listed = await self._api.room.list_participants(api.ListParticipantsRequest(room=room))
            except api.ServerError as error:
                if error.code == api.ServerErrorCode.NOT_FOUND:
                    return ()
                raise
        return listed.participants

    def _is_our_agent(self, participant: api.ParticipantInfo) -> bool:
        """By its name; in automatic mode it has none, which tells it from agents that were asked for."""
        return (
            participant.kind == api.ParticipantInfo.Kind.AGENT
            and participant.state == api.ParticipantInfo.State.ACTIVE
            and participant.attributes.get(AGENT_NAME_ATTRIBUTE, "") == self._agent_name
            and (bool(self._agent_name) or participant.identity.startswith(AGENT_IDENTITY_PREFIX))
        )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what the HTTP client raises into a sentence that says what to do."""
        where = f"LiveKit at {self._livekit.url}"
        try:
            yield
        except api.ServerError as error:
            if error.status in (401, 403):
                problem = f"refuses the key {self._livekit.api_key!r} with its secret"
                advice = "set LIVEKIT_API_KEY and LIVEKIT_API_SECRET to those of that server"
            else:
                problem, advice = f"answers {error.code}: {error.message}", "see its log"
        except TimeoutError:
            problem = f"does not answer within {REQUEST_S:g} s"
            advice = "check LIVEKIT_URL and that nothing between blocks it"
        except (aiohttp.ClientSSLError, ssl.SSLError) as error:
            problem = f"cannot be trusted ({error})"
            advice = "check its certificate, or use ws:// where it has none"
        except aiohttp.ClientConnectorError as error:
            # asyncio words a refused connection as a call; a name that is not found has a negative errno.
            number = error.errno or 0
            reason = os.strerror(number) if number > 0 else error.os_error.strerror
            problem = f"does not answer ({reason})"
            advice = "start it, or set LIVEKIT_URL to where it runs"
        except aiohttp.ClientError as error:
            problem = f"does not answer as LiveKit does ({error})"
            advice = "set LIVEKIT_URL to where it runs"
        else:
            return
        raise LiveKitError(f"{where} {problem}; {advice}")


def _is_person(participant: api.ParticipantInfo) -> bool:
    kinds, states = api.ParticipantInfo.Kind, api.ParticipantInfo.State
    return (
        participant.kind not in (kinds.AGENT, kinds.EGRESS)
        and not participant.permission.recorder
        and participant.state != states.DISCONNECTED
    )
