"""Every method and what comes of putting them together, quality against seconds on the bundled tasks, three seeds.

python benchmarks/pareto.py --out pareto.json --plot pareto.svg
python benchmarks/pareto.py --quick

Every recipe answers every question before the next is put. `best_single` and `best_composed` are the fastest of each kind that lose at most half a
point of exact match against plain decoding; `composition_wins` says whether the latter is faster.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from machine import stamp

import mezzotint as mz
from mezzotint.bench.chosen import chosen
from mezzotint.bench.contest import contest
from mezzotint.bench.plotting import check, draw
from mezzotint.bench.questions import gather

SINGLE = (
    "plain",
    "plain+steps=32",
    "threshold",
    "threshold+commit=threshold:tau=0.7",
    "factor",
    "entropy-bound",
    "plain+cache=prefix",
    "plain+cache=dual",
    "dkv",
    "dkv-prefill",
    "dllm-cache",
    "plain+suffix=dpad:window=32",
    "plain+suffix=none",
    "sparsed-short",
)
COMPOSED = (
    "prefix",
    "dual",
    "threshold+suffix=dpad:window=32",
    "threshold+suffix=none",
    "prefix+suffix=dpad:window=32",
    "dual+suffix=dpad:window=32",
    "dual+suffix=none",
    "dual+suffix=none+commit=threshold:tau=0.7",
    "dual+suffix=dpad:window=32+attention=sparsed:select=0.5,block_size=32,rebuild=block",
)
LOSS = 0.005


def fastest(rows: list[dict[str, Any]], names: tuple[str, ...]) -> dict[str, Any] | None:
    kept = [r for r in rows if r["name"] in names and r["against_first"]["mean"] >= -LOSS]
    return min(kept, key=lambda r: r["seconds"]["mean"], default=None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="checkpoint folder or hub id (default: the bundled model)")
    parser.add_argument("--tasks", nargs="+", default=["retrieval", "lists", "code", "tools"], help="built-in tasks, or JSON Lines files")
    parser.add_argument("--count", type=int, default=10, help="questions of each")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--gen-length", type=int, default=64)
    parser.add_argument("--quick", action="store_true", help="two questions of each task, one seed, a canvas of 32")
    parser.add_argument("--out", help="where the JSON goes (default: stdout)")
    parser.add_argument("--plot", help="draw the frontier there (extra `plot`)")
    args = parser.parse_args()
    if args.plot:
        check(args.plot)
    count, seeds, gen_length = (2, 1, 32) if args.quick else (args.count, args.seeds, args.gen_length)
    model, tokenizer = mz.load(args.model)
    canvas = {"gen_length": str(gen_length)}
    single, composed = (chosen([t for t in texts if gen_length > 32 or "steps=32" not in t], canvas) for texts in (SINGLE, COMPOSED))
    rows = contest(model, tokenizer, gather(args.tasks, count), {**single, **composed}, seeds=range(seeds))
    best = {"best_single": fastest(rows, tuple(single)), "best_composed": fastest(rows, tuple(composed))}
    found = {
        "rows": rows,
        **{kind: row and row["name"] for kind, row in best.items()},
        "composition_wins": bool(
            best["best_composed"] and best["best_single"] and best["best_composed"]["seconds"]["mean"] < best["best_single"]["seconds"]["mean"]
        ),
        "tasks": args.tasks,
        "count": count,
        "seeds": seeds,
        "gen_length": gen_length,
        "model": args.model or "bundled",
        **stamp(),
    }
    if args.plot:
        draw(rows, args.plot, f"{found['model']} · {found['machine']} · {found['date']}")
    if args.out:
        Path(args.out).write_text(json.dumps(found) + "\n", encoding="utf-8")
    else:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
