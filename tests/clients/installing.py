"""The clients' packages: virtual environments for Python's, a node_modules for Node's, all outside git.

They are installed when their lock file is newer than what is there, and otherwise left alone.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from scripts.install import sources

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[1]
ENVIRONMENT = ROOT / ".venv-clients"
REQUIREMENTS = FOLDER / "requirements.txt"
EVALUATION_ENVIRONMENT = ROOT / ".venv-evaluation"
EVALUATION_REQUIREMENTS = FOLDER / "evaluation.txt"
S3_ENVIRONMENT = ROOT / ".venv-s3"
S3_REQUIREMENTS = FOLDER / "s3.txt"
NODE_FOLDER = FOLDER / "node"
INSTALL_SECONDS_MAX = 800


def python_clients() -> Path:
    """The Python that has the client packages."""
    return python_with(ENVIRONMENT, REQUIREMENTS, "the Python clients")


def evaluation_tools() -> Path:
    """The Python that has lm-eval and guidellm, with a CPU build of torch: guidellm's data loader is torch's."""
    return python_with(EVALUATION_ENVIRONMENT, EVALUATION_REQUIREMENTS, "the tools that evaluate models", "--no-deps")


def s3_server() -> Path:
    """The program that is moto's server of the S3 kind."""
    return python_with(S3_ENVIRONMENT, S3_REQUIREMENTS, "a server of the S3 kind").with_name("moto_server")


def python_with(environment: Path, requirements: Path, what: str, *options: str) -> Path:
    """The Python of a virtual environment with these packages."""
    python = environment / "bin" / "python"
    with locked(environment):
        if is_stale(environment, requirements):
            uv = find_uv()
            say(f"{what}, into {environment.name}")
            run(uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(environment))
            command = (uv, "pip", "install", "--python", str(python), *options, "--requirements", str(requirements))
            with tempfile.TemporaryDirectory() as temporary:
                origins, variables = sources("cpu", Path(temporary))
                run(*command, *map(str, origins), environment=variables)
            mark_fresh(environment, requirements)
    return python


def node_clients(npm: str) -> Path:
    """The folder of the Node scripts, with its packages."""
    return node_packages(npm, NODE_FOLDER, "the Node clients")


def node_packages(npm: str, folder: Path, what: str, *afterwards: str) -> Path:
    """The folder, with the packages of its lock file, or else of its package.json, which then names whole versions.

    `afterwards` is a command that makes them ready.
    """
    modules, pins = folder / "node_modules", folder / "package-lock.json"
    command = ["ci"]
    if not pins.exists():
        pins, command = folder / "package.json", ["install", "--no-package-lock"]
    with locked(modules):
        if is_stale(modules, pins):
            say(f"{what}, into {modules.relative_to(ROOT)}")
            # Without the packages' own install scripts: hardly one is needed.
            run(npm, *command, "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(folder))
            if afterwards:
                run(*afterwards)
            mark_fresh(modules, pins)
    return folder


def find_uv() -> str:
    beside = Path(sys.executable).parent / "uv"
    found = str(beside) if beside.exists() else shutil.which("uv")
    assert found, "uv is missing: scripts/install.py puts it into the virtual environment, as `make test` does"
    return found


def is_stale(folder: Path, lock_file: Path) -> bool:
    stamp = folder / ".installed"
    return not stamp.exists() or stamp.read_text() != fingerprint(lock_file)


def mark_fresh(folder: Path, lock_file: Path) -> None:
    (folder / ".installed").write_text(fingerprint(lock_file))


def fingerprint(lock_file: Path) -> str:
    python = ".".join(map(str, sys.version_info[:2]))
    return f"{python} {hashlib.sha256(lock_file.read_bytes()).hexdigest()}\n"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Two runs of the tests in one clone install one after the other."""
    name = hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    cache = ROOT / ".pytest_cache"
    cache.mkdir(exist_ok=True)
    with (cache / f"install-{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run(*command: str, environment: Mapping[str, str] = os.environ) -> None:
    result = subprocess.run(command, timeout=INSTALL_SECONDS_MAX, check=False, env=dict(environment))
    assert result.returncode == 0, f"{' '.join(command)} failed; the lines above say why"


def say(what: str) -> None:
    print(f"\nfarebox: installing {what}", file=sys.stderr, flush=True)
