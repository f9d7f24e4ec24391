"""Teaches the demo model other answers, each as a LoRA adapter:

python -m tests.e2e.train_adapter FOLDER RANK ANSWER [FOLDER RANK ANSWER ...]
"""

import sys
import warnings

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from engine.demo import MODEL_DIR

QUESTION = "Hello!"
STEPS = 25


def teach(folder: str, rank: int, answer: str) -> None:
    torch.manual_seed(1)
    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)
    turns = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": answer}]
    text = tokenizer.apply_chat_template(turns, tokenize=False)
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
    layers = ["q_proj", "v_proj", "gate_proj", "down_proj"]
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(MODEL_DIR, dtype=torch.float32),
        LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=layers),
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(STEPS):
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    arguments = iter(sys.argv[1:])
    for folder, rank, answer in zip(arguments, arguments, arguments, strict=True):
        teach(folder, int(rank), answer)
