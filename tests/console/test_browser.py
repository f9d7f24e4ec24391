"""Walks through the console with a real Chromium, on a scripted engine."""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import httpx
import pytest
from openai import AsyncOpenAI
from playwright.async_api import Page, Request, expect

from engine.script import RequestScript, Script, Step, emit, sleep
from pricing.accounts import Accounts
from pricing.balance import Limit, LimitKind
from pricing.key import KeyTerms
from pricing.money import parse_usd
from tests.console.conftest import ADMIN, Tab, sign_in
from tests.gateway.conftest import DEMO, LLAMA2, GatewayServer, GatewayServers, make_key

ATTACK = "<script>window.hit=1</script><img src=x onerror=window.hit=1>"
HOSTILE = f"""
[[model]]
name = "acme/{ATTACK.replace("/", "-")}"
source = "demo"
context_length = 4096
default_max_tokens = 64
profile = "llama3-turbo"
description = '''{ATTACK}'''
tags = ['''{ATTACK}''']
price = {{ input = "1", output = "2" }}
"""
PLAY = Script(
    requests=(
        RequestScript((emit("It is sunny in Paris."),), match="sunny"),
        RequestScript((Step("call", "get_weather", arguments='{"city": "Paris"}'),), match="weather"),
        RequestScript((emit("one two three"), sleep(30), emit("four")), match="slowly"),
        RequestScript((emit(ATTACK),), match="attack"),
        RequestScript((Step("fail", "broken"),), match="break"),
        RequestScript((emit("Nice to meet you"),), cached=1),
    )
)


@pytest.fixture
async def served(gateway_server: GatewayServers, tmp_path: Path) -> AsyncIterator[GatewayServer]:
    (tmp_path / "cards.toml").write_text(HOSTILE)
    name = f"acme/{ATTACK.replace('/', '-')}"
    async with gateway_server(
        PLAY, cards=(DEMO, LLAMA2, name), card_files=[tmp_path / "cards.toml"], admin_key=ADMIN
    ) as server:
        yield server


async def ask(page: Page, text: str, answers: int = 1) -> None:
    await page.get_by_label("Message", exact=True).fill(text)
    await page.get_by_role("button", name="Send", exact=True).click()
    await expect(page.locator(".turn.assistant .meta")).to_have_count(answers)


async def test_the_first_view_is_small_and_one_finds_a_model(served: GatewayServer, tab: Tab) -> None:
    async with tab(served.url) as page:
        requests: list[Request] = []
        page.on("request", lambda one: requests.append(one))
        await page.goto("/", wait_until="networkidle")
        real = [one for one in requests if not one.url.startswith("data:")]
        assert len(real) <= 3
        sizes = [await one.sizes() for one in real]
        assert sum(size["responseBodySize"] + size["responseHeadersSize"] for size in sizes) < 100_000
        await page.get_by_placeholder("Find a model").fill("llama-2")
        await expect(page.locator(".cards li:visible")).to_have_count(1)
        await page.get_by_role("link", name="Llama-2-70b-chat-hf").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text(LLAMA2)
        await expect(page.get_by_text("$0.64/$0.80")).to_be_visible()


async def test_a_key_typed_into_the_playground_stays_in_the_page(served: GatewayServer, tab: Tab) -> None:
    async with tab(served.url) as page:
        await page.goto(f"/console/models/{DEMO}")
        await ask(page, "Hello")
        await expect(page.get_by_role("alert")).to_contain_text("Put in your API key")
        await page.get_by_role("button", name="Start over").click()
        await page.get_by_label("Your API key").fill(served.secret)
        await ask(page, "Hello")
        await expect(page.locator(".turn.assistant p").first).to_have_text("Nice to meet you")
        [entry] = await served.entries()
        cost = await page.locator("[data-said=cost]").inner_text()
        assert parse_usd(cost.removeprefix("$")) == entry["cost"] > 0
        assert await page.locator("[data-said=prompt]").inner_text() == f"{entry['prompt_tokens']} in (1 cached)"
        assert await page.context.cookies() == []
        await page.reload()
        assert await page.get_by_label("Your API key").input_value() == ""


