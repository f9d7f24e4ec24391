"""What a field meets: honoured, a hint, refused, or passed over and named. And profiles, which say what is honoured."""

from pathlib import Path
from typing import Any

import pytest

from engine.script import Script
from gateway.errors import InvalidParameter, InvalidRequest
from gateway.models.catalog import Catalog, CatalogError, load_catalog
from gateway.models.parameters import shipped_profiles
from gateway.protocol.anthropic import CountTokensBody, MessagesBody
from gateway.protocol.body import RequestBody
from gateway.protocol.chat import ChatBody
from gateway.protocol.checks import check
from gateway.protocol.completions import CompletionBody
from gateway.protocol.embeddings import EmbeddingsBody
from gateway.protocol.fields import ignored_names
from gateway.protocol.native import NativeBody
from gateway.protocol.responses import ResponsesBody
from gateway.settings import load_settings
from tests.gateway.checking import validate
from tests.gateway.conftest import DEMO, GatewayServer, GatewayServers

PROFILE = shipped_profiles()["llama3-turbo"]
SAID = [{"role": "user", "content": "Good day."}]
CHAT: dict[str, Any] = {"model": DEMO, "messages": SAID}
BODIES: list[tuple[type[RequestBody], dict[str, Any]]] = [
    (ChatBody, CHAT),
    (CompletionBody, {"model": DEMO, "prompt": "a"}),
    (ResponsesBody, {"model": DEMO, "input": "a"}),
    (MessagesBody, CHAT),
    (CountTokensBody, CHAT),
    (NativeBody, {"input": "a"}),
    (EmbeddingsBody, {"model": DEMO, "input": "a"}),
]
ROUTES: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", CHAT),
    ("/v1/completions", {"model": DEMO, "prompt": "a"}),
    ("/v1/responses", {"model": DEMO, "input": "a"}),
    ("/v1/messages", CHAT),
    ("/v1/messages/count_tokens", CHAT),
    (f"/v1/inference/{DEMO}", {"input": "a"}),
]
kinds = pytest.mark.parametrize(("kind", "body"), BODIES, ids=[kind.__name__ for kind, _ in BODIES])


@pytest.fixture
async def server(gateway_server: GatewayServers) -> Any:
    async with gateway_server(script=Script()) as running:
        yield running


@pytest.mark.parametrize(("path", "body"), ROUTES, ids=[path for path, _ in ROUTES])
@pytest.mark.parametrize("stream", [False, True], ids=["document", "stream"])
async def test_a_field_that_nobody_knows_is_named_in_the_answer(
    server: GatewayServer, path: str, body: dict[str, Any], stream: bool
) -> None:
    async with server.client() as http:
        answer = await http.post(path, json={**body, "stream": stream, "some_vendor_flag": {"deep": [1]}})
        plain = await http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    assert "some_vendor_flag" in answer.headers["farebox-ignored"]
    assert "farebox-ignored" not in plain.headers


@kinds
def test_the_operator_may_refuse_unknown_fields(kind: type[RequestBody], body: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameter) as caught:
        check(kind, {**body, "some_vendor_flag": 1}, PROFILE, "refuse")
    assert caught.value.param == "some_vendor_flag"
    check(kind, body, PROFILE, "refuse")


@kinds
def test_a_slip_of_the_pen_is_refused(kind: type[RequestBody], body: dict[str, Any]) -> None:
    name = "temperature" if "temperature" in ((kind.ROUTE and PROFILE.route(kind.ROUTE)) or {}) else "dimensions"
    slip = name.replace("e", "", 1)
    with pytest.raises(InvalidParameter, match=f"Did you mean `{name}`") as caught:
        check(kind, {**body, slip: 1}, PROFILE)
    assert caught.value.param == slip


