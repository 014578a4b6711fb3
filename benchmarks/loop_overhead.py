"""What the loop costs over bare forwards: the same forwards, once through `denoise`, once without it, in turns, each first as often as the other.

python benchmarks/loop_overhead.py --json
"""

import argparse
import json
import statistics
import time

import torch
from machine import stamp

import mezzotint as mz


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=1024, help="canvas length in tokens")
    parser.add_argument("--steps", type=int, default=16, help="forwards per sample")
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="fewer samples")
    parser.add_argument("--json", action="store_true", help="print nothing but the JSON object")
    args = parser.parse_args()
    samples = 4 if args.quick else args.samples

    model = mz.load_model(device=args.device)
    gen_length = 32 * args.steps
    prompt = torch.randint(10, 1000, (1, args.length - gen_length), generator=torch.Generator().manual_seed(0))
    recipe = mz.Recipe(gen_length=gen_length, block_length=32, steps=args.steps, early_stop="off")
    inputs = [step.tokens.clone() for step in mz.denoise(model, prompt, recipe)]
    predict = torch.arange(args.length - 32, args.length)

    def wait() -> float:
        if args.device.startswith("cuda"):
            torch.cuda.synchronize()
        return time.perf_counter()

    def bare() -> float:
        begun = wait()
        with torch.inference_mode():
            for tokens in inputs:
                model(tokens, predict=predict)
        return wait() - begun

    def loop() -> float:
        begun = wait()
        for _ in mz.denoise(model, prompt, recipe):
            pass
        return wait() - begun

    bare(), loop()
    times = [(bare(), loop()) if number % 2 == 0 else (loop(), bare())[::-1] for number in range(samples)]
    ratios = [through / alone for alone, through in times]
    quarters = statistics.quantiles(ratios, n=4)
    print(
        json.dumps(
            {
                "overhead": statistics.median(ratios) - 1,
                "overhead_middle_half": [quarters[0] - 1, quarters[2] - 1],
                "overhead_samples": [r - 1 for r in ratios],
                "seconds_per_forward_bare": statistics.median(alone for alone, _ in times) / args.steps,
                "seconds_per_forward_loop": statistics.median(through for _, through in times) / args.steps,
                "length": args.length,
                "forwards": args.steps,
                "device": args.device,
                **stamp(model),
            }
        )
    )


if __name__ == "__main__":
    main()
