"""`POST /v1/inference/{model}`: fields, result and events of the Llama 2 page, with the scripted engine."""

import json
from collections.abc import AsyncIterator

import pytest

from engine.script import HANG, RequestScript, Script, emit, fail, finish
from engine.tokens import Token
from gateway.encoders.token_texts import shares
from gateway.models.catalog import shipped_cards
from gateway.models.parameters import Parameter, shipped_profiles
from gateway.protocol.native import NativeBody
from pricing.price import Price
from tests.gateway.checking import validate
from tests.gateway.conftest import LLAMA2, GatewayServer, GatewayServers

SCRIPT = Script(
    requests=(
        RequestScript((emit("one two"), HANG), match="please hang"),
        RequestScript((emit("one two"), fail("broken")), match="please fail"),
        RequestScript((emit('Hello "there" you\n'), finish("stop"))),
    )
)
TEXT = 'Hello "there" you\n'
URL = f"/v1/inference/{LLAMA2}"
PROFILE = shipped_profiles()["llama2-chat"]
NATIVE = PROFILE.route("native")

card = next(card for card in shipped_cards() if card.name == LLAMA2)
PRICE = Price.per_million(input=card.price.input, output=card.price.output)


@pytest.fixture
async def server(gateway_server: GatewayServers) -> AsyncIterator[GatewayServer]:
    async with gateway_server(script=SCRIPT) as running:
        yield running


async def test_the_result_has_the_pages_shape(server: GatewayServer) -> None:
    async with server.client() as http:
        answer = await http.post(URL, json={"input": "I have a dream"})
    assert answer.status_code == 200, answer.text
    document = answer.json()
    status = document["inference_status"]
    assert isinstance(status.pop("runtime_ms"), int)
    cost = 4 * PRICE.input + 4 * PRICE.output
    assert status == {"status": "succeeded", "cost": cost / 10**12, "tokens_input": 4, "tokens_generated": 4}
    assert document["request_id"].startswith("inf-")
    assert document["results"] == [{"generated_text": TEXT}]
    assert (document["num_tokens"], document["num_input_tokens"]) == (4, 4)
    assert set(document) == {"request_id", "inference_status", "results", "num_tokens", "num_input_tokens"}
    (entry,) = await server.entries()
    assert (entry["request_id"], entry["cost"], entry["route"]) == (document["request_id"], cost, "/v1/inference")


async def test_num_responses_gives_as_many_results_and_charges_each(server: GatewayServer) -> None:
    async with server.client() as http:
        document = (await http.post(URL, json={"input": "a", "num_responses": 2, "max_new_tokens": 1})).json()
    assert document["results"] == [{"generated_text": "Hello"}] * 2
    assert document["num_tokens"] == 2


async def test_a_stream_is_an_event_for_each_token(server: GatewayServer) -> None:
    async with server.client() as http:
        answer = await http.post(URL, json={"input": "a b", "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    *events, last, rest = answer.text.split("\n\n")
    assert rest == ""
    assert events[0] == (
        'data: {"token": {"id": 1, "text": "Hello", "logprob": -0.5, "special": false}, '
        '"generated_text": null, "details": null}'
    )
    tokens = [json.loads(event.removeprefix("data: ")) for event in events]
    assert [token["token"]["id"] for token in tokens] == [1, 2, 3, 4]
    end = json.loads(last.removeprefix("data: "))
    assert "".join(event["token"]["text"] for event in [*tokens, end]) == end["generated_text"] == TEXT
    assert isinstance(end["details"].pop("runtime_ms"), int)
    assert end["details"].pop("request_id").startswith("inf-")
    cost = 2 * PRICE.input + 4 * PRICE.output
    assert end["details"] == {
        "finish_reason": "stop",
        "generated_tokens": 4,
        "input_tokens": 2,
        "cost": cost / 10**12,
    }
    (entry,) = await server.entries()
    assert entry["cost"] == cost


async def test_an_error_in_a_stream_is_an_event_and_charges_what_was_sent(server: GatewayServer) -> None:
    async with server.client() as http:
        answer = await http.post(URL, json={"input": "please fail", "stream": True})
    *_, last, _ = answer.text.split("\n\n")
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "engine_error"
    (entry,) = await server.entries()
    assert (entry["outcome"], entry["completion_tokens"]) == ("engine_error", 2)


async def test_a_disconnect_stops_the_engine_and_charges_what_was_generated(server: GatewayServer) -> None:
    async with (
        server.client() as http,
        http.stream("POST", URL, json={"input": "please hang", "stream": True}) as answer,
    ):
        lines = answer.aiter_lines()
        seen = 0
        while seen < 2:
            seen += (await anext(lines)).startswith("data: ")
    await server.gateway.pipeline.drained(10)
    (entry,) = await server.entries()
    assert (entry["outcome"], entry["completion_tokens"]) == ("client_gone", 2)
    assert all(not engine.running for engine in server.engines)


@pytest.mark.parametrize(
    ("fields", "status", "param", "words"),
    [
        ({"num_responses": 2, "stream": True}, 422, "num_responses", "with `stream`"),
        ({"webhook": "https://example.com", "stream": True}, 422, "webhook", "with `stream`"),
        ({"webhook": "https://example.com"}, 400, "webhook", "FAREBOX_WEBHOOK_SECRET"),
        ({"response_format": {"type": "xml"}}, 422, "response_format.type", "json_object"),
        ({"stop": 7}, 422, "stop", "a list"),
        ({"stop": ["x"] * 17}, 422, "stop", "at most 16 strings"),
        ({"input": 7}, 422, "input", "a string"),
        ({"input": ""}, 422, "input", "at least 1"),
        ({"max_tokens": 7}, 422, "max_tokens", "Did you mean `max_new_tokens`?"),
        ({"input": "word " * 4096}, 400, "input", "context"),
    ],
    ids=str,
)
async def test_refusals_name_the_field(
    server: GatewayServer, fields: dict[str, object], status: int, param: str, words: str
) -> None:
    async with server.client() as http:
        answer = await http.post(URL, json={"input": "a", **fields})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (status, param)
    assert words in error["message"]
    assert await server.entries() == []


def edges(name: str, parameter: Parameter) -> list[tuple[str, object, bool]]:
    """Each bound of the page, a step to either side of it, and whether that is allowed."""
    step = 1 if parameter.kind == "integer" else 1e-6
    found: list[tuple[str, object, bool]] = []
    for bound, inside, sign in (
        (parameter.minimum, True, -1),
        (parameter.above, False, -1),
        (parameter.maximum, True, 1),
        (parameter.below, False, 1),
    ):
        if bound is not None:
            found += [
                (name, bound + sign * step, False),
                (name, bound, inside),
                (name, bound - sign * step, True),
            ]
    wrong: list[object] = [True, "1", [1], 10**400, float("nan"), float("inf")]
    if parameter.kind == "integer":
        wrong += [1.0, 1.5]
    return found + [(name, value, False) for value in wrong]


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        edge
        for name, parameter in NATIVE.items()
        if parameter.kind in ("number", "integer")
        for edge in edges(name, parameter)
    ],
    ids=lambda value: str(value)[:24],
)
def test_every_bound_of_the_page(name: str, value: object, allowed: bool) -> None:
    values = {"input": "a", name: value}
    if allowed:
        assert getattr(validate(NativeBody, values, PROFILE), name) == value
    else:
        with pytest.raises(Exception, match=f"`{name}` must be") as refusal:
            validate(NativeBody, values, PROFILE)
        assert getattr(refusal.value, "status", 0) == 422


