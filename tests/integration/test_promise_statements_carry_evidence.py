"""The promise: a statement of the analysis leads to the second in which its words were said."""

import json
from pathlib import Path

import numpy as np
import pytest
from playwright.async_api import Page, async_playwright

from agent.cli.local_livekit import LocalLiveKit
from agent.ingest.meeting import load_meeting
from agent.room.dispatch import Rooms
from agent.room.player import Player
from tests.support import polling
from tests.support.gathering import reading, settings_for
from tests.support.meetings import INCIDENT_REVIEW
from tests.support.parts import require
from tests.support.recorded import decoded
from tests.support.running_up import RunningUp, running_up

AGENT = "of-evidence"
# A decision on a threshold, and one on an apology.
FROM_S, TO_S = 56.0, 79.0
ATTEMPTS = 3  # a small model on a busy machine may mishear what makes it a decision
DECISIONS = 'id="kind-decision"'
PAGE_MS = 20_000
NEAR_S = 0.3
LOUD = 300  # of 32767: far above what is heard where nobody speaks


async def test_click_on_the_evidence_of_a_decision_plays_the_second_in_which_it_was_said(
    livekit: LocalLiveKit, tmp_path: Path, room_name: str
):
    async with running_up(livekit, tmp_path, AGENT) as up:
        await up.until_ready("worker", "analyst", "console")
        report = tmp_path / "report.html"
        for number in range(ATTEMPTS):
            session = await play_and_end(livekit, up, f"{room_name}-{number}")
            await up.run("report", session, "--wait", "--output", str(report))
            if DECISIONS in report.read_text(encoding="utf-8"):
                break
        await open_and_click(up, session, tmp_path)


async def play_and_end(livekit: LocalLiveKit, up: RunningUp, room: str) -> str:
    """Hold a session in a room; gives its id."""
    meeting = load_meeting(INCIDENT_REVIEW, start_s=FROM_S, end_s=TO_S)
    async with (
        Rooms(settings_for(livekit, agent_name=AGENT)) as rooms,
        reading(rooms, livekit.url, room, "reader"),
        Player(livekit.url, lambda identity: rooms.token(room, identity)) as player,
    ):
        playback = await player.join(meeting.tracks)
        await playback.run()
        (listed,) = json.loads(await up.run("sessions", "list", "--room", room, "--json"))
        # Its agent gives out what it has heard.
        await up.run("sessions", "end", listed["id"])
    return str(listed["id"])


async def open_and_click(up: RunningUp, session: str, folder: Path) -> None:
    key = (await up.run("keys", "create", "--name", "test")).split()[0]
    async with async_playwright() as playwright:
        # The sandbox does not work for root, nor in most containers.
        browser = await playwright.chromium.launch(
            executable_path=require("chromium"),
            args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"],
        )
        page = await browser.new_page()
        page.set_default_timeout(PAGE_MS)
        url = f"{up.logged('console.ready')[0]['url']}/sessions/{session}"
        await page.goto(url)
        await page.get_by_label("Key").fill(key)
        await page.get_by_role("button", name="Sign in").click()
        await page.wait_for_url(url)
        start_s = await click_first_decision(page)
        await browser.close()
    (rendering,) = (folder / "data" / "renderings").rglob(f"{session}.m4a")
    samples = decoded(rendering)[round(start_s * 48_000) :][: 2 * 48_000]
    assert np.sqrt(np.mean(samples.astype(np.float64) ** 2)) > LOUD


async def click_first_decision(page: Page) -> float:
    """Click its evidence, and give the second at which the player stood then."""
    # Playwright's own waiting uses eval, which the console's pages forbid.
    await polling.until(page, "document.getElementById('audio')?.readyState >= 1")
    await page.evaluate(polling.WATCH_SEEKING)
    evidence = page.locator("section[aria-labelledby=kind-decision] a.evidence").first
    start_s = int(await evidence.get_attribute("data-start") or 0) / 1000
    await evidence.click()
    await polling.until(page, "window.stood.length > 0")
    (stood_s, *_) = await page.evaluate("window.stood")
    assert stood_s == pytest.approx(start_s, abs=NEAR_S)
    assert not await page.evaluate("document.getElementById('audio').paused")
    return start_s
