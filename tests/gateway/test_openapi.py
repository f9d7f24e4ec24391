"""The OpenAPI document: complete, valid, exactly as strict as the gateway, true of its answers; and its page."""

import json
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import schemathesis
import yaml
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.routing import Route

from engine.script import RequestScript, Script, Step
from gateway.app import create_app
from gateway.errors import GatewayError
from gateway.models.model import Model
from gateway.openapi.document import class_names
from gateway.protocol.body import RequestBody
from gateway.protocol.checks import parse_json, with_ranges
from gateway.protocol.operation import operation_of
from gateway.schemas.models import body_schema
from tests.gateway.checking import validate
from tests.gateway.conftest import DEMO, LLAMA2, GatewayServer, GatewayServers
from tests.gateway.test_fuzz import VALID, WRONG, places, replaced
from tests.server import Server, start_server

LLAMA8 = "meta-llama/Meta-Llama-3.1-8B-Instruct-Turbo"
ACCEPTANCE_OFF = ["--exclude-checks", "positive_data_acceptance"]
SCHEMATHESIS_SECONDS_MAX = 22

SCRIPT = Script(
    requests=(
        RequestScript((Step("reason", "Let me think"), Step("emit", "Four it is")), match="please reason"),
        RequestScript((Step("call", "get_weather", arguments='{"city": "Paris"}'),), match="please call"),
        RequestScript((Step("emit", "Hello there, how are you"),)),
    ),
    context_length=131072,
)


@pytest.fixture
async def served(gateway_server: GatewayServers) -> Any:
    async with gateway_server(
        script=SCRIPT, cards=(DEMO, LLAMA2, LLAMA8), webhook_secret="w" * 24, admin_key="a" * 24
    ) as server:
        yield server


async def document_of(server: GatewayServer) -> dict[str, Any]:
    async with server.client() as http:
        del http.headers["authorization"]
        answer = await http.get("/openapi.json")
    assert answer.status_code == 200
    document: dict[str, Any] = answer.json()
    return document


async def test_every_route_is_in_the_document(served: GatewayServer) -> None:
    document = await document_of(served)
    routes = [
        route
        for route in create_app(served.gateway).routes
        if isinstance(route, Route) and not f"{route.path}/".startswith("/console/")  # pages, and no API
    ]
    for route in routes:
        assert operation_of(route.endpoint) is not None, f"{route.path} is not documented"
        path = re.sub(r"\{(\w+):\w+\}", r"{\1}", route.path)
        for method in (route.methods or set()) - {"HEAD"}:
            assert method.lower() in document["paths"][path]
    assert len(routes) == sum(len(item) for item in document["paths"].values())


async def test_the_document_is_valid_and_names_are_unique(served: GatewayServer) -> None:
    document = await document_of(served)
    schemathesis.openapi.from_dict(document).validate()
    operations = [operation for item in document["paths"].values() for operation in item.values()]
    ids = [operation["operationId"] for operation in operations]
    assert len(set(ids)) == len(ids)
    text = json.dumps(document)
    for reference in set(re.findall(r'"\$ref": "#/([^"]+)"', text)):
        at = document
        for part in reference.split("/"):
            at = at[part]
    for name, schema in document["components"]["schemas"].items():
        jsonschema.Draft202012Validator.check_schema(schema)
        assert "$defs" not in schema, name


async def test_openapis_own_validator_finds_nothing(served: GatewayServer) -> None:
    """It checks each default against its schema, too."""
    assert [error.message for error in OpenAPIV31SpecValidator(await document_of(served)).iter_errors()] == []


# A class of this name would hide one that generated code uses by the same name.
TAKEN = {"Response", "Request", "Client", "AuthenticatedClient", "File", "Unset", "Object", "Array", "Date", "Promise"}


async def test_names_fit_generated_code(served: GatewayServer) -> None:
    """A schema becomes a class of its title, else of its name; an operation becomes a function."""
    document = await document_of(served)
    for name, schema in document["components"]["schemas"].items():
        for word in (name, schema.get("title", name)):
            assert re.fullmatch(r"[A-Z][A-Za-z0-9]*", word), word
            assert word not in TAKEN
    for item in document["paths"].values():
        for operation in item.values():
            assert re.fullmatch(r"[a-z][a-z0-9_]*", operation["operationId"])


def test_models_whose_names_differ_in_signs_only_have_shapes_of_their_own() -> None:
    assert class_names(["a/b-1", "a/b.1", "4/x"]) == {"a/b-1": "AB1", "a/b.1": "AB1Other", "4/x": "4X"}


