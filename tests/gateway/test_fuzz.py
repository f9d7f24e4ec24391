"""An invalid body of any kind gets one small error, builds few on the way, and reaches neither engine nor ledger."""

import gzip
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from engine.base import Engine, EngineSpec, GenerationRequest
from engine.script import Script
from engine.scripted import ScriptedEngine, ScriptedGeneration
from gateway.app import create_app
from gateway.errors import InvalidRequest
from gateway.models.catalog import load_catalog
from gateway.models.fleet import Fleet
from gateway.models.parameters import shipped_profiles
from gateway.process.assembly import open_gateway
from gateway.protocol.anthropic import MessagesBody
from gateway.protocol.body import RequestBody
from gateway.protocol.chat import ChatBody
from gateway.protocol.checks import parse_json, with_ranges
from gateway.protocol.completions import CompletionBody
from gateway.protocol.native import NativeBody
from gateway.protocol.responses import ResponsesBody
from gateway.request.pipeline import Pipeline
from gateway.request.turns import Turns
from gateway.settings import Settings
from pricing.ledger import Ledger
from pricing.reservation import Reservation, ReserveRequest

pytestmark = pytest.mark.slow
DEMO = "farebox/demo"
ERROR_BYTES_MAX = 8 * 2**10
BODY_BYTES_MAX = 4 * 2**20
FAULTS_MAX = 80  # about two for each field

