"""Every way of pruning at every sparsity: likelihood bound and exact match on the built-in tasks, mean and spread over calibration seeds.

python benchmarks/pruning_table.py --rows pruning_table.jsonl
python benchmarks/pruning_table.py --quick

Rows are kept in --rows as they are made; the same command goes on where it stopped. Exact match is decoded as `decoding` in the JSON says, four tokens a
forward, the dense model alike: a threshold would give a broken model all the time it wants. Structured rows remove the same share of every layer's heads and
neurons. `sink_against` pairs each sink-aware method with the one it is a variant of, seed by seed: below zero it loses less.
"""

import argparse
import functools
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from asking import Asking, rate
from machine import stamp
from rows import Rows
from torch import Tensor

import mezzotint as mz
from mezzotint.analysis.sinks import SinkRule
from mezzotint.evaluation.comparison import Masked, Quality, drop, judge, judge_beside, masked_rows
from mezzotint.evaluation.predictions import weights_digest
from mezzotint.prune.calibration import Calibration, from_suite
from mezzotint.prune.journal import Journal
from mezzotint.prune.pruner import SinkAwarePruner
from mezzotint.prune.search import Search
from mezzotint.prune.settings import Goal, Structured
from mezzotint.prune.sparsity import Sparsity
from mezzotint.prune.structure import size_of
from mezzotint.prune.unstructured import importances, sparsify

CONTROL = "sink-unweighted"
"""The method "sink" with a rule that finds no sink: what is left is noised text and dense activations of all layers at once."""
METHODS = ("magnitude", "movement", "fisher", "wanda", "wanda-noised", "sparsegpt", CONTROL, "sink", "sink-sparsegpt")
RANKINGS = ("importance", "instability", "combined")
PAIRS = (
    ("sink", CONTROL),
    ("sink", "wanda-noised"),
    ("sink", "wanda"),
    ("sink-sparsegpt", "sparsegpt"),
    ("combined", "importance"),
    ("instability", "importance"),
)


