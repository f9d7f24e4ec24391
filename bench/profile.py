"""`make profile`: where Farebox's front end spends its CPU under load, sampled from outside by py-spy.

Writes `profile-SCENARIO.raw` (collapsed stacks, for speedscope.app or flamegraph.pl) and `profile-SCENARIO.txt` (shares
by function), and prints the latter.
"""

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from bench import engine_settings, load
from bench.scenarios import QUICK, Scenario, chosen
from bench.subjects import Farebox

RESULTS = Path(__file__).resolve().parent / "results"
SAMPLES_PER_SECOND = 250
LINES = 60


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.profile", description=__doc__)
    parser.add_argument("--scenarios", default=",".join(QUICK))
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="farebox-profile-", ignore_cleanup_errors=True) as folder:
        subject = Farebox(Path(folder))
        try:
            subject.start()
            for scenario in chosen(options.scenarios.split(","), quick=False):
                print(_profile(scenario, subject, options.out))
        finally:
            subject.stop()


def _profile(scenario: Scenario, subject: Farebox, folder: Path) -> str:
    samples = load.prompts(scenario, engine_settings.MODEL, seed=0)
    load.run(scenario, subject, engine_settings.MODEL_NAME, samples, 0)  # warm
    raw = folder / f"profile-{scenario.name}.raw"
    py_spy = Path(sys.executable).with_name("py-spy")
    sampler = subprocess.Popen(
        [
            *(str(py_spy), "record", "--pid", str(subject.pid), "--format", "raw", "--output", str(raw)),
            *("--rate", str(SAMPLES_PER_SECOND), "--threads", "--nonblocking", "--duration", "unlimited"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    time.sleep(2)
    try:
        load.run(scenario, subject, engine_settings.MODEL_NAME, samples, 0)
    finally:
        sampler.send_signal(signal.SIGINT)  # it writes what it has
        sampler.wait(60)
    text = f"{scenario.title}\n\n{shares(raw.read_text())}"
    raw.with_suffix(".txt").write_text(text)
    return text


def shares(stacks: str) -> str:
    """Percent of the samples by function: on the stack at all, and on top of it. `stacks` is py-spy's raw format."""
    inclusive: Counter[str] = Counter()
    own: Counter[str] = Counter()
    total = 0
    for line in stacks.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = [frame.rpartition(":")[0] + ")" if ":" in frame else frame for frame in stack.split(";")]
        total += int(count)
        own[frames[-1]] += int(count)
        for frame in set(frames):
            inclusive[frame] += int(count)
    lines = [f"{total} samples", "", " on stack   itself"]
    lines += [
        f"{found / total:9.1%} {own[frame] / total:8.1%}  {frame}" for frame, found in inclusive.most_common(LINES)
    ]
    lines += ["", "   itself"]
    lines += [f"{found / total:9.1%}  {frame}" for frame, found in own.most_common(LINES // 2)]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