CHAT = {
    "model": DEMO,
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hello!"}]},
        {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "c", "content": "7"},
    ],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}},
    "stop": ["x"],
    "logit_bias": {"5": 1.5},
    "stream": True,
    "stream_options": {"include_usage": True},
    "logprobs": True,
    "top_logprobs": 2,
    "max_tokens": 3,
    "seed": 1,
}
COMPLETION = {"model": DEMO, "prompt": [[1, 2], [3]], "logprobs": 1, "stop": "x", "max_tokens": 3, "temperature": 0.5}
NATIVE = {"input": "Hello", "max_new_tokens": 3, "stop": ["x"], "temperature": 0.5, "response_format": {"type": "text"}}
MESSAGE = {
    "model": DEMO,
    "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {"role": "user", "content": "Hello!"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "redacted_thinking", "data": "x"},
                {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "7"}]},
                {"type": "text", "text": "And?"},
            ],
        },
    ],
    "tools": [{"name": "f", "input_schema": {"type": "object"}}],
    "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
    "thinking": {"type": "disabled"},
    "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {"type": "object"}}},
    "metadata": {"user_id": "u"},
    "stop_sequences": ["x"],
    "stream": True,
    "max_tokens": 3,
    "temperature": 0.5,
}
RESPONSE = {
    "model": DEMO,
    "instructions": "Be brief.",
    "input": [
        {"role": "user", "content": "Hello!"},
        {"type": "reasoning", "id": "r", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a", "annotations": []}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "7"}]},
    ],
    "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True}],
    "tool_choice": {"type": "function", "name": "f"},
    "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}},
    "reasoning": {"effort": "low"},
    "include": ["message.output_text.logprobs"],
    "top_logprobs": 2,
    "metadata": {"a": "b"},
    "stream": True,
    "stream_options": {"include_obfuscation": False},
    "max_output_tokens": 3,
    "temperature": 0.5,
}
VALID: list[tuple[str, type[RequestBody], dict[str, Any]]] = [
    ("/v1/chat/completions", ChatBody, CHAT),
    ("/v1/completions", CompletionBody, COMPLETION),
    (f"/v1/inference/{DEMO}", NativeBody, NATIVE),
    ("/v1/messages", MessagesBody, MESSAGE),
    ("/v1/responses", ResponsesBody, RESPONSE),
]
PATHS = [path for path, *_ in VALID]


class CountingEngine(ScriptedEngine):
    """Counts what reaches it."""

    def __init__(self, spec: EngineSpec) -> None:
        super().__init__(Script(), spec)
        self.generated = 0

    async def generate(self, request: GenerationRequest) -> ScriptedGeneration:
        self.generated += 1
        return await super().generate(request)


class CountingLedger:
    """The real ledger, and how often it was asked for money."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.reserved = 0

    def reserve(self, request: ReserveRequest) -> Reservation:
        self.reserved += 1
        return self._ledger.reserve(request)


@dataclass
class Fuzzed:
    """A gateway in this process, without sockets."""

    http: httpx.AsyncClient
    engine: CountingEngine
    ledger: CountingLedger

    async def refuses(self, path: str, body: bytes, headers: dict[str, str] | None = None) -> dict[str, Any]:
        """Send what must be refused; the error."""
        before = (self.engine.generated, self.ledger.reserved)
        answer = await self.http.post(path, content=body, headers=headers or {})
        assert 400 <= answer.status_code < 500, (answer.status_code, body[:300])
        assert (self.engine.generated, self.ledger.reserved) == before
        return error_of(answer)

    async def endures(self, path: str, body: bytes) -> None:
        """Send what may be valid by chance."""
        before = (self.engine.generated, self.ledger.reserved)
        answer = await self.http.post(path, content=body)
        assert answer.status_code < 500, (answer.status_code, body[:300])
        if answer.status_code != 200:
            error_of(answer)
            assert (self.engine.generated, self.ledger.reserved) == before


def error_of(answer: httpx.Response) -> dict[str, Any]:
    assert len(answer.content) < ERROR_BYTES_MAX
    document = answer.json()
    anthropic = {"type", "request_id"} if "type" in document else set()
    assert document.keys() == {"error", "detail"} | anthropic
    fields = {"message", "type", "param", "code"}
    assert document["error"].keys() - {"errors"} == fields
    assert all(fault.keys() == fields for fault in document["error"].get("errors", ()))
    assert document["detail"] == document["error"]["message"]
    error: dict[str, Any] = document["error"]
    return error


@pytest.fixture(scope="module")
async def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fuzzed]:
    secret = f"test-{secrets.token_hex(16)}"
    folder: Path = tmp_path_factory.mktemp("fuzz")
    known = Settings.model_validate({"source": "scripted:", "data_dir": folder, "bootstrap_key": secret})
    engines: list[CountingEngine] = []

    def counting(spec: EngineSpec) -> Engine:
        engines.append(CountingEngine(spec))
        return engines[-1]

    fleet = Fleet(load_catalog(known), counting)
    async with open_gateway(known, fleet) as (gateway, _):
        await fleet.start()
        ledger = CountingLedger(gateway.ledger)
        gateway.pipeline = Pipeline(ledger, gateway.metrics, Turns(gateway.fleet.engines), seconds_max=60)  # type: ignore[arg-type]  # it only reserves
        transport = httpx.ASGITransport(create_app(gateway), raise_app_exceptions=False)
        headers = {"authorization": f"Bearer {secret}", "content-type": "application/json"}
        async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as http:
            yield Fuzzed(http, engines[0], ledger)
        await fleet.stop()


@pytest.mark.parametrize(("path", "kind", "body"), VALID, ids=PATHS)
async def test_the_bodies_that_are_broken_below_are_valid(
    fuzzed: Fuzzed, path: str, kind: type[RequestBody], body: dict[str, Any]
) -> None:
    answer = await fuzzed.http.post(path, json=body)
    assert answer.status_code == 200, answer.text


NOT_JSON = [
    b"",
    b"{",
    b"null",
    b"[]",
    b'"text"',
    b"\x00" * 1000,
    b"\xff\xfe{\x00}\x00",
    b"\xef\xbb\xbf",
    bytes(range(256)) * 100,
    b"[" * 1_000_000,
    b'{"a":' * 200_000,
    b'{"model": "' + b"x" * 100,
    b'{"model": "\\ud800"}',
    b'{"model": "\\udc00\\ud800"}',
    b'{"model": "\xed\xa0\x80"}',
    b'{"max_tokens": 1e}',
    b'{"max_tokens": ' + b"9" * 100_000 + b"}",
    b'{"max_tokens": NaN}',
    b'{"max_tokens": -Infinity}',
    b"{'model': 'x'}",
    b'{"model": "x",}',
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("body", NOT_JSON, ids=lambda body: repr(body[:20]))
async def test_what_is_not_json_is_refused(fuzzed: Fuzzed, path: str, body: bytes) -> None:
    assert (await fuzzed.refuses(path, body))["code"] == "invalid_json"


WRONG = ["null", "true", "7", "-1", "1.5", "1e400", "9" * 400, '""', '"\\u0000"', "[]", "{}", "[[[[7]]]]", '{"a": 1}']


def places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every path in a document."""
    found = [place] if place else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found += places(item, (*place, key))
    return found


def replaced(value: Any, place: tuple[Any, ...], by: Any) -> Any:
    changed = deepcopy(value)
    at = changed
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = by
    return changed


@pytest.mark.parametrize(("path", "body"), [(path, body) for path, _, body in VALID], ids=PATHS)
async def test_a_wrong_type_at_any_place_is_endured(fuzzed: Fuzzed, path: str, body: dict[str, Any]) -> None:
    marker = "\u2603"
    for place in places(body):
        text = json.dumps(replaced(body, place, marker), ensure_ascii=False)
        for literal in WRONG:
            await fuzzed.endures(path, text.replace(f'"{marker}"', literal).encode())


@pytest.mark.parametrize("path", PATHS)
async def test_a_field_sent_twice_counts_once(fuzzed: Fuzzed, path: str) -> None:
    body = json.dumps(next(valid for name, _, valid in VALID if name == path))
    assert (await fuzzed.refuses(path, f'{body[:-1]}, "temperature": 0, "temperature": 9e9}}'.encode()))["param"] == (
        "temperature"
    )


def filled(start: str, item: str, end: str) -> bytes:
    """4 MB of the same small thing."""
    count = (BODY_BYTES_MAX - len(start) - len(end)) // (len(item) + 1)
    return (start + ",".join([item] * count) + end).encode()


def keyed(start: str, end: str, count: int | None = None) -> bytes:
    """4 MB of different keys, or so many."""
    count = (BODY_BYTES_MAX - len(start) - len(end)) // 12 if count is None else count
    return (start + ",".join(f'"{index:07d}":1' for index in range(count)) + end).encode()


def faults(kind: type[RequestBody], body: bytes) -> int:
    """How many errors pydantic builds of a body."""
    narrowed = with_ranges(kind, shipped_profiles()["llama3-turbo"])
    try:
        narrowed.model_validate(parse_json(body))
    except ValidationError as error:
        return error.error_count()
    return 0


HEAD = f'{{"model":"{DEMO}"'
ASK = f'{HEAD},"messages":[{{"role":"user","content":"a"}}]'
SMALL_FAULTS = {
    "messages": filled(f'{HEAD},"messages":[', "1", "]}"),
    "messages of no role": filled(f'{HEAD},"messages":[', "{}", "]}"),
    "messages of a wrong role": filled(f'{HEAD},"messages":[', '{"role":"x"}', "]}"),
    "parts": filled(f'{HEAD},"messages":[{{"role":"user","content":[', "{}", "]}]}"),
    "tool calls": filled(f'{HEAD},"messages":[{{"role":"assistant","tool_calls":[', "7", "]}]}"),
    "tools": filled(f'{ASK},"tools":[', "{}", "]}"),
    "stops": filled(f'{ASK},"stop":[', "1", "]}"),
    "modalities": filled(f'{ASK},"modalities":[', "1", "]}"),
    "unknown fields": keyed(f"{ASK},", "}"),
    "biases": keyed(f'{ASK},"logit_bias":{{"x":1,', "}}"),
    "one long role": (f'{HEAD},"messages":[{{"role":"' + "r" * (BODY_BYTES_MAX - 200) + '"}]}').encode(),
    "one long stop": (f'{ASK},"stop":"' + "s" * (BODY_BYTES_MAX - 200) + '"}').encode(),
    "one long model": ('{"model":"' + "m" * (BODY_BYTES_MAX - 200) + '"}').encode(),
    "one long choice": (f'{ASK},"tool_choice":"' + "c" * (BODY_BYTES_MAX - 200) + '"}').encode(),
    "digits": (f'{ASK},"seed":' + "9" * 4000 + "}").encode(),
}


@pytest.mark.parametrize("body", SMALL_FAULTS.values(), ids=SMALL_FAULTS)
async def test_megabytes_of_small_faults_build_few_errors(fuzzed: Fuzzed, body: bytes) -> None:
    assert len(body) <= BODY_BYTES_MAX
    await fuzzed.refuses("/v1/chat/completions", body)
    assert faults(ChatBody, body) <= FAULTS_MAX


KEYS = 90_000  # nearly as many values as a body may hold
# What other servers put into a conversation is passed over, however much of it there is.
PASSED_OVER = {
    "unknown fields of a message": keyed(f'{HEAD},"messages":[{{"role":"user","content":"a",', "}]}", KEYS),
    "unknown fields of a format": keyed(f'{ASK},"response_format":{{"type":"text",', "}}", KEYS),
    "unknown fields of a tool": keyed(f'{ASK},"tools":[{{"type":"function","function":{{"name":"f",', "}}]}", KEYS),
    "one long key": (f'{ASK},"' + "k" * (BODY_BYTES_MAX - len(ASK) - 6) + '":1}').encode(),
}


@pytest.mark.parametrize("body", PASSED_OVER.values(), ids=PASSED_OVER)
async def test_very_many_unknown_fields_are_passed_over(fuzzed: Fuzzed, body: bytes) -> None:
    answer = await fuzzed.http.post("/v1/chat/completions", content=body)
    assert answer.status_code == 200, answer.text
    assert len(answer.headers.get("farebox-ignored", "")) <= 64
    assert faults(ChatBody, body) == 0


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", filled(f'{HEAD},"prompt":[', "-1", "]}")),
        ("/v1/completions", filled(f'{HEAD},"prompt":[', "[]", "]}")),
        ("/v1/completions", keyed(f'{HEAD},"prompt":"a",', "}")),
        (f"/v1/inference/{DEMO}", filled('{"input":"a","stop":[', "1", "]}")),
        (f"/v1/inference/{DEMO}", keyed('{"input":"a",', "}")),
        ("/v1/messages", filled(f'{HEAD},"messages":[', "1", "]}")),
        ("/v1/messages", filled(f'{HEAD},"messages":[{{"role":"user","content":[', '{"type":"text"}', "]}]}")),
        ("/v1/messages", filled(f'{ASK},"tools":[', "{}", "]}")),
        ("/v1/responses", filled(f'{HEAD},"input":[', "1", "]}")),
        ("/v1/responses", filled(f'{HEAD},"input":[', '{"type":"function_call"}', "]}")),
        ("/v1/responses", keyed(f'{HEAD},"input":"a","metadata":{{"x":1,', "}}")),
    ],
    ids=[
        "negative ids",
        "empty prompts",
        "unknown fields",
        "native stops",
        "native unknown fields",
        "turns",
        "blocks",
        "client tools",
        "items",
        "calls",
        "metadata",
    ],
)
async def test_the_other_routes_build_few_errors_too(fuzzed: Fuzzed, path: str, body: bytes) -> None:
    await fuzzed.refuses(path, body)
    kind = next(kind for name, kind, _ in VALID if name == path)
    assert faults(kind, body) <= FAULTS_MAX


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
SLOW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("path", PATHS)
async def test_any_bytes_are_refused(fuzzed: Fuzzed, path: str) -> None:
    bodies: list[bytes] = []
    SLOW(given(st.binary(max_size=200))(lambda body: bodies.append(body)))()
    for body in bodies:
        await fuzzed.endures(path, body)


