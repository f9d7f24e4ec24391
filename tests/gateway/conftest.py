"""A gateway in this process on a free port, with the scripted engine and a real SQLite ledger."""

import asyncio
import secrets
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from sqlalchemy import select
from starlette.types import ASGIApp

from engine.base import Engine, EngineSpec
from engine.script import Script
from engine.scripted import ScriptedEngine
from gateway.models.catalog import load_catalog
from gateway.models.fleet import Fleet
from gateway.process.assembly import open_gateway
from gateway.process.http_server import Server
from gateway.process.server import listen
from gateway.settings import Settings
from gateway.state import Gateway
from gateway.webhooks.public_http import Resolve, system_resolve
from pricing.keys import Key, Keys, KeyTerms
from storage.database import Database
from storage.schema import metadata

DEMO = "farebox/demo"
LLAMA2 = "meta-llama/Llama-2-70b-chat-hf"
NO_TERMS = KeyTerms()
WEBHOOK_SECRET = "a-deployment's-secret-for-tests"


@dataclass
class GatewayServer:
    """A gateway that serves at `url`. `engines` are its scripted engines, `secret` is a client's key."""

    gateway: Gateway
    url: str
    secret: str
    http: Server
    engines: list[ScriptedEngine] = field(default_factory=list)

    def client(self, secret: str | None = None) -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer {secret or self.secret}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=20, trust_env=False)

    @property
    def database(self) -> str:
        return self.gateway.settings.database

    async def key(self) -> Key:
        """The client's key, as the gateway knows it."""
        key = await self.gateway.keys.resolve(self.secret)
        assert key is not None
        return key

    async def entries(self) -> list[dict[str, Any]]:
        """The ledger's entries, once nothing waits to be written."""
        await self.gateway.ledger.flush()
        return await rows(self.database, "entries")


GatewayServers = Callable[..., AbstractAsyncContextManager[GatewayServer]]


async def rows(url: str, table: str) -> list[dict[str, Any]]:
    """All rows of a table of the database."""
    database = await Database.open(url)
    async with database.read() as connection:
        found = [dict(row._mapping) for row in await connection.execute(select(metadata.tables[table]))]
    await database.close()
    return found


async def make_key(url: str, name: str, terms: KeyTerms = NO_TERMS) -> str:
    """The secret of another key on the first account."""
    database = await Database.open(url)
    keys = Keys(database)
    account_id = (await keys.list())[0].account_id
    created = await keys.create(account_id, name, actor="test", terms=terms)
    await database.close()
    return created.secret


@asynccontextmanager
async def serve_app(server: uvicorn.Server) -> AsyncIterator[str]:
    """A uvicorn server on a free port of loopback, in this loop; gives its URL."""
    with listen("127.0.0.1", 0) as listener:
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:
            await asyncio.sleep(0.005)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving


def plain_config(app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(app, lifespan="off", log_config=None, access_log=False)


class InnerServer(Server):
    """The gateway's own server, with its drain, which leaves pytest's signal handlers alone."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@pytest.fixture
def gateway_server(tmp_path: Path, sqlite_template: Path) -> GatewayServers:
    """`async with gateway_server(script=..., cards=[...], **settings) as server`.

    `script` is what the engines play (by default they answer "ok"), `cards` are the models served, `settings` are
    fields of `Settings`; `card_files` hold more cards, `engine` makes the engines. Servers made in one test share the
    database, as after a restart.
    """
    secret = f"test-{secrets.token_hex(16)}"

    @asynccontextmanager
    async def make(
        script: Script | None = None,
        cards: Sequence[str] = (DEMO, LLAMA2),
        resolve: Resolve = system_resolve,
        card_files: Sequence[Path] = (),
        engine: Callable[[Script, EngineSpec], ScriptedEngine] = ScriptedEngine,
        **settings: object,
    ) -> AsyncIterator[GatewayServer]:
        engines: list[ScriptedEngine] = []

        def scripted(spec: EngineSpec) -> Engine:
            engines.append(engine(script or Script(), spec))
            return engines[-1]

        values = {"models": ",".join(cards), "data_dir": tmp_path, "source": "scripted:", "bootstrap_key": secret}
        values["cards"] = ",".join(map(str, card_files))
        known = Settings.model_validate(values | {"shutdown_seconds": 2.0} | settings)
        file = tmp_path / "farebox.db"
        if known.database == f"sqlite:///{file}" and not file.exists():
            shutil.copyfile(sqlite_template, file)
        fleet = Fleet(load_catalog(known), scripted)
        async with open_gateway(known, fleet, resolve) as (gateway, _):
            await fleet.start()
            server = InnerServer(gateway)
            async with serve_app(server) as url:
                yield GatewayServer(gateway, url, secret, server, engines)
            await fleet.stop()

    return make