@kinds
def test_the_names_of_what_is_ignored_fit_into_a_header(kind: type[RequestBody], body: dict[str, Any]) -> None:
    odd = {"a\r\nset-cookie: x": 1, "naïve, \u2028": 2, "k" * 5000: 3, **{f"field_{n}__": n for n in range(40)}}
    ignored = ignored_names(check(kind, {**body, **odd}, PROFILE)[1])
    header = ", ".join(ignored)
    assert header.isascii()
    assert header.isprintable()
    assert len(ignored) == 21
    assert max(map(len, ignored)) <= 64
    assert ignored[-1].endswith(" more")


@kinds
def test_very_many_unknown_fields_are_too_many(kind: type[RequestBody], body: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameter, match="at most 64"):
        check(kind, {**body, **{f"x{n}__": n for n in range(100_000)}}, PROFILE)


@pytest.mark.parametrize(
    ("kind", "sent"),
    [
        (ChatBody, {"metadata": {"n": 1}, "client_metadata": {"session_id": "one"}, "verbosity": "low"}),
        (ChatBody, {"prompt_cache_key": "k", "prompt_cache_retention": "24h", "prompt_cache_options": {"ttl": "30m"}}),
        (ChatBody, {"functions": [], "function_call": "none", "logit_bias": [], "top_logprobs": 0, "stop": ""}),
        (ChatBody, {"tools": [], "tool_choice": "", "response_format": {}, "stream_options": {}, "audio": {}}),
        (ChatBody, {"reasoning_effort": "xhigh", "add_generation_prompt": True, "structured_outputs": {}}),
        (CompletionBody, {"suffix": "", "logit_bias": {}, "stop": [], "min_tokens": 1, "bad_words": "x"}),
        (ResponsesBody, {"client_metadata": {"session_id": "one"}, "include": ["reasoning.encrypted_content"]}),
        (ResponsesBody, {"reasoning": {"summary": "auto", "effort": "max"}, "text": {"verbosity": "low"}}),
        (
            ResponsesBody,
            {"ignore_eos": True, "seed": 1, "stop": ["x"], "top_k": 4, "min_p": 0.1, "logit_bias": {"1": 2}},
        ),
        (ResponsesBody, {"context_management": [{"type": "compaction"}], "max_tool_calls": 3, "truncation": "auto"}),
        (MessagesBody, {"context_management": {"edits": []}, "speed": "standard", "system": [], "diagnostics": {}}),
        (MessagesBody, {"tools": [], "thinking": {}, "output_config": {}, "mcp_servers": [], "workspace_id": "w"}),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else value.__name__,
)
def test_hints_and_what_means_off_are_taken_without_a_word(kind: type[RequestBody], sent: dict[str, Any]) -> None:
    _, ignored = check(kind, {**dict(BODIES)[kind], **sent}, PROFILE)
    assert ignored == ()


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": "a", "reasoning_details": [{}], "parsed": None, "extra_content": {"x": 1}},
        {"role": "assistant", "content": None, "reasoning_content": "I think."},
        {"role": "assistant", "tool_calls": [{"index": 0, "id": "c", "type": "function", "function": {"name": "f"}}]},
        {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "parsed_arguments": {}}}]},
        {"role": "user", "content": "a", "cache_control": {"type": "ephemeral"}, "id": "m"},
        {"role": "tool", "tool_call_id": "c", "content": []},
        {"role": "tool", "tool_call_id": "c", "content": None, "is_error": False},
        {"role": "assistant", "content": "a", "thinking_blocks": [], "provider_specific_fields": {"a": 1}},
    ],
)
def test_a_history_may_hold_what_other_servers_put_there(message: dict[str, Any]) -> None:
    tools = [
        {"type": "function", "cache_control": {}, "function": {"name": "f", "strict": True, "defer_loading": True}}
    ]
    body, ignored = check(ChatBody, {**CHAT, "messages": [*SAID, message], "tools": tools}, PROFILE)
    assert ignored == ()
    assert body.messages[1].role == message["role"]


