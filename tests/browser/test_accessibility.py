"""What people who do not see, or do not point, need of every page. Source: WCAG 2.2, level AA."""

from itertools import pairwise
from typing import Any, Literal

import pytest
from playwright.async_api import BrowserContext, Page, expect

from tests.support.seeded import Live
from tests.support.seeded_console import SeededConsole

pytestmark = pytest.mark.asyncio(loop_scope="session")  # the browser's

TEXT_CONTRAST = 4.5
CONTROLS = {"button", "link", "textbox", "slider", "combobox", "checkbox"}
PLACES = ("/login", "/", "/sessions/{analysed}", "/sessions/{failed}", "/sessions/{live}/live", "/nothing")

# The worst contrast between a visible text and what is behind it, and which text that is.
WORST_CONTRAST = """() => {
  const parse = (colour) => (colour.match(/[\\d.]+/g) ?? []).map(Number);
  const linear = (share) => (share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4);
  const light = (colour) => {
    const [red, green, blue] = colour.slice(0, 3).map((value) => linear(value / 255));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  let worst = { contrast: 21, text: '' };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const text = walker.currentNode.textContent.trim();
    if (!text || !element.checkVisibility() || element.closest('.unseen, option, script')) continue;
    const [first, second] = [light(parse(getComputedStyle(element).color)), light(behind(element))];
    const contrast = (Math.max(first, second) + 0.05) / (Math.min(first, second) + 0.05);
    if (contrast < worst.contrast) worst = { contrast, text };
  }
  return worst;
}"""


async def nodes(page: Page) -> list[tuple[str, str]]:
    """What a screen reader gets to know: each element's role and name."""
    session = await page.context.new_cdp_session(page)
    tree: dict[str, Any] = await session.send("Accessibility.getFullAXTree")
    await session.detach()
    return [
        (node.get("role", {}).get("value", ""), node.get("name", {}).get("value", "").strip())
        for node in tree["nodes"]
        if not node.get("ignored")
    ]


@pytest.fixture
def address(console: SeededConsole, live: Live, place: str) -> str:
    return console.url + place.format(analysed=console.analysed, failed=console.failed, live=live.id)


@pytest.mark.parametrize("place", PLACES)
async def test_every_control_has_a_name_and_headings_are_in_order(
    context: BrowserContext, address: str, place: str
) -> None:
    page = await context.new_page()
    answer = await page.goto(address)
    assert answer is not None
    await expect(page.get_by_role("main")).to_have_count(1)
    found = await nodes(page)
    assert [role for role, name in found if role in CONTROLS and not name] == []
    assert await page.evaluate("document.documentElement.lang") == "en"
    assert await page.title() not in ("", " – Roomscribe")
    levels = await page.evaluate(
        "[...document.querySelectorAll('h1, h2, h3')].filter((each) => each.checkVisibility())"
        ".map((each) => Number(each.tagName[1]))"
    )
    assert levels[0] == 1
    assert levels.count(1) == 1
    jumps = [(before, after) for before, after in pairwise(levels) if after > before + 1]
    # The captions of a live page stand directly under its title.
    assert jumps == ([(1, 3)] if place.endswith("/live") else [])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("place", PLACES)
async def test_text_stands_out_from_what_is_behind_it(
    context: BrowserContext, address: str, scheme: Literal["light", "dark"]
) -> None:
    page = await context.new_page()
    await page.emulate_media(color_scheme=scheme)
    await page.goto(address)
    if await page.locator("a.evidence").count():
        await page.locator("a.evidence").first.click()
    worst = await page.evaluate(WORST_CONTRAST)
    assert worst["contrast"] >= TEXT_CONTRAST, worst


async def test_dark_is_dark(page: Page, console: SeededConsole) -> None:
    await page.emulate_media(color_scheme="dark")
    await page.goto(console.url)
    assert await page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 21, 24)"


async def test_nothing_moves_for_who_wants_it_still(page: Page, console: SeededConsole, live: Live) -> None:
    await page.emulate_media(reduced_motion="reduce")
    await page.goto(f"{console.url}/sessions/{live.id}/live")
    await expect(page.locator(".badge")).to_be_visible()
    assert await page.evaluate("document.getAnimations().length") == 0
