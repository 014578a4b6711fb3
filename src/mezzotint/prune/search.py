"""Plans tried until the speed is reached within the quality that may be lost, or the bound forbids more."""

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from mezzotint.evaluation.comparison import Drop
from mezzotint.models.transformer import Transformer
from mezzotint.prune.allocation import Plan, cost_of
from mezzotint.prune.groundwork import Tell
from mezzotint.prune.journal import Journal
from mezzotint.prune.matrices import Stream, layers_of, twin
from mezzotint.prune.settings import Goal, Structured
from mezzotint.prune.structure import Kept, settle, size_of, without_layers
from mezzotint.prune.walking import Walk, Walker

if TYPE_CHECKING:
    from mezzotint.prune.pruner import SinkAwarePruner

MOST_AHEAD = 1.3
"""A plan aims at this many times the speed of the last one at the most: a measurement may have been disturbed."""


class Search:
    """One call of `prune`."""

    def __init__(self, pruner: "SinkAwarePruner", settings: Structured, goal: Goal, journal: Journal, tell: Tell):
        self.pruner, self.settings, self.goal, self.journal = pruner, settings, goal, journal
        self.original = pruner.model
        self.length, self.predicted = settings.canvas(pruner.model.config)
        self.found: tuple[float, Drop, Walk] | None = None
        self.history: list[dict[str, Any]] = []
        self.dense, self.dropped = self.thin()
        self.ground = pruner.groundwork(settings, self.dense, self.dropped, journal, tell)
        self.walker = Walker(self.dense, pruner.exposures(settings), settings, self.ground.instability, self.ground.protect, self.glance, journal, tell)

    def thin(self) -> tuple[Transformer, list[int]]:
        """Without the layers that may go, least influence first, while the speed is not reached and they cost at most half of the quality that may be lost."""
        model, gone = self.pruner.model, []
        if not self.settings.drop_layers:
            return model, gone
        known = self.journal.info("dropped")
        if known:
            return (without_layers(model, known["dropped"]) if known["dropped"] else model), known["dropped"]
        influence = block_influence(self.pruner)
        for index in influence.argsort().tolist():
            if index in self.settings.protect or len(gone) >= len(influence) // 4:
                continue
            tried = without_layers(self.pruner.model, [*gone, index])
            if self.drop(tried).value <= self.goal.quality_drop_threshold / 2:
                gone.append(index)
                model = tried
                if self.goal.reached(self.measured(model), self.settings.cost):
                    break
        self.journal.put("dropped", {}, {"dropped": sorted(gone)})
        return model, sorted(gone)

    def drop(self, model: Transformer) -> Drop:
        return self.pruner.validation.drop(model, self.goal.measure)

    def glance(self, model: Transformer) -> float:
        """The same after a single layer, from one masked version of each sample."""
        return self.pruner.validation.brief.drop(model, self.goal.measure).value

    def best(self) -> tuple[Walk, dict[str, Any]]:
        """Plans until the speed is reached within the bound; else the fastest that keeps within it. Its model, and the report."""
        goal = self.goal
        exact = self.settings.cost == "flops"
        aim = goal.target_speedup if exact else goal.target_speedup * 1.02
        low, high = 1.0, float("inf")
        for number in range(2 * self.settings.passes):
            plan, aim = self.recall(f"pass-{number}-plan", aim)
            predicted = self.ground.price.speedup(plan, self.ground.choices)
            drop, reached = self.attempt(f"pass-{number}", plan, aim)
            if drop <= goal.quality_drop_threshold:
                low = aim
                if (goal.reached(reached, self.settings.cost) and reached <= 1.02 * goal.target_speedup) or (exact and high == float("inf")):
                    break
                if high == float("inf"):
                    if number + 1 >= self.settings.passes or min(predicted, reached) <= 1:
                        break
                    aim = min(MOST_AHEAD * aim, 1 + (goal.target_speedup - 1) * (predicted - 1) / (reached - 1))
                    continue
            elif high == float("inf"):
                self.attempt(f"pass-{number}-careful", plan, aim, self.allowances(plan))
                high = aim
            else:
                high = aim
            aim = low + (high - low) * (0.5 if low > 1 else min(0.9, max(0.25, math.sqrt(goal.quality_drop_threshold / drop))))
        if self.found is None:
            walk = Walk(twin(self.dense), [Kept.everything(s) for s in self.ground.shapes], [], [])
            settle(walk.model)
            self.found = self.measured(walk.model) if self.dropped else 1.0, self.drop(walk.model), walk
        return self.found[2], self.report(*self.found)

    def attempt(self, name: str, plan: Plan, aim: float, allowed: list[float] | None = None) -> tuple[float, float]:
        """A plan carried out, and kept if it is the best so far: quality lost, and speed. allowed: see `Walker.walk`."""
        walk = self.walker.walk(plan, name, allowed)
        lost, reached = self.drop(walk.model), self.measured(walk.model)
        self.history.append({"aim": aim, "speedup": reached, "quality_drop": lost.value, "put_back": walk.put_back})
        if lost.value <= self.goal.quality_drop_threshold and (self.found is None or self.better(reached, self.found[0])):
            self.found = reached, lost, walk
        return lost.value, reached

    def allowances(self, plan: Plan) -> list[float]:
        """The part of the quality that may be lost after each layer: what layers that are gone cost, and of the rest as large a part as of the time saved."""
        totals = zip(plan.units, self.ground.choices.unit_totals, plan.neurons, self.ground.choices.neuron_totals, strict=True)
        saved = [self.ground.price.heads[i] * u / ut + self.ground.price.neurons[i] * n / nt for i, (u, ut, n, nt) in enumerate(totals)]
        spent = self.glance(self.dense) if self.dropped else 0.0
        return [spent + (self.goal.quality_drop_threshold - spent) * sum(saved[: i + 1]) / max(sum(saved), 1e-12) for i in range(len(saved))]

    def measured(self, model: Transformer) -> float:
        """Times as fast as the original model."""
        return 1 / cost_of(model, self.original, self.length, self.predicted, self.settings.cost, repeats=15)

    def better(self, new: float, old: float) -> bool:
        """Nearer to the target from above, or faster while below it."""
        target = self.goal.target_speedup
        return new > old if old < target else target <= new < old

    def recall(self, name: str, aim: float) -> tuple[Plan, float]:
        """A plan from the journal with the speed it was made for, or a new one that is put there."""
        found = self.journal.info(name)
        if found:
            return Plan(tuple(found["units"]), tuple(found["neurons"])), found["aim"]
        plan = self.ground.plan_for(aim)
        self.journal.put(name, {}, {"units": plan.units, "neurons": plan.neurons, "aim": aim})
        return plan, aim

    def report(self, reached: float, lost: Drop, walk: Walk) -> dict[str, Any]:
        before, after = size_of(self.original), size_of(walk.model)
        goal = self.goal
        return {
            "target_speedup": goal.target_speedup,
            "speedup": reached,
            "cost": self.settings.cost,
            "length": self.length,
            "measure": goal.measure,
            "quality_drop_threshold": goal.quality_drop_threshold,
            "quality_drop": lost.value,
            "quality_drop_standard_error": lost.error,
            "reached": goal.reached(reached, self.settings.cost) and lost.value <= goal.quality_drop_threshold,
            "parameter_ratio": after["parameters"] / before["parameters"],
            "memory_ratio": after["bytes"] / before["bytes"],
            "layers_dropped": self.dropped,
            "kept_heads": [len(kept.heads) for kept in walk.kept],
            "kept_neurons": [len(kept.neurons) for kept in walk.kept],
            "drop_after_layer": walk.drops,
            "history": self.history,
            "settings": dataclasses.asdict(self.settings),
            "attention": self.pruner.analyze_attention_dynamics().summary(),
        }


@torch.no_grad()
def block_influence(pruner: "SinkAwarePruner") -> Float[Tensor, " layers"]:
    """1 - cosine of what enters and leaves each layer, averaged (ShortGPT, arXiv 2403.03853)."""
    stream = Stream(pruner.model, [e.tokens for e in pruner.exposures(pruner.settings)])
    found = []
    for _ in layers_of(pruner.model):
        before = list(stream.x)
        stream.advance()
        similar = [torch.nn.functional.cosine_similarity(a.float(), b.float(), dim=-1).mean() for a, b in zip(before, stream.x, strict=True)]
        found.append(1 - torch.stack(similar).mean())
    return torch.stack(found).cpu()
