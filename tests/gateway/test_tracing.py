"""The spans of a request, as a collector gets them."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from engine.script import REJECT, RequestScript, Script, emit
from gateway.settings import Settings, SettingsError
from tests.gateway.conftest import DEMO, GatewayServers
from tests.otlp import Collector, attributes, collecting

TRACE, CLIENT_SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = {"traceparent": f"00-{TRACE}-{CLIENT_SPAN}-01"}
PROMPT, ANSWER = "please-keep-this-quiet", "a-secret-answer"
SCRIPT = Script(
    requests=(
        RequestScript((REJECT,), match="refuse"),
        RequestScript((emit(f"{ANSWER} and more"),)),
    )
)
PARENTS = {
    "auth": "POST /v1/chat/completions",
    "render": "POST /v1/chat/completions",
    "reserve": "POST /v1/chat/completions",
    "generate": "POST /v1/chat/completions",
    "first_token": "generate",
    "settle": "POST /v1/chat/completions",
}


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running


def chat(text: str, **more: object) -> dict[str, object]:
    return {"model": DEMO, "messages": [{"role": "user", "content": f"{PROMPT} {text}"}], **more}


@pytest.mark.parametrize("stream", [True, False])
async def test_a_request_is_a_tree_of_spans_under_the_clients(
    gateway_server: GatewayServers, collector: Collector, stream: bool
) -> None:
    async with (
        gateway_server(script=SCRIPT, otlp_endpoint=collector.url) as server,
        server.client() as http,
    ):
        answer = await http.post(
            "/v1/chat/completions", json=chat("now", stream=stream, user=PROMPT), headers=TRACEPARENT
        )
        assert answer.status_code == 200
        (entry,) = await server.entries()
    spans = collector.trace(TRACE)
    root = spans["POST /v1/chat/completions"]
    assert root.parent_span_id.hex() == CLIENT_SPAN
    assert {name: spans[parent].span_id for name, parent in PARENTS.items()} == {
        name: span.parent_span_id for name, span in spans.items() if span is not root
    }
    for span in spans.values():
        assert root.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
    assert spans["first_token"].end_time_unix_nano <= spans["generate"].end_time_unix_nano
    assert attributes(root) == {
        "http.request.method": "POST",
        "http.route": "/v1/chat/completions",
        "http.response.status_code": 200,
        "client.address": "127.0.0.1",
        "farebox.request_id": answer.headers["x-request-id"],
        "gen_ai.request.model": DEMO,
        "gen_ai.response.id": entry["request_id"],
        "gen_ai.usage.input_tokens": entry["prompt_tokens"],
        "gen_ai.usage.output_tokens": 3,
        "farebox.cost_usd": "0.00000414",
        "farebox.outcome": "finished",
    }
    sent = b"".join(collector.raw)
    for secret in (PROMPT, ANSWER, server.secret):
        assert secret.encode() not in sent


async def test_refusals_have_their_reason_and_no_open_span(
    gateway_server: GatewayServers, collector: Collector
) -> None:
    async with gateway_server(script=SCRIPT, otlp_endpoint=collector.url) as server:
        async with server.client() as http:
            await http.post("/v1/chat/completions", json=chat("refuse"), headers=TRACEPARENT)
            await http.get("/health/ready", headers=TRACEPARENT)
        async with server.client("fb-wrong") as http:
            other = TRACEPARENT["traceparent"].replace(TRACE, TRACE[::-1])
            await http.post("/v1/chat/completions", json=chat("no key"), headers={"traceparent": other})
    refused = collector.trace(TRACE)
    assert refused.keys() == {"POST /v1/chat/completions", *PARENTS}
    assert attributes(refused["POST /v1/chat/completions"])["error.type"] == "engine_overloaded"
    denied = collector.trace(TRACE[::-1])
    assert denied.keys() == {"POST /v1/chat/completions", "auth"}
    assert attributes(denied["POST /v1/chat/completions"])["error.type"] == "invalid_api_key"


async def test_a_client_that_samples_nothing_out_is_heeded(
    gateway_server: GatewayServers, collector: Collector
) -> None:
    async with gateway_server(otlp_endpoint=collector.url) as server, server.client() as http:
        unsampled = {"traceparent": TRACEPARENT["traceparent"][:-2] + "00"}
        assert (await http.post("/v1/chat/completions", json=chat("x"), headers=unsampled)).status_code == 200
        assert (await http.post("/v1/chat/completions", json=chat("x"))).status_code == 200
    assert not collector.trace(TRACE)
    assert {span.name for span in collector.spans} == {"POST /v1/chat/completions", *PARENTS}


async def test_a_collector_that_is_away_costs_no_request(gateway_server: GatewayServers) -> None:
    async with gateway_server(otlp_endpoint="http://127.0.0.1:9") as server, server.client() as http:
        assert (await http.post("/v1/chat/completions", json=chat("x"))).status_code == 200


@pytest.mark.parametrize(
    ("setting", "url"),
    [
        ("http://collector:4318", "http://collector:4318/v1/traces"),
        ("http://collector:4318/", "http://collector:4318/v1/traces"),
        ("https://example.com/otlp/v1/traces", "https://example.com/otlp/v1/traces"),
    ],
)
def test_the_endpoint_gets_otlps_path_unless_it_has_one(setting: str, url: str) -> None:
    assert Settings(otlp_endpoint=setting).traces_url == url


def test_the_gateway_runs_without_opentelemetry_until_it_is_asked_for_traces() -> None:
    script = (
        "import sys\n"
        "from importlib.abc import MetaPathFinder\n"
        "class Absent(MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.startswith('opentelemetry'): raise ModuleNotFoundError(f'No module named {name}', name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "import gateway.process.server\n"
        "from gateway.settings import Settings; from gateway.telemetry.tracing import open_tracing\n"
        "open_tracing(Settings(), '1')\n"
        "open_tracing(Settings(otlp_endpoint='http://collector:4318'), '1')\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    last = result.stderr.strip().splitlines()[-1]
    assert SettingsError.__name__ in last
    assert "FAREBOX_OTLP_ENDPOINT is set, but opentelemetry" in last
    assert "farebox[tracing]" in last
