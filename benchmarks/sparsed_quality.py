"""Quality of SparseD and of fixed patterns at an equal budget, against dense attention on the same questions (the paper's table 1, on the bundled model).

python benchmarks/sparsed_quality.py --keep quality.jsonl --json
python benchmarks/sparsed_quality.py --arms sparsed dkv-cache fast-dllm --json                against caches as well
python benchmarks/sparsed_quality.py --ablations --keep ablations.jsonl --json     skip, select, tiles, sharing, and how often the pattern is made

A fixed schedule, not a threshold, so that SparseD's dense phase is the paper's share of it: one block that just holds the task's longest answer, two tokens a
forward, four in long retrieval, whose answers are copied. A row ends with its answer; `sparse_share` says how many forwards ran sparse (null where the
pattern is made anew, at steps that are not counted), `tiles_kept` the mean share of key tiles that SparseD's patterns kept (null where there
are none, or one in every step). Tiles are a 32nd of the canvas (8 to 128 positions), as the paper's 128 at 4k. The pattern is always used, however short the
canvas.
The paper's other rivals, dKV-Cache and Fast-dLLM (prefix cache and threshold, as published), are asked when --arms names them, one question at a time:
their seconds are not comparable. On canvases of one block Fast-dLLM's dual cache is its prefix cache.
Questions are asked a few at a time, of every task and in every arm, before the next few: whenever it ends (--minutes, Ctrl-C), all arms have answered the same.
Nothing here is drawn but the questions: `points_by_draw` is the difference from dense of each of three draws of them, the few in turn.
With --keep, what is answered is added to the file and not asked again by the same recipe. A file of other weights, settings, threads or versions is refused.
"""

import argparse
import json
import math
import random
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lines import Lines
from machine import stamp
from torch import Tensor

import mezzotint as mz
from mezzotint import __version__
from mezzotint.attention import Dense, SlidingWindow, SparseD, StreamingLLM
from mezzotint.attention.sparsed import Pattern, SparseRun
from mezzotint.evaluation.predictions import weights_digest
from mezzotint.evaluation.suite import answer, paired, questions, wilson
from mezzotint.evaluation.tasks import retrieval
from mezzotint.evaluation.tasks.example import Example, draw
from mezzotint.generation import encode
from mezzotint.kernels.block_sparse import available, block_sparse
from mezzotint.models.transformer import Attend, Scope, Transformer, dense
from mezzotint.recipes import RECIPES
from mezzotint.types import Moment

IMPL = "reference" if available("native", "cpu") else "native"


@dataclass(frozen=True)
class EveryStep(SparseD):
    """SparseD whose pattern is made from each step's own queries and keys: what reusing it loses."""

    def begin(self, canvas: mz.Canvas) -> Callable[[Moment], Attend]:
        run = SparseRun(self, canvas.start)

        def ask(moment: Moment) -> Attend:
            def attend(layer, q, k, v, scope):
                if layer == 0:
                    run.enter(scope, q.device)
                choice = run.observe(moment, q, k, scope).between(*run.tiled, scope.valid)
                return block_sparse(q, k, v, *run.tiled, choice, self.block_size, valid=scope.valid, impl=self.impl)

            return dense if moment.committed < self.skip else attend

        return ask


def tile(length: int) -> int:
    """Positions per tile: the power of two next below a 32nd of the canvas, from 8 to 128."""
    return min(128, max(8, 1 << int(math.log2(max(1, length / 32)))))


def fixed(length: int, answers: int, select: float) -> dict:
    """The arms of the table on canvases of `length` tokens, `answers` of them generated. At the end of the canvas, where the answer stands and a window has
    one side only, the fixed patterns keep as many tiles as SparseD does; before it up to twice as many."""
    size = tile(length)
    kept = max(3, sum(math.ceil(select * math.ceil(part / size)) for part in (length - answers, answers)))
    return {
        "dense": Dense(),
        "sparsed": SparseD(select=select, block_size=size, impl=IMPL),
        "sparsed, residual": SparseD(select=select, block_size=size, impl=IMPL, residual=True),
        "sparsed, mass 0.95": SparseD(select="mass:0.95", block_size=size, impl=IMPL),
        "window": SlidingWindow(window=2 * (kept - 1) * size, block_size=size, impl=IMPL),
        "streaming": StreamingLLM(window=2 * (kept - 2) * size, block_size=size, first=size, impl=IMPL),
    }


