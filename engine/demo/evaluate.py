"""Ask the demo model everything that it was taught, and count the answers that are right word for word."""

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

from engine.demo.corpus import Conversation, Corpus, round_of
from engine.demo.examples import messages_of, render
from engine.demo.tokenizer import BEGIN_OF_TEXT, END_OF_TEXT, END_OF_TURN

BATCH = 64


def questions(
    tokenizer: PreTrainedTokenizerFast, corpus: Corpus, seed: int
) -> dict[str, tuple[str, tuple[str, ...], Conversation]]:
    """Prompt text -> (dialogue's name, accepted answers, conversation up to there) for one round of the corpus."""
    asked: dict[str, tuple[str, tuple[str, ...], Conversation]] = {}
    for conv in round_of(corpus, random.Random(seed)):
        for index, line in enumerate(conv.lines):
            if not line.accepted:
                continue
            before = replace(conv, lines=conv.lines[:index])
            tools = [dict(tool) for tool in conv.tools] or None
            prompt = str(
                tokenizer.apply_chat_template(
                    messages_of(before), tools=tools, tokenize=False, add_generation_prompt=True
                )
            )
            accepted = line.accepted
            if line.role == "call":
                whole = render(tokenizer, replace(conv, lines=conv.lines[: index + 1]))
                accepted = (whole.removeprefix(prompt).removesuffix(END_OF_TURN),)
            asked[prompt] = (conv.name, accepted, before)
    for entry in corpus.completions:
        for start in entry.prompts:
            empty = Conversation("completion", "", ())
            asked[BEGIN_OF_TEXT + start] = ("completion", (entry.text,), empty)
    return asked


def evaluate(folder: Path, corpus: Corpus, seed: int) -> float:
    """Share of taught turns, 0 to 1, that the model saved in `folder` answers word for word under greedy decoding."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    tokenizer.padding_side = "left"
    asked = questions(tokenizer, corpus, seed)
    # Long answers together, so that few batches wait for them.
    prompts = sorted(asked, key=lambda prompt: (max(map(len, asked[prompt][1])), len(prompt)))
    wrong: Counter[str] = Counter()
    for start in range(0, len(prompts), BATCH):
        batch = prompts[start : start + BATCH]
        answers = _answers(model, tokenizer, batch, max(len(tokenizer.encode(asked[p][1][0])) for p in batch) + 20)
        for prompt, answer in zip(batch, answers, strict=True):
            name, accepted, _ = asked[prompt]
            if answer not in accepted:
                wrong[name] += 1
                if wrong[name] <= 2:
                    print(f"wrong: {name}: ...{prompt[-120:]!r}")
                    print(f"    wrote  {answer[:200]!r}\n    wanted {accepted[0][:200]!r}")
    print(f"{len(prompts)} questions, {wrong.total()} wrong: {dict(wrong)}")
    return 1 - wrong.total() / len(prompts)


def _answers(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, prompts: list[str], tokens_max: int
) -> list[str]:
    inputs = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
    with torch.no_grad():
        output = model.generate(**inputs, do_sample=False, max_new_tokens=tokens_max)
    answers = output[:, inputs["input_ids"].shape[1] :]
    return [_until_end(tokenizer, ids) for ids in answers.tolist()]


def _until_end(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> str:
    """The text before the end of the turn or of the text; an answer without an end gets a mark, so it is wrong."""
    ends = {int(tokenizer.convert_tokens_to_ids(token)) for token in (END_OF_TURN, END_OF_TEXT)}
    for index, token in enumerate(ids):
        if token in ends:
            return str(tokenizer.decode(ids[:index]))
    return str(tokenizer.decode(ids)) + " (no end)"
