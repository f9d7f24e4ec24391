"""What the scripts beside this file share: the scene, and the report of their cases on stdout.

They run with the clients' own Python, which knows nothing of Farebox.
"""

import contextlib
import json
import sys
import traceback
from collections.abc import Callable
from typing import Any

SCENE: dict[str, Any] = json.load(sys.stdin)
USER: list[dict[str, Any]] = [{"role": "user", "content": SCENE["question"]}]
WEATHER: list[dict[str, Any]] = [{"role": "user", "content": SCENE["weather_question"]}]


def report(*cases: Callable[[], object]) -> None:
    """Run the cases that are asked for, and write a JSON object with what each returned or raised."""
    chosen = [case for case in cases if not SCENE["cases"] or case.__name__ in SCENE["cases"]]
    # Some clients print.
    with contextlib.redirect_stdout(sys.stderr):
        results = {case.__name__: _result(case) for case in chosen}
    json.dump(results, sys.stdout)


def _result(case: Callable[[], object]) -> dict[str, object]:
    try:
        return {"returned": case()}
    except Exception as error:
        traceback.print_exc()
        classes = [kind.__name__ for kind in type(error).__mro__]
        response = getattr(error, "response", None)
        status = getattr(error, "status_code", None) or getattr(response, "status_code", None)
        return {"raised": {"classes": classes, "status": status, "message": str(error)}}
