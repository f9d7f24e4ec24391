"""Grammars are tried in a process of their own: within limits, once each, and without holding anybody up."""

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import xgrammar
from transformers import AutoTokenizer

from engine.base import WORKS_FOR
from engine.demo import MODEL_DIR
from engine.errors import EngineDead, EngineOverloaded
from engine.grammar.trials import FORKS_MAX, Tokenizer, Trials
from engine.grammar.tried import LENGTH, NUMBER, GrammarLimits, Question, Verdict


def schema(fields: dict[str, Any]) -> Question:
    return Question("json", json.dumps(fields), "schema")


# Each takes seconds of computing, in a way of its own.
REPEATS = "((a|b){0,120}c){0,120}"
COSTLY = {
    "nested repeats": schema({"properties": {name: {"pattern": REPEATS + name} for name in "uvwxyz"}}),
    "a text that is never short": schema({"type": "string", "minLength": 100_000}),
    "many values": schema({"enum": [f"value number {number}" for number in range(9000)]}),
    "many properties": schema({"properties": {f"p{number}": {} for number in range(3000)}, "minProperties": 1500}),
    "many lengths": schema({"prefixItems": [{"minLength": length, "maxLength": 128} for length in range(100)]}),
}


def of_demo() -> Tokenizer:
    tokenizer = AutoTokenizer.from_pretrained(str(MODEL_DIR))
    info = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=2048)
    return Tokenizer("xgrammar", info.serialize_json(), 2048, None)


@pytest.fixture(scope="module")
def tokenizer() -> Callable[[], Tokenizer]:
    found = of_demo()
    return lambda: found


@pytest.fixture
async def trials(tokenizer: Callable[[], Tokenizer]) -> AsyncIterator[Trials]:
    made = Trials(GrammarLimits(seconds=1.0, memory_bytes=256 * 2**20, waiting=4), tokenizer)
    yield made
    await made.close()


def choices(count: int) -> list[Question]:
    return [schema({"enum": [number]}) for number in range(count)]


def process_id() -> int:
    """The id of the process that was started last: engines of other tests have theirs."""
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    found = [int(pid) for pid in children if b"trial_process" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return max(found)


async def ask(trials: Trials, client: str, question: Question) -> Verdict:
    WORKS_FOR.set(client)
    return await trials.ask(question)


async def test_a_schema_comes_back_as_it_is_kept(trials: Trials) -> None:
    verdict = await trials.ask(schema({"type": "string", "title": "A text"}))
    assert verdict == Verdict('{"type": "string"}')
    loosely = await trials.ask(Question("json", '{"not": {}, "type": "string"}', "schema", loose=True))
    assert loosely == Verdict('{"type": "string"}', ("schema.not",))


@pytest.mark.parametrize("question", COSTLY.values(), ids=COSTLY)
async def test_what_costs_too_much_is_refused_with_the_limit(trials: Trials, question: Question) -> None:
    verdict = await trials.ask(question)
    assert "`schema` is too costly" in str(verdict.sentence)
    assert "FAREBOX_GRAMMAR_" in str(verdict.sentence)
    assert verdict.unsupported
    assert (await trials.ask(choices(1)[0])).sentence is None  # the process has survived it


async def test_time_memory_and_steps_are_named(tokenizer: Callable[[], Tokenizer]) -> None:
    cases = [
        (
            GrammarLimits(seconds=0.05),
            COSTLY["nested repeats"],
            "0.05 seconds of computing (FAREBOX_GRAMMAR_SECONDS_MAX)",
        ),
        (
            GrammarLimits(memory_bytes=2**20),
            COSTLY["many values"],
            "1 MiB of memory (FAREBOX_GRAMMAR_MEMORY_BYTES_MAX)",
        ),
        (
            GrammarLimits(30, step_seconds=0.001),
            COSTLY["a text that is never short"],
            "each token (FAREBOX_GRAMMAR",
        ),
    ]
    for limits, question, words in cases:
        trials = Trials(limits, tokenizer)
        try:
            verdict = await trials.ask(question)
        finally:
            await trials.close()
        assert words in str(verdict.sentence)


async def test_the_same_question_is_tried_once(trials: Trials) -> None:
    question = choices(1)[0]
    verdicts = await asyncio.gather(*(trials.ask(question) for _ in range(50)))
    assert {verdict.text for verdict in verdicts} == {'{"enum": [0]}'}
    await trials.ask(question)
    refused = schema({"not": {}})
    assert await trials.ask(refused) == await trials.ask(refused)
    assert trials.tried == 2


async def test_one_client_has_one_try_at_a_time_and_a_short_line(trials: Trials) -> None:
    WORKS_FOR.set("one")
    asked = [asyncio.create_task(trials.ask(question)) for question in choices(5)]
    await asyncio.sleep(0)
    with pytest.raises(EngineOverloaded):
        await trials.ask(schema({}))
    assert all(verdict.sentence is None for verdict in await asyncio.gather(*asked))
    assert (await trials.ask(schema({}))).sentence is None


async def test_costly_schemas_of_one_client_do_not_hold_up_another(trials: Trials) -> None:
    """The other one is answered while the first's line is still there: it doesn't wait behind it."""

    costly = [schema({"type": "string", "minLength": 100_000 + number}) for number in range(4)]
    waiting = [asyncio.create_task(ask(trials, "bad", question)) for question in costly]
    await asyncio.sleep(0)
    good = [asyncio.create_task(ask(trials, f"good {number}", question)) for number, question in enumerate(choices(20))]
    assert all(verdict.sentence is None for verdict in await asyncio.gather(*good))
    assert sum(task.done() for task in waiting) < len(waiting)
    await asyncio.gather(*waiting)


async def test_one_process_serves_those_that_come_first(tokenizer: Callable[[], Tokenizer]) -> None:
    trials = Trials(GrammarLimits(), tokenizer)
    asked = [asyncio.create_task(ask(trials, str(n), question)) for n, question in enumerate(choices(4))]
    await asyncio.gather(*asked)
    process_id()
    await trials.close()


async def test_at_most_so_many_run_at_a_time(trials: Trials) -> None:
    running = []

    async def watched(client: str, question: Question) -> None:
        await ask(trials, client, question)
        running.append(len(trials._busy))

    questions = enumerate(choices(30))
    await asyncio.gather(*(asyncio.create_task(watched(str(number), question)) for number, question in questions))
    assert max(running) <= FORKS_MAX


async def test_a_process_that_was_killed_is_started_again(trials: Trials) -> None:
    first, second, third = choices(3)
    await trials.ask(first)
    before = process_id()
    os.kill(before, signal.SIGKILL)
    for _ in range(100):  # the end is heard of a moment later
        try:
            assert (await trials.ask(second)).sentence is None
            break
        except EngineOverloaded:
            continue
    assert (await trials.ask(third)).sentence is None
    assert process_id() != before


async def test_closing_ends_the_process_and_those_who_wait(tokenizer: Callable[[], Tokenizer]) -> None:
    trials = Trials(GrammarLimits(), tokenizer)
    await trials.close()  # it hasn't started
    trials = Trials(GrammarLimits(), tokenizer)
    await trials.ask(choices(1)[0])
    pid = process_id()
    waiting = [asyncio.create_task(trials.ask(question)) for question in [*COSTLY.values(), *choices(4)[1:]]]
    await asyncio.sleep(0.05)
    await trials.close()
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(end) for end in ended} <= {EngineDead, EngineOverloaded, Verdict}
    assert not Path(f"/proc/{pid}").exists()
    await trials.close()