def test_the_defaults_are_the_pages() -> None:
    body = validate(NativeBody, {"input": "a"}, PROFILE)
    sampling = body.sampling(body.max_new_tokens)
    assert (sampling.max_tokens, sampling.temperature, sampling.top_p, sampling.top_k) == (512, 0.7, 0.9, 0)
    assert (sampling.repetition_penalty, sampling.presence_penalty, sampling.frequency_penalty) == (1, 0, 0)
    assert (sampling.n, sampling.stop, body.stream) == (1, (), False)


def test_every_field_reaches_the_sampler() -> None:
    sent = {
        "temperature": 0.5,
        "top_p": 0.8,
        "top_k": 7,
        "repetition_penalty": 1.1,
        "presence_penalty": 0.3,
        "frequency_penalty": -0.3,
        "stop": ["END"],
    }
    sampling = validate(NativeBody, {"input": "a", "num_responses": 2, **sent}, PROFILE).sampling(9)
    assert {name: getattr(sampling, name) for name in sent} == {**sent, "stop": ("END",)}
    assert (sampling.max_tokens, sampling.n) == (9, 2)


async def test_a_form_is_refused_with_415(server: GatewayServer) -> None:
    async with server.client() as http:
        answer = await http.post(URL, data={"input": "a"}, files={"webhook": b""})
    assert answer.status_code == 415
    assert "multipart/form-data" in answer.json()["detail"]


async def test_an_unknown_model_is_404(server: GatewayServer) -> None:
    async with server.client() as http:
        answer = await http.post("/v1/inference/meta-llama/Llama-2-70b", json={"input": "a"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert LLAMA2 in answer.json()["detail"]


def token(said: str | bytes) -> Token:
    data = said.encode() if isinstance(said, str) else said
    return Token(1, data.decode(errors="backslashreplace"), data)


@pytest.mark.parametrize(
    ("text", "tokens", "expected"),
    [
        ("Hello", ["Hello"], ["Hello"]),
        (" you", ["you"], [" you"]),
        (" Hello you", ["Hello", "you"], [" Hello", " you"]),
        ("Hello", ["Hello", "</s>"], ["Hello", ""]),
        ("é!", [b"\xc3", b"\xa9", "!"], ["", "é", "!"]),
        ("é!", [b"\xa9", "!"], ["é", "!"]),
        ("🎟!", [b"\x9f\x8e", b"\x9f", "!"], ["", "🎟", "!"]),
        ("é🎟", [b"\xa9\xf0\x9f", b"\x8e\x9f"], ["é", "🎟"]),
        ("a\ufffdb", ["a", b"\xf0", "b"], ["a", "", "\ufffdb"]),
        ("", ["EN"], [""]),
        ("END or not", [" or", " not"], ["", "END or not"]),
        ("", [], []),
    ],
    ids=[
        "one",
        "its space",
        "two with spaces",
        "end",
        "half a character",
        "its end",
        "its end in two",
        "two ends",
        "no end",
        "held back",
        "let go",
        "none",
    ],
)
def test_tokens_share_the_text_of_their_delta(text: str, tokens: list[str | bytes], expected: list[str]) -> None:
    found = shares(text, [token(one) for one in tokens])
    assert found == expected
    assert "".join(found) == text
