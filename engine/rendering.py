"""Conversations and texts into prompts, with vLLM's chat templates, tokenizer and parsers."""

import difflib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from vllm.entrypoints.openai.chat_completion.protocol import (
    ChatCompletionNamedToolChoiceParam,
    ChatCompletionRequest,
    ChatCompletionToolsParam,
)
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.inputs import EngineInput, TextPrompt, tokens_input
from vllm.parser import Parser
from vllm.reasoning import ReasoningParserManager
from vllm.renderers import TokenizeParams, hf
from vllm.renderers.online_renderer import OnlineRenderer
from vllm.sampling_params import StructuredOutputsParams
from vllm.tool_parsers import ToolParserManager

from engine.base import THINKING_BUDGET, ChatFormat, Conversation, JSONValue, Prompt, ResponseFormat
from engine.errors import EngineError, EngineStartError, PromptError, PromptTooLong, UnsupportedFeature
from engine.failures import BARE, prompt_error, template_error, translate
from engine.held_requests import HeldRequest, with_held_tools
from engine.history import calls_apart, own_messages
from engine.pairs import Pairs
from engine.parsing import ChatContext
from engine.sampling import UNCONSTRAINED, Constraints
from engine.template_variables import check_variables
from engine.vllm_internals.constraining import Constraining, HeldTools
from engine.vllm_internals.core import Core
from engine.vllm_internals.renderer import take_turns

_log = logging.getLogger("farebox.engine")

# Without a limit the exact length comes back; the gateway compares it with the context.
_TEXT = TokenizeParams(max_total_tokens=None, add_special_tokens=True)
_BARE_TEXT = TokenizeParams(max_total_tokens=None, add_special_tokens=False)


@dataclass(frozen=True, slots=True)
class Rendered:
    """The handle of a prompt: vLLM's input, and what generating and parsing need to know."""

    engine_input: EngineInput
    token_ids: list[int]
    text: str | None = None
    constraints: Constraints = UNCONSTRAINED
    context: ChatContext | None = None
    reasoning_ended: bool | None = None
    reasoning_parser_kwargs: dict[str, object] | None = None
    second_from: int | None = None  # of a pair: where the second text's tokens begin, for models that look at it


