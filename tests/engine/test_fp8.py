"""FP8 on a real GPU, against bf16: its answers, its memory, and, printed only, its throughput.

pytest tests/engine/test_fp8.py -s
"""

import asyncio
import json
import random
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine.base import ChatFormat, Conversation, EngineSpec, GenerationRequest, JSONValue, Precision, Sampling
from engine.demo import MODEL_DIR
from engine.demo.corpus import load_corpus, round_of
from engine.embedded import EmbeddedEngine
from engine.sizing import GIB, Geometry, geometry_of

QUESTIONS = 64
SAME_MIN = 0.9  # of the demo model's greedy answers: it has 2 million parameters, each of which counts
LAYERS = 8  # of the shape of Llama 3.1 8B: 1.75 thousand million parameters in linear layers
STREAMS, TOKENS = 64, 128
SAVED_WITHIN = 0.15  # vLLM measures what activations take, and FP8 needs other room for them


@pytest.fixture
def fp8_device() -> None:
    from vllm.platforms import current_platform

    if current_platform.is_cpu() or not current_platform.supports_fp8():
        pytest.skip("needs a GPU with FP8 (Ada, Hopper or newer)")


@dataclass(frozen=True)
class Run:
    answers: list[str]
    tokens_per_second: float
    cache_tokens: int


async def measured(source: Path, precision: Precision, questions: list[str], **options: JSONValue) -> Run:
    """Greedy answers to `questions`, all at once."""
    engine = EmbeddedEngine(EngineSpec(str(source), precision, 4096, options))
    await engine.start()
    try:
        started = time.monotonic()
        outcomes = await asyncio.gather(*(answered(engine, i, text) for i, text in enumerate(questions)))
        seconds = time.monotonic() - started
        cache_tokens = engine.cache_tokens
    finally:
        await engine.stop()
    return Run([text for text, _ in outcomes], sum(tokens for _, tokens in outcomes) / seconds, cache_tokens)


async def answered(engine: EmbeddedEngine, number: int, question: str) -> tuple[str, int]:
    prompt = await engine.renderer(ChatFormat()).chat(Conversation([{"role": "user", "content": question}]))
    generation = await engine.generate(GenerationRequest(f"q{number}", prompt, Sampling(TOKENS, temperature=0.0)))
    text = "".join([delta.text async for delta in generation])
    return text, generation.counts.completion


@pytest.mark.gpu
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("fp8_device")
async def test_fp8_answers_as_bf16_does() -> None:
    questions = taught_questions()
    exact = await measured(MODEL_DIR, "bf16", questions)
    small = await measured(MODEL_DIR, "fp8", questions)
    same = sum(a == b for a, b in zip(exact.answers, small.answers, strict=True)) / QUESTIONS
    print(f"\nof {QUESTIONS} greedy answers {same:.0%} are the same in FP8")
    assert same >= SAME_MIN


@pytest.mark.gpu
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("fp8_device")
async def test_fp8_leaves_the_memory_that_the_arithmetic_says(tmp_path: Path) -> None:
    geometry = random_llama(tmp_path)
    questions = ["Once upon a time"] * STREAMS
    exact = await measured(tmp_path, "bf16", questions, enable_prefix_caching=False)
    small = await measured(tmp_path, "fp8", questions, enable_prefix_caching=False)
    halved = await measured(tmp_path, "fp8", questions, enable_prefix_caching=False, kv_cache_dtype="fp8")
    saved = (small.cache_tokens - exact.cache_tokens) * geometry.kv_bytes_per_token(2)
    expected = geometry.weight_bytes("bf16") - geometry.weight_bytes("fp8")
    print(
        f"\nFP8 saves {saved / GIB:.2f} GiB; by the arithmetic {expected / GIB:.2f} GiB\n"
        f"tokens/s: bf16 {exact.tokens_per_second:.0f}, FP8 {small.tokens_per_second:.0f}, "
        f"FP8 with an FP8 cache {halved.tokens_per_second:.0f}"
    )
    assert abs(saved - expected) < SAVED_WITHIN * expected
    assert halved.cache_tokens == pytest.approx(2 * small.cache_tokens, rel=0.02)


def taught_questions() -> list[str]:
    """The first words of conversations that the demo model learned without a system message or tools."""
    conversations = round_of(load_corpus(), random.Random(0), largest=1)
    asked = [one.lines[0].text for one in conversations if not one.system and not one.tools]
    assert len(asked) >= QUESTIONS
    return asked[:QUESTIONS]


def random_llama(folder: Path) -> Geometry:
    """A Llama of `LAYERS` of the 8B's layers with random weights and the demo model's tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (MODEL_DIR / name).exists():
            (folder / name).write_bytes((MODEL_DIR / name).read_bytes())
    config = LlamaConfig(
        vocab_size=json.loads((MODEL_DIR / "config.json").read_text())["vocab_size"],
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=LAYERS,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=4096,
        dtype="bfloat16",
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    return geometry_of(str(folder))
