"""Block-sparse attention alone against PyTorch's dense attention: same inputs, one run, interleaved.

python benchmarks/attention_operator.py --json
"""

import argparse
import json
import math
import statistics
import time
from functools import partial

import torch
import torch.nn.functional as F
from machine import stamp

from mezzotint.kernels.block_sparse import IMPLEMENTATIONS, available, block_sparse
from mezzotint.kernels.tiles import Choice, Grid, Tiled


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 2048, 4096, 8192, 16384])
    parser.add_argument("--selects", type=float, nargs="+", default=[0.1, 0.3, 0.5])
    parser.add_argument("--impls", nargs="+", default=None, choices=IMPLEMENTATIONS)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--block-size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--quick", action="store_true", help="two lengths, three repeats")
    parser.add_argument("--json", action="store_true", help="print nothing but the JSON object")
    args = parser.parse_args()
    lengths = [2048, 8192] if args.quick else args.lengths
    repeats = 3 if args.quick else args.repeats
    device = torch.device(args.device)
    impls = args.impls or [impl for impl in IMPLEMENTATIONS if not available(impl, device.type)]

    def timed(call) -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        begun = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begun

    rows = []
    for length in lengths:
        generator = torch.Generator().manual_seed(0)
        q, k, v = (torch.randn(1, args.heads, length, args.head_dim, generator=generator).to(device, getattr(torch, args.dtype)) for _ in range(3))
        tiled = Tiled.of(torch.arange(length), Grid(0, args.block_size), device)
        tiles = len(tiled.tiles)
        for select in args.selects:
            order = torch.rand(1, args.heads, tiles, tiles, generator=generator).argsort(-1)
            choice = Choice.of((order < math.ceil(select * tiles)).to(device), tiled.whole(1, None))
            sparse = partial(block_sparse, q, k, v, tiled, tiled, choice, args.block_size)
            calls = {impl: partial(sparse, impl=impl) for impl in impls} | {"dense": partial(F.scaled_dot_product_attention, q, k, v)}
            results = {name: call() for name, call in calls.items()}
            oracle = sparse(impl="reference")
            times: dict[str, list[float]] = {name: [] for name in calls}
            for _ in range(repeats):
                for name, call in calls.items():
                    times[name].append(timed(call))
            dense = statistics.median(times["dense"])
            for impl in impls:
                seconds = statistics.median(times[impl])
                rows.append(
                    {
                        "length": length,
                        "select": select,
                        "impl": impl,
                        "speedup": dense / seconds,
                        "of_ideal": dense / seconds * math.ceil(select * tiles) / tiles,
                        "seconds": seconds,
                        "seconds_dense": dense,
                        "spread": [min(times[impl]), max(times[impl])],
                        "error": (results[impl] - oracle).abs().max().item(),
                    }
                )
                if not args.json:
                    print(json.dumps(rows[-1]))
    settings = {name: getattr(args, name) for name in ("heads", "head_dim", "block_size", "dtype")}
    print(json.dumps({"rows": rows, **settings, "repeats": repeats, **stamp(device=device)}))


if __name__ == "__main__":
    main()
