"""One real engine on the demo model for all tests of this folder, and short ways to ask it."""

import gc
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from itertools import count

import pytest

from engine.base import (
    ChatFormat,
    Conversation,
    Delta,
    EngineSpec,
    EngineState,
    Generation,
    GenerationRequest,
    JSONValue,
    Prompt,
    Sampling,
)
from engine.demo import MODEL_DIR
from engine.embedded import EmbeddedEngine

LLAMA = ChatFormat(tool_call_parser="llama3_json")

WEATHER: dict[str, JSONValue] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}

_numbers = count()

Start = Callable[..., Awaitable[Generation]]


@pytest.hookimpl(tryfirst=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """vLLM leaves a ZeroMQ context to the collector, which pytest would take for an error at its very end."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(scope="session")
async def engine() -> AsyncIterator[EmbeddedEngine]:
    started = EmbeddedEngine(EngineSpec(str(MODEL_DIR)))
    await started.start()
    assert started.state is EngineState.READY
    yield started
    await started.stop()
    assert started.state is EngineState.STOPPED


@pytest.fixture(scope="session")
def start(engine: EmbeddedEngine) -> Start:
    """Starts a generation: `await start("Hello!", temperature=0)`."""

    async def _start(
        said: str = "Hello!",
        *,
        prompt: Prompt | None = None,
        stream: bool = True,
        cache_salt: str | None = None,
        **sampling: object,
    ) -> Generation:
        if prompt is None:
            prompt = await chat(engine, said)
        chosen = Sampling(**{"max_tokens": 32, **sampling})  # type: ignore[arg-type]  # the test's own values
        name = f"test-{next(_numbers)}"
        return await engine.generate(GenerationRequest(name, prompt, chosen, stream=stream, cache_salt=cache_salt))

    return _start


async def chat(engine: EmbeddedEngine, said: str, chat_format: ChatFormat = LLAMA, **fields: object) -> Prompt:
    conversation = Conversation([{"role": "user", "content": said}], **fields)  # type: ignore[arg-type]  # as above
    return await engine.renderer(chat_format).chat(conversation)


async def read(generation: Generation) -> list[Delta]:
    return [delta async for delta in generation]


def text_of(deltas: Sequence[Delta], index: int = 0) -> str:
    return "".join(delta.text for delta in deltas if delta.index == index)


def arguments_of(deltas: Sequence[Delta], call: int = 0) -> str:
    return "".join(piece.arguments for delta in deltas for piece in delta.tool_calls if piece.index == call)
