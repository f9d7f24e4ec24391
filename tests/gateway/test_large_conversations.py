"""How much a body holds is found without a parser, and never too little of it."""

import json
import random

import pytest

from gateway.request.large_bodies import VALUES_INLINE, values_at_most

TEXTS = ('"', "\\", '\\"', ",", "[{", "a,b,[c]{d}", 'say \\\\" and "', "Grüße", "\n", "\u2028", "")


def value(chance: random.Random, depth: int) -> object:
    match chance.randrange(6 if depth else 4):
        case 0 | 1:
            return "".join(chance.choice(TEXTS) for _ in range(chance.randrange(40)))
        case 2:
            return chance.choice((1, -2.5e9, True, None))
        case 3:
            return chance.choice(([], {}))
        case 4:
            return [value(chance, depth - 1) for _ in range(chance.randrange(1, 12))]
        case _:
            names = {chance.choice(TEXTS) + str(number) for number in range(chance.randrange(1, 12))}
            return {name: value(chance, depth - 1) for name in names}


def values_in(held: object) -> int:
    if isinstance(held, dict):
        return 1 + sum(map(values_in, held.values()))
    return 1 + sum(map(values_in, held)) if isinstance(held, list) else 1


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("ascii_only", [True, False])
def test_no_value_is_missed(seed: int, ascii_only: bool) -> None:
    chance = random.Random(seed)
    held = [value(chance, 4) for _ in range(chance.choice((10, 60)))]
    held.append(",[{" * VALUES_INLINE)  # so that a second look is worth it
    raw = json.dumps(held, ensure_ascii=ascii_only).encode()
    assert values_in(held) <= values_at_most(raw) < raw.count(b",")


def test_long_texts_are_few_values() -> None:
    code = "def f(a, b):\n    return {'a': [a, b], 'b': \"{x}, {y}\"}  # \\d, \\\\\n" * 200
    body = {"messages": [{"role": "user", "content": code}] * 40, "stream": True}
    assert values_in(body) <= values_at_most(json.dumps(body).encode()) < 2 * values_in(body)


@pytest.mark.parametrize("more", [b'"a":1,', b'{"a":1},', b"1,", b"[],", b'"\\"",'])
def test_many_values_are_many(more: bytes) -> None:
    assert values_at_most(b"[" + more * (VALUES_INLINE + 1) + b"0]") > VALUES_INLINE
