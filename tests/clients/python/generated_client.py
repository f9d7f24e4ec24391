"""A client that openapi-python-client makes from the gateway's own document."""

import importlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from reporting import SCENE, USER, report


def made() -> object:
    """What the generator has to complain of. Its formatter is a program beside this Python."""
    binaries = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{binaries}{os.pathsep}{os.environ.get('PATH', '')}"}
    # It knows no lists of JSON lines, as the results of batches are.
    config = FOLDER.parent / f"{FOLDER.name}.json"
    config.write_text(json.dumps({"content_type_overrides": {"application/jsonl": "text/plain"}}))
    command = [binaries / "openapi-python-client", "generate", "--url", f"{SCENE['url']}/openapi.json"]
    command += ["--config", config]
    result = subprocess.run(
        [*command, "--output-path", FOLDER, "--overwrite"], env=environment, capture_output=True, text=True, check=True
    )
    lines = (result.stdout + result.stderr).splitlines()
    return [line for line in lines if line and not line.startswith("Generating")]


FOLDER = Path(tempfile.mkdtemp())
COMPLAINTS = made()
sys.path.insert(0, str(FOLDER))
models = importlib.import_module("farebox_client.models")
Client = importlib.import_module("farebox_client").AuthenticatedClient


def call(tag: str, operation: str, *path: object, key: str = SCENE["key"], **fields: Any) -> Any:
    """The parsed answer of one of the generated functions."""
    function = importlib.import_module(f"farebox_client.api.{tag}.{operation}")
    client = Client(base_url=SCENE["url"], token=key, raise_on_unexpected_status=True)
    return function.sync_detailed(*path, client=client, **fields).parsed


def admin(operation: str, *path: object, **fields: Any) -> Any:
    return call("administration", operation, *path, key=SCENE["admin_key"], **fields)


def complaints() -> object:
    return COMPLAINTS


def administration() -> object:
    """An account with money, a key on it, and other terms for the key."""
    limit = models.LimitBody(kind=models.LimitBodyKind.PREPAID, amount_usd="5.00")
    account = admin("post_admin_accounts", body=models.NewAccount(name="generated-python", limit=limit))
    terms = models.Terms(models=[SCENE["model"]], requests_per_minute=60)
    key = admin("post_admin_keys", body=models.NewKeyBody(account_id=account.id, name="bot", terms=terms))
    spent = models.LimitBody(kind=models.LimitBodyKind.DAY, amount_usd="1.50")
    changed = admin("put_admin_keys_id_terms", key.id, body=models.Terms(limit=spent, tokens_per_minute=9000))
    answer = call("chat_and_completions", "post_v1_chat_completions", key=key.secret, body=chat_body())
    return {
        "account": account.to_dict(),
        "key": key.to_dict(),
        "terms": changed.terms.to_dict(),
        "text": answer.choices[0].message.content,
    }


def defaults() -> object:
    """With nothing but what is required, the generated classes fill in the document's defaults."""
    account = admin("post_admin_accounts", body=models.NewAccount(name="generated-python-defaults"))
    key = admin("post_admin_keys", body=models.NewKeyBody(account_id=account.id, name="bot"))
    return {"limit": account.limit.to_dict(), "terms": key.terms.to_dict(), "role": key.role}


def chat_body(**fields: Any) -> Any:
    model = models.ChatBodyFareboxDemoModel(SCENE["model"])
    message = models.UserMessage(role="user", content=USER[0]["content"])
    return models.ChatBodyFareboxDemo(model=model, messages=[message], **fields)


def chat() -> object:
    answer = call("chat_and_completions", "post_v1_chat_completions", body=chat_body(temperature=0.0))
    return {"text": answer.choices[0].message.content, "usage": answer.usage.to_dict()}


def refused() -> object:
    answer = call("chat_and_completions", "post_v1_chat_completions", body=chat_body(top_p=7.0))
    return json.loads(json.dumps(answer.to_dict()))


def responses() -> object:
    model = models.ResponsesBodyFareboxDemoModel(SCENE["model"])
    body = models.ResponsesBodyFareboxDemo(model=model, input_=SCENE["question"])
    return call("responses", "post_v1_responses", body=body).output[0].content[0].text


def messages() -> object:
    model = models.MessagesBodyFareboxDemoModel(SCENE["model"])
    turn = models.UserTurn(role="user", content=SCENE["question"])
    body = models.MessagesBodyFareboxDemo(model=model, messages=[turn], max_tokens=50)
    return call("anthropic", "post_v1_messages", body=body).content[0].text


def listed() -> object:
    return [model.id for model in call("models", "get_v1_models").data]


report(complaints, administration, defaults, chat, refused, responses, messages, listed)
