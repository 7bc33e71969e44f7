"""A pytest plugin: tests in a live room are tried again where the machine was kept from running meanwhile."""

import pytest

from tests.support.stolen_time import ATTEMPTS, StolenTime

STOLEN = StolenTime()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    again = pytest.mark.flaky(reruns=ATTEMPTS - 1, condition=STOLEN.was_too_much)
    for item in items:
        if "livekit" in getattr(item, "fixturenames", ()):
            item.add_marker(again)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    STOLEN.begin()
