"""Short work of vLLM's renderer in the event loop: handing it to a thread and back costs more than doing it."""

from collections.abc import Awaitable, Callable
from typing import Any

from vllm.renderers import BaseRenderer, hf

# Rendering and tokenizing this many characters takes about a millisecond, as long as one step of a busy event loop.
CHARACTERS_MAX = 4000


def keep_short_work_in_loop(renderer: BaseRenderer) -> None:
    """Templates and tokenizing of short prompts run where they are called; long ones still go to vLLM's threads."""
    in_thread: Callable[..., Awaitable[Any]] = renderer._tokenize_prompt_async

    async def tokenize(prompt: dict[str, Any], params: Any) -> Any:
        if len(prompt["prompt"]) > CHARACTERS_MAX:
            return await in_thread(prompt, params)
        return renderer._tokenize_prompt(prompt, params)

    renderer._tokenize_prompt_async = tokenize
    if isinstance(renderer, hf.HfRenderer):
        template_in_thread: Callable[..., Awaitable[Any]] = renderer._apply_chat_template_async

        async def apply_template(model_config: Any, tokenizer: Any, conversation: list[Any], **options: Any) -> Any:
            if options.get("tools") or not _is_short(conversation):
                return await template_in_thread(model_config, tokenizer, conversation, **options)
            return hf.safe_apply_chat_template(model_config, tokenizer, conversation, **options)

        renderer._apply_chat_template_async = apply_template


def _is_short(conversation: list[Any]) -> bool:
    """Whether it is plain text, and little of it."""
    size = 0
    for message in conversation:
        content = message.get("content")
        if not isinstance(content, str):
            return False
        size += len(content)
        if size > CHARACTERS_MAX:
            return False
    return True
