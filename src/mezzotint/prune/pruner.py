"""Structured pruning: heads that spend their attention on moving sinks, and what else adds little, until a speed is reached or quality forbids more.

After Sink-Aware Pruning (arXiv 2602.17664), which prunes weights; removing whole heads and neurons is what makes a model faster everywhere.
"""

import copy
import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mezzotint.analysis.dynamics import Dynamics
from mezzotint.analysis.recording import Recording, record_noise
from mezzotint.analysis.sinks import SinkRule
from mezzotint.evaluation.comparison import Likelihood, closeness, likelihood, masked_rows, paired_increase
from mezzotint.models.transformer import Layer, Transformer
from mezzotint.prune import speed
from mezzotint.prune.calibration import Calibration, Exposure, exposures, spans
from mezzotint.prune.importance import head_importance, neuron_importance, removability, standard
from mezzotint.prune.journal import Journal
from mezzotint.prune.matrices import Stream, inputs, layers_of, mlp_of, replace, twin
from mezzotint.prune.refit import Moments, refit
from mezzotint.prune.settings import PRESETS, Goal, Structured
from mezzotint.prune.structure import Kept, Repair, channels, cut, flops, head_units, keep, layer_flops, settle, shape_of, size_of, without_layers

Tell = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Analysis:
    """Attention dynamics of the dense model on the calibration data.

    instability: (layers, heads), mean over samples; heads, whole: the figures behind it, per sample; recording: the masses themselves.
    """

    instability: Float[Tensor, "layers heads"]
    heads: Dynamics
    whole: Dynamics
    recording: Recording

    def summary(self) -> dict[str, float]:
        """Means over the samples of the whole model's figures."""
        names = ("spatial_variance", "temporal_variance_norm", "persistence", "dominance", "movement", "autocorrelation", "instability")
        return {name: float(getattr(self.whole, name).mean()) for name in names}


class Pruned(Transformer):
    """A pruned model, used like any other; `kept` says what stayed of each layer, in the dense model's indices, and `report` how it went."""

    def __init__(self, model: Transformer, kept: dict[int, Kept], report: dict[str, Any]):
        nn.Module.__init__(self)
        self.config = model.config
        for name, child in model.named_children():
            setattr(self, name, child)
        self.kept, self.report = kept, report
        self.eval()


class ThresholdError(ValueError):
    """strict=True, and the speed could not be reached within the quality that may be lost."""


@dataclass(frozen=True)
class Plan:
    """units[l] head units and neurons[l] neurons go from layer l."""

    units: tuple[int, ...]
    neurons: tuple[int, ...]


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
        return Targets(between, dense.x)


@dataclass
class Walk:
    """A model pruned layer by layer: what stayed, the quality after each layer, and what was put back."""

    model: Transformer
    kept: list[Kept]
    drops: list[float]
    put_back: list[int]


