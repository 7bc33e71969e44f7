"""What fails in a live room is done again only where a hypervisor kept the machine from running."""

import pytest

from tests.support import stolen_time
from tests.support.stolen_time import ATTEMPTS, StolenTime

pytest_plugins = ["pytester"]

FAILING = """
import pytest

@pytest.fixture
def {fixture}():
    pass

def test_failing({fixture}):
    assert False
"""


@pytest.fixture
def outcomes(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    """Runs a test that fails and uses this fixture while so much is stolen in no time."""

    def run(fixture: str, each_s: float) -> dict[str, int]:
        looks = (each_s * look for look in range(100))
        monkeypatch.setattr(stolen_time, "stolen_s", lambda: next(looks))
        pytester.makepyfile(FAILING.format(fixture=fixture))
        return pytester.runpytest_inprocess("-p", "tests.live_rooms", "-p", "no:asyncio").parseoutcomes()

    return run


def test_failure_of_a_live_room_on_a_machine_that_ran_stands(outcomes):
    assert outcomes("livekit", each_s=0.0) == {"failed": 1}


def test_failure_of_a_live_room_on_a_machine_that_was_kept_from_running_is_tried_again_and_then_stands(
    outcomes,
):
    assert outcomes("livekit", each_s=1000.0) == {"failed": 1, "rerun": ATTEMPTS - 1}


def test_failure_of_anything_else_stands_whatever_was_stolen(outcomes):
    assert outcomes("something_else", each_s=1000.0) == {"failed": 1}


def test_what_was_stolen_before_a_test_does_not_count(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stolen_time, "stolen_s", lambda: 1000.0)
    stolen = StolenTime()
    stolen.begin()
    assert not stolen.was_too_much()


def test_stolen_time_is_told_in_seconds_and_never_falls():
    first = stolen_time.stolen_s()
    assert 0 <= first <= stolen_time.stolen_s()
