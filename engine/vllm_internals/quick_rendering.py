"""vLLM's renderer, faster: short prompts are rendered where they are asked for, all others whole in a thread, and
`tokenizers` is called past transformers.

Handing a short prompt to a thread and back costs more than doing it, and so do the six tasks that vLLM's asynchronous
renderer makes for one conversation; its synchronous one does the same work without them. Transformers makes lists of
offsets and masks that nobody reads: for a prompt of 8,000 tokens that was a quarter of the front end's CPU.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext
from copy import deepcopy
from typing import Any, Protocol

from tokenizers import Tokenizer
from vllm.inputs import TokensPrompt
from vllm.renderers import BaseRenderer, ChatParams, TokenizeParams, hf
from vllm.utils.async_utils import make_async

from engine.errors import PromptTooLong
from engine.vllm_internals.quick_templates import PlainTemplates

# Rendering and tokenizing this many characters takes about a millisecond; a message takes as long as some of them.
CHARACTERS_MAX = 4000
MESSAGE_CHARACTERS = 40

# From here on a prompt takes tenths of a second; one at a time, so that a thread is left for those between.
LONG_CHARACTERS = 200_000

# A text of more characters for each token of the context is tokenized in pieces, and no further than it takes to know
# that it is too long: the whole takes seconds and a gigabyte.
TOKEN_CHARACTERS = 8
PIECE_CHARACTERS = 2**16
CUT_SHARE, CUT_TOKENS = 1.1, 1000  # what cutting a text may add, more than generously

_PROBE = "Grüße, 你好!\n\n\tdef f(x):  return x**2 # <|im_start|>  <s> "


class Encode(Protocol):
    def __call__(self, text: str, special: bool, /) -> list[int]:
        """The ids of a text; with `special`, those around it too.

        Beyond the context only their number is right: nobody reads the ids of a prompt that will be refused, and making
        a list of millions holds up everybody. Raises PromptTooLong where even the number would take too long.
        """


async def take_turns() -> None:
    """Let requests that came together be rendered one after the other, and then be handed to the engine.

    What one needs is then in the processor's caches from the one before. With each going all its way at once, a busy
    front end used a fifth more CPU for the same requests.
    """
    await asyncio.sleep(0)


def quicken(renderer: BaseRenderer) -> None:
    """Short prompts of text are rendered in the caller's turn of the event loop, others in vLLM's threads."""
    eos = renderer.get_eos_token_id()
    renderer.get_eos_token_id = lambda: eos  # asked for with each request, and looked up in the vocabulary each time
    encode = None
    if isinstance(renderer, hf.HfRenderer):
        encode = _encoder(renderer.tokenizer, renderer.model_config.max_model_len)
    if encode is not None:
        _tokenize_with(encode, renderer)
    long_ones = asyncio.Lock()
    render_text: Callable[..., Awaitable[Any]] = renderer.render_cmpl_async

    async def text(prompts: Sequence[Any], *options: Any, **more: Any) -> Any:
        size = sum(len(prompt.get("prompt", "")) for prompt in prompts)
        if size <= CHARACTERS_MAX:
            return renderer.render_cmpl(prompts, *options, **more)
        async with long_ones if size > LONG_CHARACTERS else nullcontext():
            return await render_text(prompts, *options, **more)

    renderer.render_cmpl_async = text
    if isinstance(renderer, hf.HfRenderer):
        _render_chats(renderer, long_ones)


def _render_chats(renderer: hf.HfRenderer, long_ones: asyncio.Lock) -> None:
    config = renderer.model_config
    if not (config.is_multimodal_model or config.enable_prompt_embeds):
        renderer.render_messages = PlainTemplates(renderer).render_messages
    render_chat: Callable[..., Awaitable[Any]] = renderer.render_chat_async
    in_thread = make_async(renderer.render_chat, executor=renderer._executor)

    async def chat(conversations: Sequence[list[Any]], params: ChatParams, *options: Any, **more: Any) -> Any:
        variables = params.chat_template_kwargs
        size = _size_of_variables(variables)
        for conversation in conversations:
            if (more_of_it := _size(conversation)) is None:  # images are fetched and read elsewhere
                return await render_chat(conversations, params, *options, **more)
            size += more_of_it
        if size <= CHARACTERS_MAX and not variables.get("tools"):
            return renderer.render_chat(conversations, params, *options, **more)
        async with long_ones if size > LONG_CHARACTERS else nullcontext():
            return await in_thread(conversations, params, *options, **more)

    renderer.render_chat_async = chat


def _tokenize_with(encode: Encode, renderer: BaseRenderer) -> None:
    theirs: Callable[..., Any] = renderer._tokenize_prompt
    theirs_in_thread: Callable[..., Awaitable[Any]] = renderer._tokenize_prompt_async
    encode_in_thread = make_async(encode, executor=renderer._executor)

    def tokenize(prompt: dict[str, Any], params: TokenizeParams) -> TokensPrompt:
        if _needs_transformers(params):
            return theirs(prompt, params)
        return TokensPrompt(prompt_token_ids=encode(prompt["prompt"], params.add_special_tokens), **prompt)

    async def tokenize_in_thread(prompt: dict[str, Any], params: TokenizeParams) -> TokensPrompt:
        if _needs_transformers(params):
            return await theirs_in_thread(prompt, params)
        ids = await encode_in_thread(prompt["prompt"], params.add_special_tokens)
        return TokensPrompt(prompt_token_ids=ids, **prompt)

    renderer._tokenize_prompt = tokenize
    renderer._tokenize_prompt_async = tokenize_in_thread


def _encoder(tokenizer: Any, context: int) -> Encode | None:
    """`tokenizers` called directly, without transformers' batches around it; None where that isn't the same.

    Transformers changes truncation and padding of the one that it holds, so this has its own.
    """
    backend = getattr(tokenizer, "_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        return None
    own = deepcopy(backend)
    own.no_truncation()
    own.no_padding()

    def encoding(text: str, special: bool) -> Any:
        # The fast one doesn't keep track of where in the text each token stands.
        return own.encode_batch_fast([text], add_special_tokens=special)[0]

    def encode(text: str, special: bool, /) -> list[int]:
        if len(text) > TOKEN_CHARACTERS * context:
            refuse_if_too_long(text, context, lambda piece: len(encoding(piece, False)))
        found = encoding(text, special)
        return [0] * len(found) if len(found) > context else list[int](found.ids)

    for special in (False, True):
        if encoding(_PROBE, special).ids != tokenizer(_PROBE, add_special_tokens=special)["input_ids"]:
            return None
    return encode


def refuse_if_too_long(text: str, context: int, count: Callable[[str], int]) -> None:
    tokens = 0
    for start in range(0, len(text), PIECE_CHARACTERS):
        tokens += count(text[start : start + PIECE_CHARACTERS])
        if tokens > CUT_SHARE * context + CUT_TOKENS:
            raise PromptTooLong(context)


def _needs_transformers(params: TokenizeParams) -> bool:
    return bool(params.get_encode_kwargs()["truncation"] or params.return_token_offsets)


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
