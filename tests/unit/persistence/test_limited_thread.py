"""Waiting for calls that block, for as long as they may take."""

import threading
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from persistence.limited_thread import LimitedThread

LONG_S = 30.0
SHORT_S = 0.05


@pytest_asyncio.fixture
async def thread() -> AsyncIterator[LimitedThread]:
    thread = LimitedThread("test")
    yield thread
    thread.close()


async def test_call_gives_what_its_function_returns_or_raises(thread: LimitedThread):
    assert await thread.call(lambda: 1 + 1, LONG_S) == 2
    with pytest.raises(ZeroDivisionError):
        await thread.call(lambda: 1 / 0, LONG_S)


async def test_call_that_hangs_is_given_up_and_no_other_is_begun_behind_it(thread: LimitedThread):
    goes_on = threading.Event()
    begun = []
    with pytest.raises(TimeoutError):
        await thread.call(goes_on.wait, SHORT_S)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            await thread.call(lambda: begun.append(1), SHORT_S)
    goes_on.set()
    await thread.call(lambda: begun.append(2), LONG_S)
    assert begun == [2]


async def test_failure_of_a_call_that_was_given_up_disturbs_nobody(thread: LimitedThread):
    goes_on = threading.Event()

    def fail_late() -> None:
        goes_on.wait()
        raise ValueError

    with pytest.raises(TimeoutError):
        await thread.call(fail_late, SHORT_S)
    goes_on.set()
    assert await thread.call(lambda: "next", LONG_S) == "next"
