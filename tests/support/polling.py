"""Waiting for something in a page."""

import asyncio
import time

from playwright.async_api import Page

__all__ = ["WATCH_SEEKING", "until"]

LIMIT_S = 20.0  # this machine may be doing other things
POLL_S = 0.02
# Notes where the player is made to stand, before it plays on.
WATCH_SEEKING = """() => {
  window.stood = [];
  const audio = document.getElementById('audio');
  audio.addEventListener('seeking', () => window.stood.push(audio.currentTime));
}"""


async def until(page: Page, expression: str) -> None:
    """Wait until an expression is true. (`Page.wait_for_function` uses `eval`, which our pages forbid.)"""
    deadline_s = time.monotonic() + LIMIT_S
    while not await page.evaluate(expression):
        if time.monotonic() > deadline_s:
            raise AssertionError(f"not true after {LIMIT_S:g} s: {expression}")
        await asyncio.sleep(POLL_S)
