"""Requests and tokens per minute and requests at a time: exact, in headers, and never in the way of the engine."""

import asyncio
import re
from typing import Any

import httpx
import pytest

from engine.script import HANG, RequestScript, Script, Step, emit, fail
from gateway.errors import RateLimited
from gateway.limits.admission import LimitDefaults, RateLimits, duration
from gateway.limits.memory_store import WINDOW_MS, MemoryStore
from pricing.key import Key, KeyTerms
from tests.gateway.conftest import DEMO, LLAMA2, GatewayServers, make_key

CHAT = "/v1/chat/completions"


class HandClock:
    """Milliseconds that move when the test says so."""

    def __init__(self) -> None:
        self.now = 1_000_000

    def __call__(self) -> int:
        return self.now


def key_with(**terms: Any) -> Key:
    return Key(7, 1, "test", "fb-test", "user", KeyTerms(**terms), 0)


def chat(text: str = "hello", **fields: object) -> dict[str, object]:
    return {"model": DEMO, "messages": [{"role": "user", "content": text}], **fields}


def playing(*steps: Step) -> Script:
    return Script((RequestScript(steps),))


async def statuses(client: httpx.AsyncClient, count: int, **fields: Any) -> list[int]:
    answers = await asyncio.gather(*(client.post(CHAT, json=chat(**fields)) for _ in range(count)))
    return sorted(answer.status_code for answer in answers)


# The store, on a clock of our own


async def test_a_window_moves_and_forgets_each_request_after_a_minute() -> None:
    clock = HandClock()
    limits = RateLimits(MemoryStore(clock=clock), LimitDefaults())
    key = key_with(requests_per_minute=3)
    for _ in range(3):
        await limits.admission(key, []).enter("m")
        clock.now += 10_000
    with pytest.raises(RateLimited) as refused:
        await limits.admission(key, []).enter("m")
    assert refused.value.headers["retry-after"] == "30"
    assert "3 requests per minute" in refused.value.message
    assert "30s" in refused.value.message
    clock.now += 30_000
    await limits.admission(key, []).enter("m")
    with pytest.raises(RateLimited):
        await limits.admission(key, []).enter("m")


