"""The models and their catalog, and what browsers and connections need: HEAD, OPTIONS, CORS, keep-alive."""

from datetime import UTC, datetime, timedelta

import anthropic
import httpx
import jsonschema
import pytest
from anthropic.types import ModelInfo
from pydantic import ValidationError

from gateway.settings import Settings, SettingsError, load_settings
from pricing.keys import KeyTerms
from tests.gateway.conftest import DEMO, LLAMA2, GatewayServers, make_key

ORIGIN = "https://app.example.com"
CHAT = {"model": DEMO, "messages": [{"role": "user", "content": "Hello!"}]}


async def test_the_catalog_has_deepinfras_fields_and_prices(gateway_server: GatewayServers) -> None:
    async with gateway_server() as server, server.client() as http:
        listed = {model["model_name"]: model for model in (await http.get("/models/list")).json()}
        one = (await http.get(f"/models/{LLAMA2}")).json()
    assert set(listed) == {DEMO, LLAMA2}
    assert {name: one[name] for name in listed[LLAMA2]} == listed[LLAMA2]
    # $0.64 per million tokens are 0.000064 cents per token.
    assert one["pricing"]["cents_per_input_token"] == pytest.approx(0.000064, rel=1e-12)
    assert one["pricing"]["cents_per_output_token"] == pytest.approx(0.000080, rel=1e-12)
    assert (one["max_tokens"], one["quantization"], one["tags"]) == (4096, "fp16", ["json"])
    assert one["type"] == one["reported_type"] == "text-generation"
    assert "70B chat optimized" in one["description"]


async def test_a_models_page_holds_the_schemas_that_check_it(gateway_server: GatewayServers) -> None:
    async with gateway_server() as server, server.client() as http:
        page = (await http.get(f"/models/{LLAMA2}")).json()["schemas"]
        answer = await http.post(page["openai"]["path"], json=CHAT | {"model": LLAMA2})
        native = await http.post(page["native"]["path"], json={"input": "a"})
    assert page["openai"]["input"]["properties"]["n"]["maximum"] == 2
    assert page["openai"]["input"]["properties"]["model"]["const"] == LLAMA2
    assert page["openai"]["input"]["properties"]["max_tokens"]["default"] == 4096
    assert page["native"]["input"]["properties"]["temperature"]["maximum"] == 100
    jsonschema.validate(answer.json(), page["openai"]["output"])
    jsonschema.validate(native.json(), page["native"]["output"])
    for route in page.values():
        for part in ("input", "output", "streaming"):
            jsonschema.Draft202012Validator.check_schema(route[part])


@pytest.mark.parametrize("path", ["/v1/models/{}", "/v1/openai/models/{}", "/models/{}"])
async def test_a_name_may_hold_slashes_plain_or_encoded(gateway_server: GatewayServers, path: str) -> None:
    async with gateway_server() as server, server.client() as http:
        plain = await http.get(path.format(LLAMA2))
        encoded = await http.get(path.format(LLAMA2.replace("/", "%2F")))
        missing = await http.get(path.format("meta-llama/nothing"))
    assert plain.status_code == encoded.status_code == 200
    assert plain.content == encoded.content
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")


async def test_a_key_sees_the_models_that_it_may_use(gateway_server: GatewayServers) -> None:
    async with gateway_server() as server:
        secret = await make_key(server.database, "narrow", KeyTerms(models=frozenset({DEMO})))
        async with server.client(secret) as http:
            assert [model["id"] for model in (await http.get("/v1/models")).json()["data"]] == [DEMO]
            assert [model["model_name"] for model in (await http.get("/models/list")).json()] == [DEMO]
            for path in (f"/v1/models/{LLAMA2}", f"/models/{LLAMA2}"):
                assert (await http.get(path)).status_code == 404


@pytest.mark.parametrize("path", ["/v1/models", "/models/list", f"/models/{DEMO}", "/health/live", "/docs"])
async def test_head_is_get_without_the_body(gateway_server: GatewayServers, path: str) -> None:
    async with gateway_server() as server, server.client() as http:
        got, head = await http.get(path), await http.head(path)
    assert head.status_code == got.status_code == 200
    assert head.content == b""
    assert head.headers["content-length"] == got.headers["content-length"]
    assert head.headers["content-type"] == got.headers["content-type"]


async def test_options_tells_the_methods_of_all_routes_with_the_path(gateway_server: GatewayServers) -> None:
    async with gateway_server(admin_key="a" * 24) as server:
        async with server.client() as http:
            models = await http.options("/v1/models")
            chat = await http.options("/v1/chat/completions")
            wrong = await http.put("/v1/chat/completions")
        async with server.client("a" * 24) as http:
            keys = await http.options("/admin/keys")
    assert (models.status_code, models.headers["allow"]) == (204, "GET, HEAD, OPTIONS")
    assert chat.headers["allow"] == "OPTIONS, POST"
    assert keys.headers["allow"] == "GET, HEAD, OPTIONS, POST"
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "OPTIONS, POST")


async def test_cors_is_off_by_default(gateway_server: GatewayServers) -> None:
    async with gateway_server() as server, server.client() as http:
        answers = [await http.get("/v1/models", headers={"origin": ORIGIN}), await preflight(http)]
    assert not any(name.startswith("access-control-") for answer in answers for name in answer.headers)


