"""How stale a cache may be: exact match, forwards and seconds of every cache against none, with the refresh interval as the axis.

python benchmarks/caches.py --json
python benchmarks/caches.py --pareto pareto.svg

Every row answers the same held-out questions of the built-in tasks, one token per forward unless it says otherwise, and is compared with the first row
question by question. The last rows are compositions; --pareto draws all of them, seconds against exact match.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from machine import stamp

import mezzotint as mz
from mezzotint.evaluation.suite import paired, questions
from mezzotint.evaluation.tasks import TASKS


def recipes() -> dict[str, mz.Recipe]:
    plain = mz.Recipe(gen_length=64, block_length=32)
    fast = plain.with_(commit=mz.Threshold(0.9))
    dpad = mz.DPad(32, 3.0, 1.6)
    return {
        "none": plain,
        **{f"prefix, refresh {r or 'never'}": plain.with_(cache=mz.PrefixCache(refresh=r)) for r in (0, 4, 8, 16)},
        **{f"dual, refresh {r or 'never'}": plain.with_(cache=mz.DualCache(refresh=r)) for r in (0, 4, 8, 16)},
        **{f"dkv-decode, refresh {r}": plain.with_(cache=mz.DelayedCache(r)) for r in (2, 4, 8, 16)},
        "dkv-pd, refresh 8": plain.with_(cache=mz.DelayedCache(8, prompt=True)),
        "dkv-prefill": plain.with_(cache=mz.PromptCache()),
        **{f"dllm-cache, response {r}": plain.with_(cache=mz.FeatureCache(50, r, 0.25)) for r in (2, 4, 7)},
        "threshold": fast,
        "threshold, prefix": fast.with_(cache=mz.PrefixCache()),
        "threshold, dual": fast.with_(cache=mz.DualCache()),
        "threshold, DPad": fast.with_(suffix=dpad),
        "threshold, prefix, DPad": fast.with_(cache=mz.PrefixCache(), suffix=dpad),
        "threshold, dual, DPad": fast.with_(cache=mz.DualCache(), suffix=dpad),
        "threshold, prefix, DPad, SparseD": fast.with_(cache=mz.PrefixCache(), suffix=dpad, attention=mz.SparseD(block_size=32, select=0.5, impl="reference")),
    }


def draw(rows: list[dict], path: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    for row in rows:
        axes.plot(row["seconds"], row["exact_match"], "o", color="black", markersize=4)
        axes.annotate(row["name"], (row["seconds"], row["exact_match"]), fontsize=6, xytext=(3, 3), textcoords="offset points")
    axes.set(xscale="log", xlabel="seconds per answer", ylabel="exact match")
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="checkpoint folder or hub id (default: the bundled model)")
    parser.add_argument("--tasks", nargs="+", choices=[t for t in TASKS if t != "code"], default=["math", "retrieval", "lists", "tools"])
    parser.add_argument("--count", type=int, default=25, help="questions per task")
    parser.add_argument("--pareto", type=Path, metavar="FILE", help="write a plot there (.svg or .png; needs matplotlib)")
    parser.add_argument("--quick", action="store_true", help="two questions per task")
    parser.add_argument("--json", action="store_true", help="print nothing but the JSON object")
    args = parser.parse_args()
    count = 2 if args.quick else args.count
    model, tokenizer = mz.load(args.model)
    asked = [(task, example) for task in args.tasks for example in questions(task, count)]
    stages = recipes()
    mz.generate(model, tokenizer, asked[0][1].prompt, stages["threshold"])

    results: dict[str, list[mz.Generation]] = {name: [] for name in stages}
    verdicts: dict[str, list[bool]] = {name: [] for name in stages}
    begun = time.monotonic()
    for number, (task, example) in enumerate(asked):
        for name, recipe in stages.items():
            result = mz.generate(model, tokenizer, example.prompt, recipe)
            results[name].append(result)
            verdicts[name].append(TASKS[task].score(example, result.text))
        if not args.json and number % 10 == 9:
            print(f"{number + 1} of {len(asked)} questions, {time.monotonic() - begun:.0f} s", flush=True)
    rows = []
    for name, recipe in stages.items():
        found = results[name]
        rows.append(
            {
                "name": name,
                "exact_match": sum(verdicts[name]) / len(asked),
                "against_none": paired(verdicts[name], verdicts["none"]),
                "changed_answers": sum(a.text != b.text for a, b in zip(found, results["none"], strict=True)),
                "seconds": sum(r.seconds for r in found) / len(asked),
                "forwards": sum(r.forwards for r in found) / len(asked),
                "positions_computed": sum(r.positions_computed for r in found) / len(asked),
                "recipe": str(recipe),
            }
        )
        if not args.json:
            row = rows[-1]
            print(f"{name:34} {row['exact_match']:.3f}  {row['seconds']:7.3f} s  {row['forwards']:6.1f} forwards  {row['positions_computed']:9,.0f} positions")
    if args.pareto:
        draw(rows, args.pareto)
    settings = {"tasks": args.tasks, "count": count, "threads": torch.get_num_threads(), "model": args.model or "bundled"}
    print(json.dumps({"rows": rows, **settings, **stamp()}))


if __name__ == "__main__":
    main()
