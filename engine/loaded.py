"""What there is once vLLM has loaded the weights: rendering and generating on one `Core`.

Importing this module imports vLLM, which takes seconds: `engine.embedded` does so in a thread, after
`engine.environment.prepare`.
"""

import atexit

from vllm import envs
from vllm.inputs import EngineInput

from engine.args import engine_args, statistics
from engine.base import ChatFormat, EmbeddingRequest, EngineSpec, GenerationRequest, Sampling
from engine.embedding import EmbeddedEmbedding, check_task
from engine.errors import UnsupportedFeature
from engine.failures import translate
from engine.generation import EmbeddedGeneration
from engine.loaded_adapters import LoadedAdapters
from engine.rendering import VLLMRenderer, rendered
from engine.sampling import sampling_params
from engine.seat import Seat
from engine.temperature import VLLM_TEMPERATURE_MAX
from engine.vllm_internals.constraining import Constraining
from engine.vllm_internals.core import Core
from engine.vllm_internals.outputs import Inbox
from engine.vocabulary import TokenizerVocabulary


class LoadedEngine:
    """Blocks until the weights are loaded. Raises EngineStartError and whatever vLLM raises."""

    def __init__(self, spec: EngineSpec, log_config_path: str | None, seat: Seat | None = None) -> None:
        self._task = spec.task
        envs.disable_envs_cache()  # an engine that came first may have enabled it
        self.core = Core(engine_args(spec, log_config_path), statistics(spec), seat, spec.tokenizing)
        check_task(spec, self.core.model_config)
        self.constraining = Constraining(self.core, spec.grammars)
        # vLLM's processes are no daemons: a process that ends without `stop` would wait for them for ever.
        atexit.register(self.shutdown, 0)
        self.adapters = LoadedAdapters(self.core)
        self.vocabulary = TokenizerVocabulary(self.core.renderer.get_tokenizer())

    @property
    def context_length(self) -> int:
        return int(self.core.model_config.max_model_len)

    @property
    def cache_tokens(self) -> int:
        cache = self.core.vllm_config.cache_config
        return (cache.num_gpu_blocks or 0) * int(cache.block_size)

    @property
    def capacity(self) -> str:
        """For the operator: what vLLM measured and chose, or was told."""
        scheduler = self.core.vllm_config.scheduler_config
        return (
            f"the KV cache holds {self.cache_tokens} tokens; a step computes up to "
            f"{scheduler.max_num_batched_tokens} tokens (max_num_batched_tokens) of up to {scheduler.max_num_seqs} "
            "sequences (max_num_seqs)"
        )

    def renderer(self, chat_format: ChatFormat) -> VLLMRenderer:
        return VLLMRenderer(self.core, chat_format, self.constraining)

    async def warm_up(self) -> None:
        """One token through everything: kernels are loaded and compiled now, not under the first client.

        From then on vLLM's variables in the environment are as they were: it looks some up for each request.
        """
        envs.enable_envs_cache()
        bos = self.core.renderer.get_bos_token_id() or 0
        prompt = self.renderer(ChatFormat()).token_ids([bos])
        if self._task != "generate":
            await anext(self.embed(EmbeddingRequest("warm-up", prompt)))
            return
        async for _ in await self.generate(
            GenerationRequest("warm-up", prompt, Sampling(max_tokens=1, temperature=0.0))
        ):
            pass

    async def generate(self, request: GenerationRequest) -> EmbeddedGeneration:
        """Raises errors of `engine.errors`."""
        handle, sampling = rendered(request.prompt), request.sampling
        if sampling.temperature > VLLM_TEMPERATURE_MAX and self.core.vllm_config.speculative_config is not None:
            raise UnsupportedFeature(
                f"This model is served with speculative decoding, which samples at a temperature of at most "
                f"{VLLM_TEMPERATURE_MAX:g}; {sampling.temperature:g} was sent.",
                "temperature",
            )
        inbox = Inbox(sampling.n, request.stream, sampling.logprobs or 0)
        inbox.began = request.began
        generation = EmbeddedGeneration(
            self.core, inbox, handle.token_ids, handle.context, sampling.prompt_logprobs is not None
        )
        try:
            await self.core.submit(
                request.request_id,
                _salted(handle.engine_input, request),
                sampling_params(sampling, handle.constraints),
                inbox,
                priority=request.priority,
                trace_headers=dict(request.trace_headers),
                reasoning_ended=handle.reasoning_ended,
                reasoning_parser_kwargs=handle.reasoning_parser_kwargs,
                lora_request=self.adapters.request(request.adapter),
            )
        except Exception as error:
            raise translate(error) from error
        return generation

    def embed(self, request: EmbeddingRequest) -> EmbeddedEmbedding:
        return EmbeddedEmbedding(self.core, request)

    def fail_running(self, error: Exception) -> None:
        """Makes every running generation raise `error`; nothing more comes from the engine."""
        self.core.output_processor.propagate_error(error)
        if self.core.output_handler is not None:
            self.core.output_handler.cancel()

    def died(self) -> None:
        """As if vLLM had seen the engine's process end, which it only does where it started it."""
        self.core.engine_core.shutdown(0)

    def shutdown(self, seconds: float) -> None:
        """Ends vLLM's processes; blocks for at most about `seconds`."""
        atexit.unregister(self.shutdown)
        self.core.rendering.close()
        self.core.shutdown(seconds)

    def close(self) -> None:
        """Closes what vLLM leaves to the garbage collector. In the event loop, after `shutdown`."""
        self.core.engine_core.resources.ctx.destroy(linger=0)


def _salted(engine_input: EngineInput, request: GenerationRequest) -> EngineInput:
    """vLLM tells adapters apart by name and folder; both may be those of one that isn't any more."""
    salt = request.cache_salt
    if request.adapter is not None:
        salt = f"{request.adapter.number} {salt or ''}"
    return engine_input if salt is None else {**engine_input, "cache_salt": salt}