@pytest.mark.parametrize("model", [DEMO, LLAMA2])
async def test_every_default_is_one_that_could_be_sent(served: GatewayServer, model: str) -> None:
    """In the document, and in the catalog's schemas."""
    async with served.client() as http:
        catalog = (await http.get(f"/models/{model}")).json()["schemas"]
    checked = 0
    for root in (await document_of(served), catalog["openai"]["input"], catalog["native"]["input"]):
        for schema in with_defaults(root):
            inner = {"$defs": root.get("$defs", {}), "components": root.get("components", {}), **schema}
            jsonschema.validate(schema["default"], inner, jsonschema.Draft202012Validator)
            checked += 1
    assert checked > 20


def with_defaults(value: Any) -> Iterator[dict[str, Any]]:
    """Every schema within that has a default."""
    if isinstance(value, dict):
        if "default" in value and not isinstance(value["default"], dict):
            yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from with_defaults(item)


KEPT_INSIDE = ("/", "/admin", "/metrics", "/health")


async def test_the_chart_exposes_every_path_that_is_not_kept_inside(served: GatewayServer, repository: Path) -> None:
    values = yaml.safe_load((repository / "helm" / "farebox" / "values.yaml").read_text())
    for edge in ("ingress", "httpRoute"):
        exposed = values[edge]["paths"]
        for path in (await document_of(served))["paths"]:
            inside = any(path == prefix or path.startswith(f"{prefix}/") for prefix in KEPT_INSIDE)
            assert any(path == prefix or path.startswith(f"{prefix}/") for prefix in exposed) != inside, path


async def test_open_routes_and_keyed_ones_are_told_apart(served: GatewayServer) -> None:
    document = await document_of(served)
    async with served.client() as http:
        del http.headers["authorization"]
        for path, item in document["paths"].items():
            for method, operation in item.items():
                status = (await http.request(method, path.replace("{id}", "1"))).status_code
                assert (status == 401) == ("security" not in operation), path


# What JSON Schema can't say: a named function must be among the tools, `best_of` must equal `n`, and so on.
BEYOND_SCHEMA = re.compile(
    r"names a (function|custom|tool) that isn't in `tools`|mean the same and differ|goes on from an assistant's"
    r"|`best_of` must|beyond the numbers"
)


def accepted(kind: type[RequestBody], raw: bytes, model: Model) -> tuple[bool, str]:
    """Whether the gateway takes the body for this model, and what it says."""
    try:
        body = validate(kind, parse_json(raw), model.profile)
    except GatewayError as error:
        return False, error.message
    choice = getattr(body, "tool_choice", None)
    calls = getattr(body, "tools", ()) and "none" not in (choice, getattr(choice, "type", choice))
    # The renderer refuses these.
    return not (calls and model.card.tool_call_parser is None), ""


MORE = ["2", "0.5", '"none"', '"x"', '["x"]', "[1]", '["text"]', '{"type": "regex"}', '{"type": "text"}', "[[1]]"]


@pytest.mark.slow
@pytest.mark.parametrize("model", [DEMO, LLAMA2, LLAMA8])
@pytest.mark.parametrize(("kind", "body"), [valid[1:] for valid in VALID], ids=lambda kind: str(kind)[:20])
async def test_a_models_schema_accepts_what_the_gateway_does(
    served: GatewayServer, model: str, kind: type[RequestBody], body: dict[str, Any]
) -> None:
    """Every value at every place of a valid body, and every field left out or added."""
    found = served.gateway.catalog.get(model)
    assert found is not None
    validator = jsonschema.Draft202012Validator(body_schema(kind, found))
    marker = "\u2603"
    whole = body | {name: marker for name in with_ranges(kind, found.profile).model_fields if name not in body}
    sent: list[str] = [json.dumps(body)]
    for place in places(whole):
        with_marker = replaced(body, place, marker) if len(place) > 1 or place[0] in body else body | {place[0]: marker}
        text = json.dumps(with_marker, ensure_ascii=False)
        sent += [text.replace(f'"{marker}"', literal) for literal in WRONG + MORE]
        sent.append(json.dumps(without(with_marker, place)))
    disagreements = []
    for text in sent:
        agrees, message = accepted(kind, text.encode(), found)
        if agrees != validator.is_valid(json.loads(text)) and not BEYOND_SCHEMA.search(message):
            disagreements.append((text, message))
    assert disagreements == []


def without(value: Any, place: tuple[Any, ...]) -> Any:
    changed = deepcopy(value)
    at = changed
    for key in place[:-1]:
        at = at[key]
    del at[place[-1]]
    return changed