async def test_no_sixty_seconds_ever_hold_more_than_the_limit() -> None:
    clock = HandClock()
    limits = RateLimits(MemoryStore(clock=clock), LimitDefaults())
    key = key_with(requests_per_minute=10)
    admitted = []
    for _ in range(2000):
        try:
            await limits.admission(key, []).enter("m")
            admitted.append(clock.now)
        except RateLimited:
            pass
        clock.now += 137
    for start in admitted:
        assert sum(start <= at < start + WINDOW_MS for at in admitted) <= 10
    assert len(admitted) >= 10 * (2000 * 137 // WINDOW_MS)


async def test_tokens_are_admitted_by_the_worst_case_and_corrected_to_what_was_used() -> None:
    clock = HandClock()
    limits = RateLimits(MemoryStore(clock=clock), LimitDefaults())
    key = key_with(tokens_per_minute=1000)
    headers: list[tuple[bytes, bytes]] = []
    first = limits.admission(key, headers)
    await first.take_tokens("m", 100, 500)
    assert dict(headers)[b"x-ratelimit-remaining-tokens"] == b"400"
    with pytest.raises(RateLimited) as refused:
        await limits.admission(key, []).take_tokens("m", 100, 400)
    assert "600 are used or reserved" in refused.value.message
    assert "may need 500 more" in refused.value.message
    first.used(150)
    first.release()
    await limits.admission(key, headers).take_tokens("m", 100, 400)
    assert dict(headers)[b"x-ratelimit-remaining-tokens"] == b"350"


async def test_a_worst_case_beyond_the_whole_limit_is_admitted_when_nothing_else_is() -> None:
    limits = RateLimits(MemoryStore(), LimitDefaults())
    key = key_with(tokens_per_minute=1000)
    first = limits.admission(key, [])
    await first.take_tokens("m", 100, 16_384)
    with pytest.raises(RateLimited):
        await limits.admission(key, []).take_tokens("m", 1, 0)
    first.used(120)
    first.release()
    await limits.admission(key, []).take_tokens("m", 80, 800)


async def test_a_prompt_beyond_the_whole_limit_can_never_pass_and_says_so() -> None:
    limits = RateLimits(MemoryStore(), LimitDefaults())
    with pytest.raises(RateLimited, match="Shorten the prompt") as refused:
        await limits.admission(key_with(tokens_per_minute=1000), []).take_tokens("m", 1001, 1)
    assert refused.value.headers["x-should-retry"] == "false"


async def test_releasing_twice_frees_one_slot() -> None:
    limits = RateLimits(MemoryStore(), LimitDefaults())
    key = key_with(concurrent_requests=1)
    first, second = limits.admission(key, []), limits.admission(key, [])
    await first.enter("m")
    first.release()
    await second.enter("m")
    first.release()
    with pytest.raises(RateLimited):
        await limits.admission(key, []).enter("m")


async def test_a_keys_own_number_counts_all_its_models_and_a_default_each_one() -> None:
    limits = RateLimits(MemoryStore(), LimitDefaults(requests_per_minute=1))
    await limits.admission(key_with(), []).enter("a")
    await limits.admission(key_with(), []).enter("b")
    with pytest.raises(RateLimited, match='of the model "a"'):
        await limits.admission(key_with(), []).enter("a")
    own = key_with(requests_per_minute=2)
    await limits.admission(own, []).enter("a")
    await limits.admission(own, []).enter("b")
    with pytest.raises(RateLimited):
        await limits.admission(own, []).enter("c")


@pytest.mark.parametrize(
    ("alternatives", "slots"), [(0, 1), (1, 2), (5, 2), (6, 3), (20, 5), (80, 17), (10**6, 20)], ids=str
)
async def test_alternatives_take_slots_and_at_most_all(alternatives: int, slots: int) -> None:
    limits = RateLimits(MemoryStore(), LimitDefaults(alternatives_per_slot=5))
    key = key_with(concurrent_requests=20)
    admission = limits.admission(key, [])
    await admission.enter("m", alternatives)
    assert [standing.level.used for standing in await limits.standings(key, ["m"])] == [slots]
    for _ in range(20 - slots):
        await limits.admission(key, []).enter("m")
    with pytest.raises(RateLimited):
        await limits.admission(key, []).enter("m")
    admission.release()
    assert [standing.level.used for standing in await limits.standings(key, ["m"])] == [20 - slots]


async def test_a_refusal_says_what_alternatives_count_as() -> None:
    limits = RateLimits(MemoryStore(), LimitDefaults(alternatives_per_slot=5))
    key = key_with(concurrent_requests=8)
    await limits.admission(key, []).enter("m", 20)
    with pytest.raises(RateLimited, match=r"8 requests at a time, and 5 are running\. This one counts as 5"):
        await limits.admission(key, []).enter("m", 20)
    await limits.admission(key, []).enter("m")


async def test_alternatives_can_be_left_out_of_the_count() -> None:
    limits = RateLimits(MemoryStore(), LimitDefaults(alternatives_per_slot=0))
    for _ in range(2):
        await limits.admission(key_with(concurrent_requests=2), []).enter("m", 20)


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(0, "0s"), (1, "1s"), (1000, "1s"), (59_001, "1m0s"), (360_000, "6m0s"), (3_600_000, "1h0m0s")],
)
def test_durations_are_written_as_openai_does(milliseconds: int, text: str) -> None:
    assert duration(milliseconds) == text


# The gateway


async def test_one_hundred_requests_at_once_get_exactly_the_limit(gateway_server: GatewayServers) -> None:
    async with gateway_server(playing(emit("ok"))) as server:
        secret = await make_key(server.database, "limited", KeyTerms(requests_per_minute=37))
        async with server.client(secret) as client:
            assert await statuses(client, 100) == [200] * 37 + [429] * 63
        assert len(await server.entries()) == 37


async def test_slots_hold_exactly_as_many_as_allowed_and_are_freed(gateway_server: GatewayServers) -> None:
    async with gateway_server(playing(HANG), shutdown_seconds=0.1) as server:
        secret = await make_key(server.database, "limited", KeyTerms(concurrent_requests=9))
        for _ in range(2):
            async with server.client(secret) as client:
                waiting = {asyncio.create_task(client.post(CHAT, json=chat())) for _ in range(100)}
                refused: list[int] = []
                while len(refused) < 91:
                    done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                    refused += [task.result().status_code for task in done]
                assert refused == [429] * 91
                while len(server.engines[0].running) < 9:
                    await asyncio.sleep(0.01)
            await asyncio.gather(*waiting, return_exceptions=True)
            while server.engines[0].running:
                await asyncio.sleep(0.01)


