"""The playground on the real engine: tokens stream into the page, and the cost under the answer is the ledger's."""

import shutil
from collections.abc import Iterator
from decimal import Decimal

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.clients.scene import ANSWER, MODEL, NAME, QUESTION, WHO, YOU
from tests.programs import missing
from tests.server import Server


@pytest.fixture
def page(server: Server) -> Iterator[Page]:
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        missing("Chromium", "apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(base_url=server.url)
        yield page
        browser.close()


def ask(page: Page, text: str, answers: int) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")
    expect(page.locator("[data-said=cost]")).to_have_count(answers, timeout=30_000)


def test_one_opens_the_address_finds_a_model_and_tries_it(server: Server, page: Page) -> None:
    page.goto("/")
    page.get_by_role("link", name="demo").first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text(MODEL)
    page.get_by_label("Your API key").fill(server.key)
    with page.expect_response("**/chat/completions") as streamed:
        ask(page, QUESTION, 1)
    expect(page.locator(".turn.assistant p").first).to_have_text(ANSWER)
    assert streamed.value.header_value("content-type") == "text/event-stream; charset=utf-8"
    request_id = streamed.value.header_value("x-request-id")
    assert request_id is not None
    ask(page, NAME, 2)
    ask(page, WHO, 3)
    expect(page.locator(".turn.assistant > p").last).to_have_text(YOU)
    shown = [Decimal(text.removeprefix("$")) for text in page.locator("[data-said=cost]").all_inner_texts()]
    # The ledger, as the same key's own pages have it.
    page.goto("/console/sign-in")
    page.get_by_label("API key").fill(server.key)
    page.get_by_role("main").get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/console/overview")
    page.goto("/console/requests")
    ids = [row.get_attribute("title") for row in page.locator("tbody code").all()[:3]]
    with server.client() as http:
        entries = [http.get(f"/v1/requests/{str(title).partition(' ')[0]}").json() for title in ids]
    assert [Decimal(entry["cost_usd"]) for entry in reversed(entries)] == shown
    assert all(entry["outcome"] == "finished" for entry in entries)
