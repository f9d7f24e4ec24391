"""vLLM's spans hang on ours, which hang on the client's."""

import secrets
from pathlib import Path

import pytest

from tests.otlp import attributes, collecting
from tests.server import start_server

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PROMPT = "Is-this-written-down?"


@pytest.mark.timeout(600)  # it loads weights, on a machine that may have other work
def test_vllms_span_is_a_child_of_ours(tmp_path: Path) -> None:
    with (
        collecting() as collector,
        start_server(
            tmp_path,
            FAREBOX_SOURCE="demo",
            FAREBOX_BOOTSTRAP_KEY=f"test-{secrets.token_hex(16)}",
            FAREBOX_OTLP_ENDPOINT=collector.url,
        ) as server,
    ):
        server.wait_until_ready()
        with server.client() as http:
            answer = http.post(
                "/v1/chat/completions",
                json={"model": "farebox/demo", "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 5},
                headers={"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"},
            )
        assert answer.status_code == 200
        assert server.stop() == 0
    spans = collector.trace(TRACE)
    ours, vllms = spans["generate"], spans["llm_request"]
    assert vllms.parent_span_id == ours.span_id
    found = attributes(vllms)
    assert found["gen_ai.usage.completion_tokens"] == answer.json()["usage"]["completion_tokens"]
    assert float(str(found["gen_ai.latency.time_in_model_prefill"])) > 0
    sent = b"".join(collector.raw)
    assert PROMPT.encode() not in sent
    assert server.key.encode() not in sent
