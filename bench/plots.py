"""The figures as pictures: one PNG for CPU per token and per request, one for times."""

import statistics
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")  # no screen

import matplotlib.pyplot as plt

from bench.run import Results

# Categorical colours that stay apart for colour-blind readers (Okabe and Ito, 2008).
COLOURS = {
    "farebox": "#0072B2",
    "farebox-postgres": "#56B4E9",
    "farebox-free": "#009E73",
    "vllm": "#D55E00",
    "vllm-rust": "#CC79A7",
    "direct": "#999999",
}


def draw(results: Results, folder: Path) -> list[Path]:
    """Bars are medians, dots are the runs."""
    plots = {
        "cpu_us_per_token": "front-end CPU per token, µs",
        "cpu_ms_per_request": "front-end CPU per request, ms",
        "tokens_per_second": "tokens per second",
        "ttft_ms_p99": "time to first token, p99, ms",
    }
    return [_bars(results, field, title, folder / f"{field}.png") for field, title in plots.items()]


def _bars(results: Results, field: str, title: str, path: Path) -> Path:
    names = list(results.scenarios)
    figure, axes = plt.subplots(1, len(names), figsize=(2.2 * len(names) + 2, 3.6), squeeze=False)
    for axis, name in zip(axes[0], names, strict=True):
        for place, (subject, runs) in enumerate(results.runs[name].items()):
            values = [getattr(run, field) for run in runs]
            axis.bar(
                place, statistics.median(values), color=COLOURS.get(subject, "#000000"), label=results.titles[subject]
            )
            axis.plot([place] * len(values), values, "k.", markersize=3)
        axis.set_title(name, fontsize=9)
        axis.set_xticks([])
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    figure.suptitle(title, fontsize=10)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=3, fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0.12, 1, 1))
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path
