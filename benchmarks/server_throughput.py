"""Tokens per second of one request at a time and of several at once: the same requests, in turns, through a server over HTTP and through the engine alone.

Clients work in a closed loop: each sends its next request when its last one is answered, so all places stay taken. Tokens are those of the answers, not of
the canvas. "plain" is what a server does without --recipe; `RECOMMENDED` is what docs/serving.md recommends, and so is an engine for every core: `ratio` is of
that recipe over HTTP with the most replicas, `ratio_to_one_engine` against one request at a time on a single engine that has all cores.

python benchmarks/server_throughput.py --json
"""

import argparse
import asyncio
import json
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import httpx
from machine import stamp

import mezzotint as mz
from mezzotint.bench.chosen import chosen
from mezzotint.engine import EngineSettings, Request, made
from mezzotint.engine.fleet import cores_here
from mezzotint.evaluation.suite import questions
from mezzotint.generation import answer_ids, encode

RECOMMENDED = "fast"
RECIPES = (
    "plain",
    "threshold",
    "dual",
    RECOMMENDED,
    "dual+gen_length=16+block_length=16",
    "dual+gen_length=8+block_length=8",
    "dual+commit=quota+gen_length=16+block_length=16",
)

Answer = Callable[[int], Awaitable[int]]
"""Number of a request -> tokens of its answer."""


async def loop(answer: Answer, requests: int, clients: int) -> tuple[int, float]:
    """Tokens and seconds of all requests, `clients` of them at any time."""
    left = iter(range(requests))
    tokens = 0

    async def client() -> None:
        nonlocal tokens
        for number in left:
            answered = await answer(number)
            tokens += answered

    begun = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return tokens, time.perf_counter() - begun


async def in_turns(answers: dict[str, Answer], requests: int, clients: int, samples: int) -> list[dict[str, Any]]:
    """For every recipe one at a time and all at once, the recipes taking turns within every sample, after a warm-up."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in answers}
    for answer in answers.values():
        await loop(answer, clients, clients)
    for _ in range(samples):
        for name, answer in answers.items():
            alone, alone_seconds = await loop(answer, requests, 1)
            together, together_seconds = await loop(answer, requests, clients)
            if alone != together:
                raise RuntimeError(f"{name}: {alone} tokens alone, {together} together; answers must not depend on their company")
            found[name].append((alone / alone_seconds, together / together_seconds))
    return [row(name, pairs) for name, pairs in found.items()]


def row(recipe: str, pairs: Sequence[tuple[float, float]]) -> dict[str, Any]:
    ratios = [together / alone for alone, together in pairs]
    return {
        "recipe": recipe,
        "tokens_per_second_alone": statistics.median(alone for alone, _ in pairs),
        "tokens_per_second_together": statistics.median(together for _, together in pairs),
        "ratio": statistics.median(ratios),
        "ratio_range": [min(ratios), max(ratios)],
    }


async def through_engine(
    settings: EngineSettings, replicas: int, prompts: Sequence[str], recipes: dict[str, mz.Recipe], max_tokens: int, **rest: int
) -> list[dict[str, Any]]:
    """Without HTTP."""
    engine = made(settings, replicas)
    work = asyncio.create_task(engine.run())
    ids = [tuple(encode(engine.tokenizer, prompt)) for prompt in prompts]

    def asking(recipe: mz.Recipe) -> Answer:
        async def answer(number: int) -> int:
            decided = [token async for update in engine.submit(Request((ids[number % len(ids)],), recipe, seed=number)) for token in update.decided]
            return len(answer_ids(decided, engine.model.config.stop_ids, max_tokens)[0])

        return answer

    try:
        return await in_turns({name: asking(recipe) for name, recipe in recipes.items()}, len(prompts), **rest)
    finally:
        work.cancel()
        engine.close()


async def through_http(command: Sequence[str], prompts: Sequence[str], recipes: dict[str, mz.Recipe], max_tokens: int, **rest: int) -> list[dict[str, Any]]:
    """Through a server of its own, which shares this machine with the clients."""
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        url = json.loads(server.stdout.readline())["url"]
        async with httpx.AsyncClient(base_url=url, timeout=600) as http:

            def asking(recipe: mz.Recipe) -> Answer:
                wanted = {name: value for name, value in recipe.to_dict().items() if name not in ("max_tokens", "temperature", "top_p")}

                async def answer(number: int) -> int:
                    question = [{"role": "user", "content": prompts[number % len(prompts)]}]
                    body = {"messages": question, "max_tokens": max_tokens, "seed": number, "diffusion": wanted}
                    found = await http.post("/v1/chat/completions", json=body)
                    found.raise_for_status()
                    return found.json()["usage"]["completion_tokens"]

                return answer

            return await in_turns({name: asking(recipe) for name, recipe in recipes.items()}, len(prompts), **rest)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="checkpoint folder or hub id (default: the bundled model)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--replicas", type=int, nargs="+", default=sorted({1, cores_here()}), help="engines (default: one, and one for every core)")
    parser.add_argument("--requests", type=int, default=48, help="requests of one sample")
    parser.add_argument("--recipes", nargs="+", metavar="NAME[+FIELD=VALUE...]")
    parser.add_argument("--task", default="math", help="built-in task whose questions are asked (default: math)")
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one sample of 8 requests, by default of two recipes")
    parser.add_argument("--json", action="store_true", help="print nothing but the JSON object")
    args = parser.parse_args()
    requests, samples = (8, 1) if args.quick else (args.requests, args.samples)
    args.recipes = args.recipes or (("threshold", RECOMMENDED) if args.quick else RECIPES)
    prompts = [question.prompt for question in questions(args.task, requests)]
    recipes = {name: recipe.with_(max_tokens=args.max_tokens) for name, recipe in chosen(args.recipes).items()}
    rest = {"clients": args.clients, "samples": samples}
    settings = EngineSettings(args.model, args.device, args.dtype, running=args.clients)
    given = [part for name in ("model", "device", "dtype") if (value := getattr(args, name)) for part in (f"--{name}", value)]
    command = [sys.executable, "-m", "mezzotint", "serve", "--port", "0", "--json", "--running", str(args.clients), *given]
    found: list[dict[str, Any]] = []
    for replicas in args.replicas:
        http = asyncio.run(through_http([*command, "--replicas", str(replicas)], prompts, recipes, args.max_tokens, **rest))
        engine = asyncio.run(through_engine(settings, replicas, prompts, recipes, args.max_tokens, **rest))
        found += [{"through": way, "replicas": replicas, **row} for way, rows in (("http", http), ("engine", engine)) for row in rows]
    asked = {"clients": args.clients, "requests": requests, "task": args.task, "max_tokens": args.max_tokens, "recommended": RECOMMENDED}
    print(json.dumps(headline(found) | asked | {"rows": found} | stamp(device=args.device)))


def headline(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The recommended recipe with the most engines, over HTTP."""
    mine = {row["replicas"]: row for row in rows if row["through"] == "http" and row["recipe"] == RECOMMENDED}
    if not mine:
        return {}
    best = mine[max(mine)]
    found = {"replicas": best["replicas"], "ratio": best["ratio"]}
    return found | ({"ratio_to_one_engine": best["tokens_per_second_together"] / mine[1]["tokens_per_second_alone"]} if 1 in mine else {})


if __name__ == "__main__":
    main()
