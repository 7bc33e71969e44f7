"""Live speech is tried again only where a hypervisor kept the machine from running."""

from collections.abc import Iterator

import pytest

from tests.support import stolen_time
from tests.support.stolen_time import ATTEMPTS, heard_undisturbed


class Attempt:
    """Fails the first so many times."""

    def __init__(self, failures: int) -> None:
        self._failures = failures
        self.numbers: list[int] = []

    async def __call__(self, number: int) -> None:
        self.numbers.append(number)
        assert number >= self._failures, f"attempt {number}"


def steal(monkeypatch: pytest.MonkeyPatch, each_s: float) -> None:
    """So much is stolen between two looks."""
    looks: Iterator[float] = (each_s * look for look in range(100))
    monkeypatch.setattr(stolen_time, "stolen_s", lambda: next(looks))


async def test_failure_on_a_machine_that_ran_stands(monkeypatch: pytest.MonkeyPatch):
    steal(monkeypatch, 0.0)
    attempt = Attempt(failures=1)
    with pytest.raises(AssertionError, match="attempt 0"):
        await heard_undisturbed(attempt, duration_s=10)
    assert attempt.numbers == [0]


async def test_failure_on_a_machine_that_was_kept_from_running_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
):
    steal(monkeypatch, 1000.0)
    attempt = Attempt(failures=2)
    await heard_undisturbed(attempt, duration_s=10)
    assert attempt.numbers == [0, 1, 2]


async def test_last_failure_stands_whatever_was_stolen(monkeypatch: pytest.MonkeyPatch):
    steal(monkeypatch, 1000.0)
    attempt = Attempt(failures=ATTEMPTS)
    with pytest.raises(AssertionError, match=f"attempt {ATTEMPTS - 1}"):
        await heard_undisturbed(attempt, duration_s=10)


async def test_success_is_not_repeated(monkeypatch: pytest.MonkeyPatch):
    steal(monkeypatch, 1000.0)
    attempt = Attempt(failures=0)
    await heard_undisturbed(attempt, duration_s=10)
    assert attempt.numbers == [0]


def test_stolen_time_is_told_in_seconds_and_never_falls():
    first = stolen_time.stolen_s()
    assert 0 <= first <= stolen_time.stolen_s()
