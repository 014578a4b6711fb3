"""The second step of an evaluation: predictions in, figures out. Needs no model, so anyone can score anew what was said."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from mezzotint.evaluation.benchmarks import BENCHMARKS
from mezzotint.evaluation.benchmarks.builtin import HARD, benchmark
from mezzotint.evaluation.intervals import paired, wilson
from mezzotint.evaluation.item import Benchmark
from mezzotint.evaluation.predictions import Conditions, Prediction
from mezzotint.evaluation.tasks import TASKS

Scored = list[dict[str, Any]]

HARNESS = "harness "
"""What the tasks of predictions begin with that lm-evaluation-harness asked for."""


def benchmark_of(task: str, hard: int = 0) -> Benchmark:
    """The benchmark of that name, a built-in task among them. Raises ValueError listing the names."""
    if task in TASKS:
        return benchmark(task, hard)
    if task not in BENCHMARKS:
        raise ValueError(f"task={task!r} is unknown; accepted: {', '.join([*TASKS, *BENCHMARKS])}")
    return BENCHMARKS[task]


def score(task: str, predictions: Sequence[Prediction], report: Callable[[int], None] = lambda done: None) -> Scored:
    """Every prediction's own figures, the chief one first."""
    judge = benchmark_of(task).score
    found: Scored = []
    for p in predictions:
        try:
            found.append(judge(p.facts, p.said))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"the prediction of {task} {p.id!r} cannot be scored: {type(error).__name__} {error}") from None
        report(len(found))
    return found


def summary(task: str, predictions: Sequence[Prediction], scored: Scored) -> dict[str, Any]:
    """Figures of a run: the chief one with its 95 % interval where it has one (prose has none), the others' means, what it cost, and the same for every part.

    The harder half of a built-in task is set apart as `hard` and not counted in the whole; the whole of other benchmarks is all their items, whatever
    part they are of.
    """
    parts = list(dict.fromkeys(p.part for p in predictions))
    if task in TASKS:
        halves = {part: [i for i, p in enumerate(predictions) if p.part == part] for part in ("", HARD)}
        found = {part: figures(task, [predictions[i] for i in chosen], [scored[i] for i in chosen]) for part, chosen in halves.items() if chosen}
        return found.get("", {}) | ({HARD: found[HARD]} if HARD in found else {})
    result = figures(task, predictions, scored)
    if len(parts) > 1:
        each = {part: [i for i, p in enumerate(predictions) if p.part == part] for part in parts}
        result["parts"] = {part: figures(task, [predictions[i] for i in chosen], [scored[i] for i in chosen]) for part, chosen in each.items()}
    return result


def figures(task: str, predictions: Sequence[Prediction], scored: Scored) -> dict[str, Any]:
    own = benchmark_of(task).summary
    if own is not None:
        found = own(scored)
    else:
        names = [name for name, value in scored[0].items() if isinstance(value, (bool, int, float))]
        found: dict[str, Any] = {name: math.fsum(float(s.get(name, 0)) for s in scored) / len(scored) for name in names}
        found["ci"] = wilson(sum(bool(s["exact_match"]) for s in scored), len(scored))
    costs = {"forwards": sum(p.forwards for p in predictions), "positions_computed": sum(p.positions_computed for p in predictions)}
    seconds = math.fsum(p.seconds for p in predictions)
    return found | {"count": len(scored)} | costs | {"seconds": seconds}


def compare(mine: Sequence[Prediction], theirs: Sequence[Prediction], my_scores: Scored, their_scores: Scored, share: str | None = None) -> dict[str, Any]:
    """Two runs on the same items: the paired difference in one figure, its interval, and how many verdicts and answers changed.

    share: the figure, if it is a share in [0, 1] and not the chief one.

    Only items that both runs answered count. Raises ValueError if there are none, or if the same id stands for different questions.
    """
    others = {p.id: (p, s) for p, s in zip(theirs, their_scores, strict=True)}
    pairs = [(p, s, *others[p.id]) for p, s in zip(mine, my_scores, strict=True) if p.id in others]
    if not pairs:
        raise ValueError("the two runs have no question in common")
    if any(p.asked != q.asked for p, _, q, _ in pairs):
        raise ValueError("the two runs were asked different questions under the same ids, so they cannot be compared in pairs")
    figure = share or next(iter(pairs[0][1]))
    found = paired([s[figure] for _, s, _, _ in pairs], [t[figure] for _, _, _, t in pairs], shares=share is not None)
    return {"figure": figure} | found | {"answers_changed": sum(answered(p) != answered(q) for p, _, q, _ in pairs), "count": len(pairs)}


def answered(prediction: Prediction) -> dict[str, Any]:
    """What was said, without the reason why it ended there."""
    return {name: value for name, value in prediction.said.items() if name != "finish_reason"}


def apart(lines: Sequence[tuple[Conditions, Prediction]]) -> dict[str, tuple[Conditions, list[Prediction]]]:
    """The runs of a predictions file, each with its predictions ordered by id; a later line of the same item takes the earlier one's place."""
    runs: dict[str, tuple[Conditions, dict[str, Prediction]]] = {}
    for taken, prediction in lines:
        runs.setdefault(taken.run, (taken, {}))[1][prediction.id] = prediction
    return {run: (taken, [found[id] for id in sorted(found)]) for run, (taken, found) in runs.items()}
