"""Everything that a GPU is needed to know, in one command: checked against a reference first, then timed, saved as it goes.

    python benchmarks/gpu/run.py                          all parts, at most 9 minutes; again, to go on where it stopped
    python benchmarks/gpu/run.py attention step           only these
    python benchmarks/gpu/run.py --status                 what is measured so far, without measuring
    python benchmarks/gpu/run.py --quick --device cpu     every part in small, to see that it works (kernels too with TRITON_INTERPRET=1)

Parts, in order: limits, tuning, attention, pattern, step, long, suffix, prune, train. A part is a list of cells; results are written after every cell to
RESULTS/DATE-MACHINE-PART.json with the machine, the versions, the commands and every sample, and a cell that is there is not measured again. Cells run in
a process of their own: one that crashes, hangs or loses the device is noted as failed, and the next cell begins in a new process.
"""

import argparse
import contextlib
import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT / "src")]

import torch  # noqa: E402
from measure import DeviceLost, survive  # noqa: E402
from parts import NAMES  # noqa: E402
from record import Record, failures, slug, state  # noqa: E402
from settings import Settings  # noqa: E402

LOST, LEFT = 3, 4
"""Exit codes of the measuring process: the device was lost in a cell; time ran out."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(NAMES)} (default: all)")
    parser.add_argument("--minutes", type=float, default=9.0, help="of this run (default: 9); no cell is begun after it")
    parser.add_argument("--total", type=float, default=30.0, help="minutes of all runs together; each part has a share of it (default: 30)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), help="default: bfloat16 on a GPU, float32 on a CPU")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--folder", default=str(ROOT / "runs" / "gpu"), help="where training keeps its checkpoints")
    parser.add_argument("--quick", action="store_true", help="every part in small")
    parser.add_argument("--fresh", action="store_true", help="begin new files instead of going on")
    parser.add_argument("--retry", action="store_true", help="measure failed cells again")
    parser.add_argument("--status", action="store_true", help="only the tables of what is there")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    unknown = [p for p in args.parts if p not in NAMES]
    if unknown:
        parser.error(f"part={unknown[0]!r} is unknown; accepted: {', '.join(NAMES)}")
    if args.minutes <= 0 or args.total <= 0:
        parser.error("--minutes and --total must be above 0")
    try:
        torch.empty(1, device=args.device)
    except (RuntimeError, AssertionError):
        parser.error(f"device={args.device!r} is not available here; accepted: cpu")
    return args


def chosen(args: argparse.Namespace) -> list[str]:
    return [name for name in NAMES if name in (args.parts or NAMES)]


def record_of(args: argparse.Namespace, name: str, fresh: bool = False) -> Record:
    return Record(args.results, name, importlib.import_module(f"parts.{name}").GOAL, torch.device(args.device), args.quick, fresh)


def measure_parts(args: argparse.Namespace, deadline: float) -> None:
    """In the measuring process: every cell that is missing, until the time is over. Leaves by exit code if it must."""
    device = torch.device(args.device)
    dtype = getattr(torch, args.dtype or ("bfloat16" if device.type == "cuda" else "float32"))
    for name in chosen(args):
        part = importlib.import_module(f"parts.{name}")
        best = importlib.import_module("parts.tuning").best(record_of(args, "tuning").cells)
        share = args.total * 60 * part.MINUTES / sum(importlib.import_module(f"parts.{n}").MINUTES for n in NAMES)
        record = record_of(args, name)
        settings = Settings(device, dtype, args.quick, best, max(0.05, (deadline - time.time()) / 60 - 0.7), args.folder)
        cells = part.cells(settings)
        for cell in cells:
            done = record.cells.get(cell.key)
            if done is not None and not done.get("again") and not (args.retry and "error" in done and set(done) == {"error", "took"}):
                continue
            if time.time() > deadline:
                sys.exit(LEFT)
            if record.content["seconds"] > share:
                print(f"{name}: its share of {share / 60:.1f} minutes is spent; --total gives more", flush=True)
                break
            print(f"{name}: {cell.key}", flush=True)
            run_cell(record, cell, device)
        record.content["complete"] = all(cell.key in record.cells and not record.cells[cell.key].get("again") for cell in cells)
        record.save()


def run_cell(record: Record, cell, device: torch.device) -> None:
    record.begin(cell.key)
    begun = time.monotonic()
    signal.alarm(cell.limit)
    try:
        result = cell.run()
    except DeviceLost as error:
        record.end(cell.key, {"error": f"the device was lost: {error}"}, time.monotonic() - begun)
        os._exit(LOST)
    except Exception as error:
        try:
            result = {"error": survive(device, error)}
        except DeviceLost:
            record.end(cell.key, {"error": f"the device was lost: {error}"}, time.monotonic() - begun)
            os._exit(LOST)
        print(f"  failed: {result['error']}", flush=True)
    signal.alarm(0)
    record.end(cell.key, result, time.monotonic() - begun)


def note_the_dead(args: argparse.Namespace, code: int) -> bool:
    """The cell that was running when the measuring process ended is noted as failed; whether there was one."""
    found = False
    for name in chosen(args):
        record = record_of(args, name)
        key = record.content["running"]
        if key is not None:
            reason = "it took longer than its limit" if code == -signal.SIGALRM else f"the process ended with {code}"
            record.end(key, {"error": reason}, 0.0)
            print(f"  failed: {reason}", flush=True)
            found = True
    return found


def tables(args: argparse.Namespace) -> str:
    """The short tables, aligned, with the goals."""
    lines = []
    for name in chosen(args):
        part, record = importlib.import_module(f"parts.{name}"), record_of(args, name)
        if not record.cells:
            continue
        rows = part.table(record.cells)
        widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(max(map(len, rows)))]
        lines += ["", f"{name}: {part.GOAL} ({state(record.content)})"]
        lines += ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=False)).rstrip() for row in rows]
        lines += [f"failed: {failure}" for failure in failures(record.cells)]
    return "\n".join(lines)


def main() -> None:
    args = arguments()
    deadline = float(os.environ.get("MEZZOTINT_DEADLINE", time.time() + args.minutes * 60))
    if args.child:
        measure_parts(args, deadline)
        return
    if not args.status:
        if args.fresh:
            for name in chosen(args):
                record_of(args, name, fresh=True).save()
        passed = [a for a in sys.argv[1:] if a != "--fresh"]
        environment = os.environ | {"MEZZOTINT_DEADLINE": str(deadline), "PYTHONUNBUFFERED": "1"}
        while True:
            child = subprocess.Popen([sys.executable, str(HERE / "run.py"), *passed, "--child"], env=environment)
            try:
                code = child.wait(timeout=max(10.0, deadline - time.time() + 300))
            except (subprocess.TimeoutExpired, KeyboardInterrupt):
                child.kill()
                code = child.wait()
            if code in (0, LEFT) or time.time() > deadline:
                with contextlib.suppress(Exception):
                    note_the_dead(args, code)
                break
            if code != LOST and not note_the_dead(args, code):
                sys.exit(code)
    print(f"\n{slug(torch.device(args.device), args.quick)}, results in {args.results}")
    print(tables(args))


if __name__ == "__main__":
    main()
