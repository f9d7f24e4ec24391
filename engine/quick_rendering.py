"""vLLM's renderer, faster: short work stays in the event loop, and `tokenizers` is called past transformers.

Handing a short prompt to a thread and back costs more than doing it. Transformers makes lists of offsets and masks
that nobody reads: for a prompt of 8,000 tokens that was a quarter of the front end's CPU.
"""

from collections.abc import Awaitable, Callable
from copy import deepcopy
from typing import Any

from tokenizers import Tokenizer
from vllm.inputs import TokensPrompt
from vllm.renderers import BaseRenderer, TokenizeParams, hf
from vllm.utils.async_utils import make_async

# Rendering and tokenizing this many characters takes about a millisecond.
CHARACTERS_MAX = 4000

_PROBE = "Grüße, 你好!\n\n\tdef f(x):  return x**2 # <|im_start|>  <s> "

Encode = Callable[[str, bool], list[int]]
"""A text and whether special tokens are put around it; the ids."""


def quicken(renderer: BaseRenderer) -> None:
    """Templates and tokenizing of short prompts run where they are called; long ones still go to vLLM's threads."""
    in_thread: Callable[..., Awaitable[Any]] = renderer._tokenize_prompt_async
    encode = _encoder(renderer.tokenizer) if isinstance(renderer, hf.HfRenderer) else None
    encode_in_thread = None if encode is None else make_async(encode, executor=renderer._executor)

    async def tokenize(prompt: dict[str, Any], params: TokenizeParams) -> TokensPrompt:
        text = prompt["prompt"]
        short = len(text) <= CHARACTERS_MAX
        if encode is None or encode_in_thread is None or _needs_transformers(params):
            return renderer._tokenize_prompt(prompt, params) if short else await in_thread(prompt, params)
        special = params.add_special_tokens
        ids = encode(text, special) if short else await encode_in_thread(text, special)
        return TokensPrompt(prompt_token_ids=ids, **prompt)

    renderer._tokenize_prompt_async = tokenize
    if isinstance(renderer, hf.HfRenderer):
        template_in_thread: Callable[..., Awaitable[Any]] = renderer._apply_chat_template_async

        async def apply_template(model_config: Any, tokenizer: Any, conversation: list[Any], **options: Any) -> Any:
            if options.get("tools") or not _is_short(conversation):
                return await template_in_thread(model_config, tokenizer, conversation, **options)
            return hf.safe_apply_chat_template(model_config, tokenizer, conversation, **options)

        renderer._apply_chat_template_async = apply_template


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
