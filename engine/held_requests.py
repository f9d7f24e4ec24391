"""vLLM's chat request as it is rendered here: with the tools that grammars are made of beside those that are shown."""

from pydantic import PrivateAttr
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest, ChatCompletionToolsParam
from vllm.parser import Parser
from vllm.renderers import TokenizeParams

# Without a limit the exact length comes back; the gateway compares it with the context.
_CHAT = TokenizeParams(max_total_tokens=None, add_special_tokens=False)


class HeldRequest(ChatCompletionRequest):
    """vLLM's request, built with `model_construct`.

    `held_tools` are the tools as a grammar is made of them; the prompt shows `tools`.

    Everything in it has been validated once, and pydantic's second look at each message costs more than rendering a
    short conversation. The parts whose types vLLM looks at (tools, tool choice) are validated into their classes.
    """

    _held_tools: list[ChatCompletionToolsParam] | None = PrivateAttr(None)

    def build_tok_params(self, model_config: object) -> TokenizeParams:
        return _CHAT

    @classmethod
    def of(cls, held_tools: list[ChatCompletionToolsParam] | None, **values: object) -> "HeldRequest":
        """`model_construct` from a copy of the defaults; pydantic looks them up anew each time, which takes 0.5 ms."""
        made = _DEFAULTS.model_copy(update={name: [] for name in _EMPTY_LISTS} | values)
        made._held_tools = held_tools
        return made


_DEFAULTS = HeldRequest.model_construct(messages=[])

_EMPTY_LISTS = [name for name, value in _DEFAULTS.__dict__.items() if value == []]


def with_held_tools(parser_class: type[Parser]) -> type[Parser]:
    """The parser, which makes the grammar of calls from the request's `held_tools`."""

    class HoldingParser(parser_class):
        def adjust_request(self, request: ChatCompletionRequest) -> ChatCompletionRequest:
            held = request._held_tools if isinstance(request, HeldRequest) else None
            if held is None:
                return super().adjust_request(request)
            shown, request.tools = request.tools, held
            try:
                adjusted: ChatCompletionRequest = super().adjust_request(request)
            finally:
                request.tools = shown
            adjusted.tools = shown
            return adjusted

    return HoldingParser
