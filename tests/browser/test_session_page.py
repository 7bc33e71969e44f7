"""The page of a session: a click on evidence plays it, and the transcript follows the sound."""

import re
from pathlib import Path

import pytest
from playwright.async_api import Browser, BrowserContext, Locator, Page, expect

from persistence import analyses
from persistence.records import DEFAULT_SPACE
from tests.support.polling import WATCH_SEEKING, until
from tests.support.seeded_console import SeededConsole

pytestmark = pytest.mark.asyncio(loop_scope="session")  # the browser's

NEAR_S = 0.3
PAUSE_S = 75.6  # half a second in which nobody speaks
DECISION = "The alert fires at two percent from today."


async def open_session(page: Page, console: SeededConsole, hash_: str = "") -> None:
    await page.goto(f"{console.url}/sessions/{console.analysed}{hash_}")
    await until(page, "document.getElementById('audio').readyState >= 1")
    await page.evaluate(WATCH_SEEKING)


def evidence_of(page: Page, statement: str) -> Locator:
    return page.get_by_role("listitem").filter(has_text=statement).locator("a.evidence").first


async def is_paused(page: Page) -> bool:
    return bool(await page.evaluate("document.getElementById('audio').paused"))


async def time_s(page: Page) -> float:
    return float(await page.evaluate("document.getElementById('audio').currentTime"))


async def test_click_on_the_evidence_of_a_decision_plays_its_second_and_marks_its_words(
    page: Page, console: SeededConsole
) -> None:
    await open_session(page, console)
    evidence = evidence_of(page, DECISION)
    start_s = int(await evidence.get_attribute("data-start") or 0) / 1000
    assert start_s == pytest.approx(57, abs=1)
    await evidence.click()
    await until(page, "window.stood.length > 0")
    assert (await page.evaluate("window.stood"))[0] == pytest.approx(start_s, abs=NEAR_S)
    assert not await is_paused(page)
    marked = page.locator(".utterance.is-marked")
    await expect(marked).to_have_count(1)
    await expect(marked).to_be_in_viewport()
    await expect(marked).to_contain_text("Then we agree.")
    await expect(marked.locator("mark.is-chosen")).to_have_text(DECISION.rstrip("."))
    assert page.url.endswith(f"#t={start_s:g}")


async def test_transcript_follows_the_sound_until_somebody_scrolls(
    page: Page, console: SeededConsole
) -> None:
    await open_session(page, console, "#t=60")
    await page.get_by_role("button", name="Play", exact=True).click()
    current = page.locator(".utterance[aria-current]")
    await expect(current).to_contain_text("What do we tell the customers")
    await expect(current).to_contain_text("How many are there?")
    follow = page.get_by_role("button", name="Follow the sound")
    await expect(follow).to_be_hidden()
    await page.locator("#lines").hover()
    await page.mouse.wheel(0, -4000)
    await expect(follow).to_be_visible()
    await expect(page.locator("#u-1-1")).to_be_in_viewport()
    await page.evaluate("document.getElementById('audio').currentTime = 80")
    await expect(current).not_to_be_in_viewport()
    await follow.click()
    await expect(current).to_be_in_viewport()
    await expect(follow).to_be_hidden()


async def test_somebody_who_scrolls_while_nobody_speaks_is_not_pulled_back(
    page: Page, console: SeededConsole
) -> None:
    await open_session(page, console, f"#t={PAUSE_S:g}")
    await expect(page.locator(".utterance[aria-current]")).to_have_count(0)
    follow = page.get_by_role("button", name="Follow the sound")
    await page.locator("#lines").hover()
    await page.mouse.wheel(0, -4000)
    await expect(follow).to_be_visible()
    await page.get_by_role("button", name="Play", exact=True).click()
    await expect(page.locator(".utterance[aria-current]")).to_have_count(1)
    await expect(page.locator("#u-1-1")).to_be_in_viewport()
    await follow.click()
    await expect(page.locator(".utterance[aria-current]")).to_be_in_viewport()


async def test_click_on_a_time_plays_from_there(page: Page, console: SeededConsole) -> None:
    await open_session(page, console)
    await page.get_by_role("link", name="Play from 0:10").click()
    await until(page, "window.stood.length > 0")
    assert (await page.evaluate("window.stood"))[0] == pytest.approx(10.341, abs=NEAR_S)
    assert page.url.endswith("#t=10.341")
    await expect(page.locator("#u-1-2")).to_have_attribute("aria-current", "true")


async def test_address_with_a_time_stands_there_and_is_silent(page: Page, console: SeededConsole) -> None:
    await open_session(page, console, "#t=57")
    await until(page, "Math.abs(document.getElementById('audio').currentTime - 57) < 0.01")
    assert await is_paused(page)
    await expect(page.locator(".utterance.is-marked")).to_contain_text("Then we agree.")
    await expect(page.locator(".utterance.is-marked")).to_be_in_viewport()


async def test_keys_play_and_jump_but_not_in_a_field(page: Page, console: SeededConsole) -> None:
    await open_session(page, console, "#t=30")
    await page.keyboard.press("l")
    assert await time_s(page) == pytest.approx(35, abs=NEAR_S)
    await page.keyboard.press("ArrowLeft")
    await page.keyboard.press("j")
    assert await time_s(page) == pytest.approx(25, abs=NEAR_S)
    await page.keyboard.press("Space")
    await until(page, "!document.getElementById('audio').paused")
    await page.keyboard.press("k")
    await until(page, "document.getElementById('audio').paused")
    before_s = await time_s(page)
    await page.get_by_label("Speed").focus()
    await page.keyboard.press("j")
    assert await time_s(page) == before_s


