import asyncio

import pytest

from agent.cli import supervisor
from agent.cli.supervisor import Program, Supervisor
from agent.errors import ConfigError, LiveKitError
from tests.support.virtual_time import run_virtual


class FakeProcess:
    """Runs until it is told to end, by us or by the supervisor."""

    def __init__(self, pid: int, stopped: list[int]) -> None:
        self.pid = pid
        self._stopped = stopped
        self._code: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def end(self, code: int) -> None:
        self._code.set_result(code)

    async def wait(self) -> int:
        return await asyncio.shield(self._code)

    async def stop(self) -> None:
        self._stopped.append(self.pid)
        if not self._code.done():
            self.end(0)


class House:
    """A supervisor of fakes, and what can be seen of it."""

    def __init__(self, *names: str) -> None:
        self.stopped: list[int] = []
        self.started: asyncio.Queue[FakeProcess] = asyncio.Queue()
        self.lines: list[str] = []
        self.failures: list[Exception] = []
        self.stop = asyncio.Event()
        self._count = 0
        self.supervisor = Supervisor([Program(name, self._start) for name in names], self.lines.append)

    async def _start(self) -> FakeProcess:
        if self.failures:
            raise self.failures.pop(0)
        self._count += 1
        process = FakeProcess(self._count, self.stopped)
        self.started.put_nowait(process)
        return process


@pytest.fixture
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "FIRST_WAIT_S", 0)


async def test_programs_are_stopped_in_the_reverse_order() -> None:
    house = House("first", "second")
    running = asyncio.create_task(house.supervisor.run(house.stop))
    await house.started.get()
    await house.started.get()

    house.stop.set()
    await running

    assert house.stopped == [2, 1]


@pytest.mark.usefixtures("no_wait")
@pytest.mark.parametrize(("code", "said"), [(0, "exit code 0"), (3, "exit code 3"), (-9, "signal 9")])
async def test_whatever_ends_is_started_again_and_that_is_said(code: int, said: str) -> None:
    house = House("worker")
    running = asyncio.create_task(house.supervisor.run(house.stop))
    first = await house.started.get()

    first.end(code)
    second = await house.started.get()

    assert second.pid == 2
    assert f"worker ended ({said}); starting it again at once" in house.lines
    house.stop.set()
    await running
    assert house.stopped == [2]


@pytest.mark.usefixtures("no_wait")
async def test_a_restart_that_fails_is_tried_again() -> None:
    house = House("worker")
    running = asyncio.create_task(house.supervisor.run(house.stop))
    first = await house.started.get()

    house.failures.append(LiveKitError("port 1 is taken"))
    first.end(1)
    await house.started.get()

    assert "worker cannot be started: port 1 is taken; starting it again at once" in house.lines
    house.stop.set()
    await running


async def test_a_first_start_that_fails_stops_the_others_and_is_raised() -> None:
    house = House("first", "second")

    async def fail() -> FakeProcess:
        raise LiveKitError("no")

    house.supervisor = Supervisor(
        [Program("first", house._start), Program("second", fail)], house.lines.append
    )

    with pytest.raises(LiveKitError, match="no"):
        await house.supervisor.run(house.stop)
    assert house.stopped == [1]


REFUSAL = 2


async def test_a_program_that_refuses_its_settings_ends_everything() -> None:
    house = House()
    house.supervisor = Supervisor(
        [Program("worker", house._start, refusal_code=REFUSAL), Program("console", house._start)],
        house.lines.append,
    )
    running = asyncio.create_task(house.supervisor.run(house.stop))
    worker = await house.started.get()
    await house.started.get()

    worker.end(REFUSAL)

    with pytest.raises(ConfigError, match="worker cannot run with these settings"):
        await running
    assert house.stopped == [2, 1]
    assert house.started.empty()


def test_one_without_which_the_rest_goes_on_is_tried_again_now_and_then() -> None:
    async def waits_s() -> list[float]:
        loop = asyncio.get_running_loop()
        house = House()
        console = Program("console", house._start, refusal_code=REFUSAL, rest_goes_on=True)
        house.supervisor = Supervisor([Program("worker", house._start), console], house.lines.append)
        running = asyncio.create_task(house.supervisor.run(house.stop))
        await house.started.get()
        process = await house.started.get()
        waits = []
        for _ in range(3):
            process.end(REFUSAL)
            ended_s = loop.time()
            process = await house.started.get()
            waits.append(loop.time() - ended_s)
        assert house.stopped == []
        assert (
            "console cannot run with these settings; its reason is above; starting it again in 30 s"
            in house.lines
        )
        house.stop.set()
        await running
        return waits

    assert run_virtual(waits_s()) == pytest.approx([30, 30, 30], abs=1e-3)


async def test_a_worker_that_refuses_its_settings_later_ends_everything(no_wait: None) -> None:
    house = House()
    house.supervisor = Supervisor([Program("worker", house._start, refusal_code=REFUSAL)], house.lines.append)
    running = asyncio.create_task(house.supervisor.run(house.stop))
    (await house.started.get()).end(1)

    (await house.started.get()).end(REFUSAL)

    with pytest.raises(ConfigError):
        await running


@pytest.mark.parametrize(
    ("ran_s", "expected_s"), [(59, [1, 2, 4, 8, 16, 30, 30]), (61, [0, 0, 0, 0, 0, 0, 0])]
)
def test_waits_grow_to_a_limit_unless_it_had_run_for_long(ran_s: float, expected_s: list[float]) -> None:
    async def waits_s() -> list[float]:
        loop = asyncio.get_running_loop()
        house = House("worker")
        running = asyncio.create_task(house.supervisor.run(house.stop))
        process = await house.started.get()
        waits = []
        for _ in expected_s:
            await asyncio.sleep(ran_s)
            process.end(1)
            ended_s = loop.time()
            process = await house.started.get()
            waits.append(loop.time() - ended_s)
        house.stop.set()
        await running
        return waits

    assert run_virtual(waits_s()) == pytest.approx(expected_s, abs=1e-3)
