"""Block-causal models: official-style recomputation of the whole canvas against the exact prefix cache, step by step, in one run.

python benchmarks/families.py --shape 0.6b --out benchmarks/results/2026-11-25-cpu-families-0.6b.json
python benchmarks/families.py --quick --json

Random weights of a real shape, in float32 (a CPU without bf16 instructions is many times slower in bf16). The canvas ends at --length, and
its last block is decoded in --steps forwards, the two recipes taking turns forward by forward. So the cache pays what a block costs it in a
long run: one forward that also computes the clean block before, then forwards of the block alone. The prompt's forward is timed apart.
Recomputation runs the head for the block only, where the official codes run it for every row: the ratio errs to the low side. A random
model's tokens mean nothing, but both recipes must decide the same: the JSON says whether.

Forwards in all: 2 + 2 · steps, a little over half of them long. One thread takes 20 s of CPU time for a long one at 0.6b, 60 s at 1.7b;
memory 3.4 and 8 GB.
"""

import argparse
import json
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import torch
from machine import stamp
from random_model import qwen3, random_model

import mezzotint as mz

SHAPES = {
    "tiny": (64, 128, 2, 4, 2, 16, 512),
    "0.6b": (1024, 3072, 28, 16, 8, 128, 151936),
    "1.7b": (2048, 6144, 28, 16, 8, 128, 151936),
}
CACHES = {"recompute": mz.NoCache(), "exact cache": mz.PrefixCache()}


def runs(model, length: int, block: int, steps: int) -> dict[str, tuple[mz.Canvas, Iterator[mz.Step]]]:
    """One run per cache over the same prompt, which leaves one mask of the last block but one, so that the first forward is the prompt's."""
    prompt = torch.randint(0, model.config.vocab_size - 1, (length - block - 1,), generator=torch.Generator().manual_seed(1))
    found = {}
    for name, cache in CACHES.items():
        canvas = mz.Canvas.blank([prompt], block + 1, model.config.mask_id, model.device, grid=block)
        recipe = mz.Recipe(gen_length=2 * block, block_length=block, steps=2 * steps, early_stop="off", cache=cache)
        found[name] = canvas, mz.denoise(model, canvas, recipe)
    return found


def measure(model, length: int, block: int, steps: int) -> tuple[list[dict], bool]:
    """A row per forward of either recipe, the prompt's first, and whether the canvases were equal after every pair."""
    rows, same = [], True
    pair = runs(model, length, block, steps)
    for number in range(1 + steps):
        for name in sorted(pair, reverse=bool(number % 2)):
            wall, cpu = time.perf_counter(), time.process_time()
            step = next(pair[name][1])
            row = {"step": number, "recipe": name, "rows_computed": len(step.computed)}
            rows.append(row | {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu})
            print(
                "step {step}  {recipe:12} {rows_computed:5} rows  {seconds:8.3f} s  {cpu_seconds:8.3f} s of CPU time".format(**rows[-1]),
                file=sys.stderr,
                flush=True,
            )
        same = same and torch.equal(*(canvas.tokens for canvas, _ in pair.values()))
    return rows, same


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=tuple(SHAPES), default="0.6b")
    parser.add_argument("--length", type=int, default=1024, help="canvas in tokens, a multiple of the block")
    parser.add_argument("--block", type=int, default=32)
    parser.add_argument("--steps", type=int, default=4, help="forwards of the block that is decoded")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the JSON object there as well")
    parser.add_argument("--quick", action="store_true", help="a tiny shape, a canvas of 256")
    parser.add_argument("--json", action="store_true", help="print nothing but the JSON object on stdout")
    args = parser.parse_args()
    shape, length = ("tiny", 256) if args.quick else (args.shape, args.length)
    if args.block < 1 or length % args.block or length < 3 * args.block:
        parser.error(f"--length {length} must be a multiple of --block {args.block}, at least three blocks")
    if not 1 <= args.steps <= args.block:
        parser.error(f"--steps {args.steps} must lie between 1 and the block's {args.block}")
    model = random_model(qwen3(*SHAPES[shape], block=args.block), getattr(torch, args.dtype))
    rows, same = measure(model, length, args.block, args.steps)
    medians, totals = {}, {}
    for name in CACHES:
        mine = [row for row in rows if row["recipe"] == name and row["step"]]
        medians[name] = {kind: median(row[kind] for row in mine) for kind in ("seconds", "cpu_seconds")}
        totals[name] = {kind: sum(row[kind] for row in mine) for kind in ("seconds", "cpu_seconds", "rows_computed")}
    result = stamp() | {
        "benchmark": "families",
        "shape": shape,
        "parameters": model.config.parameters(),
        "dtype": args.dtype,
        "length": length,
        "block": args.block,
        "steps_per_block": args.steps,
        "median_step": medians,
        "whole_block": totals,
        "ratio": totals["recompute"]["seconds"] / totals["exact cache"]["seconds"],
        "ratio_cpu": totals["recompute"]["cpu_seconds"] / totals["exact cache"]["cpu_seconds"],
        "ratio_median_step": medians["recompute"]["seconds"] / medians["exact cache"]["seconds"],
        "same_tokens": same,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        "forwards": rows,
    }
    if args.out:
        args.out.write_text(json.dumps(result) + "\n", encoding="utf-8")
    if not args.json:
        print(f"a block: {result['ratio']:.1f} times as fast ({result['ratio_cpu']:.1f} in CPU time), same tokens: {same}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
