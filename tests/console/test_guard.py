"""Who gets in, and what can't be done from outside."""

import re
from collections.abc import AsyncIterator

import httpx
import pytest
from sqlalchemy import text
from starlette.routing import Route

from gateway.console import console
from gateway.console.sessions import Sessions
from gateway.console.visits import COOKIE, Access, Page
from pricing.keys import Keys, KeyTerms
from tests.console.conftest import ADMIN, Visitor, visitor
from tests.gateway.conftest import DEMO, LLAMA2, GatewayServer, GatewayServers, make_key, rows

PAGES = [route for route in console.routes() if isinstance(route, Route)]
CHAT = {"model": DEMO, "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
async def served(gateway_server: GatewayServers) -> AsyncIterator[GatewayServer]:
    async with gateway_server(admin_key=ADMIN) as server:
        yield server


@pytest.fixture
async def somebody(served: GatewayServer) -> AsyncIterator[Visitor]:
    """Signed in with a client's key."""
    async with visitor(served) as one:
        await one.sign_in(served.secret)
        yield one


@pytest.fixture
async def operator(served: GatewayServer) -> AsyncIterator[Visitor]:
    async with visitor(served) as one:
        await one.sign_in(ADMIN)
        yield one


def path_of(route: Route) -> str:
    path = re.sub(r"\{model:path\}", DEMO, route.path)
    path = path.replace("{route}", "chat").replace("{part}", "input").replace("{action}", "rename")
    return re.sub(r"\{[^}]+\}", "1", path.replace("{rest:path}", "nowhere"))


def access_of(route: Route) -> Access:
    return route.app._access if isinstance(route.app, Page) else Access.SIGNED_IN


@pytest.mark.parametrize("route", PAGES, ids=lambda route: f"{sorted(route.methods)[-1]} {route.path}")
async def test_every_page_asks_who_comes(served: GatewayServer, route: Route) -> None:
    """Nobody, a client and an operator at each; a program is told as the API tells it."""
    method, path, access = sorted(route.methods or ())[-1], path_of(route), access_of(route)
    seen: dict[str, int] = {}
    for who, key in (("nobody", ""), ("client", served.secret), ("operator", ADMIN)):
        async with visitor(served, accept="application/json") as one:
            if key:
                await one.send("/console/sign-in", key=key)
                one.csrf = await csrf_of(one)
            answer = await one.http.request(method, path, data={"csrf": one.csrf} if method == "POST" else None)
            seen[who] = answer.status_code
    if access in (Access.SIGNED_IN, Access.OPERATOR):
        assert seen["nobody"] == 401
    if access is Access.OPERATOR:
        assert seen["client"] == 404
        assert seen["operator"] not in (401, 403)
    assert 500 not in seen.values()


async def csrf_of(one: Visitor) -> str:
    page = await one.http.get("/console/overview", headers={"accept": "text/html"})
    found = re.search(r'name="csrf" value="([0-9a-f]{64})"', page.text)
    assert found is not None
    return found[1]


async def test_pages_load_nothing_from_elsewhere_and_run_nothing_of_their_own_text(operator: Visitor) -> None:
    """The policy forbids it; and no page tries."""
    paths = ["/", f"/console/models/{DEMO}", f"/console/models/{LLAMA2}?route=native", "/console/sign-in"]
    paths += [f"/console/{name}" for name in ("overview", "accounts", "accounts/1", "keys", "keys/1", "usage")]
    paths += [f"/console/{name}" for name in ("requests", "engines", "webhooks", "audit", "key", "nowhere", "keys/99")]
    for path in paths:
        page = await operator.open(path)
        policy = page.headers["content-security-policy"]
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert "default-src 'none'" in policy
        assert page.headers["x-content-type-options"] == "nosniff"
        assert page.headers["cache-control"] == "no-store"
        assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]* src=)", page.text), path
        # The examples name this server's own address.
        assert set(re.findall(r'(?:src|href|action)="(?!data:)([a-z]+:|//)[^"]*"', page.text)) == set(), path