class SinkAwarePruner:
    """Analyse, prune, evaluate.

    model: a dense model; it is never changed. calibration_data: see `Calibration.of`. validation_data: what quality is judged on while pruning, default the
    last quarter of the calibration data, which is then not calibrated on. settings: what may be removed and how it is chosen. draws: masked versions of each
    validation sample; views: noise levels at which each calibration sample is shown. Quality is the likelihood bound in nats per token, on the
    same masks for every model.
    """

    def __init__(
        self,
        model: Transformer,
        calibration_data: Any,
        *,
        validation_data: Any = None,
        settings: Structured | None = None,
        rule: SinkRule | None = None,
        noise: str = "auto",
        draws: int = 4,
        views: int = 2,
        seed: int = 0,
        batch: int = 16,
    ):
        layers = layers_of(model)
        self.model, self.settings, self.rule, self.seed, self.draws, self.views, self.batch = (
            model,
            settings or Structured(),
            rule or SinkRule(),
            seed,
            draws,
            views,
            batch,
        )
        data = Calibration.of(calibration_data, seed)
        if validation_data is None:
            if len(data.samples) < 4:
                raise ValueError(f"calibration data has {len(data.samples)} samples; give at least 4, or validation_data of its own")
            held = len(data.samples) // 4
            self.data, checked = Calibration(data.samples[:-held], data.seed), data.samples[-held:]
        else:
            self.data, checked = data, Calibration.of(validation_data, seed).samples
        strange = [layer for layer in self.settings.protect if not 0 <= layer < len(layers)]
        if strange:
            raise ValueError(f"protect={strange[0]} is not a layer; the model has {len(layers)}")
        self.noise = noise if noise != "auto" else "uniform" if model.config.family == "dream" else "steps"
        self.checks = masked_rows([(s.ids, s.start, s.end) for s in checked], model.config.mask_id, draws=draws, seed=seed, batch=batch)
        self._analysis: Analysis | None = None
        self._exposures: list[Exposure] | None = None
        self._dense: Likelihood | None = None

    @property
    def dense_quality(self) -> Likelihood:
        if self._dense is None:
            self._dense = likelihood(self.model, self.checks)
        return self._dense

    def analyze_attention_dynamics(self, samples: int = 16) -> Analysis:
        """Instability of every head, from `samples` calibration samples of the most common length at ten noise levels."""
        if self._analysis is None or self._analysis.instability.shape[0] != len(layers_of(self.model)):
            lengths = [len(s.ids) for s in self.data.samples]
            common = max(set(lengths), key=lengths.count)
            chosen = [s for s in self.data.samples if len(s.ids) == common][:samples]
            recording = record_noise(self.model, torch.stack([s.ids for s in chosen]), keep=~spans(chosen), seed=self.seed)
            heads = recording.heads()
            self._analysis = Analysis(heads.instability.mean(0), heads, recording.whole(), recording)
        return self._analysis

    def prune(
        self,
        target_speedup: float | None = None,
        quality_drop_threshold: float | None = None,
        *,
        preset: str | None = None,
        strict: bool = False,
        journal: Journal | None = None,
        report: Tell | None = None,
    ) -> Pruned:
        """Remove heads and neurons for a speed, within a bound on the quality lost.

        preset: conservative, balanced, aggressive or edge; its settings replace the pruner's, given numbers its goal. Default goal: 1.3 times the speed, 5 %.
        If both cannot be met the bound wins, and `report` says what was reached; strict=True raises ThresholdError instead.
        """
        settings, goal = self.settings, Goal()
        if preset is not None:
            if preset not in PRESETS or PRESETS[preset].structured is None:
                known = ", ".join(name for name, p in PRESETS.items() if p.structured)
                raise ValueError(f"preset={preset!r} is not structured; accepted here: {known} (the others: `sparsify`, `mezzotint prune`)")
            settings, goal = PRESETS[preset].structured or settings, PRESETS[preset].goal or goal
        goal = Goal(
            goal.target_speedup if target_speedup is None else target_speedup,
            goal.quality_drop_threshold if quality_drop_threshold is None else quality_drop_threshold,
        )
        run = Run(self, settings, goal, journal or Journal(None), report or (lambda stage, done, total: None))
        pruned = run.best()
        if strict and not pruned.report["reached"]:
            raise ThresholdError(
                f"target_speedup={goal.target_speedup} was not reached within quality_drop_threshold={goal.quality_drop_threshold}: "
                f"{pruned.report['speedup']:.2f} at a drop of {pruned.report['quality_drop']:.3f}"
            )
        return pruned

    def exposures(self) -> list[Exposure]:
        """Noised calibration forwards with the weights that sinks leave, from the dense model."""
        if self._exposures is None:
            self._exposures = []
            groups: dict[int, list[int]] = {}
            for number, sample in enumerate(self.data.samples):
                groups.setdefault(len(sample.ids), []).append(number)
            for numbers in groups.values():
                part = Calibration(tuple(self.data.samples[i] for i in numbers), self.data.seed, min(self.data.views, self.views))
                for _, some in exposures(
                    self.model, part, noise=self.noise, clean=False, rule=self.rule, average="per_step", instability=False, batch=self.batch
                ):
                    self._exposures += some
        return self._exposures

    def evaluate(self, pruned: Transformer, test_data: Any, *, repeats: int = 9) -> dict[str, Any]:
        """The pruned model beside the dense one on data of your own: quality with its standard error, agreement, sizes and measured speed."""
        samples = Calibration.of(test_data, self.seed).samples
        batches = masked_rows([(s.ids, s.start, s.end) for s in samples], self.model.config.mask_id, draws=self.draws, seed=self.seed + 1, batch=self.batch)
        dense, changed = likelihood(self.model, batches), likelihood(pruned, batches)
        difference = paired_increase(changed, dense)
        before, after = size_of(self.model), size_of(pruned)
        s, c = self.settings, self.model.config
        length = min(s.length, c.max_length)
        work = [flops(c, [shape_of(layer) for layer in layers_of(m)], length, min(s.predicted, length)) for m in (self.model, pruned)]
        found = {
            "quality_drop": difference.relative,
            "quality_drop_standard_error": difference.error,
            "dense_nll": dense.mean,
            "nll": changed.mean,
            "dense_masked_ppl": dense.masked_ppl,
            "masked_ppl": changed.masked_ppl,
            **closeness(pruned, self.model, batches),
            "parameters": after["parameters"],
            "parameter_ratio": after["parameters"] / before["parameters"],
            "bytes": after["bytes"],
            "memory_ratio": after["bytes"] / before["bytes"],
            "flops_ratio": work[1] / work[0],
            "length": length,
            "layers": [dataclasses.asdict(shape_of(layer)) for layer in layers_of(pruned)],
            **speed.compare(self.model, pruned, length=length, predicted=min(s.predicted, length), repeats=repeats),
        }
        told = getattr(pruned, "report", {})
        return found | {name: told[name] for name in ("target_speedup", "quality_drop_threshold") if name in told}


