"""How much of an engine batches take: what others leave, less a part for those that come next, less when it fills."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from engine.base import EngineState
from engine.load import EngineLoad
from engine.script import Script
from engine.scripted import ScriptedEngine
from gateway.batches.room import Room


class Loaded(ScriptedEngine):
    """An engine whose load the test says."""

    def __init__(self, load: EngineLoad) -> None:
        super().__init__(Script())
        self.told = load

    @property
    def load(self) -> EngineLoad:
        return self.told

    @property
    def state(self) -> EngineState:
        return EngineState.READY


async def filled(room: Room, engine: Loaded, rounds: int = 200) -> int:
    """How many run once it has found out, where each ends well."""
    for _ in range(rounds):
        while room.taken < room.limit:
            await room.take()
            engine.told = replace(engine.told, requests=engine.told.requests + 1)
        room.give(well=True)
        engine.told = replace(engine.told, requests=engine.told.requests - 1)
    return room.limit


@pytest.mark.parametrize(("others", "wanted"), [(0, 24), (4, 20), (20, 4), (24, 0), (32, 0)])
async def test_it_grows_into_what_others_leave(others: int, wanted: int) -> None:
    engine = Loaded(EngineLoad(others, 32))
    room = Room(engine, None, lambda: False)
    if wanted:
        assert await filled(room, engine) == wanted
    else:
        assert room.limit == 0


async def test_an_operator_may_bound_it() -> None:
    engine = Loaded(EngineLoad(0, 32))
    assert await filled(Room(engine, 5, lambda: False), engine) == 5


@pytest.mark.parametrize("short", [{"waiting": 3}, {"cache_used": 0.95}])
async def test_it_steps_back_when_requests_wait_or_memory_is_short(short: dict[str, Any]) -> None:
    engine = Loaded(EngineLoad(0, 32))
    room = Room(engine, None, lambda: False)
    before = await filled(room, engine)
    engine.told = replace(engine.told, **short)
    while room.taken:
        room.give(well=True)
    await room.take()
    blocked = asyncio.create_task(room.take())
    await asyncio.sleep(0.05)
    assert room.limit < before
    assert not blocked.done()
    engine.told = EngineLoad(1, 32)
    await asyncio.wait_for(blocked, 5)


async def test_nothing_is_begun_while_the_gateway_is_behind() -> None:
    behind = [True]
    room = Room(Loaded(EngineLoad(0, 8)), None, lambda: behind[0])
    waiting = asyncio.create_task(room.take())
    await asyncio.sleep(0.05)
    assert not waiting.done()
    behind[0] = False
    await asyncio.wait_for(waiting, 5)


async def test_who_asks_first_is_first_and_who_leaves_takes_no_place() -> None:
    engine = Loaded(EngineLoad(0, 2))
    room = Room(engine, 1, lambda: False)
    await room.take()
    order: list[str] = []

    async def ask(name: str) -> None:
        await room.take()
        order.append(name)
        room.give(well=True)

    asks = {name: asyncio.create_task(ask(name)) for name in ("first", "gone", "second")}
    await asyncio.sleep(0)
    asks["gone"].cancel()
    room.give(well=True)
    await asyncio.wait(asks.values())
    assert order == ["first", "second"]
    assert room.taken == 0
