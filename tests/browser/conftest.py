"""A real Chromium, and a console with sessions in it, for all tests of the pages."""

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from tests.support.parts import require
from tests.support.seeded import Live, add_analysis, add_incident_review, add_live, incident_review
from tests.support.seeded_console import AT, Console, SeededConsole

# Sessions of one test are older than those of all, so that they take no place of these in the list.
LONG_BEFORE = AT - timedelta(days=30)
ELSEWHERE = "roomscribe.test"  # a name that a browser does not take for this machine
LIMIT_MS = 20_000  # for anything that a page has to do; this machine may be doing other things


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker("integration")


@pytest.fixture(scope="session")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeededConsole]:
    with Console(tmp_path_factory.mktemp("console")) as running:
        yield SeededConsole.fill(running)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    program = require("chromium")
    async with async_playwright() as playwright:
        # The sandbox does not work for root, nor in most containers; nobody else's pages are opened here.
        browser = await playwright.chromium.launch(
            executable_path=program,
            args=["--no-sandbox", f"--host-resolver-rules=MAP {ELSEWHERE} 127.0.0.1"],
        )
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="session")
async def context(browser: Browser, console: SeededConsole) -> AsyncIterator[BrowserContext]:
    """A browser of somebody who has signed in, whose pages may say nothing on their console."""
    complaints: list[str] = []
    made = await browser.new_context(
        viewport={"width": 1280, "height": 800}, locale="en-GB", timezone_id="Europe/Berlin"
    )
    made.set_default_timeout(LIMIT_MS)
    made.on("weberror", lambda error: complaints.append(str(error.error)))
    made.on(
        "console",
        # That a page was not found is what some tests want.
        lambda message: (
            complaints.append(message.text)
            if message.type in ("error", "warning") and "404" not in message.text
            else None
        ),
    )
    await console.running.sign_in(made)
    yield made
    await made.close()
    assert complaints == []


@pytest_asyncio.fixture(loop_scope="session")
async def page(context: BrowserContext) -> Page:
    return await context.new_page()


@pytest_asyncio.fixture(loop_scope="session")
async def stranger(browser: Browser, console: SeededConsole) -> AsyncIterator[Page]:
    """A page of somebody who has not signed in."""
    context = await browser.new_context(base_url=console.url)
    context.set_default_timeout(LIMIT_MS)
    yield await context.new_page()
    await context.close()


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """The URL of a console that others reach without TLS, and a key of it."""
    with Console(tmp_path, host="0.0.0.0") as running:
        yield running.url.replace("127.0.0.1", ELSEWHERE), running.key


@pytest.fixture
def live(console: SeededConsole) -> Live:
    """A session of this test that goes on, in which something was said already."""
    made = add_live(console.running.database, "planning", LONG_BEFORE, ["Nora", "Omar"])
    for each in list(incident_review())[:3]:
        made.say(each.speaker.name, each.text, each.start_ms, each.end_ms)
    return made


@pytest.fixture
def pending(console: SeededConsole) -> str:
    """A session of this test whose analysis has begun."""
    made = add_incident_review(console.running.database, LONG_BEFORE, room="of-one-test")
    add_analysis(console.running.database, made, "begun")
    return made


@pytest.fixture
def failed(console: SeededConsole) -> str:
    """A session of this test whose analysis has failed."""
    made = add_incident_review(console.running.database, LONG_BEFORE, room="of-one-test")
    add_analysis(console.running.database, made, "failed")
    return made
