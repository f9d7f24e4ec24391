"""The log of requests: the latest first, one's own only, page by page."""

from pricing.key import Key
from pricing.ledger import Ledger
from pricing.request_log import LogFilter, RequestLog
from pricing.reservation import Outcome
from tests.pricing.ledger_world import DAY, NOON, TOKEN, World, used


async def spend(world: World, ledger: Ledger, key: Key, tokens: int, **changes: object) -> None:
    reservation = ledger.reserve(world.request(key, 100, **changes))  # type: ignore[arg-type]
    await reservation.stands()
    if tokens:
        reservation.settle(used(tokens - 1), Outcome.FINISHED)
    else:
        reservation.void("engine_overloaded")
    await ledger.flush()


async def test_pages_follow_each_other_without_a_gap(world: World) -> None:
    one, two = (await world.key()).key, (await world.key()).key
    log = RequestLog(world.database)
    async with world.ledger() as ledger:
        for number in range(7):  # several in one millisecond
            world.clock.at += number % 2
            await spend(world, ledger, one, 1, request_id=f"r{number}")
        await spend(world, ledger, two, 1, request_id="other")
        seen, cursor = [], ""
        while page := await log.list(LogFilter(key_id=one.id), before=cursor, count_max=3):
            seen += [entry.request_id for entry in page]
            cursor = page[-1].cursor
    assert seen == ["r6", "r5", "r4", "r3", "r2", "r1", "r0"]
    assert [entry.request_id for entry in await log.list(LogFilter(account_id=two.account_id))] == ["other"]
    for cursor in ("x", "9" * 20, "1.\0", f"{NOON + DAY}.z"):
        assert len(await log.list(LogFilter(key_id=one.id), before=cursor)) == 7


async def test_what_only_entries_tell(world: World) -> None:
    key = (await world.key()).key
    log = RequestLog(world.database)
    async with world.ledger() as ledger:
        await spend(world, ledger, key, 10, user="ada")
        world.clock.at += DAY
        await spend(world, ledger, key, 20, user="ada", model="big")
        await spend(world, ledger, key, 5)
        await spend(world, ledger, key, 0, user="bob")
    users = await log.users(LogFilter(key_id=key.id))
    assert [(one.user, one.requests, one.cost // TOKEN) for one in users] == [("ada", 2, 30), (None, 1, 5)]
    assert users[0].tokens == used(28, prompt=2)
    second_day = LogFilter(key_id=key.id, since=NOON + DAY, until=NOON + 2 * DAY)
    assert await log.outcomes(second_day) == {"finished": 2, "void": 1}
    assert await log.outcomes(LogFilter(model="big")) == {"finished": 1}
    assert await log.outcomes(LogFilter(key_id=99)) == {}
    voided = await log.list(second_day, count_max=1)
    assert (voided[0].state, voided[0].reason, voided[0].cost) == ("void", "engine_overloaded", 0)
