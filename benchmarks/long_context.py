"""SparseD end to end on long prompts, against dense attention, with the bundled model: seconds for a whole generation.

python benchmarks/long_context.py --json            real runs at --real tokens, composed ones elsewhere
python benchmarks/long_context.py --quick --json    composed from a few measured steps of each kind

Composed: dense steps · seconds of a dense step + the step that makes the pattern + sparse steps · seconds of a sparse step, the numbers of steps being those
of the schedule. Compilation is warmed up apart and reported. What the model answers at these lengths is not judged here.
"""

import argparse
import json
import math
import resource
import statistics
import time
import warnings

import torch
from machine import stamp

import mezzotint as mz


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 2048, 4096, 8192, 16384, 32768, 65536], help="prompt lengths in tokens")
    parser.add_argument("--real", type=int, nargs="*", default=[16384], help="prompt lengths at which whole runs are timed as well")
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--skip", type=float, default=0.2)
    parser.add_argument("--select", type=float, default=0.3)
    parser.add_argument("--block-size", type=int, default=128)
    parser.add_argument("--impl", default="auto")
    parser.add_argument("--measured", type=int, default=3, help="steps of each kind that are timed for a composed row")
    parser.add_argument("--quick", action="store_true", help="1k, 4k and 16k, two steps of each kind, no real runs")
    parser.add_argument("--json", action="store_true", help="print nothing but the JSON object")
    args = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    lengths, real, measured = ([1024, 4096, 16384], [], 2) if args.quick else (args.lengths, args.real, args.measured)
    model = mz.load_model()
    sparse = mz.SparseD(args.skip, args.select, args.block_size, impl=args.impl)

    def steps_of(length: int, attention, count: int) -> list[float]:
        """Seconds of the first `count` steps of a run."""
        prompt = torch.randint(10, 1000, (1, length), generator=torch.Generator().manual_seed(0))
        recipe = mz.Recipe(gen_length=args.steps, block_length=None, steps=args.steps, attention=attention, early_stop="off")
        seconds, begun = [], time.perf_counter()
        for _, _step in zip(range(count), mz.denoise(model, prompt, recipe), strict=False):
            seconds.append(time.perf_counter() - begun)
            begun = time.perf_counter()
        return seconds

    dense_steps = math.ceil(args.skip * args.steps)
    sparse_steps = args.steps - dense_steps - 1
    rows = []
    for length in lengths:
        at_once = mz.SparseD(0.0, args.select, args.block_size, impl=args.impl)
        compiling = sum(steps_of(length, at_once, 2))
        dense = steps_of(length, mz.Dense(), measured)
        observing, *after = steps_of(length, at_once, measured + 1)
        dense_step, sparse_step = statistics.median(dense), statistics.median(after)
        whole_dense = args.steps * dense_step
        whole_sparse = dense_steps * dense_step + observing + sparse_steps * sparse_step
        row = {
            "length": length,
            "speedup": whole_dense / whole_sparse,
            "seconds_dense": whole_dense,
            "seconds_sparse": whole_sparse,
            "dense_step": dense_step,
            "pattern_step": observing,
            "sparse_step": sparse_step,
            "first_use": compiling,
            "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        }
        if length in real:
            row["real_dense"], row["real_sparse"] = (sum(steps_of(length, attention, args.steps)) for attention in (mz.Dense(), sparse))
            row["real_speedup"] = row["real_dense"] / row["real_sparse"]
        rows.append(row)
        if not args.json:
            print(json.dumps(row), flush=True)
    chosen = next((row for row in rows if row["length"] == 16384), rows[-1])
    settings = {name: getattr(args, name) for name in ("steps", "skip", "select", "block_size", "impl")}
    print(json.dumps({"speedup": chosen.get("real_speedup", chosen["speedup"]), "rows": rows, **settings, **stamp()}))


if __name__ == "__main__":
    main()
