"""LLaDA-MoE-7B-A1B on a small machine: memory and seconds per forward of a random model of its shape, in bf16 and with int8 experts.

python benchmarks/moe_shape.py --weights int8 --json
python benchmarks/moe_shape.py --quick --json

One kind of weights per run, so that the peak memory of the process is that kind's. A forward computes --rows positions (a block against a memory) and then
the whole canvas of --length.
"""

import argparse
import json
import resource
import statistics
import sys
import time

import torch
from machine import stamp
from random_model import llada_moe, random_model


def timed(call, repeats: int) -> float:
    """Median seconds of `call`, after one to warm up."""
    call()
    found = []
    for _ in range(repeats):
        begun = time.perf_counter()
        call()
        found.append(time.perf_counter() - begun)
    return statistics.median(found)


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", choices=("stored", "int8"), default="int8", help="stored: everything in --dtype")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--layers", type=int, default=16, help="the real model has 16")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one layer of 16 small experts")
    parser.add_argument("--json", action="store_true", help="print nothing but the JSON object")
    args = parser.parse_args()
    config = llada_moe(1, 16, 256, 128, 1000) if args.quick else llada_moe(args.layers)
    int8 = args.weights == "int8"
    model = random_model(config, getattr(torch, args.dtype), weights="int8" if int8 else None)
    tokens = torch.randint(0, config.vocab_size - 1, (1, args.length), generator=torch.Generator().manual_seed(1))
    everything = torch.arange(args.length)
    block = everything[-args.rows :]
    memory = model.memory(1, args.length)
    whole = timed(lambda: model(tokens, everything, memory=memory, predict=block), args.repeats)
    part = timed(lambda: model(tokens[:, block], block, over=everything, memory=memory, predict=block), args.repeats)
    result = stamp() | {
        "benchmark": "moe_shape",
        "weights": args.weights,
        "dtype": args.dtype,
        "layers": config.layers,
        "parameters": config.parameters(),
        "active_parameters": config.parameters(active=True),
        "weights_bytes": sum(parameter.numel() * parameter.element_size() for parameter in model.parameters()),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        "seconds": {f"{args.length} rows": whole, f"{args.rows} rows": part},
    }
    if args.json:
        print(json.dumps(result))
        return
    print(f"{result['parameters'] / 1e9:.2f} G parameters ({result['active_parameters'] / 1e9:.2f} G active), {config.layers} layers, {args.weights} weights")
    print(f"weights {result['weights_bytes'] / 2**30:.2f} GiB, peak of the process {result['peak_bytes'] / 2**30:.2f} GiB")
    for name, value in result["seconds"].items():
        print(f"{name:10} {value:8.3f} s per forward")


if __name__ == "__main__":
    main()
