"""Quality against cost: recipes answer the same questions in turn, and those that nobody beats in both form the frontier."""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from mezzotint.bench.questions import Answer, Question, put
from mezzotint.evaluation.intervals import bootstrap, paired
from mezzotint.models.transformer import Transformer
from mezzotint.recipe import Recipe


def difference(mine: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """The mean paired difference of shares of right answers over questions, its 95 % interval, and how many questions differ: `paired` as results have it."""
    found = paired(mine, theirs, shares=True)
    return {"mean": found["difference"], "ci": list(found["ci"]), "changed": found["changed"]}


def frontier(points: Sequence[tuple[float, float]]) -> list[bool]:
    """For each (cost, quality): whether no other point costs no more, is no worse, and is better in one of the two."""
    return [not any(c <= cost and q >= quality and (c, q) != (cost, quality) for c, q in points) for cost, quality in points]


MARGIN = 0.05
"""Of exact match: a loss that the interval of the paired difference must exclude before a recipe is said to keep the quality."""


def keeps(interval: Sequence[float], margin: float = MARGIN) -> bool | None:
    """What the interval of a paired difference says of a loss beyond `margin`: True: it has none; False: it has; None: it may."""
    low, high = interval
    return None if low < -margin <= high else low >= -margin


Passes = Sequence[Mapping[int, Answer]]
"""One recipe's answers: for each pass, by question."""


def answered(
    model: Transformer,
    tokenizer: Any,
    passes: Sequence[Sequence[Question]],
    recipes: Mapping[str, Recipe],
    *,
    others: Mapping[str, Transformer] | None = None,
    seconds: float | None = None,
    report: Callable[[str], None] = lambda name: None,
) -> dict[str, Passes]:
    """What each recipe says. All answer a question before the next is put.

    passes: the questions of each pass, which has its number as the seed; passes may repeat the questions or draw others, and take turns. Before it counts,
    each recipe answers the first question once.
    others: models that recipes of that name run on instead. seconds: no further question is put after that time, the first of each pass excepted.
    report(name) is called before each answer.
    """
    begun = time.monotonic()
    names = list(recipes)

    def answer(name: str, question: Question, seed: int) -> Answer:
        report(name)
        return put((others or {}).get(name, model), tokenizer, question, recipes[name], seed)

    for name in names:
        answer(name, passes[0][0], 0)
    found: dict[str, list[dict[int, Answer]]] = {name: [{} for _ in passes] for name in names}
    for number, asked in enumerate(zip_longest(*passes)):
        if number and seconds is not None and time.monotonic() - begun > seconds:
            break
        turn = number % len(names)
        for seed, question in enumerate(asked):
            if question is not None:
                for name in names[turn:] + names[:turn]:
                    found[name][seed][id(question)] = answer(name, question, seed)
    return dict(found)


def contest(model: Transformer, tokenizer: Any, passes: Sequence[Sequence[Question]], recipes: Mapping[str, Recipe], **more: Any) -> list[dict[str, Any]]:
    """One row of figures per recipe; the first is what the others are compared with. more: see `answered`."""
    return table(recipes, answered(model, tokenizer, passes, recipes, **more))


def table(recipes: Mapping[str, Recipe], found: Mapping[str, Passes]) -> list[dict[str, Any]]:
    """The rows of `contest`. A question that was asked in several passes is compared by the share of them in which it was answered rightly."""
    first = next(iter(recipes))
    rows = [row(name, recipe, found[name], found[first]) for name, recipe in recipes.items()]
    best = frontier([(r["seconds"]["mean"], r["exact_match"]) for r in rows])
    return [r | {"on_frontier": there} for r, there in zip(rows, best, strict=True)]


def faster(mine: Passes, theirs: Passes) -> dict[str, Any]:
    """How many times as fast, over the same questions: the geometric mean of the paired ratios, and its 95 % interval by resampling them (None for one)."""
    ratios = [math.log(theirs[number][key].seconds / answer.seconds) for number, answers in enumerate(mine) for key, answer in answers.items()]
    interval = bootstrap(ratios)
    return {"ratio": math.exp(statistics.mean(ratios)), "ci": None if interval is None else [math.exp(end) for end in interval]}


def shares(passes: Passes) -> list[float]:
    """How often each question was answered rightly, over the passes in which it was asked."""
    asked = dict.fromkeys(key for answers in passes for key in answers)
    return [statistics.mean(answers[key].right for answers in passes if key in answers) for key in asked]


def row(name: str, recipe: Recipe, mine: Passes, first: Passes) -> dict[str, Any]:
    """One recipe's figures over all passes; costs are per question."""
    answers = [a for group in mine for a in group.values()]
    theirs = [a for group in first for a in group.values()]
    seconds, tokens, forwards = (sum(getattr(a, field) for a in answers) for field in ("seconds", "tokens", "forwards"))
    return {
        "name": name,
        "exact_match": statistics.mean(shares(mine)),
        "exact_match_per_seed": [statistics.mean(a.right for a in group.values()) for group in mine],
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
