"""Write requirements/*.lock: versions and hashes of all packages, for every extra, Python and platform.

`make lock` runs it; `make run`, `make test`, CI and the image install what it wrote (scripts/install.py). Run it after
a change of pyproject.toml's dependencies, or to move to newer versions:

    python3 scripts/lock.py --venv .venv [--upgrade]

The files name no index: what they say holds wherever the packages come from. One line has no hash, the CPU build of
torch. It isn't on PyPI, and where it comes from a folder of wheels, that folder has only some platforms' files; a lock
made there would refuse the others.
"""

import argparse
import re
import sys
import tempfile
from pathlib import Path

from install import LOCKS, ROOT, check_python, ensure_venv, run, sources

EXTRAS = ("dev", "bench", "parquet", "tracing")
HEADER = """\
# Made by `make lock` from pyproject.toml; see scripts/lock.py. Don't edit.
# Used as constraints: what is installed has these versions, and files with these hashes.
"""
# The CPU builds of torch have a local version: `torch==2.13.0+cpu`, which uv writes with the hashes it has seen.
CPU_TORCH = re.compile(r"^(torch==\S+\+cpu\b[^\\\n]*?) \\\n(?:    --hash=\S+(?: \\)?\n)+", re.MULTILINE)


ENTRY = re.compile(r"^([a-z0-9][a-z0-9._-]*)==.*\n(?:    --hash=.*\n)*", re.MULTILINE)


def lock(uv: Path, build: str, upgrade: bool) -> None:
    """Resolve again; without `upgrade`, what is locked already stays where it still fits."""
    path = LOCKS[build]
    with tempfile.TemporaryDirectory() as temporary:
        everywhere, here = Path(temporary) / "everywhere.txt", Path(temporary) / "here.txt"
        if path.exists():
            everywhere.write_text(path.read_text())
        options, environment = sources(build, Path(temporary))
        command: list[str | Path] = [uv, "pip", "compile", "--quiet", *options, ROOT / "pyproject.toml"]
        command += ["--generate-hashes", "--no-annotate", "--no-header"]
        for extra in (build, *EXTRAS):
            command += ["--extra", extra]
        newer = ["--upgrade"] if upgrade else []
        run([*command, "--universal", "--python-version", "3.11", *newer, "--output-file", everywhere], environment)
        # A package may ask for others in the files of one platform only (intel-openmp does), and the resolution for
        # all platforms looks into one file of each.
        run([*command, "--constraint", everywhere, "--output-file", here], environment)
        path.parent.mkdir(exist_ok=True)
        path.write_text(HEADER + CPU_TORCH.sub(r"\1\n", joined(everywhere.read_text(), here.read_text())))


def joined(first: str, second: str) -> str:
    """The entries of the first, and of the second those of other packages, by name."""
    entries = [(found[1], found[0]) for found in ENTRY.finditer(first)]
    known = {name for name, _ in entries}
    entries += [(found[1], found[0]) for found in ENTRY.finditer(second) if found[1] not in known]
    return "".join(text for _, text in sorted(entries))


def main() -> None:
    check_python()
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="folder of the virtual environment with uv")
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions that pyproject.toml allows")
    options = parser.parse_args()
    uv = ensure_venv(options.venv).with_name("uv")
    for build in ("cpu", "cuda"):
        lock(uv, build, options.upgrade)
        print(f"farebox: wrote {LOCKS[build].relative_to(ROOT)}", file=sys.stderr)


if __name__ == "__main__":
    main()
