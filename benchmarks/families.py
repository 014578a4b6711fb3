"""Block-causal models: official-style recomputation of the whole canvas against the exact prefix cache, per forward, in one run.

python benchmarks/families.py --shape 0.6b --json
python benchmarks/families.py --quick --json

Random weights of a real shape; the canvas ends at --length, and its last two blocks are decoded, one token per forward for --steps forwards each. The two
recipes take turns; seconds are medians over forwards. A random model's tokens mean nothing, but both recipes must give the same: the JSON says whether.
"""

import argparse
import json
import statistics
import time

import torch
from machine import stamp
from random_model import qwen3, random_model

import mezzotint as mz

SHAPES = {
    "tiny": (64, 128, 2, 4, 2, 16, 512),
    "0.6b": (1024, 3072, 28, 16, 8, 128, 151936),
    "1.7b": (2048, 6144, 28, 16, 8, 128, 151936),
}


def seconds_per_forward(model, prompt, recipe) -> tuple[list[float], torch.Tensor, int]:
    """Each forward's seconds, the canvas, and the rows computed."""
    canvas = mz.Canvas.blank([prompt], recipe.gen_length, model.config.mask_id, model.device, grid=model.config.block_length)
    found, rows, last = [], 0, time.perf_counter()
    for step in mz.denoise(model, canvas, recipe):
        now = time.perf_counter()
        found.append(now - last)
        rows += len(step.computed)
        last = now
    return found, canvas.tokens, rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=tuple(SHAPES), default="0.6b")
    parser.add_argument("--length", type=int, default=1024, help="canvas in tokens, a multiple of the block")
    parser.add_argument("--block", type=int, default=32)
    parser.add_argument("--steps", type=int, default=4, help="forwards per block")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--quick", action="store_true", help="a tiny shape, a canvas of 256")
    parser.add_argument("--json", action="store_true", help="print nothing but the JSON object")
    args = parser.parse_args()
    shape, length, repeats = ("tiny", 256, 1) if args.quick else (args.shape, args.length, args.repeats)
    if length % args.block or length < 3 * args.block:
        parser.error(f"--length {length} must be a multiple of --block {args.block}, at least three blocks")
    model = random_model(qwen3(*SHAPES[shape], block=args.block), getattr(torch, args.dtype))
    prompt = torch.randint(0, model.config.vocab_size - 1, (length - 2 * args.block,), generator=torch.Generator().manual_seed(1))
    recipes = {
        "recompute": mz.Recipe(gen_length=2 * args.block, block_length=args.block, steps=2 * args.steps, early_stop="off"),
        "exact cache": mz.Recipe(gen_length=2 * args.block, block_length=args.block, steps=2 * args.steps, early_stop="off", cache=mz.PrefixCache()),
    }
    seconds: dict[str, list[float]] = {name: [] for name in recipes}
    tokens, rows = {}, {}
    for _ in range(repeats):
        for name, recipe in recipes.items():
            found, tokens[name], rows[name] = seconds_per_forward(model, prompt, recipe)
            seconds[name] += found[1:]  # the first includes the prompt in both
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    result = stamp() | {
        "benchmark": "families",
        "shape": shape,
        "parameters": model.config.parameters(),
        "dtype": args.dtype,
        "length": length,
        "block": args.block,
        "seconds_per_forward": medians,
        "rows_computed": rows,
        "ratio": medians["recompute"] / medians["exact cache"],
        "same_tokens": bool(torch.equal(*tokens.values())),
    }
    if args.json:
        print(json.dumps(result))
        return
    for name, value in medians.items():
        print(f"{name:12} {value:8.3f} s per forward, {rows[name]:,} rows in all")
    print(f"ratio {result['ratio']:.1f}, same tokens: {result['same_tokens']}")


if __name__ == "__main__":
    main()
