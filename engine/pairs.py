"""Pairs of a query and a document as the prompts of models that score them, which vLLM lays out for each family."""

from vllm import PoolingParams
from vllm.entrypoints.pooling.scoring.io_processor import CrossEncoderIOProcessor
from vllm.entrypoints.pooling.typing import ScoringRenderParams
from vllm.inputs import EngineInput
from vllm.renderers import TokenizeParams
from vllm.renderers.chat_utils import ChatTemplateConfig

from engine.vllm_internals.core import Core

# Without a limit the exact length comes back; the gateway compares it with the context.
_UNCUT = TokenizeParams(max_total_tokens=None, add_special_tokens=True)


class Pairs:
    """For one engine that scores. `template` lays a pair out, where the model was taught to see one."""

    def __init__(self, core: Core, template: str | None) -> None:
        self._processor = CrossEncoderIOProcessor(core.vllm_config, core.renderer, ChatTemplateConfig(template))

    async def render(self, query: str, document: str) -> tuple[EngineInput, int | None]:
        """The engine's input, and where the document's tokens begin in it, if the model looks at that.

        In a thread of the renderer's, as all long work on prompts. Raises what vLLM and the tokenizer raise.
        """
        made = await self._processor.render_async(
            ScoringRenderParams(
                data_1=query,
                data_2=document,
                chat_template=self._processor.chat_template,
                max_tokens_per_query=0,
                max_tokens_per_doc=0,
                tok_params=_UNCUT,
                prompt_extras=None,
                skip_mm_cache=False,
                params=PoolingParams(task="classify"),
                lora_requests=None,
                priorities=0,
            )
        )
        second_from = (made["params"].extra_kwargs or {}).get("compressed_token_type_ids")
        return made["prompts"], second_from
