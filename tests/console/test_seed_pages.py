"""What the pages of the five models say of their fields is on the five pages here, field by field."""

import re
import tomllib
from collections.abc import AsyncIterator
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.console.conftest import visitor
from tests.gateway.conftest import GatewayServer, GatewayServers

PAGES: list[dict[str, Any]] = tomllib.loads(Path(__file__).with_name("seed_pages.toml").read_text())["page"]
ROW = re.compile(
    r'<tr data-field="(?P<name>[^"]+)"><td>(?P<said>.*?)</td>\s*<td class="type">(?P<type>.*?)</td>'
    r'<td class="default">(?P<default>.*?)</td><td class="range">(?P<range>.*?)</td></tr>',
    re.S,
)
WHOLE = re.compile(r"-?[0-9]{16,}")


@pytest.fixture
async def served(gateway_server: GatewayServers) -> AsyncIterator[GatewayServer]:
    async with gateway_server(cards=("all",)) as server:
        yield server


async def page_of(server: GatewayServer, model: str, route: str) -> str:
    async with visitor(server) as one:
        page = await one.open(f"/console/models/{model}?route={route}")
    assert page.status_code == 200
    return page.text


def fields_of(page: str) -> dict[str, dict[str, str]]:
    return {row["name"]: {name: unescape(text) for name, text in row.groupdict().items()} for row in ROW.finditer(page)}


def rounded(bounds: str) -> str:
    """Large bounds as JavaScript has them, which is how the pages write them."""
    return WHOLE.sub(lambda found: f"{float(found[0]):.16e}", bounds)


def facts_of(page: str) -> str:
    """What the reader reads, on one line."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", page)))


@pytest.mark.parametrize("seed", PAGES, ids=lambda seed: f"{seed['model'].rpartition('/')[2]}-{len(seed['fields'])}")
async def test_the_page_says_what_the_seed_says(served: GatewayServer, seed: dict[str, Any]) -> None:
    page = await page_of(served, seed["model"], seed["route"])
    text, fields = facts_of(page), fields_of(page)
    assert seed["description"] in text
    if "price" in seed:
        assert f"{seed['price']} in/out Mtoken" in text
    for name in ("precision", "context"):
        assert seed.get(name, "") in text
    for tag in seed.get("tags", ()):
        assert f'<span class="tag">{tag}</span>' in page
    for wanted in seed["fields"]:
        found = fields[wanted["name"]]
        assert {"file": "string"}.get(wanted["type"], wanted["type"]) in found["type"].split(" or "), wanted
        assert found["default"] == wanted["default"] or not wanted["default"], wanted
        if wanted["range"]:
            assert rounded(found["range"]) == rounded(wanted["range"]), wanted
        assert "<p>" in found["said"], f"{wanted['name']} has no description"


@pytest.mark.parametrize("model", sorted({seed["model"] for seed in PAGES}))
async def test_the_api_tab_has_each_route_in_three_languages(served: GatewayServer, model: str) -> None:
    pages = {
        route: await page_of(served, model, route)
        for route in re.findall(r'href="\?route=(\w+)#api"', await page_of(served, model, ""))
    }
    assert list(pages) == ["chat", "completions", "responses", "messages", "native"]
    paths = {
        "chat": "/v1/openai/chat/completions",
        "completions": "/v1/openai/completions",
        "responses": "/v1/openai/responses",
        "messages": "/v1/messages",
        "native": f"/v1/inference/{model}",
    }
    for route, page in pages.items():
        text = unescape(page)
        assert f"{served.url}{paths[route]}" in text
        assert f"curl {served.url}{paths[route]} " in text
        for language in ("curl", "python", "node"):
            assert f'data-language="{language}"' in page
        for code in re.findall(r'data-language="python"><pre[^>]*><code>(.*?)</code>', page, re.S):
            compile(unescape(code), route, "exec")


async def test_the_curl_and_python_of_every_route_work_as_they_stand(served: GatewayServer) -> None:
    """Their bodies at least, on the engine that there is; the SDKs are tried elsewhere."""
    model = "meta-llama/Meta-Llama-3.1-70B-Instruct-Turbo"
    async with served.client() as http:
        for route in ("chat", "completions", "native"):
            text = unescape(await page_of(served, model, route))
            bodies = re.findall(r"curl (\S+) .*?-d '(\{.*?\n\})'", text, re.S)
            assert bodies
            for url, body in bodies:
                answer = await http.post(url, content=body.replace("'\"'\"'", "'"))
                assert answer.status_code == 200, answer.text


async def test_schemas_can_be_read(served: GatewayServer) -> None:
    async with httpx.AsyncClient(base_url=served.url, trust_env=False) as http:
        for part, word in (("input", "temperature"), ("output", "ChatCompletion"), ("streaming", "chunk")):
            page = await http.get(f"/console/schemas/chat/{part}/meta-llama/Llama-2-70b-chat-hf")
            assert page.status_code == 200
            assert word in page.text
        assert (await http.get("/console/schemas/chat/nothing/meta-llama/Llama-2-70b-chat-hf")).status_code == 404
        assert (await http.get("/console/schemas/embeddings/input/meta-llama/Llama-2-70b-chat-hf")).status_code == 404
