"""Chat templates for plain conversations, past what vLLM and transformers do around them.

A conversation of texts alone goes into the template as it came. vLLM first looks for images, tools and embeddings in
it, and transformers is lent a tokenizer from a pool: as much work again as the template's own.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template
from vllm.renderers import ChatParams, hf

Message = dict[str, Any]
RenderMessages = Callable[[list[Message], ChatParams], tuple[list[Message], dict[str, Any]]]

_ROLES = frozenset({"system", "user", "assistant"})
_PLAIN = {"role", "content"}
_ASKS_FOR_MORE = ("tools", "documents", "continue_final_message", "tokenize")
_OURS = frozenset({*_ASKS_FOR_MORE, "add_generation_prompt"})
# What transformers' `apply_chat_template` keeps for itself, and may refuse.
_THEIRS = frozenset(inspect.signature(PreTrainedTokenizerBase.apply_chat_template).parameters) - _OURS
_PLANS_MAX = 64  # one for each template of a card; no name of a client's is in their key


@dataclass(slots=True)
class _Plan:
    """How to render with one template. `parts`: it wants contents as lists of parts; `proven`: vLLM gave the same text
    once."""

    template: str
    parts: bool
    proven: bool | None = None


class PlainTemplates:
    """Renders conversations of texts alone as vLLM would, and leaves all others to it."""

    def __init__(self, renderer: hf.HfRenderer) -> None:
        self._theirs: RenderMessages = renderer.render_messages
        self._tokenizer = renderer.get_tokenizer()
        self._config = renderer.model_config
        self._special_tokens = dict(self._tokenizer.special_tokens_map)
        self._plan = lru_cache(_PLANS_MAX)(self._plan_for)

    def render_messages(self, messages: list[Message], params: ChatParams) -> tuple[list[Message], dict[str, Any]]:
        """`HfRenderer.render_messages`."""
        given = params.chat_template_kwargs
        if not messages or not all(map(_is_plain, messages)) or any(map(given.get, _ASKS_FOR_MORE)):
            return self._theirs(messages, params)
        if not _THEIRS.isdisjoint(given):
            return self._theirs(messages, params)
        plan = self._plan(params.chat_template, params.chat_template_content_format)
        if plan is None or plan.proven is False:
            return self._theirs(messages, params)
        try:
            text = self._render(plan, messages, given)
        except Exception:  # whatever a template raises is vLLM's to tell
            return self._theirs(messages, params)
        if plan.proven is None:
            theirs = self._theirs(messages, params)
            plan.proven = theirs[1] == {"prompt": text}
            return theirs
        return messages, {"prompt": text}

    def _render(self, plan: _Plan, messages: list[Message], given: dict[str, Any]) -> str:
        # vLLM passes on those that the template reads; it doesn't see the others.
        variables = {name: value for name, value in given.items() if name not in _OURS}
        rendered, _ = render_jinja_template(
            [[_in_parts(message) for message in messages] if plan.parts else messages],
            chat_template=plan.template,
            add_generation_prompt=given.get("add_generation_prompt", False),
            **(self._special_tokens | variables),
        )
        return str(rendered[0])

    def _plan_for(self, chat_template: str | None, content_format: str) -> _Plan | None:
        template = hf.resolve_chat_template(
            self._tokenizer, chat_template=chat_template, tools=None, model_config=self._config
        )
        if template is None:
            return None
        content = hf.resolve_chat_template_content_format(
            chat_template, None, content_format, self._tokenizer, model_config=self._config
        )
        return _Plan(template, content == "openai")


def _is_plain(message: Message) -> bool:
    return message.keys() == _PLAIN and message["role"] in _ROLES and isinstance(message["content"], str)


def _in_parts(message: Message) -> Message:
    return {"role": message["role"], "content": [{"type": "text", "text": message["content"]}]}
