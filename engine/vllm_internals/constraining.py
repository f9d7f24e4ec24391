"""What a request wants its answer held to, as vLLM's parameters: tried and found good before the engine sees it.

vLLM's own check would make the grammar in the caller's thread, which is the event loop's; `core` turns it off.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import TokenizersBackend
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionToolsParam
from vllm.parser import abstract_parser
from vllm.sampling_params import StructuredOutputsParams
from vllm.tokenizers import cached_tokenizer_from_config
from vllm.v1.structured_output.backend_xgrammar import XgrammarBackend
from vllm.v1.structured_output.request import get_structured_output_key
from vllm.v1.structured_output.utils import grammar_is_likely_lark

from engine.base import Conversation, JSONValue, ResponseFormat
from engine.errors import EngineStartError, PromptError, UnsupportedFeature
from engine.grammar.trials import Tokenizer, Trials
from engine.grammar.tried import GrammarLimits, Question, Verdict
from engine.vllm_internals.core import Core

# It would make a grammar in the event loop, to see whether it can. Ours has been tried by then.
abstract_parser._xgrammar_supports = lambda params: True

ANY_OBJECT: dict[str, Any] = {"type": "object"}
NO_ARGUMENTS: dict[str, Any] = {"type": "object", "properties": {}}


@dataclass(frozen=True, slots=True)
class HeldTools:
    """The tools of a request as a grammar is made of them, and what of their schemas the calls won't be held to."""

    tools: list[ChatCompletionToolsParam]
    left_out: tuple[str, ...] = ()


