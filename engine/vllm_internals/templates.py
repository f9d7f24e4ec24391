"""Chat templates without the search for them.

For each conversation vLLM looks for the template, reads what names it has, and transformers is lent a tokenizer from a
pool: as much work again as a short conversation in the template. All of it depends on the template alone. Here vLLM is
asked once for each template; a conversation is read by vLLM (`parse_chat_messages`) and rendered by transformers
(`render_jinja_template`), with what the two would pass to each other on the way.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jinja2.meta
import jinja2.sandbox
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template
from vllm.renderers import ChatParams, hf
from vllm.renderers.chat_utils import parse_chat_messages
from vllm.tokenizers.hf import ThreadSafeHFTokenizerMixin

Message = dict[str, Any]

_PLANS_MAX = 64  # one for each template of a card; no name of a client's is in their key
_NAMES = frozenset(inspect.signature(PreTrainedTokenizerBase.apply_chat_template).parameters)
# Of those the ones that go on into the template; the others say what becomes of its text.
_PASSED = frozenset({"documents", "add_generation_prompt", "continue_final_message"})


@dataclass(frozen=True, slots=True)
class _Plan:
    """What vLLM finds for one template. `names`: the variables that it passes on."""

    template: str
    content_format: Any
    names: frozenset[str]


class Templates:
    """`HfRenderer.render_messages` for conversations of text."""

    def __init__(self, renderer: hf.HfRenderer) -> None:
        self._renderer = renderer
        self._tokenizer = renderer.get_tokenizer()
        self._config = renderer.model_config
        self._special_tokens = dict(self._tokenizer.special_tokens_map)
        self._plan = lru_cache(_PLANS_MAX)(self._plan_for)

    @classmethod
    def of(cls, renderer: hf.HfRenderer) -> "Templates | None":
        """None where there is more to a conversation than text, or the tokenizer renders in a way of its own."""
        config = renderer.model_config
        if config.is_multimodal_model or config.enable_prompt_embeds:
            return None
        kinds = type(renderer.get_tokenizer()).__mro__
        own = (
            kind.__name__
            for kind in kinds
            for method in ("apply_chat_template", "get_chat_template", "special_tokens_map")
            if method in vars(kind)
            and kind is not PreTrainedTokenizerBase
            and not issubclass(kind, ThreadSafeHFTokenizerMixin)  # vLLM's pool, which lends one of the same kind
        )
        return None if any(own) else cls(renderer)

    def render(self, messages: list[Message], params: ChatParams) -> str:
        """The prompt's text. Raises what vLLM would."""
        given = params.get_apply_chat_template_kwargs()
        tools = given.pop("tools", None)
        plan = self._plan(given.pop("chat_template", None), params.chat_template_content_format, tools is None)
        given.pop("return_dict", None)
        tokenizes = given.pop("tokenize", True)
        variables = {name: value for name, value in given.items() if plan is not None and name in plan.names}
        if plan is None or not messages or tokenizes or not _NAMES.isdisjoint(variables.keys() - _PASSED):
            return self._by_vllm(messages, params)
        if variables.get("continue_final_message") and variables.get("add_generation_prompt"):
            return self._by_vllm(messages, params)
        conversation, _, _ = parse_chat_messages(
            messages,
            self._config,
            content_format=plan.content_format,
            media_io_kwargs=params.media_io_kwargs,
            mm_processor_kwargs=params.mm_processor_kwargs,
        )
        if any(message["role"] == "developer" for message in conversation):  # a role that not all templates know
            return self._by_vllm(messages, params)
        try:
            texts, _ = render_jinja_template(
                [conversation], tools=tools, chat_template=plan.template, **(self._special_tokens | variables)
            )
        except Exception:  # whatever a template raises is vLLM's to tell
            return self._by_vllm(messages, params)
        return str(texts[0])

    def _by_vllm(self, messages: list[Message], params: ChatParams) -> str:
        _, prompt = self._renderer.render_messages(messages, params)
        return str(prompt["prompt"])

    def _plan_for(self, chat_template: str | None, content_format: Any, bare: bool) -> _Plan | None:
        tools: list[Message] | None = None if bare else []
        template = hf.resolve_chat_template(
            self._tokenizer, chat_template=chat_template, tools=tools, model_config=self._config
        )
        if template is None:
            return None
        content = hf.resolve_chat_template_content_format(
            chat_template, tools, content_format, self._tokenizer, model_config=self._config
        )
        return _Plan(template, content, frozenset(self._passed_on(template)))

    def _passed_on(self, template: str) -> Mapping[str, Any]:
        """Which names vLLM lets through to this template: of all that it may, since it looks at nothing but those of
        the template and of transformers' function."""
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[hf.AssistantTracker, "jinja2.ext.loopcontrols"]
        )
        names = jinja2.meta.find_undeclared_variables(environment.parse(template)) | _NAMES
        asked = dict.fromkeys(names - {"chat_template", "tokenize", "tools", "kwargs"})
        return hf.resolve_chat_template_kwargs(self._tokenizer, template, asked)
