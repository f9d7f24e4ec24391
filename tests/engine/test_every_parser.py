"""What a model says is in no log, whichever of vLLM's parsers fails on it, and no token makes the log grow."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

MARKER = "patient-Ottilie"


@pytest.mark.parametrize("level", ["info", "debug"])
def test_what_no_parser_understands_is_in_no_log(tmp_path: Path, repository: Path, level: str) -> None:
    verbose = {"VLLM_LOGGING_LEVEL": "DEBUG"} if level == "debug" else {}
    played = subprocess.run(
        [sys.executable, "-m", "tests.engine.every_parser", level, MARKER],
        env={**os.environ, "TMPDIR": str(tmp_path), **verbose},
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert played.returncode == 0, played.stderr[-2000:]
    assert "parsers were played" in played.stderr
    assert "Error in extracting tool call from response. [" in played.stderr, "vLLM's parsers do log"
    assert "Traceback" not in played.stderr
    assert MARKER not in played.stdout + played.stderr
    for path in filter(Path.is_file, tmp_path.rglob("*")):
        assert MARKER not in path.read_text(errors="replace"), path
    theirs = [line for line in played.stderr.splitlines() if " vllm." in line]
    places = Counter(line.split(" [")[-1].partition(";")[0].rstrip("]") for line in theirs)
    assert max(places.values()) <= 2, places.most_common(3)  # once a minute
