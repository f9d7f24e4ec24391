"""vLLM's renderer with shorter ways for text: the same prompts, made where they hold up nobody.

| what is asked for                         | where it is made                                        |
|-------------------------------------------|---------------------------------------------------------|
| a short text or conversation              | in the caller's turn of the event loop                  |
| a longer one, or one with tools           | whole, in a thread; the longest one at a time           |
| one with images, or another kind of model | as vLLM does                                            |

Handing a short prompt to a thread and back costs more than doing it, and so do the six tasks that vLLM's asynchronous
renderer makes for one conversation.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from typing import Any, TypeGuard, TypeVar

from vllm.inputs import EngineInput, TokensInput, tokens_input
from vllm.renderers import BaseRenderer, ChatParams, TokenizeParams, hf

from engine.tokenizing import SHARES_WITH, TokenizingLimits
from engine.vllm_internals.encoding import Encoder
from engine.vllm_internals.templates import Templates

# Rendering and tokenizing this many characters takes about a millisecond; a message takes as long as some of them.
CHARACTERS_MAX = 4000
MESSAGE_CHARACTERS = 40

# From here on a prompt takes tenths of a second; one at a time, so that a thread is left for those between.
LONG_CHARACTERS = 200_000

Made = TypeVar("Made")


async def take_turns() -> None:
    """Let requests that came together be rendered one after the other, and then be handed to the engine.

    What one needs is then in the processor's caches from the one before. With each going all its way at once, a busy
    front end used a fifth more CPU for the same requests.
    """
    await asyncio.sleep(0)


class Renderer:
    """Wraps vLLM's, and stands in its place: what isn't here is vLLM's own."""

    def __init__(self, theirs: BaseRenderer, limits: TokenizingLimits) -> None:
        self._theirs = theirs
        self._eos = theirs.get_eos_token_id()
        self._templates: Templates | None = None
        self._encoder: Encoder | None = None
        if isinstance(theirs, hf.HfRenderer) and not theirs.model_config.is_encoder_decoder:
            self._encoder = Encoder.of(theirs.tokenizer, theirs.model_config.max_model_len, limits)
            self._templates = Templates.of(theirs)
        self._threads = ThreadPoolExecutor(theirs.model_config.renderer_num_workers, "prompts")
        self._long_ones = asyncio.Lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._theirs, name)

    def get_eos_token_id(self) -> int | None:
        """Asked for with each request, and looked up in the vocabulary each time."""
        return self._eos

    def validate_token_ids(self, token_ids: Sequence[int], *, parameter: str | None = None) -> None:
        """Nothing: these come from the tokenizer, or `VLLMRenderer.token_ids` has checked them; a look at each of a
        long prompt's takes milliseconds in the event loop."""

    def close(self) -> None:
        """Without waiting for what is being made."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def render_cmpl_async(
        self, prompts: Sequence[Any], tok_params: TokenizeParams | None = None, **more: Any
    ) -> list[EngineInput]:
        encoder = self._encoder
        if encoder is None or more or not _plain(tok_params) or any(prompt.keys() != {"prompt"} for prompt in prompts):
            found: list[EngineInput] = await self._theirs.render_cmpl_async(prompts, tok_params, **more)
            return found
        texts, special = [prompt["prompt"] for prompt in prompts], tok_params.add_special_tokens
        size = sum(map(len, texts))
        return await self._made(size, lambda: [_input(encoder.encode(text, special)) for text in texts])

    async def render_chat_async(
        self,
        conversations: Sequence[list[Any]],
        chat_params: ChatParams,
        tok_params: TokenizeParams | None = None,
        *,
        prompt_extras: dict[str, Any] | None = None,
        skip_mm_cache: bool = False,
    ) -> Any:
        """The conversations as vLLM read them (none where that was done here: nobody reads them), and the prompts."""
        more = {"prompt_extras": prompt_extras, "skip_mm_cache": skip_mm_cache}
        size = self._size(conversations, chat_params)
        if size is None:
            return await self._theirs.render_chat_async(conversations, chat_params, tok_params, **more)
        if self._templates is None or self._encoder is None or prompt_extras or not _plain(tok_params):
            make = partial(self._theirs.render_chat, conversations, chat_params, tok_params, **more)
        else:
            make = partial(self._chats, conversations, chat_params, tok_params.add_special_tokens, SHARES_WITH.get())
        return await self._made(size, make)

    def _chats(
        self, conversations: Sequence[list[Any]], params: ChatParams, special: bool, whose: str | None
    ) -> tuple[list[list[Any]], list[TokensInput]]:
        templates, encoder = self._templates, self._encoder
        assert templates is not None
        assert encoder is not None
        texts = [templates.render(conversation, params) for conversation in conversations]
        return [[] for _ in texts], [_input(encoder.encode(text, special, whose)) for text in texts]

    def _size(self, conversations: Sequence[list[Any]], params: ChatParams) -> int | None:
        """In characters that take as long to render; None for what is not text, or not this renderer's to make."""
        if not isinstance(self._theirs, hf.HfRenderer):
            return None
        size = _size_of_variables(params.chat_template_kwargs)
        if params.chat_template_kwargs.get("tools"):
            size += CHARACTERS_MAX
        for conversation in conversations:
            more = _size(conversation)
            if more is None:  # images are fetched and read elsewhere
                return None
            size += more
        return size

    async def _made(self, size: int, make: Callable[[], Made]) -> Made:
        if size <= CHARACTERS_MAX:
            return make()
        async with self._long_ones if size > LONG_CHARACTERS else nullcontext():
            return await asyncio.get_running_loop().run_in_executor(self._threads, make)


def _plain(params: TokenizeParams | None) -> TypeGuard[TokenizeParams]:
    """Whether the tokens are wanted as they are: all of them, and nothing beside them."""
    return params is not None and params == TokenizeParams(None, add_special_tokens=params.add_special_tokens)


def _input(token_ids: list[int]) -> TokensInput:
    made = tokens_input(token_ids)
    made["arrival_time"] = time.time()
    return made


def _size(conversation: list[Any]) -> int | None:
    """In characters that take as long to render; None where it isn't text alone."""
    size = 0
    for message in conversation:
        size += MESSAGE_CHARACTERS
        for value in message.values():
            if isinstance(value, str):
                size += len(value)
        content = message.get("content")
        for part in () if isinstance(content, str) else content or ():
            text = part if isinstance(part, str) else part.get("text")
            if not isinstance(text, str):
                return None
            size += len(text) + MESSAGE_CHARACTERS
        for call in message.get("tool_calls") or ():
            size += _size_of_value(call["function"]["arguments"]) + MESSAGE_CHARACTERS
    return size


def _size_of_value(value: Any) -> int:
    """Of arguments, as text or parsed."""
    size, pending = 0, [value]
    while pending:
        one = pending.pop()
        if isinstance(one, str):
            size += len(one)
        elif isinstance(one, Mapping):
            pending.extend(one.values())
            size += sum(map(len, one))
        elif isinstance(one, list):
            pending.extend(one)
        size += 4  # a number, a quote, a comma
    return size


def _size_of_variables(variables: Mapping[str, Any]) -> int:
    """What a request sets for the template may come back in the prompt. What has parts counts as long."""
    return sum(
        len(value) if isinstance(value, str) else CHARACTERS_MAX
        for name, value in variables.items()
        if value is not None and not isinstance(value, bool | int | float) and name != "tools"
    )