class VLLMRenderer:
    """See `engine.base.Renderer`. Raises EngineStartError when the format can't be had."""

    def __init__(self, core: Core, chat_format: ChatFormat, constraining: Constraining) -> None:
        self._core = core
        self._constraining = constraining
        self._tokenizer = core.renderer.get_tokenizer()
        _check_parser("tool_call_parser", chat_format.tool_call_parser, ToolParserManager.list_registered())
        _check_parser("reasoning_parser", chat_format.reasoning_parser, ReasoningParserManager.list_registered())
        self._format = chat_format
        self._chats = _has_template(core, chat_format)
        reasoning = core.vllm_config.reasoning_config
        self._ends_thinking = chat_format.reasoning_parser is not None and reasoning is not None and reasoning.enabled
        try:
            self._online = OnlineRenderer(
                core.model_config,
                core.rendering,
                request_logger=None,
                chat_template=chat_format.chat_template,
                chat_template_content_format="auto",
                enable_auto_tools=chat_format.tool_call_parser is not None,
                exclude_tools_when_tool_choice_none=True,
                tool_parser=chat_format.tool_call_parser,
                reasoning_parser=chat_format.reasoning_parser,
            )
        except Exception as error:  # parsers check the tokenizer in ways of their own
            cause = error.__cause__ or error
            raise EngineStartError(
                f"The parsers {chat_format.tool_call_parser!r} and {chat_format.reasoning_parser!r} don't go with the "
                f"tokenizer of {core.model_config.model!r} ({cause}); name other parsers in the model card."
            ) from error
        if self._online.parser is not None:
            self._online.parser = with_held_tools(self._online.parser)

    @property
    def chats(self) -> bool:
        return self._chats

    async def chat(self, conversation: Conversation) -> Prompt:
        await take_turns()
        if not self._chats:
            raise UnsupportedFeature(
                "This model has no chat template, so it can't answer conversations; send a text to /v1/completions.",
                conversation.param,
            )
        format_ = await self._constraining.response(conversation.response_format)
        held = None
        if conversation.tools and self._format.tool_call_parser is not None:
            held = await self._constraining.tools(conversation, hold_forced=self._format.hold_forced_calls)
        try:
            handle = await self._chat(conversation, format_, held)
        except PromptError:
            apart = calls_apart(conversation.messages)
            if apart is None:
                raise
            try:
                handle = await self._chat(replace(conversation, messages=apart), format_, held)
            except PromptError:
                apart = None
            if apart is None:
                raise  # what the conversation was refused for as it came
        await take_turns()
        left_out = held.left_out if held is not None else ()
        if conversation.thinking_tokens_max is not None and not self._ends_thinking:
            left_out = (*left_out, THINKING_BUDGET)
        return Prompt(len(handle.token_ids), handle, left_out)

    async def _chat(
        self, conversation: Conversation, format_: StructuredOutputsParams | None, held: HeldTools | None
    ) -> Rendered:
        request = self._request(conversation, format_, held)
        try:
            result = await self._online.render_chat(request)
            if isinstance(result, ErrorResponse):
                raise prompt_error(result.error.message, result.error.param or conversation.param)
            constraint = await self._constraining.check(request.extract_structured_outputs(), format_)
            budget = conversation.thinking_tokens_max if self._ends_thinking else None
            return self._rendered(request, constraint, budget, result[1][0])
        except EngineError:
            raise
        except Exception as error:
            known = template_error(error, conversation)
            raise known or translate(error, param=conversation.param) from error

    async def text(
        self,
        text: str,
        response_format: ResponseFormat | None = None,
        param: str = "prompt",
        special_tokens: bool = True,
    ) -> Prompt:
        await take_turns()
        params = _TEXT if special_tokens else _BARE_TEXT
        try:
            (engine_input,) = await self._core.rendering.render_cmpl_async([TextPrompt(prompt=text)], params)
        except PromptTooLong as error:
            error.param = param
            raise
        except BARE as error:
            raise translate(error, param=param) from error
        await take_turns()
        token_ids = engine_input["prompt_token_ids"]
        constraints = Constraints(structured_outputs=await self._constraining.response(response_format))
        return Prompt(len(token_ids), Rendered(engine_input, token_ids, text=text, constraints=constraints))

    async def pair(self, query: str, document: str, param: str) -> Prompt:
        await take_turns()
        try:
            engine_input, second_from = await self._pairs.render(query, document)
        except BARE as error:
            raise translate(error, param=param) from error
        token_ids = engine_input["prompt_token_ids"]
        return Prompt(len(token_ids), Rendered(engine_input, token_ids, second_from=second_from))

    @cached_property
    def _pairs(self) -> Pairs:
        return Pairs(self._core, self._format.chat_template)

    def token_ids(self, ids: Sequence[int], param: str = "prompt") -> Prompt:
        if len(ids) > self._core.model_config.max_model_len:
            return Prompt(len(ids), Rendered(tokens_input([]), []))  # the gateway refuses it by its length
        token_ids = list(ids)
        size = max(self._core.model_config.get_vocab_size(), self._tokenizer.max_token_id + 1)
        if token_ids and not 0 <= min(token_ids) <= max(token_ids) < size:
            wrong = next(token for token in token_ids if not 0 <= token < size)
            raise PromptError(f"Token id {wrong} is not in this model's vocabulary of {size} tokens.", param)
        return Prompt(len(token_ids), Rendered(tokens_input(token_ids), token_ids))

    def prompt_text(self, prompt: Prompt) -> str:
        handle = rendered(prompt)
        if handle.text is not None:
            return handle.text
        return str(self._tokenizer.decode(handle.token_ids, skip_special_tokens=True))

    def prompt_ids(self, prompt: Prompt) -> Sequence[int]:
        return rendered(prompt).token_ids

    def token_names(self, ids: Sequence[int]) -> list[str]:
        return [str(name) for name in self._tokenizer.convert_ids_to_tokens(list(ids))]

    def decoded(self, prompt: Prompt) -> str:
        return str(self._tokenizer.decode(rendered(prompt).token_ids, skip_special_tokens=False))

    def _request(
        self, conversation: Conversation, response_format: StructuredOutputsParams | None, held: HeldTools | None
    ) -> HeldRequest:
        check_variables(conversation.chat_template_kwargs)
        tools = [ChatCompletionToolsParam.model_validate(dict(tool)) for tool in conversation.tools] or None
        choice = conversation.tool_choice if tools else "none"
        if choice != "none" and self._format.tool_call_parser is None:
            raise UnsupportedFeature("This model has no tool calling; send the request without `tools`.", "tools")
        return HeldRequest.of(
            held.tools if held is not None else None,
            messages=own_messages(conversation.messages, conversation.param),
            tools=tools,
            tool_choice=_tool_choice(choice, tools or []),
            parallel_tool_calls=conversation.parallel_tool_calls,
            structured_outputs=response_format,
            reasoning_effort=conversation.reasoning_effort,
            chat_template_kwargs=dict(conversation.chat_template_kwargs) or None,
            add_generation_prompt=conversation.opens_answer and not conversation.continue_final,
            continue_final_message=conversation.continue_final,
        )

    def _rendered(
        self,
        request: HeldRequest,
        constraint: StructuredOutputsParams | None,
        thinking_tokens_max: int | None,
        engine_input: EngineInput,
    ) -> Rendered:
        token_ids = engine_input["prompt_token_ids"]
        constraints = Constraints(
            structured_outputs=constraint,
            skip_special_tokens=request.skip_special_tokens,
            spaces_between_special_tokens=request.spaces_between_special_tokens,
            include_stop_str_in_output=request.include_stop_str_in_output,
            stop_token_ids=tuple(request.stop_token_ids or ()),
            thinking_tokens_max=thinking_tokens_max,
        )
        parser_class = self._online.parser
        if parser_class is None or not _must_parse(parser_class, request):
            return Rendered(engine_input, token_ids, constraints=constraints)
        kwargs = self._online.effective_chat_template_kwargs(request)
        context = ChatContext(request, parser_class, self._tokenizer, self._core.model_config, kwargs)
        parser = context.parser()
        return Rendered(
            engine_input,
            token_ids,
            constraints=constraints,
            context=context,
            reasoning_ended=request.resolve_reasoning_ended(parser, token_ids),
            reasoning_parser_kwargs={"chat_template_kwargs": kwargs} if parser.reasoning_parser is not None else None,
        )