class Judge:
    """The same masks and questions for every model."""

    def __init__(self, model: Any, tokenizer: Any, args: argparse.Namespace):
        self.asking = Asking(tokenizer, args.questions, mz.Recipe(gen_length=64, steps=16, cache=mz.DualCache()), args.batch)
        samples = from_suite(tokenizer, count=args.checks, length=args.sample_length, seed=1, held_out=True)
        self.checks: list[Masked] = masked_rows([(s.ids, s.start, s.end) for s in samples], model.config.mask_id, draws=args.draws, seed=1, batch=32)
        self.said: list[Tensor] = []
        self.dense: Quality = judge(model, self.checks, lambda logits: self.said.append(logits.log_softmax(-1)))

    def exact_match(self, model: Any) -> dict[str, Any]:
        right = self.asking.right(model)
        return {"exact_match": rate([verdict for some in right.values() for verdict in some]), "by_task": {task: rate(some) for task, some in right.items()}}

    def row(self, model: Any, ask: bool = True) -> dict[str, Any]:
        """ask: decode the questions too, which takes longer than all the rest."""
        found, apart = judge_beside(model, self.said, self.checks)
        lost = drop(found, self.dense)
        quality = {"nll": found.mean, "quality_drop": lost.value, "quality_drop_standard_error": lost.error, "accuracy": found.accuracy}
        closeness = {"agreement": 1 - drop(found, self.dense, "agreement").value, "kl": apart}
        return quality | closeness | (self.exact_match(model) if ask else {"exact_match": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="checkpoint folder or hub id (default: the bundled model)")
    parser.add_argument("--rows", type=Path, metavar="FILE", help="keep the rows there (JSON lines) and go on from them")
    parser.add_argument("--samples", type=int, default=128, help="calibration samples (default: 128)")
    parser.add_argument("--sample-length", type=int, default=128, help="their length, and that of the test samples (default: 128)")
    parser.add_argument("--checks", type=int, default=128, help="held-out samples for the bound (default: 128)")
    parser.add_argument("--draws", type=int, default=4, help="masked versions of each (default: 4)")
    parser.add_argument("--questions", type=int, default=200, help="for exact match, all tasks together; 0 leaves it out (default: 200)")
    parser.add_argument("--asked-seeds", type=int, help="calibration seeds of which questions are asked too (default: all)")
    parser.add_argument("--batch", type=int, default=40, help="questions decoded together (default: 40)")
    parser.add_argument("--seeds", type=int, default=3, help="calibration seeds (default: 3)")
    parser.add_argument("--sparsities", nargs="+", default=["0.3", "0.5", "0.7", "2:4"])
    parser.add_argument("--structured", nargs="*", type=float, default=[0.15, 0.3], help="shares of heads and neurons (default: 0.15 0.3)")
    parser.add_argument("--quick", action="store_true", help="little of everything: shows that it works, measures nothing")
    parser.add_argument("--json", action="store_true", help="print nothing but the JSON object")
    args = parser.parse_args()
    methods, rankings = METHODS, RANKINGS
    if args.quick:
        args.samples, args.checks, args.draws, args.questions, args.seeds, args.sample_length = 8, 8, 1, 5, 1, 48
        args.sparsities, args.structured, methods, rankings = ["0.5"], [0.3], ("magnitude", "sink"), ("combined",)
    model, tokenizer = mz.load(args.model)
    settings = {k: v for k, v in vars(args).items() if k not in ("rows", "json", "quick")} | {"weights": weights_digest(model)}
    rows = Rows(args.rows, settings)
    asked = args.seeds if args.asked_seeds is None else args.asked_seeds
    judge = Judge(model, tokenizer, args)
    begun = time.monotonic()

    def say(found: dict[str, Any]) -> None:
        if not args.json:
            exact = "" if found["exact_match"] is None else f"  exact match {found['exact_match']:.3f}"
            print(f"{time.monotonic() - begun:6.0f} s  {found['row']:34} {found['quality_drop']:+8.1%}{exact}", file=sys.stderr, flush=True)

    say(dense := rows.row("dense", lambda: judge.row(model)))
    for seed in range(args.seeds):
        samples = from_suite(tokenizer, count=args.samples, length=args.sample_length, seed=100 + seed)
        judged = functools.partial(judge.row, ask=seed < asked)
        weights = Weights(model, Calibration(samples, seed))
        for sparsity in args.sparsities:
            for method in methods:
                if method == "magnitude" and seed:
                    continue
                pruned = functools.partial(weights, method, sparsity)
                say(rows.row(f"{method} {sparsity} seed {seed}", lambda p=pruned, judged=judged: judged(p())))
        for ranking in rankings:
            pruner = None
            for share in args.structured:
                name = f"{ranking} {share:g} seed {seed}"
                if name not in rows.found:
                    pruner = pruner or SinkAwarePruner(
                        model, list(samples), settings=Structured(ranking=ranking, allocation="uniform", cost="flops"), seed=seed
                    )
                    smaller = thinned(pruner, share)
                    ratio = size_of(smaller)["parameters"] / size_of(model)["parameters"]
                    rows.row(name, lambda m=smaller, judged=judged, ratio=ratio: judged(m) | {"parameter_ratio": ratio})
                say(rows.found[name])
    names = [(m, s, "unstructured") for s in args.sparsities for m in methods] + [(r, f"{s:g}", "structured") for s in args.structured for r in rankings]
    table = [summary(rows, *name) for name in names]
    shares = dict.fromkeys([*args.sparsities, *(f"{x:g}" for x in args.structured)])
    against = [pair for a, b in PAIRS for s in shares if (pair := paired_seeds(rows, a, b, s))]
    found = {"dense": dense, "table": table, "sink_against": against, "decoding": str(judge.asking.recipe), "tasks": list(judge.asking.questions)}
    print(json.dumps(found | settings | {"quick": args.quick, **stamp()}))


class Weights:
    """Prunes one model's weights by one calibration; what does not depend on the sparsity is found once."""

    def __init__(self, model: Any, calibration: Calibration):
        self.model, self.calibration = model, calibration
        self.scores: dict[str, Any] = {}

    def __call__(self, method: str, sparsity: str) -> Any:
        n, _, m = sparsity.partition(":")
        options: dict[str, Any] = {} if method == "magnitude" else {"batch": 16}
        if method == CONTROL:
            options["rule"] = SinkRule(std=1e6)
        name = "sink" if method == CONTROL else method
        settings = Sparsity(name, int(n) / int(m) if m else float(sparsity), sparsity if m else "none", **options)
        if settings.dense and method not in self.scores:
            self.scores[method] = importances(self.model, self.calibration, settings)
        return sparsify(self.model, self.calibration, settings, scores=self.scores.get(method)).model


def thinned(pruner: SinkAwarePruner, share: float) -> Any:
    """Without about that share of every layer's heads and neurons."""
    search = Search(pruner, pruner.settings, Goal(10, 10), Journal(None), lambda stage, done, total: None)
    return search.walker.walk(search.ground.choices.uniform(share), "table").model


def seeds_of(rows: Rows, method: str, sparsity: str) -> list[dict[str, Any]]:
    return [row for name, row in rows.found.items() if name.startswith(f"{method} {sparsity} seed ")]


def summary(rows: Rows, method: str, sparsity: str, kind: str) -> dict[str, Any]:
    """Mean over calibration seeds, and their standard deviation."""
    some = seeds_of(rows, method, sparsity)
    found: dict[str, Any] = {"kind": kind, "method": method, "sparsity": sparsity, "seeds": len(some)}
    for field in ("nll", "quality_drop", "kl", "exact_match"):
        values = [row[field] for row in some if row[field] is not None]
        found[field] = statistics.mean(values) if values else None
        found[f"{field}_spread"] = statistics.stdev(values) if len(values) > 1 else None
    return found


def paired_seeds(rows: Rows, a: str, b: str, sparsity: str) -> dict[str, Any] | None:
    """The bound of a - that of b, in nats per token, with equal seeds."""
    mine, theirs = seeds_of(rows, a, sparsity), seeds_of(rows, b, sparsity)
    if not mine or len(mine) != len(theirs):
        return None
    differences = [x["nll"] - y["nll"] for x, y in zip(mine, theirs, strict=True)]
    spread = statistics.stdev(differences) if len(differences) > 1 else None
    return {"method": a, "against": b, "sparsity": sparsity, "nll_difference": statistics.mean(differences), "spread": spread}


if __name__ == "__main__":
    main()
