"""vLLM's `AsyncLLM` with an entrance that takes an `Inbox`, and with cheap statistics."""

import asyncio
from copy import copy
from enum import Enum

from vllm.config import VllmConfig
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.inputs import EngineInput
from vllm.lora.request import LoRARequest
from vllm.sampling_params import SamplingParams
from vllm.usage.usage_lib import UsageContext
from vllm.v1.engine import EngineCoreOutputs, EngineCoreRequest
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.engine.parallel_sampling import ParentRequest
from vllm.v1.metrics.stats import IterationStats

from engine.load import EngineLoad
from engine.seat import Seat
from engine.tokenizing import TokenizingLimits
from engine.vllm_internals.lifeline import executor_class
from engine.vllm_internals.output_handler import OutputHandler
from engine.vllm_internals.outputs import Inbox, StepProcessor
from engine.vllm_internals.renderer import Renderer
from engine.vllm_internals.stats import EngineMetrics, ServingStats

# How many requests vLLM takes before it refuses more, in multiples of those that it can run at once. Those that wait
# then start within about three times as long as a request takes; beyond that a client does better with a 503 now.
QUEUE_DEPTH = 4


# vLLM's defaults depend on who starts it; these are its own server's. It has more contexts, for most of which it has
# no defaults: an engine so started would run with a quarter of the batched tokens on an H100.
USAGE_CONTEXT = UsageContext.OPENAI_API_SERVER


class Statistics(Enum):
    """Which of vLLM's statistics to keep: none, what is cheap (`engine.vllm_internals.stats`), or all, per token."""

    NONE = "none"
    SERVING = "serving"
    FULL = "full"


