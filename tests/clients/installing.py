"""The clients' packages: a virtual environment for Python's, a node_modules for Node's, both outside git.

They are installed when their lock file is newer than what is there, and otherwise left alone.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[1]
ENVIRONMENT = ROOT / ".venv-clients"
REQUIREMENTS = FOLDER / "requirements.txt"
NODE_FOLDER = FOLDER / "node"
INSTALL_SECONDS_MAX = 800


def python_clients() -> Path:
    """The Python that has the client packages."""
    python = ENVIRONMENT / "bin" / "python"
    with locked(ENVIRONMENT):
        if is_stale(ENVIRONMENT, REQUIREMENTS):
            uv = find_uv()
            say(f"the Python clients, into {ENVIRONMENT.name}")
            run(uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(ENVIRONMENT))
            run(uv, "pip", "install", "--python", str(python), "--requirements", str(REQUIREMENTS))
            mark_fresh(ENVIRONMENT, REQUIREMENTS)
    return python


def node_clients(npm: str) -> Path:
    """The folder of the Node scripts, with its packages."""
    modules, lock_file = NODE_FOLDER / "node_modules", NODE_FOLDER / "package-lock.json"
    with locked(modules):
        if is_stale(modules, lock_file):
            say("the Node clients, into tests/clients/node/node_modules")
            # Without the packages' own install scripts: none of them is needed.
            run(npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(NODE_FOLDER))
            mark_fresh(modules, lock_file)
    return NODE_FOLDER


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


def run(*command: str) -> None:
    result = subprocess.run(command, timeout=INSTALL_SECONDS_MAX, check=False, env=dict(os.environ))
    assert result.returncode == 0, f"{' '.join(command)} failed; the lines above say why"


def say(what: str) -> None:
    print(f"\nfarebox: installing {what}", file=sys.stderr, flush=True)
