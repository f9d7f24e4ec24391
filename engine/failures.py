"""vLLM's exceptions in terms of `engine.errors`: one table, which a test holds complete."""

import logging
import re
from collections.abc import Iterator

import vllm.exceptions as v
from jinja2.exceptions import TemplateError
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

from engine.base import Conversation
from engine.errors import EngineDead, EngineError, EngineOverloaded, GenerationFailed, PromptError

_log = logging.getLogger("farebox.engine")

# The nearest ancestor counts, so a subclass is here only to be seen by the test that compares this table with
# vLLM's modules: when vLLM grows a class, somebody must decide what it means to a client.
TABLE: dict[type[BaseException], type[EngineError]] = {
    v.VLLMError: GenerationFailed,
    v.VLLMClientError: PromptError,
    v.VLLMValidationError: PromptError,
    v.VLLMNotFoundError: PromptError,
    v.LoRAAdapterNotFoundError: PromptError,
    v.VLLMUnprocessableEntityError: PromptError,
    v.VLLMServerError: GenerationFailed,
    v.GenerationError: GenerationFailed,
    v.RetryableRequestError: GenerationFailed,
    v.GracefulHTTPError: EngineOverloaded,
    v.QueueOverflowError: EngineOverloaded,
    v.MaxQueuedTokensError: EngineOverloaded,
    v.ProfilerAlreadyActiveError: GenerationFailed,
    EngineGenerateError: GenerationFailed,
    EngineDeadError: EngineDead,
}

# What vLLM raises bare for a request that it can't serve (its renderer and its grammar compilers do).
BARE = (ValueError, TypeError, NotImplementedError, TimeoutError, RecursionError, OverflowError)

# vLLM's names of request fields, where ours differ.
_PARAMS = {
    "structured_outputs": "response_format",
    "input_text": "messages",
    "input_tokens": "messages",
    "tool_calls": "messages",
    "max_completion_tokens": "max_tokens",
}

ENGINE_DEAD = "The engine has stopped; the server must be restarted."


def translate(error: BaseException, *, param: str = "messages") -> EngineError:
    """The error of `engine.errors` that `error` becomes; `param` is the field that it is probably about."""
    if isinstance(error, EngineError):
        return error
    kind = next((TABLE[cls] for cls in type(error).__mro__ if cls in TABLE), None)
    if kind is EngineDead:
        return EngineDead(ENGINE_DEAD)
    if kind is PromptError or (kind is None and isinstance(error, BARE)):
        named = getattr(error, "parameter", None)
        if isinstance(error, RecursionError):
            return PromptError(f"`{param}` is nested too deeply.", param)
        return prompt_error(str(error.args[0]) if error.args else "", named or param)
    if kind is EngineOverloaded:
        return EngineOverloaded("The engine's queue is full; try again in a moment.")
    # The text of an unknown error may hold parts of a prompt: only its class is logged.
    _log.error("A request failed in the engine: %s", type(error).__name__)
    return GenerationFailed("The engine failed on this request; the same request may work when sent again.")


def template_error(error: BaseException, conversation: Conversation) -> PromptError | None:
    """A sentence of ours where a chat template, or transformers around it, failed by itself; else None.

    Where a template refuses in its own words (`raise_exception`), those are for the client. Python's aren't, and
    transformers' can hold the whole prompt.
    """
    cause = error.__cause__ if isinstance(error, v.VLLMValidationError) else None
    if cause is None or any(type(one) is TemplateError for one in _chain(cause)):
        return None
    if conversation.chat_template_kwargs:
        return PromptError(
            "The model's chat template can't work with these `chat_template_kwargs`.", "chat_template_kwargs"
        )
    if conversation.continue_final:
        return PromptError(
            "The model's chat template changes the last message, so that it can't be gone on from. End with another.",
            conversation.param,
        )
    return PromptError("The model's chat template can't lay out this conversation.", conversation.param)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def prompt_error(message: str, param: str) -> PromptError:
    """A refusal for the client: vLLM's reason if it speaks of the request, ours if it speaks of vLLM's flags."""
    field = _PARAMS.get(param.split(".")[0], param)
    message = message.strip()
    if not message or re.search(r"--[a-z]|vllm|VLLM|openai/", message):
        message = f"The model can't serve this value of `{field}`."
    for theirs, ours in (("structured_outputs.", ""), ("structured_outputs", "response_format")):
        message = message.replace(theirs, ours)
    return PromptError(message[:500], field)
