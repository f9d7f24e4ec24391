"""Embeddings and scores: a prompt or a pair in, one vector or one number out, as a `Generation` without tokens."""

from collections.abc import AsyncGenerator

from vllm import PoolingParams
from vllm.config import ModelConfig
from vllm.outputs import PoolingRequestOutput

from engine.base import Delta, EmbeddingRequest, EngineSpec, Generation, TokenCounts
from engine.errors import EngineStartError, UnsupportedFeature
from engine.failures import translate
from engine.rendering import rendered
from engine.vllm_internals.core import Core

CROSS_ENCODER = "cross-encoder"  # vLLM's word for a model that scores pairs


def check_task(spec: EngineSpec, config: ModelConfig) -> None:
    """Raises EngineStartError where the weights do something else than the card says."""
    if spec.task == "generate":
        return
    does = "score" if config.score_type == CROSS_ENCODER else "embed"
    if does != spec.task:
        raise EngineStartError(
            f'The card says task = "{spec.task}", and {spec.source!r} was made to {does}; say task = "{does}".'
        )


class EmbeddedEmbedding(Generation):
    """See `engine.base.Generation`. The engine is asked when the Delta is. Raises UnsupportedFeature."""

    def __init__(self, core: Core, request: EmbeddingRequest) -> None:
        if request.dimensions is not None and not core.model_config.is_matryoshka:
            raise UnsupportedFeature("This model's vectors can't be shortened; leave `dimensions` out.", "dimensions")
        self._tokens = request.prompt.tokens
        handle = rendered(request.prompt)
        scores = core.model_config.score_type == CROSS_ENCODER
        params = PoolingParams(task="classify" if scores else "embed", dimensions=request.dimensions)
        if handle.second_from is not None:
            params.extra_kwargs = {"compressed_token_type_ids": handle.second_from}
        self._outputs: AsyncGenerator[PoolingRequestOutput, None] = core.encode(
            handle.engine_input,
            params,
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
        return Delta(0, "", 0, finish_reason="stop", embedding=output.outputs.data.reshape(-1).tolist())

    async def aclose(self) -> None:
        """vLLM's generator aborts the request when it is closed or cancelled."""
        await self._outputs.aclose()
