"""Pruning on the bundled model: likelihood of every unstructured method, and the speed and loss of structured removal; pruned and dense in one run.

python benchmarks/pruning.py --quick
"""

import argparse
import dataclasses
import json
import statistics
from typing import Any

from machine import stamp

import mezzotint as mz
from mezzotint.evaluation.comparison import likelihood, masked_rows, paired_increase
from mezzotint.evaluation.suite import answer, questions, summary
from mezzotint.evaluation.tasks import TASKS
from mezzotint.generation import default_recipe
from mezzotint.prune import speed
from mezzotint.prune.calibration import Calibration, from_suite
from mezzotint.prune.pruner import SinkAwarePruner
from mezzotint.prune.settings import Structured
from mezzotint.prune.structure import size_of
from mezzotint.prune.unstructured import Sparsity, sparsify

METHODS = ("magnitude", "movement", "fisher", "wanda", "wanda-noised", "sparsegpt", "sink", "sink-sparsegpt")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("table", "speed", "both"), default="both")
    parser.add_argument("--samples", type=int, default=128, help="calibration samples")
    parser.add_argument("--sample-length", type=int, default=128, help="their length, and that of the test samples")
    parser.add_argument("--questions", type=int, default=40, help="questions of each task; 0 leaves exact match out")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sparsities", default="0.3,0.5,0.7,2:4")
    parser.add_argument("--targets", default="1.1,1.2,1.3,1.5")
    parser.add_argument("--length", type=int, default=512, help="canvas length of the speed measurements")
    parser.add_argument("--threshold", type=float, default=0.05)
    parser.add_argument("--quick", action="store_true", help="little of everything: shows that it works, measures nothing")
    args = parser.parse_args()
    if args.quick:
        args.samples, args.questions, args.seeds, args.sparsities, args.targets, args.length = 8, 0, 1, "0.5", "1.1", 128
        args.sample_length = 48
    model, tokenizer = mz.load()
    test = from_suite(tokenizer, count=8 if args.quick else 128, length=args.sample_length, seed=1, held_out=True)
    checks = masked_rows([(s.ids, s.start, s.end) for s in test], model.config.mask_id, draws=2 if args.quick else 8, seed=1)
    found: dict[str, Any] = {"part": args.part, "quick": args.quick, "machine": stamp()}
    dense = likelihood(model, checks)
    found["dense"] = {"nll": dense.mean, "exact_match": exact_match(model, tokenizer, args.questions), **size_of(model)}
    if args.part != "speed":
        found["table"] = [
            row(model, tokenizer, args, checks, dense, m, s) for s in args.sparsities.split(",") for m in (METHODS[:5:4] if args.quick else METHODS)
        ]
    if args.part != "table":
        found["speed"] = curve(model, tokenizer, args, test)
    print(json.dumps(found, indent=1))


def exact_match(model: Any, tokenizer: Any, count: int) -> float | None:
    """Over all tasks together."""
    if count == 0:
        return None
    outcomes = [o for task in TASKS for o in answer(model, tokenizer, questions(task, count), default_recipe(model).with_(max_tokens=64))]
    return summary(outcomes)["exact_match"]


def row(model: Any, tokenizer: Any, args: argparse.Namespace, checks: list, dense: Any, method: str, sparsity: str) -> dict[str, Any]:
    """One method at one sparsity: mean and spread over calibration seeds."""
    pattern = sparsity if ":" in sparsity else "none"
    ratio = 0.5 if ":" in sparsity else float(sparsity)
    drops, right = [], []
    for seed in range(args.seeds if method != "magnitude" else 1):
        data = Calibration(from_suite(tokenizer, count=args.samples, length=args.sample_length, seed=100 + seed), seed)
        settings = Sparsity(method, ratio, pattern) if method == "magnitude" else Sparsity(method, ratio, pattern, batch=16)
        pruned = sparsify(model, data, settings).model
        drops.append(paired_increase(likelihood(pruned, checks), dense).relative)
        right.append(exact_match(pruned, tokenizer, args.questions))
    spread = statistics.stdev(drops) if len(drops) > 1 else None
    return {"method": method, "sparsity": sparsity, "quality_drop": statistics.mean(drops), "spread": spread, "exact_match": right}


def curve(model: Any, tokenizer: Any, args: argparse.Namespace, test: tuple) -> list[dict[str, Any]]:
    """Speed against loss, without a bound on the loss, by ranking; and the balanced goal with it."""
    data, validation = (list(from_suite(tokenizer, count=args.samples, length=args.sample_length, seed=seed)) for seed in (200, 201))
    settings = Structured(length=args.length, cost="flops" if args.quick else "measured")
    rows = []
    for ranking in ("combined",) if args.quick else ("combined", "importance", "instability"):
        pruner = SinkAwarePruner(model, data, validation_data=validation[:32], settings=dataclasses.replace(settings, ranking=ranking))
        for target in map(float, args.targets.split(",")):
            rows.append({"ranking": ranking, "bounded": False} | report(pruner, pruner.prune(target, 10.0), test))
        if ranking == "combined":
            rows.append({"ranking": ranking, "bounded": True} | report(pruner, pruner.prune(1.3, args.threshold), test))
            level = speed.compare(model, model, length=args.length, repeats=5)["speedup"]
            rows.append({"ranking": "dense against itself", "speedup": level})
    return rows


def report(pruner: SinkAwarePruner, pruned: Any, test: tuple) -> dict[str, Any]:
    found = pruner.evaluate(pruned, list(test), repeats=15)
    told = {"reached": pruned.report["reached"], "validation_drop": pruned.report["quality_drop"]}
    return {name: value for name, value in found.items() if name != "layers"} | told


if __name__ == "__main__":
    main()