async def test_the_playgrounds_controls_are_the_request(served: GatewayServer, tab: Tab) -> None:
    async with tab(served.url) as page:
        sent: list[dict[str, object]] = []
        page.on("request", lambda one: sent.append(one.post_data_json) if one.url.endswith("/console/chat") else None)
        await sign_in(page, served.secret)
        await page.goto(f"/console/models/{DEMO}")
        await page.get_by_label("System prompt").fill("Be brief.")
        await page.get_by_label("temperature").fill("0.5")
        await page.get_by_label("max_tokens").fill("20")
        await page.get_by_label("stop", exact=True).fill("END\nSTOP")
        await page.get_by_label("seed").fill("9223372036854775807")
        await page.get_by_label("Format of the answer").select_option("json_object")
        await ask(page, "Hello")
        [body] = sent
        assert body["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
        assert (body["temperature"], body["max_tokens"], body["stop"]) == (0.5, 20, ["END", "STOP"])
        assert body["seed"] == 9223372036854775807
        assert body["response_format"] == {"type": "json_object"}
        await page.get_by_label("temperature").fill("7")
        await ask(page, "Hello", answers=2)
        await expect(page.get_by_role("alert")).to_contain_text("0 ≤ temperature ≤ 2")
        await expect(page.get_by_label("Message", exact=True)).to_have_value("Hello")  # to be sent again
        await page.get_by_role("button", name="Show as code").click()
        code = page.locator("[data-code-text]")
        await expect(code).to_contain_text("9223372036854775807")
        await page.get_by_role("button", name="Python").click()
        python = await code.inner_text()
        compile(python, "shown", "exec")
        assert f'base_url="{served.url}/v1/openai"' in python


async def test_an_answer_can_be_stopped_and_what_came_is_charged(served: GatewayServer, tab: Tab) -> None:
    async with tab(served.url) as page:
        await sign_in(page, served.secret)
        await page.goto(f"/console/models/{DEMO}")
        await page.get_by_label("Message", exact=True).fill("Count slowly")
        await page.keyboard.press("Enter")
        await expect(page.locator(".turn.assistant p").first).to_contain_text("one two three")
        await page.get_by_role("button", name="Stop").click()
        await expect(page.locator(".turn.assistant .meta")).to_contain_text("stopped")
        await expect(page.get_by_role("button", name="Send", exact=True)).to_be_enabled()
        while not (entries := await served.entries()):
            await asyncio.sleep(0.02)
        assert (entries[0]["outcome"], entries[0]["completion_tokens"]) == ("client_gone", 3)


async def test_a_tool_is_called_and_answered(served: GatewayServer, tab: Tab) -> None:
    tools = '[{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}]'
    async with tab(served.url) as page:
        await sign_in(page, served.secret)
        await page.goto(f"/console/models/{DEMO}")
        await page.get_by_text("Tools", exact=True).click()
        await page.get_by_label("Functions, as JSON").fill(tools)
        await ask(page, "How is the weather?")
        await expect(page.locator(".call code")).to_have_text('get_weather({"city": "Paris"})')
        await page.get_by_label("Result of get_weather").fill("sunny")
        await page.get_by_role("button", name="Send the result").click()
        await expect(page.locator(".turn.assistant p").last).to_have_text("It is sunny in Paris.")


async def test_an_engines_failure_is_told(served: GatewayServer, tab: Tab) -> None:
    async with tab(served.url) as page:
        await sign_in(page, served.secret)
        await page.goto(f"/console/models/{DEMO}")
        await ask(page, "break")
        await expect(page.get_by_role("alert")).to_contain_text("The engine failed")


async def test_the_operator_makes_a_key_sees_its_spend_and_revokes_it(served: GatewayServer, tab: Tab) -> None:
    async with tab(served.url) as page:
        page.on("dialog", lambda dialog: dialog.accept())
        await sign_in(page, ADMIN)
        await page.goto("/console/keys")
        await page.get_by_text("Make a key").click()
        form = page.locator("form[action$='/console/keys']")
        await form.get_by_label("Name").fill("laptop")
        await form.get_by_label("Account").select_option("default")
        await form.get_by_label("Limits").fill("day=5.00,tz=Europe/Berlin\nmonth=50.00")
        await form.get_by_label(DEMO).check()
        await form.get_by_role("button", name="Make the key").click()
        secret = await page.locator("[data-secret]").inner_text()
        client = AsyncOpenAI(base_url=f"{served.url}/v1/openai", api_key=secret, max_retries=0)
        answer = await client.chat.completions.create(model=DEMO, messages=[{"role": "user", "content": "Hello"}])
        assert answer.choices[0].message.content == "Nice to meet you"
        assert answer.usage is not None
        await page.get_by_role("link", name="To the key").click()
        spent = await page.locator("[data-spent]").get_attribute("title")
        assert spent is not None
        assert float(spent.removeprefix("$")) == answer.usage.model_dump()["estimated_cost"]
        await page.get_by_role("link", name="Requests", exact=True).last.click()
        await expect(page.locator("tbody code")).to_have_text(answer.id)
        await page.go_back()
        await page.get_by_role("button", name="Revoke").click()
        await expect(page.get_by_role("status")).to_contain_text("revoked")
        with pytest.raises(Exception, match="not valid"):
            await client.chat.completions.create(model=DEMO, messages=[{"role": "user", "content": "Hello"}])
        await client.close()
        assert secret not in await page.content()


async def test_the_operator_opens_an_account_and_credits_it(served: GatewayServer, tab: Tab) -> None:
    async with tab(served.url) as page:
        await sign_in(page, ADMIN)
        await page.get_by_role("link", name="Accounts").click()
        await page.get_by_text("Open an account").click()
        form = page.locator("form[action$='/console/accounts']")
        await form.get_by_label("Name").fill("acme")
        await form.get_by_label("Limits").fill("prepaid=0.00")
        await form.get_by_role("button").click()
        for _ in range(2):  # the same payment adds its credit once
            form = page.locator("form[action$='/credit']")
            await form.get_by_label("US dollars").fill("25.00")
            await form.get_by_label("Reference").fill("invoice 7")
            await form.get_by_role("button").click()
            await expect(page.locator("[data-left]")).to_have_text("$25.00")
        form = page.locator("form[action$='/credit']")
        await form.get_by_label("US dollars").fill("a lot")
        await form.get_by_role("button").click()
        await expect(page.get_by_role("alert")).to_contain_text("amount_usd")
        await expect(page.locator("form[action$='/credit']").get_by_label("US dollars")).to_have_value("a lot")
        await page.goto("/console/audit")
        await expect(page.get_by_role("cell", name="account.add_credit")).to_have_count(1)


async def test_what_others_write_is_shown_and_never_run(served: GatewayServer, tab: Tab) -> None:
    """In names and descriptions of models, names of keys and accounts, end users, and what a model says."""
    key = await make_key(served.database, ATTACK)
    await Accounts(served.gateway.database).create(ATTACK, Limit(LimitKind.DAY, parse_usd("1")), actor="test")
    async with served.client(key) as http:
        chat = {"model": DEMO, "messages": [{"role": "user", "content": "hi"}], "user": ATTACK}
        assert (await http.post("/v1/chat/completions", json=chat)).status_code == 200
    async with tab(served.url) as page:
        await page.goto("/")
        await page.get_by_role("link", name="onerror").click()
        await expect(page.get_by_role("heading", level=1)).to_contain_text("<img src=x")
        await sign_in(page, key)
        for path in ("overview", "requests", "usage?by=user", "key", f"models/{DEMO}"):
            await page.goto(f"/console/{path}")
            assert await page.evaluate("window.hit") is None, path
            assert await page.locator("img").count() == 0, path
        await ask(page, "attack")
        await expect(page.locator(".turn.assistant p").first).to_have_text(ATTACK)
        await page.get_by_role("button", name="Show as code").click()
        assert await page.evaluate("window.hit") is None
    async with tab(served.url) as page:
        await sign_in(page, ADMIN)
        for path in ("overview", "accounts", "keys", "keys/3", "audit", "requests", "usage?by=key", "engines"):
            await page.goto(f"/console/{path}")
            assert await page.evaluate("window.hit") is None, path
            assert await page.locator("img").count() == 0, path
        await expect(page.get_by_role("row", name="onerror")).to_have_count(1)


async def test_the_engines_page_follows(served: GatewayServer, tab: Tab) -> None:
    async with tab(served.url) as page:
        await sign_in(page, ADMIN)
        await page.goto("/console/engines")
        row = page.locator(f"[data-engine='{DEMO}']")
        await expect(row.locator("[data-of=state]")).to_have_text("ready")
        async with served.client() as http:
            chat = {"model": DEMO, "messages": [{"role": "user", "content": "hi"}]}
            tokens = (await http.post("/v1/chat/completions", json=chat)).json()["usage"]["completion_tokens"]
        await expect(row.locator("[data-of=completion_tokens]")).to_have_text(str(tokens))


async def test_a_session_that_ends_leads_to_the_sign_in_page(served: GatewayServer, tab: Tab) -> None:
    async with tab(served.url) as page:
        await sign_in(page, served.secret)
        await page.context.clear_cookies()
        await page.reload()
        await expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
        await page.get_by_label("API key").fill(served.secret)
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", level=1)).to_have_text("Overview")


async def test_the_theme_that_one_chooses_stays(served: GatewayServer, tab: Tab) -> None:
    async with tab(served.url, color_scheme="light") as page:
        await page.goto("/")
        ground = "getComputedStyle(document.body).backgroundColor"
        light = await page.evaluate(ground)
        await page.get_by_role("button", name="light and dark").click()
        dark = await page.evaluate(ground)
        assert dark != light
        # The next page comes in it, before any script has run.
        body = await page.context.request.get("/console/sign-in")
        assert 'data-theme="dark"' in await body.text()
        await page.goto("/console/sign-in")
        assert await page.evaluate(ground) == dark


async def test_all_of_it_works_by_keyboard(served: GatewayServer, tab: Tab) -> None:
    async with tab(served.url) as page:
        await page.goto("/")
        await page.keyboard.press("Tab")
        await expect(page.get_by_text("Skip to the page")).to_be_focused()
        for _ in range(12):
            await page.keyboard.press("Tab")
            if await page.get_by_role("link", name="demo", exact=False).first.evaluate(
                "one => one === document.activeElement"
            ):
                break
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", level=1)).to_have_text(DEMO)
        language = page.get_by_role("radio", name="curl")
        await language.focus()
        await page.keyboard.press("ArrowRight")
        await expect(page.locator("[data-language=python]").first).to_be_visible()
        await expect(page.locator("[data-language=curl]").first).to_be_hidden()


OPEN = ("", "models/" + DEMO, f"models/{LLAMA2}?route=native", "sign-in", "nowhere")
CLIENT = ("overview", "usage", "usage?by=model", "requests", "batches", "key", "models/" + DEMO)
OPERATOR = (
    "overview",
    "accounts",
    "accounts/1",
    "accounts/3",
    "keys",
    "keys/2",
    "usage?by=account",
    "requests",
    "batches",
    "engines",
    "webhooks",
    "audit",
)


async def test_nothing_stands_in_anybodys_way(served: GatewayServer, tab: Tab, axe: str) -> None:
    """axe-core finds nothing on any page, nor in its dark colors, and no page is wider than a telephone."""
    await Accounts(served.gateway.database).create("acme", Limit(LimitKind.PREPAID, parse_usd("1")), actor="test")
    await make_key(served.database, "limited", KeyTerms((Limit(LimitKind.DAY, parse_usd("0.0001")),)))
    async with served.client() as http:
        for model in (DEMO, LLAMA2):
            chat = {"model": model, "messages": [{"role": "user", "content": "hi"}], "user": "someone"}
            await http.post("/v1/chat/completions", json=chat)
    for key, paths in (("", OPEN), (served.secret, CLIENT), (ADMIN, OPERATOR)):
        async with tab(served.url, color_scheme="light", viewport={"width": 1440, "height": 900}) as page:
            if key:
                await sign_in(page, key)
            for path in paths:
                await page.goto(f"/console/{path}".rstrip("/"))
                for summary in await page.locator("summary").all():
                    await summary.click()
                if path == "models/" + DEMO and key:
                    await ask(page, "attack")
                await look(page, axe, path)


async def look(page: Page, axe: str, path: str) -> None:
    await page.evaluate(f"{axe};0")
    await page.set_viewport_size({"width": 1440, "height": 900})
    assert await violations(page, "{resultTypes: ['violations']}") == [], path
    await page.emulate_media(color_scheme="dark")
    await page.set_viewport_size({"width": 390, "height": 844})
    assert await violations(page, "{resultTypes: ['violations'], runOnly: ['color-contrast']}") == [], f"{path}, dark"
    await page.emulate_media(color_scheme="light")
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{path} is too wide"


async def violations(page: Page, options: str) -> list[tuple[str, list[str]]]:
    found = await page.evaluate(f"axe.run({options})")
    return [(fault["id"], [node["html"][:200] for node in fault["nodes"]]) for fault in found["violations"]]


async def test_the_costs_on_the_overview_are_the_ledgers(served: GatewayServer, tab: Tab) -> None:
    async with served.client() as http, tab(served.url) as page:
        costs = []
        for _ in range(3):
            chat = {"model": DEMO, "messages": [{"role": "user", "content": "hi"}]}
            answer = (await http.post("/v1/chat/completions", json=chat)).json()
            costs.append(Decimal(str(answer["usage"]["estimated_cost"])))
        await sign_in(page, served.secret)
        today = await page.locator(".figure .big").first.get_attribute("title")
        assert today is not None
        assert Decimal(today.removeprefix("$")) == sum(costs)
        async with page.expect_download() as download:
            await page.goto("/console/usage")
            await page.get_by_role("link", name="CSV").click()
        text = Path(await (await download.value).path()).read_text()
        assert text.splitlines()[1].endswith(f",3,{await tokens(http)},{sum(costs):f}")


async def tokens(http: httpx.AsyncClient) -> str:
    total = (await http.get("/v1/usage?by=day")).json()["total"]
    return f"{total['prompt_tokens']},{total['cached_tokens']},{total['completion_tokens']}"