def closed(schema: Any) -> Any:
    """The same schema, where no object may have a field that isn't described."""
    match schema:
        case {"properties": properties, **rest} if "additionalProperties" not in rest:
            return {**closed(rest), "properties": closed(properties), "additionalProperties": False}
        case dict():
            return {name: closed(item) for name, item in schema.items()}
        case list():
            return [closed(item) for item in schema]
        case _:
            return schema


CHAT: dict[str, Any] = {"model": DEMO, "messages": [{"role": "user", "content": "Hello!"}]}
TOOLS: dict[str, Any] = {"tools": [{"type": "function", "function": {"name": "get_weather"}}]}

FUNCTION = {"type": "function"}
LOGPROBS = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}


def asking(text: str, **fields: object) -> dict[str, object]:
    return {"model": DEMO, "messages": [{"role": "user", "content": text}], **fields}


POSTS: list[tuple[str, dict[str, object]]] = [
    ("/v1/chat/completions", CHAT),
    ("/v1/chat/completions", CHAT | {"n": 2, "logprobs": True, "top_logprobs": 2}),
    ("/v1/chat/completions", CHAT | {"max_tokens": 0}),
    ("/v1/chat/completions", asking("please reason")),
    ("/v1/chat/completions", asking("please call", **TOOLS)),
    ("/v1/chat/completions", asking("please call", tools=[{"type": "custom", "custom": {"name": "get_weather"}}])),
    ("/v1/messages", asking("please reason")),
    ("/v1/messages", asking("please call", tools=[{"name": "get_weather", "input_schema": {}}])),
    ("/v1/responses", {"model": DEMO, "input": "please reason", **LOGPROBS}),
    ("/v1/responses", {"model": DEMO, "input": "please call", "tools": [TOOLS["tools"][0]["function"] | FUNCTION]}),
    ("/v1/responses", {"model": DEMO, "input": "please call", "tools": [{"type": "custom", "name": "get_weather"}]}),
    (
        "/v1/responses",
        {
            "model": DEMO,
            "input": "please call",
            "tools": [{"type": "namespace", "name": "a", "tools": [FUNCTION | {"name": "get_weather"}]}],
        },
    ),
    (
        "/v1/responses",
        {"model": DEMO, "input": "please reason", "include": ["reasoning.encrypted_content"], "tools": [{"type": "x"}]},
    ),
    ("/v1/completions", {"model": DEMO, "prompt": ["one", "two"], "logprobs": 2}),
    ("/v1/completions", {"model": DEMO, "prompt": "one", "echo": True}),
    (f"/v1/inference/{DEMO}", {"input": "one", "num_responses": 2}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("path", "body"), POSTS, ids=lambda value: str(value)[:60])
async def test_answers_and_events_have_the_documented_fields_only(
    served: GatewayServer, path: str, body: dict[str, object]
) -> None:
    document = await document_of(served)
    described = document["paths"][path.replace(DEMO, "{model}")]["post"]["responses"]["200"]["content"]
    async with served.client() as http:
        whole = (await http.post(path, json=body)).json()
        holds(document, described["application/json"]["schema"], whole)
        extra = {"stream_options": {"continuous_usage_stats": True}} if "completions" in path else {}
        single = {"num_responses": 1} if "inference" in path else {}
        answer = await http.post(path, json={**body, "stream": True, **extra, **single})
    event_schema = described["text/event-stream"]["schema"]["properties"]["data"]["anyOf"][1]["contentSchema"]
    events = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    assert len(events) > 1
    for event in events:
        if event != "[DONE]":
            holds(document, event_schema["anyOf"][0], json.loads(event))


GETS = [
    "/v1/models",
    f"/v1/models/{DEMO}",
    "/models/list",
    f"/models/{DEMO}",
    "/v1/usage",
    "/v1/me/rate_limit",
    "/v1/webhooks/secret",
    "/health",
    "/health/live",
]


@pytest.mark.slow
@pytest.mark.parametrize("path", GETS)
async def test_documents_have_the_documented_fields_only(served: GatewayServer, path: str) -> None:
    document = await document_of(served)
    async with served.client() as http:
        made = (await http.post("/v1/chat/completions", json=CHAT)).json()["id"]
        answer = await http.get(path)
        request = await http.get(f"/v1/requests/{made}")
    described = document["paths"][path.replace(DEMO, "{model}")]["get"]["responses"]["200"]["content"]
    holds(document, described["application/json"]["schema"], answer.json())
    holds(document, {"$ref": "#/components/schemas/RequestEntry"}, request.json())


async def test_administrations_answers_have_the_documented_fields_only(served: GatewayServer) -> None:
    document = await document_of(served)
    limited = {"limit": {"kind": "day", "amount_usd": "1.50"}, "models": [DEMO], "requests_per_minute": 5}
    async with served.client("a" * 24) as http:
        account = await http.post("/admin/accounts", json={"name": "acme"})
        terms = {"account_id": account.json()["id"], "name": "bot", "terms": limited}
        key = await http.post("/admin/keys", json=terms)
        lists = {name: await http.get(f"/admin/{name}") for name in ("accounts", "keys", "audit", "usage")}
    holds(document, {"$ref": "#/components/schemas/AccountFields"}, account.json())
    holds(document, {"$ref": "#/components/schemas/NewKeyFields"}, key.json())
    for name, shape in (("accounts", "AccountList"), ("keys", "KeyList"), ("audit", "AuditList")):
        assert lists[name].json()["data"]
        holds(document, {"$ref": f"#/components/schemas/{shape}"}, lists[name].json())
    holds(document, {"$ref": "#/components/schemas/UsageReport"}, lists["usage"].json())


def holds(document: dict[str, Any], schema: dict[str, Any], value: object) -> None:
    """The value has the schema, and no field that it doesn't describe."""
    components = closed(document["components"]["schemas"])
    jsonschema.validate(value, {**schema, "components": {"schemas": components}}, jsonschema.Draft202012Validator)


async def test_the_page_needs_no_network_and_shows_every_path(served: GatewayServer) -> None:
    document = await document_of(served)
    async with served.client() as http:
        del http.headers["authorization"]
        answer = await http.get("/docs")
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    page = answer.text
    assert not re.search(r"<script|<link|<img|@import|url\(|(src|href)=.?https?:", page)
    for path in document["paths"]:
        assert f"<code>{path}</code>" in page
    for anchor in set(re.findall(r'href="#([^"]+)"', page)):
        assert f'id="{anchor}"' in page
    assert "≥ 0, ≤ 2" in page


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    script = {"context_length": 131072, "request": [{"steps": [{"emit": "Hello there, how are you"}]}]}
    with start_server(
        tmp_path_factory.mktemp("schemathesis"),
        FAREBOX_MODELS=f"{DEMO},{LLAMA2}",
        FAREBOX_SOURCE=f"scripted:{json.dumps(script)}",
        FAREBOX_BOOTSTRAP_KEY=f"test-{secrets.token_hex(16)}",
        FAREBOX_ADMIN_KEY=f"admin-{secrets.token_hex(16)}",
        FAREBOX_WEBHOOK_SECRET=secrets.token_hex(16),
    ) as server:
        server.wait_until_ready()
        with server.client() as http:
            # The scripted engine has not imported vLLM, whose conversions these two use; that takes a while once.
            asked = {"model": DEMO, "max_tokens": 2}
            http.post("/v1/messages", json=asked | {"messages": CHAT["messages"]})
            http.post("/v1/responses", json={"model": DEMO, "input": "Hello!"})
        yield server


# Administration has a run of its own, and /v1/openai is /v1 once more. A form has texts only, so that much of what
# violates its schema doesn't once it is written as one: test_files.py has what is wrong with forms.
ELSEWHERE = "^/(admin|v1/openai|v1/files$)"


@pytest.mark.vllm
@pytest.mark.parametrize(
    ("admin", "options"),
    [
        (False, ["--phases=coverage", "--exclude-path-regex", ELSEWHERE]),
        # Random bodies that fit a schema may still be refused, for rules between fields that no schema can say; how
        # far it gets in its time differs from machine to machine. That a schema and the checks agree is tested above.
        (False, ["--phases=fuzzing", "--exclude-path-regex", ELSEWHERE, *ACCEPTANCE_OFF]),
        # What an account may be called, and which changes make sense, isn't all in the schemas.
        (True, ["--phases=coverage,fuzzing", "--include-path-regex", "^/admin", *ACCEPTANCE_OFF]),
    ],
    ids=["clients", "clients-random", "administration"],
)
def test_schemathesis_finds_nothing(
    live: Server, tmp_path: Path, repository: Path, admin: bool, options: list[str]
) -> None:
    """Every check it has: statuses, headers and schemas of answers, valid bodies accepted, invalid ones refused."""
    key = live.admin_key if admin else live.key
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        "run",
        f"{live.url}/openapi.json",
        f"--header=Authorization: Bearer {key}",
        "--checks=all",
        "--max-examples=5",
        f"--max-time={SCHEMATHESIS_SECONDS_MAX}",
        "--request-timeout=60",
        "--seed=1",
        *options,
    ]
    environment = os.environ | {"SCHEMATHESIS_HOOKS": "tests.schemathesis_hooks", "PYTHONPATH": str(repository)}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-12_000:] + result.stderr[-2_000:]
    assert '"status": 500' not in live.output
