"""A gateway that plays the scene, its clients' packages, and a run of each client's script."""

import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from json import dumps, loads
from pathlib import Path

import pytest

from tests.clients import scene
from tests.clients.installing import FOLDER, INSTALL_SECONDS_MAX, evaluation_tools, node_clients, python_clients
from tests.clients.report import Report, run_client
from tests.programs import missing
from tests.server import Server, start_server


def pytest_itemcollected(item: pytest.Item) -> None:
    # The first test waits for the packages: about 150 MB of downloads on a fresh machine.
    item.add_marker(pytest.mark.timeout(INSTALL_SECONDS_MAX + 300))


@dataclass
class Stage:
    """A running gateway and the keys for its clients. `poor_key` has next to no money."""

    server: Server
    poor_key: str = "none"
    _reports: dict[tuple[str, ...], Report] = field(default_factory=dict)

    @property
    def scene(self) -> dict[str, object]:
        admin_key = self.server.environment.get("FAREBOX_ADMIN_KEY", "none")
        return scene.for_clients(self.server.url, self.server.key, self.poor_key) | {"admin_key": admin_key}

    def run(self, command: Sequence[str], environment: dict[str, str], cases: Sequence[str] = ()) -> Report:
        """A client's report; each client is run once."""
        name = (*command, *cases)
        if name not in self._reports:
            self._reports[name] = run_client(command, self.scene, environment, cases)
        return self._reports[name]


@pytest.fixture(scope="session")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A gateway whose engine plays `scene.SCRIPT`, in a process of its own."""
    with start_server(
        tmp_path_factory.mktemp("clients"),
        FAREBOX_MODELS=scene.MODEL,
        FAREBOX_SOURCE=f"scripted:{dumps(scene.SCRIPT)}",
        FAREBOX_STREAM_PING_SECONDS=str(scene.PING_SECONDS),
        FAREBOX_BOOTSTRAP_KEY=f"test-{secrets.token_hex(16)}",
    ) as server:
        made = server.farebox("accounts", "create", "poor", "--prepaid", "0.000001")
        assert made.returncode == 0, made.stderr
        made = server.farebox("keys", "create", "poor", "--account", "poor", "--json")
        assert made.returncode == 0, made.stderr
        server.wait_until_ready()
        yield Stage(server, poor_key=loads(made.stdout)[0]["key"])


@pytest.fixture(scope="session")
def real(server: Server) -> Stage:
    """The session's gateway with the real engine."""
    return Stage(server)


@pytest.fixture(scope="session", params=["scripted", "real"])
def stage(request: pytest.FixtureRequest) -> Stage:
    """Both gateways, one after the other."""
    found: Stage = request.getfixturevalue(request.param)
    return found


class Clients:
    """Runs the scripts of one language."""

    def __init__(self, program: str, folder: Path, environment: dict[str, str]) -> None:
        self._program = program
        self._folder = folder
        self._environment = environment

    def run(self, script: str, stage: Stage, cases: Sequence[str] = ()) -> Report:
        return stage.run([self._program, str(self._folder / script)], self._environment, cases)


@pytest.fixture(scope="session")
def python(request: pytest.FixtureRequest) -> Clients:
    """The third-party Python clients, in their own virtual environment."""
    with shown(request):
        program = python_clients()
    return Clients(str(program), FOLDER / "python", _environment(LITELLM_LOCAL_MODEL_COST_MAP="True"))


@pytest.fixture(scope="session")
def evaluation(request: pytest.FixtureRequest) -> Clients:
    """Tools that evaluate and load models, in their own virtual environment."""
    with shown(request):
        program = evaluation_tools()
    return Clients(str(program), FOLDER / "python", _environment())


@pytest.fixture(scope="session")
def node(request: pytest.FixtureRequest) -> Clients:
    """The Node clients."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        missing("node or npm", "install Node.js 18 or later, such as Debian's packages `nodejs` and `npm`.")
    with shown(request):
        folder = node_clients(npm)
    return Clients(node, folder, _environment())


def _environment(**settings: str) -> dict[str, str]:
    """Without keys and addresses of the developer's: a client gets its own from the scene."""
    names = ("OPENAI_", "DEEPINFRA_", "LANGCHAIN_", "LANGSMITH_", "LITELLM_", "PYTHON")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(names)}
    return kept | settings


def shown(request: pytest.FixtureRequest) -> "nullcontext[None]":
    """An installation takes a while: its progress goes to the terminal, past pytest's capture."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    return capture.global_and_fixture_disabled() if capture is not None else nullcontext()
