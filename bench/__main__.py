"""`python -m bench`: measure, and write a table, JSON and pictures."""

import argparse
import signal
import sys
from pathlib import Path

from bench.scenarios import SCENARIOS, chosen

RESULTS = Path(__file__).resolve().parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two scenarios, fewer requests; a few minutes")
    parser.add_argument("--scenarios", help=f"some of {', '.join(one.name for one in SCENARIOS)}; default all")
    parser.add_argument("--subjects", help="some of direct, vllm, farebox, farebox-postgres, farebox-free, vllm-rust")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each subject in each scenario. Default: 3.")
    parser.add_argument("--rust", type=Path, metavar="PATH", help="vLLM's Rust front end, `vllm-rs` in its CUDA wheel")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results. Default: bench/results.")
    options = parser.parse_args()
    try:
        scenarios = chosen(options.scenarios.split(",") if options.scenarios else None, options.quick)
    except ValueError as error:
        parser.error(str(error))

    from bench import plots, report, run  # vLLM is imported here: --help need not wait for it

    subjects = options.subjects.split(",") if options.subjects else list(run.NAMES)
    if unknown := [name for name in subjects if name not in run.NAMES]:
        parser.error(f"there is no subject {unknown[0]!r}; there are {', '.join(run.NAMES)}")
    if "vllm-rust" in subjects and options.rust is None and options.subjects:
        parser.error("vllm-rust needs --rust PATH")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # stop the servers then too
    results = run.measure(subjects, scenarios, options.repeats, options.rust)
    print(report.write(results, options.out))
    for path in plots.draw(results, options.out):
        run.say(f"wrote {path}")


if __name__ == "__main__":
    main()
