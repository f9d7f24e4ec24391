"""Clients made from `/openapi.json`: `openapi-python-client`, and `@hey-api/openapi-ts` under TypeScript's checks.

Two models are served whose ranges differ, so that a body is one of two shapes.
"""

import json
import secrets
from collections.abc import Iterator
from decimal import Decimal

import pytest

from tests.clients import scene
from tests.clients.conftest import Clients, Stage
from tests.clients.report import Report
from tests.server import start_server

OTHER = "meta-llama/Llama-2-70b-chat-hf"


@pytest.fixture(scope="module")
def administered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The scene with an administrator's key and a second model."""
    with start_server(
        tmp_path_factory.mktemp("generated"),
        FAREBOX_MODELS=f"{scene.MODEL},{OTHER}",
        FAREBOX_SOURCE=f"scripted:{json.dumps(scene.SCRIPT)}",
        FAREBOX_BOOTSTRAP_KEY=f"test-{secrets.token_hex(16)}",
        FAREBOX_ADMIN_KEY=f"admin-{secrets.token_hex(16)}",
    ) as server:
        server.wait_until_ready()
        yield Stage(server)


@pytest.fixture(scope="module", params=["python", "node"])
def client(request: pytest.FixtureRequest, administered: Stage) -> Report:
    clients: Clients = request.getfixturevalue(request.param)
    return clients.run({"python": "generated_client.py", "node": "generated.mjs"}[request.param], administered)


def test_the_python_generator_leaves_nothing_out(python: Clients, administered: Stage) -> None:
    assert python.run("generated_client.py", administered).answer("complaints") == []


def test_defaults_of_the_document_are_accepted(python: Clients, administered: Stage) -> None:
    """A generated class sends every default that the document names."""
    answer = python.run("generated_client.py", administered).answer("defaults")
    assert answer["limit"] == {"kind": "none", "amount_usd": None}
    assert answer["terms"]["models"] is None
    assert answer["role"] == "user"


def test_accounts_keys_and_terms(client: Report) -> None:
    answer = client.answer("administration")
    assert answer["account"]["limit"]["kind"] == "prepaid"
    assert Decimal(answer["account"]["limit"]["amount_usd"]) == 5
    assert answer["key"]["account_id"] == answer["account"]["id"]
    assert answer["key"]["terms"]["models"] == [scene.MODEL]
    assert (answer["terms"]["limit"]["kind"], Decimal(answer["terms"]["limit"]["amount_usd"])) == (
        "day",
        Decimal("1.5"),
    )
    assert answer["terms"]["tokens_per_minute"] == 9000
    assert answer["terms"]["models"] is None
    assert answer["text"] == scene.ANSWER


def test_chat(client: Report) -> None:
    answer = client.answer("chat")
    assert answer["text"] == scene.ANSWER
    scene.assert_paid(answer["usage"])


def test_an_error_has_its_shape(client: Report) -> None:
    assert client.answer("refused")["error"]["param"] == "top_p"


def test_responses_and_messages(client: Report) -> None:
    assert client.answer("responses") == scene.ANSWER
    assert client.answer("messages") == scene.ANSWER


def test_models(client: Report) -> None:
    assert client.answer("listed") == [scene.MODEL, OTHER]
