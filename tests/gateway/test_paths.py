"""Paths: with a slash at the end and without, behind a prefix, written in odd ways. Nobody is sent elsewhere."""

import re
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.routing import Route

from engine.script import RequestScript, Script, emit
from gateway.app import create_app
from gateway.settings import SettingsError
from tests.gateway.conftest import DEMO, LLAMA2, GatewayServer, GatewayServers
from tests.gateway.wire import wire

PLAY = Script(requests=(RequestScript((emit("one two three"),)),))
ADMIN = "admin-" + "a" * 24
DIGITS = "9" * 4301
CHAT_BODY = {"model": DEMO, "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
async def served(gateway_server: GatewayServers) -> AsyncIterator[GatewayServer]:
    async with gateway_server(PLAY, admin_key=ADMIN, webhook_secret="w" * 24) as server:
        yield server


def requests_of(server: GatewayServer) -> list[tuple[str, str]]:
    """A method and a path for each route, wrong methods too."""
    found = []
    for route in create_app(server.gateway).routes:
        assert isinstance(route, Route), "a mount would need a path of its own here"
        path = re.sub(r"\{model:path\}", LLAMA2, route.path)
        path = re.sub(r"\{\w+(:\w+)?\}", "99", path)  # there is none
        found += [(method, path) for method in sorted({*(route.methods or ()), "OPTIONS", "DELETE"})]
    return sorted(set(found))


def gist(answer: httpx.Response) -> tuple[int, str, str]:
    """What must not depend on a slash: status, the error's code, what is allowed."""
    assert "location" not in answer.headers, answer.url
    code = answer.json()["error"]["code"] if answer.status_code >= 400 and answer.content else ""
    return answer.status_code, code, answer.headers.get("allow", "")


@pytest.mark.parametrize("key", ["none", "client", "admin"])
async def test_a_slash_at_the_end_changes_nothing_and_nobody_is_redirected(served: GatewayServer, key: str) -> None:
    secret = {"none": "made-up", "client": served.secret, "admin": ADMIN}[key]
    async with served.client(secret) as http:
        for method, path in requests_of(served):
            expected = gist(await http.request(method, path))
            for form in (f"{path}/", f"{path}//", f"{path}%2F", f"{path}/%2f/"):
                assert gist(await http.request(method, form)) == expected, (method, form)


async def test_the_answer_with_a_slash_is_the_same_answer(served: GatewayServer) -> None:
    async with served.client() as http:
        for path in (
            "/v1/models",
            f"/v1/models/{LLAMA2}",
            "/models/list",
            f"/models/{DEMO}",
            "/v1/usage",
            "/docs",
            "/",
        ):
            plain, slash = await http.get(path), await http.get(path.rstrip("/") + "/")
            assert (plain.status_code, plain.content) == (slash.status_code, slash.content), path
            assert plain.status_code == 200, path
        for path in ("/v1/chat/completions/", "/v1/openai/chat/completions//"):
            assert (await http.post(path, json=CHAT_BODY)).status_code == 200
        assert (await http.post(f"/v1/inference/{DEMO}/", json={"input": "hi"})).status_code == 200
        assert (await http.post("/anthropic/v1/messages/", json={**CHAT_BODY, "max_tokens": 3})).status_code == 200
        wrong = (await http.post("/v1/messages/", json={})).json()
        assert wrong["type"] == "error"  # in the route's own shape


# Without a key, and with a client's.
ODD_PATHS = {
    "//": (200, 200),  # the root, which is open
    "/health/live%2F": (200, 200),
    "/health%2Flive": (200, 200),
    "/%68ealth": (200, 200),
    "/health/../v1/models": (401, 404),
    "/health/live/../../v1/models": (401, 404),
    "/health/live%2f..%2f..%2fv1%2fmodels": (401, 404),
    "/%2e%2e/v1/models": (401, 404),
    "/./v1/models": (401, 404),
    "//v1/models": (401, 404),
    "/v1//models": (401, 404),
    "/V1/models": (401, 404),
    "/v1/models;/health/live": (401, 404),
    "/v1/models%3f/health": (401, 404),
    "/health/live/x": (401, 404),
    "/health/live;x": (401, 404),
    "/health/live%00": (401, 404),
    "/health/live%20": (401, 404),
    "/HEALTH": (401, 404),
    "/docs/v1/models": (401, 404),
    "/openapi.json/v1/models": (401, 404),
    "/%76%31/models": (401, 200),
    "/v1%2Fmodels": (401, 200),
    "/%61dmin/accounts": (401, 404),
    "/admin%2Faccounts": (401, 404),
    "/admin%2Faccounts%2F": (401, 404),
    "/admin/accounts/": (401, 404),
    "//admin/accounts": (401, 404),
    "/Admin/accounts": (401, 404),
    "/%41dmin/accounts": (401, 404),
    "/admin%252Faccounts": (401, 404),
    "/v1/../admin/accounts": (401, 404),
    "/metrics/../admin/accounts": (401, 404),
    "/v1/models/../../admin/accounts": (401, 404),  # no such model
}


async def test_no_way_of_writing_a_path_gets_past_the_key(served: GatewayServer) -> None:
    found = {}
    for path in ODD_PATHS:
        statuses = []
        for secret in ("made-up", served.secret):
            async with wire(served) as connection:
                key = f"authorization: Bearer {secret}\r\n"
                await connection.send(f"GET {path} HTTP/1.1\r\nhost: x\r\n{key}\r\n".encode())
                answer = await connection.answer()
                assert answer is not None
                assert "location" not in answer.headers
                statuses.append(answer.status)
        found[path] = tuple(statuses)
    assert found == ODD_PATHS


async def test_labels_stay_few_whatever_paths_are_made_up(served: GatewayServer) -> None:
    async with served.client() as http:
        for path in ("/v1/models/", "/made/up/", "/v1/models/x/y/", "//x", "/health/live/zzz", "/admin/zzz/", "/%2f/"):
            await http.get(path)
        page = (await http.get("/metrics/")).text
    routes = set(re.findall(r'farebox_requests_total\{[^}]*route="([^"]*)"', page))
    known = {route.path.partition("/{")[0] for route in create_app(served.gateway).routes if isinstance(route, Route)}
    assert routes <= known | {"other"}


@pytest.mark.parametrize(
    "digits", [DIGITS, "9" * 30, "9" * 19, "0" * 5000, "٣", "-1", "1.0"], ids=lambda text: text[:9]
)
async def test_an_id_that_there_can_not_be_is_404(served: GatewayServer, digits: str) -> None:
    async with served.client(ADMIN) as http:
        for method, path in (
            ("GET", f"/admin/accounts/{digits}"),
            ("GET", f"/admin/accounts/{digits}/"),
            ("PUT", f"/admin/accounts/{digits}/limit"),
            ("POST", f"/admin/accounts/{digits}/suspend"),
            ("GET", f"/admin/keys/{digits}"),
            ("POST", f"/admin/keys/{digits}/revoke"),
        ):
            answer = await http.request(method, path, json={"kind": "none"} if method == "PUT" else None)
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found"), path
        for query in (f"accounts?after={DIGITS}", f"accounts?limit={DIGITS}", f"keys?account_id={DIGITS}"):
            assert (await http.get(f"/admin/{query}")).status_code == 422


async def test_the_root_answers_without_a_key(served: GatewayServer) -> None:
    async with served.client("made-up") as http:
        head, get = await http.head("/"), await http.get("/")
        assert (head.status_code, head.content, get.status_code) == (200, b"", 200)
        assert get.json()["documentation"] == "/docs"
        assert head.headers["content-length"] == get.headers["content-length"]
        assert (await http.post("/", json={})).status_code == 405


# Behind a prefix


@pytest.mark.parametrize("root_path", ["/llm", "/a/b.c", "/llm/"])
async def test_a_root_path_is_taken_off_and_told_in_the_documents(
    gateway_server: GatewayServers, root_path: str
) -> None:
    """Whether the proxy takes it off itself or not."""
    root = root_path.rstrip("/")
    async with gateway_server(PLAY, root_path=root_path, admin_key=ADMIN) as server, server.client() as http:
        for prefix in ("", root):
            assert (await http.get(f"{prefix}/v1/models/")).status_code == 200
            assert (await http.post(f"{prefix}/v1/chat/completions", json=CHAT_BODY)).status_code == 200
            assert (await http.get(f"{prefix}/admin/accounts")).status_code == 404
            assert (await http.get(f"{prefix}/health/live", headers={"authorization": ""})).status_code == 200
            assert (await http.get(f"{prefix}/v1/models", headers={"authorization": ""})).status_code == 401
            document = (await http.get(f"{prefix}/openapi.json")).json()
            assert document["servers"] == [{"url": root}]
            assert f'href="{root}/openapi.json"' in (await http.get(f"{prefix}/docs/")).text
            assert (await http.get(f"{prefix}/")).json()["documentation"] == f"{root}/docs"
        for beside in (f"{root}x/v1/models", f"{root}{root}/v1/models", f"/x{root}/v1/models", f"{root}v1/models"):
            assert (await http.get(beside)).status_code == 404, beside
        async with server.client(ADMIN) as admin:
            assert (await admin.get(f"{root}/admin/accounts")).status_code == 200


@pytest.mark.parametrize("root_path", ["/v1", "/admin", "/health", "/v1/openai", "/models", "/anthropic"])
async def test_a_root_path_that_hides_paths_of_ours_stops_the_start(
    gateway_server: GatewayServers, root_path: str
) -> None:
    with pytest.raises(SettingsError, match="FAREBOX_ROOT_PATH"):
        async with gateway_server(root_path=root_path):
            pass


async def test_without_a_root_path_the_document_stands_at_the_root(served: GatewayServer) -> None:
    async with served.client() as http:
        assert (await http.get("/openapi.json")).json()["servers"] == [{"url": "/"}]
