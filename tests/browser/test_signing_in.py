"""Signing in and out: who has no key sees nothing, and nobody is led elsewhere."""

import re

import pytest
from playwright.async_api import Browser, BrowserContext, Page, expect

from agent.console.keys import COOKIE
from tests.browser.conftest import ELSEWHERE
from tests.support.seeded_console import SeededConsole

pytestmark = pytest.mark.asyncio(loop_scope="session")  # the browser's


async def test_stranger_signs_in_and_comes_to_where_they_wanted(
    stranger: Page, console: SeededConsole
) -> None:
    await stranger.goto(f"/sessions/{console.analysed}?x=1")
    await expect(stranger).to_have_url(re.compile(r"/login\?next="))
    await stranger.get_by_label("Key").fill(console.running.key)
    await stranger.get_by_role("button", name="Sign in").click()
    await expect(stranger).to_have_url(f"{console.url}/sessions/{console.analysed}?x=1")
    await expect(stranger.get_by_role("heading", level=1)).to_have_text("incident-review")
    [cookie] = await stranger.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Lax", "/")


async def test_link_of_another_site_finds_who_has_signed_in(stranger: Page, console: SeededConsole) -> None:
    await stranger.goto("/login")
    await stranger.get_by_label("Key").fill(console.running.key)
    await stranger.get_by_role("button", name="Sign in").click()
    await expect(stranger.get_by_role("heading", level=1)).to_have_text("Sessions")
    there = f"{console.url}/sessions/{console.analysed}"
    form = f'<form method="post" action="{console.url}/logout"><button>Send</button></form>'
    await stranger.route(
        f"http://{ELSEWHERE}/",
        lambda route: route.fulfill(content_type="text/html", body=f'<a href="{there}">Read</a>{form}'),
    )
    await stranger.goto(f"http://{ELSEWHERE}/")
    await stranger.get_by_role("link", name="Read").click()
    await expect(stranger).to_have_url(there)
    await expect(stranger.get_by_role("heading", level=1)).to_have_text("incident-review")
    # What changes something is refused all the same.
    await stranger.goto(f"http://{ELSEWHERE}/")
    await stranger.get_by_role("button", name="Send").click()
    await expect(stranger.get_by_role("heading", level=1)).to_have_text("This is not allowed")
    assert [cookie["name"] for cookie in await stranger.context.cookies()] == [COOKIE]


async def test_wrong_key_is_refused_and_the_way_to_one_is_said(stranger: Page) -> None:
    await stranger.goto("/login")
    await stranger.get_by_label("Key").fill("rsk_wrong")
    await stranger.keyboard.press("Enter")
    await expect(stranger.get_by_role("alert")).to_contain_text("not known here")
    await expect(stranger.locator("code")).to_contain_text("roomscribe keys create")
    assert await stranger.context.cookies() == []
    assert "rsk_wrong" not in await stranger.content()


async def test_signing_in_works_where_the_console_is_reached_without_tls(
    browser: Browser, remote: tuple[str, str]
) -> None:
    url, key = remote
    page = await browser.new_page(base_url=url)
    await page.goto("/login")
    await page.get_by_label("Key").fill(key)
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Sessions")
    await expect(page.get_by_text("No session yet.")).to_be_visible()
    await page.close()


async def test_who_signs_out_has_to_sign_in_again(stranger: Page, console: SeededConsole) -> None:
    await console.running.sign_in(stranger.context)
    await stranger.goto("/")
    await stranger.get_by_role("button", name="Sign out").click()
    await expect(stranger).to_have_url(f"{console.url}/login")
    await stranger.goto("/")
    await expect(stranger).to_have_url(f"{console.url}/login")


@pytest.mark.parametrize(
    "address", ["//evil.example", "https://evil.example/", "/\\evil.example", "/\t/evil"]
)
async def test_nobody_is_led_to_another_site(stranger: Page, console: SeededConsole, address: str) -> None:
    answer = await stranger.request.post(
        "/login",
        form={"key": console.running.key, "next": address},
        headers={"origin": console.url},
        max_redirects=0,
    )
    assert (answer.status, answer.headers["location"]) == (303, "/")


async def test_key_in_a_form_of_another_site_signs_nobody_in(stranger: Page, console: SeededConsole) -> None:
    answer = await stranger.request.post(
        "/login", form={"key": console.running.key}, headers={"origin": "https://evil.example"}
    )
    assert answer.status == 403
    assert await stranger.context.cookies() == []


async def test_page_that_is_not_there_is_a_page_and_an_api_that_is_not_there_is_none(
    context: BrowserContext, console: SeededConsole
) -> None:
    accept = {"accept": "text/html"}
    answer = await context.request.get(f"{console.url}/sessions/none", headers=accept)
    assert answer.status == 404
    assert "There is nothing here" in await answer.text()
    answer = await context.request.get(f"{console.url}/api/v1/sessions/none", headers=accept)
    assert answer.headers["content-type"] == "application/problem+json"
