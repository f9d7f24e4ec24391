"""lm-eval and guidellm by their own command lines, each imported once for all of its runs."""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

# A task and its data are files here: nothing is to be fetched.
FOLDER = Path(tempfile.mkdtemp())
os.environ |= {"HF_HOME": str(FOLDER / "hub"), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}

if __name__ == "__main__":  # not in guidellm's processes, which import this file and have another stdin
    from reporting import SCENE, report

CAPITALS = """
task: capitals
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: choices
doc_to_target: answer
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
ANSWERS = """
task: answers
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["\\n\\n"], max_gen_toks: 32, temperature: 0}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""


def evaluate(model: str, path: str, task: str, *options: str, **arguments: object) -> dict[str, Any]:
    """The results of `lm_eval run` for one task."""
    from lm_eval.__main__ import cli_evaluate

    os.environ["OPENAI_API_KEY"] = SCENE["key"]
    output = FOLDER / f"{task}-{len(list(FOLDER.iterdir()))}"
    given = {"base_url": f"{SCENE['url']}{path}", "model": SCENE["model"]} | arguments
    sys.argv = ["lm_eval", "run", "--model", model, "--tasks", task, "--include_path", str(FOLDER), *options]
    sys.argv += ["--model_args", ",".join(f"{name}={value}" for name, value in given.items())]
    sys.argv += ["--output_path", str(output)]
    cli_evaluate()
    (written,) = output.rglob("results_*.json")
    results: dict[str, Any] = json.loads(written.read_text())["results"][task]
    return results


def task(name: str, text: str, *rows: dict[str, object]) -> None:
    data = FOLDER / f"{name}.jsonl"
    data.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (FOLDER / f"{name}.yaml").write_text(text.replace("DATA", str(data)))


def scored(*options: str, **arguments: object) -> dict[str, Any]:
    """Log-likelihoods: the likelier of several ends of a sentence that the model knows by heart, twice."""
    start, end = SCENE["answer"].rsplit(" ", 1)
    rows = [{"question": start, "choices": ["a fish.", end, "seven."], "answer": 1}]
    rows += [{"question": start, "choices": [end, "blue blue."], "answer": 0}]
    task("capitals", CAPITALS, *rows)
    more = {"tokenizer_backend": "huggingface", "tokenizer": SCENE["tokenizer"]} | arguments
    return evaluate("local-completions", "/v1/completions", "capitals", *options, **more)


def token_ids() -> object:
    return scored()


def texts_in_batches() -> object:
    return scored("--batch_size", "2", tokenized_requests=False, num_concurrent=2)


def chat() -> object:
    task("answers", ANSWERS, {"question": SCENE["question"], "answer": SCENE["answer"]})
    return evaluate("local-chat-completions", "/v1/chat/completions", "answers", "--apply_chat_template")


def load(path: str) -> object:
    """What `guidellm run` says of three requests."""
    from guidellm.__main__ import cli

    output = FOLDER / f"{path.replace('/', '-')}.json"
    backend = {"target": SCENE["url"], "model": SCENE["model"], "api_key": SCENE["key"], "request_format": path}
    options = {
        "--backend": "kind=openai_http," + ",".join(f"{name}={value}" for name, value in backend.items()),
        "--profile": "kind=synchronous",
        "--constraint": "kind=max_requests,count=3",
        "--data": "kind=synthetic_text,prompt_tokens=16,output_tokens=8",
        "--tokenizer": f"kind=hf_auto,model={SCENE['tokenizer']}",
        "--output": f"kind=json,path={output}",
    }
    cli(["run", "--disable-console", *(word for pair in options.items() for word in pair)], standalone_mode=False)
    (benchmark,) = json.loads(output.read_text())["benchmarks"]
    metrics = benchmark["metrics"]
    return {"requests": metrics["request_totals"], "tokens": metrics["output_token_count"]["successful"]["mean"]}


def load_chat() -> object:
    return load("/v1/chat/completions")


def load_completions() -> object:
    return load("/v1/completions")


def load_responses() -> object:
    return load("/v1/responses")


if __name__ == "__main__":
    report(token_ids, texts_in_batches, chat, load_chat, load_completions, load_responses)