class Constraining:
    """For one engine, in one event loop. Its methods raise PromptError, EngineOverloaded and EngineDead."""

    def __init__(self, core: Core, limits: GrammarLimits) -> None:
        self._core = core
        self.backend: str = core.vllm_config.structured_outputs_config.backend
        if self.backend == "guidance" and not isinstance(core.renderer.get_tokenizer(), TokenizersBackend):
            raise EngineStartError(
                "The structured-output backend 'guidance' needs a fast tokenizer of Hugging Face's; leave "
                "structured_outputs_config out of the card's `engine`."
            )
        self.trials = Trials(limits, self._tokenizer)

    async def response(self, wanted: ResponseFormat | None) -> StructuredOutputsParams | None:
        """Parameters that hold an answer to this."""
        if wanted is None:
            return None
        if wanted.kind == "json_object":
            return self._marked(StructuredOutputsParams(json_object=True))
        if wanted.kind == "json_schema":
            verdict = _accepted(await self._ask_about_schema(wanted.json_schema or {}, wanted.place))
            return self._marked(StructuredOutputsParams(json=verdict.text))
        expression = wanted.regex or ""
        _check_size(expression, wanted.place, self.trials.limits.schema_bytes)
        verdict = _accepted(await self.trials.ask(Question("regex", expression, wanted.place)))
        return self._marked(StructuredOutputsParams(regex=verdict.text))

    async def tools(self, conversation: Conversation, *, hold_forced: bool) -> HeldTools | None:
        """The tools with schemas that calls can be held to; None where nothing holds them.

        Calls of `strict` functions are held to their schemas, and so are forced ones and those that the conversation
        wants held. A schema of a `strict` function that can't be kept is refused; of another one, what can't be kept is
        left out.
        """
        choice = conversation.tool_choice
        named = None if isinstance(choice, str) else _function(choice).get("name")
        forced = hold_forced and choice not in ("none", "auto")
        strict_ones = any(_function(tool).get("strict") is True for tool in conversation.tools)
        if choice == "none" or not (forced or strict_ones or conversation.held):
            return None
        held: list[ChatCompletionToolsParam] = []
        left_out: list[str] = []
        places = conversation.schema_places or [
            f"tools[{index}].{conversation.schema_field}" for index in range(len(conversation.tools))
        ]
        for index, tool in enumerate(conversation.tools):
            function = _function(tool)
            strict = function.get("strict") is True
            wanted = strict or forced or function.get("name") in conversation.held
            if wanted and named in (None, function.get("name")):
                parameters, lost = await self._parameters(function.get("parameters"), places[index], strict=strict)
                tool = {**tool, "function": {**function, "parameters": parameters, "strict": True}}
                left_out += lost
            held.append(ChatCompletionToolsParam.model_validate(dict(tool)))
        return HeldTools(held, tuple(left_out))

    async def check(
        self, params: StructuredOutputsParams | None, tried: StructuredOutputsParams | None
    ) -> StructuredOutputsParams | None:
        """Tries what vLLM has put together from the parts that were tried: the calls of a model's own format."""
        if params is None or params is tried:
            return params
        option, text = get_structured_output_key(params)
        kind = "lark" if option.name == "GRAMMAR" and grammar_is_likely_lark(text) else option.name.lower()
        if kind == "json_object":
            return self._marked(params)
        _accepted(await self.trials.ask(Question(kind, text, "tools", written=False)))  # type: ignore[arg-type]  # vLLM's names
        return self._marked(params)

    async def _parameters(
        self, schema: JSONValue, place: str, *, strict: bool
    ) -> tuple[Mapping[str, JSONValue], Sequence[str]]:
        """What a call's arguments are held to, and what is left out of it."""
        if not isinstance(schema, Mapping) or not schema:
            return NO_ARGUMENTS, ()
        verdict = await self._ask_about_schema(schema, place, loose=not strict)
        if strict:
            _accepted(verdict)
        if verdict.sentence is not None:
            return ANY_OBJECT, (place,)
        held = json.loads(verdict.text)
        return held or ANY_OBJECT, verdict.left_out

    async def _ask_about_schema(self, schema: Mapping[str, JSONValue], place: str, *, loose: bool = False) -> Verdict:
        _check_size(schema, place, self.trials.limits.schema_bytes)
        return await self.trials.ask(Question("json", json.dumps(schema), place, loose=loose))

    def _marked(self, params: StructuredOutputsParams) -> StructuredOutputsParams:
        """As vLLM's check would have left them: the engine takes its backend from the first request that has one."""
        params._backend = self.backend
        return params

    def _tokenizer(self) -> Tokenizer:
        """What vLLM's engine process makes its grammars with. Takes up to a second, so it is called in a thread."""
        config = self._core.vllm_config
        tokenizer = cached_tokenizer_from_config(model_config=config.model_config)
        size = config.model_config.get_vocab_size()
        if self.backend == "guidance":
            written = tokenizer.backend_tokenizer.to_str()
            return Tokenizer("guidance", written, max(size, len(tokenizer)), tokenizer.eos_token_id)
        theirs = XgrammarBackend(config, tokenizer=tokenizer, vocab_size=size)
        info = theirs.compiler.compile_regex("a").tokenizer_info
        return Tokenizer("xgrammar", info.serialize_json(), info.vocab_size, None)

    async def close(self) -> None:
        """Ends the trial process."""
        await self.trials.close()


def _accepted(verdict: Verdict) -> Verdict:
    if verdict.sentence is None:
        return verdict
    kind = UnsupportedFeature if verdict.unsupported else PromptError
    raise kind(verdict.sentence, verdict.place)


def _function(tool: Mapping[str, JSONValue]) -> Mapping[str, JSONValue]:
    function = tool.get("function")
    return function if isinstance(function, Mapping) else {}


def _check_size(value: JSONValue, place: str, bytes_max: int) -> None:
    """Raises UnsupportedFeature where it would take about more than `bytes_max` to write; looks no further then."""
    left, waiting = bytes_max, [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            left -= len(one)
        elif isinstance(one, Mapping):
            left -= sum(len(name) + 4 for name in one) if len(one) <= left else bytes_max
            waiting.extend(one.values())
        elif isinstance(one, Sequence):
            left -= len(one)
            waiting.extend(one if len(one) <= bytes_max else ())
        left -= 4
        if left < 0:
            raise UnsupportedFeature(
                f"`{place}` is larger than the {bytes_max} bytes that a schema or an expression may have "
                "(FAREBOX_GRAMMAR_BYTES_MAX). Send a smaller one.",
                place,
            )