async def test_keyboard_alone_reaches_evidence_and_plays_it(page: Page, console: SeededConsole) -> None:
    await open_session(page, console)
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    for _ in range(20):
        await page.keyboard.press("Tab")
        if await page.evaluate("document.activeElement.matches('a.evidence')"):
            break
    assert await page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    await page.keyboard.press("Enter")
    await until(page, "window.stood.length > 0")
    await expect(page.locator(".utterance.is-marked")).to_have_count(1)


async def test_without_a_recording_evidence_shows_its_words(page: Page, console: SeededConsole) -> None:
    await page.goto(f"{console.url}/sessions/{console.silent}")
    await expect(page.get_by_role("region", name="Player")).to_contain_text("no recording")
    await evidence_of(page, DECISION).click()
    await expect(page.locator("mark.is-chosen")).to_have_text(DECISION.rstrip("."))
    await expect(page.locator("mark.is-chosen")).to_be_in_viewport()


async def test_page_of_an_analysis_that_is_made_says_the_step_and_shows_the_end(
    page: Page, console: SeededConsole, pending: str
) -> None:
    await page.goto(f"{console.url}/sessions/{pending}")
    await expect(page.get_by_role("status")).to_contain_text("waiting for its turn")
    with console.running.database.write() as connection:
        run = analyses.newest(connection, DEFAULT_SPACE, pending)
        assert run is not None
        analyses.step(connection, run.id, "statistics")
    await expect(page.get_by_role("status")).to_contain_text("counting who spoke")
    with console.running.database.write() as connection:
        analyses.finish(connection, run.id, ["audio"])
    await expect(page.get_by_text("This analysis is incomplete.")).to_be_visible()
    await page.get_by_role("button", name="Try again").click()
    await expect(page.get_by_role("status")).to_contain_text("waiting for its turn")


async def test_failed_analysis_says_why_and_can_be_tried_again(
    page: Page, console: SeededConsole, failed: str
) -> None:
    await page.goto(f"{console.url}/sessions/{failed}")
    await expect(page.get_by_role("alert")).to_contain_text("mixing the recording")
    await expect(page.get_by_role("alert")).to_contain_text("The disk is full")
    await page.get_by_role("button", name="Try again").click()
    await expect(page.get_by_role("status")).to_contain_text("waiting for its turn")


@pytest.mark.parametrize("place", ["/", "/login", "/sessions/{}", "/sessions/{}#t=57", "/nothing"])
async def test_phone_scrolls_in_one_direction_only(
    browser: Browser, console: SeededConsole, place: str
) -> None:
    context = await browser.new_context(viewport={"width": 360, "height": 640}, is_mobile=True)
    await console.running.sign_in(context)
    page = await context.new_page()
    await page.goto(console.url + place.format(console.analysed))
    assert await page.evaluate("document.documentElement.scrollWidth") == 360
    if "sessions/" in place:
        player = await page.get_by_role("region", name="Player").bounding_box()
        assert player is not None
        assert player["y"] + player["height"] == pytest.approx(640, abs=1)
    await context.close()


async def test_phone_shows_the_words_of_evidence_above_the_player(
    browser: Browser, console: SeededConsole
) -> None:
    context = await browser.new_context(
        viewport={"width": 360, "height": 640}, is_mobile=True, has_touch=True, reduced_motion="reduce"
    )
    await console.running.sign_in(context)
    page = await context.new_page()
    await open_session(page, console)
    await evidence_of(page, DECISION).tap()
    words = await page.locator("mark.is-chosen").bounding_box()
    assert words is not None
    assert 0 < words["y"] < 640 - 150
    await context.close()


async def test_session_can_be_read_without_javascript(browser: Browser, console: SeededConsole) -> None:
    context = await browser.new_context(
        java_script_enabled=False, viewport={"width": 1280, "height": 800}, base_url=console.url
    )
    await console.running.sign_in(context)
    page = await context.new_page()
    await page.goto(f"/sessions/{console.analysed}")
    await expect(page.locator("time").first).to_have_text("2 Mar 2026, 09:00 UTC")
    await evidence_of(page, DECISION).click()
    await expect(page.get_by_text("Then we agree.")).to_be_in_viewport()
    await expect(page.locator("audio[controls]")).to_be_visible()
    await context.close()


async def test_report_is_one_file_that_needs_nothing_else(
    context: BrowserContext, console: SeededConsole, tmp_path: Path
) -> None:
    page = await context.new_page()
    await page.goto(f"{console.url}/sessions/{console.analysed}")
    async with page.expect_download() as waiting:
        await page.get_by_role("link", name="Report as a file").click()
    download = await waiting.value
    assert download.suggested_filename == "incident-review-2026-03-02.html"
    file = tmp_path / "report.html"
    await download.save_as(file)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await page.goto(file.as_uri())
    await expect(page.get_by_role("heading", level=1)).to_have_text("incident-review")
    await evidence_of(page, DECISION).click()
    await expect(page.get_by_text("Then we agree.")).to_be_in_viewport()
    assert {url.partition("#")[0] for url in asked} == {file.as_uri()}
    assert re.search(r"<script|https?://|/static/", file.read_text(encoding="utf-8")) is None


async def test_two_jumps_in_a_row_are_both_heeded(page: Page, console: SeededConsole) -> None:
    await open_session(page, console)
    ahead = page.get_by_role("button", name="Ahead 5 seconds")
    await ahead.click()
    await ahead.click()
    assert await time_s(page) == pytest.approx(10, abs=NEAR_S)
    await expect(page.get_by_role("slider", name="Place in the recording")).to_have_attribute(
        "aria-valuetext", "0:10"
    )
