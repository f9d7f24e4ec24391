"""Embeddings: a prompt in, one vector out, as a `Generation` without tokens."""

from collections.abc import AsyncGenerator

from vllm import PoolingParams
from vllm.outputs import PoolingRequestOutput

from engine.base import Delta, EmbeddingRequest, Generation, TokenCounts
from engine.errors import UnsupportedFeature
from engine.failures import translate
from engine.rendering import rendered
from engine.vllm_internals.core import Core


class EmbeddedEmbedding(Generation):
    """See `engine.base.Generation`. The engine is asked when the Delta is. Raises UnsupportedFeature."""

    def __init__(self, core: Core, request: EmbeddingRequest) -> None:
        if request.dimensions is not None and not core.model_config.is_matryoshka:
            raise UnsupportedFeature("This model's vectors can't be shortened; leave `dimensions` out.", "dimensions")
        self._tokens = request.prompt.tokens
        self._outputs: AsyncGenerator[PoolingRequestOutput, None] = core.encode(
            rendered(request.prompt).engine_input,
            PoolingParams(task="embed", dimensions=request.dimensions),
            request.request_id,
            trace_headers=dict(request.trace_headers) or None,
            priority=request.priority,
        )

    @property
    def counts(self) -> TokenCounts:
        return TokenCounts(self._tokens)

    def __aiter__(self) -> "EmbeddedEmbedding":
        return self

    async def __anext__(self) -> Delta:
        try:
            output = await anext(self._outputs)
        except StopAsyncIteration:
            raise
        except Exception as error:
            raise translate(error, param="dimensions") from error
        return Delta(0, "", 0, finish_reason="stop", embedding=output.outputs.data.tolist())

    async def aclose(self) -> None:
        """vLLM's generator aborts the request when it is closed or cancelled."""
        await self._outputs.aclose()
