"""What can go wrong with an engine.

EngineError
├── EngineStartError        the engine can't be started; the sentence says what to do
├── AdapterError            an adapter can't be served; the sentence says what to do
├── PromptError             this prompt can't be rendered; the client can mend it
│   ├── PromptTooLong       it is far longer than the context; its exact length isn't known
│   └── UnsupportedFeature  the model or its card lacks what the request needs
├── EngineOverloaded        queues are full; try again later
├── GenerationFailed        this request failed; others may go on
└── EngineDead              the engine is gone; only a restart of the process helps
"""


class EngineError(Exception):
    """Base of every error that an engine raises."""


class EngineStartError(EngineError):
    """The engine can't be started. The message is one sentence for the operator."""


class AdapterError(EngineError):
    """A LoRA adapter can't be served; the engine lives. The message is one sentence for the operator."""


class PromptError(EngineError):
    """The prompt can't be rendered. The message is for the client; `param` names the field."""

    def __init__(self, message: str, param: str = "messages") -> None:
        super().__init__(message)
        self.param = param


class PromptTooLong(PromptError):
    """So much longer than the context that its tokens weren't all counted."""

    def __init__(self, context_length: int) -> None:
        super().__init__(
            f"The prompt is much longer than the context, which holds {context_length} tokens, prompt and answer "
            "together. Shorten the prompt."
        )


class UnsupportedFeature(PromptError):
    """The request needs something that this model or its card doesn't have."""


class EngineOverloaded(EngineError):
    """The engine's queues are full (vLLM: `max_num_queued_reqs`, `max_num_queued_tokens`)."""


class GenerationFailed(EngineError):
    """This request failed in the engine; the engine itself lives."""


class EngineDead(EngineError):
    """The engine process is gone and won't come back without a restart of this process."""