async def test_a_form_must_come_from_the_sessions_own_page(served: GatewayServer, operator: Visitor) -> None:
    async with visitor(served) as other:
        await other.sign_in(ADMIN)
        foreign = other.csrf
    form = {"name": "planted"}
    elsewhere = {"sec-fetch-site": "cross-site", "origin": "https://evil.example"}
    same_site = {"sec-fetch-site": "same-site"}
    old_browser = {"sec-fetch-site": "", "origin": "https://evil.example"}
    for fields, headers in (
        (form, {}),
        ({**form, "csrf": "0" * 64}, {}),
        ({**form, "csrf": "é"}, {}),
        ({**form, "csrf": foreign}, {}),
        ({**form, "csrf": operator.csrf}, elsewhere),
        ({**form, "csrf": operator.csrf}, same_site),
        ({**form, "csrf": operator.csrf}, old_browser),
    ):
        answer = await operator.http.post("/console/accounts", data=fields, headers=headers)
        assert answer.status_code == 403, (fields, headers)
    assert "planted" not in {account["name"] for account in await rows(served.database, "accounts")}
    made = await operator.send("/console/accounts", name="meant")
    assert made.status_code == 303
    assert "meant" in {account["name"] for account in await rows(served.database, "accounts")}


async def test_where_a_browser_says_only_the_origin_it_must_be_ours(served: GatewayServer) -> None:
    async with httpx.AsyncClient(base_url=served.url, trust_env=False) as http:
        for origin, status in ((served.url, 303), ("https://evil.example", 403), ("null", 403), (None, 403)):
            headers = {"accept": "text/html"} | ({"origin": origin} if origin else {})
            answer = await http.post("/console/sign-in", data={"key": served.secret}, headers=headers)
            assert answer.status_code == status, origin
            http.cookies.clear()


async def test_a_session_that_was_planted_is_never_adopted(served: GatewayServer) -> None:
    async with visitor(served) as victim:
        victim.http.cookies.set(COOKIE, "chosen-by-somebody-else")
        await victim.send("/console/sign-in", key=served.secret)
        tokens = [cookie.value for cookie in victim.http.cookies.jar if cookie.name == COOKIE]
        assert len({*tokens} - {"chosen-by-somebody-else"}) == 1
    async with visitor(served) as attacker:
        attacker.http.cookies.set(COOKIE, "chosen-by-somebody-else")
        assert (await attacker.open("/console/overview")).status_code == 401


async def test_signing_in_again_ends_the_session_before(served: GatewayServer, somebody: Visitor) -> None:
    before = somebody.http.cookies[COOKIE]
    await somebody.sign_in(ADMIN)
    assert somebody.http.cookies[COOKIE] != before
    async with visitor(served) as thief:
        thief.http.cookies.set(COOKIE, before)
        assert (await thief.open("/console/overview")).status_code == 401


async def test_the_cookie_is_out_of_reach_and_the_database_holds_only_hashes(
    served: GatewayServer, somebody: Visitor
) -> None:
    async with visitor(served) as one:
        answer = await one.send("/console/sign-in", key=served.secret)
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert "secure" not in cookie  # it came by http
    token = somebody.http.cookies[COOKIE]
    stored = str(await rows(served.database, "console_sessions"))
    assert token not in stored
    assert served.secret not in stored
    assert served.secret not in answer.text


async def test_behind_tls_the_cookie_is_secure(gateway_server: GatewayServers) -> None:
    async with gateway_server(trusted_proxies="127.0.0.1") as server, visitor(server) as one:
        answer = await one.http.post(
            "/console/sign-in", data={"key": server.secret}, headers={"x-forwarded-proto": "https"}
        )
        assert "secure" in answer.headers["set-cookie"].lower()


async def test_signing_out_ends_it_everywhere(served: GatewayServer, somebody: Visitor) -> None:
    token = somebody.http.cookies[COOKIE]
    answer = await somebody.send("/console/sign-out")
    assert (answer.status_code, answer.headers["location"]) == (303, "/console")
    async with visitor(served) as thief:
        thief.http.cookies.set(COOKIE, token)
        assert (await thief.open("/console/overview")).status_code == 401


async def test_a_session_ends_with_its_key(served: GatewayServer, operator: Visitor) -> None:
    """Revoked; rotated without grace; its account suspended. And with grace it lives on."""
    account = (await served.key()).account_id
    keys = Keys(served.gateway.database)
    for end in ("rotate", "revoke", "suspend"):
        made = await keys.create(account, f"to {end}", actor="test")
        async with visitor(served) as one:
            await one.sign_in(made.secret)
            assert (await one.open("/console/overview")).status_code == 200
            if end == "suspend":
                await operator.send(f"/console/accounts/{account}/suspend")
            else:
                if end == "rotate":
                    await operator.send(f"/console/keys/{made.key.id}/rotate", grace_seconds="3600")
                    assert (await one.open("/console/overview")).status_code == 200
                await operator.send(f"/console/keys/{made.key.id}/{end}", grace_seconds="0")
            # A second rotation ends the secret before the last at once.
            assert (await one.open("/console/overview")).status_code == 401, end


