"""No key in clear: not in the database, the log, the metrics or an error, whatever is done with it."""

import json
import secrets
from pathlib import Path

from tests.server import Server, start_server

SCRIPT = "scripted:" + json.dumps({"request": [{"steps": [{"emit": "Hello there"}]}]})
HELLO = {"model": "farebox/demo", "messages": [{"role": "user", "content": "Hello!"}]}


def use(server: Server, key: str) -> list[str]:
    """Everything that a client can get to see with a key: answers, refusals, usage, metrics."""
    seen = []
    with server.client(key) as http:
        for body in (HELLO, HELLO | {"stream": True}, HELLO | {"temperature": 9}, HELLO | {"model": key}, {"x": key}):
            answer = http.post("/v1/chat/completions", json=body)
            # What the client itself put into the body may come back to it, and to nobody else.
            seen += [answer.text.replace(key, "") if key in json.dumps(body) else answer.text, str(answer.headers)]
        for path in ("/v1/models", "/v1/usage", "/metrics", "/openapi.json", f"/nowhere/{secrets.token_hex(4)}"):
            seen.append(http.get(path).text)
    return seen


def test_no_key_is_left_in_clear_anywhere(tmp_path: Path) -> None:
    bootstrap, admin = f"test-{secrets.token_hex(16)}", f"admin-{secrets.token_hex(16)}"
    with start_server(
        tmp_path, FAREBOX_SOURCE=SCRIPT, FAREBOX_BOOTSTRAP_KEY=bootstrap, FAREBOX_ADMIN_KEY=admin
    ) as server:
        server.wait_until_ready()
        made = json.loads(server.farebox("keys", "create", "another", "--json").stdout)[0]
        rotated = json.loads(server.farebox("keys", "rotate", made["prefix"], "--json").stdout)[0]
        unknown = "fb-" + secrets.token_urlsafe(32)
        keys = [bootstrap, admin, made["key"], rotated["key"], unknown]
        seen = [text for key in keys for text in use(server, key)]
        seen.append(server.farebox("keys", "list", "--all").stdout)
        assert server.stop() == 0
    for key in keys:
        assert all(key not in text for text in seen)
    server.assert_no_secrets(*keys)
