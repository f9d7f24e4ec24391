"""Every number of every profile on a live gateway: at, inside and outside its bounds, and what is no number."""

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from gateway.models.parameters import Parameter, Route, shipped_profiles
from gateway.protocol.body import RequestBody
from gateway.protocol.chat import ChatBody
from gateway.protocol.completions import CompletionBody
from gateway.protocol.native import NativeBody
from tests.gateway.test_checks import inside, outside
from tests.server import Server, start_server

MODELS = {
    "llama3-turbo": "farebox/demo",
    "llama3-turbo-8b": "meta-llama/Meta-Llama-3.1-8B-Instruct-Turbo",
    "llama2-chat": "meta-llama/Llama-2-70b-chat-hf",
}
NO_NUMBERS = ["1e400", "-1e400", "1.5e999999", '"1"', "true", "[1]", "{}"]
NOT_JSON = ["NaN", "Infinity", "-Infinity"]
HELLO: list[object] = [{"role": "user", "content": "Hello!"}]


@dataclass(frozen=True)
class Endpoint:
    """A route and a small valid body for it."""

    path: str
    kind: type[RequestBody]
    route: Route
    body: dict[str, object]

    def raw(self, model: str, name: str, literal: str, *, stream: bool) -> bytes:
        """The body with one field as JSON text."""
        fields = self.body | ({"model": model} if "model" in self.kind.model_fields else {}) | {"stream": stream}
        if name == "top_logprobs":
            fields["logprobs"] = True
        if name == "max_completion_tokens":
            fields.pop("max_tokens")
        fields.pop(name, None)
        return f'{json.dumps(fields)[:-1]}, "{name}": {literal}}}'.encode()


CHAT = Endpoint("/v1/chat/completions", ChatBody, "chat", {"messages": HELLO, "max_tokens": 2})
COMPLETIONS = Endpoint("/v1/completions", CompletionBody, "completions", {"prompt": "Hello!", "max_tokens": 2})
NATIVE = Endpoint("/v1/inference/{model}", NativeBody, "native", {"input": "Hello!", "max_new_tokens": 2})
ENDPOINTS = [CHAT, COMPLETIONS, NATIVE]


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """All profiles, on an engine that answers at once whatever it is asked."""
    script = {"context_length": 131072, "request": [{"steps": [{"emit": "Hello there"}]}]}
    with start_server(
        tmp_path_factory.mktemp("parameters"),
        FAREBOX_MODELS=",".join(MODELS.values()),
        FAREBOX_SOURCE=f"scripted:{json.dumps(script)}",
        FAREBOX_BOOTSTRAP_KEY=f"test-{secrets.token_hex(16)}",
    ) as server:
        server.wait_until_ready()
        yield server


def numbers(endpoint: Endpoint, profile: str) -> list[tuple[str, Parameter]]:
    """All but `min_tokens`, whose most is what the request may generate (`tests/gateway/test_fields.py`)."""
    parameters = [row for row in shipped_profiles()[profile].route(endpoint.route).items() if row[0] != "min_tokens"]
    return [(name, one) for name, one in parameters if one.kind in ("number", "integer")]


def expect(answer: httpx.Response, status: int, sent: str) -> None:
    assert answer.status_code == status, f"{sent}: {answer.status_code} {answer.text[:300]}"


@pytest.mark.parametrize("stream", [False, True], ids=["document", "stream"])
@pytest.mark.parametrize("profile", MODELS)
@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.path)
def test_every_number_gets_what_the_page_says(scripted: Server, endpoint: Endpoint, profile: str, stream: bool) -> None:
    model = MODELS[profile]
    path = endpoint.path.format(model=model)
    with scripted.client() as http:

        def send(name: str, literal: str) -> httpx.Response:
            return http.post(path, content=endpoint.raw(model, name, literal, stream=stream))

        for name, parameter in numbers(endpoint, profile):
            for value in [*map(str, inside(parameter)), "null"]:
                refused = name == "num_responses" and stream and value not in ("1", "null")
                answer = send(name, value)
                expect(answer, 422 if refused else 200, f"{name}={value}")
                if not refused and endpoint.route != "native" and stream:
                    assert answer.text.endswith("data: [DONE]\n\n")
            for value in [*map(str, outside(parameter)), *NO_NUMBERS]:
                answer = send(name, value)
                expect(answer, 422, f"{name}={value}")
                error = answer.json()["error"]
                assert error["param"] == name
                assert parameter.allowed(name) in error["message"]
            if parameter.kind == "integer":
                expect(send(name, "1.0"), 422, f"{name}=1.0")
            for value in NOT_JSON:
                answer = send(name, value)
                expect(answer, 400, f"{name}={value}")
                assert answer.json()["error"]["code"] == "invalid_json"


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.path)
def test_the_real_engine_takes_every_accepted_bound(server: Server, endpoint: Endpoint) -> None:
    """What the pages allow and vLLM wouldn't take as it is, such as the ends of the seeds' range."""
    sent: set[tuple[str, str]] = set()
    with server.client() as http:
        for profile, model in MODELS.items():
            for name, parameter in numbers(endpoint, profile):
                for value in map(str, inside(parameter)):
                    # Lengths are cut by the context; generating as much would only take long.
                    long = name.startswith("max_") and float(value) > 2
                    if (name, value) in sent or long:
                        continue
                    sent.add((name, value))
                    path = endpoint.path.format(model=model)
                    answer = http.post(path, content=endpoint.raw(model, name, value, stream=False))
                    expect(answer, 200, f"{name}={value}")


@pytest.mark.parametrize(
    "fields",
    [
        {"logit_bias": {"999999999": 1}},
        {"logit_bias": {"0": -100, "00": 100}},
        {"response_format": {"type": "regex", "regex": "(["}},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "no such type"}}}},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"$ref": "#/nowhere"}}}},
        {"chat_template_kwargs": {"messages": 7, "tools": 7, "add_generation_prompt": "x", "bos_token": 1}},
        {"messages": [{"role": "user", "content": "\u0000<|eot_id|>\ufffe"}]},
        {"messages": [{"role": "tool", "content": "7"}]},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": 7}}}]},
        {"stop": ["\u0000", "x" * 4096]},
        {"prompt_cache_key": "k" * 100_000},
        {"user": "\u0000" + "u" * 100_000},
    ],
    ids=lambda fields: str(fields)[:40],
)
def test_the_real_engine_is_not_broken_by_what_passes_the_checks(server: Server, fields: dict[str, object]) -> None:
    with server.client() as http:
        body = {"model": "farebox/demo", "messages": HELLO, "max_tokens": 2} | fields
        answer = http.post("/v1/chat/completions", json=body)
        assert answer.status_code < 500, answer.text[:500]
        assert http.post("/v1/chat/completions", content=CHAT.raw("farebox/demo", "n", "1", stream=False)).is_success


def test_a_temperature_above_vllms_highest_does_more(server: Server) -> None:
    """vLLM takes 2 at most. If 100 were cut to it, the same seed would give the same text."""
    body = {"input": "Hello!", "max_new_tokens": 24, "seed": 7, "top_p": 1}
    with server.client() as http:
        texts = [
            http.post("/v1/inference/farebox/demo", json=body | {"temperature": temperature}).json()["results"]
            for temperature in (2, 2, 100, 100)
        ]
    assert texts[0] == texts[1]
    assert texts[2] == texts[3]
    assert texts[0] != texts[2]
