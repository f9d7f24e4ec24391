"""Who shares what is remembered of prompts is the card's to say, and the engine is told so for each request."""

from pathlib import Path

import pytest

from engine.base import ChatFormat, GenerationRequest, Prompt, ResponseFormat
from engine.scripted import ScriptedEngine, ScriptedGeneration
from engine.scripted_renderer import ScriptedRenderer
from engine.tokenizing import SHARES_WITH
from tests.gateway.conftest import GatewayServers, make_key

CARD = """
[[model]]
name = "org/apart"
source = "demo"
context_length = 4096
default_max_tokens = 16
profile = "base"
prefix_cache = "{}"
price = {{ input = "1", output = "1", cached_input = "1" }}
"""
told: list[tuple[str | None, str | None]] = []


class Telling(ScriptedRenderer):
    async def text(
        self,
        text: str,
        response_format: ResponseFormat | None = None,
        param: str = "prompt",
        special_tokens: bool = True,
    ) -> Prompt:
        told.append(("prompt", SHARES_WITH.get()))
        return await super().text(text, response_format, param, special_tokens)


class TellingEngine(ScriptedEngine):
    """Writes down what a request's prompt and its generation are told."""

    def renderer(self, chat_format: ChatFormat) -> ScriptedRenderer:
        return Telling(chat_format, self.vocabulary)

    async def generate(self, request: GenerationRequest) -> ScriptedGeneration:
        told.append(("tokens", request.cache_salt))
        return await super().generate(request)


@pytest.mark.parametrize(
    ("shared_by", "first", "second"),
    [("shared", None, None), ("account", "account 1", "account 1"), ("key", "key 1", "key 2")],
)
async def test_prompts_and_prefixes_are_shared_as_the_card_says(
    gateway_server: GatewayServers, tmp_path: Path, shared_by: str, first: str | None, second: str | None
) -> None:
    card = tmp_path / "card.toml"
    card.write_text(CARD.format(shared_by))
    body = {"model": "org/apart", "messages": [{"role": "user", "content": "hi"}]}
    told.clear()
    async with gateway_server(cards=("org/apart",), card_files=[card], engine=TellingEngine) as server:
        other = await make_key(server.database, "other")
        for secret in (server.secret, other):
            async with server.client(secret) as http:
                assert (await http.post("/v1/chat/completions", json=body)).status_code == 200
    expected = [("prompt", first), ("tokens", first), ("prompt", second), ("tokens", second)]
    assert told == expected
