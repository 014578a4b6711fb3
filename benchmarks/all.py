"""What `make bench` runs: every part in a process of its own, bounded in time, then docs/benchmarks.md from what was found.

python benchmarks/all.py                        everything
python benchmarks/all.py --only pareto-quick    some parts
python benchmarks/all.py --list                 the parts, their commands and limits

The JSON of a part goes to benchmarks/results/DATE-cpu-PART.json, its plot to docs/plots/. A part that fails or runs past its limit is named, leaves the results
it had before, and makes the exit code 1; the others run all the same. Parts that end in -quick are the short forms of scripts that take longer in full; their
results and plots have names of their own, so that those of a full run stay.
"""

import argparse
import contextlib
import datetime
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent
RESULTS, PLOTS = ROOT / "benchmarks" / "results", ROOT / "docs" / "plots"


@dataclass(frozen=True)
class Part:
    """words: what follows `python` in the root; its last line is the JSON. minutes: after which it is killed; plots: it takes --plot FILE."""

    name: str
    words: str
    minutes: float
    plots: bool = False

    def command(self, plot: Path) -> list[str]:
        script, *rest = self.words.split()
        start = [script, *rest] if script == "-m" else [str(ROOT / "benchmarks" / script), *rest]
        return [sys.executable, *start, *(["--plot", str(plot.relative_to(ROOT))] if self.plots else [])]


LENGTHS = "plain threshold prefix dual threshold+suffix=dpad:window=32 --gen-length 64 --lengths 128 384 1024 --repeats 2"

PARTS = (
    Part("pareto-quick", "pareto.py --minutes 3.25", 4, plots=True),
    Part("tuning-quick", "tuning.py --minutes 2.5", 3.5, plots=True),
    Part("lengths", f"-m mezzotint bench {LENGTHS} --json", 1.5, plots=True),
    Part("loop-overhead-quick", "loop_overhead.py --samples 6 --json", 1),
    Part("headline-quick", "headline.py --quick --minutes 0.6 --json", 1),
    Part("canvas-growth-quick", "canvas_growth.py --quick --minutes 0.4 --json", 0.5, plots=True),
    Part("caches-quick", "caches.py --quick --minutes 0.8 --json", 1.25),
    Part("sparsed-quality-quick", "sparsed_quality.py --quick --together 10 --minutes 0.7 --json", 1.25),
    Part("attention-operator-quick", "attention_operator.py --quick --json", 2),
    Part("long-context-quick", "long_context.py --quick --json", 0.75),
    Part("pruning-table-quick", "pruning_table.py --quick --json", 0.75),
    Part("structured-speed-quick", "structured_speed.py --quick --json", 1),
    Part("server-throughput-quick", "server_throughput.py --quick --json", 1.25),
    Part("families-quick", "families.py --quick --json", 0.25),
)
"""The limits are those of two quiet cores, with room; together they bound the whole run. Their sum is kept below MOST by a test."""

MOST = 20
"""Minutes that the parts may take together at the most."""


@dataclass(frozen=True)
class Outcome:
    """seconds it took; trouble: why there is no result, else empty."""

    seconds: float
    trouble: str = ""


def run(part: Part, result: Path, plot: Path) -> Outcome:
    """Run a part and keep its JSON."""
    begun = time.monotonic()
    if not (path := Path(part.command(plot)[1])).exists() and path.suffix == ".py":
        return Outcome(0.0, f"there is no {path.relative_to(ROOT)}")
    with tempfile.TemporaryFile() as printed, tempfile.TemporaryFile() as complaints:
        child = subprocess.Popen(part.command(plot), cwd=ROOT, stdout=printed, stderr=complaints, start_new_session=True)
        late = False
        try:
            child.wait(60 * part.minutes)
        except subprocess.TimeoutExpired:
            late = True
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        seconds = time.monotonic() - begun
        said, trouble = last(printed), last(complaints)
    if late:
        return Outcome(seconds, f"ran past its limit of {part.minutes:g} minutes")
    if child.returncode != 0:
        return Outcome(seconds, f"ended with code {child.returncode}: {trouble[:200]}")
    try:
        found = json.loads(said)
        if not isinstance(found, dict):
            raise ValueError("not an object")
    except ValueError:
        return Outcome(seconds, f"its last line is not a JSON object: {said[:80]!r}")
    result.write_text(json.dumps(found) + "\n", encoding="utf-8")
    return Outcome(seconds)


def last(file: IO[bytes]) -> str:
    """The last line that is not empty."""
    file.seek(0)
    lines = [line for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1] if lines else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="PART", choices=[p.name for p in PARTS], help="these parts alone")
    parser.add_argument("--list", action="store_true", help="say what would run, and for how long at the most")
    args = parser.parse_args()
    parts = [p for p in PARTS if not args.only or p.name in args.only]
    if args.list:
        for part in parts:
            print(f"{part.name:26} {part.minutes:4g} min  python {'' if part.words.startswith('-m') else 'benchmarks/'}{part.words}")
        print(f"{'together':26} {sum(p.minutes for p in parts):4g} min at the most")
        return 0
    RESULTS.mkdir(exist_ok=True)
    PLOTS.mkdir(exist_ok=True)
    begun, failed = time.monotonic(), []
    for part in parts:
        print(f"{part.name:26} ", end="", flush=True)
        outcome = run(part, RESULTS / f"{datetime.date.today().isoformat()}-cpu-{part.name}.json", PLOTS / f"cpu-{part.name}.svg")
        failed += [part.name] * bool(outcome.trouble)
        print(f"{outcome.seconds:6.0f} s  {'FAILED: ' + outcome.trouble if outcome.trouble else 'done'}", flush=True)
    subprocess.run([sys.executable, str(ROOT / "benchmarks" / "report.py")], check=True)
    print(f"{'together':26} {time.monotonic() - begun:6.0f} s  docs/benchmarks.md is written" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
