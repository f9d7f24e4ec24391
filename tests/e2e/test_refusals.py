"""Bad input gets one clear message, in the one shape, whatever it is."""

import json

import pytest

from tests.server import Server

DEMO = "farebox/demo"
HELLO = [{"role": "user", "content": "Hello!"}]
ERROR_BYTES_MAX = 4096


def body(**fields: object) -> bytes:
    return json.dumps({"model": DEMO, "messages": HELLO} | fields).encode()


REFUSED = [
    (b"{", 400, "invalid_json", None, "not valid JSON"),
    (b"[1]", 400, "invalid_json", None, "must be a JSON object"),
    (b'{"model": NaN}', 400, "invalid_json", None, "not valid JSON"),
    (b"[" * 100_000, 400, "invalid_json", None, "not valid JSON"),
    (b'{"messages": []}', 422, "invalid_parameter", "model", "got none"),
    (body(model="farebox/dem"), 404, "model_not_found", "model", 'Did you mean "farebox/demo"?'),
    (body(model=7), 422, "invalid_parameter", "model", "got 7"),
    (body(temperature=3), 422, "invalid_parameter", "temperature", "0 ≤ temperature ≤ 2; got 3"),
    (body(top_p=0), 422, "invalid_parameter", "top_p", "0 < top_p ≤ 1; got 0"),
    (body(max_tokens="5"), 422, "invalid_parameter", "max_tokens", 'got "5"'),
    (body(stop=["x"] * 17), 422, "invalid_parameter", "stop", "at most 16"),
    (body(messages=[{"role": "judge"}]), 422, "invalid_parameter", "messages[0].role", 'got "judge"'),
    (body(temprature=1), 422, "invalid_parameter", "temprature", "Did you mean `temperature`?"),
    (body(store=True), 400, "unsupported_parameter", "store", "keeps no answers"),
    (body(stop="x" * 1_000_000), 422, "invalid_parameter", "stop[0]", "…"),
    (
        body(messages=[{"role": "user", "content": "a b " * 70_000}]),
        400,
        "context_length_exceeded",
        "messages",
        "131072",
    ),
]


@pytest.mark.parametrize(("sent", "status", "code", "param", "words"), REFUSED, ids=lambda value: str(value)[:30])
def test_a_bad_body_is_refused(
    server: Server, sent: bytes, status: int, code: str, param: str | None, words: str
) -> None:
    with server.client() as http:
        answer = http.post("/v1/chat/completions", content=sent)
    assert answer.status_code == status
    assert len(answer.content) < ERROR_BYTES_MAX
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == (code, param)
    assert words in error["message"]
    assert answer.json()["detail"] == error["message"]
    assert answer.headers["x-request-id"]


def test_the_smaller_context_of_a_card_holds(server: Server) -> None:
    """Llama 2's card allows 4,096 tokens, though it shares an engine with longer ones."""
    messages = [{"role": "user", "content": "a b " * 4096}]
    with server.client() as http:
        answer = http.post(
            "/v1/chat/completions", json={"model": "meta-llama/Llama-2-70b-chat-hf", "messages": messages}
        )
    assert answer.status_code == 400
    assert "4096" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "headers",
    [{}, {"authorization": "Bearer nonsense"}, {"authorization": "Basic YTpi"}, {"x-api-key": "fb-" + "0" * 38}],
    ids=["none", "junk", "basic", "well-formed"],
)
def test_every_wrong_key_gets_the_same_401(server: Server, headers: dict[str, str]) -> None:
    with server.client() as http:
        del http.headers["authorization"]
        answers = [
            http.post("/v1/chat/completions", content=body(), headers=headers),
            http.get("/v1/models", headers=headers),
            http.get("/nowhere", headers=headers),
        ]
    assert [answer.status_code for answer in answers] == [401] * 3
    assert len({answer.text for answer in answers}) == 1
    assert answers[0].json()["error"]["code"] == "invalid_api_key"


def test_the_scheme_is_read_in_any_case_and_x_api_key_works(server: Server) -> None:
    with server.client() as http:
        del http.headers["authorization"]
        for headers in ({"authorization": f"bearer {server.key}"}, {"x-api-key": server.key}):
            assert http.get("/v1/models", headers=headers).status_code == 200


def test_paths_and_methods_that_are_not_there(server: Server) -> None:
    with server.client() as http:
        missing = http.get("/v1/nothing/here")
        wrong = http.get("/v1/chat/completions")
        text = http.post("/v1/chat/completions", content=body(), headers={"content-type": "text/plain"})
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "method_not_allowed")
    assert (text.status_code, text.json()["error"]["code"]) == (415, "unsupported_media_type")


def test_probes_and_metrics_need_no_key(server: Server) -> None:
    with server.client() as http:
        del http.headers["authorization"]
        assert http.get("/health/live").json() == {"status": "ok"}
        assert http.get("/health/ready").json()["status"] == "ready"
        metrics = http.get("/metrics").text
    assert "farebox_requests_total{" in metrics
    assert "farebox_build_info{" in metrics
    assert "vllm:num_requests_running{" in metrics
    assert server.key not in metrics
    assert "/nowhere" not in metrics


def test_the_clients_request_id_comes_back(server: Server) -> None:
    with server.client() as http:
        mine = http.get("/v1/models", headers={"x-request-id": "mine-1"}).headers["x-request-id"]
        bad = http.get("/v1/models", headers={"x-request-id": "x" * 500}).headers["x-request-id"]
    assert mine == "mine-1"
    assert bad.startswith("req-")
