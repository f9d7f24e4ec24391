"""The arithmetic of `docs/sizing.md`, against models whose size is published."""

import json
from pathlib import Path

import pytest

from engine.base import EngineSpec
from engine.demo import MODEL_DIR
from engine.errors import EngineStartError
from engine.sizing import GIB, GPU_BYTES, KNOWN, fit, geometry_of, gpus_asked_for

B8, B70 = KNOWN["meta-llama/Llama-3.1-8B-Instruct"], KNOWN["meta-llama/Llama-3.1-70B-Instruct"]
LLAMA2 = KNOWN["meta-llama/Llama-2-70b-chat-hf"]


@pytest.mark.parametrize(
    ("geometry", "parameters"), [(B8, 8_030_261_248), (B70, 70_553_706_496), (LLAMA2, 68_976_648_192)]
)
def test_parameters_are_those_that_are_published(geometry: object, parameters: int) -> None:
    assert geometry.parameters == parameters  # type: ignore[attr-defined]


def test_weights_and_cache_of_known_models() -> None:
    assert round(B8.weight_bytes("bf16") / GIB, 2) == 14.96
    assert round(B8.weight_bytes("fp8") / GIB, 2) == 8.46
    assert round(B70.weight_bytes("bf16") / GIB, 2) == 131.42
    assert round(B70.weight_bytes("fp8") / GIB, 2) == 67.67
    assert B8.kv_bytes_per_token(2) == 131_072
    assert B70.kv_bytes_per_token(1) == 163_840


@pytest.mark.parametrize(
    ("geometry", "gpu", "gpus", "tokens"),
    [(B8, "L4", 1, 80_000), (B8, "H100", 1, 511_000), (B70, "H100", 2, 236_000), (B70, "H200", 1, 190_000)],
)
def test_tokens_that_fit_are_those_of_the_page(geometry: object, gpu: str, gpus: int, tokens: int) -> None:
    spec = EngineSpec("x", "fp8", 131_072, {"tensor_parallel_size": gpus})
    found = fit(spec, geometry, GPU_BYTES[gpu], gpus)  # type: ignore[arg-type]
    assert abs(found.tokens - tokens) < 0.01 * tokens
    assert found.fits == (tokens >= 131_072)


def test_what_does_not_fit_has_no_tokens() -> None:
    assert fit(EngineSpec("x", "bf16", 4096), B70, GPU_BYTES["H100"], 1).tokens == 0


def test_an_fp8_cache_holds_twice_as_much() -> None:
    plain = fit(EngineSpec("x", "fp8", 4096), B8, GPU_BYTES["L4"], 1)
    halved = fit(EngineSpec("x", "fp8", 4096, {"kv_cache_dtype": "fp8"}), B8, GPU_BYTES["L4"], 1)
    assert halved.tokens in (2 * plain.tokens, 2 * plain.tokens + 1)


def test_the_demo_models_file_is_as_large_as_the_arithmetic_says() -> None:
    geometry = geometry_of(str(MODEL_DIR))
    weights = (MODEL_DIR / "model.safetensors").stat().st_size
    assert 0 <= weights - geometry.weight_bytes("bf16") < 20_000  # the file's own header


def test_a_shape_that_is_not_known_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(EngineStartError, match="--config"):
        geometry_of("acme/unknown")
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 8}))
    with pytest.raises(EngineStartError, match=r"not the config\.json of a Llama"):
        geometry_of(str(tmp_path))


def test_the_gpus_of_a_card_are_its_parallel_sizes() -> None:
    assert gpus_asked_for(EngineSpec("x", options={"tensor_parallel_size": 4, "pipeline_parallel_size": 2})) == 8
