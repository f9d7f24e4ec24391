"""Clients and proxies that offer to upgrade, as they are: nginx in front, curl, and the JDK's client."""

import asyncio
import json
import shutil
from pathlib import Path

import httpx
import pytest

from engine.script import RequestScript, Script, emit
from tests.gateway.conftest import DEMO, GatewayServer, GatewayServers
from tests.nginx import running_nginx
from tests.programs import missing

PLAY = Script(requests=(RequestScript((emit("one two three"),)),))
BODY = json.dumps({"model": DEMO, "messages": [{"role": "user", "content": "hi"}]})
STREAMED = json.dumps({"model": DEMO, "messages": [{"role": "user", "content": "hi"}], "stream": True})
HIDDEN = {
    "a request": b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n",
    "half a request": b"GET /metrics HTTP/1.1\r\nhost: x\r\nx-the-next-clients-request-line: ",
}
SECONDS_MAX = 120
JAVA = Path(__file__).parent / "JavaClient.java"


def port_of(server: GatewayServer) -> int:
    return int(server.url.rpartition(":")[2])


@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("offer", ["h2c", "websocket", "anything"])
async def test_behind_a_proxy_no_client_gets_the_answer_to_what_another_one_hid_in_its_body(
    gateway_server: GatewayServers, tmp_path: Path, offer: str, hidden: str
) -> None:
    """nginx passes the offer on, keeps its connection to the gateway, and sends the next client's request on it."""
    async with gateway_server(PLAY) as server:
        with running_nginx(tmp_path, port_of(server), "location /metrics { return 403; }") as url:
            async with (
                httpx.AsyncClient(base_url=url, trust_env=False, timeout=20) as attacker,
                httpx.AsyncClient(base_url=url, trust_env=False, timeout=20) as victim,
            ):
                offering = {"connection": "Upgrade", "upgrade": offer, "authorization": "Bearer made-up"}
                assert (await attacker.get("/metrics")).status_code == 403
                for number in range(16):
                    body = b"\r\n" * (33_000 + number * 6_200) + HIDDEN[hidden]
                    refused = await attacker.post("/v1/chat/completions", content=body, headers=offering)
                    assert refused.status_code == 401
                    key = {"authorization": f"Bearer {server.secret}", "x-request-id": f"victim-{number}"}
                    answer = await victim.get("/v1/models", headers=key)
                    assert (answer.status_code, answer.headers["x-request-id"]) == (200, f"victim-{number}")
                    assert answer.json()["object"] == "list"
                    assert b"farebox_requests_total" not in refused.content + answer.content
            page = server.gateway.metrics.page().decode()
    assert 'route="/metrics"' not in page  # nothing that was hidden ever ran


async def test_through_a_proxy_with_an_offer_all_routes_work(gateway_server: GatewayServers, tmp_path: Path) -> None:
    async with gateway_server(PLAY, trusted_proxies="127.0.0.1") as server:
        with running_nginx(tmp_path, port_of(server)) as url:
            headers = {"authorization": f"Bearer {server.secret}", "connection": "Upgrade", "upgrade": "h2c"}
            async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=20) as http:
                for _ in range(3):
                    for body in (BODY, STREAMED):
                        answer = await http.post("/v1/chat/completions", content=body)
                        assert answer.status_code == 200
                        assert "one" in answer.text
                    assert (await http.get("/v1/models/")).status_code == 200
        assert len(await server.entries()) == 6


async def run(*command: str, lines_until: str | None = None) -> asyncio.subprocess.Process:
    """A process whose output is read here; it must not stop the event loop, in which the gateway runs too."""
    return await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )


async def test_curl_with_http2_is_answered_on_one_connection(
    gateway_server: GatewayServers, caplog: pytest.LogCaptureFixture
) -> None:
    if shutil.which("curl") is None:
        missing("curl", "install Debian's package `curl`.")
    async with gateway_server(PLAY) as server:
        common = ["-H", f"Authorization: Bearer {server.secret}", "-H", "Content-Type: application/json"]
        shown = ["-s", "-o", "/dev/null", "-w", "%{http_code} %{http_version} %{num_connects}\\n"]
        command = ["curl", "-q", "--noproxy", "*"]
        for number, body in enumerate((BODY, STREAMED, BODY)):
            if number:
                command.append("--next")
            command += ["--http2", *shown, *common, "-d", body, f"{server.url}/v1/chat/completions"]
        process = await run(*command)
        output, _ = await asyncio.wait_for(process.communicate(), SECONDS_MAX)
        assert output.decode().splitlines() == ["200 1.1 1", "200 1.1 0", "200 1.1 0"]
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == []


async def test_the_jdks_client_is_answered_on_one_connection(
    gateway_server: GatewayServers, caplog: pytest.LogCaptureFixture
) -> None:
    if shutil.which("java") is None:
        missing("java", "install Debian's package `openjdk-17-jdk-headless`.")
    async with gateway_server(PLAY) as server:
        process = await run("java", str(JAVA), server.url, server.secret, BODY, STREAMED)
        assert process.stdout is not None
        lines = []
        async with asyncio.timeout(SECONDS_MAX):
            while (line := (await process.stdout.readline()).decode().strip()) not in ("done", ""):
                lines.append(line)
        connections = len(server.http.server_state.connections)
        await process.communicate(b"\n")
        statuses = [line.split()[:2] for line in lines]
        assert statuses == [["200", "HTTP_1_1"]] * 9, lines
        assert sum(line.endswith("[DONE]") for line in lines) == 3
        assert connections == 1
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == []
