"""LoRA adapters on the real engine: one of a card, and others that come and go while it serves."""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from safetensors.torch import load_file, save_file

from tests.e2e.train_adapter import QUESTION
from tests.server import Server, start_server

BASE, PARROT = "example/base", "example/parrot"
SAYS = {"parrot": "The parrot speaks.", "owl": "The owl answers instead."}
CARDS = f"""
[[model]]
name = "{BASE}"
source = "demo"
context_length = 512
default_max_tokens = 32
profile = "llama3-turbo"
price = {{ input = "0.10", output = "0.30" }}

[[model]]
name = "{PARROT}"
base = "{BASE}"
adapter = "./parrot"
price = {{ of_base = "1.5" }}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = tmp_path_factory.mktemp("adapters")
    taught = [str(made / "parrot"), "8", SAYS["parrot"], str(made / "owl"), "4", SAYS["owl"]]
    subprocess.run([sys.executable, "-m", "tests.e2e.train_adapter", *taught], check=True, capture_output=True)
    (made / "cards.toml").write_text(CARDS)
    return made


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    settings = {"FAREBOX_CARDS": str(folder / "cards.toml"), "FAREBOX_MODELS": f"{BASE},{PARROT}"}
    keys = {"FAREBOX_BOOTSTRAP_KEY": "test-" + "a" * 32, "FAREBOX_ADMIN_KEY": "admin-" + "a" * 32}
    with start_server(folder, **keys, **settings) as running:
        running.wait_until_ready()
        yield running


def ask(client: httpx.Client, model: str, **more: Any) -> dict[str, Any]:
    body = {"model": model, "messages": [{"role": "user", "content": QUESTION}], "temperature": 0, "max_tokens": 24}
    answer = client.post("/v1/chat/completions", json=body | more)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def said(answer: dict[str, Any]) -> str:
    text: str = answer["choices"][0]["message"]["content"]
    return text


def add(server: Server, name: str, adapter: Path | str, **more: Any) -> httpx.Response:
    body = {"name": name, "base": BASE, "adapter": str(adapter), "price": {"of_base": "2"}} | more
    with server.client(server.admin_key) as admin:
        return admin.post("/admin/adapters", json=body)


def remove(server: Server, id: int) -> None:
    with server.client(server.admin_key) as admin:
        assert admin.delete(f"/admin/adapters/{id}").status_code == 200


def test_an_adapter_of_a_card_answers_in_its_own_way_and_at_its_price(server: Server) -> None:
    with server.client() as client:
        of_base, of_adapter = ask(client, BASE), ask(client, PARROT)
        models = {model["id"]: model for model in client.get("/v1/models").json()["data"]}
        metrics = client.get("/metrics").text
    assert said(of_base) != said(of_adapter) == SAYS["parrot"]
    usage = of_adapter["usage"]
    cost = usage["prompt_tokens"] * Decimal("0.15") + usage["completion_tokens"] * Decimal("0.45")
    assert Decimal(str(usage["estimated_cost"])) == cost / 10**6
    assert models[PARROT]["parent"] == models[PARROT]["root"] == BASE
    assert models[BASE]["parent"] is None
    assert "vllm:lora_requests_info" in metrics


def test_an_adapter_that_comes_under_load_cuts_no_stream(server: Server, folder: Path) -> None:
    ends: list[str] = []

    def stream() -> None:
        body = {"model": BASE, "prompt": "Once", "stream": True, "max_tokens": 300, "ignore_eos": True}
        with server.client() as client, client.stream("POST", "/v1/completions", json=body) as answer:
            ends.append(list(filter(None, answer.iter_lines()))[-1])

    streams = [threading.Thread(target=stream) for _ in range(4)]
    for one in streams:
        one.start()
    added = add(server, "example/owl", folder / "owl")
    assert added.status_code == 201, added.text
    with server.client() as client:
        assert said(ask(client, "example/owl")) == SAYS["owl"]
        for one in streams:
            one.join()
        assert ends == ["data: [DONE]"] * 4
        remove(server, added.json()["id"])
        gone = client.post("/v1/chat/completions", json={"model": "example/owl", "messages": []})
        assert (gone.status_code, gone.json()["error"]["code"]) == (404, "model_not_found")


def test_a_changed_adapter_of_the_same_name_and_folder_never_meets_what_was_cached(
    server: Server, folder: Path
) -> None:
    shutil.copytree(folder / "owl", folder / "bird")
    first = add(server, "example/bird", folder / "bird").json()
    long = {"messages": [{"role": "user", "content": "word " * 200}, {"role": "user", "content": QUESTION}]}
    with server.client() as client:
        before = ask(client, "example/bird", **long)
        assert ask(client, "example/bird", **long)["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
        remove(server, first["id"])
        shutil.copytree(folder / "parrot", folder / "bird", dirs_exist_ok=True)
        again = add(server, "example/bird", folder / "bird").json()
        after = ask(client, "example/bird", **long)
        assert after["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
        assert said(after) == said(ask(client, PARROT, **long)) != said(before)
    assert again["id"] > first["id"]
    remove(server, again["id"])


def test_an_adapter_of_an_account_is_its_own(server: Server, folder: Path) -> None:
    with server.client(server.admin_key) as admin:
        account = admin.post("/admin/accounts", json={"name": "owner"}).json()
        key = admin.post("/admin/keys", json={"account_id": account["id"], "name": "k"}).json()
    added = add(server, "example/private", folder / "owl", account_id=account["id"]).json()
    with server.client(key["secret"]) as owner, server.client() as other:
        assert said(ask(owner, "example/private")) == SAYS["owl"]
        assert "example/private" in owner.get("/v1/models").text
        for path in ("/v1/models", "/models/list", "/openapi.json", "/v1/me/rate_limit"):
            assert "example/private" not in other.get(path).text
        body = {"model": "example/private", "messages": [{"role": "user", "content": QUESTION}]}
        refused = other.post("/v1/chat/completions", json=body)
        near = other.post("/v1/chat/completions", json=body | {"model": "example/privat"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
        assert "example/private" not in near.text
        assert other.get("/models/example/private").status_code == other.get("/v1/models/example/private").status_code
    remove(server, added["id"])


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("missing", "is no folder on this machine"),
        ("no weights", "has no adapter_model.safetensors"),
        ("rank", "has rank 64; its base takes up to 16"),
        ("kind", 'only "LORA" can be served'),
        ("shape", "doesn't fit its base"),
        ("modules", "doesn't fit its base"),
    ],
)
def test_a_bad_adapter_gets_one_sentence_and_the_engine_lives(
    server: Server, folder: Path, tmp_path: Path, fault: str, words: str
) -> None:
    bad = shutil.copytree(folder / "owl", tmp_path / "bad")
    config = json.loads((bad / "adapter_config.json").read_text())
    weights = load_file(bad / "adapter_model.safetensors")
    match fault:
        case "missing":
            shutil.rmtree(bad)
        case "no weights":
            (bad / "adapter_model.safetensors").unlink()
        case "rank":
            (bad / "adapter_config.json").write_text(json.dumps(config | {"r": 64}))
        case "kind":
            (bad / "adapter_config.json").write_text(json.dumps(config | {"peft_type": "PREFIX_TUNING"}))
        case "shape":
            wider = {name: tensor.repeat_interleave(2, dim=-1) for name, tensor in weights.items()}
            save_file(wider, bad / "adapter_model.safetensors")
        case "modules":
            other = {name.replace("q_proj", "another_proj"): tensor for name, tensor in weights.items()}
            save_file(other, bad / "adapter_model.safetensors")
    answer = add(server, "example/bad", bad)
    assert answer.status_code == 422, answer.text
    assert words in answer.json()["error"]["message"]
    assert answer.json()["error"]["param"] == "adapter"
    with server.client() as client:
        assert said(ask(client, PARROT)) == SAYS["parrot"]
        assert "example/bad" not in client.get("/v1/models").text
