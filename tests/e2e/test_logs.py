"""What is logged: one JSON line a request with what it came to, and nothing of what was said."""

import json
import secrets
from pathlib import Path

import pytest

from tests.server import Server, start_server

PROMPT = "the-patient-is-called-Ottilie"
ANSWER = "the-diagnosis-is-hay-fever"
SCRIPT = {
    "request": [
        {"match": "break", "steps": [{"emit": ANSWER}, {"fail": ANSWER}]},
        {"match": "refuse", "steps": [{"reject": True}]},
        {"steps": [{"emit": f"{ANSWER} and more"}]},
    ]
}
MODEL = "farebox/demo"


def chat(text: str, **more: object) -> dict[str, object]:
    return {"model": MODEL, "messages": [{"role": "user", "content": f"{PROMPT} {text}"}], **more}


REQUESTS = [
    ("/v1/chat/completions", chat("plain")),
    ("/v1/chat/completions", chat("stream", stream=True)),
    ("/v1/chat/completions", chat("break")),
    ("/v1/chat/completions", chat("break", stream=True)),
    ("/v1/chat/completions", chat("refuse")),
    ("/v1/chat/completions", chat("wrong", temperature=PROMPT)),
    ("/v1/chat/completions", chat("wrong", user=PROMPT, metadata={PROMPT: PROMPT})),
    ("/v1/chat/completions", {"model": PROMPT, "messages": PROMPT}),
    ("/v1/completions", {"model": MODEL, "prompt": PROMPT, "echo": True}),
    (f"/v1/inference/{MODEL}", {"input": PROMPT, "webhook": f"http://127.0.0.1:9/{PROMPT}"}),
    (f"/v1/inference/{MODEL}", {"input": PROMPT, "webhook": f"https://{PROMPT}.invalid/done"}),
    (f"/v1/{PROMPT}", {}),
]


def source(folder: Path) -> str:
    """In a file: a script in the setting itself would be in the log, as the name of the weights."""
    path = folder / "script.json"
    path.write_text(json.dumps(SCRIPT))
    return f"scripted:{path}"


def play(server: Server) -> list[str]:
    """All requests, and some that aren't JSON or have no key; gives the ids that the answers had."""
    ids = []
    with server.client() as http:
        for path, body in REQUESTS:
            ids.append(http.post(path, json=body).headers["x-request-id"])
        ids.append(http.post("/v1/chat/completions", content=PROMPT).headers["x-request-id"])
        ids.append(http.get("/v1/models", params={"q": PROMPT}).headers["x-request-id"])
    with server.client(f"fb-{PROMPT}") as http:
        ids.append(http.post("/v1/chat/completions", json=chat("no key")).headers["x-request-id"])
    return ids


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_each_request_is_one_line_and_nothing_said_is_in_it(tmp_path: Path, log_format: str) -> None:
    key = f"test-{secrets.token_hex(16)}"
    with start_server(
        tmp_path,
        FAREBOX_SOURCE=source(tmp_path),
        FAREBOX_BOOTSTRAP_KEY=key,
        FAREBOX_WEBHOOK_SECRET=secrets.token_hex(16),
        FAREBOX_LOG_FORMAT=log_format,
        FAREBOX_LOG_LEVEL="debug",
    ) as server:
        server.wait_until_ready()
        ids = play(server)
        assert server.stop() == 0
    for secret in (PROMPT, ANSWER, key, server.environment["FAREBOX_WEBHOOK_SECRET"]):
        assert secret not in server.output
    lines = [json.loads(line) for line in server.output.splitlines() if line.startswith("{")]
    # But for the questions whether it is ready yet.
    requests = [line for line in lines if "request_id" in line and line["route"] != "/health/ready"]
    assert [line["request_id"] for line in requests] == ids
    if log_format == "json":
        assert {"time", "level", "logger"} <= set.intersection(*(set(line) for line in lines))
        assert not [line for line in server.output.splitlines() if " INFO " in line or " WARNING " in line]


def test_a_line_says_what_the_request_came_to(tmp_path: Path) -> None:
    key = f"test-{secrets.token_hex(16)}"
    with start_server(tmp_path, FAREBOX_SOURCE=source(tmp_path), FAREBOX_BOOTSTRAP_KEY=key) as server:
        server.wait_until_ready()
        with server.client() as http:
            answer = http.post(
                "/v1/chat/completions", json=chat("stream", stream=True), headers={"x-request-id": "mine-1"}
            )
        assert server.stop() == 0
    (line,) = (json.loads(line) for line in server.output.splitlines() if '"request_id": "mine-1"' in line)
    assert 0 < line.pop("first_token_seconds") <= line.pop("seconds")
    chunk = json.loads(answer.text.split("\n\n")[0].removeprefix("data: "))
    assert line.pop("time").startswith("20")
    assert line == {
        "level": "info",
        "logger": "farebox.access",
        "request_id": "mine-1",
        "client": "127.0.0.1",
        "id": chunk["id"],
        "method": "POST",
        "route": "/v1/chat/completions",
        "status": 200,
        "model": MODEL,
        "key": "test",
        "prompt_tokens": 3,
        "cached_tokens": 0,
        "completion_tokens": 3,
        "cost_usd": "0.00000414",
        "outcome": "finished",
    }
