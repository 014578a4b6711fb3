"""Whether `tune` finds a recipe at least as good as the best hand-written one: both answer questions that the search has not seen.

python benchmarks/tuning.py --out tuning.json --plot tuning.svg
python benchmarks/tuning.py --quick

"Good" is the time per question among those that lose at most --max-loss points against plain decoding on these questions.
"""

import argparse
import json
from pathlib import Path

from machine import stamp

import mezzotint as mz
from mezzotint.bench.chosen import chosen
from mezzotint.bench.contest import contest
from mezzotint.bench.plotting import check, draw
from mezzotint.bench.questions import gather
from mezzotint.bench.tuning import space, tune

HAND_WRITTEN = ("plain", "threshold", "factor", "entropy-bound", "prefix", "dual", "dkv", "dkv-prefill", "dllm-cache")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="checkpoint folder or hub id (default: the bundled model)")
    parser.add_argument("--tasks", nargs="+", default=["lists", "code"], help="built-in tasks, or JSON Lines files")
    parser.add_argument("--count", type=int, default=24, help="questions of each for the search; as many more for the comparison")
    parser.add_argument("--max-loss", type=float, default=0.5, help="points of exact match")
    parser.add_argument("--gen-length", type=int, default=64)
    parser.add_argument("--by", default="seconds", help="what is to be small: seconds, positions or forwards")
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
    hand_written = chosen(HAND_WRITTEN, {"gen_length": str(gen_length)})
    reference = hand_written["plain"]
    found = tune(model, tokenizer, searched, reference, space(reference, 0, model.device.type), max_loss=args.max_loss, measure=args.by)
    rows = contest(model, tokenizer, unseen, {**hand_written, "tuned": found.recipe})
    kept = [r for r in rows if -100 * r["against_first"]["mean"] <= args.max_loss]
    best = min((r for r in kept if r["name"] != "tuned"), key=lambda r: r["seconds"]["mean"])
    tuned = rows[-1]
    result = {
        "rows": rows,
        "tuned": f"{found.name}: {found.recipe}",
        "tuned_keeps_quality": tuned in kept,
        "best_hand_written": best["name"],
        "tuned_over_best": best["seconds"]["mean"] / tuned["seconds"]["mean"],
        "tuned_at_least_as_good": tuned in kept and tuned["seconds"]["mean"] <= best["seconds"]["mean"],
        "rungs": [f"{rung['recipes']} recipes on {rung['questions']} questions" for rung in found.rungs],
        "tasks": args.tasks,
        "count": count,
        "max_loss": args.max_loss,
        "gen_length": gen_length,
        "model": args.model or "bundled",
        **stamp(),
    }
    if args.plot:
        draw(rows, args.plot, f"{result['model']} · {result['machine']} · {result['date']}")
    if args.out:
        Path(args.out).write_text(json.dumps(result) + "\n", encoding="utf-8")
    else:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