def ablations(length: int, answers: int, select: float) -> dict:
    size = tile(length)
    arm = lambda **given: SparseD(**{"select": select, "block_size": size, "impl": IMPL, **given})  # noqa: E731
    return {
        "dense": Dense(),
        **{f"skip {s}": arm(skip=s) for s in (0.0, 0.1, 0.2, 0.5)},
        **{f"select {s}": arm(select=s) for s in (0.1, 0.2, 0.3, 0.4, 0.5)},
        **{f"tiles {factor} times as long": arm(block_size=min(1024, max(8, int(size * factor)))) for factor in (0.5, 2, 4)},
        "made in every step": EveryStep(select=select, block_size=size, impl=IMPL),
        "made anew at 0.95 of its recall": arm(rebuild="recall:0.95"),
        "one pattern for all heads": arm(share="all"),
        "mass 0.95": arm(select="mass:0.95"),
        **{f"select {s}, residual": arm(select=s, residual=True) for s in (0.1, 0.3)},
    }


@dataclass(frozen=True)
class Arm:
    """recipe: without the attention, whose class need not be a registered one."""

    recipe: mz.Recipe
    attention: Any

    def whole(self) -> mz.Recipe:
        return self.recipe.with_(attention=self.attention)

    def watched(self, shares: list[float]) -> mz.Recipe:
        """The same; what SparseD's patterns keep is added to `shares`."""
        whole = self.whole()
        return whole.with_(attention=Watched(self.attention, shares)) if type(self.attention) is SparseD else whole


@dataclass(frozen=True)
class Watched:
    """SparseD that writes down what its patterns keep."""

    attention: SparseD
    shares: list[float]

    def begin(self, canvas: mz.Canvas) -> Callable[[Moment], Attend]:
        return CountingRun(self.attention, canvas.start, self.shares)


class CountingRun(SparseRun):
    """shares: whenever a layer's pattern is made, what it keeps of each question is added there."""

    def __init__(self, settings: SparseD, start: int, shares: list[float]):
        super().__init__(settings, start)
        self.shares = shares

    def observe(self, moment: Moment, q: Tensor, k: Tensor, scope: Scope) -> Pattern:
        pattern = super().observe(moment, q, k, scope)
        self.shares += tiles_kept(pattern, scope)
        return pattern


def tiles_kept(pattern: Pattern, scope: Scope) -> list[float]:
    """Each question's share of key tiles that a pattern keeps, a mean over heads and tiles of rows. Tiles of nothing but padding do not count."""
    batch, heads = pattern.chosen.shape[:2]
    real = pattern.keys.real(batch, scope.valid).view(batch, len(pattern.keys.tiles), -1).any(-1)
    pairs = real[:, None, :, None] & real[:, None, None, :]  # what makes a pattern computes all it sees: rows and keys have the same tiles
    return ((pattern.chosen & pairs).sum((1, 2, 3)) / (heads * pairs.sum((1, 2, 3)))).tolist()


def rivals(recipe: mz.Recipe) -> dict[str, Arm]:
    """The paper's baselines that cache instead of dropping keys. Fast-dLLM has its threshold in place of the schedule."""
    dkv, fast = RECIPES["dkv"].recipe, RECIPES["prefix"].recipe
    cached = {"dkv-cache": recipe.with_(cache=dkv.cache), "fast-dllm": recipe.with_(steps=None, commit=fast.commit, cache=fast.cache)}
    return {name: Arm(changed, Dense()) for name, changed in cached.items()}


