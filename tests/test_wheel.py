"""The wheel, which images and `pip install` get: it holds what git holds, and serves from an empty environment."""

import json
import re
import secrets
import shutil
import subprocess
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.clients.installing import find_uv
from tests.programs import starts
from tests.server import Server, farebox_environment

LOCK = "requirements/cpu.lock"
SCRIPT = {"request": [{"steps": [{"emit": "Hello there"}]}]}


def packages(repository: Path) -> list[str]:
    """The top packages that pyproject.toml names: `gateway*` and so on."""
    found = tomllib.loads((repository / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
    return [pattern.removesuffix("*") for pattern in found["include"]]


def tracked(repository: Path, *paths: str) -> list[str]:
    command = ["git", "ls-files", "-z", "--", *paths]
    listed = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True).stdout
    return [name for name in listed.split("\0") if name and (repository / name).exists()]


def run(*command: str | Path, folder: Path) -> str:
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """Built from a copy: setuptools would leave its folders in the repository, and take what is left in them."""
    starts("uv")
    source = tmp_path_factory.mktemp("source")
    for name in tracked(repository, "pyproject.toml", "README.md", "LICENSE", *packages(repository)):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(repository / name, source / name)
    out = tmp_path_factory.mktemp("wheel")
    run(find_uv(), "build", "--wheel", "--build-constraint", repository / LOCK, "--out-dir", out, folder=source)
    [built] = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, repository: Path, wheel: Path) -> Path:
    """The Python of a new environment with the wheel and what it depends on, without vLLM."""
    environment = tmp_path_factory.mktemp("environment") / "venv"
    python = environment / "bin" / "python"
    run(find_uv(), "venv", environment, folder=environment.parent)
    run(find_uv(), "pip", "install", "--python", python, "-c", repository / LOCK, wheel, folder=environment.parent)
    return python


@pytest.fixture
def served(tmp_path: Path, installed: Path) -> Iterator[Server]:
    """`farebox serve` as it was installed, with a scripted engine, away from the repository."""
    settings = {
        "FAREBOX_SOURCE": f"scripted:{json.dumps(SCRIPT)}",
        "FAREBOX_BOOTSTRAP_KEY": f"test-{secrets.token_hex(16)}",
    }
    environment = farebox_environment(tmp_path, **settings)
    with (tmp_path / "server.log").open("wb") as log:
        command: list[str | Path] = [installed.with_name("farebox"), "serve"]
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=subprocess.STDOUT)
    server = Server(process, tmp_path, environment)
    try:
        server.find_port()
        server.wait_until_ready()
        yield server
    finally:
        server.stop()


def test_it_holds_what_git_holds(repository: Path, wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == set(tracked(repository, *packages(repository)))


def test_what_is_installed_is_the_wheel(installed: Path, tmp_path: Path) -> None:
    show = "import gateway, importlib.util as i; print(gateway.__file__, i.find_spec('vllm'))"
    file, vllm = run(installed, "-c", show, folder=tmp_path).split()
    assert Path(file).is_relative_to(installed.parent.parent)
    assert vllm == "None"


def test_its_documents_open_and_it_answers(served: Server) -> None:
    with httpx.Client(base_url=served.url, trust_env=False, timeout=60) as http:
        page = http.get("/docs")
        assert page.status_code == 200
        assert re.search(r"<style>.*\{.*</style>", page.text, re.DOTALL)
        console = http.get("/", headers={"accept": "text/html"})
        assert (console.status_code, console.headers["content-type"]) == (200, "text/html; charset=utf-8")
        files = re.findall(r'(?:href|src)="(/console/static/[^"]+)"', console.text)
        assert len(files) == 2
        assert all(http.get(file).status_code == 200 for file in files)
        assert http.get("/openapi.json").json()["openapi"].startswith("3.")
    with served.client() as http:
        asked = {"model": "farebox/demo", "messages": [{"role": "user", "content": "Hello!"}]}
        answer = http.post("/v1/chat/completions", json=asked)
    assert answer.json()["choices"][0]["message"]["content"] == "Hello there"


def test_its_commands_find_their_files(installed: Path, tmp_path: Path) -> None:
    assert "farebox/demo" in run(installed.with_name("farebox"), "catalog", "list", folder=tmp_path)
    environment = farebox_environment(tmp_path)
    farebox = installed.with_name("farebox")
    result = subprocess.run([farebox, "db", "upgrade"], cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("file", ["Dockerfile", ".dockerignore"])
def test_the_image_gets_every_package_and_the_lock(repository: Path, file: str) -> None:
    text = (repository / file).read_text()
    for name in (*packages(repository), "requirements"):
        assert re.search({"Dockerfile": rf"^COPY {name} \./{name}$", ".dockerignore": rf"^!{name}/$"}[file], text, re.M)


REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)")
PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)==(\S+)(.*)\n((?:    --hash=sha256:[0-9a-f]{64}.*\n)*)", re.M)


@pytest.mark.parametrize("build", ["cpu", "cuda"])
def test_the_lock_holds_every_dependency_and_names_no_place(repository: Path, build: str) -> None:
    text = (repository / "requirements" / f"{build}.lock").read_text()
    pins = {(found[1], found[2]): found[4] for found in PIN.finditer(text)}
    comments = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    assert len(text) == len(comments) + sum(len(found[0]) for found in PIN.finditer(text)), "a line that is no pin"
    assert not re.search(r"://|@|\bfile:|^-", text.removeprefix(comments), re.M)
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [
        *project["dependencies"],
        *extras[build],
        *(one for name in extras if name not in ("cpu", "cuda") for one in extras[name]),
    ]
    for requirement in wanted:
        name = REQUIREMENT.match(requirement)
        assert name is not None
        assert name[1].lower() in {pinned for pinned, _ in pins}, f"{requirement} isn't locked; run: make lock"
    bare = [f"{name}=={version}" for (name, version), hashes in pins.items() if not hashes]
    assert all(pin.startswith("torch==") and pin.endswith("+cpu") for pin in bare)
    assert bool(bare) == (build == "cpu")
