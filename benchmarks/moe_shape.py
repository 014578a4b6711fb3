"""LLaDA-MoE-7B-A1B on a small machine: memory and seconds per forward of a random model of its shape, in bf16 and with int8 experts.

python benchmarks/moe_shape.py --weights int8 --json
python benchmarks/moe_shape.py --quick --json

One kind of weights per run, so that the peak memory of the process is that kind's. First the whole canvas of --length is computed, then --rows positions
against the memory of the rest (a step of a block). --dtype is that of everything that is not int8, and of the products: on a CPU without
bf16 instructions float32 is several times as fast. Fewer --layers where memory is short: seconds and bytes of the layers grow evenly with
them, those of embedding and head do not. All 16 layers with int8 need 10 GiB, and about a minute of CPU time for each --repeats.
"""

import argparse
import json
import resource
import statistics
import sys
import time
from pathlib import Path

import torch
from machine import stamp
from random_model import llada_moe, random_model


def timed(name: str, call, repeats: int) -> dict[str, float | str]:
    """Median seconds of `call`, by the clock and of CPU time."""
    seconds, cpu = [], []
    for _ in range(repeats):
        begun, used = time.perf_counter(), time.process_time()
        call()
        seconds.append(time.perf_counter() - begun)
        cpu.append(time.process_time() - used)
        print(f"{name:10} {seconds[-1]:8.3f} s per forward, {cpu[-1]:8.3f} s of CPU time", file=sys.stderr, flush=True)
    return {"forward": name, "seconds": statistics.median(seconds), "cpu_seconds": statistics.median(cpu)}


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", choices=("stored", "int8"), default="int8", help="stored: everything in --dtype")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--layers", type=int, default=16, help="the real model has 16")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the JSON object there as well")
    parser.add_argument("--quick", action="store_true", help="one layer of 16 small experts")
    parser.add_argument("--json", action="store_true", help="print nothing but the JSON object on stdout")
    args = parser.parse_args()
    config = llada_moe(1, 16, 256, 128, 1000) if args.quick else llada_moe(args.layers)
    int8 = args.weights == "int8"
    model = random_model(config, getattr(torch, args.dtype), weights="int8" if int8 else None)
    tokens = torch.randint(0, config.vocab_size - 1, (1, args.length), generator=torch.Generator().manual_seed(1))
    everything = torch.arange(args.length)
    block = everything[-args.rows :]
    memory = model.memory(1, args.length)
    whole = timed(f"{args.length} rows", lambda: model(tokens, everything, memory=memory, predict=block), args.repeats)
    part = timed(f"{args.rows} rows", lambda: model(tokens[:, block], block, over=everything, memory=memory, predict=block), args.repeats)
    result = stamp() | {
        "benchmark": "moe_shape",
        "weights": args.weights,
        "dtype": args.dtype,
        "layers": config.layers,
        "parameters": config.parameters(),
        "active_parameters": config.parameters(active=True),
        "weights_bytes": sum(parameter.numel() * parameter.element_size() for parameter in model.parameters()),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        "rows": [whole, part],
    }
    if args.out:
        args.out.write_text(json.dumps(result) + "\n", encoding="utf-8")
    if not args.json:
        show(result)
    print(json.dumps(result))


def show(result: dict) -> None:
    whole, active = result["parameters"] / 1e9, result["active_parameters"] / 1e9
    print(f"{whole:.2f} G parameters ({active:.2f} G active), {result['layers']} layers, {result['weights']} weights")
    print(f"weights {result['weights_bytes'] / 2**30:.2f} GiB, peak of the process {result['peak_bytes'] / 2**30:.2f} GiB")


if __name__ == "__main__":
    main()
