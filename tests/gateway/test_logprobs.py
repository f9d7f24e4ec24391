"""Log probabilities in each format: the text, the bytes and the place of tokens that are parts of characters."""

import json
import math
import struct
from collections.abc import AsyncIterator, Collection
from typing import Any

import pytest

from engine.script import RequestScript, Script, Step, emit
from engine.tokens import Token, TokenLogprobs
from gateway.models.token_json import ROWS_AT_ONCE, TokenJSON
from tests.gateway.conftest import DEMO, LLAMA2, GatewayServer, GatewayServers

# "ab é 🎟!", in which neither é nor the ticket is one token.
SCRIPT = Script((RequestScript((emit("ab"), Step("bytes", "20c3 a9 20f09f 8e 9f"), emit("!"))),))
TEXT = "ab é 🎟!"
PARTS = [b"ab", b" \xc3", b"\xa9", b" \xf0\x9f", b"\x8e", b"\x9f", b"!"]
TOKENS = ["ab", " \\xc3", "\\xa9", " \\xf0\\x9f", "\\x8e", "\\x9f", "!"]
OFFSETS = [0, 2, 3, 4, 5, 5, 6]  # the space of " \xc3" is there at once, the character with its end


@pytest.fixture
async def server(gateway_server: GatewayServers) -> AsyncIterator[GatewayServer]:
    async with gateway_server(script=SCRIPT) as running:
        yield running


async def whole(server: GatewayServer, path: str, **body: object) -> dict[str, Any]:
    async with server.client() as client:
        answer = await client.post(path, json={"model": DEMO, **body})
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


async def events(server: GatewayServer, path: str, **body: object) -> list[dict[str, Any]]:
    named = {} if "/inference/" in path else {"model": DEMO}
    async with server.client() as client:
        answer = await client.post(path, json={"stream": True, **named, **body})
    assert answer.status_code == 200, answer.text
    lines = answer.text.splitlines()
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]


ASKED: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "logprobs": True, "top_logprobs": 2}
INCLUDE = ["message.output_text.logprobs"]


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_chat_has_the_bytes_of_every_part(server: GatewayServer, streamed: bool) -> None:
    path = "/v1/chat/completions"
    if streamed:
        choices = [choice for event in await events(server, path, **ASKED) for choice in event["choices"]]
        content = [one for choice in choices for one in (choice.get("logprobs") or {"content": []})["content"]]
        text = "".join(choice["delta"].get("content") or "" for choice in choices)
    else:
        (choice,) = (await whole(server, path, **ASKED))["choices"]
        content, text = choice["logprobs"]["content"], choice["message"]["content"]
    assert text == TEXT
    assert [one["token"] for one in content] == TOKENS
    assert [bytes(one["bytes"]) for one in content] == PARTS
    assert bytes(content[1]["top_logprobs"][1]["bytes"]) == PARTS[1] + b"'"
    assert all([top["logprob"] for top in one["top_logprobs"]] == [-0.5, -1.5] for one in content)


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_completions_lists_stay_parallel(server: GatewayServer, streamed: bool) -> None:
    path = "/v1/completions"
    if streamed:
        choices = [event["choices"][0] for event in await events(server, path, prompt="a", logprobs=1)]
        pieces = [choice["logprobs"] for choice in choices]
        logprobs = {name: [value for piece in pieces for value in piece[name]] for name in pieces[0]}
        text = "".join(choice["text"] for choice in choices)
    else:
        (choice,) = (await whole(server, path, prompt="a", logprobs=1))["choices"]
        logprobs, text = choice["logprobs"], choice["text"]
    assert text == TEXT
    assert logprobs["tokens"] == [token if "\\" not in token else f"bytes:{token}" for token in TOKENS]
    assert logprobs["text_offset"] == OFFSETS
    assert logprobs["top_logprobs"] == [{token: -0.5} for token in logprobs["tokens"]]


async def test_a_native_stream_gives_each_character_with_its_end(server: GatewayServer) -> None:
    tokens = [event["token"]["text"] for event in await events(server, f"/v1/inference/{LLAMA2}", input="hi")]
    assert "".join(tokens) == TEXT
    assert tokens[:6] == ["ab", " ", "é", " ", "", "🎟"]


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_response_has_the_bytes_of_every_part(server: GatewayServer, streamed: bool) -> None:
    body: dict[str, Any] = {"input": "hi", "include": INCLUDE, "top_logprobs": 1}
    if streamed:
        found = await events(server, "/v1/responses", **body)
        of_deltas = [one for event in found if event["type"].endswith("text.delta") for one in event["logprobs"]]
        assert [bytes(one["bytes"]) for one in of_deltas] == PARTS
        (part,) = [event["part"] for event in found if event["type"] == "response.content_part.done"]
        (item,) = [event["item"] for event in found if event["type"] == "response.output_item.done"]
        response = found[-1]["response"]
        assert part["logprobs"] == item["content"][0]["logprobs"] == of_deltas
    else:
        response = await whole(server, "/v1/responses", **body)
    (content,) = response["output"][0]["content"]
    assert content["text"] == TEXT
    assert [bytes(one["bytes"]) for one in content["logprobs"]] == PARTS
    assert [one["token"] for one in content["logprobs"]] == TOKENS
    assert all(len(one["top_logprobs"]) == 1 for one in content["logprobs"])


