"""An evaluation from end to end: items, what the model says, figures, and the comparison with another recipe on the same items."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mezzotint.evaluation.answering import Speaker, check_fits, collect
from mezzotint.evaluation.benchmarks.builtin import HARD
from mezzotint.evaluation.item import Benchmark, Item, Settings
from mezzotint.evaluation.predictions import Conditions, Prediction, Store, conditions, read
from mezzotint.evaluation.sandbox import filtered
from mezzotint.evaluation.scoring import HARNESS, Scored, apart, benchmark_of, compare, figures, score, summary
from mezzotint.evaluation.tasks import TASKS
from mezzotint.models.transformer import Transformer
from mezzotint.recipe import Recipe

Watch = Callable[[str, int], Callable[[int], None]]
"""watch(what, total) -> report(done), for progress bars."""


def unwatched(what: str, total: int) -> Callable[[int], None]:
    return lambda done: None


@dataclass(frozen=True)
class Evaluation:
    """A model under a recipe, what is asked of it, and where its predictions are kept.

    name: how the model is called in reports; against: a recipe to be compared with on the same items; hard: harder questions per built-in task.
    """

    model: Transformer
    tokenizer: Any
    recipe: Recipe
    settings: Settings
    store: Store
    name: str = "bundled"
    against: Recipe | None = None
    hard: int = 0
    batch: int = 16

    def items(self, task: str) -> list[Item]:
        """What a task asks. Raises ValueError for what cannot be asked, such as what does not fit the model's context."""
        benchmark = benchmark_of(task, self.hard)
        refuse_unconfined(task, benchmark)
        items = benchmark.items(self.settings, self.tokenizer, self.recipe, self.model.config)
        if not items:
            raise ValueError(f"task={task!r} has no items here; look at --data and --split")
        for item in items:
            check_fits(self.model, self.tokenizer, item, f"{task} {item.id!r}")
        return items

    def run(self, task: str, watch: Watch = unwatched, items: Sequence[Item] | None = None) -> tuple[dict[str, Any], list[Prediction], Scored]:
        """Figures of one task and what they rest on; where there is a recipe to compare with, also `paired`, and that recipe's figures as `compared`. items:
        the task's, where they are made already."""
        items = self.items(task) if items is None else items
        said, scored = self.under(self.recipe, task, items, watch, "")
        found = summary(task, said, scored)
        against = self.against
        if against is not None and benchmark_of(task).recipe != "nothing":
            other, theirs = self.under(against, task, items, watch, ", compared")
            beside(task, found, (said, scored), (other, theirs))
        return found, said, scored

    def under(self, recipe: Recipe, task: str, items: Sequence[Item], watch: Watch, note: str) -> tuple[list[Prediction], Scored]:
        speaker = Speaker(self.model, self.tokenizer, recipe, self.settings, self.batch)
        taken = conditions(task, self.name, self.model, recipe, self.settings, self.batch, self.tokenizer)
        said = collect(speaker, items, self.store, taken, watch(f"{task}{note}", len(items)))
        return said, score(task, said)


def refuse_unconfined(task: str, benchmark: Benchmark) -> None:
    """Benchmarks of foreign programs run only where the kernel can hold the sandbox."""
    if benchmark.runs_code and not filtered():
        raise ValueError(
            f"task={task!r} runs programs that a model wrote, and this machine's kernel cannot filter system calls; run it on Linux (x86-64 or arm64)"
        )


def beside(task: str, found: dict[str, Any], mine: tuple[Sequence[Prediction], Scored], theirs: tuple[Sequence[Prediction], Scored]) -> None:
    """Add the other run's figures on the common items (`compared`) and the paired comparison to a summary, and to that of every part; else `unpaired`, the
    reason."""
    for part, place in places(task, found):
        (said, scored), (other, others) = (of_part(run, part) for run in (mine, theirs))
        if not said:
            continue
        try:
            place["paired"] = compare(said, other, scored, others, benchmark_of(task).compared)
            common = {p.id for p in said}
            shared = [(p, s) for p, s in zip(other, others, strict=True) if p.id in common]
            place["compared"] = figures(task, [p for p, _ in shared], [s for _, s in shared])
        except ValueError as error:
            place["unpaired"] = str(error)


def places(task: str, found: dict[str, Any]) -> Iterator[tuple[str | None, dict[str, Any]]]:
    """Where a summary holds figures, each with the part that they are of (None: all items)."""
    yield ("" if task in TASKS else None), found
    yield from found.get("parts", {}).items()
    if HARD in found:
        yield HARD, found[HARD]


def of_part(run: tuple[Sequence[Prediction], Scored], part: str | None) -> tuple[list[Prediction], Scored]:
    """The predictions of one part with their scores, None for all."""
    chosen = [(p, s) for p, s in zip(*run, strict=True) if part is None or p.part == part]
    return [p for p, _ in chosen], [s for _, s in chosen]


def rescore(paths: Sequence[Path], watch: Watch = unwatched) -> list[tuple[Conditions, dict[str, Any]]]:
    """Figures of every run in predictions files, without a model, in the order in which a task's runs stand there.

    Runs of one task are compared in pairs: the first of two with the second, as the run that wrote them was; of more than two, each further one with the
    first. `paired` then says `against` which run.
    Lines of lm-evaluation-harness are left out with a warning: only its own tasks can score them.
    """
    lines = [line for path in paths for line in read(path)]
    runs = apart([(taken, said) for taken, said in lines if not taken.task.startswith(HARNESS)])
    names, foreign = ", ".join(map(str, paths)), sum(taken.task.startswith(HARNESS) for taken, _ in lines)
    if not runs:
        raise ValueError(f"{names}: no predictions in it" + (" but those of lm-evaluation-harness, which scores them itself" if foreign else ""))
    if foreign:
        warnings.warn(f"{names}: the {foreign} predictions of lm-evaluation-harness are left out; it scores them itself", stacklevel=2)
    scores: dict[str, Scored] = {}
    found: dict[str, dict[str, Any]] = {}
    for run, (taken, said) in runs.items():
        refuse_unconfined(taken.task, benchmark_of(taken.task))
        scores[run] = score(taken.task, said, watch(taken.task, len(said)))
        found[run] = summary(taken.task, said, scores[run])
    for task in {taken.task for taken, _ in runs.values()}:
        first, *further = [run for run, (taken, _) in runs.items() if taken.task == task]
        pairs = [(first, further[0])] if len(further) == 1 else [(run, first) for run in further]
        for run, other in pairs:
            beside(task, found[run], (runs[run][1], scores[run]), (runs[other][1], scores[other]))
            for _, place in places(task, found[run]):
                if "paired" in place:
                    place["paired"]["against"] = other
    return [(taken, found[run]) for run, (taken, _) in sorted(runs.items(), key=lambda item: item[1][0].task)]
