"""Every method by itself and put together, quality against seconds, on three draws of the built-in questions.

python benchmarks/pareto.py --out pareto.json --plot pareto.svg
python benchmarks/pareto.py --quick

Every recipe answers every question before the next is put; after --minutes no further question is. `best_single` and `best_composed` are the fastest of
each kind whose exact match lies at most half a point below plain decoding's on the first two thirds of the draws; `composed_over_single` is how many times
as fast the latter is on the rest of them, which had no part in the choice. `composition_wins` says so only if it is faster there beyond doubt and the 95 %
intervals of its paired differences from both the single method and plain decoding exclude a loss of five points; where too few questions leave that open,
the verdict is null. With one draw choice and comparison rest on the same questions, and `why` says it. Where no composition lies within the half point, `why`
says so and how many points one question is; the verdict is false only if each of them loses more than that beyond doubt.
A pruned model (heads and neurons removed for 1.1 times the speed by FLOPs) takes part alone and composed.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from machine import stamp

import mezzotint as mz
from mezzotint.bench.chosen import chosen
from mezzotint.bench.contest import MARGIN, Passes, answered, difference, faster, keeps, shares, table
from mezzotint.bench.plotting import check, draw
from mezzotint.bench.questions import gather
from mezzotint.evaluation.tasks import TASKS
from mezzotint.models.transformer import Transformer
from mezzotint.prune import SinkAwarePruner, Structured, from_suite

SPARSE = "attention=sparsed:select=0.5,block_size=32,rebuild=block,impl=reference"
"""Sparse attention that also runs on canvases where it does not pay, so that its composition is really measured."""
CACHED = f"{SPARSE},skip=0"
"""The same without a dense phase, as a dual cache needs it: the first forward of a block computes everything, the others do not."""

SINGLE = (
    "plain",
    "plain+steps=32",
    "threshold",
    "threshold+commit=threshold:tau=0.7",
    "factor",
    "local-leap",
    "entropy-bound",
    "plain+cache=prefix",
    "plain+cache=dual",
    "dkv",
    "dkv-prefill",
    "dllm-cache",
    "plain+suffix=dpad:window=32",
    "plain+suffix=none",
    f"plain+{SPARSE}",
)
COMPOSED = (
    "prefix",
    "dual",
    "threshold+suffix=dpad:window=32",
    "threshold+suffix=none",
    "prefix+suffix=dpad:window=32",
    "dual+suffix=dpad:window=32",
    "dual+suffix=none",
    "dual+suffix=none+commit=threshold:tau=0.7",
    f"dual+suffix=dpad:window=32+{CACHED}",
    "factor+suffix=none",
    "factor+cache=dual+suffix=none",
    "factor+cache=dual+suffix=dpad:window=32",
    f"factor+cache=dual+suffix=dpad:window=32+{CACHED}",
)
PRUNED_SINGLE = "plain"
PRUNED_COMPOSED = (
    "dual+suffix=dpad:window=32",
    f"dual+suffix=dpad:window=32+{CACHED}",
    "factor+suffix=none",
    f"factor+cache=dual+suffix=dpad:window=32+{CACHED}",
)
LOSS = 0.005
"""Of exact match: what the best of a kind may lose against plain decoding on the questions it is chosen on."""


def smaller(model: Transformer, tokenizer: Any) -> Transformer:
    """The model with heads and neurons removed for 1.1 times the speed, by FLOPs, so that it is the same on every machine; at most 5 % of the perplexity."""
    calibration, validation = (list(from_suite(tokenizer, count=count, length=96, seed=seed)) for count, seed in ((32, 0), (16, 7919)))
    settings = Structured(cost="flops", length=256, passes=1)
    return SinkAwarePruner(model, calibration, validation_data=validation, settings=settings).prune(1.1, 0.05, measure="ppl")


def fastest(rows: list[dict[str, Any]], names: list[str]) -> str | None:
    kept = [r for r in rows if r["name"] in names and r["against_first"]["mean"] >= -LOSS]
    return min(kept, key=lambda r: r["seconds"]["mean"])["name"] if kept else None


def apart(found: dict[str, Passes]) -> tuple[dict[str, Passes], dict[str, Passes]]:
    """The draws to choose on, two thirds of them, and those to compare on; both are all of them where there is only one."""
    draws = len(next(iter(found.values())))
    first = draws if draws == 1 else max(1, round(2 * draws / 3))
    rest = 0 if draws == 1 else first
    return {name: passes[:first] for name, passes in found.items()}, {name: passes[rest:] for name, passes in found.items()}


def verdict(recipes: dict[str, mz.Recipe], found: dict[str, Passes], single: list[str], composed: list[str]) -> dict[str, Any]:
    """The best of each kind, chosen on some draws, and what the others say of the two. The first recipe is plain decoding."""
    choosing, comparing = apart(found)
    rows = table(recipes, choosing)
    alone, together = fastest(rows, single), fastest(rows, composed)
    result: dict[str, Any] = {"best_single": alone, "best_composed": together}
    if alone and together:
        ratio = faster(comparing[together], comparing[alone])
        plain = next(iter(recipes))
        gaps = [difference(shares(comparing[together]), shares(comparing[other])) for other in (alone, plain)]
        result |= {"composed_over_single": ratio, "composed_against_single": gaps[0], "composed_against_plain": gaps[1]}
        wins, why = decided(ratio["ci"], [gap["ci"] for gap in gaps])
        if len(next(iter(found.values()))) == 1:
            why = "; ".join([why] * bool(why) + ["one draw: chosen and compared on the same questions"])
        result["composition_wins"] = {"verdict": wins, "questions": len(shares(comparing[together])), "why": why}
    else:
        result["composition_wins"] = unchosen(rows, {"single method": single, "composition": composed})
    return result


def unchosen(rows: list[dict[str, Any]], kinds: dict[str, list[str]]) -> dict[str, Any]:
    """The verdict where a kind has none within LOSS: open, unless there is no doubt that every composition loses more."""
    missing = [kind for kind, names in kinds.items() if fastest(rows, names) is None]
    lost = [keeps(row["against_first"]["ci"], LOSS) is False for row in rows if row["name"] in kinds["composition"]]
    questions = rows[0]["questions"]
    why = f"no {' and no '.join(missing)} within {100 * LOSS:g} points of plain decoding; one question of {questions} is {100 / questions:.3g} points"
    return {"verdict": False if lost and all(lost) else None, "questions": questions, "why": why}


def decided(ratio: list[float] | None, gaps: list[list[float]]) -> tuple[bool | None, str]:
    """Whether a composition wins by the intervals of its speed and of its quality, and what leaves it open."""
    kept = [keeps(gap) for gap in gaps]
    if False in kept or (ratio is not None and ratio[1] <= 1):
        return False, ""
    if None in kept:
        return None, f"a loss of {100 * MARGIN:g} points lies within the 95 % interval"
    if ratio is None or ratio[0] <= 1:
        return None, "the interval of the speed ratio does not tell"
    return True, ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="checkpoint folder or hub id (default: the bundled model)")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), help="built-in tasks, or JSON Lines files (default: all built-in)")
    parser.add_argument("--count", type=int, default=10, help="questions of each task in each draw")
    parser.add_argument("--seeds", type=int, default=3, help="draws of questions")
    parser.add_argument("--gen-length", type=int, default=128)
    parser.add_argument("--minutes", type=float, help="put no further question after that, pruning included (default: no limit)")
    parser.add_argument("--quick", action="store_true", help="a question of each task, one draw, a canvas of 64")
    parser.add_argument("--out", help="where the JSON goes (default: stdout)")
    parser.add_argument("--plot", help="draw the frontier there (extra `plot`)")
    args = parser.parse_args()
    if args.plot:
        check(args.plot)
    count, seeds, gen_length = (1, 1, 64) if args.quick else (args.count, args.seeds, args.gen_length)
    model, tokenizer = mz.load(args.model)
    begun = time.monotonic()
    pruned = smaller(model, tokenizer)
    pruning_seconds = time.monotonic() - begun
    canvas = {"gen_length": str(gen_length)}
    single, composed = (chosen(texts, canvas) for texts in (SINGLE, COMPOSED))
    single["pruned"] = chosen([PRUNED_SINGLE], canvas)[PRUNED_SINGLE]
    composed |= {f"pruned+{name}": recipe for name, recipe in chosen(PRUNED_COMPOSED, canvas).items()}
    recipes = {**single, **composed}
    asked = gather(args.tasks, count * seeds)
    each = -(-len(asked) // seeds)
    draws = [asked[first : first + each] for first in range(0, len(asked), each)]
    limit = None if args.minutes is None else max(0.0, 60 * args.minutes - pruning_seconds)
    found = answered(model, tokenizer, draws, recipes, others={name: pruned for name in recipes if name.startswith("pruned")}, seconds=limit)
    rows = table(recipes, found)
    result: dict[str, Any] = {"rows": rows, **verdict(recipes, found, list(single), list(composed))}
    result |= {
        "questions_wanted": len(asked),
        "tasks": args.tasks,
        "draws": len(draws),
        "gen_length": gen_length,
        "pruned": {key: pruned.report[key] for key in ("speedup", "quality_drop", "parameter_ratio")},
        "pruning_seconds": pruning_seconds,
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
