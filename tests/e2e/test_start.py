"""Starting and stopping `farebox serve`: what it prints, what it refuses, how it ends."""

import json
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.server import Server, farebox_environment, run_farebox, start_server

# Starting and stopping is what is tested here, not the tokens.
SCRIPT = "scripted:" + json.dumps({"request": [{"steps": [{"emit": "Hello there"}]}]})


def refusal(folder: Path, *arguments: str, **settings: str) -> str:
    """The one sentence of a `farebox serve` that refuses to start."""
    result = run_farebox(farebox_environment(folder, **settings), "serve", *arguments)
    assert result.returncode != 0, result.stdout
    assert "Traceback" not in result.stderr
    assert "Farebox is ready" not in result.stdout
    return result.stderr.strip().splitlines()[-1]


def run_printed(command: str, server: Server) -> str:
    result = subprocess.run(
        ["bash", "-c", command], env=server.environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_a_first_start_prints_a_key_and_lines_that_work(tmp_path: Path) -> None:
    with start_server(tmp_path, FAREBOX_SOURCE=SCRIPT) as server:
        server.wait_until_ready()
        printed = server.output
        key = re.search(r"shown this once:\s+(fb-\w+)", printed)
        assert key is not None
        curl = next(line.strip() for line in printed.splitlines() if line.strip().startswith("curl "))
        assert json.loads(run_printed(f"{curl} --silent", server))["choices"][0]["message"]["content"] == "Hello there"
        snippet = re.search(r"<<'END'\n(.*?)\nEND\n", printed, re.DOTALL)
        assert snippet is not None
        assert run_printed(f"{shlex.quote(sys.executable)} - <<'END'\n{snippet[1]}\nEND", server) == "Hello there\n"
        assert server.stop() == 0

    with start_server(tmp_path, FAREBOX_SOURCE=SCRIPT) as again:
        again.wait_until_ready()
        assert key[1] not in again.output
        assert "keys create" in again.output
        usage = json.loads(again.farebox("usage", "--json").stdout)
        assert usage[0]["requests"] == 2
        with again.client(key[1]) as http:
            assert http.get("/v1/models").status_code == 200


def test_a_port_in_use_is_told_before_anything_is_loaded(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        line = refusal(tmp_path, "--port", str(port))
    assert f"127.0.0.1:{port}" in line
    assert "--port" in line


def test_missing_weights_are_told(tmp_path: Path) -> None:
    line = refusal(tmp_path, "--source", str(tmp_path / "nothing"))
    assert str(tmp_path / "nothing") in line


def test_fp8_is_refused_where_the_machine_cannot(tmp_path: Path) -> None:
    line = refusal(tmp_path, "--source", "demo", "--precision", "fp8")
    assert "fp8" in line
    assert "precision" in line


def test_unknown_models_options_and_settings_are_told(tmp_path: Path) -> None:
    assert 'Did you mean "farebox/demo"?' in refusal(tmp_path, "--model", "farebox/dem")
    assert "FAREBOX_PORT" in refusal(tmp_path, FAREBOX_PRT="1")
    assert "max_num_seqs" in refusal(tmp_path, "--engine", '{"max_num_seq": 3}')


def test_a_short_key_is_refused_and_not_shown(tmp_path: Path) -> None:
    line = refusal(tmp_path, FAREBOX_BOOTSTRAP_KEY="tooshort")
    assert "FAREBOX_BOOTSTRAP_KEY" in line
    assert "tooshort" not in line


@pytest.mark.parametrize("command", [["--help"], ["serve", "--help"], ["keys", "--help"], ["usage", "--help"]])
def test_help_explains(command: list[str], tmp_path: Path) -> None:
    result = run_farebox(farebox_environment(tmp_path), *command)
    assert result.returncode == 0
    if command[0] == "serve":
        assert "FAREBOX_PORT" in result.stdout
        assert "FAREBOX_BOOTSTRAP_KEY" in result.stdout


def test_commands_work_on_accounts_and_keys(tmp_path: Path) -> None:
    environment = farebox_environment(tmp_path)

    def farebox(*arguments: str) -> str:
        result = run_farebox(environment, *arguments)
        assert result.returncode == 0, result.stderr
        return result.stdout

    farebox("accounts", "create", "acme", "--prepaid", "5")
    farebox("accounts", "credit", "acme", "2.50", "--reference", "payment-1")
    farebox("accounts", "credit", "acme", "2.50", "--reference", "payment-1")
    made = farebox("keys", "create", "bot", "--account", "acme", "--limit", "1", "--per", "day", "--json")
    [account] = json.loads(farebox("accounts", "list", "--json"))
    assert (account["account"], account["left_usd"]) == ("acme", "7.50")
    [key] = json.loads(farebox("keys", "list", "--json"))
    assert json.loads(made)[0]["key"].startswith(key["key"])
    assert key["limit"] == "1.00 per day"
    assert "is revoked" in farebox("keys", "revoke", key["key"])
    assert json.loads(farebox("keys", "list", "--json")) == []
    assert run_farebox(environment, "keys", "create", "x", "--account", "nobody").returncode == 2
