"""A client's script in a process of its own, and what its cases gave."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CLIENT_SECONDS_MAX = 280


@dataclass(frozen=True)
class Raised:
    """The error of a case: its class and those that it derives from, the HTTP status if it has one, and its text."""

    classes: tuple[str, ...]
    status: int | None
    message: str

    @property
    def name(self) -> str:
        return self.classes[0]


class Report:
    """The results of one client's cases by name."""

    def __init__(self, cases: Mapping[str, Mapping[str, Any]], log: str) -> None:
        self._cases = cases
        self._log = log

    def answer(self, case: str) -> Any:
        """What the case returned. Fails with what was raised instead."""
        result = self._cases[case]
        assert "returned" in result, f"{case} raised {result.get('raised')}\n{self._log[-3000:]}"
        return result["returned"]

    def raised(self, case: str) -> Raised:
        """What the case raised. Fails if it didn't."""
        result = self._cases[case]
        assert "raised" in result, f"{case} should have raised; it returned {result.get('returned')}"
        found = result["raised"]
        return Raised(tuple(found["classes"]), found["status"], found["message"])


def run_client(
    command: Sequence[str], scene: Mapping[str, object], environment: Mapping[str, str], cases: Sequence[str] = ()
) -> Report:
    """Run a script with the scene on its stdin; `cases` are those to run, all if there are none."""
    result = subprocess.run(
        command,
        input=json.dumps({**scene, "cases": list(cases)}),
        capture_output=True,
        text=True,
        env=dict(environment),
        timeout=CLIENT_SECONDS_MAX,
        check=False,
    )
    assert result.returncode == 0, f"{command[-1]} failed:\n{result.stderr[-4000:]}"
    return Report(json.loads(result.stdout), result.stderr)
