"""helm, promtool and the chart's rendering. A program that is missing is named, and in CI that is a failure."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.programs import missing, starts

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "farebox"
KUBERNETES = "1.34"
EXAMPLES = sorted((CHART / "examples").glob("*.yaml"))

Manifest = dict[str, Any]
Values = dict[str, Any]


@pytest.fixture(scope="session")
def helm() -> str:
    """Path of helm: HELM, the PATH, or the cache of scripts/get_helm.py."""
    starts("helm")
    cached = ROOT / ".tools" / "helm"
    found = os.environ.get("HELM") or shutil.which("helm") or (str(cached) if cached.exists() else None)
    if found is None:
        missing("helm", "run `python scripts/get_helm.py`.")
    return found


@pytest.fixture(scope="session")
def promtool() -> str:
    starts("promtool")
    found = shutil.which("promtool")
    if found is None:
        missing("promtool", "install Prometheus, such as Debian's package `prometheus`.")
    return found


class Chart:
    """Renders the chart with values on top of an optional values file."""

    def __init__(self, helm: str, folder: Path) -> None:
        self._helm = helm
        self._folder = folder

    def run(self, command: list[str], values: Values | None = None, file: Path | None = None) -> tuple[int, str, str]:
        """Exit status, stdout and stderr."""
        arguments = [self._helm, *command]
        if file is not None:
            arguments += ["--values", str(file)]
        if values is not None:
            path = self._folder / "values.json"
            path.write_text(json.dumps(values))
            arguments += ["--values", str(path)]
        environment = os.environ | {name: str(self._folder / name) for name in ("HELM_CACHE_HOME", "HELM_CONFIG_HOME")}
        done = subprocess.run(arguments, capture_output=True, text=True, env=environment, check=False, timeout=60)
        return done.returncode, done.stdout, done.stderr

    def render(self, values: Values | None = None, file: Path | None = None, release: str = "pool") -> list[Manifest]:
        """All manifests, those of hooks and tests too."""
        command = ["template", release, str(CHART), "--namespace", "llm"]
        status, out, err = self.run(command, values, file)
        assert status == 0, err
        return [manifest for manifest in yaml.safe_load_all(out) if manifest]

    def refusal(self, values: Values) -> str:
        """What helm says of values that it must not accept."""
        status, _, err = self.run(["template", "pool", str(CHART)], values)
        assert status != 0, f"{values} was accepted"
        return err


@pytest.fixture
def chart(helm: str, tmp_path: Path) -> Chart:
    return Chart(helm, tmp_path)


def validate(manifest: Manifest) -> None:
    """Against the schemas of Kubernetes. Raises where a field is wrong or unknown."""
    try:
        import kubernetes_validate
    except ImportError:
        missing("kubernetes-validate", "install it from PyPI.")
    kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def find(manifests: list[Manifest], kind: str, name: str | None = None) -> Manifest:
    """The one manifest of a kind, and name where there are several."""
    found = [m for m in manifests if m["kind"] == kind and name in (None, m["metadata"]["name"])]
    assert len(found) == 1, f"{len(found)} manifests of kind {kind}, name {name}"
    return found[0]


def pod_specs(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Every pod's spec, with a word for the pod."""
    for manifest in manifests:
        name = f"{manifest['kind']}/{manifest['metadata']['name']}"
        match manifest["kind"]:
            case "Pod":
                yield name, manifest["spec"]
            case "Deployment" | "Job":
                yield name, manifest["spec"]["template"]["spec"]
            case "LeaderWorkerSet":
                for part in ("leaderTemplate", "workerTemplate"):
                    yield f"{name}/{part}", manifest["spec"]["leaderWorkerTemplate"][part]["spec"]


def environment(container: Manifest) -> dict[str, Any]:
    """By name: the value, or the reference to where it comes from."""
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container.get("env", [])}


def gateway(manifests: list[Manifest]) -> Manifest:
    """The gateway's container."""
    for _, spec in pod_specs(manifests):
        for container in spec["containers"]:
            if container["name"] == "gateway":
                found: Manifest = container
                return found
    raise AssertionError("no gateway container")
