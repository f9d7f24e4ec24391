"""Whose turn it is: tiers far apart, and accounts in turns within one, by the tokens they have been served."""

import heapq
from dataclasses import replace

import pytest

from engine.base import Engine
from engine.script import Script
from engine.scripted import ScriptedEngine
from gateway.request.turns import ACCOUNTS_MAX, Turn, Turns
from pricing.keys import Key, KeyTerms
from pricing.tier import Tier

Waiting = tuple[int, int, str, Turn]


def key(account_id: int, weight: int = 100) -> Key:
    return Key(account_id, account_id, "test", "fb-test", "user", KeyTerms(), 0, weight=weight)


class Queue:
    """An engine that begins one request after the other, each as it ended when it is begun."""

    def __init__(self, shared: list[int] | None = None) -> None:
        self.engine: Engine = ScriptedEngine(Script())
        self.turns = Turns([self.engine], shared)
        self._waiting: list[Waiting] = []
        self._arrived = 0

    def add(self, who: Key, count: int = 1, tier: Tier = Tier.DEFAULT, prompt: int = 100) -> None:
        for _ in range(count):
            turn = self.turns.turn(self.engine, tier, who, prompt, 100)
            self._arrived += 1
            heapq.heappush(self._waiting, (turn.priority, self._arrived, f"{who.account_id}", turn))

    def run(self, count: int, completion: int = 100, prompt: int = 100) -> list[str]:
        """Whose requests were begun, in their order."""
        order = []
        for _ in range(count):
            *_, who, turn = heapq.heappop(self._waiting)
            turn.began()
            turn.done(prompt + completion, completion)
            order.append(who)
        return order


def test_an_account_with_one_request_does_not_wait_for_five_hundred_of_another() -> None:
    queue = Queue()
    queue.add(key(1), 500)
    queue.run(20)
    queue.add(key(2))
    assert "2" in queue.run(2)


def test_accounts_get_turns_alike_however_many_requests_they_send() -> None:
    queue = Queue()
    queue.add(key(1), 500)
    queue.add(key(2), 100)
    queue.add(key(3), 100)
    order = queue.run(300)
    assert abs(order.count("1") - order.count("2")) <= 2
    assert abs(order.count("2") - order.count("3")) <= 2


def test_an_account_of_twice_the_weight_gets_twice_the_turns() -> None:
    queue = Queue()
    queue.add(key(1, weight=200), 200)
    queue.add(key(2), 200)
    order = queue.run(150)
    assert order.count("1") == pytest.approx(100, abs=3)


def test_long_requests_count_as_what_they_are() -> None:
    """Prompts of 900 tokens against prompts of 100, with answers of 100: five times as many of the short ones."""
    queue = Queue()
    queue.add(key(1), 200, prompt=900)
    queue.add(key(2), 200)
    order = queue.run(120)
    assert order.count("2") == pytest.approx(5 * order.count("1"), rel=0.2)


def test_answers_longer_than_expected_are_put_right_afterwards() -> None:
    """Who gets answers of 10,000 tokens where 100 were expected waits for the others to catch up."""
    queue = Queue()
    queue.turns.turn(queue.engine, Tier.DEFAULT, key(1), 100, 100_000).done(10_100, 10_000)
    queue.add(key(1), 10)
    queue.add(key(2), 10)
    assert queue.run(11)[:10] == ["2"] * 10


def test_who_was_away_gets_no_credit_for_it() -> None:
    queue = Queue()
    queue.add(key(1), 300)
    queue.run(300)
    queue.add(key(1), 50)
    queue.add(key(2), 50)
    order = queue.run(40)
    assert order.count("2") == pytest.approx(20, abs=2)


def test_tiers_go_one_after_the_other() -> None:
    queue = Queue()
    for tier in (Tier.BATCH, Tier.FLEX, Tier.DEFAULT, Tier.PRIORITY):
        queue.add(key(list(Tier).index(tier)), 50, tier)
    assert queue.run(200) == [*["0"] * 50, *["1"] * 50, *["2"] * 50, *["3"] * 50]


def test_front_ends_of_one_engine_share_the_time() -> None:
    """One of them has begun much, and the other nothing: who comes to the other isn't first for ever."""
    shared = [0] * len(Tier)
    busy, idle = Queue(shared), Queue(shared)
    busy.add(key(1), 100)
    busy.run(100)
    late = idle.turns.turn(idle.engine, Tier.DEFAULT, key(2), 100, 100)
    assert late.priority >= shared[1] > 0


def test_only_so_many_accounts_are_remembered() -> None:
    queue = Queue()
    clock = queue.turns._clocks[queue.engine, Tier.DEFAULT]
    for number in range(ACCOUNTS_MAX + 10):
        queue.add(key(number))
    assert clock.accounts <= ACCOUNTS_MAX
    ahead = clock.accounts
    queue.run(ACCOUNTS_MAX)
    for number in range(2 * ACCOUNTS_MAX):
        queue.add(replace(key(0), account_id=10**6 + number))
        queue.run(1)
    assert clock.accounts <= max(ahead, ACCOUNTS_MAX)
