"""House rules that a machine can hold."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("gateway", "engine", "pricing", "storage")
FILE_LINES_MAX = 320
FUNCTION_LINES_MAX = 60


def sources(*folders: str) -> list[Path]:
    """Migrations are left out: they are a record, and never change."""
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [path for path in paths if "versions" not in path.parts]


@pytest.mark.parametrize("path", sources(*PACKAGES), ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_fit_a_few_screens(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= FILE_LINES_MAX
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= FUNCTION_LINES_MAX, f"{node.name} has {lines} lines"


@pytest.mark.parametrize("path", sources(*PACKAGES), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert path.name not in ("utils.py", "helpers.py", "misc.py")
    text = path.read_text()
    assert not text.strip() or ast.get_docstring(ast.parse(text)), "a module needs a docstring"
    assert not re.search(r"\b(TODO|FIXME|XXX)\b|raise NotImplementedError", text)


def test_only_the_settings_read_the_environment() -> None:
    readers = {
        str(path.relative_to(ROOT))
        for path in sources("gateway", "pricing", "storage")
        if re.search(r"os\.environ|getenv", path.read_text())
    }
    # The welcome and the console's examples only print the words; the workers tell prometheus_client its folder, which
    # has no other way; `farebox batches` is a client, with a client's key; the store's library reads AWS_* by itself,
    # and must be told when they name one without TLS.
    assert readers <= {
        "gateway/commands/batches.py",
        "gateway/commands/settings_flags.py",
        "gateway/console/examples.py",
        "gateway/files/s3.py",
        "gateway/process/welcome.py",
        "gateway/process/workers.py",
    }


def test_tests_use_no_mocks() -> None:
    for path in sources("tests"):
        assert not re.search(r"^\s*(from|import) unittest\.mock|\bmonkeypatch\.setattr\(", path.read_text(), re.M), path


def test_the_readmes_table_of_settings_is_current() -> None:
    command: list[str | Path] = [sys.executable, ROOT / "scripts" / "settings_table.py", "--check"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_no_large_file_is_tracked() -> None:
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    for name in filter(None, tracked.split("\0")):
        path = ROOT / name
        if path.exists():
            assert path.stat().st_size < 6 * 2**20, name


def test_the_gateway_starts_without_vllm() -> None:
    """Only `engine/` imports vLLM, and only to start an engine."""
    blocked = "import sys; sys.modules.update(dict.fromkeys(['vllm', 'torch', 'transformers'])); "
    for command in ("serve --help", "catalog list", "catalog check farebox/demo"):
        code = f"{blocked}from gateway.cli import main; main({command.split()})"
        result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
