"""Heads and neurons removed layer by layer: each layer is chosen from, cut and refitted behind the pruned ones before it."""

import copy
import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mezzotint.models.transformer import Layer, Transformer
from mezzotint.prune.allocation import Plan
from mezzotint.prune.calibration import Exposure
from mezzotint.prune.importance import Ranking, removal_order, unit_losses
from mezzotint.prune.journal import Journal
from mezzotint.prune.matrices import Stream, inputs, layers_of, mlp_of, replace, twin
from mezzotint.prune.refit import Moments, refit
from mezzotint.prune.settings import Structured
from mezzotint.prune.structure import Kept, Repair, channels, cut, head_units, keep, settle, shape_of


@dataclass(frozen=True)
class Targets:
    """The dense model's residual stream, one tensor per calibration batch: between a layer's attention and its MLP, and after the layer."""

    between: list[Tensor]
    after: list[Tensor]

    @staticmethod
    def of(dense: Stream) -> "Targets":
        """Of the stream's current layer, through which it goes."""
        between: list[Tensor] = []

        def seen(site: str, x: Tensor) -> None:
            if site == "mlp_norm":
                between.append(x)

        with inputs(dense.layers[dense.index], seen):
            dense.advance()
        return Targets(between, list(dense.x))


def measure(stream: Stream, layer: Layer, exposures: Sequence[Exposure], targets: Targets | None = None) -> dict[str, Moments]:
    """Moments of the layer's output projections; with targets, also of what they should give out."""
    moments = {"attention.out": Moments(), "mlp.down": Moments()}
    number, between = 0, torch.empty(0)

    def seen(site: str, x: Tensor) -> None:
        nonlocal between
        weight = exposures[number].weight
        if site == "mlp_norm":
            between = x
        elif site in moments and targets is None:
            moments[site].add(x, weight)
        elif site == "attention.out" and targets is not None:
            moments[site].add(x, weight, targets.between[number] - stream.x[number])
        elif site == "mlp.down" and targets is not None:
            moments[site].add(x, weight, targets.after[number] - between)

    with inputs(layer, seen):
        for number in range(len(stream.x)):
            stream.run(number)
    return moments


def head_order(layer: Layer, moments: Moments, instability: Float[Tensor, " heads"], settings: Structured, count: int) -> list[tuple[int, ...]]:
    """The `count` units of query heads that go, first to go first; instability relative to the whole model's heads."""
    shape, weight, width = shape_of(layer), layer.attention.out.weight, layer.attention.head_dim
    alone = unit_losses(weight, moments, [channels([head], width) for head in range(shape.heads)], settings.importance)
    score = -Ranking(settings.ranking, settings.weight, instability).reluctance(alone)
    units = head_units(shape, score, settings.grouping)
    together = Ranking(settings.ranking, settings.weight, torch.stack([instability[list(unit)].mean() for unit in units]))
    order = removal_order(weight, moments, [channels(unit, width) for unit in units], count, settings.importance, together)
    return [units[number] for number in order]


def neuron_order(layer: Layer, moments: Moments, settings: Structured, count: int) -> list[int]:
    """The `count` neurons that go, first to go first."""
    down = mlp_of(layer).down
    return removal_order(down.weight, moments, list(torch.arange(down.in_features)[:, None]), count, settings.importance, Ranking("importance", 1.0))


@dataclass
class Walk:
    """A model pruned layer by layer: what stayed, the quality after each layer, and how often units were put back."""

    model: Transformer
    kept: list[Kept]
    drops: list[float]
    put_back: list[int]


