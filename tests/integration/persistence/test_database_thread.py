"""An event loop never waits for its database longer than it wants to."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import text

from agent.errors import DatabaseAwayError
from persistence.database import Database
from persistence.database_thread import DatabaseThread
from tests.support.gathering import until
from tests.support.toxiproxy import Proxy, Toxiproxy

LONG_S = 60.0
SHORT_S = 0.2


@pytest.fixture
def proxy(toxiproxy: Toxiproxy, postgres_url: str) -> Proxy:
    return toxiproxy.proxy(postgres_url)


@pytest.fixture
def thread(proxy: Proxy) -> Iterator[DatabaseThread]:
    thread = DatabaseThread(Database(proxy.url))
    yield thread
    thread.close()


def answer(thread: DatabaseThread, statement: str = "SELECT 42") -> object:
    with thread.database.read() as connection:
        return connection.execute(text(statement)).scalar()


async def test_calls_run_one_after_the_other_in_the_order_in_which_they_were_made(
    thread: DatabaseThread,
) -> None:
    order: list[int] = []
    running = threading.Lock()

    def call(number: int) -> int:
        assert running.acquire(blocking=False)
        order.append(number)
        running.release()
        return number

    numbers = list(range(50))
    assert await asyncio.gather(*(thread.call(lambda n=n: call(n), LONG_S) for n in numbers)) == numbers
    assert order == numbers


async def test_what_a_call_raises_comes_to_its_caller_and_harms_no_other_call(
    thread: DatabaseThread,
) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    failing = asyncio.create_task(thread.call(fail, LONG_S))
    assert await thread.call(lambda: answer(thread), LONG_S) == 42
    with pytest.raises(ZeroDivisionError):
        await failing


async def test_call_to_a_silent_database_is_given_up_and_the_next_one_works_when_it_speaks_again(
    thread: DatabaseThread, proxy: Proxy
) -> None:
    assert await thread.call(lambda: answer(thread), LONG_S) == 42
    with proxy.silent():
        for _ in range(2):
            with pytest.raises(DatabaseAwayError):
                await thread.call(lambda: answer(thread), SHORT_S)
    assert await thread.call(lambda: answer(thread), LONG_S) == 42


async def test_call_that_waits_behind_a_silent_one_is_given_up_too(
    thread: DatabaseThread, proxy: Proxy
) -> None:
    await thread.call(lambda: answer(thread), LONG_S)
    with proxy.silent():
        first = asyncio.create_task(thread.call(lambda: answer(thread), LONG_S))
        await asyncio.sleep(0)
        second = asyncio.create_task(thread.call(lambda: answer(thread), SHORT_S))
        # It cuts the first one's connection, as nobody answers there.
        results = await asyncio.gather(first, second, return_exceptions=True)
        assert isinstance(results[0], DatabaseAwayError)
    assert await thread.call(lambda: answer(thread), LONG_S) == 42


async def test_call_that_cannot_be_broken_off_is_left_alone_and_the_next_one_waits_for_it(
    thread: DatabaseThread,
) -> None:
    goes_on, order = threading.Event(), list[str]()

    def hang() -> None:
        goes_on.wait(LONG_S)
        order.append("late")
        raise DatabaseAwayError("nobody hears this")  # and nobody is warned of it

    try:
        with pytest.raises(DatabaseAwayError, match="does not answer"):
            await thread.call(hang, SHORT_S)
        with pytest.raises(DatabaseAwayError, match="does not answer"):
            await thread.call(lambda: order.append("never"), SHORT_S)
    finally:
        goes_on.set()
    await thread.call(lambda: order.append("next"), LONG_S)
    assert order == ["late", "next"]


async def test_caller_who_is_cancelled_leaves_a_thread_that_works(thread: DatabaseThread) -> None:
    goes_on = threading.Event()
    waiting = asyncio.create_task(thread.call(lambda: goes_on.wait(LONG_S), LONG_S))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    goes_on.set()
    assert await thread.call(lambda: answer(thread), LONG_S) == 42


async def test_closing_ends_a_call_that_the_database_does_not_answer(
    proxy: Proxy,
) -> None:
    thread = DatabaseThread(Database(proxy.url))
    await thread.call(lambda: answer(thread), LONG_S)
    with proxy.silent():
        waiting = asyncio.create_task(thread.call(lambda: answer(thread), LONG_S))
        await asyncio.sleep(SHORT_S)
        thread.close()
        thread.close()
        with pytest.raises(DatabaseAwayError):
            await waiting
        await until(lambda: not alive("database"), what="the end of its thread")


async def test_closing_leaves_no_connection_of_calls_that_were_still_waiting(proxy: Proxy) -> None:
    thread = DatabaseThread(Database(proxy.url))
    goes_on, connections = threading.Event(), list[Any]()

    def connect_late() -> None:
        goes_on.wait(LONG_S)
        with thread.database.read() as connection:
            connections.append(connection.connection.dbapi_connection)

    waiting = [asyncio.create_task(thread.call(connect_late, LONG_S)) for _ in range(2)]
    await asyncio.sleep(SHORT_S)
    thread.close()
    goes_on.set()
    await asyncio.gather(*waiting, return_exceptions=True)
    await until(lambda: not alive("database"), what="the end of its thread")
    assert [connection.closed for connection in connections] == [True]


def alive(name: str) -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(name)]