async def test_the_default_holds_for_each_key_and_model_apart(gateway_server: GatewayServers) -> None:
    settings = {"limit_concurrent_requests": 2, "shutdown_seconds": 0.1}
    async with gateway_server(playing(HANG), **settings) as server, server.client() as client:

        async def hold(model: str, running: int) -> asyncio.Task[httpx.Response]:
            task = asyncio.create_task(client.post(CHAT, json=chat() | {"model": model}))
            while sum(len(engine.running) for engine in server.engines) < running:
                await asyncio.sleep(0.01)
            return task

        held = [await hold(DEMO, 1), await hold(DEMO, 2)]
        refused = await client.post(CHAT, json=chat())
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "1"
        assert f'2 requests of the model "{DEMO}" at a time' in refused.json()["error"]["message"]
        held.append(await hold(LLAMA2, 3))
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)


@pytest.mark.parametrize("stream", [False, True])
async def test_answers_and_refusals_tell_where_the_key_stands(gateway_server: GatewayServers, stream: bool) -> None:
    async with gateway_server(playing(emit("one two three"))) as server:
        terms = KeyTerms(requests_per_minute=2, tokens_per_minute=5000)
        secret = await make_key(server.database, "limited", terms)
        async with server.client(secret) as client:
            answer = await client.post(CHAT, json=chat(stream=stream, max_tokens=1000))
            assert answer.headers["x-ratelimit-limit-requests"] == "2"
            assert answer.headers["x-ratelimit-remaining-requests"] == "1"
            assert re.fullmatch(r"1m0s|59s", answer.headers["x-ratelimit-reset-requests"])
            assert answer.headers["x-ratelimit-limit-tokens"] == "5000"
            assert answer.headers["x-ratelimit-remaining-tokens"] == str(5000 - 1000 - 2)
            assert re.fullmatch(r"1m0s|59s", answer.headers["x-ratelimit-reset-tokens"])
            await client.post(CHAT, json=chat(stream=stream, max_tokens=1000))
            refused = await client.post(CHAT, json=chat(stream=stream))
            error = refused.json()["error"]
            assert (refused.status_code, error["code"]) == (429, "rate_limit_exceeded")
            assert refused.headers["x-ratelimit-remaining-requests"] == "0"
            assert 1 <= int(refused.headers["retry-after"]) <= 60
            assert "2 requests per minute" in error["message"]
            # Two answers of 3 tokens to prompts of 2: corrected by now.
            assert refused.headers["x-ratelimit-remaining-tokens"] == "4990"


async def test_a_key_without_limits_gets_no_limit_headers(gateway_server: GatewayServers) -> None:
    async with gateway_server() as server, server.client() as client:
        answer = await client.post(CHAT, json=chat())
        assert not [name for name in answer.headers if name.startswith("x-ratelimit")]


async def test_a_refused_request_touches_neither_engine_nor_ledger(gateway_server: GatewayServers) -> None:
    async with gateway_server() as server:
        secret = await make_key(server.database, "limited", KeyTerms(requests_per_minute=0))
        async with server.client(secret) as client:
            assert await statuses(client, 5) == [429] * 5
        assert await server.entries() == []
        assert server.gateway.ledger.running == 0


async def test_an_invalid_request_does_not_count(gateway_server: GatewayServers) -> None:
    async with gateway_server() as server:
        secret = await make_key(server.database, "limited", KeyTerms(requests_per_minute=1))
        async with server.client(secret) as client:
            assert (await client.post(CHAT, json=chat(temperature=9))).status_code == 422
            assert (await client.post(CHAT, json=chat())).status_code == 200


@pytest.mark.parametrize("steps", [(emit("a"), HANG), (HANG,)], ids=["streaming", "before the first token"])
async def test_a_disconnect_frees_the_slot(gateway_server: GatewayServers, steps: tuple[Step, ...]) -> None:
    script = Script((RequestScript(steps, match="slow"), RequestScript((emit("ok"),))))
    async with gateway_server(script) as server:
        secret = await make_key(server.database, "limited", KeyTerms(concurrent_requests=1))
        async with server.client(secret) as client:
            slow = asyncio.create_task(client.post(CHAT, json=chat("slow", stream=True)))
            while not server.engines[0].running:
                await asyncio.sleep(0.01)
            assert (await client.post(CHAT, json=chat())).status_code == 429
            slow.cancel()
            await asyncio.gather(slow, return_exceptions=True)
            while server.engines[0].running:
                await asyncio.sleep(0.01)
            assert (await client.post(CHAT, json=chat())).status_code == 200


