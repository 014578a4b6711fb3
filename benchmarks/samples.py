"""Answers kept on disk one by one, so that a benchmark that was cut off goes on where it stopped; and the clock that cuts it off."""

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lines import Lines

import mezzotint as mz
from mezzotint import __version__
from mezzotint.evaluation.item import gapped
from mezzotint.evaluation.predictions import weights_digest
from mezzotint.evaluation.suite import paired, questions
from mezzotint.evaluation.tasks import TASKS
from mezzotint.evaluation.tasks.example import Example
from mezzotint.models.transformer import Transformer


class Samples:
    """A JSON Lines file: the conditions, then one object per sample, flushed as it comes. None keeps samples in memory only.

    Samples of other conditions (weights, settings, threads, versions) are never mixed in: such a file is refused with SystemExit, naming what differs.
    """

    def __init__(self, path: Path | None, model: Transformer, **settings: Any):
        versions = {"torch": torch.__version__, "mezzotint": __version__}
        conditions = {"weights": weights_digest(model), "threads": torch.get_num_threads(), **versions, **settings}
        conditions = json.loads(json.dumps(conditions))
        self.lines = Lines(path)
        kept = self.lines.found
        if kept:
            different = [name for name in conditions if kept[0].get(name) != conditions[name]]
            if different:
                name = different[0]
                raise SystemExit(f"samples={str(path)!r} were taken with {name}={kept[0].get(name)}, this is {conditions[name]}; give another file")
        else:
            self.lines.add(conditions)
        self.known: dict[str, dict[str, Any]] = {sample.pop("key"): sample for sample in kept[1:]}

    def get(self, *key: Any) -> dict[str, Any] | None:
        """The sample of that key, if it was taken."""
        return self.known.get(json.dumps(key))

    def add(self, *key: Any, result: mz.Generation, **more: Any) -> dict[str, Any]:
        """Keep one answer: its text and what it cost, and whatever else is given."""
        cost = {name: getattr(result, name) for name in ("text", "seconds", "forwards", "positions_computed")}
        sample = {**cost, "tokens": len(result.tokens), **more}
        self.lines.add({"key": json.dumps(key), **sample})
        self.known[json.dumps(key)] = sample
        return sample


class Clock:
    """Says when the minutes are over; None: never."""

    def __init__(self, minutes: float | None):
        self.end = None if minutes is None else time.monotonic() + 60 * minutes

    @property
    def over(self) -> bool:
        return self.end is not None and time.monotonic() >= self.end


def ask(model: Transformer, tokenizer: Any, example: Example, recipe: mz.Recipe) -> mz.Generation:
    """One question alone; a gap gets as many masks as its reference has tokens, and its text is what fills it."""
    if not example.document:
        return mz.generate(model, tokenizer, example.prompt, recipe)
    text, masks = gapped(tokenizer, example.document, example.gap)
    filled = mz.infill(model, tokenizer, text, recipe.with_(steps=None, max_tokens=None))
    return dataclasses.replace(filled, text=filled.fills[0], tokens=filled.tokens[:masks])


def take_turns(
    model: Transformer,
    tokenizer: Any,
    asked: Sequence[tuple[str, Example]],
    stages: Mapping[str, mz.Recipe],
    samples: Samples,
    clock: Clock,
    report: Callable[[str], None],
) -> dict[str, list[dict[str, Any]]]:
    """Every recipe answers a question before the next is put, beginning with another one each time; what was answered before is not asked again.

    Returns the samples by recipe, in the order of the questions; every recipe warms up unseen.
    """
    names, begun, done = list(stages), time.monotonic(), 0
    for recipe in stages.values():
        ask(model, tokenizer, asked[0][1], recipe)
    for number, (task, example) in enumerate(asked):
        if number and clock.over:
            break
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            if samples.get(number, name) is None:
                result = ask(model, tokenizer, example, stages[name])
                samples.add(number, name, result=result, task=task, right=TASKS[task].score(example, result.text))
        done += 1
        if done % 10 == 0:
            report(f"{done} of {len(asked)} questions, {time.monotonic() - begun:.0f} s")
    return {name: [samples.known[json.dumps((number, name))] for number in range(done)] for name in names}


def put_to_all(
    args: argparse.Namespace, model: Transformer, tokenizer: Any, stages: Mapping[str, mz.Recipe], count: int, settings: dict[str, Any]
) -> dict[str, list[dict[str, Any]]]:
    """`count` questions of every task of --tasks in turn to every recipe: what --samples, --minutes and --json ask of `take_turns`."""
    groups = [questions(task, count) for task in args.tasks]
    asked = [(task, group[i]) for i in range(count) for task, group in zip(args.tasks, groups, strict=True)]
    samples = Samples(args.samples, model, **settings, recipes={name: str(recipe) for name, recipe in stages.items()})

    def report(text: str) -> None:
        if not args.json:
            print(text, flush=True)

    return take_turns(model, tokenizer, asked, stages, samples, Clock(args.minutes), report)


def figures(name: str, recipe: mz.Recipe, mine: list[dict[str, Any]], first: list[dict[str, Any]]) -> dict[str, Any]:
    """Means per question, and what the recipe changes of the first one's verdicts and answers on the same questions."""
    verdicts, theirs = ([s["right"] for s in group] for group in (mine, first))
    seconds = statistics.mean(s["seconds"] for s in mine)
    return {
        "name": name,
        "exact_match": statistics.mean(verdicts),
        "against_first": paired(verdicts, theirs),
        "changed_answers": sum(a["text"] != b["text"] for a, b in zip(mine, first, strict=True)),
        "seconds": seconds,
        "speedup": statistics.mean(s["seconds"] for s in first) / seconds,
        "forwards": statistics.mean(s["forwards"] for s in mine),
        "positions_computed": statistics.mean(s["positions_computed"] for s in mine),
        "recipe": str(recipe),
    }


def show(row: dict[str, Any]) -> None:
    gap = row["against_first"]
    print(
        f"{row['name']:44} {row['exact_match']:.3f} ({100 * gap['difference']:+.1f} [{100 * gap['ci'][0]:+.1f}, {100 * gap['ci'][1]:+.1f}])  "
        f"{row['seconds']:7.3f} s  {row['forwards']:6.1f} forwards  {row['positions_computed']:9,.0f} positions"
    )