class Core(AsyncLLM):
    """May be constructed in any thread; its tasks start with the first request, in the event loop of that request."""

    output_processor: StepProcessor
    output_handler: asyncio.Task[None] | None  # None until the first request

    def __init__(
        self,
        args: AsyncEngineArgs,
        statistics: Statistics,
        seat: Seat | None,
        tokenizing: TokenizingLimits,
    ) -> None:
        config = engine_config(args, seat)
        loggers = {Statistics.SERVING: [ServingStats], Statistics.FULL: [EngineMetrics]}.get(statistics)
        super().__init__(
            vllm_config=config,
            executor_class=executor_class(config),
            # With `log_stats` vLLM would add a logger that prints; ours alone is enough for statistics to be kept.
            log_stats=False,
            stat_loggers=loggers,
            log_requests=args.enable_log_requests,
            usage_context=USAGE_CONTEXT,
            **({} if seat is None else _connection(seat)),
        )
        self.rendering = Renderer(self.renderer, tokenizing)
        self.input_processor.renderer = self.rendering
        # vLLM would check a request's grammar here, in the event loop: `constraining` has done it elsewhere.
        self.input_processor.structured_outputs_config = None
        theirs = self.output_processor
        self.output_processor = StepProcessor(
            theirs.tokenizer,
            log_stats=theirs.log_stats,
            stream_interval=theirs.stream_interval,
            tracing_enabled=theirs.tracing_enabled,
            admission_stats=theirs.admission_stats,
        )
        self._aborts: set[asyncio.Task[None]] = set()
        for logger in self.logger_manager.stat_loggers if loggers else ():
            logger.waiting, logger.cache_used = self.output_processor.waiting, self.output_processor.cache_used
        self._outputs: OutputHandler | None = None
        self.alone = seat is None or seat.count == 1
        if statistics is Statistics.SERVING:
            # vLLM's output handler then makes no statistics of its own, but passes the scheduler's on.
            self.log_stats = False
            self.output_processor.stats = next(
                logger for logger in self.logger_manager.stat_loggers if isinstance(logger, ServingStats)
            )

    def __del__(self) -> None:
        # vLLM's would shut down once more, at interpreter exit with half of its modules gone.
        return

    @property
    def has_room(self) -> bool:
        """See `engine.base.Engine`. There is none while there are more requests, of all front ends, than the engine
        runs at once, or some waited after its last step: for memory, for a grammar. Which, vLLM doesn't tell.

        Of several front ends only one hears of each step; without statistics none does. Then the number alone counts.
        """
        load = self.load
        return load.requests <= load.seats and not load.waiting

    @property
    def load(self) -> EngineLoad:
        """See `engine.base.Engine`."""
        config, everywhere, here = self.vllm_config, self.admission_stats, self.output_processor
        requests = everywhere.get_num_requests() if everywhere else here.get_num_unfinished_requests()
        seats = config.scheduler_config.max_num_seqs * config.parallel_config.data_parallel_size
        used = max(here.cache_used.values(), default=0.0)
        return EngineLoad(int(requests), int(seats), sum(here.waiting.values()), used)

    @property
    def lag_seconds(self) -> float:
        """See `engine.base.Engine`."""
        return 0.0 if self._outputs is None else self._outputs.lag_seconds

    def _run_output_handler(self) -> None:
        """vLLM's, with ours in place of the function within it."""
        if self.output_handler is not None:
            return
        loggers, renderer = self.logger_manager, self.renderer

        def record(outputs: EngineCoreOutputs, iteration: IterationStats | None) -> None:
            if loggers is not None:
                loggers.record(outputs.scheduler_stats, iteration, renderer.stat_mm_cache(), outputs.engine_index)

        parallel = self.vllm_config.parallel_config
        self._outputs = OutputHandler(
            self.engine_core,
            self.output_processor,
            record,
            counts=self.log_stats,
            ages=parallel.data_parallel_size_local == parallel.data_parallel_size,
            stops_engine=self.alone,
        )
        self.output_handler = asyncio.create_task(self._outputs.run(), name="engine outputs")

    async def submit(
        self,
        request_id: str,
        prompt: EngineInput,
        params: SamplingParams,
        inbox: Inbox,
        *,
        priority: int = 0,
        trace_headers: dict[str, str] | None = None,
        reasoning_ended: bool | None = None,
        reasoning_parser_kwargs: dict[str, object] | None = None,
        lora_request: LoRARequest | None = None,
    ) -> None:
        """`AsyncLLM.add_request` for a rendered prompt. Raises vLLM's errors; leaves nothing behind when it does."""
        if self.errored:
            raise EngineDeadError()
        if trace_headers and self.observability_config.otlp_traces_endpoint is None:
            trace_headers = None
        request = self.input_processor.process_inputs(
            request_id,
            prompt,
            params,
            supported_tasks=await self.get_supported_tasks(),
            lora_request=lora_request,
            trace_headers=trace_headers,
            priority=priority,
        )
        request.reasoning_ended = reasoning_ended
        request.reasoning_parser_kwargs = reasoning_parser_kwargs
        self.input_processor.assign_request_id(request)
        inbox.request_id = request.request_id
        self._run_output_handler()
        self.check_admission(params.n, request.request_id)
        try:
            await self._enqueue(request, inbox)
        except BaseException:
            self.abort_soon(inbox)
            raise

    async def _enqueue(self, request: EngineCoreRequest, inbox: Inbox) -> None:
        n = request.sampling_params.n
        if n == 1:
            self.output_processor.add_request(request, None, None, 0, inbox)
            await self.engine_core.add_request_async(request)
            return
        parent = ParentRequest(request)
        choices = []
        for index in range(n):
            choice = copy(request)
            choice.request_id, choice.sampling_params = parent.get_child_info(index)
            self.output_processor.add_request(choice, None, parent, index, inbox)
            choices.append(choice)
        for choice in choices:
            await self.engine_core.add_request_async(choice)

    def abort_soon(self, inbox: Inbox) -> None:
        """Drops the request here and now, and tells the engine in a task of its own.

        There is nothing to await, so a caller that is being cancelled can't be kept from it.
        """
        request_ids = self.output_processor.abort_requests([inbox.request_id], internal=True)
        if request_ids and not self.errored:
            task = asyncio.get_running_loop().create_task(self._tell_abort(request_ids))
            self._aborts.add(task)
            task.add_done_callback(self._aborts.discard)

    async def _tell_abort(self, request_ids: list[str]) -> None:
        try:
            await self.engine_core.abort_requests_async(request_ids)
        except EngineDeadError:
            return  # then it has stopped working on it too


def engine_config(args: AsyncEngineArgs, seat: Seat | None = None) -> VllmConfig:
    """vLLM's configuration, in the process that starts the engine and the same in each of its front ends."""
    if seat is not None:
        take_seat(args, seat.count, seat.index)
    config = args.create_engine_config(USAGE_CONTEXT)
    _limit_queue(config)
    return config


def take_seat(args: AsyncEngineArgs, count: int, index: int) -> None:
    """Make them the arguments of one of several front ends; of their parent, where `index` is -1."""
    args._api_process_count, args._api_process_rank = count, index


def _connection(seat: Seat) -> dict[str, object]:
    return {"client_addresses": dict(seat.addresses), "client_count": seat.count, "client_index": seat.index}


def _limit_queue(config: VllmConfig) -> None:
    """Give vLLM's queue an end where the operator has set none: its own default takes requests without bound.

    `max_num_queued_tokens` stays as it is: it says how much prefill may wait, which only a target for the time to first
    token and the machine's speed can tell (target seconds x prompt tokens per second).
    """
    scheduler = config.scheduler_config
    if scheduler.max_num_queued_reqs is None:
        scheduler.max_num_queued_reqs = QUEUE_DEPTH * scheduler.max_num_seqs * config.parallel_config.data_parallel_size
