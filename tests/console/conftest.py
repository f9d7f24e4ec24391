"""A gateway with a console, real browsers that look at it, and what they look with."""

import re
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import httpx
import pytest
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, async_playwright

from tests.clients import installing
from tests.gateway.conftest import GatewayServer, gateway_server
from tests.programs import missing, starts

__all__ = ["gateway_server"]

ADMIN = "admin-" + "a" * 24
HERE = Path(__file__).resolve().parent
CSRF = re.compile(r'name="csrf" value="([0-9a-f]{64})"')

# What Chromium says of an answer that isn't 2xx, and of a password field outside a form: nothing is broken.
EXPECTED = ("Failed to load resource", "Password field is not contained")


class Visitor:
    """Somebody with a browser's cookies and headers, without a browser."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http
        self.csrf = ""

    async def open(self, path: str) -> httpx.Response:
        page = await self.http.get(path)
        if found := CSRF.search(page.text):
            self.csrf = found[1]
        return page

    async def send(self, path: str, **fields: str) -> httpx.Response:
        """A form of the page that was opened last."""
        return await self.http.post(path, data={"csrf": self.csrf, **fields})

    async def sign_in(self, key: str) -> httpx.Response:
        answer = await self.send("/console/sign-in", key=key)
        await self.open("/console/overview")
        return answer


def visitor(server: GatewayServer, **headers: str) -> AbstractAsyncContextManager[Visitor]:
    @asynccontextmanager
    async def visit() -> AsyncIterator[Visitor]:
        sent = {"accept": "text/html", "sec-fetch-site": "same-origin", **headers}
        async with httpx.AsyncClient(base_url=server.url, headers=sent, timeout=20, trust_env=False) as http:
            yield Visitor(http)

    return visit()


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Debian's Chromium, or whichever is there: none is downloaded."""
    starts("a browser")
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next((found for name in names if (found := shutil.which(name))), None)
    if path is None:
        missing("Chromium", "apt-get install chromium")
    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield running
        await running.close()


Tab = Callable[..., AbstractAsyncContextManager[Page]]


@pytest.fixture
def tab(browser: Browser) -> Tab:
    """`async with tab(server_url, ...) as page`: a fresh profile; what the browser complains of fails the test."""

    @asynccontextmanager
    async def make(url: str, **options: object) -> AsyncIterator[Page]:
        context: BrowserContext = await browser.new_context(base_url=url, **options)  # type: ignore[arg-type]
        context.set_default_timeout(15_000)
        page = await context.new_page()
        complaints: list[str] = []

        def told(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning") and not message.text.startswith(EXPECTED):
                complaints.append(message.text)

        page.on("console", told)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        try:
            yield page
        finally:
            await context.close()
        assert complaints == []

    return make


async def sign_in(page: Page, key: str) -> None:
    await page.goto("/console/sign-in")
    await page.get_by_label("API key").fill(key)
    await page.get_by_role("main").get_by_role("button", name="Sign in").click()
    await page.wait_for_url("**/console/overview")


@pytest.fixture(scope="session")
def axe() -> str:
    """axe-core's source."""
    starts("npm")
    npm = shutil.which("npm")
    if npm is None:
        missing("npm", "apt-get install npm")
    folder = HERE / "node"
    modules, lock_file = folder / "node_modules", folder / "package-lock.json"
    with installing.locked(modules):
        if installing.is_stale(modules, lock_file):
            installing.say("axe-core, into tests/console/node/node_modules")
            installing.run(npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(folder))
            installing.mark_fresh(modules, lock_file)
    return (modules / "axe-core" / "axe.min.js").read_text()
