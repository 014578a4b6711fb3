"""Commit rules side by side: what a forward decides, and what that costs in exact match, every rule against Threshold(0.9) on the same questions.

python benchmarks/rules.py --json --samples rules.jsonl
python benchmarks/rules.py --quick

Two rules are compared at the same number of forwards, not at the same number in their name: LocalLeap is beaten if a Threshold with fewer forwards is as often
right. The result says for LocalLeap (arXiv 2510.07081), rule against rule, which of the two wins: `local_leap_wins` is true if no Threshold in the table needs
at most its forwards and is at least as often right.

Samples are written to --samples as they are taken and taken up again; no new question is begun after --minutes. About 2 s a question on one quiet core.
"""

import argparse
import json
from pathlib import Path

from machine import stamp
from samples import figures, put_to_all, show

import mezzotint as mz
from mezzotint.evaluation.suite import paired
from mezzotint.evaluation.tasks import TASKS


def recipes(gen_length: int) -> dict[str, mz.Recipe]:
    plain = mz.Recipe(gen_length=gen_length, block_length=32)
    rules = [mz.Threshold(tau) for tau in (0.9, 0.95, 0.85, 0.8, 0.75, 0.7)]
    rules += [mz.LocalLeap(), mz.LocalLeap(relaxed=0.6), mz.LocalLeap(radius=2), mz.Factor(1.0)]
    stages = {str(rule): plain.with_(commit=rule) for rule in rules}
    bounds = {f"EntropyBound(gamma={gamma})": plain.with_(commit=mz.EntropyBound(gamma), confidence="entropy") for gamma in (0.1, 0.3)}
    return {**stages, **bounds, "Quota()": plain}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="checkpoint folder or hub id (default: the bundled model)")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=["math", "retrieval", "lists", "tools"])
    parser.add_argument("--count", type=int, default=50, help="questions per task")
    parser.add_argument("--gen-length", type=int, default=64)
    parser.add_argument("--samples", type=Path, metavar="FILE.jsonl", help="where samples are kept and taken up again (default: nowhere)")
    parser.add_argument("--minutes", type=float, help="begin no new question after so many minutes")
    parser.add_argument("--quick", action="store_true", help="one question per task")
    parser.add_argument("--json", action="store_true", help="print nothing but the JSON object")
    args = parser.parse_args()
    count = 1 if args.quick else args.count
    model, tokenizer = mz.load(args.model)
    stages = recipes(args.gen_length)
    settings = {"tasks": args.tasks, "gen_length": args.gen_length}
    answers = put_to_all(args, model, tokenizer, stages, count, settings)
    first = next(iter(stages))
    rows = [figures(name, recipe, answers[name], answers[first]) for name, recipe in stages.items()]
    if not args.json:
        for row in rows:
            show(row)
    by_name = {row["name"]: row for row in rows}
    leap, thresholds = by_name[str(mz.LocalLeap())], [row for row in rows if row["name"].startswith("Threshold")]
    better = [t["name"] for t in thresholds if t["forwards"] <= leap["forwards"] and t["exact_match"] >= leap["exact_match"]]
    rival = min(thresholds, key=lambda t: abs(t["forwards"] - leap["forwards"]))
    verdicts = [[s["right"] for s in answers[name]] for name in (leap["name"], rival["name"])]
    found = {
        "rows": rows,
        "local_leap_wins": not better,
        "beaten_by": better,
        "local_leap_against_nearest": {"threshold": rival["name"], "forwards": leap["forwards"] - rival["forwards"], **paired(*verdicts)},
        "questions": len(answers[first]),
    }
    print(json.dumps({**found, **settings, "model": args.model or "bundled", **stamp(model)}))


if __name__ == "__main__":
    main()
