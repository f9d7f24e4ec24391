"""A model's text back into a message: content, reasoning and tool calls, with vLLM's parsers."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vllm.config import ModelConfig
from vllm.entrypoints.generate.base.protocol import DeltaMessage, FunctionCall
from vllm.entrypoints.openai.chat_completion.protocol import (
    ChatCompletionNamedToolChoiceParam,
    ChatCompletionRequest,
)
from vllm.parser import Parser
from vllm.renderers.chat_utils import make_tool_call_id
from vllm.tokenizers import TokenizerLike

from engine.base import ToolCallDelta
from engine.json_text import Mended, mended, whole_characters

NUMBER_CHARACTERS_MAX = 32
_WITHIN_NUMBER = re.compile(r"(?<![\w.])-?\d[\d.eE+-]*\Z")

_log = logging.getLogger("farebox.engine")


@dataclass(frozen=True, slots=True)
class ChatContext:
    """What parsing an answer needs to know of the conversation that it answers."""

    request: ChatCompletionRequest
    parser_class: type[Parser]
    tokenizer: TokenizerLike
    model_config: ModelConfig
    template_kwargs: Mapping[str, object]

    def parser(self) -> Parser:
        """A new parser: they hold the state of one choice."""
        return self.parser_class(
            self.tokenizer,
            self.request.tools,
            chat_template_kwargs=dict(self.template_kwargs),
            model_config=self.model_config,
        )

    @property
    def names_tool(self) -> bool:
        return isinstance(self.request.tool_choice, ChatCompletionNamedToolChoiceParam)


@dataclass(slots=True)
class Parsed:
    """What a piece of output meant."""

    text: str = ""
    reasoning: str | None = None
    tool_calls: list[ToolCallDelta] = field(default_factory=list)


class ChoiceParser:
    """Parses one choice, piece by piece or whole.

    vLLM's streaming parsers lose text in cases where `Parser.parse` on the whole doesn't: Llama's swallows JSON that
    turns out not to be a call, misses a call that follows words, and needs several pieces to report one call. So the
    end of a stream is compared with the whole, and what was lost is sent with the last piece. And they send a number as
    Python writes what there is of it, which the next digit may change ("15e-1" came out as "155"): a piece that ends
    within a number waits for the next.
    """

    def __init__(self, context: ChatContext, prompt_token_ids: list[int]) -> None:
        self._context = context
        self._prompt_token_ids = prompt_token_ids
        self._parser = context.parser()
        self._text = ""
        self._token_ids: list[int] = []
        self._sent = ""
        self._arguments: list[str] = []  # of each call, as sent
        self._mended: list[Mended] = []
        self._broken = False
        self._waiting: tuple[str, list[int]] = ("", [])  # text and token ids that end within a number

    @property
    def made_calls(self) -> bool:
        return bool(self._arguments)

    def reasoning_tokens(self, token_ids: Sequence[int]) -> int:
        return self._parser.count_reasoning_tokens(token_ids)

    def feed(self, text: str, token_ids: Sequence[int], finished: bool) -> Parsed:
        """The next piece of a stream."""
        self._text += text
        self._token_ids += token_ids
        text, token_ids = self._waiting[0] + text, [*self._waiting[1], *token_ids]
        within = len(text) <= NUMBER_CHARACTERS_MAX and _WITHIN_NUMBER.search(self._text[-NUMBER_CHARACTERS_MAX:])
        if within and not finished:
            self._waiting = (text, token_ids)
            return Parsed()
        self._waiting = ("", [])
        parsed = self._track(self._delta(text, token_ids, finished))
        if finished:
            for index, arguments in enumerate(self._mended):
                self._append(parsed, index, arguments.end())
            self._add_lost(parsed)
        return parsed

    def _delta(self, text: str, token_ids: Sequence[int], finished: bool) -> DeltaMessage | None:
        """What vLLM's parser makes of a piece. Once it has failed, text stays text."""
        if not self._broken:
            try:
                return self._parser.parse_delta(
                    text,
                    list(token_ids),
                    self._context.request,
                    prompt_token_ids=self._prompt_token_ids,
                    finished=finished,
                )
            except Exception as error:  # what the model wrote must not cost the answer
                _failed(error)
                self._broken = True
                text = text if self._arguments else _rest(self._text, self._sent)  # and what it kept back
        return DeltaMessage(content=text)

    def whole(self, text: str, token_ids: Sequence[int]) -> Parsed:
        """The whole output at once."""
        try:
            reasoning, content, calls = self._parse(self._parser, text, token_ids)
        except Exception as error:  # as above
            _failed(error)
            reasoning, content, calls = None, text, None
        parsed = Parsed(whole_characters(content or ""), whole_characters(reasoning) if reasoning else None)
        for call in self._allowed(calls):
            parsed.tool_calls.append(self._new_call(call))
        return parsed

    def _parse(
        self, parser: Parser, text: str, token_ids: Sequence[int]
    ) -> tuple[str | None, str | None, list[FunctionCall] | None]:
        parser.set_prompt_token_ids(self._prompt_token_ids)
        return parser.parse(text, self._context.request, enable_auto_tools=True, model_output_token_ids=list(token_ids))

    def _allowed(self, calls: list[FunctionCall] | None) -> list[FunctionCall]:
        return (calls or [])[: 1 if self._context.request.parallel_tool_calls is False else None]

    def _new_call(self, call: FunctionCall) -> ToolCallDelta:
        arguments = mended(call.arguments)
        self._arguments.append(arguments)
        index = len(self._arguments) - 1
        return ToolCallDelta(index, call.id or make_tool_call_id(), whole_characters(call.name), arguments)

    def _track(self, message: DeltaMessage | None) -> Parsed:
        if message is None:
            return Parsed()
        reasoning = whole_characters(message.reasoning) if message.reasoning else None
        parsed = Parsed(whole_characters(message.content or ""), reasoning)
        self._sent += parsed.text
        for call in message.tool_calls or []:
            if call.index > 0 and self._context.request.parallel_tool_calls is False:
                continue
            while len(self._mended) <= call.index:
                self._arguments.append("")
                self._mended.append(Mended())
            name = call.function.name if call.function else None
            arguments = self._mended[call.index].feed((call.function.arguments if call.function else None) or "")
            self._arguments[call.index] += arguments
            parsed.tool_calls.append(
                ToolCallDelta(call.index, call.id, whole_characters(name) if name else name, arguments)
            )
        return parsed

    def _append(self, parsed: Parsed, index: int, arguments: str) -> None:
        if arguments:
            self._arguments[index] += arguments
            parsed.tool_calls.append(ToolCallDelta(index, arguments=arguments))

    def _add_lost(self, parsed: Parsed) -> None:
        try:
            _, content, calls = self._parse(self._context.parser(), self._text, self._token_ids)
        except Exception as error:  # as above
            _failed(error)
            return
        for index, call in enumerate(self._allowed(calls)):
            if index >= len(self._arguments):
                parsed.tool_calls.append(self._new_call(call))
            else:
                self._append(parsed, index, _rest(mended(call.arguments), self._arguments[index]))
        if not self._arguments:
            parsed.text += _rest(content or "", self._sent)


def _failed(error: Exception) -> None:
    _log.warning("The parser of the model's output failed (%s); the output is passed on as it is", type(error).__name__)


def _rest(whole: str, sent: str) -> str:
    return whole[len(sent) :] if whole.startswith(sent) else ""
