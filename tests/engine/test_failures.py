"""The table of vLLM's exceptions."""

import inspect

import pytest
import vllm.exceptions
import vllm.v1.engine.exceptions
from vllm.exceptions import MaxQueuedTokensError, QueueOverflowError, VLLMValidationError
from vllm.v1.engine.exceptions import EngineDeadError

from engine.errors import EngineDead, EngineError, EngineOverloaded, GenerationFailed, PromptError
from engine.failures import TABLE, translate


def test_every_exception_of_vllm_is_mapped() -> None:
    """A new class in vLLM needs a decision: what does it mean to a client?"""
    modules = (vllm.exceptions, vllm.v1.engine.exceptions)
    found = {
        cls
        for module in modules
        for _, cls in inspect.getmembers(module, inspect.isclass)
        if issubclass(cls, BaseException) and cls.__module__ == module.__name__
    }
    assert found == set(TABLE)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (QueueOverflowError(), EngineOverloaded),
        (MaxQueuedTokensError(), EngineOverloaded),
        (EngineDeadError(), EngineDead),
        (VLLMValidationError("no"), PromptError),
        (ValueError("no"), PromptError),
        (KeyError("secret"), GenerationFailed),
        (EngineDead("as it is"), EngineDead),
    ],
)
def test_errors_become_ours(theirs: Exception, ours: type[EngineError]) -> None:
    assert type(translate(theirs)) is ours


def test_client_reads_of_its_own_fields() -> None:
    error = translate(VLLMValidationError("structured_outputs.regex is bad", parameter="structured_outputs.regex"))
    assert isinstance(error, PromptError)
    assert (error.param, str(error)) == ("response_format", "regex is bad")


def test_client_never_reads_of_flags() -> None:
    error = translate(VLLMValidationError("start with --enable-auto-tool-choice", parameter="tools"))
    assert "--" not in str(error)
    assert "`tools`" in str(error)


def test_unknown_error_tells_nothing_of_itself() -> None:
    assert "secret" not in str(translate(KeyError("secret")))
