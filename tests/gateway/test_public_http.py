"""Which addresses may be called, and that a call goes to the address that was checked."""

from collections.abc import Sequence

import httpx
import pytest

from gateway.webhooks.public_http import ForbiddenAddress, PinnedTransport, Poster, is_public, system_resolve

PUBLIC = ["93.184.216.34", "8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "2a00:1450:4001:810::200e"]
INSIDE = [
    "127.0.0.1",
    "127.8.8.8",
    "0.0.0.0",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "192.0.0.1",
    "192.0.2.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "192.88.99.1",
    "224.0.0.1",
    "239.1.2.3",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "::ffff:0:8.8.8.8",
    "64:ff9b::7f00:1",
    "64:ff9b::808:808",
    "64:ff9b:1::a00:1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:808:808::",
    "fc00::1",
    "fd12:3456::1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "not an address",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_may_be_called(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", INSIDE)
def test_what_leads_inside_may_not(address: str) -> None:
    assert not is_public(address)


class Net:
    """A resolver and a network, both scripted: `answers` in turn, and the addresses that take no connection."""

    def __init__(self, *answers: Sequence[str], unreachable: Sequence[str] = ()) -> None:
        self.answers = list(answers)
        self.unreachable = unreachable
        self.requests: list[httpx.Request] = []

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        return self.answers.pop(0)

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if request.url.host in self.unreachable:
            raise httpx.ConnectError("no route", request=request)
        return httpx.Response(200, content=request.content)

    def client(self, *, allow_private: bool = False) -> httpx.AsyncClient:
        transport = PinnedTransport(self.resolve, allow_private=allow_private, inner=httpx.MockTransport(self.answer))
        return httpx.AsyncClient(transport=transport, trust_env=False)


async def test_the_connection_goes_to_the_checked_address_under_the_original_name() -> None:
    net = Net(["93.184.216.34"])
    async with net.client() as client:
        await client.post("https://hooks.example:8443/done?a=1", content=b"body")
    (request,) = net.requests
    assert str(request.url) == "https://93.184.216.34:8443/done?a=1"
    assert request.headers["host"] == "hooks.example:8443"
    assert request.extensions["sni_hostname"] == "hooks.example"
    assert request.content == b"body"


async def test_a_name_that_changes_its_mind_is_checked_each_time() -> None:
    """DNS rebinding: each call asks once, and what it was told is what it connects to, or refuses."""
    net = Net(["93.184.216.34"], ["127.0.0.1"], ["169.254.169.254", "::1"], ["8.8.8.8"])
    async with net.client() as client:
        await client.post("http://rebind.example/")
        for _ in range(2):
            with pytest.raises(ForbiddenAddress):
                await client.post("http://rebind.example/")
        await client.post("http://rebind.example/")
    assert [request.url.host for request in net.requests] == ["93.184.216.34", "8.8.8.8"]


async def test_only_the_public_ones_of_several_addresses_are_tried() -> None:
    net = Net(["10.0.0.1", "2606:4700:4700::1111", "8.8.8.8"], unreachable=["2606:4700:4700::1111"])
    async with net.client() as client:
        assert (await client.post("http://both.example/", content=b"body")).content == b"body"
    assert [request.url.host for request in net.requests] == ["2606:4700:4700::1111", "8.8.8.8"]


async def test_the_operator_may_allow_private_addresses() -> None:
    net = Net(["10.0.0.1"])
    async with net.client(allow_private=True) as client:
        await client.post("http://inside.example/")
    assert [request.url.host for request in net.requests] == ["10.0.0.1"]


@pytest.mark.parametrize("url", [f"http://{'a' * 70}.example/", "http://a..example/", "nonsense", "http://"])
async def test_a_url_that_nothing_can_be_done_with_is_an_error_in_words(url: str) -> None:
    poster = Poster(PinnedTransport(system_resolve), timeout_seconds=5, user_agent="test")
    assert await poster.post(url, b"", {})
    await poster.close()


async def test_a_name_that_does_not_resolve_is_an_error_in_words() -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        raise OSError("Name or service not known")

    poster = Poster(PinnedTransport(resolve), timeout_seconds=1, user_agent="test")
    error = await poster.post("http://nowhere.example/", b"", {})
    await poster.close()
    assert error is not None
    assert "can't be resolved" in error
