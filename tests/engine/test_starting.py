"""Starts that must not happen: one sentence each, before any weight is read."""

import json
from pathlib import Path

import pytest

from engine.base import EngineSpec, EngineState, JSONValue, Precision
from engine.demo import MODEL_DIR
from engine.embedded import EmbeddedEngine
from engine.errors import EngineStartError
from engine.factory import create_engine


async def refused(spec: EngineSpec) -> str:
    engine = EmbeddedEngine(spec)
    with pytest.raises(EngineStartError) as caught:
        await engine.start()
    assert engine.state is EngineState.DEAD
    message = str(caught.value)
    assert "\n" not in message
    return message


async def test_missing_folder(tmp_path: Path) -> None:
    assert "doesn't exist" in await refused(EngineSpec(str(tmp_path / "nothing")))


async def test_folder_without_config(tmp_path: Path) -> None:
    assert "has no config.json" in await refused(EngineSpec(str(tmp_path)))


async def test_file_instead_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "model.bin").touch()
    assert "is a file" in await refused(EngineSpec(str(tmp_path / "model.bin")))


async def test_folder_without_weights(tmp_path: Path) -> None:
    """The failure happens in vLLM's worker process; its cause must reach the operator."""
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((MODEL_DIR / name).read_bytes())
    message = await refused(EngineSpec(str(tmp_path)))
    assert "Cannot find any model weights" in message


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_num_seq": 4}, "did you mean 'max_num_seqs'"),
        ({"qqqqqqq": 4}, "'qqqqqqq' is not an option"),
        ({"max_num_seqs": "4"}, "can't be '4' (str)"),
        ({"max_num_seqs": True}, "can't be True (bool)"),
        ({"scheduling_policy": "lifo"}, "'fcfs' or 'priority'"),
        ({"dtype": "float16"}, "the card's field 'precision'"),
        ({"tensor_parallel_size": 64}, "this machine has"),
    ],
)
async def test_wrong_options(options: dict[str, JSONValue], words: str) -> None:
    assert words in await refused(EngineSpec(str(MODEL_DIR), options=options))


async def test_fp8_needs_a_device_that_has_it() -> None:
    from vllm.platforms import current_platform

    if current_platform.supports_fp8():
        pytest.skip("this machine has FP8")
    message = await refused(EngineSpec(str(MODEL_DIR), precision="fp8"))
    assert "--precision auto or bf16" in message


async def test_context_beyond_the_model() -> None:
    longest = json.loads((MODEL_DIR / "config.json").read_text())["max_position_embeddings"]
    message = await refused(EngineSpec(str(MODEL_DIR), context_length=longest + 1))
    assert f"context_length = {longest + 1}" in message
    assert str(longest) in message


@pytest.mark.parametrize(
    ("precision", "dtype", "quantization"),
    [("auto", "auto", None), ("fp16", "float16", None), ("bf16", "bfloat16", None)],
)
def test_precision_becomes_a_dtype(precision: Precision, dtype: str, quantization: str | None) -> None:
    from engine.args import engine_args

    args = engine_args(EngineSpec(str(MODEL_DIR), precision=precision), None)
    assert (args.dtype, args.quantization) == (dtype, quantization)


def test_factory_plays_scripts() -> None:
    engine = create_engine(EngineSpec('scripted:{"context_length": 77}'))
    assert engine.context_length == 77


@pytest.mark.parametrize("source", ["scripted:/nowhere/script.toml", "scripted:{not json", 'scripted:{"requests": []}'])
def test_script_that_cannot_be_read(source: str) -> None:
    with pytest.raises(EngineStartError):
        create_engine(EngineSpec(source))
