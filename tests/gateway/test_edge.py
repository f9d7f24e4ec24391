"""Behind proxies, and on IPv6: whose word counts for where a request comes from, and where the gateway listens."""

import json
import logging
import re
import socket
from pathlib import Path

import httpx
import pytest

from gateway.process.server import listen
from gateway.process.welcome import url_of
from gateway.settings import SettingsError, load_settings
from tests.gateway.conftest import GatewayServers
from tests.programs import missing
from tests.server import start_server

SCRIPT = "scripted:" + json.dumps({"request": [{"steps": [{"emit": "Hello there"}]}]})
HERE = "127.0.0.1"
FORWARDED_FOR = "x-forwarded-for"

# trusted, the headers' values from left to right, who is the client
HOPS = {
    "nobody is trusted": ("", ["203.0.113.9"], HERE),
    "another is trusted": ("10.0.0.0/8", ["203.0.113.9"], HERE),
    "a proxy here": (HERE, ["203.0.113.9"], "203.0.113.9"),
    "a network": ("127.0.0.0/8", ["203.0.113.9"], "203.0.113.9"),
    "nothing said": (HERE, [], HERE),
    "an empty word": (HERE, [""], HERE),
    "what the client wrote itself": (HERE, ["6.6.6.6, 203.0.113.9"], "203.0.113.9"),
    "the same on a line of its own": (HERE, ["6.6.6.6", "203.0.113.9"], "203.0.113.9"),
    "two proxies": (f"{HERE},10.0.0.0/8", ["6.6.6.6, 203.0.113.9, 10.1.1.1"], "203.0.113.9"),
    "a proxy that isn't trusted between": (HERE, ["203.0.113.9, 10.1.1.1"], "10.1.1.1"),
    "proxies only": (f"{HERE},10.0.0.0/8", ["10.2.2.2, 10.1.1.1"], "10.2.2.2"),
    "IPv6": (HERE, ["2001:db8::9"], "2001:db8::9"),
    "IPv6 in brackets with a port": (HERE, ["[2001:db8::9]:4711"], "2001:db8::9"),
    "IPv4 with a port": (HERE, ["203.0.113.9:4711"], "203.0.113.9"),
    "IPv4 as IPv6 writes it": (HERE, ["::ffff:203.0.113.9"], "203.0.113.9"),
    "a name": (HERE, ["evil.example"], HERE),
    "unknown": (HERE, ["203.0.113.9, unknown"], HERE),
    "a line to forge": (HERE, ['203.0.113.9", "status": "200'], HERE),
    "everybody": ("0.0.0.0/0,::/0", ["203.0.113.9, 10.1.1.1"], "203.0.113.9"),
}


@pytest.mark.parametrize("case", HOPS)
async def test_a_forwarded_address_counts_from_trusted_proxies_only(
    gateway_server: GatewayServers, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    trusted, values, client = HOPS[case]
    with caplog.at_level(logging.INFO, logger="farebox.access"):
        async with gateway_server(trusted_proxies=trusted) as server, server.client() as http:
            headers = [*http.headers.raw, *((FORWARDED_FOR.encode(), value.encode()) for value in values)]
            assert (await http.get("/v1/models", headers=headers)).status_code == 200
    (line,) = (record.__dict__["fields"] for record in caplog.records if record.name == "farebox.access")
    assert line["client"] == client


@pytest.mark.parametrize("value", ["10.0.0.1/8", "proxy.example", "10.0.0", "*", "10.0.0.0/33"])
def test_a_trusted_proxy_that_is_no_network_stops_the_start(value: str) -> None:
    with pytest.raises(SettingsError, match="FAREBOX_TRUSTED_PROXIES is wrong"):
        load_settings({"FAREBOX_TRUSTED_PROXIES": value})


@pytest.mark.parametrize("value", ["llm", "/a b", "//a", "/a//b", "http://x/llm", "/ä", "/a?b", "/a%2Fb"])
def test_a_root_path_that_is_no_path_stops_the_start(value: str) -> None:
    with pytest.raises(SettingsError, match="FAREBOX_ROOT_PATH is wrong"):
        load_settings({"FAREBOX_ROOT_PATH": value})


def test_an_address_of_ipv6_stands_in_brackets() -> None:
    assert (url_of("::", 8000), url_of("127.0.0.1", 80)) == ("http://[::]:8000", "http://127.0.0.1:80")


def need_ipv6() -> None:
    if not socket.has_dualstack_ipv6():
        missing("IPv6", "turn it on in this machine's kernel or container.")


def test_the_socket_for_all_addresses_takes_both_kinds() -> None:
    need_ipv6()
    with listen("::", 0) as listener:
        for host in (HERE, "::1"):
            socket.create_connection((host, listener.getsockname()[1]), timeout=5).close()


def test_a_server_on_all_addresses_behind_a_prefix_prints_urls_that_work(tmp_path: Path) -> None:
    need_ipv6()
    with start_server(tmp_path, "--host", "::", FAREBOX_SOURCE=SCRIPT, FAREBOX_ROOT_PATH="/llm") as server:
        server.wait_until_ready()
        assert f"listening on http://[::]:{server.port};" in server.output
        key = re.search(r"shown this once:\s+(fb-\w+)", server.output)
        printed = re.search(r"ready on (http://\S+)", server.output)
        assert key is not None
        assert printed is not None
        assert printed[1] == f"http://127.0.0.1:{server.port}/llm/v1/openai"
        for base in (printed[1], f"http://[::1]:{server.port}/llm/v1/openai"):
            answer = httpx.get(f"{base}/models", headers={"x-api-key": key[1]}, trust_env=False)
            assert answer.status_code == 200
        assert server.stop() == 0
    clients = [
        json.loads(line)["client"] for line in server.output.splitlines() if '"route": "/v1/openai/models"' in line
    ]
    assert clients == [HERE, "::1"]
