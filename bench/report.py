"""The figures as a Markdown table, as JSON, and (`bench.plots`) as pictures."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from bench.figures import Figures, median_of, median_ratio
from bench.run import REFERENCE, Results

Cell = Callable[[list[Figures]], str]


def _value(field: str, digits: int = 0) -> Cell:
    return lambda runs: f"{median_of(runs, field):,.{digits}f}"


def _two(first: str, second: str) -> Cell:
    return lambda runs: f"{median_of(runs, first):,.1f} / {median_of(runs, second):,.1f}"


COLUMNS: tuple[tuple[str, Cell], ...] = (
    ("CPU/token, µs", _value("cpu_us_per_token")),
    ("CPU/request, ms", _value("cpu_ms_per_request", 2)),
    ("tokens/s", _value("tokens_per_second")),
    ("TTFT p50 / p99, ms", _two("ttft_ms_median", "ttft_ms_p99")),
    ("between tokens p50 / p99, ms", _two("itl_ms_median", "itl_ms_p99")),
    ("RSS, MB", _value("rss_mb")),
    ("KB/stream", _value("kb_per_stream")),
)


def write(results: Results, folder: Path) -> str:
    """Write `results.md` and `results.json`; give the table."""
    folder.mkdir(parents=True, exist_ok=True)
    text = markdown(results)
    (folder / "results.md").write_text(text)
    (folder / "results.json").write_text(json.dumps(asdict(results), indent=1))
    return text


def markdown(results: Results) -> str:
    lines = [
        f"`{results.command}` on {results.started}: {results.machine}.",
        "",
        f"Medians of the repeats. The ratio is CPU per request to {results.titles.get(REFERENCE, REFERENCE)}: "
        "the median over runs that stood side by side. CPU and memory are the front end's process alone.",
    ]
    for name, title in results.scenarios.items():
        lines += ["", f"### {title} (`{name}`)", ""]
        lines.append("| | ratio | " + " | ".join(header for header, _ in COLUMNS) + " |")
        lines.append("|---" * (len(COLUMNS) + 2) + "|")
        for subject, runs in results.runs[name].items():
            cells = [results.titles[subject], _ratio(results, name, subject), *(cell(runs) for _, cell in COLUMNS)]
            lines.append("| " + " | ".join(cells) + " |")
    if results.notes:
        lines += ["", "Requests that failed:", "", *(f"- {note}" for note in results.notes)]
    return "\n".join([*lines, *_meter(results), ""])


def _ratio(results: Results, scenario: str, subject: str) -> str:
    """Per token or per request is the same: each subject gets the same requests, and answers with as many tokens."""
    found = results.runs[scenario]
    if REFERENCE not in found:
        return ""
    ratio = median_ratio(found[subject], found[REFERENCE], "cpu_us_per_token")
    return "" if ratio is None else f"{ratio:.2f}"


def _meter(results: Results) -> list[str]:
    """What the meter costs, where Farebox ran with and without it."""
    lines = []
    for name, found in results.runs.items():
        if "farebox" in found and "farebox-free" in found:
            pairs = list(zip(found["farebox"], found["farebox-free"], strict=False))
            shares = sorted(1 - free.cpu_us_per_token / full.cpu_us_per_token for full, free in pairs)
            extra = sorted(full.cpu_ms_per_request - free.cpu_ms_per_request for full, free in pairs)
            middle = len(pairs) // 2
            lines.append(f"- `{name}`: {shares[middle]:.0%} of its CPU, {extra[middle]:.2f} ms per request")
    return ["", "Auth, limits, reservation, ledger and metrics together:", "", *lines] if lines else []