class HandClock:
    def __init__(self) -> None:
        self.at = 1_795_176_000_000

    def __call__(self) -> int:
        return self.at


async def test_a_session_ends_when_it_is_idle_and_in_any_case(served: GatewayServer) -> None:
    clock = HandClock()
    database, minute = served.gateway.database, 60_000
    sessions = Sessions(database, served.gateway.keys, idle_ms=30 * minute, life_ms=100 * minute, clock=clock)
    idle, busy = await sessions.open(served.secret), await sessions.open(served.secret)
    assert idle is not None
    assert busy is not None
    for _ in range(4):
        clock.at += 20 * minute
        assert await sessions.find(busy.token) is not None
    assert await sessions.find(idle.token) is None
    clock.at += 20 * minute
    assert await sessions.find(busy.token) is None
    assert await sessions.open("fb-unknown") is None
    await sessions.open(served.secret)  # takes away what has ended
    async with database.read() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM console_sessions")) == 1


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example/",
        "//evil.example/console/",
        "/\\evil.example",
        "\\\\evil.example",
        "javascript:alert(1)",
        "/consolevil",
        "/console@evil.example",
        "console/keys",
        "/v1/models",
        "\t/console",
    ],
)
async def test_signing_in_leads_nowhere_else(served: GatewayServer, target: str) -> None:
    async with visitor(served) as one:
        answer = await one.send("/console/sign-in", key=served.secret, next=target)
        # A form's values are trimmed, so the last one is the catalog.
        assert answer.headers["location"] in ("/console/overview", "/console")


async def test_signing_in_leads_back_to_the_page_that_asked(served: GatewayServer) -> None:
    async with visitor(served) as one:
        page = await one.open("/console/usage?by=model")
        assert page.status_code == 401
        assert 'name="next" value="/console/usage?by=model"' in page.text
        answer = await one.send("/console/sign-in", key=served.secret, next="/console/usage?by=model")
        assert answer.headers["location"] == "/console/usage?by=model"
        wrong = await one.http.post("/console/sign-in", data={"key": "fb-wrong", "csrf": await csrf_of(one)})
        assert wrong.status_code == 401
        assert "fb-wrong" not in wrong.text


async def test_one_keys_session_sees_nothing_of_another(served: GatewayServer, somebody: Visitor) -> None:
    other = await make_key(served.database, "neighbour")
    async with served.client(other) as http:
        answer = (await http.post("/v1/chat/completions", json={**CHAT, "user": "their-user"})).json()
    [entry] = await served.entries()
    for path in (
        f"/console/requests?key_id={entry['key_id']}",
        f"/console/requests?account_id={entry['account_id']}",
        f"/console/requests.csv?key_id={entry['key_id']}",
        f"/console/usage?by=user&key_id={entry['key_id']}",
        f"/console/usage?by=key&account_id={entry['account_id']}",
        f"/console/usage.csv?by=key&key_id={entry['key_id']}",
        "/console/usage?by=account",
        "/console/overview",
    ):
        page = await somebody.open(path)
        assert page.status_code == 200, path
        for word in (answer["id"], "their-user", "neighbour"):
            assert word not in page.text, path
    assert (await somebody.send("/console/batches/batch_of-another/cancel")).status_code == 404
    for path in (f"keys/{entry['key_id']}", f"accounts/{entry['account_id']}", "audit", "engines.json"):
        assert (await somebody.open(f"/console/{path}")).status_code == 404
    assert (await somebody.send(f"/console/keys/{entry['key_id']}/revoke")).status_code == 404


async def test_a_key_sees_only_the_models_that_it_may_use(served: GatewayServer) -> None:
    narrow = await make_key(served.database, "narrow", KeyTerms(models=frozenset({DEMO})))
    async with visitor(served) as one:
        assert LLAMA2 in (await one.open("/console")).text
        await one.sign_in(narrow)
        assert LLAMA2 not in (await one.open("/console")).text
        assert (await one.open(f"/console/models/{LLAMA2}")).status_code == 404


async def test_an_adapter_that_was_added_is_shown_to_its_account(served: GatewayServer, operator: Visitor) -> None:
    mine = (await served.key()).account_id
    async with served.client(ADMIN) as admin:
        theirs = (await admin.post("/admin/accounts", json={"name": "theirs"})).json()["id"]
        for account_id, name in ((mine, "acme/mine"), (theirs, "acme/theirs")):
            card = {"name": name, "base": DEMO, "adapter": f"/adapters/{account_id}", "price": {"of_base": "1.5"}}
            assert (await admin.post("/admin/adapters", json=card | {"account_id": account_id})).status_code == 201
    async with visitor(served) as one:
        assert "acme/" not in (await one.open("/console")).text
        await one.sign_in(served.secret)
        for path in ("", "/key", "/overview"):
            page = (await one.open(f"/console{path}")).text
            assert "acme/theirs" not in page, path
        assert "acme/mine" in (await one.open("/console")).text
        assert "$0.885" in (await one.open("/console/models/acme/mine")).text
        assert (await one.open("/console/models/acme/theirs")).status_code == 404
    for path in ("", "/engines", "/keys"):
        page = (await operator.open(f"/console{path}")).text
        assert "acme/mine" in page, path
        assert "acme/theirs" in page, path


