"""vLLM's renderer, faster: short prompts are rendered where they are asked for, and `tokenizers` is called past
transformers.

Handing a short prompt to a thread and back costs more than doing it, and so do the six tasks that vLLM's asynchronous
renderer makes for one conversation; its synchronous one does the same work without them. Transformers makes lists of
offsets and masks that nobody reads: for a prompt of 8,000 tokens that was a quarter of the front end's CPU.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from copy import deepcopy
from typing import Any

from tokenizers import Tokenizer
from vllm.inputs import TokensPrompt
from vllm.renderers import BaseRenderer, ChatParams, TokenizeParams, hf
from vllm.utils.async_utils import make_async

from engine.quick_templates import PlainTemplates

# Rendering and tokenizing this many characters takes about a millisecond.
CHARACTERS_MAX = 4000

_PROBE = "Grüße, 你好!\n\n\tdef f(x):  return x**2 # <|im_start|>  <s> "

Encode = Callable[[str, bool], list[int]]
"""A text and whether special tokens are put around it; the ids."""


async def take_turns() -> None:
    """Let requests that came together be rendered one after the other, and then be handed to the engine.

    What one needs is then in the processor's caches from the one before. With each going all its way at once, a busy
    front end used a fifth more CPU for the same requests.
    """
    await asyncio.sleep(0)


def quicken(renderer: BaseRenderer) -> None:
    """Short prompts of text are rendered in the caller's turn of the event loop; others still go to vLLM's threads."""
    eos = renderer.get_eos_token_id()
    renderer.get_eos_token_id = lambda: eos  # asked for with each request, and looked up in the vocabulary each time
    encode = _encoder(renderer.tokenizer) if isinstance(renderer, hf.HfRenderer) else None
    if encode is not None:
        _tokenize_with(encode, renderer)
    render_text: Callable[..., Awaitable[Any]] = renderer.render_cmpl_async

    async def text(prompts: Sequence[Any], *options: Any, **more: Any) -> Any:
        if sum(len(prompt.get("prompt", "")) for prompt in prompts) <= CHARACTERS_MAX:
            return renderer.render_cmpl(prompts, *options, **more)
        return await render_text(prompts, *options, **more)

    renderer.render_cmpl_async = text
    if isinstance(renderer, hf.HfRenderer):
        config = renderer.model_config
        if not (config.is_multimodal_model or config.enable_prompt_embeds):
            renderer.render_messages = PlainTemplates(renderer).render_messages
        render_chat: Callable[..., Awaitable[Any]] = renderer.render_chat_async

        async def chat(conversations: Sequence[list[Any]], params: ChatParams, *options: Any, **more: Any) -> Any:
            if not params.chat_template_kwargs.get("tools") and all(map(_is_short, conversations)):
                return renderer.render_chat(conversations, params, *options, **more)
            return await render_chat(conversations, params, *options, **more)

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


def _encoder(tokenizer: Any) -> Encode | None:
    """`tokenizers` called directly, without transformers' batches around it; None where that isn't the same.

    Transformers changes truncation and padding of the one that it holds, so this has its own.
    """
    backend = getattr(tokenizer, "_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        return None
    own = deepcopy(backend)
    own.no_truncation()
    own.no_padding()

    def encode(text: str, special: bool) -> list[int]:
        # The fast one doesn't keep track of where in the text each token stands.
        ids: list[int] = own.encode_batch_fast([text], add_special_tokens=special)[0].ids
        return ids

    for special in (False, True):
        if encode(_PROBE, special) != tokenizer(_PROBE, add_special_tokens=special)["input_ids"]:
            return None
    return encode


def _needs_transformers(params: TokenizeParams) -> bool:
    return bool(params.get_encode_kwargs()["truncation"] or params.return_token_offsets)


def _is_short(conversation: list[Any]) -> bool:
    """Whether it is text alone, and little of it."""
    size = 0
    for message in conversation:
        content = message.get("content")
        for part in [content] if isinstance(content, str) else content or ():
            text = part if isinstance(part, str) else part.get("text")
            if not isinstance(text, str):
                return False
            size += len(text)
    return size <= CHARACTERS_MAX
