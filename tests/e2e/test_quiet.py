"""What an operator sees of the real engine: a quiet start and end, and nothing that a client or the model said."""

import json
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from engine.demo import MODEL_DIR
from tests.server import START_SECONDS_MAX, Server, start_server

DEMO = "farebox/demo"
MARKER = "patient-Ottilie"
FORGED = "2031-01-01 00:00:00,000 ERROR farebox forged"
ALARMING = re.compile(r"warning|triton|numa|nanobind|leaked|torch|deprecated|tcmalloc|traceback|error", re.IGNORECASE)
TOOLS = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]
# What the model is made to say, by an expression that matches nothing else.
SAYS = [
    f"function f\\(\\) \\{{ return {MARKER}; \\}}",
    f'\\{{"name": \\{{"patient": "{MARKER}"\\}}\\}}',
    f'\\{{"name": "look_up", "parameters": {{1}}{MARKER}',
]


@contextmanager
def served(folder: Path, **settings: str) -> Iterator[Server]:
    """Waits by the log: probes would be lines of it."""
    key = f"test-{secrets.token_hex(16)}"
    with start_server(folder, FAREBOX_BOOTSTRAP_KEY=key, TMPDIR=str(folder), **settings) as server:
        deadline = time.monotonic() + START_SECONDS_MAX
        while "Farebox is ready" not in server.output:
            assert server.process.poll() is None, server.output
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield server


def said(text: str, **fields: object) -> dict[str, Any]:
    return {"model": DEMO, "max_tokens": 60, "messages": [{"role": "user", "content": text}], **fields}


def speak(http: httpx.Client) -> list[int]:
    """Requests on which vLLM's parsers, templates and checks fail; gives how those end that the model answers."""
    answers = []
    for expression in SAYS:
        for stream in (False, True):
            form = {"type": "regex", "regex": expression}
            body = said(f"{MARKER}\n{FORGED}", tools=TOOLS, response_format=form, stream=stream)
            answers.append(http.post("/v1/chat/completions", json=body))
            assert stream or MARKER in answers[-1].text, answers[-1].text
    call = {"type": "tool_use", "id": "t1", "name": "look_up", "input": {"who": MARKER}}
    turns = [
        {"role": "user", "content": f"{MARKER}\n{FORGED}\r\n{FORGED}\u2028{FORGED}"},
        {"role": "assistant", "content": [{"type": "text", "text": MARKER}, call]},
    ]
    tools = [{"name": "look_up", "input_schema": {"type": "object"}}]
    wrong = [
        ("/v1/messages", said("") | {"messages": turns, "tools": tools}),
        ("/v1/chat/completions", said(MARKER, chat_template_kwargs={"conversation": [MARKER]})),
        ("/v1/chat/completions", said(MARKER, chat_template_kwargs={MARKER: [MARKER], "tools": 5})),
        (
            "/v1/chat/completions",
            said(MARKER, response_format={"type": "regex", "regex": f"(?P<y>{MARKER})**\\p{{L}}"}),
        ),
        ("/v1/chat/completions", said(MARKER, response_format={"type": "regex", "regex": f"(?i:{MARKER})\\b\\d+?"})),
    ]
    for path, body in wrong:
        http.post(path, json=body)
    return [answer.status_code for answer in answers]


def test_a_start_and_an_end_are_quiet(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        with server.client() as http:
            assert set(speak(http)) == {200}
        assert server.stop() == 0
        output = server.output
    start, _, rest = output.partition("\nFarebox is ready")
    lines = start.strip().splitlines()
    assert len(lines) <= 12, start
    assert not [line for line in lines if ALARMING.search(line)]
    assert all(line[:4].isdigit() for line in lines)
    assert "KV cache" in start
    assert "shown on the first start" not in rest
    assert "FAREBOX_BOOTSTRAP_KEY" in rest
    end = output[output.rindex('"logger": "farebox.access"') :].partition("\n")[2]
    assert end.strip() == ""
    nothing_said(server)


def test_nothing_said_is_in_a_log_at_any_level(tmp_path: Path) -> None:
    with served(tmp_path, FAREBOX_LOG_LEVEL="debug", VLLM_LOGGING_LEVEL="DEBUG") as server:
        with server.client() as http:
            for _ in range(3):
                assert set(speak(http)) == {200}
            size = len(server.output)
            speak(http)
            grown = server.output[size:]
        assert server.stop() == 0
    assert "Triton" in server.output, "at debug level what vLLM says at the start is there"
    assert [line for line in grown.splitlines() if "farebox.access" not in line] == []
    nothing_said(server)
    assert "Error trying to handle streaming tool call. [" in server.output, "vLLM's parsers do log"


def test_a_model_without_a_chat_template_is_told_at_the_start_and_to_who_asks(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    shutil.copytree(MODEL_DIR, weights, ignore=shutil.ignore_patterns("*.jinja"))
    settings = json.loads((weights / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (weights / "tokenizer_config.json").write_text(json.dumps(settings))
    with served(tmp_path, FAREBOX_SOURCE=str(weights)) as server:
        assert f"WARNING farebox.fleet {DEMO} has no chat template" in server.output
        with server.client() as http:
            for path, param, body in (
                ("/v1/chat/completions", "messages", said("hi")),
                ("/v1/messages", "messages", said("hi")),
                ("/v1/responses", "input", {"model": DEMO, "input": "hi"}),
            ):
                refused = http.post(path, json=body)
                assert refused.status_code == 400, refused.text
                assert refused.json()["error"]["param"] == param
                assert "has no chat template" in refused.json()["error"]["message"]
            text = http.post("/v1/completions", json={"model": DEMO, "prompt": "Hello", "max_tokens": 3})
            assert text.status_code == 200


def nothing_said(server: Server) -> None:
    """Neither in a stream nor in a file, and no line is a client's."""
    for path in filter(Path.is_file, server.folder.rglob("*")):
        assert MARKER.encode() not in path.read_bytes(), path
        assert b"ERROR farebox forged" not in path.read_bytes(), path
