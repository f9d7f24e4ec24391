"""PostgreSQL URLs as people and providers write them: understood, or one sentence that names the option."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage.database import Database
from storage.errors import InvalidSetting
from storage.postgres_url import read_postgres_url
from tests.postgres import PostgresServer

BASE = "postgresql://u:hunter2@127.0.0.1:1/x"


@pytest.mark.parametrize(
    "options",
    [
        "sslmode=prefer",
        "sslmode=disable&connect_timeout=3&application_name=billing",
        "fallback_application_name=billing",
        "channel_binding=prefer&gssencmode=disable",
        "client_encoding=utf8",
        "options=-c%20search_path%3Dpublic",
        "pgbouncer=true",
        "pgbouncer=false&statement_cache_size=10",
        "statement_cache_size=0",
        "prepared_statement_cache_size=0",
        "target_session_attrs=read-write",
        "ssl=false",
    ],
)
async def test_what_is_understood_reaches_the_server(options: str, postgres: PostgresServer) -> None:
    url = await postgres.copy("template_farebox")
    database = await Database.open(f"{url}{'&' if '?' in url else '?'}{options}")
    async with database.read() as connection:
        name = (await connection.exec_driver_sql("SHOW application_name")).scalar_one()
    assert name == ("billing" if "application_name" in options else "farebox")
    await database.close()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ("sslmod=require", "'sslmod'. Did you mean 'sslmode'"),
        ("keepalives=1", "'keepalives'"),
        ("pool_size=20", "'pool_size'"),
        ("lock_timeout=5s", "'lock_timeout'"),
        ("connect_timeout=soon", "connect_timeout"),
        ("connect_timeout=0", "connect_timeout"),
        ("statement_cache_size=-1", "statement_cache_size"),
        ("pgbouncer=perhaps", "pgbouncer"),
        ("channel_binding=require", "channel_binding=require"),
        ("gssencmode=require", "gssencmode=require"),
        ("client_encoding=latin1", "client_encoding"),
        ("sslmode=always", "sslmode"),
        ("ssl=perhaps", "ssl"),
        ("sslrootcert=%2Fno%2Fsuch.pem", "sslrootcert"),
        ("sslmode=verify-full&sslcert=nowhere.crt", "sslcert"),
        ("application_name=a&application_name=b", "'application_name' twice"),
        ("application_name=a%00b", "application_name"),
        ("port=many", "port"),
        ("target_session_attrs=sometimes", "it can be any, primary, standby,"),
        ("sslnegotiation=perhaps", "sslnegotiation"),
    ],
)
async def test_any_other_option_is_named_in_one_sentence(options: str, named: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        await Database.open(f"{BASE}?{options}")
    assert named in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_a_root_certificate_that_is_none_is_named(tmp_path: Path) -> None:
    path = tmp_path / "root.pem"
    path.write_text("not a certificate")
    with pytest.raises(InvalidSetting, match="sslrootcert holds no certificate"):
        await Database.open(f"{BASE}?sslmode=verify-full&sslrootcert={path}")


@pytest.mark.parametrize(
    ("url", "user", "password", "dsn"),
    [
        ("postgres://u:secret@h/d", "u", "secret", "postgresql://h/d"),
        ("postgresql+asyncpg://u@h:5433/d", "u", None, "postgresql://h:5433/d"),
        ("postgresql://u:p%40%2F%23@h/d", "u", "p@/#", "postgresql://h/d"),
        ("postgresql://u:p/#?:x@h/d", "u", "p/#?:x", "postgresql://h/d"),
        ("postgresql://h1:1,h2:2/d", None, None, "postgresql://h1:1,h2:2/d"),
        ("postgresql://[::1]:5432/d", None, None, "postgresql://[::1]:5432/d"),
        ("postgresql:///d?host=/run/pg", None, None, "postgresql:///d?host=%2Frun%2Fpg"),
        ("postgresql:///d?host=a:1&host=b:2", None, None, "postgresql:///d?host=a%3A1%2Cb%3A2"),
        ("postgresql://h/d?ssl=true", None, None, "postgresql://h/d?sslmode=require"),
    ],
)
def test_users_hosts_and_odd_passwords(url: str, user: str | None, password: str | None, dsn: str) -> None:
    address = read_postgres_url(url)
    assert (address.user, address.password, address.dsn) == (user, password, dsn)
    assert password is None or password not in repr(address)


@pytest.mark.parametrize(
    "url", ["postgresql:/h/d", "postgresqlx://h/d", "postgresql://u:a@b@h/d", "postgresql://h:port/d", "postgres"]
)
async def test_what_is_no_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        await Database.open(url)
    assert "a@b" not in str(caught.value)
