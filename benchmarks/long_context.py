"""SparseD end to end on long prompts, against dense attention, with the bundled model: seconds for a whole generation.

python benchmarks/long_context.py --json                       the curve from 1k to 64k, checked by one real run
python benchmarks/long_context.py --real 16384 --real-steps 64 a whole run at 16k (about 25 minutes on two cores)
python benchmarks/long_context.py --quick --json               1k and 4k

Rows are composed: steps of the dense phase, the one that makes the pattern and sparse steps, each timed in turn with dense ones and multiplied by their
number in the schedule. From --whole tokens on only the first layer is run, and once no layer at all: the layers are alike, so their times add up.
`speedup` is against PyTorch's dense attention; `speedup_same_kernel` against dense attention by the kernel that is also the sparse one's.
What the model answers at these lengths is not judged here.
"""

import argparse
import json
import math
import resource
import statistics
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from lines import Lines
from machine import stamp

import mezzotint as mz


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 2048, 4096, 8192, 16384, 32768, 65536], help="prompt lengths in tokens")
    parser.add_argument("--real", type=int, nargs="*", default=[16384], help="prompt lengths at which whole runs are timed as well")
    parser.add_argument("--real-steps", type=int, default=12, help="steps of these runs")
    parser.add_argument("--whole", type=int, default=16384, help="longest prompt for which all layers are run")
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--skip", type=float, default=0.2)
    parser.add_argument("--select", type=float, default=0.3)
    parser.add_argument("--block-size", type=int, default=128)
    parser.add_argument("--impl", default="auto")
    parser.add_argument("--measured", type=int, default=3, help="steps of each kind that are timed up to 8k tokens; one dense and two sparse above")
    parser.add_argument("--keep", type=Path, help="file to which each row is added as it is done; rows that are there are not measured again")
    parser.add_argument("--quick", action="store_true", help="1k and 4k, two steps of each kind, no real runs")
    parser.add_argument("--json", action="store_true", help="print nothing but the JSON object")
    args = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    lengths, real, measured = ([1024, 4096], [], 2) if args.quick else (sorted(args.lengths), args.real, args.measured)
    settings = {name: getattr(args, name) for name in ("steps", "skip", "select", "block_size", "impl")}
    model = mz.load_model()
    layers = model.layers

    def attention(skip: float) -> mz.SparseD:
        return mz.SparseD(skip, args.select, args.block_size, impl=args.impl)

    def seconds(length: int, attention, steps: int = args.steps) -> Iterator[float]:
        """Seconds of one step after another."""
        prompt = torch.randint(10, 1000, (1, length), generator=torch.Generator().manual_seed(0))
        recipe = mz.Recipe(gen_length=steps, block_length=None, steps=steps, attention=attention, early_stop="off")
        run = mz.denoise(model, prompt, recipe)
        while True:
            begun = time.perf_counter()
            if next(run, None) is None:
                return
            yield time.perf_counter() - begun

    def kinds(length: int, dense: int, sparse: int) -> dict[str, float]:
        """Median seconds of a step of each kind; the kinds take turns."""
        runs = {"dense": seconds(length, mz.Dense()), "phase": seconds(length, attention(0.99)), "sparse": seconds(length, attention(0.0))}
        times: dict[str, list[float]] = {name: [] for name in runs}
        for turn in range(sparse + 1):
            for name, run in runs.items():
                if turn < dense or name == "sparse":
                    times[name].append(next(run))
        pattern = times["sparse"].pop(0)
        return {name: statistics.median(all_of) for name, all_of in times.items()} | {"pattern": pattern}

    def composed(step: dict[str, float], steps: int) -> tuple[float, float, float]:
        """Seconds of a dense run, of one whose dense phase never ends, and of SparseD's."""
        first = math.ceil(args.skip * steps)
        return steps * step["dense"], steps * step["phase"], first * step["phase"] + step["pattern"] + (steps - first - 1) * step["sparse"]

    def row_of(length: int) -> dict:
        many = length <= 8192
        counts = (measured, measured) if many else (1, 2)
        if length <= args.whole:
            if many:
                kinds(length, 1, 1)
            step = kinds(length, *counts)
        else:
            model.layers = layers[:1]
            one = kinds(length, *counts)
            model.layers = layers[:0]
            none = statistics.median(seconds(length, mz.Dense(), 3))
            model.layers = layers
            step = {name: none + len(layers) * max(0.0, value - none) for name, value in one.items()}
        dense, same, sparse = composed(step, args.steps)
        row = {
            "length": length,
            "speedup": dense / sparse,
            "speedup_same_kernel": same / sparse,
            "seconds_dense": dense,
            "seconds_sparse": sparse,
            "dense_step": step["dense"],
            "dense_phase_step": step["phase"],
            "pattern_step": step["pattern"],
            "sparse_step": step["sparse"],
            "layers_run": len(layers) if length <= args.whole else 1,
        }
        if length in real:
            row["real_steps"] = args.real_steps
            row["real_dense"], row["real_sparse"] = (sum(seconds(length, a, args.real_steps)) for a in (mz.Dense(), attention(args.skip)))
            row["real_speedup"] = row["real_dense"] / row["real_sparse"]
            foreseen = composed(step, args.real_steps)
            row["composed_speedup"] = foreseen[0] / foreseen[2]
        return row | {"peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}

    kept = Lines(args.keep)
    done = {row["length"]: row for row in kept.found if row["settings"] == settings and (row["length"] not in real or row.get("real_steps") == args.real_steps)}
    begun = time.perf_counter()
    kinds(1024, 1, 1)
    first_use = time.perf_counter() - begun
    rows = []
    for length in lengths:
        row = done.get(length) or row_of(length) | {"settings": settings}
        if length not in done:
            kept.add(row)
        rows.append({name: value for name, value in row.items() if name != "settings"})
        if not args.json:
            print(json.dumps(rows[-1]), flush=True)
    chosen = next((row for row in rows if row["length"] == 16384), rows[-1])
    print(json.dumps({"speedup": chosen["speedup"], "rows": rows, "first_use": first_use, **settings, **stamp()}))


if __name__ == "__main__":
    main()
