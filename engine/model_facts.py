"""What a model's files say of it: all that a model card would. Nothing is loaded but configuration and tokenizer.

vLLM reads them, so that whatever vLLM can load can be asked. Importing this module imports vLLM.
"""

import logging
from collections.abc import Callable, Sequence

from vllm.config import ModelConfig
from vllm.reasoning import ReasoningParserManager
from vllm.renderers import hf
from vllm.tokenizers import TokenizerLike, cached_tokenizer_from_config
from vllm.tool_parsers import ToolParserManager
from vllm.utils.mistral import is_mistral_tokenizer

from engine.args import engine_args
from engine.base import EngineSpec
from engine.errors import EngineStartError
from engine.facts import ModelFacts, ModelTask
from engine.families import REASONING, TOOL_CALLS, Row, parser_of
from engine.starting import reason

_log = logging.getLogger("farebox.engine")

# The formats of tokenizers that bring their own instead of a template.
_MISTRAL = "[TOOL_CALLS]"


def facts_of(spec: EngineSpec) -> ModelFacts:
    """Raises EngineStartError, with one sentence."""
    try:
        config = engine_args(spec, None).create_model_config()
        tokenizer = cached_tokenizer_from_config(config)
    except EngineStartError:
        raise
    except Exception as error:  # the hub, transformers and vLLM have many ways to say no
        raise EngineStartError(reason(spec, error, None)) from error
    task = _task(config, spec)
    template = _template(config, tokenizer) if task == "generate" else None
    family = str(config.hf_config.model_type)
    return ModelFacts(
        task=task,
        context_length=int(config.max_model_len),
        chats=template is not None,
        tool_call_parser=_parser(TOOL_CALLS, family, template, tokenizer, ToolParserManager.get_tool_parser),
        reasoning_parser=_parser(REASONING, family, template, tokenizer, ReasoningParserManager.get_reasoning_parser),
    )


def _task(config: ModelConfig, spec: EngineSpec) -> ModelTask:
    if config.runner_type == "generate":
        return "generate"
    kinds: dict[str, ModelTask] = {"bi-encoder": "embed", "cross-encoder": "score"}
    kind = kinds.get(config.score_type)
    if kind is None:
        raise EngineStartError(
            f"{spec.source!r} ({config.architecture}) neither writes text nor makes embeddings or scores of pairs; it "
            "can't be served here."
        )
    return kind


def _template(config: ModelConfig, tokenizer: TokenizerLike) -> str | None:
    """The chat template's text; what stands for it where the tokenizer lays out conversations by itself."""
    if is_mistral_tokenizer(tokenizer):
        return _MISTRAL
    if config.hf_config.model_type == "gpt_oss":
        return ""
    found = hf.resolve_chat_template(tokenizer, chat_template=None, tools=None, model_config=config)
    # Where there are several, the one for tools shows their format.
    tools = hf.resolve_chat_template(tokenizer, chat_template=None, tools=[{}], model_config=config)
    return None if found is None else str(tools or found)


def _parser(
    rows: Sequence[Row],
    family: str,
    template: str | None,
    tokenizer: TokenizerLike,
    find: Callable[[str], Callable[[TokenizerLike], object]],
) -> str | None:
    """The family's parser, if it goes with the tokenizer: it may miss tokens or a package."""
    if template is None:
        return None
    name = parser_of(tuple(rows), family, template)
    if name is None:
        return None
    try:
        find(name)(tokenizer)
    except Exception as error:  # parsers check the tokenizer in ways of their own
        _log.warning("vLLM's parser %r doesn't go with this model's tokenizer (%s); going on without.", name, error)
        return None
    return name
