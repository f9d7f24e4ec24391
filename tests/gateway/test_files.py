"""`/v1/files`: OpenAI's shapes, an account's own files only, in a folder and in an S3-compatible store."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import httpx
import openai
import pytest

from gateway.files.files import Files
from gateway.settings import Settings, SettingsError, load_settings
from pricing.accounts import Accounts
from pricing.keys import Keys
from storage.database import Database
from tests.gateway.conftest import GatewayServer, GatewayServers
from tests.s3 import BUCKET, s3_server

LINE = b'{"custom_id": "1"}\n'


@pytest.fixture(scope="module", params=["folder", "s3"])
def stored_in(request: pytest.FixtureRequest) -> Any:
    if request.param == "folder":
        yield {}
        return
    with s3_server():
        yield {"files_url": f"s3://{BUCKET}/some/folder"}


@asynccontextmanager
async def sdk(server: GatewayServer, secret: str | None = None) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"{server.url}/v1", api_key=secret or server.secret, max_retries=0
    ) as client:
        yield client


async def of_another_account(server: GatewayServer) -> str:
    database = await Database.open(server.database)
    account = await Accounts(database).create("another", actor="test")
    created = await Keys(database).create(account.id, "other", actor="test")
    await database.close()
    return created.secret


async def upload(client: httpx.AsyncClient, content: bytes = LINE, **fields: Any) -> httpx.Response:
    data = {"purpose": "batch", **fields}
    return await client.post("/v1/files", files={"file": ("in.jsonl", content)}, data=data)


async def test_openais_sdk_uploads_reads_lists_and_deletes(
    gateway_server: GatewayServers, stored_in: dict[str, str]
) -> None:
    content = LINE * 40_000  # in several pieces
    async with gateway_server(**stored_in) as server, sdk(server) as client:
        made = await client.files.create(
            file=("requests.jsonl", content), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
        )
        assert (made.bytes, made.filename, made.purpose) == (len(content), "requests.jsonl", "batch")
        assert made.status == "processed"
        assert made.expires_at == made.created_at + 3600
        assert await client.files.retrieve(made.id) == made
        assert [file async for file in client.files.list()] == [made]
        assert (await client.files.content(made.id)).content == content
        async with server.gateway.files.local(made.id) as path:
            assert path.read_bytes() == content
        assert (await client.files.delete(made.id)).deleted
        with pytest.raises(openai.NotFoundError):
            await client.files.content(made.id)
        with pytest.raises(FileNotFoundError):
            async with server.gateway.files.local(made.id):
                pass


async def test_a_file_without_an_end_of_its_own_is_kept_for_thirty_days(gateway_server: GatewayServers) -> None:
    async with gateway_server() as server, server.client() as client:
        made = (await upload(client)).json()
        assert made["expires_at"] - made["created_at"] == 30 * 86_400


async def test_an_account_sees_its_own_files_only(gateway_server: GatewayServers) -> None:
    async with gateway_server() as server, server.client() as client:
        made = (await upload(client)).json()["id"]
        async with server.client(await of_another_account(server)) as other:
            assert (await other.get("/v1/files")).json()["data"] == []
            for path in (f"/v1/files/{made}", f"/v1/files/{made}/content"):
                assert (await other.get(path)).status_code == 404
            assert (await other.delete(f"/v1/files/{made}")).status_code == 404
            assert (await other.get("/v1/files", params={"after": made})).status_code == 404
        assert (await client.get(f"/v1/files/{made}")).status_code == 200


async def test_lists_go_page_by_page_in_both_orders(gateway_server: GatewayServers) -> None:
    async with gateway_server() as server, server.client() as client:
        made = [(await upload(client)).json()["id"] for _ in range(5)]
        async with sdk(server) as listing:
            for order, wanted in (("asc", made), ("desc", made[::-1])):
                found = [file.id async for file in listing.files.list(limit=2, order=cast("Any", order))]
                assert sorted(found) == sorted(wanted)
                assert found[0] in wanted[:5]
        first = (await client.get("/v1/files", params={"limit": 2, "order": "asc"})).json()
        assert first["has_more"]
        assert first["last_id"] == first["data"][1]["id"]
        assert (await client.get("/v1/files", params={"purpose": "batch_output"})).json()["data"] == []


WRONG = [
    ({"purpose": "assistants"}, 422, "purpose"),
    ({"expires_after[anchor]": "created_at", "expires_after[seconds]": "3599"}, 422, "expires_after.seconds"),
    ({"expires_after[anchor]": "created_at", "expires_after[seconds]": "2592001"}, 422, "expires_after.seconds"),
    ({"expires_after[anchor]": "now", "expires_after[seconds]": "3600"}, 422, "expires_after.anchor"),
    ({"expires_after": "1"}, 422, "expires_after"),
    ({"colour": "red"}, 422, "colour"),
]


@pytest.mark.parametrize(("fields", "status", "param"), WRONG)
async def test_wrong_fields_are_named(
    gateway_server: GatewayServers, fields: dict[str, Any], status: int, param: str
) -> None:
    async with gateway_server() as server, server.client() as client:
        answer = await upload(client, **fields)
        assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)
        assert (await client.get("/v1/files")).json()["data"] == []


async def test_what_is_no_form_with_one_file_is_refused(gateway_server: GatewayServers) -> None:
    async with gateway_server() as server, server.client() as client:
        one = ("a", LINE)
        assert (await client.post("/v1/files", json={"purpose": "batch"})).status_code == 415
        assert (await client.post("/v1/files", data={"purpose": "batch"}, files={"data": one})).status_code == 422
        many: dict[str, Any] = {f"field{number}": "x" for number in range(20)}
        assert (await upload(client, **many)).status_code == 400
        assert (await upload(client, purpose="x" * 5000)).status_code == 400
        answer = await client.post("/v1/files", data={"purpose": "batch"}, files=[("file", one), ("file", one)])
        assert answer.status_code == 400
        broken = {"content-type": "multipart/form-data; boundary=x"}
        assert (await client.post("/v1/files", content=b"nonsense", headers=broken)).status_code == 400
        none = await client.post("/v1/files", files={"purpose": (None, "batch")})
        assert (none.status_code, none.json()["error"]["param"]) == (422, "file")


async def test_a_file_may_be_as_large_as_the_setting_says(gateway_server: GatewayServers) -> None:
    async with gateway_server(file_bytes_max=2000, file_account_bytes_max=3000) as server, server.client() as client:
        assert (await upload(client, b"x" * 2000)).status_code == 200
        assert (await upload(client, b"x" * 2001)).status_code == 413
        assert (await upload(client, b"x" * 200_000)).status_code == 413
        full = await upload(client, b"x" * 1001)
        assert full.status_code == 413
        assert "3000 bytes" in full.json()["error"]["message"]
        assert list((server.gateway.settings.files_dir / "incoming").iterdir()) == []


async def test_what_has_expired_is_gone_and_removed(gateway_server: GatewayServers, stored_in: dict[str, str]) -> None:
    async with gateway_server(**stored_in) as server, server.client() as client:
        made = (await upload(client)).json()["id"]
        files: Files = server.gateway.files
        later = files.now() + 31 * 86_400_000
        files.now = lambda: later
        assert (await client.get(f"/v1/files/{made}")).status_code == 404
        assert await files.purge() == 1
        with pytest.raises(FileNotFoundError):
            await anext(files.read(made))


def test_what_a_process_that_died_left_on_its_way_is_removed(tmp_path: Path) -> None:
    from gateway.files.incoming import Incoming

    incoming = Incoming(tmp_path)
    (tmp_path / "left").write_bytes(b"x")
    incoming.tidy(time.time() - 60)
    assert (tmp_path / "left").exists()
    incoming.tidy(time.time() + 60)
    assert not (tmp_path / "left").exists()


@pytest.mark.parametrize("url", ["bucket", "https://bucket", "s3://", "s3://UPPER"])
def test_a_place_for_files_that_is_none_stops_the_start(url: str) -> None:
    with pytest.raises(SettingsError, match="FAREBOX_FILES_URL is wrong"):
        load_settings({"FAREBOX_FILES_URL": url})


async def test_a_client_that_leaves_in_an_upload_leaves_nothing(gateway_server: GatewayServers) -> None:
    async with gateway_server() as server, server.client() as client:

        async def pieces() -> AsyncIterator[bytes]:
            yield b'--x\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\nabc'
            raise ConnectionError

        form = {"content-type": "multipart/form-data; boundary=x"}
        with pytest.raises(ConnectionError):
            await client.post("/v1/files", content=pieces(), headers=form)
        await asyncio.sleep(0.05)
        assert (await client.get("/v1/files")).json()["data"] == []


def test_the_settings_are_listed_after_those_of_serving() -> None:
    names = list(Settings.model_fields)
    assert names[0] == "host"
    assert names.index("files_url") > names.index("log_level")
