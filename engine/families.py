"""Which of vLLM's parsers read what a family of models writes, as vLLM's documentation and recipes have them.

A row holds for the model types named (of `config.json`; none: for all) whose chat template has the mark. The first row
that fits decides: a template that teaches a format is a better witness than the type of the weights under it.
"""

from typing import NamedTuple


class Row(NamedTuple):
    """`types` are separated by spaces; `mark` is what the chat template must hold."""

    parser: str
    types: str = ""
    mark: str = ""


TOOL_CALLS = (
    Row("openai", "gpt_oss"),
    Row("llama4_pythonic", "llama4 llama4_text"),
    Row("deepseek_v4", "deepseek_v4"),
    Row("deepseek_v32", "deepseek_v32"),
    Row("deepseek_v31", "deepseek_v3", "thinking"),
    Row("deepseek_v3", "deepseek_v3", "tool▁calls▁begin"),
    Row("glm47", "glm4_moe_lite"),
    Row("glm45", "glm4_moe", "<tool_call>"),
    Row("kimi_k2", "kimi_k2", "tool_call"),
    Row("minimax_m2", "minimax_m2", "minimax:tool_call"),
    Row("granite4", "granitemoehybrid", "<tool_call>"),
    Row("granite", "granite granitemoe", "<|tool_call|>"),
    Row("gemma4", "gemma4 gemma4_text"),
    Row("functiongemma", "gemma3 gemma3_text", "<start_function_call>"),
    Row("seed_oss", "seed_oss"),
    Row("hunyuan_a13b", "hunyuan_v1_moe", "tool_call"),
    Row("ernie45", "ernie4_5 ernie4_5_moe", "<tool_call>"),
    Row("longcat", "longcat_flash", "longcat_tool_call"),
    Row("mimo", "mimo mimo_v2_flash", "<tool_call>"),
    Row("lfm2", "lfm2 lfm2_moe", "tool_call"),
    Row("olmo3", "olmo3", "<function_calls>"),
    Row("jamba", "jamba", "<tool_calls>"),
    Row("internlm", "internlm2", "<|plugin|>"),
    Row("apertus", "apertus"),
    Row("phi4_mini_json", "phi3 phi4", "<|tool|>"),
    Row("mistral", mark="[TOOL_CALLS]"),
    Row("qwen3_xml", mark="<function="),
    Row("hermes", mark="<tool_call>"),
    Row("llama3_json", "llama mllama", "ipython"),
)

REASONING = (
    Row("openai_gptoss", "gpt_oss"),
    Row("deepseek_v4", "deepseek_v4"),
    Row("deepseek_v3", "deepseek_v32"),
    Row("deepseek_v3", "deepseek_v3", "thinking"),
    Row("glm47", "glm4_moe_lite", "think>"),
    Row("glm45", "glm4_moe", "think>"),
    Row("kimi_k2", "kimi_k2", "think>"),
    Row("minimax_m2", "minimax_m2", "think>"),
    Row("gemma4", "gemma4 gemma4_text"),
    Row("seed_oss", "seed_oss"),
    Row("hunyuan_a13b", "hunyuan_v1_moe", "think>"),
    Row("ernie45", "ernie4_5 ernie4_5_moe", "think>"),
    Row("mimo", "mimo mimo_v2_flash", "think>"),
    Row("olmo3", "olmo3", "think>"),
    Row("nemotron_v3", "nemotron_h", "think>"),
    Row("mistral", mark="[THINK]"),
    Row("qwen3", "qwen3 qwen3_moe qwen3_next qwen3_5 qwen3_5_text qwen3_5_moe qwen3_5_moe_text", "<think>"),
    Row("deepseek_r1", mark="<think>"),
)


def parser_of(rows: tuple[Row, ...], model_type: str, template: str) -> str | None:
    """The name of the parser, None where no row fits."""
    for row in rows:
        if (not row.types or model_type in row.types.split()) and row.mark in template:
            return row.parser
    return None