class Walker:
    """Carries out plans on one dense model.

    instability: of each layer's heads, relative to the whole model's. protect: layers that stay as they are. drop(model): the quality it has lost.
    journal: keeps finished layers.
    """

    def __init__(
        self,
        dense: Transformer,
        exposures: Sequence[Exposure],
        settings: Structured,
        instability: Sequence[Tensor],
        protect: Sequence[int],
        drop: Callable[[Transformer], float],
        journal: Journal,
        tell: Callable[[str, int, int], None],
    ):
        self.dense, self.exposures, self.settings, self.instability, self.protect = dense, exposures, settings, instability, protect
        self.drop, self.journal, self.tell = drop, journal, tell
        self.layers = layers_of(dense)
        self.shapes = [shape_of(layer) for layer in self.layers]

    @torch.no_grad()
    def walk(self, plan: Plan, name: str, allowed: Sequence[float] | None = None) -> Walk:
        """Prune from the first layer to the last. allowed[l]: how much quality may be lost once layer l is done; units are put back until it holds."""
        model = twin(self.dense)
        stream, dense = (Stream(m, [e.tokens for e in self.exposures]) for m in (model, self.dense))
        done = Walk(model, [], [], [])
        for index, (units, neurons) in enumerate(zip(plan.units, plan.neurons, strict=True)):
            targets = Targets.of(dense)
            stored = self.journal.get(f"{name}-layer-{index}")
            if stored is not None:
                self.restore(model, index, stored, done, self.journal.info(f"{name}-layer-{index}"))
            else:
                self.layer(stream, done, targets, units, neurons, None if allowed is None else allowed[index])
                info = {"kept": dataclasses.asdict(done.kept[-1]), "drop": done.drops[-1], "put_back": done.put_back[-1]}
                self.journal.put(f"{name}-layer-{index}", dict(layers_of(model)[index].named_parameters()), info)
            stream.layers = layers_of(model)
            stream.advance()
            self.tell(f"{name}: layers", index + 1, len(self.layers))
        settle(model)
        return done

    def layer(self, stream: Stream, done: Walk, targets: Targets, units: int, neurons: int, allowed: float | None) -> None:
        """One layer: all of its planned units, half, a quarter, or none of them."""
        model, index = done.model, len(done.kept)
        refits = self.settings.repair == "refit" and index not in self.protect
        touched = refits and any(kept != Kept.everything(shape) for kept, shape in zip(done.kept, self.shapes, strict=False))
        for attempt in range(4):
            share = 0.5**attempt if attempt < 3 else 0.0
            some, fewer = int(units * share), neurons if attempt == 0 else self.part(index, neurons * share)
            model.layers[index] = fresh(self.layers[index])
            stream.layers = layers_of(model)
            kept = Kept.everything(self.shapes[index])
            if some or fewer or touched:
                kept = self.cut(stream, targets, index, some, fewer)
            drop = self.drop(model)
            if allowed is None or drop <= allowed or share == 0:
                break
        done.kept.append(kept)
        done.drops.append(drop)
        done.put_back.append(attempt)

    def part(self, index: int, neurons: float) -> int:
        """About so many neurons, not more, of which those that stay are a multiple."""
        size = self.shapes[index].mlp_size
        multiple = self.settings.rounding(size)
        return max(0, size - math.ceil((size - neurons) / multiple) * multiple)

    def cut(self, stream: Stream, targets: Targets, index: int, units: int, neurons: int) -> Kept:
        """Heads first; the neurons are then chosen and refitted on what the thinner attention gives them."""
        model, repair = stream.model, self.settings.repair
        layer = layers_of(model)[index]
        moments = measure(stream, layer, self.exposures, targets)["attention.out"]
        gone = head_order(layer, moments, self.instability[index], self.settings, units)
        thinner = keep(self.shapes[index], [head for unit in gone for head in unit], ())
        mine = channels(thinner.heads, model.config.head_dim).to(model.device)
        out = refit(layer.attention.out.weight, layer.attention.out.bias, moments, mine, repair)
        down, down_bias = mlp_of(layer).down.weight, mlp_of(layer).down.bias
        cut(model, index, thinner, Repair(out.weight, out.bias, down, torch.zeros_like(down[:, 0]) if down_bias is None else down_bias))
        layer = layers_of(model)[index]
        stream.layers = layers_of(model)
        moments = measure(stream, layer, self.exposures, targets)["mlp.down"]
        left = torch.tensor(sorted(set(range(self.shapes[index].mlp_size)) - set(neuron_order(layer, moments, self.settings, neurons))), device=model.device)
        refitted = refit(mlp_of(layer).down.weight, mlp_of(layer).down.bias, moments, left, repair)
        second = Kept(tuple(range(len(thinner.heads))), tuple(range(len(thinner.kv_heads))), tuple(left.tolist()))
        cut(model, index, second, Repair(layer.attention.out.weight, layer.attention.out.bias, refitted.weight, refitted.bias))  # type: ignore[arg-type]
        stream.layers = layers_of(model)
        return second.of(thinner)

    def restore(self, model: Transformer, index: int, stored: dict[str, Tensor], done: Walk, info: dict[str, Any]) -> None:
        """A layer from the journal."""
        kept = Kept(*(tuple(info["kept"][name]) for name in ("heads", "kv_heads", "neurons")))
        model.layers[index] = fresh(self.layers[index])
        cut(model, index, kept)
        layer = layers_of(model)[index]
        for name, value in stored.items():
            owner, _, leaf = name.rpartition(".")
            replace(layer.get_submodule(owner), leaf, value.to(model.device))
        done.kept.append(kept)
        done.drops.append(info["drop"])
        done.put_back.append(info["put_back"])


def fresh(layer: Layer) -> Layer:
    """The layer as a new module that shares its tensors."""
    return copy.deepcopy(layer, {id(p): p for p in layer.parameters()})
