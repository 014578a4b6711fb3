"""Analyse, prune, evaluate. Heads and neurons that add little go, or heads that spend their attention on moving sinks, as `ranking` says, until a speed is
reached or quality forbids more.

After Sink-Aware Pruning (arXiv 2602.17664), which prunes weights (`sparsify`, the presets paper and memory); removing whole heads and neurons is what makes a
model faster everywhere.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mezzotint.analysis.dynamics import Dynamics
from mezzotint.analysis.recording import Recording, record_noise
from mezzotint.analysis.sinks import SinkRule
from mezzotint.evaluation.comparison import Drop, drop, judge, judge_beside, log_probabilities, masked_rows
from mezzotint.evaluation.predictions import weights_digest
from mezzotint.models.quantised import GROUP, packed, quantise, stored_bytes
from mezzotint.models.transformer import Transformer
from mezzotint.prune import speed
from mezzotint.prune.calibration import NOISES, Calibration, Exposure, check_samples, digest, exposures, noise_of, spans
from mezzotint.prune.groundwork import Groundwork, Tell, relative
from mezzotint.prune.journal import Journal
from mezzotint.prune.matrices import layers_of, matrices
from mezzotint.prune.search import Search
from mezzotint.prune.settings import Goal, Preset, Structured, preset_of
from mezzotint.prune.sparsity import Sparsity
from mezzotint.prune.structure import Kept, flops, shape_of, size_of
from mezzotint.prune.unstructured import sparsify
from mezzotint.prune.validation import Validation

PROBED = 24
"""Calibration samples on which the loss of single layers is measured."""


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
    """The quality that may be lost would be passed, or, with strict=True, the speed could not be reached within it."""


class QuantisedError(ThresholdError):
    """It is quantisation that would pass the bound."""


def check_bound(bound: float | None, measure: str, lost: Drop, what: str, error: type[ThresholdError] = ThresholdError) -> None:
    """Raises the error if the loss passes the bound; what: how it begins to say so."""
    if bound is not None and not lost.value <= bound:
        raise error(f"quality_drop_threshold={bound} would be passed: {what} {lost.value:.3f} ({measure})")


class SinkAwarePruner:
    """Analyse, prune, evaluate.

    model: a dense model; it is never changed. calibration_data: see `Calibration.of`. validation_data: what quality is judged on while pruning, default the
    last quarter of the calibration data, which is then not calibrated on. settings: what may be removed and how it is chosen. draws: masked versions of each
    validation sample; views: noise levels at which each calibration sample is shown, batch: rows of a forward (presets of single weights have their own:
    all ten levels, and `Sparsity.batch`). rule and noise hold for presets of single weights too. Quality is judged on the same masks for every model.
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
            self.data, checked = data.some(range(len(data.samples) - held)), data.samples[-held:]
        else:
            self.data, checked = data, Calibration.of(validation_data, seed).samples
        if noise not in ("auto", *NOISES):
            raise ValueError(f"noise={noise!r} is unknown; accepted: auto, {', '.join(NOISES)}")
        self.given: dict[str, Any] = ({} if rule is None else {"rule": rule}) | ({} if noise == "auto" else {"noise": noise})
        self.check(self.settings)
        check_samples([*self.data.samples, *checked], model.config)
        self.noise = noise_of(noise, model.config)
        self.validation = Validation(model, masked_rows([(s.ids, s.start, s.end) for s in checked], model.config.mask_id, draws=draws, seed=seed, batch=batch))
        looked = {"noise": self.noise, "rule": dataclasses.asdict(self.rule), "draws": draws, "views": views, "seed": seed}
        self.identity = self.data.identity() | {"validation": digest(checked), "weights": weights_digest(model), "dtype": str(model.dtype)} | looked
        self._analyses: dict[int, Analysis] = {}
        self._exposures: dict[bool, list[Exposure]] = {}
        self._ground: tuple[tuple[Structured, list[int]], Groundwork] | None = None

    def check(self, settings: Structured) -> None:
        """Refuse settings that do not fit the model or leave something given without effect."""
        layers = len(layers_of(self.model))
        strange = [layer for layer in settings.protect if not 0 <= layer < layers]
        if strange:
            raise ValueError(f"protect={strange[0]} is not a layer; the model has {layers}")
        if settings.grouping != Structured.grouping and all(shape_of(layer).heads == shape_of(layer).kv_heads for layer in layers_of(self.model)):
            raise ValueError(f"grouping={settings.grouping!r} has no effect on this model, whose heads have keys of their own; leave it out")
        settings.canvas(self.model.config)

    def analyze_attention_dynamics(self, samples: int = 16) -> Analysis:
        """Instability of every head, from `samples` calibration samples of the most common length at ten noise levels."""
        if samples < 1:
            raise ValueError(f"samples={samples} must be at least 1")
        if samples not in self._analyses:
            lengths = [len(s.ids) for s in self.data.samples]
            common = max(set(lengths), key=lengths.count)
            chosen = [s for s in self.data.samples if len(s.ids) == common][:samples]
            recording = record_noise(self.model, torch.stack([s.ids for s in chosen]), keep=~spans(chosen), seed=self.seed)
            heads = recording.heads()
            self._analyses[samples] = Analysis(heads.instability.mean(0), heads, recording.whole(), recording)
        return self._analyses[samples]

    def prune(
        self,
        target_speedup: float | None = None,
        quality_drop_threshold: float | None = None,
        *,
        measure: str | None = None,
        preset: str | Preset | None = None,
        strict: bool = False,
        journal: Journal | None = None,
        report: Tell | None = None,
    ) -> Pruned:
        """Remove heads and neurons for a speed, within a bound on the quality lost; or, with a preset of that kind, zero single weights.

        measure: what the bound is on, see `Goal`. preset: a name of `PRESETS`, or one of your own; its settings replace the pruner's, what is given here its
        goal. Default goal: 1.3 times the speed, 5 % of the likelihood bound. If both cannot be met the bound wins, and `report` says what was reached;
        strict=True raises ThresholdError instead. What has no smaller step to go back to, sparsity and quantisation, raises ThresholdError if the given
        bound would be passed. A preset's quantisation is judged here, and applied when what `save` writes is loaded.
        """
        wanted = preset_of(preset) if preset is not None else Preset("", self.settings)
        tell, kept_so_far = report or (lambda stage, done, total: None), journal or Journal(None)
        if wanted.quantise:
            quantise(self.model, wanted.quantise, layers=1)  # what is not possible is said before hours of pruning
        asked = {"target_speedup": target_speedup, "quality_drop_threshold": quality_drop_threshold, "measure": measure}
        goal = dataclasses.replace(wanted.goal or Goal(), **{name: value for name, value in asked.items() if value is not None})
        if wanted.sparsity is not None:
            for name, given in (("target_speedup", target_speedup), ("strict", strict or None)):
                if given is not None:
                    raise ValueError(f"{name}={given} has no effect with preset={preset!r}, which zeroes single weights and gains no speed; leave it out")
            pruned = self._sparse(wanted.sparsity, quality_drop_threshold, goal.measure, kept_so_far, tell)
        else:
            settings = wanted.structured or self.settings
            self.check(settings)
            if "rule" in self.given and settings.importance != "energy":
                raise ValueError(f"rule has no effect with importance={settings.importance!r}, which weighs all positions alike; choose importance='energy'")
            if wanted.quantise == "int4-weight":
                if self.model.config.head_dim % GROUP:
                    raise ValueError(
                        f"quantise='int4-weight' takes widths that are multiples of {GROUP}, which some heads of {self.model.config.head_dim} are not; "
                        "accepted here: int8-weight, int8-dynamic"
                    )
                widest = max(shape_of(layer).mlp_size for layer in layers_of(self.model))
                settings = dataclasses.replace(settings, multiple=math.lcm(settings.rounding(widest), GROUP))
            pruned = self._structured(settings, goal, self._reserve(wanted.quantise, goal), strict, kept_so_far, tell)
        if wanted.quantise:
            pruned.report |= self._quantised(pruned, wanted.quantise)
        pruned.report |= {"compact": wanted.compact, "quantise": wanted.quantise}
        return pruned

    def _reserve(self, scheme: str | None, goal: Goal) -> float:
        """What quantising the dense model loses, which pruning must leave of the bound. Raises QuantisedError if it is all of it."""
        if scheme is None:
            return 0.0
        lost = self.validation.drop(quantise(self.model, scheme), goal.measure)
        check_bound(goal.quality_drop_threshold, goal.measure, lost, f"quantise={scheme} alone costs", QuantisedError)
        return max(0.0, lost.value)

    def _quantised(self, pruned: Pruned, scheme: str) -> dict[str, float]:
        """Loss and speed of what will be loaded. Raises QuantisedError if the bound is passed."""
        told, small = pruned.report, quantise(pruned, scheme)
        lost = self.validation.drop(small, told["measure"])
        check_bound(told["quality_drop_threshold"], told["measure"], lost, f"with quantise={scheme} the loss is", QuantisedError)
        length, predicted = self._canvas(told)
        times = speed.compare(self.model, small, length=length, predicted=predicted, repeats=5)
        return {"quality_drop_quantised": lost.value, "quality_drop_quantised_standard_error": lost.error, "speedup_quantised": times["speedup"]}

    def _canvas(self, told: dict[str, Any]) -> tuple[int, int]:
        """Length and predicted positions that a model was planned for by its report, else by the pruner's settings."""
        if "length" not in told:
            return self.settings.canvas(self.model.config)
        return told["length"], min(told["settings"]["predicted"], told["length"])

    def _structured(self, settings: Structured, goal: Goal, reserve: float, strict: bool, journal: Journal, tell: Tell) -> Pruned:
        """reserve: what must be left of the bound."""
        left = dataclasses.replace(goal, quality_drop_threshold=max(goal.quality_drop_threshold - reserve, 1e-9))
        journal.claim("structure", self.identity | {"structured": dataclasses.asdict(settings), "goal": dataclasses.asdict(left)})
        search = Search(self, settings, left, journal, tell)
        walk, told = search.best()
        told["quality_drop_threshold"] = goal.quality_drop_threshold
        survivors = [i for i in range(len(layers_of(self.model))) if i not in search.dropped]
        pruned = Pruned(walk.model, dict(zip(survivors, walk.kept, strict=True)), told)
        if strict and not pruned.report["reached"]:
            raise ThresholdError(
                f"target_speedup={goal.target_speedup} was not reached within quality_drop_threshold={goal.quality_drop_threshold}: "
                f"{pruned.report['speedup']:.2f} at a drop of {pruned.report['quality_drop']:.3f}"
            )
        return pruned

    def _sparse(self, settings: Sparsity, bound: float | None, measure: str, journal: Journal, tell: Tell) -> Pruned:
        default = Sparsity(settings.method, settings.ratio, settings.pattern)
        settings = dataclasses.replace(settings, **{k: v for k, v in self.given.items() if getattr(settings, k) == getattr(default, k)})
        found = sparsify(self.model, self.data, settings, journal=journal, report=tell)
        changed, apart = judge_beside(found.model, log_probabilities(self.model, self.validation.rows), self.validation.rows)
        lost = drop(changed, self.validation.dense, measure)
        check_bound(bound, measure, lost, f"{settings.method} costs")
        quality = {"measure": measure, "quality_drop": lost.value, "quality_drop_standard_error": lost.error, "quality_drop_threshold": bound}
        quality |= {"dense_nll": self.validation.dense.mean, "nll": changed.mean}
        quality |= {"agreement": 1 - drop(changed, self.validation.dense, "agreement").value, "kl": apart}
        return Pruned(found.model, {}, found.report | quality)

    def exposures(self, settings: Structured) -> list[Exposure]:
        """Noised calibration forwards; for an importance that weighs positions, with the weights that sinks leave, from the dense model."""
        weighed = settings.importance == "energy"
        if weighed not in self._exposures:
            self._exposures[weighed] = []
            groups: dict[int, list[int]] = {}
            for number, sample in enumerate(self.data.samples):
                groups.setdefault(len(sample.ids), []).append(number)
            for numbers in groups.values():
                part = dataclasses.replace(self.data.some(numbers), views=min(self.data.views, self.views))
                rule = self.rule if weighed else None
                forwards = exposures(self.model, part, noise=self.noise, clean=False, rule=rule, average="per_step", instability=False, batch=self.batch)
                self._exposures[weighed] += [exposure for _, some in forwards for exposure in some]
        return self._exposures[weighed]

    def groundwork(self, settings: Structured, dense: Transformer, dropped: list[int], journal: Journal, report: Tell) -> Groundwork:
        """What plans are made from; kept for the next call with these settings. dense: the model without the layers that are `dropped`."""
        if self._ground is None or self._ground[0] != (settings, dropped):
            instability = self.analyze_attention_dynamics().instability
            survivors = [i for i in range(len(instability)) if i not in dropped]
            restless = relative(instability[survivors], [shape_of(layer).heads for layer in layers_of(dense)])
            protect = [survivors.index(i) for i in settings.protect if i in survivors]
            some = [(s.ids, s.start, s.end) for s in self.data.samples[:PROBED]]
            rows = masked_rows(some, self.model.config.mask_id, draws=1, seed=self.seed + 2, batch=self.batch)
            ground = Groundwork(self.model, dense, settings, self.exposures(settings), restless, protect, rows, journal, report)
            self._ground = (settings, dropped), ground
        return self._ground[1]

    def evaluate(self, pruned: Transformer, test_data: Any, *, repeats: int = 9, answers: int = 2) -> dict[str, Any]:
        """The pruned model beside the dense one on data of your own: quality with its standard error, agreement, sizes, and speed measured in turn.

        `quality_drop` is by the measure that it was pruned by. answers: how many samples' beginnings both models go on from with the default recipe, for
        tokens per second; 0 leaves that out. `sparsity` is the share of each dense layer's weights that are gone or zero. The model
        may be quantised as well; shapes, sparsity and FLOPs are then left out.
        """
        samples = Calibration.of(test_data, self.seed).samples
        check_samples(samples, self.model.config)
        rows = masked_rows([(s.ids, s.start, s.end) for s in samples], self.model.config.mask_id, draws=self.draws, seed=self.seed + 1, batch=self.batch)
        dense, (changed, apart) = judge(self.model, rows), judge_beside(pruned, log_probabilities(self.model, rows), rows)
        told = getattr(pruned, "report", {})
        measure = told.get("measure", Goal.measure)
        lost = drop(changed, dense, measure)
        before, after = size_of(self.model), size_of(pruned)
        c = self.model.config
        length, predicted = self._canvas(told)
        sizes = stored_bytes(self.model), stored_bytes(pruned)
        found = {
            "measure": measure,
            "quality_drop": lost.value,
            "quality_drop_standard_error": lost.error,
            "dense_nll": dense.mean,
            "nll": changed.mean,
            "dense_masked_ppl": dense.masked_ppl,
            "masked_ppl": changed.masked_ppl,
            "dense_accuracy": dense.accuracy,
            "accuracy": changed.accuracy,
            "agreement": 1 - drop(changed, dense, "agreement").value,
            "kl": apart,
            "parameters": after["parameters"],
            "parameter_ratio": after["parameters"] / before["parameters"],
            "bytes": sizes[1],
            "memory_ratio": sizes[1] / sizes[0],
            "length": length,
            **speed.compare(self.model, pruned, length=length, predicted=predicted, repeats=repeats),
            **speed.answers(self.model, pruned, [sample.ids[: sample.start or len(sample.ids) // 2] for sample in samples[:answers]]),
        }
        if not any(map(packed, pruned.parameters())):
            work = [flops(c, [shape_of(layer) for layer in layers_of(m)], length, predicted) for m in (self.model, pruned)]
            found |= {"flops_ratio": work[1] / work[0], "layers": [dataclasses.asdict(shape_of(layer)) for layer in layers_of(pruned)]}
            found |= {"sparsity": sparsity_by_layer(self.model, pruned, list(getattr(pruned, "kept", {})))}
        return found | {name: told[name] for name in ("target_speedup", "quality_drop_threshold") if name in told}


def sparsity_by_layer(dense: Transformer, pruned: Transformer, survivors: list[int]) -> list[float] | None:
    """The share of each dense layer's matrices that is gone or zero; None if it is not known which of them the pruned model's layers are."""
    left = [sum(int(linear.weight.count_nonzero()) for linear in matrices(layer).values()) for layer in layers_of(pruned)]
    whole = [sum(linear.weight.numel() for linear in matrices(layer).values()) for layer in layers_of(dense)]
    survivors = survivors or list(range(len(whole)))
    if len(survivors) != len(left):
        return None
    found = dict(zip(survivors, left, strict=True))
    return [1 - found.get(index, 0) / total for index, total in enumerate(whole)]