def rendered(prompt: Prompt) -> Rendered:
    """The handle of a prompt that an embedded engine rendered."""
    if not isinstance(prompt.handle, Rendered):
        raise TypeError("this prompt was rendered by another engine")
    return prompt.handle


def _has_template(core: Core, chat_format: ChatFormat) -> bool:
    """Whether a conversation can be rendered: tokenizers of other kinds than Hugging Face's bring their own way."""
    renderer, config = core.renderer, core.model_config
    if not isinstance(renderer, hf.HfRenderer) or config.hf_config.model_type == "gpt_oss":
        return True
    template = hf.resolve_chat_template(
        renderer.get_tokenizer(), chat_template=chat_format.chat_template, tools=None, model_config=config
    )
    return template is not None


def _must_parse(parser_class: type[Parser], request: ChatCompletionRequest) -> bool:
    return (
        parser_class.reasoning_parser_cls is not None
        or parser_class.always_adjust_request
        or (request.tools is not None and request.tool_choice != "none")
    )


def _tool_choice(
    choice: str | Mapping[str, JSONValue], tools: Sequence[ChatCompletionToolsParam]
) -> str | ChatCompletionNamedToolChoiceParam:
    if isinstance(choice, str):
        return choice
    named = ChatCompletionNamedToolChoiceParam.model_validate(dict(choice))
    known = [tool.function.name for tool in tools]
    if named.function.name not in known:
        raise PromptError(
            f"`tool_choice` names {named.function.name!r}, which is not among `tools` ({', '.join(known)}).",
            "tool_choice",
        )
    return named


def _check_parser(field: str, name: str | None, known: Sequence[str]) -> None:
    if name is not None and name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"vLLM has {', '.join(sorted(known))}."
        raise EngineStartError(f"{field} = {name!r} is not a parser that vLLM has: {hint}")
