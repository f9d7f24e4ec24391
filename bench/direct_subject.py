"""`bench.direct` as a subject: orders go down its stdin, results come up its stdout."""

import json
import subprocess
import sys
from dataclasses import asdict
from typing import Any

from vllm.tokenizers import get_tokenizer

from bench import engine_settings
from bench.direct import MARK, Order
from bench.figures import Load
from bench.scenarios import Scenario
from bench.subjects import Subject


class Direct(Subject):
    """Prompts go in as tokens: there is no template, and no tokenizer on the way in."""

    name = "direct"
    title = "AsyncLLM.generate, no server"

    def start(self) -> None:
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bench.direct"],
                env=engine_settings.environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        self.pid = self._process.pid
        self._tokenizer = get_tokenizer(str(engine_settings.MODEL))
        self._result()

    def load(self, scenario: Scenario, samples: list[Any], requests_per_second: float) -> Load:
        prompts = [self._tokenizer.encode(sample.prompt) for sample in samples]
        order = Order(prompts, scenario.streams, scenario.tokens, requests_per_second)
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(asdict(order)).encode() + b"\n")
        self.process.stdin.flush()
        return Load(**self._result())

    def _result(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(MARK.encode()):
                found: dict[str, Any] = json.loads(line[len(MARK) :])
                return found
        raise RuntimeError(f"{self.title} ended:\n{self.log.read_text()[-3000:]}")
