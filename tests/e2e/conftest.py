"""A gateway of two workers with the real engine, one per session."""

import asyncio
import secrets
from collections.abc import Iterator

import pytest

from tests.gateway.redis_server import running_redis
from tests.postgres import PostgresServer
from tests.server import Server, start_server


@pytest.fixture(scope="session")
def workers(tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer) -> Iterator[Server]:
    """Every shipped card on the demo weights, on PostgreSQL and Redis."""
    folder = tmp_path_factory.mktemp("workers")
    with (
        running_redis(folder) as redis,
        start_server(
            folder,
            FAREBOX_WORKERS="2",
            FAREBOX_REDIS_URL=redis.url,
            FAREBOX_DATABASE_URL=asyncio.run(postgres.copy("template_farebox")),
            FAREBOX_MODELS="all",
            FAREBOX_SOURCE="demo",
            FAREBOX_PRECISION="auto",
            FAREBOX_BOOTSTRAP_KEY=f"test-{secrets.token_hex(16)}",
        ) as running,
    ):
        running.wait_until_ready()
        yield running
    running.assert_no_secrets()