class Run:
    """One call of `prune`."""

    def __init__(self, pruner: SinkAwarePruner, settings: Structured, goal: Goal, journal: Journal, tell: Tell):
        self.pruner, self.settings, self.goal, self.journal, self.tell = pruner, settings, goal, journal, tell
        self.original = pruner.model
        self.found: tuple[float, float, Walk] | None = None
        self.history: list[dict[str, Any]] = []
        self.dense, self.dropped = self.thin()
        self.layers = layers_of(self.dense)
        self.shapes = [shape_of(layer) for layer in self.layers]
        self.length = min(settings.length, self.dense.config.max_length)
        self.predicted = min(settings.predicted, self.length)
        instability = pruner.analyze_attention_dynamics().instability
        self.instability = [
            row[: shape.heads] for row, shape in zip(instability[[i for i in range(len(instability)) if i not in self.dropped]], self.shapes, strict=True)
        ]
        self.moments = self.look()
        self.base = flops(self.original.config, [shape_of(layer) for layer in layers_of(self.original)], self.length, self.predicted)
        heads = [head_importance(layer, m["attention.out"], settings.importance) for layer, m in zip(self.layers, self.moments, strict=True)]
        self.head_scores = removability(self.instability, heads, settings.ranking, settings.weight)
        self.units = [head_units(shape, score, settings.grouping) for shape, score in zip(self.shapes, self.head_scores, strict=True)]
        neurons = [neuron_importance(layer, m["mlp.down"], settings.importance) for layer, m in zip(self.layers, self.moments, strict=True)]
        self.head_values = heads
        self.neuron_scores = standard([torch.log(g.double().cpu().clamp_min(1e-30)) for g in neurons])

    @staticmethod
    def ranked(pruner: SinkAwarePruner, settings: Structured) -> "Run":
        """Only for its rankings and moments."""
        return Run(pruner, settings, Goal(), Journal(None), lambda stage, done, total: None)

    def thin(self) -> tuple[Transformer, list[int]]:
        """Without the layers that may go, least influence first, while they cost at most half of the quality that may be lost."""
        model, gone = self.pruner.model, []
        if not self.settings.drop_layers:
            return model, gone
        influence = block_influence(self.pruner)
        for index in influence.argsort().tolist():
            if index in self.settings.protect or len(gone) >= len(influence) // 4:
                continue
            tried = without_layers(self.pruner.model, [*gone, index])
            if self.drop(tried) <= self.goal.quality_drop_threshold / 2:
                gone.append(index)
                model = tried
        return model, sorted(gone)

    def drop(self, model: Transformer) -> float:
        return paired_increase(likelihood(model, self.pruner.checks), self.pruner.dense_quality).relative

    @torch.no_grad()
    def look(self) -> list[dict[str, Moments]]:
        """Moments of every layer's output projections in the model as it is before heads and neurons go."""
        seen = []
        stream = Stream(self.dense, [e.tokens for e in self.pruner.exposures()])
        for layer in self.layers:
            seen.append(self.measure(stream, layer))
            stream.advance()
        return seen

    def measure(self, stream: Stream, layer: Layer, targets: "Targets | None" = None) -> dict[str, Moments]:
        """Moments of the layer's output projections; with targets, also of what they should give out."""
        moments = {"attention.out": Moments(), "mlp.down": Moments()}
        number, between = 0, torch.empty(0)

        def seen(site: str, x: Tensor) -> None:
            nonlocal between
            weight = self.pruner.exposures()[number].weight
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

    def speedup(self, plan: Plan) -> float:
        """By FLOPs."""
        shapes = [keep(s, self.heads_of(i, u), range(n)).shape(True) for i, (s, u, n) in enumerate(zip(self.shapes, plan.units, plan.neurons, strict=True))]
        return self.base / flops(self.original.config, shapes, self.length, self.predicted)

    def heads_of(self, layer: int, units: int) -> list[int]:
        return [head for unit in self.units[layer][:units] for head in unit]

    def plan(self, heads: float, neurons: float) -> Plan:
        """The most removable `heads` of all head units and `neurons` of all neurons, at most settings.most of a layer."""
        return Plan(self.unit_counts(heads), self.neuron_counts(neurons))

    def unit_counts(self, share: float) -> tuple[int, ...]:
        ranked = [(float(self.head_scores[i][list(u)].mean()), i) for i, units in enumerate(self.units) for u in units if i not in self.settings.protect]
        counts = [0] * len(self.units)
        wanted = round(share * sum(map(len, self.units)))
        for _, layer in sorted(ranked, reverse=True):
            if sum(counts) < wanted and counts[layer] < min(len(self.units[layer]) - 1, int(self.settings.most * len(self.units[layer]))):
                counts[layer] += 1
        return tuple(counts)

    def neuron_counts(self, share: float) -> tuple[int, ...]:
        everything = torch.cat(self.neuron_scores)
        threshold = everything.sort().values[min(int(share * len(everything)), len(everything) - 1)]
        counts = []
        for index, (scores, shape) in enumerate(zip(self.neuron_scores, self.shapes, strict=True)):
            multiple = self.settings.rounding(shape.mlp_size)
            gone = min(int((scores < threshold).sum()), int(self.settings.most * shape.mlp_size))
            left = max(multiple, -(-(shape.mlp_size - gone) // multiple) * multiple)
            counts.append(0 if index in self.settings.protect or share == 0 else max(0, shape.mlp_size - left))
        return tuple(counts)

    def plan_for(self, target: float, split: float) -> Plan:
        """The smallest plan that reaches the speed by FLOPs, or the largest allowed one. Heads and neurons go in the proportion split : 1 - split."""
        low, high = 0.0, 1.0
        for _ in range(24):
            middle = (low + high) / 2
            if self.speedup(self.plan(min(1.0, 2 * split * middle), min(1.0, 2 * (1 - split) * middle))) < target:
                low = middle
            else:
                high = middle
        return self.plan(min(1.0, 2 * split * high), min(1.0, 2 * (1 - split) * high))

    @torch.no_grad()
    def walk(self, plan: Plan, name: str, *, careful: bool) -> Walk:
        """Prune from the first layer to the last; each is calibrated behind the pruned ones before it.

        careful: check the likelihood after every layer and put units back where it has fallen by more than the layer's share of what may be lost.
        """
        model = twin(self.dense)
        stream = Stream(model, [e.tokens for e in self.pruner.exposures()])
        dense = Stream(self.dense, [e.tokens for e in self.pruner.exposures()])
        done = Walk(model, [], [], [])
        costs = [layer_flops(model.config, s, self.length) for s in self.shapes]
        saved = [
            cost - layer_flops(model.config, keep(s, self.heads_of(i, u), range(n)).shape(True), self.length)
            for i, (cost, s, u, n) in enumerate(zip(costs, self.shapes, plan.units, plan.neurons, strict=True))
        ]
        for index, (units, neurons) in enumerate(zip(plan.units, plan.neurons, strict=True)):
            targets = Targets.of(dense)
            stored = self.journal.get(f"{name}-layer-{index}")
            if stored is not None:
                self.restore(model, index, stored, done, self.journal.info(f"{name}-layer-{index}"))
            else:
                allowed = self.goal.quality_drop_threshold * sum(saved[: index + 1]) / max(sum(saved), 1.0) if careful else float("inf")
                self.layer(stream, done, targets, units, neurons, allowed)
                layer = layers_of(model)[index]
                info = {"kept": dataclasses.asdict(done.kept[-1]), "drop": done.drops[-1], "put_back": done.put_back[-1]}
                self.journal.put(f"{name}-layer-{index}", dict(layer.named_parameters()), info)
            stream.layers = layers_of(model)
            stream.advance()
            self.tell(f"{name}: layers", index + 1, len(self.layers))
        settle(model)
        return done

    def layer(self, stream: Stream, done: Walk, targets: "Targets", units: int, neurons: int, allowed: float) -> None:
        """One layer: all of its planned units, half, a quarter, or none of them."""
        model, index = done.model, len(done.kept)
        for attempt in range(4):
            share = 0.5**attempt if attempt < 3 else 0.0
            multiple = self.settings.rounding(self.shapes[index].mlp_size)
            some, fewer = int(units * share), int(neurons * share) // multiple * multiple if attempt else neurons
            model.layers[index] = fresh(self.layers[index])
            stream.layers = layers_of(model)
            kept = self.cut(stream, targets, index, some, fewer)
            if allowed == float("inf"):
                drop = float("nan")
                break
            drop = self.drop(model)
            if drop <= allowed or share == 0:
                break
        done.kept.append(kept)
        done.drops.append(drop)
        done.put_back.append(attempt)

    def cut(self, stream: Stream, targets: "Targets", index: int, units: int, neurons: int) -> Kept:
        """Heads first; the neurons are then chosen and refitted on what the thinner attention gives them."""
        model, settings = stream.model, self.settings
        shape = self.shapes[index]
        everything = Kept.everything(shape)
        if units == 0 and neurons == 0:
            return everything
        layer = layers_of(model)[index]
        moments = self.measure(stream, layer, targets)
        scores = removability(self.instability, [*self.importances(index, layer, moments["attention.out"])], settings.ranking, settings.weight)[index]
        heads = [head for unit in head_units(shape, scores, settings.grouping)[:units] for head in unit]
        thinner = keep(shape, heads, ())
        width = model.config.head_dim
        mine = channels(thinner.heads, width).to(model.device)
        out = refit(layer.attention.out.weight, layer.attention.out.bias, moments["attention.out"], mine, settings.repair)
        down, down_bias = mlp_of(layer).down.weight, mlp_of(layer).down.bias
        nothing = torch.zeros_like(down[:, 0]) if down_bias is None else down_bias
        cut(model, index, thinner, Repair(out.weight, out.bias, down, nothing))
        layer = layers_of(model)[index]
        stream.layers = layers_of(model)
        moments = self.measure(stream, layer, targets)
        order = neuron_importance(layer, moments["mlp.down"], settings.importance).argsort()
        left = order[neurons:].sort().values
        down = refit(mlp_of(layer).down.weight, mlp_of(layer).down.bias, moments["mlp.down"], left, settings.repair)
        second = Kept(tuple(range(len(thinner.heads))), tuple(range(len(thinner.kv_heads))), tuple(left.tolist()))
        cut(model, index, second, Repair(layer.attention.out.weight, layer.attention.out.bias, down.weight, down.bias))
        stream.layers = layers_of(model)
        return second.of(thinner)

    def importances(self, index: int, layer: Layer, moments: Moments) -> list[Tensor]:
        """Every layer's head importance; this layer's anew."""
        return [*self.head_values[:index], head_importance(layer, moments, self.settings.importance), *self.head_values[index + 1 :]]

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

    def measured(self, model: Transformer) -> float:
        """Times as fast as the dense model."""
        if self.settings.cost == "flops":
            return self.base / flops(self.original.config, [shape_of(layer) for layer in layers_of(model)], self.length, self.predicted)
        return speed.compare(self.original, model, length=self.length, predicted=self.predicted, repeats=15)["speedup"]

    def best(self) -> Pruned:
        """Plans until the speed is reached within the bound; else the fastest that keeps within it."""
        goal = self.goal
        exact = self.settings.cost == "flops"
        aim = goal.target_speedup if exact else goal.target_speedup * 1.02
        split = self.choose_split(aim)
        low, high = 1.0, float("inf")
        for number in range(2 * self.settings.passes):
            drop, reached, predicted = self.attempt(f"pass-{number}", aim, split, careful=False)
            if drop <= goal.quality_drop_threshold:
                low = aim
                if abs(reached / goal.target_speedup - 1) <= 0.02 or (exact and high == float("inf")):
                    break
                if high == float("inf"):
                    if number + 1 >= self.settings.passes or min(predicted, reached) <= 1:
                        break
                    aim = 1 + (goal.target_speedup - 1) * (predicted - 1) / (reached - 1)
                    continue
            elif high == float("inf"):
                self.attempt(f"pass-{number}-careful", aim, split, careful=True)
                high = aim
            else:
                high = aim
            aim = (low + high) / 2
        if self.found is None:
            walk = Walk(twin(self.dense), [Kept.everything(s) for s in self.shapes], [], [])
            settle(walk.model)
            self.found = self.measured(walk.model) if self.dropped else 1.0, self.drop(walk.model), walk
        return self.finished(*self.found, split, self.history)

    def attempt(self, name: str, aim: float, split: float, *, careful: bool) -> tuple[float, float, float]:
        """One plan carried out, and kept if it is the best so far: quality lost, speed, and speed by FLOPs."""
        plan = self.recall(f"{name}-plan", lambda: self.plan_for(aim, split))
        walk = self.walk(plan, name, careful=careful)
        drop, reached = self.drop(walk.model), self.measured(walk.model)
        self.history.append({"aim": aim, "speedup": reached, "quality_drop": drop, "put_back": walk.put_back})
        if drop <= self.goal.quality_drop_threshold and (self.found is None or self.better(reached, self.found[0])):
            self.found = reached, drop, walk
        shapes = [shape_of(layer) for layer in layers_of(walk.model)]
        return drop, reached, self.base / flops(self.original.config, shapes, self.length, self.predicted)

    def better(self, new: float, old: float) -> bool:
        """Nearer to the target from above, or faster while below it."""
        target = self.goal.target_speedup
        return new > old if old < target else target <= new < old

    def recall(self, name: str, make: Callable[[], Plan]) -> Plan:
        """A plan from the journal, or a new one that is put there: a resumed run must not plan anew from other timings."""
        found = self.journal.info(name)
        plan = Plan(tuple(found["units"]), tuple(found["neurons"])) if found else make()
        self.journal.put(name, {}, {"units": plan.units, "neurons": plan.neurons})
        return plan

    def choose_split(self, aim: float) -> float:
        """The proportion of heads to neurons that loses least, of three."""
        if self.settings.split is not None:
            return self.settings.split
        found = self.journal.info("split")
        if found:
            return found["split"]
        drops = {}
        for number, split in enumerate((0.25, 0.5, 0.75)):
            plan = self.plan_for(aim, split)
            slower = max(0.0, aim - self.speedup(plan))
            drops[split] = (slower, self.drop(self.walk(plan, f"split-{number}", careful=False).model))
        chosen = min(drops, key=lambda split: drops[split])
        self.journal.put("split", {}, {"split": chosen})
        return chosen

    def finished(self, reached: float, drop: float, walk: Walk, split: float, history: Sequence[dict[str, Any]]) -> Pruned:
        survivors = [i for i in range(len(layers_of(self.original))) if i not in self.dropped]
        before, after = size_of(self.original), size_of(walk.model)
        goal = self.goal
        report = {
            "target_speedup": goal.target_speedup,
            "speedup": reached,
            "cost": self.settings.cost,
            "length": self.length,
            "quality_drop_threshold": goal.quality_drop_threshold,
            "quality_drop": drop,
            "quality_drop_standard_error": paired_increase(likelihood(walk.model, self.pruner.checks), self.pruner.dense_quality).error,
            "reached": reached >= 0.95 * goal.target_speedup and drop <= goal.quality_drop_threshold,
            "parameter_ratio": after["parameters"] / before["parameters"],
            "memory_ratio": after["bytes"] / before["bytes"],
            "layers_dropped": self.dropped,
            "split": split,
            "drop_after_layer": [None if math.isnan(drop) else drop for drop in walk.drops],
            "history": list(history),
            "settings": dataclasses.asdict(self.settings),
            "attention": self.pruner.analyze_attention_dynamics().summary(),
        }
        return Pruned(walk.model, dict(zip(survivors, walk.kept, strict=True)), report)


def fresh(layer: Layer) -> Layer:
    """The layer as a new module that shares its tensors."""
    return copy.deepcopy(layer, {id(p): p for p in layer.parameters()})


@torch.no_grad()
def block_influence(pruner: SinkAwarePruner) -> Float[Tensor, " layers"]:
    """1 - cosine of what enters and leaves each layer, averaged (ShortGPT, arXiv 2403.03853)."""
    stream = Stream(pruner.model, [e.tokens for e in pruner.exposures()])
    found = []
    for _ in layers_of(pruner.model):
        before = stream.x
        stream.advance()
        similar = [torch.nn.functional.cosine_similarity(a.float(), b.float(), dim=-1).mean() for a, b in zip(before, stream.x, strict=True)]
        found.append(1 - torch.stack(similar).mean())
    return torch.stack(found).cpu()