def test_several_faults_are_told_at_once() -> None:
    with pytest.raises(InvalidParameter) as caught:
        validate(ChatBody, {**CHAT, "n": 9, "top_p": 2, "temprature": 1, "stream": "yes"}, PROFILE)
    error = caught.value.body()["error"]
    assert isinstance(error, dict)
    assert error["param"] == "temprature"
    assert [fault["param"] for fault in error["errors"]] == ["temprature", "stream", "n", "top_p"]
    assert "0 < top_p ≤ 1" in error["message"]


def test_many_faults_make_a_small_answer() -> None:
    sent = dict.fromkeys(("n", "top_p", "top_k", "seed", "min_p", "temperature", "stream", "max_tokens"), "x" * 1000)
    more = {"presence_penalty": [], "frequency_penalty": {}, "repetition_penalty": True, "logprobs": 7}
    with pytest.raises(InvalidParameter) as caught:
        validate(ChatBody, {**CHAT, **sent, **more}, PROFILE)
    assert len(caught.value.faults) == 10


def test_no_more_tokens_can_be_demanded_than_may_be_generated() -> None:
    body = validate(ChatBody, {**CHAT, "min_tokens": 5}, PROFILE)
    assert body.sampling(5).more["min_tokens"] == 5
    with pytest.raises(InvalidParameter, match="which are 4; got 5") as caught:
        body.sampling(4)
    assert caught.value.param == "min_tokens"


def test_what_a_page_lacks_is_refused_on_its_route() -> None:
    llama2 = shipped_profiles()["llama2-chat"]
    for name in ("min_p", "seed"):
        with pytest.raises(InvalidRequest, match="page has no such parameter") as caught:
            validate(NativeBody, {"input": "a", name: 0}, llama2)
        assert (caught.value.code, caught.value.param) == ("unsupported_parameter", name)
        validate(ChatBody, {**CHAT, name: 0}, llama2)


CARD = """
[profile.mine]
extends = "llama3-turbo"
[profile.mine.openai]
temperature = { maximum = 1.5 }
top_k = { minimum = -1, off = [-1] }
length_penalty = { kind = "number", above = 0, maximum = 2, default = 1, description = "Something new." }
seed = false

[[model]]
name = "mine"
source = "demo"
context_length = 2048
default_max_tokens = 512
profile = "mine"
price = { input = "0.10", output = "0.20" }
"""


def catalog(folder: Path, text: str) -> Catalog:
    (folder / "cards.toml").write_text(text)
    return load_catalog(load_settings({"FAREBOX_CARDS": str(folder / "cards.toml"), "FAREBOX_MODELS": "mine"}))


def test_an_operators_profile_changes_a_row_adds_one_and_leaves_one_out(tmp_path: Path) -> None:
    model = catalog(tmp_path, CARD).get("mine")
    assert model is not None
    sampling = validate(ChatBody, {**CHAT, "top_k": -1, "length_penalty": 0.5}, model.profile).sampling(3)
    assert (sampling.top_k, sampling.more["length_penalty"]) == (0, 0.5)
    with pytest.raises(InvalidParameter, match=r"0 ≤ temperature ≤ 1\.5"):
        validate(ChatBody, {**CHAT, "temperature": 2}, model.profile)
    with pytest.raises(InvalidRequest, match="page has no such parameter"):
        validate(ChatBody, {**CHAT, "seed": 1}, model.profile)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (('extends = "llama3-turbo"', 'extends = "mine"'), "extends itself"),
        (('extends = "llama3-turbo"', 'extends = "llama4"'), 'extends "llama4", which doesn\'t exist'),
        (("maximum = 1.5", 'maximum = "high"'), "wrong `openai.temperature.maximum"),
        (("maximum = 1.5", "maximal = 1.5"), "wrong `openai.temperature.maximal`"),
        (("seed = false", "seed = 7"), "`openai.seed` must be a row"),
        (("[profile.mine.openai]", "[profile.mine.opanai]"), "must be a table with"),
    ],
)
def test_a_wrong_profile_stops_the_start_with_one_sentence(tmp_path: Path, change: tuple[str, str], words: str) -> None:
    with pytest.raises(CatalogError) as caught:
        catalog(tmp_path, CARD.replace(*change))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
