"""Make the pictures of the console in docs/, with sessions of the recorded meeting: needs `chromium` on PATH.

    python scripts/screenshots.py [PICTURE...]

Each is looked at before it is committed.
"""

import asyncio
import logging
import shutil
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, NamedTuple

from playwright.async_api import Browser, Page, async_playwright

from tests.support.polling import until
from tests.support.seeded import add_live, incident_review
from tests.support.seeded_console import AT, Console, SeededConsole

DOCS = Path(__file__).resolve().parents[1] / "docs"
DECISION = "The alert fires at two percent from today."
SETTLED_MS = 1_500  # for scrolling, and for the sound to begin
MOST_BYTES = 200_000


class Sessions(NamedTuple):
    """The ids of the sessions in the pictures."""

    analysed: str
    live: str


class Picture(NamedTuple):
    """What is shown, and how."""

    name: str
    show: Callable[[Page, Sessions], Awaitable[None]]
    scheme: Literal["light", "dark"] = "light"
    width: int = 1280
    height: int = 800
    is_signed_in: bool = True


async def _list(page: Page, sessions: Sessions) -> None:
    await page.goto("/")


async def _session(page: Page, sessions: Sessions) -> None:
    await page.goto(f"/sessions/{sessions.analysed}")
    await until(page, "document.getElementById('audio').readyState >= 1")
    await page.get_by_role("listitem").filter(has_text=DECISION).locator("a.evidence").first.click()
    await page.mouse.move(0, 0)


async def _live(page: Page, sessions: Sessions) -> None:
    await page.goto(f"/sessions/{sessions.live}/live")


async def _login(page: Page, sessions: Sessions) -> None:
    await page.goto("/login")


PICTURES = (
    Picture("console-sessions", _list),
    Picture("console-session", _session),
    Picture("console-session-dark", _session, scheme="dark"),
    Picture("console-session-phone", _session, width=390, height=844),
    Picture("console-live", _live),
    Picture("console-login", _login, is_signed_in=False),
)


def main() -> int:
    chosen = set(sys.argv[1:]) or {picture.name for picture in PICTURES}
    if unknown := chosen - {picture.name for picture in PICTURES}:
        print(f"screenshots: {', '.join(sorted(unknown))} is unknown", file=sys.stderr)
        return 2
    logging.disable()
    with (
        TemporaryDirectory(prefix="roomscribe-screenshots-") as folder,
        Console(Path(folder)) as console,
    ):
        sessions = _fill(console)
        asyncio.run(_take([picture for picture in PICTURES if picture.name in chosen], console, sessions))
    return 0


def _fill(console: Console) -> Sessions:
    live = add_live(console.database, "weekly-planning", AT + timedelta(hours=3), ["Nora", "Omar", "Felix"])
    for each in list(incident_review())[:9]:
        live.say(each.speaker.name, each.text, each.start_ms, each.end_ms)
    return Sessions(SeededConsole.fill(console).analysed, live.id)


async def _take(pictures: list[Picture], console: Console, sessions: Sessions) -> None:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for picture in pictures:
            file = DOCS / f"{picture.name}.png"
            await _take_one(browser, picture, console, sessions, file)
            size = file.stat().st_size
            print(f"{file.relative_to(DOCS.parent)}: {size // 1000} kB{' TOO LARGE' * (size > MOST_BYTES)}")
        await browser.close()


async def _take_one(
    browser: Browser, picture: Picture, console: Console, sessions: Sessions, file: Path
) -> None:
    context = await browser.new_context(
        viewport={"width": picture.width, "height": picture.height},
        base_url=console.url,
        color_scheme=picture.scheme,
        locale="en-GB",
        timezone_id="Europe/Berlin",
        reduced_motion="reduce",
    )
    if picture.is_signed_in:
        await console.sign_in(context)
    page = await context.new_page()
    await picture.show(page, sessions)
    await page.wait_for_timeout(SETTLED_MS)
    await page.screenshot(path=file)
    await context.close()


if __name__ == "__main__":
    sys.exit(main())
