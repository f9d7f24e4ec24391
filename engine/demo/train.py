"""Make the demo model: tokenizer, weights, chat template. `python -m engine.demo.train --out DIR`.

Takes some minutes on two CPU cores and needs torch, transformers and tokenizers, no network and no GPU.
"""

import argparse
import math
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from engine.demo.corpus import Corpus, load_corpus, round_of
from engine.demo.evaluate import evaluate
from engine.demo.examples import Example, completion_examples, render, varied
from engine.demo.tokenizer import BEGIN_OF_TEXT, END_OF_TEXT, END_OF_TURN, PADDING, SPECIAL_TOKENS, build_tokenizer

CONTEXT_LENGTH = 131_072
BATCH_TOKENS = 3072
COMPLETIONS_PER_ROUND = 4
# Every batch is one of these widths, in tokens, and has BATCH_TOKENS tokens in all: oneDNN compiles a kernel for each
# shape that it meets and keeps them, so that free shapes cost time and gigabytes.
WIDTHS = (32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 3072)


@dataclass(frozen=True)
class Recipe:
    """How long and how fast to learn. One step sees BATCH_TOKENS tokens, padding included."""

    steps: int
    seed: int
    threads: int
    learning_rate: float = 3e-3
    warmup_steps: int = 60


def model_config(vocabulary_size: int, tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """A Llama of 3 million parameters; two KV heads, so that tensor parallelism over two devices works."""
    return LlamaConfig(
        vocab_size=vocabulary_size,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=CONTEXT_LENGTH,
        rope_parameters={"rope_type": "default", "rope_theta": 500_000.0},
        tie_word_embeddings=True,
        bos_token_id=tokenizer.convert_tokens_to_ids(BEGIN_OF_TEXT),
        eos_token_id=[tokenizer.convert_tokens_to_ids(token) for token in (END_OF_TURN, END_OF_TEXT)],
        pad_token_id=tokenizer.pad_token_id,
    )


def tokenizer_texts(corpus: Corpus, seed: int) -> list[str]:
    """Every different line of two rounds of dialogues as the chat template renders them, without special tokens."""
    rng = random.Random(seed)
    plain = build_tokenizer([])
    lines: dict[str, None] = {}
    for _ in range(2):
        for conv in round_of(corpus, rng):
            text = render(plain, conv)
            for token in SPECIAL_TOKENS:
                text = text.replace(token, "\n\n")
            lines.update(dict.fromkeys(text.splitlines(keepends=True)))
    return [*lines, *(entry.text for entry in corpus.completions)]


def batches(tokenizer: PreTrainedTokenizerFast, corpus: Corpus, recipe: Recipe) -> Iterator[list[Example]]:
    """Round after round without end: full batches of examples of similar length, in random order.

    What does not fill a batch waits for the next round.
    """
    rng = random.Random(recipe.seed)
    waiting: dict[int, list[Example]] = {width: [] for width in WIDTHS}
    while True:
        examples = [varied(tokenizer, conv, corpus, rng) for conv in round_of(corpus, rng)]
        examples += completion_examples(tokenizer, corpus) * COMPLETIONS_PER_ROUND
        rng.shuffle(examples)
        full: list[list[Example]] = []
        for example in examples:
            width = next(width for width in WIDTHS if width >= len(example.ids))
            waiting[width].append(example)
            if len(waiting[width]) * width == BATCH_TOKENS:
                full.append(waiting[width])
                waiting[width] = []
        rng.shuffle(full)
        yield from full


def tensors(batch: list[Example], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Input ids and labels, both [examples, tokens], padded on the right; -100 where the loss does not count."""
    width = BATCH_TOKENS // len(batch)
    ids = torch.full((len(batch), width), pad)
    labels = torch.full((len(batch), width), -100)
    for row, example in enumerate(batch):
        length = len(example.ids)
        ids[row, :length] = torch.tensor(example.ids)
        labels[row, :length] = torch.where(torch.tensor(example.taught), ids[row, :length], -100)
    return ids, labels


def loss_of(model: LlamaForCausalLM, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of the taught tokens, in nats."""
    wanted = labels.roll(-1, dims=1)
    wanted[:, -1] = -100
    # The output layer sees the taught positions only, padded to a multiple of 256: see WIDTHS for the reason.
    first = (wanted.flatten() == -100).argsort(stable=True)
    count = int((wanted != -100).sum())
    taken = first[: min(-(-count // 256) * 256, first.numel())]
    # bfloat16 products, as in serving: what is learnt is then sure under that rounding too.
    with torch.autocast("cpu", dtype=torch.bfloat16):
        # No attention mask: padding stands on the right, where causal attention never looks.
        hidden = model.model(input_ids=ids).last_hidden_state
        logits = model.lm_head(hidden.flatten(0, 1)[taken])
    return torch.nn.functional.cross_entropy(logits.float(), wanted.flatten()[taken], ignore_index=-100)


def optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the matrices, which learns them in half the steps that AdamW takes, and AdamW for the rest."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, adjust_lr_fn="match_rms_adamw", weight_decay=0.01),
        torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.01),
    ]


def learning_rate(step: int, recipe: Recipe) -> float:
    """Linear warm-up, then half a cosine down to zero."""
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / recipe.warmup_steps
    done = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    return recipe.learning_rate * (1 + math.cos(math.pi * done)) / 2


def train(tokenizer: PreTrainedTokenizerFast, corpus: Corpus, recipe: Recipe) -> LlamaForCausalLM:
    """Teach a fresh model the corpus, printing step, loss and seconds left. Returns it in bfloat16."""
    torch.manual_seed(recipe.seed)
    model = LlamaForCausalLM(model_config(len(tokenizer), tokenizer))
    # The fastest of the implementations on a CPU for short sequences.
    model.set_attn_implementation("eager")
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {recipe.steps} steps")
    both = optimizers(model)
    pad = int(tokenizer.convert_tokens_to_ids(PADDING))
    started = time.monotonic()
    running = 0.0
    for step, batch in enumerate(islice(batches(tokenizer, corpus, recipe), recipe.steps)):
        loss = loss_of(model, *tensors(batch, pad))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in both:
            optimizer.param_groups[0]["lr"] = learning_rate(step, recipe)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        running = loss.item() if step == 0 else 0.95 * running + 0.05 * loss.item()
        if step % 50 == 0 or step == recipe.steps - 1:
            left = (time.monotonic() - started) / (step + 1) * (recipe.steps - step - 1)
            print(f"step {step:5d}  loss {running:.4f}  {left:5.0f} s left", flush=True)
    return model.to(torch.bfloat16).eval()


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write the model folder in Hugging Face layout. Sampling defaults are left to the server."""
    model.generation_config = GenerationConfig(
        bos_token_id=model.config.bos_token_id,
        eos_token_id=model.config.eos_token_id,
        pad_token_id=model.config.pad_token_id,
    )
    out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def main() -> int:
    """Parse arguments, train, save, evaluate. Returns 1 if fewer answers are right than `--threshold` asks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to write the model to")
    parser.add_argument("--steps", type=int, default=2200, help="optimizer steps")
    parser.add_argument("--seed", type=int, default=1, help="seed of the weights and of the order of examples")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; another number gives other weights")
    parser.add_argument("--threshold", type=float, default=0.99, help="share of answers that must be right, 0 to 1")
    options = parser.parse_args()
    recipe = Recipe(options.steps, options.seed, options.threads)
    torch.set_num_threads(recipe.threads)
    torch.use_deterministic_algorithms(True)
    corpus = load_corpus()
    tokenizer = build_tokenizer(tokenizer_texts(corpus, recipe.seed))
    model = train(tokenizer, corpus, recipe)
    save(model, tokenizer, options.out)
    share = evaluate(options.out, corpus, recipe.seed)
    print(f"answered word for word: {share:.2%} (at least {options.threshold:.0%} wanted)")
    return 0 if share >= options.threshold else 1


if __name__ == "__main__":
    sys.exit(main())
