"""What removing heads and neurons gains and loses: the goal of the preset `balanced` under a bound on quality, and curves of speed against loss.

python benchmarks/structured_speed.py --rows structured_speed.jsonl
python benchmarks/structured_speed.py --quick

Speed is a forward of --length tokens, dense and pruned in turn within one run; by default the length of the samples that quality is judged on, which is that of
the built-in tasks' canvases. On longer ones attention between positions takes a share of this narrow model that it does not have in a large one, and which
neither heads nor neurons that go can save. `speedup`, `parameter_ratio`, `quality_drop` and `quality_drop_threshold`
are of the model that keeps the bound, on held-out samples of its own; `reached` is by that speed, and by the bound on the samples it was pruned by.
`goals` has such a model for each of --measures, the first of which is the headline's: a model that is nearly certain has a bound near zero, and a twentieth
of it is next to nothing. `exact_match` is of held-out questions, decoded as `decoding` says. `dense_against_itself` is what the measurement gives where
nothing differs; the `curve` knows no bound. Rows are kept in --rows and gone on from.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from asking import Asking
from machine import stamp
from rows import Rows

import mezzotint as mz
from mezzotint.evaluation.comparison import MEASURES
from mezzotint.evaluation.predictions import weights_digest
from mezzotint.prune import speed
from mezzotint.prune.calibration import from_suite
from mezzotint.prune.pruner import SinkAwarePruner
from mezzotint.prune.settings import Goal, Structured

HEADLINE = (
    *("speedup", "flops_ratio", "parameter_ratio", "memory_ratio", "measure", "quality_drop", "quality_drop_standard_error", "quality_drop_threshold"),
    *("exact_match", "dense_exact_match", "reached"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="checkpoint folder or hub id (default: the bundled model)")
    parser.add_argument("--rows", type=Path, metavar="FILE", help="keep the rows there (JSON lines) and go on from them")
    parser.add_argument("--target", type=float, default=1.3, help="speed to be reached within the bound (default: 1.3)")
    parser.add_argument("--threshold", type=float, default=0.05, help="largest drop of quality (default: 0.05)")
    parser.add_argument("--measures", nargs="+", choices=MEASURES, default=["ppl", "nll"], help="what that drop is of (default: ppl nll)")
    parser.add_argument("--questions", type=int, default=200, help="for exact match, all tasks together; 0 leaves it out (default: 200)")
    parser.add_argument("--length", type=int, default=128, help="canvas the speed is measured at (default: 128)")
    parser.add_argument("--targets", type=float, nargs="*", default=[1.1, 1.2, 1.3, 1.5], help="of the curve")
    parser.add_argument("--rankings", nargs="*", default=["importance", "combined", "instability"], help="of the curve")
    parser.add_argument("--samples", type=int, default=192, help="calibration samples, and as many to validate and to test on (default: 192)")
    parser.add_argument("--sample-length", type=int, default=128, help="their length, and that of validation and test samples (default: 128)")
    parser.add_argument("--repeats", type=int, default=25, help="pairs of forwards per measurement (default: 25)")
    parser.add_argument("--quick", action="store_true", help="little of everything: shows that it works, measures nothing")
    parser.add_argument("--json", action="store_true", help="print nothing but the JSON object")
    args = parser.parse_args()
    if args.quick:
        args.questions, args.measures = 5, args.measures[:1]
        args.samples, args.sample_length, args.length, args.targets, args.rankings, args.repeats = 8, 48, 96, [1.1], ["importance"], 3
    model, tokenizer = mz.load(args.model)
    settings = {k: v for k, v in vars(args).items() if k not in ("rows", "json", "quick")} | {"weights": weights_digest(model)}
    rows = Rows(args.rows, settings)
    data, validation, test = (
        list(from_suite(tokenizer, count=count, length=args.sample_length, seed=seed, held_out=held))
        for count, seed, held in ((args.samples, 200, False), (args.samples, 201, False), (args.samples, 1, True))
    )
    base = Structured(length=args.length, predicted=min(32, args.length), cost="flops" if args.quick else "measured", passes=1 if args.quick else 3)
    begun = time.monotonic()
    asking = Asking(tokenizer, args.questions, mz.Recipe(gen_length=64, steps=16, cache=mz.DualCache()))

    def pruner(**changes: Any) -> SinkAwarePruner:
        import dataclasses

        return SinkAwarePruner(model, data, validation_data=validation, settings=dataclasses.replace(base, **changes))

    def measured(maker: SinkAwarePruner, target: float, threshold: float, measure: str) -> dict[str, Any]:
        pruned = maker.prune(target, threshold, measure=measure)
        told = {name: pruned.report[name] for name in ("kept_heads", "kept_neurons")} | {"validation_drop": pruned.report["quality_drop"]}
        found = maker.evaluate(pruned, test, repeats=args.repeats)
        told["reached"] = Goal(target, threshold).reached(found["speedup"], "measured") and told["validation_drop"] <= threshold
        told["exact_match"] = asking.exact_match(pruned)
        return {"target_speedup": target} | {name: value for name, value in found.items() if name != "layers"} | told

    def say(row: dict[str, Any]) -> None:
        if not args.json:
            text = f"{row['row']:32} {row['speedup']:.2f}x  parameters {row['parameter_ratio']:.0%}  {row['measure']} {row['quality_drop']:+.1%}"
            print(f"{time.monotonic() - begun:6.0f} s  {text}", file=sys.stderr, flush=True)

    dense_right = rows.row("dense", lambda: {"exact_match": asking.exact_match(model)})["exact_match"]
    free, goals = pruner(), {}
    for measure in args.measures:
        made = rows.row(f"goal {measure}", lambda m=measure: measured(free, args.target, args.threshold, m))
        say(goals.setdefault(measure, made | {"dense_exact_match": dense_right}))
    curve = []
    for ranking in args.rankings:
        maker = None
        for target in args.targets:
            name = f"{ranking} {target:g}"
            if name not in rows.found:
                maker = maker or pruner(ranking=ranking, passes=1)
                rows.row(name, lambda m=maker, t=target, r=ranking: {"ranking": r} | measured(m, t, 10.0, args.measures[0]))
            say(rows.found[name])
            curve.append(rows.found[name])
    noise = speed.compare(model, model, length=args.length, predicted=base.predicted, repeats=args.repeats)["speedup"]
    first = goals[args.measures[0]]
    headline = {name: first[name] for name in HEADLINE} | {"target_speedup": args.target, "length": args.length, "dense_against_itself": noise}
    if not args.json:
        print(f"speedup {first['speedup']:.2f}x; the dense model against itself {noise:.2f}x", file=sys.stderr)
    found = {"goals": goals, "curve": curve, "decoding": str(asking.recipe), "settings": settings, "quick": args.quick}
    print(json.dumps(headline | found | stamp()))


if __name__ == "__main__":
    main()