async def test_the_playground_generates_for_its_own_session_only(
    served: GatewayServer, somebody: Visitor, operator: Visitor
) -> None:
    headers = {"x-csrf-token": somebody.csrf}
    answer = await somebody.http.post("/console/chat", json=CHAT, headers=headers)
    assert answer.status_code == 200
    [entry] = await served.entries()
    assert entry["key_id"] == (await served.key()).id
    assert (entry["request_id"], entry["route"]) == (answer.json()["id"], "/console/chat")
    for sent in ({}, {"x-csrf-token": operator.csrf}, {**headers, "sec-fetch-site": "cross-site"}):
        assert (await somebody.http.post("/console/chat", json=CHAT, headers=sent)).status_code in (403, 415)
    admins = await operator.http.post("/console/chat", json=CHAT, headers={"x-csrf-token": operator.csrf})
    assert admins.status_code == 403
    async with visitor(served) as nobody:
        assert (await nobody.http.post("/console/chat", json=CHAT, headers=headers)).status_code == 401
    assert len(await served.entries()) == 1


async def test_a_sessions_cookie_opens_nothing_of_the_api(somebody: Visitor, operator: Visitor) -> None:
    assert (await somebody.http.get("/v1/models")).status_code == 401
    assert (await operator.http.get("/admin/accounts")).status_code == 401


async def test_a_form_has_a_largest_size(somebody: Visitor) -> None:
    answer = await somebody.http.post("/console/sign-out", data={"csrf": "x" * 70_000})
    assert answer.status_code == 413
    many = "&".join(f"a{number}=1" for number in range(300))
    form = {"content-type": "application/x-www-form-urlencoded"}
    assert (await somebody.http.post("/console/sign-out", content=many, headers=form)).status_code == 400
    assert (await somebody.http.post("/console/sign-out", content=b"csrf=%ff", headers=form)).status_code == 400


async def test_the_catalog_can_be_closed_and_the_console_taken_away(gateway_server: GatewayServers) -> None:
    async with gateway_server(console_catalog_public=False) as server, visitor(server) as one:
        for path in ("/", "/console", f"/console/models/{DEMO}", f"/console/schemas/chat/input/{DEMO}"):
            page = await one.open(path)
            assert page.status_code == 401
            assert DEMO not in page.text.replace(f'value="{path}"', "")
        await one.sign_in(server.secret)
        assert DEMO in (await one.open("/")).text
    async with gateway_server(console=False) as server, visitor(server) as one:
        assert (await one.open("/")).json()["name"] == "Farebox"
        assert (await one.open("/console")).status_code == 401
        assert (await one.open("/console/static/x/console.css")).status_code == 401


async def test_the_front_door_is_a_page_for_browsers_and_json_for_programs(served: GatewayServer) -> None:
    async with httpx.AsyncClient(base_url=served.url, trust_env=False) as http:
        page = await http.get("/", headers={"accept": "text/html,application/xhtml+xml;q=0.9"})
        program = await http.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert program.json()["openapi"] == "/openapi.json"
    assert program.headers["vary"] == "accept"


async def test_behind_a_prefix_every_address_has_it(gateway_server: GatewayServers) -> None:
    async with gateway_server(root_path="/llm", admin_key=ADMIN) as server, visitor(server) as one:
        answer = await one.send("/llm/console/sign-in", key=ADMIN)
        assert answer.headers["location"] == "/llm/console/overview"
        assert "path=/llm" in answer.headers["set-cookie"].lower()
        for path in ("", f"/models/{DEMO}", "/overview", "/keys", "/accounts/1", "/engines"):
            page = await one.open(f"/llm/console{path}")
            assert page.status_code == 200
            links = re.findall(r'(?:src|href|action|data-live|data-chat|data-api|data-schema)="(/[^"]*)"', page.text)
            assert [link for link in links if not link.startswith("/llm/")] == []
        made = await one.send("/llm/console/accounts", name="meant")
        assert made.headers["location"].startswith("/llm/console/accounts/")