@pytest.mark.parametrize(("path", "body"), [(path, body) for path, _, body in VALID], ids=PATHS)
async def test_any_json_at_any_place_is_endured(fuzzed: Fuzzed, path: str, body: dict[str, Any]) -> None:
    changes: list[tuple[tuple[Any, ...], Any]] = []
    SLOW(given(st.sampled_from(places(body)), JSON_VALUES)(lambda place, value: changes.append((place, value))))()
    for place, value in changes:
        sent = json.dumps(replaced(body, place, value), ensure_ascii=True)
        await fuzzed.endures(path, sent.encode())


@pytest.mark.parametrize("path", PATHS)
async def test_gzip_that_is_wrong_is_refused(fuzzed: Fuzzed, path: str) -> None:
    packed = {"content-encoding": "gzip"}
    whole = gzip.compress(json.dumps(CHAT).encode())
    bomb = gzip.compress(b" " * (200 * 2**20), compresslevel=9)
    assert len(bomb) < BODY_BYTES_MAX
    assert (await fuzzed.refuses(path, bomb, packed))["code"] == "body_too_large"
    assert "cut off" in (await fuzzed.refuses(path, whole[:-10], packed))["message"]
    assert "not valid gzip" in (await fuzzed.refuses(path, b"plain", packed))["message"]
    assert "not valid gzip" in (await fuzzed.refuses(path, whole[:20] + b"\x00" * 40 + whole[60:], packed))["message"]
    assert (await fuzzed.refuses(path, whole, {"content-encoding": "br"}))["code"] == "unsupported_media_type"


async def test_a_gzip_body_works(fuzzed: Fuzzed) -> None:
    packed = gzip.compress(json.dumps(CHAT).encode())
    answer = await fuzzed.http.post("/v1/chat/completions", content=packed, headers={"content-encoding": "gzip"})
    assert answer.status_code == 200


async def test_a_body_over_the_cap_is_refused(fuzzed: Fuzzed) -> None:
    body = b" " * (BODY_BYTES_MAX + 1)
    assert (await fuzzed.refuses("/v1/chat/completions", body))["code"] == "body_too_large"


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_the_parser_raises_nothing_else(raw: bytes) -> None:
    with suppress(InvalidRequest):
        assert isinstance(parse_json(raw), dict)
