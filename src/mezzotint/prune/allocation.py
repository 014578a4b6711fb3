"""How many heads and neurons go from which layer: where the loss measured for it is least for the time it saves (as in ZipLM, arXiv 2302.04089)."""

from collections.abc import Sequence
from dataclasses import dataclass

from mezzotint.models.transformer import Transformer
from mezzotint.prune import speed
from mezzotint.prune.matrices import layers_of, twin
from mezzotint.prune.structure import cut, flops, keep, layer_flops, settle, shape_of

ALLOCATIONS = ("measured", "uniform")
LEVELS = (0.125, 0.25, 0.5, 0.75)
"""Shares of a layer's heads or neurons whose removal is tried."""


@dataclass(frozen=True)
class Plan:
    """units[l] head units and neurons[l] neurons go from layer l."""

    units: tuple[int, ...]
    neurons: tuple[int, ...]


@dataclass(frozen=True)
class Curve:
    """Loss when counts[i] head units ("heads") or neurons ("neurons") go from one layer; counts and losses begin with 0."""

    layer: int
    part: str
    counts: tuple[int, ...]
    losses: tuple[float, ...]

    def hull(self) -> list[tuple[int, float]]:
        """The corners of the largest convex curve below this one."""
        points: list[tuple[int, float]] = []
        for x, y in zip(self.counts, self.losses, strict=True):
            while len(points) > 1 and (points[-1][1] - points[-2][1]) * (x - points[-1][0]) >= (y - points[-1][1]) * (points[-1][0] - points[-2][0]):
                points.pop()
            points.append((x, y))
        return points


@dataclass(frozen=True)
class Choices:
    """What may go from each layer: units[l] and neurons[l] list the counts that are possible, ascending from 0; totals: how many the layers have."""

    units: tuple[tuple[int, ...], ...]
    neurons: tuple[tuple[int, ...], ...]
    unit_totals: tuple[int, ...]
    neuron_totals: tuple[int, ...]

    @staticmethod
    def of(units: Sequence[int], neurons: Sequence[int], most: float, multiple: int, protect: Sequence[int]) -> "Choices":
        """Of layers with so many head units and neurons; at most the share `most` goes, never all, and kept neurons are a multiple."""
        heads, mlp = [], []
        for layer, (h, n) in enumerate(zip(units, neurons, strict=True)):
            free = layer not in protect
            heads.append(tuple(range(min(h - 1, int(most * h)) + 1)) if free else (0,))
            kept = [k for k in range(n - n % multiple, 0, -multiple) if k < n and n - k <= most * n] if free else []
            mlp.append((0, *(n - k for k in kept)))
        return Choices(tuple(heads), tuple(mlp), tuple(units), tuple(neurons))

    def probes(self, layer: int) -> list[tuple[str, int]]:
        """(part, count) to be tried of one layer."""
        found = []
        for part, possible, total in (("heads", self.units[layer], self.unit_totals[layer]), ("neurons", self.neurons[layer], self.neuron_totals[layer])):
            found += [(part, count) for count in sorted({min(possible, key=lambda c, level=level: abs(c - level * total)) for level in LEVELS} - {0})]
        return found

    def uniform(self, share: float) -> Plan:
        """About the same share of every layer's heads and neurons."""

        def nearest(options: Sequence[tuple[int, ...]], totals: Sequence[int]) -> tuple[int, ...]:
            return tuple(min(possible, key=lambda c: abs(c - share * total)) for possible, total in zip(options, totals, strict=True))

        return Plan(nearest(self.units, self.unit_totals), nearest(self.neurons, self.neuron_totals))


@dataclass(frozen=True)
class Price:
    """Parts of the forward's cost, the original model's being 1: heads[l] and neurons[l] go with the layer's heads and neurons; whole: all there is."""

    heads: tuple[float, ...]
    neurons: tuple[float, ...]
    whole: float

    def saved(self, layer: int, part: str, share: float) -> float:
        return (self.heads if part == "heads" else self.neurons)[layer] * share

    def speedup(self, plan: Plan, choices: Choices) -> float:
        gone = sum(price * u / total for price, u, total in zip(self.heads, plan.units, choices.unit_totals, strict=True))
        gone += sum(price * n / total for price, n, total in zip(self.neurons, plan.neurons, choices.neuron_totals, strict=True))
        return 1 / (self.whole - gone)


