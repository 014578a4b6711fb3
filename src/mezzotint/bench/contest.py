"""Quality against cost: recipes answer the same questions in turn, and those that nobody beats in both form the frontier."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mezzotint.bench.questions import Answer, Question, put
from mezzotint.models.transformer import Transformer
from mezzotint.recipe import Recipe


def difference(mine: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """The mean paired difference over questions, its 95 % interval, and how many questions differ.

    The interval is that of Agresti and Min (2005): two questions are added (half of one better, half of one worse, one equal),
    so that it has a width even where nothing changed.
    """
    gaps = [a - b for a, b in zip(mine, theirs, strict=True)]
    total = len(gaps) + 2
    centre = sum(gaps) / total
    half = 1.96 * math.sqrt(((sum(g * g for g in gaps) + 1) / total - centre**2) / total)
    return {"mean": sum(gaps) / len(gaps), "ci": [max(-1.0, centre - half), min(1.0, centre + half)], "changed": sum(g != 0 for g in gaps)}


def frontier(points: Sequence[tuple[float, float]]) -> list[bool]:
    """For each (cost, quality): whether no other point costs no more, is no worse, and is better in one of the two."""
    return [not any(c <= cost and q >= quality and (c, q) != (cost, quality) for c, q in points) for cost, quality in points]


def contest(
    model: Transformer,
    tokenizer: Any,
    questions: Sequence[Question],
    recipes: Mapping[str, Recipe],
    *,
    seeds: Sequence[int] = (0,),
    report: Callable[[str], None] = lambda name: None,
) -> list[dict[str, Any]]:
    """One row of figures per recipe. Every recipe answers a question before the next is put; the first recipe is what the others are compared with.

    Before it counts, each recipe answers the first question once. Each seed is one pass over all questions. report(name) is called before each answer.
    """
    for name, recipe in recipes.items():
        report(name)
        put(model, tokenizer, questions[0], recipe)
    found: dict[str, dict[int, list[Answer]]] = {name: {seed: [] for seed in seeds} for name in recipes}
    names = list(recipes)
    for seed in seeds:
        for number, question in enumerate(questions):
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                report(name)
                found[name][seed].append(put(model, tokenizer, question, recipes[name], seed))
    rows = [row(name, recipes[name], found[name], found[names[0]]) for name in names]
    best = frontier([(r["seconds"]["mean"], r["exact_match"]) for r in rows])
    return [r | {"on_frontier": there} for r, there in zip(rows, best, strict=True)]


def shares(passes: Mapping[int, Sequence[Answer]]) -> list[float]:
    """How often each question was answered rightly, over the passes."""
    return [statistics.mean(a.right for a in answers) for answers in zip(*passes.values(), strict=True)]


def row(name: str, recipe: Recipe, mine: Mapping[int, Sequence[Answer]], first: Mapping[int, Sequence[Answer]]) -> dict[str, Any]:
    """One recipe's figures over all passes; costs are per question."""
    answers = [a for group in mine.values() for a in group]
    theirs = [a for group in first.values() for a in group]
    seconds, tokens, forwards = (sum(getattr(a, field) for a in answers) for field in ("seconds", "tokens", "forwards"))
    return {
        "name": name,
        "exact_match": statistics.mean(shares(mine)),
        "exact_match_per_seed": [statistics.mean(a.right for a in group) for group in mine.values()],
        "against_first": difference(shares(mine), shares(first)),
        "questions": len(shares(mine)),
        "seconds": {"mean": seconds / len(answers), "median": statistics.median(a.seconds for a in answers)},
        "speedup": sum(a.seconds for a in theirs) / seconds,
        "forwards": forwards / len(answers),
        "positions_computed": sum(a.positions for a in answers) / len(answers),
        "answer_tokens": tokens / len(answers),
        "tokens_per_forward": sum(a.decided for a in answers) / forwards,
        "effective_tokens_per_second": tokens / seconds,
        "recipe": str(recipe),
    }
