"""Whether this agent leads its room: a lease in the database, renewed as long as the agent hears."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeVar

import structlog
from sqlalchemy import Connection

from agent.errors import DatabaseError, LiveKitError
from agent.room.dispatch import Rooms
from persistence import leases
from persistence.database import Database
from persistence.database_thread import DatabaseThread
from persistence.leases import LEASE_S, Lease

__all__ = ["Ear", "Leadership"]

log = structlog.get_logger(__name__)

RENEW_INTERVAL_S = 1.0
CALL_TIMEOUT_S = 1.5  # with the interval before it less than a lease lasts
AWAY_S = LEASE_S + 2.0  # longer than a look at a database that says nothing takes, and the wait for the next
DEAF_S = 0.5  # who hears nothing looks again that often while it says something
POLL_S = 0.2
LEAST_INTERVAL_S = 0.3  # between two looks, however many wait for one
COMING_S = 20.0  # for an agent that holds the lease to begin its session
AWAY_POLL_S = 1.0
GHOST_S = 25.0  # LiveKit lists an agent whose process is dead for up to 20
STAND_BY_S = 60.0  # longer than an agent takes to find a pause, and to give out its last words
MAX_FINALS = 100  # between two renewals: ten people who talk at once give ten a second
KEPT_S = 5.0  # of audio, by who stands by: it learns within a second from where on it is to hear

Result = TypeVar("Result")


class Ear(Protocol):
    """What tells whether an agent hears: a `RoomSource`."""

    @property
    def is_hearing(self) -> bool: ...

    @property
    def hears_everyone(self) -> bool: ...

    @property
    def is_reconnecting(self) -> bool: ...

    @property
    def is_closed(self) -> bool: ...

    def forget_before(self, received_s: float) -> None: ...


class Leadership:
    """One agent's part in who leads a room.

    A holder keeps the lead while the database is away, unless an agent that came later speaks in the room:
    that one found the database, and a lease that had lapsed.

    Args:
        database: The one with the leases, for this agent alone.
        rooms: Asked who else is in the room, where the database does not tell.
        space: That of the room.
        room: Its name: a livekit-server that is started again gives it another SID.
        sid: Its SID now.
        agent: The agent's identity in the room.
        worker: Whose process the agent is.
        dead: The identity of an agent that may still be listed in the room, and is dead.
    """

    def __init__(
        self,
        database: Database,
        rooms: Rooms,
        *,
        space: str,
        room: str,
        sid: str,
        agent: str,
        worker: str,
        dead: str = "",
    ) -> None:
        self._database = database
        self._thread = DatabaseThread(database)
        self._rooms = rooms
        self._space = space
        self._room = room
        self._agent = agent
        self._worker = worker
        self._dead = dead
        self._epoch = 0
        self._ear: Ear | None = None
        self._last_seq: Callable[[], int] = lambda: 0
        self._on_successor: Callable[[bool], None] = _heed_nothing
        self._on_lost: Callable[[], None] = _heed_nothing
        self._holding: asyncio.Task[None] | None = None
        self._coming_until_s = 0.0
        self.sid = sid
        self.seq_until = 0  # the last number that agents before this one may have given
        # Up to where, in session time, the agent before heard, if it handed over.
        self.cut_ms: int | None = None
        self._is_ready = False
        self._is_away = False
        self._is_blind = False  # it leads without a lease, since the database was away when it came
        self._is_lost = False
        self._is_over = False
        self._has_successor = False
        self._fresh_until_s = 0.0
        self._heard_epoch = 0  # the highest that somebody has said in the room
        self._wake = asyncio.Event()
        self._looked = asyncio.Event()

    @property
    def is_lost(self) -> bool:
        """Whether another agent leads the room."""
        return self._is_lost

    @property
    def has_successor(self) -> bool:
        """Whether somebody stands by to take over, as far as the last look told."""
        return self._has_successor

    async def take(self) -> bool:
        """Take the lead; where somebody has it, wait for a sign of life of theirs. Tells whether it is ours.

        Without a database, it is ours as soon as no other agent is in the room, as LiveKit tells it.
        """
        seen: Lease | None = None
        began_s = _now_s()
        while True:
            try:
                await self._wait_for_renewals()
                asked_s = _now_s()
                lease = await self._take()
            except DatabaseError as error:
                self._tell_away(error)
                if await self._find_others(older=True) != set():
                    # One that leads, or that is dead and still listed; or LiveKit does not answer, either.
                    if _now_s() - began_s > GHOST_S:
                        log.info("lead.not_free")
                        return False
                    await asyncio.sleep(AWAY_POLL_S)
                    continue
                self._is_blind = True
                self._fresh_until_s = _now_s() + AWAY_S
                self._hold()
                return True
            if lease.holder == self._agent:
                self._fresh_until_s = asked_s + LEASE_S
                self.seq_until = lease.seq_until
                self._hold()
                return True
            if seen is not None and (lease.holder, lease.renewed_at) != (seen.holder, seen.renewed_at):
                log.info("lead.held_by_another", holder=lease.holder)
                return False
            seen = lease
            await asyncio.sleep(POLL_S)

    async def stand_by(self, predecessor: str, ear: Ear) -> bool:
        """Wait until an agent hands over, or is gone; tells whether the lead is ours then.

        Meanwhile the audio of the last seconds is kept, and all of it since the predecessor hears no more.
        """
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + STAND_BY_S
        while loop.time() < deadline_s:
            try:
                lease = await self._stand_by_once(predecessor, ear)
            except DatabaseError as error:
                self._tell_away(error)
            else:
                if lease is None or not lease.is_live:
                    # Whoever it was is gone without a word, or has none to say.
                    return await self.take()
                if lease.holder == self._agent:
                    self.cut_ms, self.seq_until = lease.cut_ms, lease.seq_until
                    self._hold()
                    return True
                if lease.holder != predecessor or lease.successor not in ("", self._agent):
                    log.info("lead.held_by_another", holder=lease.holder)
                    return False
                if lease.cut_ms is None:
                    ear.forget_before(loop.time() - KEPT_S)
            await asyncio.sleep(POLL_S)
        log.info("lead.not_handed_over", holder=predecessor)
        return False

    def lead(
        self,
        epoch: int,
        ear: Ear,
        last_seq: Callable[[], int],
        on_successor: Callable[[bool], None],
        on_lost: Callable[[], None],
    ) -> None:
        """The session has begun: from now on the lease is renewed as long as this agent hears.

        Args:
            epoch: That it leads.
            ear: How it hears.
            last_seq: The last number that it has given.
            on_successor: Called each second, and told whether somebody stands by to take over.
            on_lost: Called once, when another agent leads the room.
        """
        self._epoch, self._ear, self._last_seq = epoch, ear, last_seq
        self._on_successor, self._on_lost = on_successor, on_lost
        if self._is_lost:
            on_lost()

    def _hold(self) -> None:
        """Renew the lease from now on, until it is lost or given up."""
        self._coming_until_s = _now_s() + COMING_S
        self._holding = asyncio.create_task(self._keep_renewing(), name="lead.hold")

    async def _keep_renewing(self) -> None:
        while not (self._is_over or self._is_lost):
            self._wake.clear()
            try:
                lease = await self._renew()
            except Exception:
                # A fault of ours is no reason to leave a room; the lease lapses if it lasts.
                log.exception("lead.failed")
                lease = None
            self._has_successor = lease is not None and bool(lease.successor)
            if self._is_lost:
                self._on_lost()
            else:
                self._on_successor(self._has_successor)
            self._looked.set()
            self._looked = asyncio.Event()
            # Whoever waits for this agent to lead again asks at once.
            await asyncio.sleep(LEAST_INTERVAL_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RENEW_INTERVAL_S - LEAST_INTERVAL_S):
                    await self._wake.wait()

    def hear_epoch(self, epoch: int) -> None:
        """Somebody in the room says to lead this epoch."""
        if epoch > max(self._heard_epoch, self._epoch):
            self._heard_epoch = epoch
            self._wake.set()

    async def confirm(self) -> bool:
        """Whether this agent leads the room now. It waits while nobody can say; False is for good."""
        while not (self._is_lost or self._is_over or self._is_fresh()):
            looked = self._looked
            self._wake.set()
            await looked.wait()
        return not self._is_lost

    async def cut(self, cut_ms: int) -> None:
        """Tell who stands by from when on, in session time, this agent hears no more."""
        await self._try(
            partial(leases.cut, space=self._space, room=self._room, holder=self._agent, cut_ms=cut_ms)
        )

    async def give_up(self) -> None:
        """Lead no more: hand the lease to who stands by, or leave it to anybody. Idempotent."""
        if self._is_over or self._is_lost:
            return
        self._is_over = True
        self._wake.set()
        for way in (leases.move, leases.release):
            if await self._try(partial(way, space=self._space, room=self._room, holder=self._agent)):
                return

    def close(self) -> None:
        """Free the thread and the connection, and renew no more. Idempotent."""
        self._is_over = True
        if self._holding is not None:
            self._holding.cancel()
        self._looked.set()
        self._thread.close()

    def _is_fresh(self) -> bool:
        # What is sent while the connection is made anew arrives later, perhaps beside a successor's words.
        is_reconnecting = self._ear is not None and self._ear.is_reconnecting
        return _now_s() < self._fresh_until_s and not is_reconnecting

    def _is_hearing(self) -> bool:
        """Whether this agent hears, or is on its way."""
        return self._ear.is_hearing if self._ear is not None else _now_s() < self._coming_until_s

    async def _renew(self) -> Lease | None:
        asked_s = _now_s()
        # Who only looks keeps the lease until it lapses. Then it may speak again when it hears again: it is
        # not in the room, as far as it knows, and what it says now would arrive beside its successor's words.
        is_hearing = self._is_hearing()
        try:
            lease = await (self._extend() if is_hearing else self._look())
        except DatabaseError as error:
            self._tell_away(error)
            self._is_lost = await self._is_replaced()
            self._fresh_until_s = _now_s() + AWAY_S
            return None
        self._tell_back()
        holder = lease.holder if lease is not None else None
        if is_hearing:
            self._is_lost = holder != self._agent
        elif lease is not None and holder != self._agent:
            # Who came without the database finds there, lapsed, the lease of somebody who is dead.
            self._is_lost = lease.is_live or not self._is_blind
        if self._is_lost:
            log.warning("lead.lost", holder=holder)
        if is_hearing:
            self._fresh_until_s = asked_s + LEASE_S
        elif (lease is not None and lease.is_live) or (self._ear is not None and self._ear.is_closed):
            # Who has left the room speaks to nobody, and keeps its last words where nobody has succeeded it.
            self._fresh_until_s = asked_s + DEAF_S
        return lease

    async def _take(self) -> Lease:
        return await self._call(
            partial(
                leases.take,
                space=self._space,
                room=self._room,
                sid=self.sid,
                holder=self._agent,
                worker=self._worker,
            )
        )

    async def _extend(self) -> Lease | None:
        if self._is_blind:
            # The lease may be that of somebody who died while the database was away.
            await self._wait_for_renewals()
            lease = await self._take()
            self._is_blind = lease.holder != self._agent
            return lease
        return await self._call(
            partial(
                leases.renew,
                space=self._space,
                room=self._room,
                sid=self.sid,
                holder=self._agent,
                worker=self._worker,
                epoch=self._epoch,
                seq_until=self._last_seq() + MAX_FINALS if self._ear is not None else self.seq_until,
            )
        )

    async def _wait_for_renewals(self) -> None:
        """If the database was away: who leads has not had the time to renew a lease that lapsed meanwhile."""
        if self._is_away:
            await self._look()
            self._tell_back()
            await asyncio.sleep(2 * RENEW_INTERVAL_S)

    async def _look(self) -> Lease | None:
        return await self._thread.call(self._read, CALL_TIMEOUT_S)

    def _read(self) -> Lease | None:
        self._prepare()
        with self._database.read() as connection:
            return leases.look(connection, self._space, self._room)

    async def _stand_by_once(self, predecessor: str, ear: Ear) -> Lease | None:
        if not ear.hears_everyone:
            return await self._look()
        return await self._call(
            partial(
                leases.offer,
                space=self._space,
                room=self._room,
                holder=predecessor,
                successor=self._agent,
            )
        )

    async def _is_replaced(self) -> bool:
        """Whether an agent that came later speaks in the room: LiveKit knows whether there is one."""
        if self._heard_epoch <= self._epoch:
            return False
        others = await self._find_others(older=False)
        if others:
            log.warning("lead.lost", holder=min(others))
        return bool(others)

    async def _find_others(self, *, older: bool) -> set[str] | None:
        """The agents of ours that came into the room before this one, or after; None where nobody tells."""
        try:
            agents = await self._rooms.agents_in(self._room)
        except LiveKitError:
            return None
        identities = [agent.identity for agent in agents]  # the oldest first
        # Who has not come yet is the youngest.
        own = identities.index(self._agent) if self._agent in identities else len(identities)
        return set(identities[:own] if older else identities[own + 1 :]) - {self._dead}

    async def _try(self, change: Callable[[Connection], object]) -> bool:
        """Change something that comes by itself a little later, where the database is away; tells whether."""
        try:
            return bool(await self._call(change))
        except DatabaseError as error:
            self._tell_away(error)
            return False

    async def _call(self, function: Callable[[Connection], Result]) -> Result:
        return await self._thread.call(partial(self._in_transaction, function), CALL_TIMEOUT_S)

    def _in_transaction(self, function: Callable[[Connection], Result]) -> Result:
        self._prepare()
        with self._database.write() as connection:
            return function(connection)

    def _prepare(self) -> None:
        if not self._is_ready:
            leases.prepare(self._database)
            self._is_ready = True

    def _tell_away(self, error: DatabaseError) -> None:
        if not self._is_away:
            log.warning("lead.database_away", problem=str(error))
        self._is_away = True

    def _tell_back(self) -> None:
        if self._is_away:
            log.info("lead.database_back")
        self._is_away = False


def _heed_nothing(_has_successor: bool = False) -> None:
    """There is no session yet."""


def _now_s() -> float:
    """A clock that goes on while the machine is suspended, unlike the event loop's: others go on, too."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
