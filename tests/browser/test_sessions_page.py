"""The list of sessions."""

import pytest
from playwright.async_api import Page, expect

from tests.browser.conftest import LIMIT_MS, LONG_BEFORE
from tests.support.seeded import add_live
from tests.support.seeded_console import SeededConsole

pytestmark = pytest.mark.asyncio(loop_scope="session")  # the browser's


async def test_list_leads_to_each_session_and_to_others_of_its_room(
    page: Page, console: SeededConsole
) -> None:
    await page.goto(console.url)
    await expect(page.get_by_role("listitem").filter(has_text="incident-review")).to_contain_text("Analysed")
    # The time of who reads it, not UTC.
    await expect(page.get_by_role("listitem").filter(has_text="incident-review")).to_contain_text("10:00")
    await page.get_by_role("link", name="incident-review").click()
    await expect(page).to_have_url(f"{console.url}/sessions/{console.analysed}")
    await page.get_by_role("link", name="Other sessions of this room").click()
    await expect(page.get_by_role("listitem")).to_have_count(1)


async def test_list_shows_what_begins_and_ends_by_itself_and_leaves_the_focus_where_it_is(
    page: Page, console: SeededConsole
) -> None:
    await page.goto(f"{console.url}/?room=of-the-list")
    await expect(page.get_by_text("No sessions here.")).to_be_visible()
    live = add_live(console.running.database, "of-the-list", LONG_BEFORE, ["Nora"])
    session = page.get_by_role("listitem")
    await expect(session).to_contain_text("Live", timeout=LIMIT_MS)
    await session.get_by_role("link").focus()
    live.end(60_000)
    await expect(session).to_contain_text("Not analysed yet", timeout=LIMIT_MS)
    await expect(session.get_by_role("link")).to_be_focused()
    await expect(session.get_by_role("link")).to_have_attribute("href", f"/sessions/{live.id}")
