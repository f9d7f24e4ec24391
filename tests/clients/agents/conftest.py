"""A gateway whose model plays `play.SCRIPT`, and the agents, each as its makers publish it, with a home of its own."""

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from json import dumps, loads
from pathlib import Path
from typing import Any

import pytest

from tests.clients.agents import play
from tests.clients.conftest import shown
from tests.clients.installing import ROOT, node_packages, python_with
from tests.programs import missing
from tests.server import Server, start_server

FOLDER = Path(__file__).resolve().parent
AGENT_SECONDS_MAX = 100


@dataclass
class Agent:
    """One agent, in a project of its own with the file `play.FILE`."""

    server: Server
    program: Path
    project: Path
    home: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    before: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.before = counted(self.server)

    def run(self, *arguments: str) -> str:
        """What it printed. Fails where the agent does."""
        known = {name: os.environ[name] for name in ("PATH", "LANG", "TERM") if name in os.environ}
        result = subprocess.run(
            [str(self.program), *arguments],
            cwd=self.project,
            env={**known, "HOME": str(self.home), "FAREBOX_KEY": self.server.key, **self.environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=AGENT_SECONDS_MAX,
            check=False,
        )
        assert result.returncode == 0, f"{result.stdout[-3000:]}\n{result.stderr[-3000:]}\n{self.server.output[-3000:]}"
        return result.stdout

    def events(self, *arguments: str) -> list[dict[str, Any]]:
        """What it printed, where it prints a JSON object for each event."""
        return [loads(line) for line in self.run(*arguments).splitlines() if line.startswith("{")]

    def usage(self) -> dict[str, int]:
        """The requests and tokens that the ledger has of its session."""
        return {name: count - self.before[name] for name, count in counted(self.server).items()}


def counted(server: Server) -> dict[str, int]:
    with server.client() as http:
        total: dict[str, Any] = http.get("/v1/usage").json()["total"]
    return {name: total[name] for name in ("requests", "prompt_tokens", "completion_tokens")}


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    tmp_path = tmp_path_factory.mktemp("agents")
    cards = tmp_path / "cards.toml"
    cards.write_text(play.CARD)
    with start_server(
        tmp_path,
        FAREBOX_MODELS=f"{play.MODEL},{play.KNOWN_MODEL}",
        FAREBOX_CARDS=str(cards),
        FAREBOX_SOURCE=f"scripted:{dumps(play.SCRIPT)}",
        FAREBOX_BOOTSTRAP_KEY=f"test-{secrets.token_hex(16)}",
    ) as server:
        server.wait_until_ready()
        yield server


@pytest.fixture(scope="session")
def node_agents(request: pytest.FixtureRequest) -> Path:
    """The folder of the programs of the agents from npm."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        missing("node or npm", "install Node.js 18 or later, such as Debian's packages `nodejs` and `npm`.")
    with shown(request):
        # opencode's package puts the program for this machine in its place afterwards.
        finish = (node, str(FOLDER / "node_modules" / "opencode-ai" / "postinstall.mjs"))
        return node_packages(npm, FOLDER, "the agents from npm", *finish) / "node_modules" / ".bin"


@pytest.fixture(scope="session")
def aider_program(request: pytest.FixtureRequest) -> Path:
    if sys.version_info >= (3, 13):
        pytest.skip("aider has no release for this Python")
    with shown(request):
        return python_with(ROOT / ".venv-aider", FOLDER / "requirements.txt", "aider").parent / "aider"


def prepared(tmp_path: Path) -> tuple[Path, Path]:
    """A project and a home."""
    project, home = tmp_path / "project", tmp_path / "home"
    project.mkdir()
    home.mkdir()
    (project / play.FILE).write_text(f"{play.HARVEST}\n")
    return project, home


@pytest.fixture
def codex(gateway: Server, node_agents: Path, tmp_path: Path) -> Agent:
    project, home = prepared(tmp_path)
    barn = f'[mcp_servers.barn]\ncommand = "{sys.executable}"\nargs = ["{FOLDER / "barn.py"}"]\nrequired = true\n'
    settings = home / ".codex" / "config.toml"
    settings.parent.mkdir()
    settings.write_text(f"{play.printed('model =', gateway.url)}\n{barn}")
    return Agent(gateway, node_agents / "codex", project, home)


@pytest.fixture
def opencode(gateway: Server, node_agents: Path, tmp_path: Path) -> Agent:
    project, home = prepared(tmp_path)
    (project / "opencode.json").write_text(play.printed("{", gateway.url))
    offline = {"OPENCODE_DISABLE_MODELS_FETCH": "1", "OPENCODE_DISABLE_AUTOUPDATE": "1"}
    return Agent(gateway, node_agents / "opencode", project, home, offline)


@pytest.fixture
def aider(gateway: Server, aider_program: Path, tmp_path: Path) -> Agent:
    project, home = prepared(tmp_path)
    environment = exported("export OPENAI_API_BASE", gateway)
    return Agent(gateway, aider_program, project, home, environment | {"LITELLM_LOCAL_MODEL_COST_MAP": "True"})


@pytest.fixture
def claude(gateway: Server, node_agents: Path, tmp_path: Path) -> Agent:
    """The program itself: the package's own `claude` is put in its place by a script that is not run."""
    project, home = prepared(tmp_path)
    barn = {"type": "stdio", "command": sys.executable, "args": [str(FOLDER / "barn.py")]}
    (project / ".mcp.json").write_text(dumps({"mcpServers": {"barn": barn}}))
    (program,) = (node_agents.parent / "@anthropic-ai").glob("claude-code-*/claude")
    environment = exported("export ANTHROPIC_BASE_URL", gateway)
    return Agent(gateway, program, project, home, environment | {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"})


def exported(beginning: str, gateway: Server) -> dict[str, str]:
    """The variables that a block of `docs/agents.md` sets."""
    lines = [line for line in play.printed(beginning, gateway.url).splitlines() if line.startswith("export ")]
    values = dict(line.removeprefix("export ").split("=") for line in lines)
    return {name: value.replace("$FAREBOX_KEY", gateway.key) for name, value in values.items()}
