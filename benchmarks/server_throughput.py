"""Tokens per second of one request at a time and of several at once, in one process, interleaved.

python benchmarks/server_throughput.py --json
"""

import argparse
import asyncio
import json
import statistics
import time

from machine import stamp

import mezzotint as mz
from mezzotint.engine import Engine, EngineSettings, Request
from mezzotint.evaluation.suite import questions
from mezzotint.generation import encode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="checkpoint folder or hub id (default: the bundled model)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype")
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--recipes", default="threshold,prefix,dual,dkv")
    parser.add_argument("--gen-length", type=int, default=64)
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one sample")
    parser.add_argument("--json", action="store_true", help="print nothing but the JSON object")
    args = parser.parse_args()
    engine = Engine(EngineSettings(args.model, args.device, args.dtype, running=args.at_once))
    asked = [tuple(encode(engine.tokenizer, q.prompt)) for q in questions("lists", args.at_once)]
    results = {}
    for name in args.recipes.split(","):
        recipe = mz.named(name).with_(gen_length=args.gen_length, early_stop="off")
        samples = asyncio.run(measure(engine, [Request((ids,), recipe, seed) for seed, ids in enumerate(asked)], 1 if args.quick else args.samples))
        tokens = args.gen_length * args.at_once
        results[name] = {
            "tokens_per_second_alone": tokens / statistics.median(alone for alone, _ in samples),
            "tokens_per_second_together": tokens / statistics.median(together for _, together in samples),
            "ratio": statistics.median(alone / together for alone, together in samples),
            "ratio_samples": [alone / together for alone, together in samples],
        }
    print(json.dumps({"at_once": args.at_once, "gen_length": args.gen_length, "recipes": results, **stamp()}))


async def measure(engine: Engine, requests: list[Request], samples: int) -> list[tuple[float, float]]:
    """Seconds for all requests one after the other, and for all together; the same requests, after a warm-up."""
    work = asyncio.create_task(engine.run())

    async def answer(request: Request) -> None:
        async for _ in engine.submit(request):
            pass

    found = []
    await answer(requests[0])
    for _ in range(samples):
        begun = time.perf_counter()
        for request in requests:
            await answer(request)
        between = time.perf_counter()
        await asyncio.gather(*map(answer, requests))
        found.append((between - begun, time.perf_counter() - between))
    work.cancel()
    return found


if __name__ == "__main__":
    main()