def chosen(arms: dict[str, Arm], others: dict[str, Arm], names: list[str] | None) -> dict[str, Arm]:
    """The arms of these names beside dense; without names all, but none of the others."""
    known = arms | others
    wrong = next((name for name in names or () if name not in known), None)
    if wrong is not None:
        raise SystemExit(f"--arms {wrong!r} is unknown; accepted: {', '.join(known)}")
    return arms if names is None else {name: known[name] for name in dict.fromkeys(["dense", *names])}


def dense_forwards(arm: Arm) -> float | None:
    """How many forwards of a run are dense: the dense phase and the one that makes the pattern; None where the pattern is made anew, at steps unknown here."""
    attention = arm.attention
    if not isinstance(attention, SparseD):
        return math.inf if isinstance(attention, Dense) else 0
    if attention.rebuild != "never":
        return None
    first = math.ceil(attention.skip * (arm.recipe.steps or arm.recipe.gen_length))
    return first if isinstance(attention, EveryStep) else first + 1


def sparse_share(runs: Sequence[tuple[int, float | None]]) -> float | None:
    """The share of sparse forwards, from every run's forwards and how many of them are dense; None where that is not known."""
    sparse = [max(0, forwards - dense) for forwards, dense in runs if dense is not None]
    return sum(sparse) / sum(forwards for forwards, _ in runs) if len(sparse) == len(runs) else None


def conditions(model: Transformer, **settings: Any) -> dict[str, Any]:
    """What kept answers must have in common."""
    versions = {"torch": torch.__version__, "mezzotint": __version__}
    return {"weights": weights_digest(model), **settings, "threads": torch.get_num_threads(), **versions}


def refuse_others(lines: Sequence[dict], about: dict, path: Path | None) -> None:
    """Raises SystemExit if a file holds answers of other conditions, naming what differs."""
    for made in (line.get("about", {}) for line in lines):
        name = next((name for name in about if made.get(name) != about[name]), None)
        if name is not None:
            raise SystemExit(f"keep={str(path)!r} holds answers made with {name}={made.get(name)}, this is {about[name]}; give another file")


DRAWS = 3

IDENTITY = ("task", "arm", "recipe", "attention", "from", "to")
"""What a kept line is known by, besides what it is about."""


def known(lines: Sequence[dict], about: dict) -> dict[tuple, dict]:
    """The kept answers to these conditions; lines that do not name their recipe are nobody's."""
    return {tuple(line[name] for name in IDENTITY): line for line in lines if line["about"] == about and set(IDENTITY) <= set(line)}


