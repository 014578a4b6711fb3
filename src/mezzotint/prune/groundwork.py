"""What a search rests on and no goal changes: what would go first from each layer, what that costs in likelihood, and what it saves."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mezzotint.evaluation.comparison import PIECE, Masked, per_sample
from mezzotint.models.transformer import Layer, Transformer
from mezzotint.prune.allocation import Choices, Curve, Plan, Price, cheapest, even, prices
from mezzotint.prune.calibration import Exposure
from mezzotint.prune.journal import Journal
from mezzotint.prune.matrices import Stream, layers_of, mlp_of, twin
from mezzotint.prune.refit import Moments, refit
from mezzotint.prune.settings import Structured
from mezzotint.prune.structure import Repair, channels, cut, keep, shape_of
from mezzotint.prune.walking import head_order, measure, neuron_order

Tell = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Orders:
    """What would go first from each layer of the dense model: units[l] of query heads, neurons[l]; and the moments behind it, on the host, since those of
    all layers are larger than the model."""

    units: list[list[tuple[int, ...]]]
    neurons: list[list[int]]
    moments: list[dict[str, Moments]]


def relative(instability: Float[Tensor, "layers heads"], heads: list[int]) -> list[Float[Tensor, " heads"]]:
    """Each layer's heads' instability, relative to the mean and spread over the whole model."""
    rows = [row[:count].double() for row, count in zip(instability, heads, strict=True)]
    everything = torch.cat(rows)
    return [(row - everything.mean()) / everything.std(correction=0).clamp_min(1e-12) for row in rows]


@torch.no_grad()
def orders(dense: Transformer, exposures: Sequence[Exposure], settings: Structured, instability: Sequence[Tensor], share: float = 1.0) -> Orders:
    """From the dense model, or what is left of it without some layers. share: of each layer's neurons that are put in order; heads all are."""
    found = Orders([], [], [])
    stream = Stream(dense, [e.tokens for e in exposures])
    for layer, restless in zip(layers_of(dense), instability, strict=True):
        moments = measure(stream, layer, exposures)
        found.moments.append({site: some.to("cpu") for site, some in moments.items()})
        shape = shape_of(layer)
        size = 1 if shape.heads == shape.kv_heads else shape.kv_heads if settings.grouping == "balanced" else shape.heads // shape.kv_heads
        found.units.append(head_order(layer, moments["attention.out"], restless, settings, shape.heads // size))
        found.neurons.append(neuron_order(layer, moments["mlp.down"], settings, int(share * shape.mlp_size)))
        stream.advance()
    return found


class Probe:
    """Layers of a model put in place of its own, one at a time from the first on, and what that does to the masked positions of some rows."""

    def __init__(self, model: Transformer, rows: Sequence[Masked]):
        self.model, self.rows = model, rows
        self.stream = Stream(model, [b.tokens for b in rows])
        self.dense = [self.ends(number, []) for number in range(len(rows))]

    def advance(self) -> None:
        """On to the next layer."""
        self.stream.advance()

    def ends(self, number: int, instead: list[Layer]) -> Float[Tensor, "masked hidden"]:
        """What the head gets at the masked positions, with `instead` in place of the layers that come next."""
        x, at = self.stream.x[number], self.stream.index
        cos, sin, scope, attend = self.stream.places[number]
        for index, layer in enumerate([*instead, *self.stream.layers[at + len(instead) :]], start=at):
            x = layer(index, x, cos, sin, scope, attend, None)
        sample, place = self.rows[number].masked.nonzero(as_tuple=True)
        device, shift = x.device, self.model.config.shift
        return self.model.transform(self.model.norm(x[sample.to(device), (place - shift).clamp_min(0).to(device)]))

    def loss(self, layer: Layer) -> float:
        """KL from the model in nats, weighed as the bound weighs costs: mean over a row's masks, then over rows.

        The bound would rise by as much if the model were right. Unlike its own rise this is never negative and has little noise, so few rows will do.
        """
        means = []
        for number, row in enumerate(self.rows):
            apart = []
            for pair in zip(self.ends(number, [layer]).split(PIECE), self.dense[number].split(PIECE), strict=True):
                ours, theirs = (self.model.head(x).float().log_softmax(-1) for x in pair)
                apart.append(torch.nn.functional.kl_div(ours, theirs, log_target=True, reduction="none").sum(-1).cpu())
            means.append(per_sample(torch.cat(apart), row.masked.nonzero()[:, 0]))
        return float(torch.cat(means).mean())


class Groundwork:
    """Of one dense model (perhaps the original without some layers) under some settings.

    instability: of each layer's heads, relative to the whole model's; protect: layers of the dense model that stay as they are; rows: on which the loss of
    single layers is measured. Prices and losses that are in the journal are taken from there: a resumed run must not plan anew from other timings.
    """

    def __init__(
        self,
        original: Transformer,
        dense: Transformer,
        settings: Structured,
        exposures: Sequence[Exposure],
        instability: Sequence[Tensor],
        protect: Sequence[int],
        rows: Sequence[Masked],
        journal: Journal,
        tell: Tell,
    ):
        self.original, self.dense, self.settings, self.exposures, self.instability = original, dense, settings, exposures, instability
        self.protect = protect
        self.layers = layers_of(dense)
        self.shapes = [shape_of(layer) for layer in self.layers]
        self.length, self.predicted = settings.canvas(original.config)
        self.orders = orders(dense, exposures, settings, instability, settings.most)
        sizes = [len(units) for units in self.orders.units], [shape.mlp_size for shape in self.shapes]
        self.choices = Choices.of(*sizes, settings.most, settings.rounding(max(sizes[1])), protect)
        self.price = self.priced(journal)
        self.curves = self.probed(rows, journal, tell) if settings.allocation == "measured" else []

    def priced(self, journal: Journal) -> Price:
        found = journal.info("price")
        if found:
            return Price(tuple(found["heads"]), tuple(found["neurons"]), found["whole"])
        price = prices(self.original, self.dense, self.orders.units, self.length, self.predicted, self.settings.cost)
        journal.put("price", {}, dataclasses.asdict(price))
        return price

    @torch.no_grad()
    def probed(self, rows: Sequence[Masked], journal: Journal, tell: Tell) -> list[Curve]:
        """What removing more and more of one layer's heads, or neurons, costs: divergence from the dense model with everything else in place."""
        probe = Probe(self.dense, rows)
        found = []
        for index in range(len(self.layers)):
            losses: dict[str, list[tuple[int, float]]] = {"heads": [(0, 0.0)], "neurons": [(0, 0.0)]}
            for part, count in self.choices.probes(index):
                name = f"probe-{index}-{part}-{count}"
                known = journal.info(name)
                loss = known["loss"] if known else probe.loss(self.lacking(index, part, count))
                journal.put(name, {}, {"loss": loss})
                losses[part].append((count, loss))
            found += [Curve(index, part, *(tuple(values) for values in zip(*points, strict=True))) for part, points in losses.items()]
            probe.advance()
            tell("what each layer bears", index + 1, len(self.layers))
        return found

    def lacking(self, index: int, part: str, count: int) -> Layer:
        """One layer of the dense model without the first `count` units or neurons, the rest refitted."""
        model, shape, moments = twin(self.dense), self.shapes[index], self.orders.moments[index]
        layer = self.layers[index]
        units, neurons = (self.orders.units[index][:count], []) if part == "heads" else ([], self.orders.neurons[index][:count])
        kept = keep(shape, [head for unit in units for head in unit], neurons)
        chosen = channels(kept.heads, model.config.head_dim).to(model.device), torch.tensor(kept.neurons, device=model.device)
        out, down = (
            refit(linear.weight, linear.bias, moments[site].to(model.device), at, self.settings.repair)
            for linear, site, at in zip((layer.attention.out, mlp_of(layer).down), ("attention.out", "mlp.down"), chosen, strict=True)
        )
        cut(model, index, kept, Repair(out.weight, out.bias, down.weight, down.bias))
        return layers_of(model)[index]

    def plan_for(self, target: float) -> Plan:
        if self.settings.allocation == "measured":
            return cheapest(self.curves, self.choices, self.price, target)
        return even(self.choices, self.price, target)
