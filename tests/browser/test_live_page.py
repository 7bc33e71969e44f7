"""Captions as they come."""

import pytest
from playwright.async_api import Page, expect

from tests.support.seeded import Live
from tests.support.seeded_console import SeededConsole

pytestmark = pytest.mark.asyncio(loop_scope="session")  # the browser's


async def open_live(page: Page, console: SeededConsole, live: Live) -> None:
    await page.goto(f"{console.url}/sessions/{live.id}/live")
    await expect(page.locator(".utterance")).to_have_count(3)


async def test_final_that_comes_meanwhile_is_shown_once_and_at_its_place(
    page: Page, console: SeededConsole, live: Live
) -> None:
    await open_live(page, console, live)
    live.say("Ines", "This is said now.", 30_000, 31_000)
    await expect(page.get_by_role("log")).to_contain_text("This is said now.")
    # Words that were spoken before, of somebody who had to wait for the floor.
    live.say("Omar", "This was said before.", 29_000, 29_500)
    await expect(page.locator(".utterance").nth(3)).to_contain_text("This was said before.")
    await expect(page.locator(".utterance").nth(4)).to_contain_text("This is said now.")
    await expect(page.locator(".utterance")).to_have_count(5)
    assert await page.locator(".block h3 bdi").all_text_contents() == [
        "Nora",
        "Felix",
        "Ines",
        "Omar",
        "Ines",
    ]


async def test_people_of_one_name_are_told_apart_and_stand_apart(
    page: Page, console: SeededConsole, live: Live
) -> None:
    await open_live(page, console, live)
    live.say("Omar", "The first one.", 30_000, 31_000)
    live.say("Omar", "Another one.", 31_000, 32_000, identity="omar-2")
    live.say("Ines\u202e\n", "Somebody else.", 32_000, 33_000, identity="ines")
    live.say("Omar", "Again.", 33_000, 34_000, identity="omar-2")
    await expect(page.get_by_text("Again.")).to_be_visible()
    names = ["Omar", "Omar (omar-2)", "Ines", "Omar (omar-2)"]
    assert (await page.locator(".block h3 bdi").all_text_contents())[-4:] == names
    # As the server tells those apart that it knows.
    await page.reload()
    await expect(page.get_by_text("Again.")).to_be_visible()
    names = ["Omar (omar)", "Omar (omar-2)", "Ines", "Omar (omar-2)"]
    assert (await page.locator(".block h3 bdi").all_text_contents())[-4:] == names


async def test_live_page_follows_unless_somebody_scrolls_up(
    page: Page, console: SeededConsole, live: Live
) -> None:
    await open_live(page, console, live)
    for number in range(20):
        live.say(
            ("Nora", "Omar")[number % 2],
            f"Sentence {number}.",
            20_000 + 1000 * number,
            20_900 + 1000 * number,
        )
    await expect(page.get_by_text("Sentence 19.")).to_be_in_viewport()
    await page.evaluate("window.scrollTo({ top: 0 })")
    live.say("Ines", "Nobody is pulled down by this.", 50_000, 51_000)
    newest = page.get_by_role("button", name="Newest captions")
    await expect(newest).to_be_visible()
    await expect(page.get_by_text("Nobody is pulled down")).not_to_be_in_viewport()
    await newest.click()
    await expect(page.get_by_text("Nobody is pulled down")).to_be_in_viewport()
    await expect(newest).to_be_hidden()


async def test_end_of_the_session_is_said_and_leads_to_its_page(
    page: Page, console: SeededConsole, live: Live
) -> None:
    await open_live(page, console, live)
    await expect(page.get_by_text("This session is over")).to_be_hidden()
    for second in range(30, 60):
        live.say("Omar", f"At {second} seconds.", 1000 * second, 1000 * second + 900)
    await expect(page.get_by_text("At 59 seconds.")).to_be_in_viewport()
    live.end(60_000)
    # Where one looks, whatever was read last.
    await expect(page.get_by_text("This session is over")).to_be_in_viewport()
    await expect(page.get_by_role("link", name="Read and hear all of it")).to_be_in_viewport()
    await page.get_by_role("link", name="Read and hear all of it").click()
    await expect(page).to_have_url(f"{console.url}/sessions/{live.id}")


async def test_words_of_people_are_never_markup(page: Page, console: SeededConsole, live: Live) -> None:
    await open_live(page, console, live)
    said = "<img src=x onerror=alert(1)> & <b>bold</b>"
    live.say("<i>Eve</i>", said, 30_000, 31_000)
    await expect(page.get_by_text(said)).to_be_visible()
    await page.goto(f"{console.url}/sessions/{live.id}")
    await expect(page.get_by_text(said)).to_be_visible()
    await expect(page.get_by_role("heading", name="<i>Eve</i>")).to_be_visible()
