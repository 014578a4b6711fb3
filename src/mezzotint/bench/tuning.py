"""The fastest recipe that keeps the quality: successive halving (arXiv 1502.07943) over combinations of strategies, judged on one's own questions.

Each rung puts more questions to fewer recipes. Who goes on is decided by two things at once, cost and loss: the frontier of both first, then the frontier
of the rest, and so on. With few questions a loss cannot be told from none, so ranking by cost alone would keep what is merely fast. Where time is limited,
every rung gets the same share of it, as the method wants, and ends with the question it is at.
"""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mezzotint.attention.sparsed import least
from mezzotint.bench.contest import difference, frontier
from mezzotint.bench.questions import Answer, Question, put
from mezzotint.canvas import Canvas
from mezzotint.commit import AtLeast, Edit, Linear, Sequential
from mezzotint.layout import lay_out
from mezzotint.models.config import ModelConfig
from mezzotint.models.transformer import Transformer
from mezzotint.recipe import Recipe
from mezzotint.recipes import RECIPES
from mezzotint.strategies import KINDS

COMMITS = (
    {},
    *({"commit": f"threshold:tau={tau}", "confidence": "probability"} for tau in (0.95, 0.9, 0.8, 0.7)),
    {"commit": "factor", "confidence": "probability"},
    {"commit": "local_leap", "confidence": "probability"},
    *({"commit": f"entropy_bound:gamma={gamma}", "confidence": "entropy"} for gamma in (0.1, 0.3)),
)
CACHES = ({}, *({"cache": text} for text in ("prefix", "dual", "delayed", "prompt", "feature")))
WINDOWS = (64, 256)
SPARSE = ("sparsed", "sparsed:select=0.5", "sparsed:rebuild=block")
MEASURES = ("seconds", "positions", "forwards")
SHRINK = 3
"""Each rung keeps a third of the recipes and has three times the questions of the one before."""
LEAST_QUESTIONS, LEAST_KEPT = 4, 4
BLOCK_RULES = (AtLeast, Edit, Linear, Sequential)
"""Commit rules of block-diffusion models; left to references that have one."""


def hand_written(reference: Recipe, longest: int, device: str) -> dict[str, Recipe]:
    """The strategies of every named recipe, on the reference's canvas and with its sampling, by name; of equal ones the first.

    Sparse attention is left out where prompts are too short for it, suffix dropout where there are no blocks ahead.
    """
    found: dict[str, Recipe] = {}
    for name, known in RECIPES.items():
        mine = known.recipe
        foreign = isinstance(mine.commit, BLOCK_RULES) and not isinstance(reference.commit, BLOCK_RULES)
        short = mine.attention != reference.attention and longest < least(device)
        whole = mine.suffix != reference.suffix and reference.width >= reference.gen_length
        if foreign or short or whole:
            continue
        try:
            recipe = reference.with_(**{kind: getattr(mine, kind) for kind in KINDS}, confidence=mine.confidence)
        except ValueError:  # strategies that the reference's sampling or schedule refuses
            continue
        if recipe not in found.values():
            found[name] = recipe
    return found


def space(reference: Recipe, longest: int, device: str) -> dict[str, Recipe]:
    """The combinations that are tried, by what they change of the reference; `longest`: tokens of the longest prompt.

    The canvas and the sampling stay the reference's. Suffix dropout is tried where there are blocks ahead, sparse attention where prompts are long enough
    to gain from it, blocks of 32 where the reference has none. The hand-written recipes are among them, so that the search starts from no less than they know.
    """
    blocks = [{}] + ([{"block_length": 32}] if reference.block_length is None and reference.gen_length % 32 == 0 and reference.steps is None else [])
    windows = [window for window in WINDOWS if window < reference.gen_length]
    found = {f"the strategies of {name}": recipe for name, recipe in hand_written(reference, longest, device).items() if recipe != reference}
    seen = {reference, *found.values()}
    for block in blocks:
        width = block.get("block_length", reference.width)
        suffixes = [{}] + ([{"suffix": text} for text in ("none", *(f"dpad:window={window}" for window in windows))] if width < reference.gen_length else [])
        attentions = [{}] + ([{"attention": text} for text in SPARSE] if longest >= least(device) else [])
        for changes in ({**block, **c, **k, **s, **a} for c in COMMITS for k in CACHES for s in suffixes for a in attentions):
            try:
                recipe = reference.with_(**changes)
            except ValueError:  # strategies that refuse each other
                continue
            if recipe not in seen:
                seen.add(recipe)
                found[" ".join(f"{field}={value}" for field, value in changes.items() if field != "confidence")] = recipe
    return found