def long_questions(words: int, count: int) -> list[Example]:
    """Held-out retrieval questions with about `words` words of hay."""
    stream = draw(lambda rng, hard: retrieval.make(rng, hard, words=words), random.Random(words), held_out=True)
    return [next(stream) for _ in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="checkpoint folder or hub id (default: the bundled model)")
    parser.add_argument("--tasks", nargs="+", default=None, help="default: math lists retrieval code tools, for the ablations math lists")
    parser.add_argument("--count", type=int, default=None, help="questions per task (default 160, for the ablations 100)")
    parser.add_argument("--select", type=float, default=0.3, help="share of the tiles kept by SparseD and by the fixed patterns")
    parser.add_argument(
        "--words", type=int, nargs="*", default=None, help="words of hay for long retrieval (default 450 900 1800: about 1k, 2k, 4k; ablations 450)"
    )
    parser.add_argument("--long-count", type=int, default=100, help="questions per long retrieval length")
    parser.add_argument("--together", type=int, default=20, help="questions of a task asked before the next task's turn")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no more questions after this time")
    parser.add_argument("--keep", type=Path, help="file of answered questions, read and added to")
    parser.add_argument("--ablations", action="store_true")
    parser.add_argument("--arms", nargs="+", help="only these beside dense (default: all but dkv-cache and fast-dllm)")
    parser.add_argument("--quick", action="store_true", help="20 questions per task, no long retrieval")
    parser.add_argument("--json", action="store_true", help="print nothing but the JSON object")
    args = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    tasks = args.tasks or (["math", "lists"] if args.ablations else ["math", "lists", "retrieval", "code", "tools"])
    words = args.words if args.words is not None else [450] if args.ablations else [450, 900, 1800]
    count = args.count or (100 if args.ablations else 160)
    if args.quick:
        count, words = 20, []
    model, tokenizer = mz.load(args.model)
    asked = {task: questions(task, count) for task in tasks} | {f"retrieval {w} words": long_questions(w, args.long_count) for w in words}
    arms: dict[str, dict[str, Arm]] = {}
    for task, examples in asked.items():
        answers = max(len(tokenizer.encode(e.answer, add_special_tokens=False)) for e in examples)
        gen_length = 8 * (answers // 8 + 1)
        recipe = mz.Recipe(gen_length=gen_length, block_length=None, steps=gen_length // (2 if task in tasks else 4))
        length = gen_length + max(len(encode(tokenizer, e.prompt or e.document)) for e in examples)
        patterns = (ablations if args.ablations else fixed)(length, gen_length, args.select)
        arms[task] = chosen({name: Arm(recipe, attention) for name, attention in patterns.items()}, rivals(recipe), args.arms)

    about = conditions(model, select=args.select, together=args.together)
    kept = Lines(args.keep)
    refuse_others(kept.found, about, args.keep)
    answered = known(kept.found, about)
    found: dict[tuple[str, str], list[dict]] = {}
    deadline = time.monotonic() + 60 * args.minutes
    for begin in range(0, max(map(len, asked.values())), args.together):
        for task, examples in asked.items():
            some = examples[begin : begin + args.together]
            if not some or time.monotonic() > deadline:
                continue
            for name, arm in arms[task].items():
                key = (task, name, str(arm.recipe), repr(arm.attention), begin, begin + len(some))
                if key not in answered:
                    shares: list[float] = []
                    started = time.monotonic()
                    batch = args.together if task in tasks and isinstance(arm.recipe.cache, mz.NoCache) else 1
                    outcomes = answer(model, tokenizer, some, arm.watched(shares), batch=batch)
                    line = dict(zip(IDENTITY, key, strict=True)) | {"about": about, "seconds": time.monotonic() - started}
                    line |= {"right": [o.right for o in outcomes], "forwards": [o.forwards for o in outcomes], "tiles_kept": shares}
                    answered[key] = line
                    kept.add(line)
                found.setdefault((task, name), []).append(answered[key])
                if not args.json:
                    print(task, name, sum(answered[key]["right"]), "of", len(some), flush=True)

    def verdicts(arm: str, of: list[str], every: slice = slice(None)) -> list[bool]:
        return [bool(right) for task in of for line in found.get((task, arm), [])[every] for right in line["right"]]

    def summary(arm: str, of: list[str]) -> dict:
        mine = verdicts(arm, of)
        runs = [(n, dense_forwards(arms[task][arm])) for task in of for line in found[task, arm] for n in line["forwards"]]
        shares = [share for task in of for line in found[task, arm] for share in line["tiles_kept"]]
        return {
            "exact_match": sum(mine) / len(mine),
            "count": len(mine),
            "ci": wilson(sum(mine), len(mine)),
            "against_dense": paired(mine, verdicts("dense", of)),
            "points_by_draw": [
                100 * paired(verdicts(arm, of, every), verdicts("dense", of, every))["difference"]
                for every in (slice(draw, None, DRAWS) for draw in range(DRAWS))
                if verdicts(arm, of, every)
            ],
            "forwards": sum(n for n, _ in runs) / len(runs),
            "sparse_share": sparse_share(runs),
            "tiles_kept": statistics.mean(shares) if shares else None,
            "seconds": sum(line["seconds"] for task in of for line in found[task, arm]),
        }

    names = list(dict.fromkeys(arm for _, arm in found))
    whole = {arm: summary(arm, [task for task in asked if (task, arm) in found]) for arm in names}
    by_task = {
        task: {arm: summary(arm, [task]) | {name: found[task, arm][0][name] for name in ("recipe", "attention")} for arm in names}
        for task in asked
        if (task, "dense") in found
    }
    print(json.dumps({"all": whole, "tasks": by_task, **about, "model": args.model or "bundled", **stamp()}))


if __name__ == "__main__":
    main()
