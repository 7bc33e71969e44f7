"""Brings agents into rooms that want one and have none, as long as the worker runs."""

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from math import nan

import structlog

from agent.config import Settings
from agent.dispatch_policy import Pursuit, Reason, Verdict, is_among, may_want_agent, wants_agent
from agent.errors import DatabaseError, LiveKitError
from agent.room.dispatch import Errand, OpenRoom, Rooms
from agent.telemetry.metrics import (
    AGENT_DEATHS,
    AGENTS_DISPATCHED,
    COVERAGE,
    ROOMS_PARKED,
    ROOMS_WITHOUT_AGENT,
)
from persistence import deaths, leases
from persistence.database import Database
from persistence.database_thread import DatabaseThread
from persistence.deaths import Parked
from persistence.leases import LEASE_S, NO_ROOM, NO_SPACE, Lease
from persistence.open_rooms import RoomRecord, live_coverage, room_records
from persistence.records import DEFAULT_SPACE

__all__ = ["Reconciler"]

log = structlog.get_logger(__name__)

LOOK_INTERVAL_S = 0.5
RENEW_INTERVAL_S = 1.0
TAKE_INTERVAL_S = 0.5  # by those who wait for the lead: its holder may be gone
LEASE_CALL_S = 2.0  # a lease is lost after three
NOTE_TIMEOUT_S = 1.0
CALL_TIMEOUT_S = 8.0  # another process may hold SQLite's file for five
UNWANTED_S = 5.0  # that a room which wants no agent is not asked about again
EMPTY_S = 1.0
PARKED_S = 1.0
MAX_AT_ONCE = 8  # rooms that LiveKit is asked about; it takes 5 ms, and 3 s for one that is just closed
FAILURES = 3  # of one room in a row are a problem; one is a room that has just been closed
HOUSEKEEPING_S = 3600.0


@dataclass(slots=True)
class _Room:
    """A room that nobody leads."""

    pursuit: Pursuit = field(default_factory=Pursuit)
    verdict: Verdict | None = None
    quiet_until_s: float = 0.0
    asked_at: datetime | None = None
    failures: int = 0
    problem: str = ""


