"""How much GPU memory a model takes, before anything is loaded. The formulas are those of `docs/sizing.md`.

All sizes in bytes. It is arithmetic: vLLM measures at the start what activations and graphs really take.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from engine.base import EngineSpec
from engine.errors import EngineStartError

GIB: Final = 2**30
UTILIZATION: Final = 0.92  # vLLM's default of gpu_memory_utilization

# What the driver shows, a little less than the name says.
GPU_BYTES: Final = {
    "L4": int(22.0 * GIB),
    "A10G": int(22.0 * GIB),
    "RTX4090": int(23.6 * GIB),
    "A100-40GB": int(39.4 * GIB),
    "L40S": int(44.4 * GIB),
    "A100-80GB": int(79.2 * GIB),
    "H100": int(79.2 * GIB),
    "H200": int(139.8 * GIB),
    "B200": int(178.4 * GIB),
}
FP8_GPUS: Final = frozenset({"L4", "RTX4090", "L40S", "H100", "H200", "B200"})  # compute capability 8.9 and newer


# What vLLM's server takes where a card says nothing: `EngineArgs.get_batch_defaults`.
_BATCH_MEMORY: Final = ((160 * GIB, 16_384, 1024), (70 * GIB, 8192, 1024), (0, 2048, 256))


@dataclass(frozen=True, slots=True)
class Geometry:
    """The shape of a Llama, as its `config.json` has it."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool = False
    quantized: bool = False

    @classmethod
    def of_config(cls, config: Mapping[str, object]) -> "Geometry":
        """Raises KeyError for a field that is missing."""
        number = {name: value for name, value in config.items() if isinstance(value, int)}
        heads = number["num_attention_heads"]
        return cls(
            layers=number["num_hidden_layers"],
            hidden=number["hidden_size"],
            intermediate=number["intermediate_size"],
            heads=heads,
            kv_heads=number.get("num_key_value_heads", heads),
            head_dim=number.get("head_dim", number["hidden_size"] // heads),
            vocabulary=number["vocab_size"],
            tied=bool(config.get("tie_word_embeddings", False)),
            quantized="quantization_config" in config,
        )

    @property
    def linear(self) -> int:
        """Parameters of the linear layers: what FP8 quantizes."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    @property
    def embeddings(self) -> int:
        """Parameters of the embedding and, unless they are tied, of the output layer."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    @property
    def parameters(self) -> int:
        """All of them, the norms' too."""
        return self.linear + self.embeddings + self.hidden * (2 * self.layers + 1)

    def weight_bytes(self, precision: str) -> int:
        """FP8 keeps embeddings, output layer and norms in 16 bits."""
        linear_bytes = 1 if precision == "fp8" or self.quantized else 2
        return self.linear * linear_bytes + (self.parameters - self.linear) * 2

    def kv_bytes_per_token(self, cache_bytes: int) -> int:
        """Keys and values of one token, in all layers; `cache_bytes` is 2, or 1 for an FP8 cache."""
        return 2 * self.layers * self.kv_heads * self.head_dim * cache_bytes


_LLAMA_3_70B: Final = Geometry(80, 8192, 28672, 64, 8, 128, 128256)

# So that the shipped cards can be checked without a download; from the config.json of each.
KNOWN: Final = {
    "meta-llama/Llama-3.1-8B-Instruct": Geometry(32, 4096, 14336, 32, 8, 128, 128256),
    "meta-llama/Llama-3.1-70B-Instruct": _LLAMA_3_70B,
    "meta-llama/Llama-3.3-70B-Instruct": _LLAMA_3_70B,
    "meta-llama/Llama-2-70b-chat-hf": Geometry(80, 8192, 28672, 64, 8, 128, 32000),
}


@dataclass(frozen=True, slots=True)
class Fit:
    """What a model takes on each GPU, and how many tokens of context fit. Bytes are for one GPU."""

    gpus: int
    weight_bytes: int
    reserve_bytes: int
    kv_bytes: int
    kv_bytes_per_token: int
    tokens: int
    context_length: int

    @property
    def fits(self) -> bool:
        """Whether one request of full length has room."""
        return self.tokens >= self.context_length


def geometry_of(source: str, config: Path | None = None) -> Geometry:
    """From `config`, from the folder `source`, or from the table. Raises EngineStartError."""
    path = config or Path(source).expanduser() / "config.json"
    if path.is_file():
        try:
            return Geometry.of_config(json.loads(path.read_text(encoding="utf-8")))
        except (KeyError, ValueError, TypeError, AttributeError, ArithmeticError, OSError) as error:
            raise EngineStartError(f"{path} is not the config.json of a Llama: {error}.") from None
    if config is None and source in KNOWN:
        return KNOWN[source]
    raise EngineStartError(
        f"The shape of {source!r} isn't known here; give its config.json with --config, or a folder that holds it."
    )


def fit(spec: EngineSpec, geometry: Geometry, gpu_bytes: int, gpus: int) -> Fit:
    """How `spec` fits on `gpus` GPUs of `gpu_bytes` each."""
    options = spec.options
    utilization = options.get("gpu_memory_utilization")
    share = float(utilization) if isinstance(utilization, int | float) else UTILIZATION
    cache_bytes = 1 if str(options.get("kv_cache_dtype", "auto")).startswith("fp8") else 2
    weights = geometry.weight_bytes(spec.precision) // gpus
    reserve = (3 if gpus > 1 or geometry.parameters > 20e9 else 2) * GIB
    kv = max(0, int(gpu_bytes * share) - weights - reserve)
    # With more GPUs than KV heads, each head is kept on several of them.
    per_token = geometry.kv_bytes_per_token(cache_bytes) // min(gpus, geometry.kv_heads)
    return Fit(gpus, weights, reserve, kv, per_token, kv // per_token, spec.context_length or 0)


@dataclass(frozen=True, slots=True)
class Batch:
    """The most that the engine computes in one step."""

    tokens: int
    sequences: int


def batch(spec: EngineSpec, gpu: str) -> Batch:
    """As the card has it, else as vLLM's own server chooses for this GPU. A100s get the defaults of smaller ones."""
    memory = 0 if gpu.startswith("A100") else GPU_BYTES[gpu]
    tokens, sequences = next((t, s) for bytes_min, t, s in _BATCH_MEMORY if memory >= bytes_min)
    factor = 2 if spec.options.get("performance_mode") == "throughput" else 1
    asked_tokens, asked_sequences = (spec.options.get(name) for name in ("max_num_batched_tokens", "max_num_seqs"))
    chosen = asked_tokens if isinstance(asked_tokens, int) else tokens * factor
    running = asked_sequences if isinstance(asked_sequences, int) else min(sequences * factor, chosen)
    if not isinstance(asked_tokens, int) and spec.context_length is not None:
        chosen = min(chosen, running * spec.context_length)
    return Batch(chosen, running)


def gpus_asked_for(spec: EngineSpec) -> int:
    """Tensor parallel times pipeline parallel, 1 where the card says nothing."""
    sizes = [spec.options.get(name, 1) for name in ("tensor_parallel_size", "pipeline_parallel_size")]
    return sizes[0] * sizes[1] if isinstance(sizes[0], int) and isinstance(sizes[1], int) else 1