async def test_an_engine_failure_frees_the_slot_and_the_tokens(gateway_server: GatewayServers) -> None:
    script = Script((RequestScript((fail("broken"),), match="bad"), RequestScript((emit("ok"),))))
    async with gateway_server(script) as server:
        secret = await make_key(server.database, "limited", KeyTerms(concurrent_requests=1, tokens_per_minute=100))
        async with server.client(secret) as client:
            for _ in range(3):
                assert (await client.post(CHAT, json=chat("bad"))).status_code == 500
            answer = await client.post(CHAT, json=chat(max_tokens=50))
            assert answer.status_code == 200
            assert answer.headers["x-ratelimit-remaining-tokens"] == "48"


async def test_the_rate_limit_route_lists_every_limit(gateway_server: GatewayServers) -> None:
    async with gateway_server(cards=(DEMO,)) as server:
        secret = await make_key(server.database, "limited", KeyTerms(requests_per_minute=9))
        async with server.client(secret) as client:
            await client.post(CHAT, json=chat())
            listed = (await client.get("/v1/me/rate_limit")).json()["data"]
        assert [(one["kind"], one["model"], one["limit"], one["remaining"]) for one in listed] == [
            ("requests_per_minute", None, 9, 8),
            ("concurrent_requests", DEMO, 200, 200),
        ]


# What a request asks for decides what it takes


@pytest.mark.parametrize(
    ("path", "body", "slots"),
    [
        (CHAT, chat(logprobs=True, top_logprobs=20), 5),
        (CHAT, chat(logprobs=True, top_logprobs=20, n=2), 9),
        (CHAT, chat(logprobs=True), 1),
        ("/v1/completions", {"model": DEMO, "prompt": ["a", "b", "c"], "logprobs": 5}, 4),
        ("/v1/messages", {"model": DEMO, "messages": [{"role": "user", "content": "a"}], "max_tokens": 9}, 1),
    ],
)
async def test_a_request_takes_slots_for_its_alternatives(
    gateway_server: GatewayServers, path: str, body: dict[str, object], slots: int
) -> None:
    async with gateway_server(playing(HANG), shutdown_seconds=0.1) as server, server.client() as client:
        waiting = asyncio.create_task(client.post(path, json=body))
        while not server.engines[0].running:
            await asyncio.sleep(0.01)
        limits = (await client.get("/v1/me/rate_limit")).json()["data"]
        (limit,) = [one for one in limits if one["model"] == DEMO and one["kind"] == "concurrent_requests"]
        assert limit["remaining"] == limit["limit"] - slots
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


# A gateway that is behind


async def test_who_is_behind_takes_no_more_until_it_has_caught_up(gateway_server: GatewayServers) -> None:
    async with gateway_server(playing(HANG), shutdown_seconds=0.1) as server, server.client() as client:
        engine = server.engines[0]
        engine.lag_seconds = 0.7
        waiting = asyncio.create_task(client.post(CHAT, json=chat()))  # alone, it is admitted
        while not engine.running:
            await asyncio.sleep(0.01)
        refused = await client.post(CHAT, json=chat())
        error = refused.json()["error"]
        assert (refused.status_code, error["code"]) == (503, "engine_overloaded")
        assert refused.headers["retry-after"] == "2"
        assert "0.7 seconds behind" in error["message"]
        assert "more than 0.5" in error["message"]
        assert (await client.get("/health/live")).status_code == 200
        engine.lag_seconds = 0.4
        second = asyncio.create_task(client.post(CHAT, json=chat()))
        while len(engine.running) < 2:
            await asyncio.sleep(0.01)
        for task in (waiting, second):
            task.cancel()
        await asyncio.gather(waiting, second, return_exceptions=True)
        assert sum(entry["outcome"] != "void" for entry in await server.entries()) == 0


async def test_a_late_event_loop_refuses_requests(gateway_server: GatewayServers) -> None:
    async with gateway_server(playing(HANG), shutdown_seconds=0.1) as server, server.client() as client:
        waiting = asyncio.create_task(client.post(CHAT, json=chat()))
        while not server.engines[0].running:
            await asyncio.sleep(0.01)
        await server.gateway.watch.close()
        server.gateway.watch.note(30.0)
        refused = await client.post(CHAT, json=chat())
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "engine_overloaded")
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