class Reconciler:
    """Looks at all rooms, unless another worker's does, and dispatches agents where they are missing.

    Args:
        settings: Those of the worker.
        worker_name: What the worker is called.
        rooms: Those of the LiveKit server.
    """

    def __init__(self, settings: Settings, worker_name: str, rooms: Rooms) -> None:
        self._dispatch = settings.dispatch
        self._worker = worker_name
        # Several workers may be called the same, where they share a folder.
        self._holder = f"{worker_name}-{secrets.token_hex(4)}"
        self._rooms = rooms
        self._main = DatabaseThread(Database.of(settings))
        self._notes = DatabaseThread(Database.of(settings))
        self._leases = DatabaseThread(Database.of_leases(settings))
        self._are_leases_ready = False
        self._leads_until_s = 0.0
        self._led_last = False
        self._took_lead = asyncio.Event()
        self._known: dict[str, _Room] = {}  # by SID
        self._parked: dict[str, Parked] = {}  # by name
        self._parked_read_s = 0.0
        self._away_s = float("-inf")  # when the database was away
        self._tidied_s = 0.0
        self._in_hand: set[str] = set()  # names of rooms whose agent has just died
        self._limit = asyncio.Semaphore(MAX_AT_ONCE)
        self._problems: dict[str, str] = {}

    async def run(self) -> None:
        """Look again and again, for ever."""
        leading = asyncio.create_task(self._lead(), name="reconciler.lead")
        try:
            while True:
                await self.look()
                self._took_lead.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_INTERVAL_S):
                        await self._took_lead.wait()
        finally:
            leading.cancel()
            await asyncio.gather(leading, return_exceptions=True)
            await self._resign()
            self.close()

    def close(self) -> None:
        """Look no more. Idempotent."""
        self._main.close()
        self._notes.close()
        self._leases.close()

    async def look(self) -> None:
        """Look at all rooms once, if it is us who look after them."""
        if not self._leads():
            self._leave_to_others()
            return
        if _now_s() < self._away_s + LEASE_S:
            return  # who leads a room has not had the time to renew a lease that has lapsed meanwhile
        try:
            problem = await self._look()
        except (DatabaseError, LiveKitError) as error:
            if isinstance(error, DatabaseError):
                self._away_s = _now_s()
            self._tell("rooms without an agent", str(error))
        except Exception as error:
            # A fault of ours in one look is no reason to stop looking.
            if self._tell("rooms without an agent", type(error).__name__):
                log.exception("reconciler.failed")
        else:
            self._tell("rooms without an agent", problem)

    async def agent_died(self, room: str, identity: str, age_ms: int, sid: str = "") -> None:
        """The process of an agent of ours has ended: bring its successor at once, if one is needed.

        It may have ended in an orderly way, or its room with it. So what counts is whether the room has
        people and wants an agent, and nobody else leads it.

        Args:
            room: The room's name.
            identity: The agent's.
            age_ms: How long it has run.
            sid: The room that it was for; one of its name may have followed.
        """
        if room in self._in_hand:
            return
        self._in_hand.add(room)
        try:
            try:
                await self._succeed(room, identity, age_ms, sid)
            except DatabaseError as error:
                self._tell("agents that died", str(error))
                await self._succeed_unasked(room, identity, age_ms)
                return
        except LiveKitError as error:
            self._tell("agents that died", str(error))
        except Exception as error:
            if self._tell("agents that died", type(error).__name__):
                log.exception("reconciler.failed")
        else:
            self._tell("agents that died", "")
        finally:
            self._in_hand.discard(room)

    # Who looks

    async def take_lead(self) -> bool:
        """Take or keep the lead among all reconcilers; tells whether it is ours."""
        before_s = _now_s()
        lease = await self._leases.call(self._take, LEASE_CALL_S)
        self._leads_until_s = before_s + LEASE_S if lease.holder == self._holder else 0.0
        if self._leads() and not self._led_last:
            log.info("reconciler.leads")
            self._took_lead.set()
        self._led_last = self._leads()
        return self._led_last

    async def _lead(self) -> None:
        while True:
            try:
                await self.take_lead()
            except DatabaseError as error:
                self._away_s = _now_s()
                self._tell("leases", str(error))
            except Exception as error:
                if self._tell("leases", type(error).__name__):
                    log.exception("reconciler.failed")
            else:
                self._tell("leases", "")
            await asyncio.sleep(RENEW_INTERVAL_S if self._leads() else TAKE_INTERVAL_S)

    def _leads(self) -> bool:
        return _now_s() < self._leads_until_s

    def _take(self) -> Lease:
        self._prepare_leases()
        with self._leases.database.write() as connection:
            return leases.take(
                connection, space=NO_SPACE, room=NO_ROOM, sid="", holder=self._holder, worker=self._worker
            )

    def _prepare_leases(self) -> None:
        if not self._are_leases_ready:
            leases.prepare(self._leases.database)
            self._are_leases_ready = True

    async def _resign(self) -> None:
        """Let another worker's look at once."""
        if not self._leads():
            return
        self._leads_until_s = 0.0
        try:
            await self._leases.call(partial(self._release, NO_SPACE, NO_ROOM, self._holder), LEASE_CALL_S)
        except DatabaseError as error:
            log.info("reconciler.lease_kept", problem=str(error))  # it lapses by itself

    def _leave_to_others(self) -> None:
        self._parked.clear()
        self._known.clear()
        ROOMS_PARKED.set(0)
        ROOMS_WITHOUT_AGENT.set(0)
        COVERAGE.set(nan)

    # All rooms

    async def _look(self) -> str:
        """Dispatch agents where they are missing; gives a problem with single rooms, or nothing."""
        open_rooms = await self._rooms.open_rooms()
        found = await self._leases.call(self._every, LEASE_CALL_S)
        live = [lease for lease in found if lease.is_live]
        names, sids = {lease.room for lease in live}, {lease.sid for lease in live}
        alone = [room for room in open_rooms if room.name not in names and room.sid not in sids]
        await self._look_at_lapsed([lease for lease in found if not lease.is_live], open_rooms, alone)
        await self._forgive([lease for lease in live if lease.room in self._parked])
        # An agent has come, or the room is closed.
        for sid in self._known.keys() - {room.sid for room in alone}:
            del self._known[sid]
        now_s = _now_s()
        due = [
            room for room in alone if room.name not in self._in_hand and self._of(room).quiet_until_s <= now_s
        ]
        if due or now_s >= self._parked_read_s + UNWANTED_S:
            records, parked, coverage = await self._main.call(partial(self._read, due), CALL_TIMEOUT_S)
            COVERAGE.set(coverage)
            self._parked_read_s = now_s
            self._see_parked(parked, open_rooms)
            await asyncio.gather(*(self._tend(room, records[room.sid]) for room in due))
        self._count()
        await self._tidy()
        return next((room.problem for room in self._known.values() if room.failures >= FAILURES), "")

    async def _look_at_lapsed(
        self, lapsed: Sequence[Lease], open_rooms: Sequence[OpenRoom], alone: Sequence[OpenRoom]
    ) -> None:
        """Note who died, and forget those whose room is closed."""
        alone_by_name = {room.name: room for room in alone}
        open_names = {room.name for room in open_rooms}
        noting = []
        for lease in lapsed:
            if (room := alone_by_name.get(lease.room)) is not None:
                if lease.is_released:
                    self._note_left(self._of(room), lease.holder)
                    continue
                age_ms = round((lease.renewed_at - lease.acquired_at).total_seconds() * 1000)
                noting.append(
                    self._note_death(
                        room, self._of(room), lease.holder, lease.worker, age_ms, Reason.LEASE_LAPSED
                    )
                )
            elif lease.room not in open_names:
                await self._leases.call(partial(self._forget, lease), LEASE_CALL_S)
        await asyncio.gather(*noting)

    async def _forgive(self, led: Sequence[Lease]) -> None:
        """A parked room whose agent lives, since somebody asked for it, is parked no more."""
        rooms = [
            lease.room
            for lease in led
            if lease.renewed_at - lease.acquired_at >= timedelta(milliseconds=deaths.EARLY_MS)
        ]

        def forget() -> None:
            with self._main.database.write() as connection:
                for room in rooms:
                    deaths.forget(connection, DEFAULT_SPACE, room)

        if rooms:
            await self._note(forget)
            self._parked_read_s = 0.0

    async def _tend(self, room: OpenRoom, record: RoomRecord) -> None:
        """Do what is to be done about one room."""
        known = self._of(room)
        async with self._limit:
            # Its agent may have died meanwhile, or the lead be lost.
            if room.name in self._in_hand or not self._leads():
                return
            try:
                await self._judge(room, known, record)
                if known.verdict is Verdict.DISPATCH and self._leads():
                    await self._ask(room, known)
            except LiveKitError as error:
                known.failures, known.problem = known.failures + 1, str(error)
                known.quiet_until_s = _now_s() + RENEW_INTERVAL_S
            else:
                known.failures = 0

    def _count(self) -> None:
        without = {Verdict.PARKED, Verdict.WAIT, Verdict.DISPATCH}
        ROOMS_WITHOUT_AGENT.set(sum(room.verdict in without for room in self._known.values()))

    def _see_parked(self, parked: Sequence[Parked], open_rooms: Sequence[OpenRoom]) -> None:
        """Say which rooms are parked and which are not any more."""
        before, open_names = self._parked, {room.name for room in open_rooms}
        self._parked = {each.room: each for each in parked if each.space == DEFAULT_SPACE}
        for name, each in self._parked.items():
            if name not in before or before[name].since != each.since:
                log.error(
                    "room.parked",
                    room=name,
                    until=each.until.isoformat(timespec="seconds"),
                    problem=f"its agents died {deaths.PARK_DEATHS} times soon after they began; see what "
                    "this log says of that room before, and cure it; it is tried again by itself",
                )
        for name in before.keys() - self._parked.keys():
            log.info("room.unparked", room=name)
        ROOMS_PARKED.set(len(open_names & self._parked.keys()))

    async def _tidy(self) -> None:
        if _now_s() < self._tidied_s + HOUSEKEEPING_S:
            return
        self._tidied_s = _now_s()

        def tidy() -> None:
            with self._main.database.write() as connection:
                deaths.forget_old(connection)

        await self._note(tidy)

    async def _note(self, write: Callable[[], None]) -> None:
        """Write something down that no room waits for: somebody may hold the database's lock for long."""
        try:
            await self._notes.call(write, NOTE_TIMEOUT_S)
        except DatabaseError as error:
            self._tell("what is noted of rooms", str(error))
        else:
            self._tell("what is noted of rooms", "")

    # One room

    async def _succeed(self, name: str, identity: str, age_ms: int, sid: str) -> None:
        """Bring the successor of an agent that has died into its room."""
        try:
            # Its lease keeps others from the room until all is known.
            lease = await self._leases.call(partial(self._lease_of, name), LEASE_CALL_S)
            if lease is not None and lease.is_live and lease.holder != identity:
                return
            found = await self._rooms.open_rooms([name])
            if not found:
                return
            (room,) = found
            # Who held no lease, and was for another room, was not missed in this one.
            if (lease is None or lease.holder != identity) and sid not in ("", room.sid):
                return
            records, _, _ = await self._main.call(partial(self._read, found), CALL_TIMEOUT_S)
            known = self._of(room)
            await self._judge(room, known, records[room.sid], has_died=True)
            if known.verdict in (Verdict.UNWANTED, Verdict.EMPTY):
                return
            if lease is not None and lease.holder == identity and lease.is_released:
                self._note_left(known, identity)
            else:
                await self._note_death(room, known, identity, self._worker, age_ms, Reason.AGENT_DIED)
            if age_ms < deaths.EARLY_MS:
                _, parked, _ = await self._main.call(partial(self._read, ()), CALL_TIMEOUT_S)
                if any(each.space == DEFAULT_SPACE and each.room == name for each in parked):
                    self._parked_read_s = 0.0
                    return
        finally:
            await self._leases.call(partial(self._release, DEFAULT_SPACE, name, identity), LEASE_CALL_S)
        if known.pursuit.due_s <= _now_s():
            await self._ask(room, known)

    async def _succeed_unasked(self, name: str, identity: str, age_ms: int) -> None:
        """The same while the database cannot say whether the room still wants an agent. It wanted that one.

        Its successor leads if nobody else is there. One that died early might do so again and again, and
        nobody would count.
        """
        if age_ms < deaths.EARLY_MS:
            return
        for room in await self._rooms.open_rooms([name]):
            if await self._rooms.people_in(name):
                known = self._of(room)
                known.pursuit.note_death(identity, Reason.AGENT_DIED, _now_s())
                await self._ask(room, known)

    async def _judge(
        self, room: OpenRoom, known: _Room, record: RoomRecord, *, has_died: bool = False
    ) -> None:
        """Find out whether a room needs an agent, and how urgently."""
        is_served = self._dispatch.mode == "explicit" or is_among(room.name, self._dispatch.rooms)
        is_wanted, people = may_want_agent(record, is_served=is_served), 0
        if is_wanted:
            # What is to be brought back at once need not be asked when it was asked before.
            if not has_died or not wants_agent(record, is_served=is_served, was_asked=False):
                self._note_asked(known, await self._rooms.asked_at(room.name))
            is_wanted = wants_agent(record, is_served=is_served, was_asked=known.asked_at is not None)
        if is_wanted:
            # The last that is asked before a dispatch, which would make a closed room again.
            people = await self._rooms.people_in(room.name)
        known.verdict = known.pursuit.decide(
            is_wanted=is_wanted, people=people, is_parked=room.name in self._parked, now_s=_now_s()
        )
        match known.verdict:
            case Verdict.UNWANTED:
                known.quiet_until_s = _now_s() + UNWANTED_S
            case Verdict.EMPTY:
                known.quiet_until_s = _now_s() + EMPTY_S
            case Verdict.PARKED:
                known.quiet_until_s = _now_s() + PARKED_S
            case Verdict.WAIT:
                known.quiet_until_s = known.pursuit.due_s

    def _note_asked(self, known: _Room, asked_at: datetime | None) -> None:
        """Put LiveKit's time onto our clock, once, so that a clock which is put back does no harm."""
        if asked_at is not None and asked_at != known.asked_at:
            ago = max(datetime.now(UTC) - asked_at, timedelta())
            known.pursuit.note_asked(_now_s() - ago.total_seconds())
        known.asked_at = asked_at

    def _note_left(self, known: _Room, identity: str) -> None:
        """Note that an agent has left a room in an orderly way, as one whose worker was stopped."""
        if known.pursuit.dead != identity:
            known.pursuit.note_left(identity)
            known.quiet_until_s = 0.0

    async def _note_death(
        self, room: OpenRoom, known: _Room, identity: str, worker: str, age_ms: int, reason: Reason
    ) -> None:
        """Note once that an agent has died, and keep that for parking where it was early."""
        if known.pursuit.dead == identity:
            return

        def record() -> None:
            with self._main.database.write() as connection:
                deaths.record(
                    connection,
                    space=DEFAULT_SPACE,
                    room=room.name,
                    sid=room.sid,
                    holder=identity,
                    worker=worker,
                    age_ms=age_ms,
                )

        if age_ms < deaths.EARLY_MS:
            await self._note(record)
        known.pursuit.note_death(identity, reason, _now_s())
        known.quiet_until_s = 0.0
        AGENT_DEATHS.inc()
        log.warning("room.agent_died", room=room.name, agent=identity, age_ms=age_ms, reason=reason.value)

    async def _ask(self, room: OpenRoom, known: _Room) -> None:
        reason, died = known.pursuit.reason, known.pursuit.dead
        known.pursuit.note_dispatched(_now_s())
        await self._rooms.dispatch(room.name, Errand(sid=room.sid, died=died))
        AGENTS_DISPATCHED.labels(reason.value).inc()
        log.info("room.agent_dispatched", room=room.name, sid=room.sid, reason=reason.value)

    def _of(self, room: OpenRoom) -> _Room:
        return self._known.setdefault(room.sid, _Room())

    # The databases, in their threads

    def _every(self) -> list[Lease]:
        self._prepare_leases()
        with self._leases.database.read() as connection:
            return [lease for lease in leases.every(connection) if lease.space == DEFAULT_SPACE]

    def _lease_of(self, room: str) -> Lease | None:
        self._prepare_leases()
        with self._leases.database.read() as connection:
            return leases.look(connection, DEFAULT_SPACE, room)

    def _release(self, space: str, room: str, holder: str) -> Lease | None:
        with self._leases.database.write() as connection:
            return leases.release(connection, space=space, room=room, holder=holder)

    def _forget(self, lease: Lease) -> bool:
        with self._leases.database.write() as connection:
            return leases.forget(connection, space=lease.space, room=lease.room, holder=lease.holder)

    def _read(self, rooms: Sequence[OpenRoom]) -> tuple[dict[str, RoomRecord], list[Parked], float]:
        with self._main.database.read() as connection:
            records = room_records(connection, DEFAULT_SPACE, [(room.name, room.sid) for room in rooms])
            return records, deaths.parked(connection), live_coverage(connection)

    def _tell(self, part: str, problem: str) -> bool:
        """Say a problem once, and when it is over; tells whether it is a new one."""
        if problem == self._problems.get(part, ""):
            return False
        if problem:
            log.warning("reconciler.waits", part=part, problem=problem)
            self._problems[part] = problem
        else:
            log.info("reconciler.goes_on", part=part)
            del self._problems[part]
        return bool(problem)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