async def preflight(http: httpx.AsyncClient, origin: str = ORIGIN) -> httpx.Response:
    asked = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,x-stainless-lang",
    }
    return await http.options("/v1/chat/completions", headers=asked)


async def test_a_listed_origin_may_call_and_read_answers_and_errors(gateway_server: GatewayServers) -> None:
    async with gateway_server(cors_origins=ORIGIN) as server, server.client() as http:
        chat = await http.post("/v1/chat/completions", json=CHAT, headers={"origin": ORIGIN})
        bad = await http.post("/v1/chat/completions", json={}, headers={"origin": ORIGIN})
        del http.headers["authorization"]
        allowed = await preflight(http)  # browsers send no key with it
        refused = await preflight(http, "https://evil.example.com")
        unknown = await http.get("/v1/models", headers={"origin": ORIGIN})
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == ORIGIN
    assert "x-stainless-lang" in allowed.headers["access-control-allow-headers"]
    assert "access-control-allow-origin" not in refused.headers
    assert [answer.status_code for answer in (chat, bad, unknown)] == [200, 422, 401]
    for answer in (chat, bad, unknown):
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        exposed = set(answer.headers["access-control-expose-headers"].split(", "))
        assert {"x-request-id", "openai-processing-ms", "retry-after", "x-ratelimit-remaining-tokens"} <= exposed


async def test_a_star_allows_every_origin(gateway_server: GatewayServers) -> None:
    async with gateway_server(cors_origins="*") as server, server.client() as http:
        assert (await preflight(http)).headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize("origins", ["app.example.com", "https://app.example.com/path", "https://a.example,b"])
def test_what_is_no_origin_is_refused_at_the_start(origins: str) -> None:
    with pytest.raises(SettingsError, match="FAREBOX_CORS_ORIGINS is wrong"):
        load_settings({"FAREBOX_CORS_ORIGINS": origins})
    with pytest.raises(ValidationError):
        Settings.model_validate({"cors_origins": origins})


async def test_a_connection_is_kept_for_the_next_request(gateway_server: GatewayServers) -> None:
    """Plain answers, refusals, streams and HEAD: all over one connection."""
    opened = []

    async def note(name: str, info: dict[str, object]) -> None:
        if name == "connection.connect_tcp.complete":
            opened.append(info)

    async with gateway_server() as server, server.client() as http:
        calls: list[tuple[str, str, object]] = [
            ("GET", "/v1/models", None),
            ("POST", "/v1/chat/completions", CHAT),
            ("POST", "/v1/chat/completions", CHAT | {"stream": True}),
            ("POST", "/v1/chat/completions", CHAT | {"temperature": 9}),
            ("HEAD", "/v1/models", None),
            ("GET", "/nothing", None),
        ]
        for method, path, body in calls:
            answer = await http.request(method, path, json=body, extensions={"trace": note})
            assert answer.headers.get("connection") != "close"
    assert len(opened) == 1


@pytest.mark.parametrize("prefix", ["", "/anthropic"])
async def test_anthropics_clients_get_anthropics_shape(gateway_server: GatewayServers, prefix: str) -> None:
    async with (
        gateway_server() as server,
        anthropic.AsyncAnthropic(base_url=server.url + prefix, api_key=server.secret, max_retries=0) as client,
    ):
        page = await client.models.list()
        assert [model.id for model in page.data] == [DEMO, LLAMA2]
        assert (page.has_more, page.first_id, page.last_id) == (False, DEMO, LLAMA2)
        assert [model.id async for model in client.models.list(limit=1)] == [DEMO, LLAMA2]
        assert [model.id for model in (await client.models.list(before_id=LLAMA2)).data] == [DEMO]
        assert (await client.models.list(after_id=LLAMA2)).last_id is None
        model = await client.models.retrieve(LLAMA2)
        ModelInfo.model_validate(model.model_dump(), strict=True)
        assert (model.type, model.display_name, model.max_input_tokens) == ("model", LLAMA2, 4096)
        assert abs(model.created_at - datetime.now(UTC)) < timedelta(hours=1)
        beta = await client.beta.models.list()
        assert [one.id for one in beta.data] == [DEMO, LLAMA2]
        with pytest.raises(anthropic.NotFoundError, match="nobody/knows"):
            await client.models.retrieve("nobody/knows")
        for query in ({"limit": 0}, {"after_id": "nobody"}, {"after_id": DEMO, "before_id": LLAMA2}):
            with pytest.raises(anthropic.UnprocessableEntityError):
                await client.models.list(**query)  # type: ignore[arg-type]


async def test_a_models_list_is_openais_for_everybody_else(gateway_server: GatewayServers) -> None:
    async with gateway_server() as server, server.client() as http:
        plain = (await http.get("/v1/models?limit=1")).json()
        theirs = (await http.get("/anthropic/v1/models")).json()
        wrong = (await http.get("/anthropic/v1/models/nobody")).json()
    assert (plain["object"], len(plain["data"])) == ("list", 2)
    assert set(theirs) == {"data", "has_more", "first_id", "last_id"}
    assert (wrong["type"], wrong["error"]["type"]) == ("error", "not_found_error")
