"""How stale a cache may be: exact match, forwards and seconds of every cache against none, with the refresh interval as the axis; and all recipes in one plot.

python benchmarks/caches.py --json --samples caches.jsonl --pareto pareto.svg --staleness staleness.svg
python benchmarks/caches.py --quick

Every row answers the same held-out questions of the built-in tasks, one token per forward unless it says otherwise, and is compared with the first row
question by question. The rows behind the caches are parallel decoding and compositions with suffix dropout and SparseD; --pareto draws all of them, seconds
against exact match, with the line of those that nobody beats in both. `fastest_that_keeps_quality` is the fastest that loses at most half a point and whose
95 % interval excludes a loss of five; with too few questions for that there is no verdict.

Samples are written to --samples as they are taken and taken up again; no new question is begun after --minutes. About 15 s a question on one quiet core.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from machine import stamp
from samples import figures, put_to_all, show

import mezzotint as mz
from mezzotint.bench.contest import MARGIN, frontier, keeps
from mezzotint.evaluation.tasks import TASKS
from mezzotint.recipes import RECIPES

REFRESH = (2, 4, 8, 16)
LOSS = 0.005
"""Of exact match, that a recipe may lose and still be called one that keeps the quality."""


def swept(plain: mz.Recipe) -> dict[str, dict[str, mz.Recipe]]:
    """Caches -> refresh interval ("never": only where the cache always does) -> recipe."""
    return {
        "prefix": {str(r or "never"): plain.with_(cache=mz.PrefixCache(refresh=r)) for r in (*REFRESH, 0)},
        "dual": {str(r or "never"): plain.with_(cache=mz.DualCache(refresh=r)) for r in (*REFRESH, 0)},
        "dkv-decode": {str(r): plain.with_(cache=mz.DelayedCache(r)) for r in REFRESH},
        "dkv-prefill": {str(r or "never"): plain.with_(cache=mz.PromptCache(r)) for r in (4, 16, 0)},
        "dllm-cache": {str(r): plain.with_(cache=mz.FeatureCache(50, r, 0.25)) for r in REFRESH},
    }


def composed(plain: mz.Recipe) -> dict[str, mz.Recipe]:
    """Parallel decoding, and what comes of putting methods together."""
    fast, dpad = plain.with_(commit=mz.Threshold(0.9)), mz.DPad(32, 3.0, 1.6)
    sparse = mz.SparseD(block_size=32, select=0.5, rebuild="block", impl="reference")
    return {
        "dkv-pd, refresh 8": plain.with_(cache=mz.DelayedCache(8, prompt=True)),
        "DPad": plain.with_(suffix=dpad),
        "SparseD": plain.with_(attention=sparse),
        "threshold": fast,
        "local-leap": plain.with_(commit=mz.LocalLeap()),
        "factor": plain.with_(commit=mz.Factor(1.0)),
        "entropy-bound": plain.with_(commit=mz.EntropyBound(0.1), confidence="entropy"),
        "threshold, prefix": fast.with_(cache=mz.PrefixCache()),
        "threshold, dual": fast.with_(cache=mz.DualCache()),
        "threshold, DPad": fast.with_(suffix=dpad),
        "threshold, no suffix": fast.with_(suffix=mz.NoSuffix()),
        "threshold, prefix, DPad": fast.with_(cache=mz.PrefixCache(), suffix=dpad),
        "threshold, dual, DPad": fast.with_(cache=mz.DualCache(), suffix=dpad),
        "threshold, prefix, no suffix": fast.with_(cache=mz.PrefixCache(), suffix=mz.NoSuffix()),
        "threshold, dkv-decode, DPad": fast.with_(cache=mz.DelayedCache(8), suffix=dpad),
        "threshold, SparseD": fast.with_(attention=sparse),
        "threshold, DPad, SparseD": fast.with_(suffix=dpad, attention=sparse),
        "threshold, prefix, DPad, SparseD": fast.with_(cache=mz.PrefixCache(), suffix=dpad, attention=sparse),
        "threshold, dual, DPad, SparseD": fast.with_(cache=mz.DualCache(), suffix=dpad, attention=sparse),
        **({"fast": RECIPES["fast"].recipe.with_(gen_length=plain.gen_length)} if "fast" in RECIPES else {}),
    }


def figure(width: float) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "mezzotint"})
    return pyplot.subplots(figsize=(width, 5), layout="constrained")


def save(drawn: Any, path: Path) -> None:
    drawn.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def pareto(rows: list[dict], path: Path) -> None:
    """Seconds against exact match; the frontier in black, joined."""
    drawn, axes = figure(9)
    best = sorted((row["seconds"], row["exact_match"]) for row in rows if row["on_frontier"])
    axes.plot(*zip(*best, strict=True), color="black", linewidth=0.8, drawstyle="steps-post")
    for row in rows:
        color = "black" if row["on_frontier"] else "gray"
        axes.plot(row["seconds"], row["exact_match"], "o", color=color, markersize=4)
        axes.annotate(row["name"], (row["seconds"], row["exact_match"]), fontsize=6, color=color, xytext=(3, 3), textcoords="offset points")
    axes.set(xscale="log", xlabel="seconds per answer", ylabel="exact match")
    save(drawn, path)


def staleness(rows: list[dict], caches: dict[str, dict[str, mz.Recipe]], path: Path) -> None:
    """Exact match against the refresh interval, a line per cache."""
    drawn, axes = figure(7)
    ticks = [*map(str, REFRESH), "never"]
    for cache, intervals in caches.items():
        mine = {i: next(row for row in rows if row["name"] == f"{cache}, refresh {i}") for i in intervals}
        shown = [i for i in ticks if i in mine]
        axes.plot([ticks.index(i) for i in shown], [mine[i]["exact_match"] for i in shown], marker="o", label=cache)
    axes.axhline(rows[0]["exact_match"], color="black", linewidth=0.8, linestyle="--", label="none")
    axes.set(xlabel="steps between refreshes", ylabel="exact match")
    axes.set_xticks(range(len(ticks)), ticks)
    axes.legend(fontsize=8)
    save(drawn, path)


def verdict(rows: list[dict], questions: int) -> dict[str, Any]:
    """The fastest of the rows behind the first that keeps its quality beyond doubt; null with the reason where there is none."""
    near = [row for row in rows[1:] if row["against_first"]["difference"] >= -LOSS]
    kept = [row for row in near if keeps(row["against_first"]["ci"])]
    open_ = f"a loss of {100 * MARGIN:g} points lies within every 95 % interval" if near else f"every recipe loses more than {100 * LOSS:g} points"
    best = min(kept, key=lambda row: row["seconds"], default=None)
    return {"verdict": best and best["name"], "questions": questions, "why": "chosen and compared on the same questions" if best else open_}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="checkpoint folder or hub id (default: the bundled model)")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=["math", "retrieval", "lists", "tools"])
    parser.add_argument("--count", type=int, default=25, help="questions per task")
    parser.add_argument("--gen-length", type=int, default=64)
    parser.add_argument("--samples", type=Path, metavar="FILE.jsonl", help="where samples are kept and taken up again (default: nowhere)")
    parser.add_argument("--minutes", type=float, help="begin no new question after so many minutes")
    parser.add_argument("--pareto", type=Path, metavar="FILE", help="write that plot there (.svg or .png; needs matplotlib)")
    parser.add_argument("--staleness", type=Path, metavar="FILE", help="write exact match against the refresh interval there")
    parser.add_argument("--quick", action="store_true", help="one question per task")
    parser.add_argument("--json", action="store_true", help="print nothing but the JSON object")
    args = parser.parse_args()
    count = 1 if args.quick else args.count
    model, tokenizer = mz.load(args.model)
    plain = mz.Recipe(gen_length=args.gen_length, block_length=32)
    caches = swept(plain)
    stages = {"none": plain, **{f"{cache}, refresh {i}": recipe for cache, found in caches.items() for i, recipe in found.items()}, **composed(plain)}
    settings = {"tasks": args.tasks, "gen_length": args.gen_length}
    answers = put_to_all(args, model, tokenizer, stages, count, settings)
    rows = [figures(name, recipe, answers[name], answers["none"]) for name, recipe in stages.items()]
    for row, there in zip(rows, frontier([(r["seconds"], r["exact_match"]) for r in rows]), strict=True):
        row["on_frontier"] = there
        if not args.json:
            show(row)
    if args.pareto:
        pareto(rows, args.pareto)
    if args.staleness:
        staleness(rows, caches, args.staleness)
    asked = len(answers["none"])
    found = {"rows": rows, "fastest_that_keeps_quality": verdict(rows, asked), "questions": asked, **settings}
    print(json.dumps({**found, "model": args.model or "bundled", **stamp(model)}))


if __name__ == "__main__":
    main()