async def test_the_process_ends_with_its_input(tokenizer: Callable[[], Tokenizer]) -> None:
    """So it does when the gateway is killed, with whatever it is trying."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "engine.grammar.trial_process"), stdin=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    for content in (
        json.dumps({"limits": asdict(GrammarLimits(60.0)), **asdict(tokenizer())}).encode(),
        NUMBER.pack(1) + COSTLY["many values"].line(),
    ):
        process.stdin.write(LENGTH.pack(len(content)) + content)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while not (forks := children.read_text().split()):
        await asyncio.sleep(0.01)
    process.stdin.close()
    assert await process.wait() == 0
    while any(Path(f"/proc/{fork}").exists() for fork in forks):  # for as long as the test may take
        await asyncio.sleep(0.01)


async def test_the_process_is_small_and_knows_no_secrets(trials: Trials, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAREBOX_ADMIN_KEY", "a-secret-of-24-characters")
    await trials.ask(choices(1)[0])
    folder = Path(f"/proc/{process_id()}")
    mapped = (folder / "maps").read_text()
    assert "xgrammar" in mapped
    assert not re.search(r"libtorch|vllm", mapped)
    assert b"a-secret-of-24-characters" not in (folder / "environ").read_bytes()
    assert re.search(r"^Threads:\s+1$", (folder / "status").read_text(), re.M)  # so that a fork is whole


async def test_what_the_answers_take_is_bounded(trials: Trials) -> None:
    from engine.grammar import trials as module

    kept = Verdict("x" * (module.KEPT_BYTES_MAX // 3))
    for number in range(10):
        trials._keep(str(number).encode(), kept)
    assert len(trials._kept) == 2


async def test_guidance_keeps_what_it_can_and_names_what_it_cannot() -> None:
    tokenizer = AutoTokenizer.from_pretrained(str(MODEL_DIR))
    found = Tokenizer("guidance", tokenizer.backend_tokenizer.to_str(), 2048, tokenizer.eos_token_id)
    trials = Trials(GrammarLimits(), lambda: found)
    for kept in (
        {"type": "string", "pattern": "^a+$", "maxLength": 5},
        {"allOf": [{"type": "integer"}, {"minimum": 3}]},
    ):
        assert await trials.ask(schema(kept)) == Verdict(json.dumps(kept))
    refused: list[dict[str, Any]] = [{"type": "array", "uniqueItems": True}, {"not": {}}, {"$ref": "#/nowhere"}]
    for fields, word in zip(refused, ("uniqueItems", "not", "nowhere"), strict=True):
        assert word in str((await trials.ask(schema(fields))).sentence)
    assert (await trials.ask(Question("regex", "[a-c]{3}", "regex"))).sentence is None
    calls = Question("structural_tag", "{}", "tools", written=False)
    assert "can't hold calls" in str((await trials.ask(calls)).sentence)
    await trials.close()
