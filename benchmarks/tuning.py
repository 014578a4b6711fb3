"""Whether `tune` finds a recipe at least as good as the best hand-written one: both answer questions that the search has not seen.

python benchmarks/tuning.py --out tuning.json --plot tuning.svg
python benchmarks/tuning.py --quick

The recipes compared are the strategies of every named recipe on the same canvas, and they take turns. "Good" is the time per question among those that lose at
most --max-loss points against plain decoding on these questions. `tuned_over_best` is how many times as fast the recipe that was found is as the best of
the others on the same questions. `tuned_keeps_quality`: the 95 % interval of its difference from plain decoding excludes a loss of five points;
`tuned_at_least_as_good`: it does, and the recipe is the best of the others, or by its interval at most 5 % slower. Both are null where the intervals do
not tell.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from machine import stamp

import mezzotint as mz
from mezzotint.bench.contest import MARGIN, answered, difference, faster, keeps, shares, table
from mezzotint.bench.plotting import check, draw
from mezzotint.bench.questions import gather
from mezzotint.bench.tuning import hand_written, space, tune
from mezzotint.generation import encode

SEARCH = 0.6
"""The share of --minutes that the search gets; the comparison has the rest."""
SLOWER = 0.95
"""Of the best hand-written recipe's speed: what still counts as no slower."""


def verdicts(gap: list[float], ratio: list[float] | None, same: bool, questions: int) -> dict[str, Any]:
    """What the intervals of the loss against plain decoding and of the speed over the best hand-written recipe say; same: the recipe found is that one."""
    kept = keeps(gap)
    good, why = kept, "" if kept is not None else f"a loss of {100 * MARGIN:g} points lies within the 95 % interval"
    if kept is None and not same and ratio is not None and ratio[1] < SLOWER:
        good = False
    elif kept and not same:
        good = None if ratio is None or ratio[0] < SLOWER <= ratio[1] else ratio[0] >= SLOWER
    found = {"verdict": kept, "questions": questions, "why": why}
    because = "" if good is not None else why or "the interval of the speed ratio does not tell"
    return {"tuned_keeps_quality": found, "tuned_at_least_as_good": {"verdict": good, "questions": questions, "why": because}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="checkpoint folder or hub id (default: the bundled model)")
    parser.add_argument("--tasks", nargs="+", default=["lists", "code"], help="built-in tasks, or JSON Lines files")
    parser.add_argument("--count", type=int, default=24, help="questions of each for the search; as many more for the comparison")
    parser.add_argument("--max-loss", type=float, default=0.5, help="points of exact match")
    parser.add_argument("--gen-length", type=int, default=64)
    parser.add_argument("--by", default="seconds", help="what is to be small: seconds, positions or forwards")
    parser.add_argument("--minutes", type=float, help="of search and comparison together (default: no limit)")
    parser.add_argument("--quick", action="store_true", help="4 questions of each task, a canvas of 32")
    parser.add_argument("--out", help="where the JSON goes (default: stdout)")
    parser.add_argument("--plot", help="draw quality against seconds there (extra `plot`)")
    args = parser.parse_args()
    if args.plot:
        check(args.plot)
    count, gen_length = (4, 32) if args.quick else (args.count, args.gen_length)
    model, tokenizer = mz.load(args.model)
    asked = gather(args.tasks, 2 * count)
    half = len(asked) // 2
    searched, unseen = asked[:half], asked[half:]
    longest = max((len(encode(tokenizer, q.prompt)) for q in asked if q.prompt), default=0)
    reference = mz.Recipe(gen_length=gen_length)
    candidates = space(reference, longest, model.device.type)
    if args.quick:
        candidates = dict(list(candidates.items())[::12])
    limit = None if args.minutes is None else 60 * args.minutes
    search = None if limit is None else SEARCH * limit
    found = tune(model, tokenizer, searched, reference, candidates, max_loss=args.max_loss, measure=args.by, seconds=search)
    recipes = {"plain": reference, **hand_written(reference, longest, model.device.type), "tuned": found.recipe}
    said = answered(model, tokenizer, [unseen], recipes, seconds=None if limit is None else (1 - SEARCH) * limit)
    rows = table(recipes, said)
    kept = [r for r in rows if -100 * r["against_first"]["mean"] <= args.max_loss]
    best = min((r for r in kept if r["name"] != "tuned"), key=lambda r: r["seconds"]["mean"])["name"]
    ratio = faster(said["tuned"], said[best])
    result = {
        "rows": rows,
        "tuned": f"{found.name}: {found.recipe}",
        "best_hand_written": best,
        "tuned_over_best": ratio,
        "tuned_against_best": difference(shares(said["tuned"]), shares(said[best])),
        **verdicts(rows[-1]["against_first"]["ci"], ratio["ci"], found.recipe == recipes[best], rows[-1]["questions"]),
        "rungs": [f"{rung['recipes']} recipes on {rung['questions']} questions" for rung in found.rungs],
        "tried": found.tried,
        "tasks": args.tasks,
        "count": count,
        "max_loss": args.max_loss,
        "gen_length": gen_length,
        "model": args.model or "bundled",
        **stamp(model),
    }
    if args.plot:
        draw(rows, args.plot, f"{result['model']} · {result['machine']} · {result['date']}")
    if args.out:
        Path(args.out).write_text(json.dumps(result) + "\n", encoding="utf-8")
    else:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
