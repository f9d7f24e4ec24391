"""Tiny models of several families with random weights: what they say means nothing, but that they say it shows that the
family can be served."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer

from engine.demo import MODEL_DIR

# A template as those of Qwen: calls in tags, and thoughts.
QWEN_TEMPLATE = (
    "{%- for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor -%}"
    "{%- if tools %}<tools>{{ tools | tojson }}</tools> answer in <tool_call></tool_call>{% endif -%}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n"
    "{%- if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif -%}"
)
PLAIN_TEMPLATE = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
# As Mistral's: a special token opens the calls.
MISTRAL_TEMPLATE = PLAIN_TEMPLATE + "{% if tools %}[TOOL_CALLS]{% endif %}"

SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "max_position_embeddings": 512,
}
BERT_SHAPE = {name: value for name, value in SHAPE.items() if name not in ("num_key_value_heads", "head_dim")}


def qwen2(folder: Path) -> None:
    _generator(folder, "Qwen2", QWEN_TEMPLATE)


def qwen3(folder: Path) -> None:
    _generator(folder, "Qwen3", QWEN_TEMPLATE, "<think>", "</think>", "<tool_call>", "</tool_call>")


def qwen3_moe(folder: Path) -> None:
    """A mixture of experts."""
    experts: dict[str, Any] = {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "decoder_sparse_step": 1,
    }
    _generator(folder, "Qwen3Moe", QWEN_TEMPLATE, "<think>", "</think>", **experts)


def mistral(folder: Path) -> None:
    _generator(folder, "Mistral", MISTRAL_TEMPLATE, "[TOOL_CALLS]", sliding_window=None)


def gemma(folder: Path) -> None:
    _generator(folder, "Gemma2", PLAIN_TEMPLATE, sliding_window=256, query_pre_attn_scalar=32)


def base(folder: Path) -> None:
    """One that was never taught to converse: without a chat template."""
    shape: dict[str, Any] = {"n_embd": 64, "n_layer": 2, "n_head": 2, "n_positions": 128}
    _generator(folder, "GPT2", None, lm_head="GPT2LMHeadModel", **shape)


def embedder(folder: Path) -> None:
    _bert(folder, transformers.BertModel, add_pooling_layer=False)


def reranker(folder: Path) -> None:
    _bert(folder, transformers.BertForSequenceClassification, num_labels=1)


FAMILIES: dict[str, Callable[[Path], None]] = {
    made.__name__: made for made in (qwen2, qwen3, qwen3_moe, mistral, gemma, base, embedder, reranker)
}


def make(name: str, folder: Path) -> Path:
    """The folder of a model of this family, below `folder`."""
    target = folder / name
    target.mkdir(parents=True)
    torch.manual_seed(7)
    FAMILIES[name](target)
    return target


def _generator(
    folder: Path, family: str, template: str | None, *special: str, lm_head: str | None = None, **shape: Any
) -> None:
    """A model that goes on from text, with the demo model's tokenizer and some tokens more."""
    tokenizer = Tokenizer.from_file(str(MODEL_DIR / "tokenizer.json"))
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    tokenizer.add_tokens(list(special))
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = json.loads((MODEL_DIR / "tokenizer_config.json").read_text())
    settings |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 10**9}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    size = -(-tokenizer.get_vocab_size() // 64) * 64
    config_class = getattr(transformers, f"{family}Config")
    ends = {"bos_token_id": 0, "eos_token_id": tokenizer.token_to_id("<|im_end|>"), "pad_token_id": 0}
    config = config_class(vocab_size=size, **ends, **({} if lm_head else SHAPE) | shape)
    model = getattr(transformers, lm_head or f"{family}ForCausalLM")(config)
    model.to(torch.bfloat16).save_pretrained(folder)


def _bert(folder: Path, kind: Any, num_labels: int = 2, **options: Any) -> None:
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,?!"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(words))
    transformers.BertTokenizerFast(vocab=str(vocabulary)).save_pretrained(folder)
    config = transformers.BertConfig(vocab_size=len(words), num_labels=num_labels, **BERT_SHAPE)
    kind(config, **options).to(torch.float32).save_pretrained(folder)


def copy_demo(folder: Path) -> Path:
    """The demo model in a folder of its own."""
    return Path(shutil.copytree(MODEL_DIR, folder / "demo"))