def prices(original: Transformer, dense: Transformer, units: Sequence[Sequence[tuple[int, ...]]], length: int, predicted: int, cost: str) -> Price:
    """What heads and neurons cost, from models that lack half of them. dense: the original, perhaps without some layers, whose head units are `units`.

    cost: "flops", or "measured" (seconds of a forward here and now, each model and the original in turn).
    """
    shapes = [shape_of(layer) for layer in layers_of(dense)]
    config = dense.config
    half_heads = [[head for unit in some[: len(some) // 2] for head in unit] for some in units]
    thinner, slimmer = twin(dense), twin(dense)
    for index, (shape, heads) in enumerate(zip(shapes, half_heads, strict=True)):
        cut(thinner, index, keep(shape, heads, ()))
        cut(slimmer, index, keep(shape, (), range(shape.mlp_size // 2)))
    settle(thinner)
    settle(slimmer)
    relative = [cost_of(model, original, length, predicted, cost) for model in (dense, thinner, slimmer)]
    attention = [layer_flops(config, s, length) - layer_flops(config, keep(s, h, ()).shape(True), length) for s, h in zip(shapes, half_heads, strict=True)]
    mlp = [float(s.mlp_size // 2) for s in shapes]
    heads = tuple(
        max(0.0, relative[0] - relative[1]) * mine / max(sum(attention), 1.0) * len(some) / max(1, len(some) // 2)
        for mine, some in zip(attention, units, strict=True)
    )
    neurons = tuple(max(0.0, relative[0] - relative[2]) * mine / sum(mlp) * s.mlp_size / (s.mlp_size // 2) for mine, s in zip(mlp, shapes, strict=True))
    return Price(heads, neurons, relative[0])


def cost_of(model: Transformer, original: Transformer, length: int, predicted: int, cost: str, repeats: int = 9) -> float:
    """Of one forward, relative to the original's."""
    if cost == "flops":
        return all_flops(model, length, predicted) / all_flops(original, length, predicted)
    return 1.0 if model is original else 1 / speed.compare(original, model, length=length, predicted=predicted, repeats=repeats)["speedup"]


def all_flops(model: Transformer, length: int, predicted: int) -> float:
    return flops(model.config, [shape_of(layer) for layer in layers_of(model)], length, predicted)


def cheapest(curves: Sequence[Curve], choices: Choices, price: Price, target: float) -> Plan:
    """The plan that reaches the speed for the least loss, as if losses added up; the largest possible one if the speed is out of reach."""
    steps: list[tuple[float, int, int, str, int]] = []
    for number, curve in enumerate(curves):
        possible = (choices.units if curve.part == "heads" else choices.neurons)[curve.layer]
        total = (choices.unit_totals if curve.part == "heads" else choices.neuron_totals)[curve.layer]
        corners = curve.hull()
        for (x0, y0), (x1, y1) in zip(corners, corners[1:], strict=False):
            gain = price.saved(curve.layer, curve.part, (x1 - x0) / total)
            if gain > 0:
                steps += [((y1 - y0) / gain, number, count, curve.part, curve.layer) for count in possible if x0 < count <= x1]
    counts = {"heads": [0] * len(choices.units), "neurons": [0] * len(choices.neurons)}
    for _, _, count, part, layer in sorted(steps):
        if price.speedup(Plan(tuple(counts["heads"]), tuple(counts["neurons"])), choices) >= target:
            break
        counts[part][layer] = count
    return Plan(tuple(counts["heads"]), tuple(counts["neurons"]))


def even(choices: Choices, price: Price, target: float) -> Plan:
    """The smallest uniform plan that reaches the speed, or the largest possible one."""
    low, high = 0.0, 1.0
    for _ in range(24):
        middle = (low + high) / 2
        low, high = (middle, high) if price.speedup(choices.uniform(middle), choices) < target else (low, middle)
    return choices.uniform(high)