async def test_a_response_takes_no_words_for_its_log_probabilities(gateway_server: GatewayServers) -> None:
    """What stands for them while the document is written is nothing that a model or a client could say."""
    mark = '{"token":"logprobs of message 0","bytes":[],"logprob":0.0,"top_logprobs":[]}'
    async with gateway_server(script=Script((RequestScript((emit(mark),)),))) as server:
        body: dict[str, Any] = {"input": mark, "instructions": mark, "include": INCLUDE}
        response = await whole(server, "/v1/responses", **body)
        assert (response["output"][0]["content"][0]["text"], response["instructions"]) == (mark, mark)
        completed = (await events(server, "/v1/responses", **body))[-1]["response"]
        assert (completed["output"][0]["content"][0]["text"], completed["instructions"]) == (mark, mark)


async def test_two_messages_of_a_response_have_their_own(gateway_server: GatewayServers) -> None:
    steps = (emit("one"), Step("call", "say", arguments="{}"), emit("two"))
    tools = [{"type": "function", "name": "say", "parameters": {"type": "object"}}]
    async with gateway_server(script=Script((RequestScript(steps),))) as server:
        found = await events(server, "/v1/responses", input="hi", include=INCLUDE, tools=tools)
    parts = [event["part"] for event in found if event["type"] == "response.content_part.done"]
    assert [[one["token"] for one in part["logprobs"]] for part in parts] == [["one"], ["two"]]
    messages = [item for item in found[-1]["response"]["output"] if item["type"] == "message"]
    assert [[one["token"] for one in item["content"][0]["logprobs"]] for item in messages] == [["one"], ["two"]]


# What is written of a token


class Words:
    """A vocabulary that counts how often it is asked."""

    def __init__(self, *data: bytes) -> None:
        self._data = data
        self.asked: list[int] = []

    def token(self, token_id: int) -> Token:
        self.asked.append(token_id)
        data = self._data[token_id]
        return Token(token_id, data.decode(errors="backslashreplace"), data)


AWKWARD = ["100%", "%s %% %(a)s", '"quoted"', "a\\b", "\n\t\x00", "é\u2028", "😀", ""]


def test_any_text_survives_being_a_format() -> None:
    words = Words(*(text.encode() for text in AWKWARD))
    ids = list(range(len(AWKWARD)))
    written = TokenJSON(words).chat([TokenLogprobs([0, *ids], [-0.25] * (1 + len(ids)))])
    found = json.loads(written)
    assert [top["token"] for top in found["top_logprobs"]] == AWKWARD
    assert [bytes(top["bytes"]).decode() for top in found["top_logprobs"]] == AWKWARD
    assert written.isascii()


def test_a_token_is_asked_for_once() -> None:
    words = Words(b"a", b"b")
    tokens = TokenJSON(words)
    first = tokens.chat([TokenLogprobs([0, 0, 1], [-1.0, -1.0, -2.0])])
    assert tokens.chat([TokenLogprobs([0, 0, 1], [-1.0, -1.0, -2.0])]) == first
    assert sorted(words.asked) == [0, 1]


@pytest.mark.parametrize("value", [0.0, -0.0, -1e-30, -0.1, -1 / 3, -123.456789, -9999.0])
def test_a_float_of_32_bits_comes_back(value: float) -> None:
    (narrow,) = struct.unpack("f", struct.pack("f", value))
    tokens = TokenJSON(Words(b"a"))
    back = json.loads(tokens.chat([TokenLogprobs([0], [narrow])]))["logprob"]
    assert struct.unpack("f", struct.pack("f", back)) == (narrow,)
    assert math.isclose(float(tokens.completion(TokenLogprobs([0], [narrow]))[1]), narrow, rel_tol=1e-8)


def test_tokens_with_one_text_are_one_name_of_a_completion() -> None:
    name, number, top = TokenJSON(Words(b"a", b"a", b"b")).completion(TokenLogprobs([0, 2, 1], [-1.0, -2.0, -3.0]))
    assert (name, number) == ('"a"', "-1")
    assert json.loads(top) == {"a": -1, "b": -2}


@pytest.mark.parametrize("count", [0, 1, ROWS_AT_ONCE, ROWS_AT_ONCE + 1, 2 * ROWS_AT_ONCE])
async def test_a_long_answer_is_written_in_pieces(count: int) -> None:
    rows = [TokenLogprobs([0], [-float(number)]) for number in range(count)]
    deltas: list[Collection[TokenLogprobs]] = [rows[:7], rows[7:]]
    found = json.loads(f"[{await TokenJSON(Words(b'a')).whole_chat(deltas)}]")
    assert [one["logprob"] for one in found] == [-number for number in range(count)]
