"""Which recipe deserves the name `fast`: the quickest that keeps plain decoding's exact match on all built-in tasks.

python benchmarks/fast.py --json --samples fast.jsonl
python benchmarks/fast.py --quick

All candidates answer every question in turn. A candidate keeps the quality if it loses at most half a point against plain decoding over all questions, and
on no task so much that the 95 % interval of the paired difference lies below zero. Of those the one with the fewest seconds is `chosen`.

Samples are written to --samples as they are taken and taken up again; no new question is begun after --minutes. About 4 s a question on one quiet core.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from machine import stamp
from samples import figures, put_to_all, show

import mezzotint as mz
from mezzotint.commit import Rule
from mezzotint.evaluation.suite import paired
from mezzotint.evaluation.tasks import TASKS
from mezzotint.recipes import RECIPES

LOSS = 0.005


def recipes(gen_length: int) -> dict[str, mz.Recipe]:
    plain = mz.Recipe(gen_length=gen_length, block_length=32)
    parallel, dual = plain.with_(commit=mz.Threshold(0.9)), mz.DualCache()
    suffixes = {"": mz.Full(), ", DPad": mz.DPad(64, 3.0, 1.6), ", no suffix": mz.NoSuffix()}
    caches = {"": mz.NoCache(), ", prefix": mz.PrefixCache(), ", dual": dual, ", dual refreshed": mz.DualCache(refresh=4)}
    rules: dict[str, tuple[Rule, str]] = {
        "threshold .95": (mz.Threshold(0.95), "probability"),
        "threshold .8": (mz.Threshold(0.8), "probability"),
        "local-leap": (mz.LocalLeap(), "probability"),
        "factor": (mz.Factor(1.0), "probability"),
        "entropy-bound": (mz.EntropyBound(0.1), "entropy"),
    }
    found = {
        "plain": plain,
        **{f"threshold .9{c}{s}": parallel.with_(cache=cache, suffix=suffix) for c, cache in caches.items() for s, suffix in suffixes.items()},
    }
    for name, (rule, confidence) in rules.items():
        for label, suffix in list(suffixes.items())[:2]:
            found[f"{name}, dual{label}"] = plain.with_(commit=rule, confidence=confidence, cache=dual, suffix=suffix)
    return found


def keeps(row: dict[str, Any]) -> bool:
    worst = min(gap["ci"][1] for gap in row["per_task"].values())
    return row["against_first"]["difference"] >= -LOSS and worst >= 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="checkpoint folder or hub id (default: the bundled model)")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--count", type=int, default=40, help="questions per task")
    parser.add_argument("--gen-length", type=int, default=128)
    parser.add_argument("--samples", type=Path, metavar="FILE.jsonl", help="where samples are kept and taken up again (default: nowhere)")
    parser.add_argument("--minutes", type=float, help="begin no new question after so many minutes")
    parser.add_argument("--quick", action="store_true", help="one question per task, a canvas of 64")
    parser.add_argument("--json", action="store_true", help="print nothing but the JSON object")
    args = parser.parse_args()
    count, gen_length = (1, 64) if args.quick else (args.count, args.gen_length)
    model, tokenizer = mz.load(args.model)
    stages = recipes(gen_length)
    settings = {"tasks": args.tasks, "gen_length": gen_length}
    answers = put_to_all(args, model, tokenizer, stages, count, settings)
    rows = []
    for name, recipe in stages.items():
        mine, plain = answers[name], answers["plain"]
        pairs = {task: [(a["right"], b["right"]) for a, b in zip(mine, plain, strict=True) if a["task"] == task] for task in args.tasks}
        row = figures(name, recipe, mine, plain) | {"per_task": {task: paired(*zip(*found, strict=True)) for task, found in pairs.items() if found}}
        rows.append(row | {"keeps_quality": keeps(row)})
        if not args.json:
            show(rows[-1])
    chosen = min((row for row in rows if row["keeps_quality"]), key=lambda row: row["seconds"])
    found = {"rows": rows, "chosen": chosen["name"], "chosen_recipe": chosen["recipe"], "questions": len(answers["plain"]), **settings}
    if "fast" in RECIPES:
        found["named_fast"] = str(RECIPES["fast"].recipe)
    print(json.dumps({**found, "model": args.model or "bundled", **stamp(model)}))


if __name__ == "__main__":
    main()