def understood(config: ModelConfig, recipe: Recipe) -> bool:
    """Whether a model can follow a recipe at all; block-causal ones refuse some strategies."""
    canvas = Canvas.blank([torch.zeros(1, dtype=torch.long)], recipe.gen_length, config.mask_id, torch.device("cpu"), grid=config.block_length)
    try:
        lay_out(canvas, config, recipe)
    except ValueError:
        return False
    return True


def rungs(candidates: int, questions: int) -> list[int]:
    """How many questions have been put by the end of each rung; the last has all."""
    sizes = [questions]
    while candidates > LEAST_KEPT * SHRINK ** (len(sizes) - 1) and (fewer := math.ceil(sizes[0] / SHRINK)) >= LEAST_QUESTIONS:
        sizes.insert(0, fewer)
    return sizes


def ranked(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Names by frontier of (cost, quality), then the frontier of what is left, and so on; within one by cost."""
    left, order = dict(points), []
    while left:
        front = [name for name, there in zip(left, frontier(list(left.values())), strict=True) if there]
        order += sorted(front, key=lambda name: left[name][0])
        for name in front:
            del left[name]
    return order


@dataclass(frozen=True)
class Tuned:
    """What the search found.

    name: what the recipe changes of the reference ("reference" if nothing was faster and kept the quality); search, check: exact match, loss in points with its
    95 % interval, and speedup, on the questions of the search and on those kept out of it; finalists: how many recipes answered those kept out; the choice
    among them was made there, so the loss in `check` is at most the one allowed by construction, and only other questions can say what it is; tried: recipes
    in all; rungs: questions and recipes of each; frontier: the last rung's recipes that nobody beats in both.
    """

    name: str
    recipe: Recipe
    search: dict[str, Any]
    check: dict[str, Any]
    finalists: int
    tried: int
    rungs: list[dict[str, int]]
    frontier: list[dict[str, Any]]


class Search:
    """The answers so far, and what they say."""

    def __init__(self, model: Transformer, tokenizer: Any, reference: Recipe, candidates: Mapping[str, Recipe], measure: str, report: Callable[[str], None]):
        self.model, self.tokenizer, self.measure, self.report = model, tokenizer, measure, report
        self.recipes = {"reference": reference, **candidates}
        self.answers: dict[str, dict[int, Answer]] = {name: {} for name in self.recipes}
        self.warm: set[str] = set()

    def put(self, names: Sequence[str], questions: Mapping[int, Question], until: float = math.inf) -> list[int]:
        """All these recipes answer each question before the next is put; what was answered before is not asked again. After `until` (monotonic seconds) no
        further question is put than one that is new. Returns the questions that all have answered."""
        done: list[int] = []
        fresh = False
        for number, question in questions.items():
            if fresh and time.monotonic() > until:
                break
            fresh = fresh or any(number not in self.answers[name] for name in names)
            turn = number % len(names)
            for name in [*names[turn:], *names[:turn]]:
                if number not in self.answers[name]:
                    self.report(name)
                    if name not in self.warm:
                        self.warm.add(name)
                        put(self.model, self.tokenizer, question, self.recipes[name])  # warm-up, and compiles its kernels
                    self.answers[name][number] = put(self.model, self.tokenizer, question, self.recipes[name])
            done.append(number)
        return done

    def sighted(self, questions: Mapping[int, Question]) -> bool:
        """Whether the reference answers any question rightly. It answers alone as many as it takes to tell and forgets them: seconds compare only where
        recipes take turns."""
        for number, question in questions.items():
            self.put(["reference"], {number: question})
            if self.answers["reference"].pop(number).right:
                return True
        return False

    def cost(self, name: str, numbers: Sequence[int]) -> float:
        return statistics.mean(getattr(self.answers[name][n], self.measure) for n in numbers)

    def quality(self, name: str, numbers: Sequence[int]) -> float:
        return statistics.mean(self.answers[name][n].right for n in numbers)

    def figures(self, name: str, numbers: Sequence[int]) -> dict[str, Any]:
        """Against the reference on the same questions."""
        mine, theirs = ([float(self.answers[which][n].right) for n in numbers] for which in (name, "reference"))
        gap = difference(mine, theirs)
        return {
            "questions": len(mine),
            "exact_match": statistics.mean(mine),
            "reference": statistics.mean(theirs),
            "loss": -100 * gap["mean"] + 0.0,
            "ci": [-100 * gap["ci"][1] + 0.0, -100 * gap["ci"][0] + 0.0],
            "changed": gap["changed"],
            "speedup": sum(self.answers["reference"][n].seconds for n in numbers) / sum(self.answers[name][n].seconds for n in numbers),
            "forwards": statistics.mean(self.answers[name][n].forwards for n in numbers),
            "positions_computed": statistics.mean(self.answers[name][n].positions for n in numbers),
        }


def tune(
    model: Transformer,
    tokenizer: Any,
    questions: Sequence[Question],
    reference: Recipe,
    candidates: Mapping[str, Recipe],
    *,
    max_loss: float = 0.5,
    measure: str = "seconds",
    seconds: float | None = None,
    report: Callable[[str], None] = lambda name: None,
) -> Tuned:
    """The cheapest candidate whose exact match is at most `max_loss` points below the reference's, else the reference.

    The first two thirds of the questions are searched on, the reference taking part in every rung. The cheapest survivors that keep the quality there then
    answer the last third in turn with it, and the cheapest that keeps it there too and costs less is it. Candidates that the model cannot follow are left
    out. measure: what is to be small, "seconds", "positions" or "forwards". seconds: how long it may take (None: as long as it takes); it takes longer only
    by the questions it is at, at least one in each rung.
    Raises ValueError for fewer than 6 questions, and if the reference answers none rightly, because then no loss can be seen.
    """
    if measure not in MEASURES:
        raise ValueError(f"measure={measure!r} is unknown; accepted: {', '.join(MEASURES)}")
    if not 0 <= max_loss <= 100:
        raise ValueError(f"max_loss={max_loss} must lie between 0 and 100 points")
    if len(questions) < 6:
        raise ValueError(f"{len(questions)} questions are too few to tell recipes apart; give at least 6")
    begun = time.monotonic()
    asked = dict(enumerate(questions))
    parted = -(-2 * len(questions) // 3)
    kept_out = list(range(parted, len(questions)))
    candidates = {name: recipe for name, recipe in candidates.items() if understood(model.config, recipe)}
    search = Search(model, tokenizer, reference, candidates, measure, report)
    if not search.sighted(asked):
        raise ValueError(
            f"the reference answers none of the {len(questions)} questions rightly, so no loss can be seen; give questions that the model can answer"
        )
    alive, history, seen = list(candidates), [], list(range(parted))
    sizes = rungs(len(candidates), parted)

    def share(stages: int) -> float:
        """When the next of so many stages that are to come must end."""
        now = time.monotonic()
        return math.inf if seconds is None else now + max(0.0, begun + seconds - now) / stages

    for number, size in enumerate(sizes):
        seen = search.put(["reference", *alive], {n: asked[n] for n in range(size)}, share(len(sizes) - number + 1))
        history.append({"questions": len(seen), "recipes": len(alive)})
        order = ranked({name: (search.cost(name, seen), search.quality(name, seen)) for name in alive})
        if number + 1 < len(sizes):
            alive = order[: max(LEAST_KEPT, math.ceil(len(order) / SHRINK))]
    sound = [n for n in alive if search.cost(n, seen) < search.cost("reference", seen) and search.figures(n, seen)["loss"] <= max_loss]
    final = sorted(sound, key=lambda name: search.cost(name, seen))[:LEAST_KEPT]
    checked = search.put(["reference", *final], {n: asked[n] for n in kept_out}, share(1))
    cheaper = [name for name in final if search.cost(name, checked) < search.cost("reference", checked)]
    found = next((name for name in cheaper if search.figures(name, checked)["loss"] <= max_loss), "reference")
    last = ["reference", *alive]
    best = frontier([(search.cost(name, seen), search.quality(name, seen)) for name in last])
    front = [{"name": name, **search.figures(name, seen)} for name, there in zip(last, best, strict=True) if there]
    front.sort(key=lambda row: row["speedup"])
    return Tuned(found, search.recipes[found], search.figures(found, seen), search.figures(found, checked), len(final) + 1, len(candidates), history, front)


def work(candidates: int, questions: int) -> int:
    """An upper bound on the answers that `tune` asks for, for a progress bar."""
    parted, alive, before, total = -(-2 * questions // 3), candidates, 0, questions
    for size in rungs(candidates, parted):
        total += (alive + 1) * (size - before)
        before, alive = size, max(LEAST_KEPT, math.ceil(alive / SHRINK))
    return total + (LEAST_KEPT + 1) * (questions - parted)
