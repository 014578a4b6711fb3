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
from mezzotint.evaluation.comparison import Difference, Likelihood, closeness, likelihood, masked_rows, paired_increase
from mezzotint.models.quantised import GROUP, packed, quantise, stored_bytes
from mezzotint.models.transformer import Transformer
from mezzotint.prune import speed
from mezzotint.prune.calibration import NOISES, Calibration, Exposure, check_ids, exposures, spans
from mezzotint.prune.groundwork import Groundwork, Tell, relative
from mezzotint.prune.journal import Journal
from mezzotint.prune.matrices import layers_of
from mezzotint.prune.search import Search
from mezzotint.prune.settings import Goal, Preset, Structured, preset_of
from mezzotint.prune.sparsity import Sparsity
from mezzotint.prune.structure import Kept, flops, shape_of, size_of
from mezzotint.prune.unstructured import sparsify

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


class SinkAwarePruner:
    """Analyse, prune, evaluate.

    model: a dense model; it is never changed. calibration_data: see `Calibration.of`. validation_data: what quality is judged on while pruning, default the
    last quarter of the calibration data, which is then not calibrated on. settings: what may be removed and how it is chosen. draws: masked versions of each
    validation sample; views: noise levels at which each calibration sample is shown. rule and noise hold for
    presets of single weights too. Quality is the likelihood bound in nats per token, on the same masks for every model.
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
        check_ids(self.data.samples, model.config.vocab_size)
        check_ids(checked, model.config.vocab_size)
        self.noise = noise if noise != "auto" else "uniform" if model.config.family == "dream" else "steps"
        self.checks = masked_rows([(s.ids, s.start, s.end) for s in checked], model.config.mask_id, draws=draws, seed=seed, batch=batch)
        self._analyses: dict[int, Analysis] = {}
        self._exposures: dict[bool, list[Exposure]] = {}
        self._dense: Likelihood | None = None
        self._ground: tuple[tuple[Structured, list[int]], Groundwork] | None = None

    def check(self, settings: Structured) -> None:
        """Refuse settings that do not fit the model or leave something given without effect."""
        layers, reach = len(layers_of(self.model)), self.model.config.reach
        strange = [layer for layer in settings.protect if not 0 <= layer < layers]
        if strange:
            raise ValueError(f"protect={strange[0]} is not a layer; the model has {layers}")
        if "rule" in self.given and settings.importance != "energy":
            raise ValueError(f"rule has no effect with importance={settings.importance!r}, which weighs all positions alike; choose importance='energy'")
        if settings.length > reach and settings.length != Structured.length:
            raise ValueError(f"length={settings.length} does not fit the model's {self.model.config.context}")

    @property
    def dense_quality(self) -> Likelihood:
        if self._dense is None:
            self._dense = likelihood(self.model, self.checks)
        return self._dense

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
        preset: str | Preset | None = None,
        strict: bool = False,
        journal: Journal | None = None,
        report: Tell | None = None,
    ) -> Pruned:
        """Remove heads and neurons for a speed, within a bound on the quality lost; or, with a preset of that kind, zero single weights.

        preset: a name of `PRESETS`, or one of your own; its settings replace the pruner's, given numbers its goal. Default goal: 1.3 times the speed, 5 %.
        If both cannot be met the bound wins, and `report` says what was reached; strict=True raises ThresholdError instead. What has no smaller step to go
        back to, sparsity and quantisation, raises ThresholdError if the given bound would be passed. A preset's quantisation is judged here, and
        applied when what `save` writes is loaded.
        """
        wanted = preset_of(preset) if preset is not None else Preset("", self.settings)
        tell, kept_so_far = report or (lambda stage, done, total: None), journal or Journal(None)
        if wanted.quantise:
            quantise(self.model, wanted.quantise, layers=1)  # what is not possible is said before hours of pruning
        if wanted.sparsity is not None:
            for name, given in (("target_speedup", target_speedup), ("strict", strict or None)):
                if given is not None:
                    raise ValueError(f"{name}={given} has no effect with preset={preset!r}, which zeroes single weights and gains no speed; leave it out")
            pruned = self._sparse(wanted.sparsity, quality_drop_threshold, kept_so_far, tell)
        else:
            goal = wanted.goal or Goal()
            goal = Goal(
                goal.target_speedup if target_speedup is None else target_speedup,
                goal.quality_drop_threshold if quality_drop_threshold is None else quality_drop_threshold,
            )
            settings = wanted.structured or self.settings
            self.check(settings)
            if wanted.quantise == "int4-weight":
                widest = max(shape_of(layer).mlp_size for layer in layers_of(self.model))
                settings = dataclasses.replace(settings, multiple=math.lcm(settings.rounding(widest), GROUP))
            pruned = self._structured(settings, goal, strict, kept_so_far, tell)
        if wanted.quantise:
            pruned.report |= self._quantised(pruned, wanted.quantise, pruned.report["quality_drop_threshold"])
        pruned.report |= {"compact": wanted.compact, "quantise": wanted.quantise}
        return pruned

    def _structured(self, settings: Structured, goal: Goal, strict: bool, journal: Journal, tell: Tell) -> Pruned:
        search = Search(self, settings, goal, journal, tell)
        walk, told = search.best()
        survivors = [i for i in range(len(layers_of(self.model))) if i not in search.dropped]
        pruned = Pruned(walk.model, dict(zip(survivors, walk.kept, strict=True)), told)
        if strict and not pruned.report["reached"]:
            raise ThresholdError(
                f"target_speedup={goal.target_speedup} was not reached within quality_drop_threshold={goal.quality_drop_threshold}: "
                f"{pruned.report['speedup']:.2f} at a drop of {pruned.report['quality_drop']:.3f}"
            )
        return pruned

    def _sparse(self, settings: Sparsity, bound: float | None, journal: Journal, tell: Tell) -> Pruned:
        if bound is not None:
            Goal(quality_drop_threshold=bound)
        default = Sparsity(settings.method, settings.ratio, settings.pattern)
        settings = dataclasses.replace(settings, **{k: v for k, v in self.given.items() if getattr(settings, k) == getattr(default, k)})
        found = sparsify(self.model, self.data, settings, journal=journal, report=tell)
        changed = likelihood(found.model, self.checks)
        difference = self._within(bound, changed, f"{settings.method} costs")
        quality = {"quality_drop": difference.relative, "quality_drop_standard_error": difference.error, "quality_drop_threshold": bound}
        quality |= {"dense_nll": self.dense_quality.mean, "nll": changed.mean}
        return Pruned(found.model, {}, found.report | quality | closeness(found.model, self.model, self.checks))

    def _quantised(self, pruned: Transformer, scheme: str, bound: float | None) -> dict[str, float]:
        """The loss of what will be loaded: pruned and quantised."""
        difference = self._within(bound, likelihood(quantise(pruned, scheme), self.checks), f"with quantise={scheme} the loss is")
        return {"quality_drop_quantised": difference.relative, "quality_drop_quantised_standard_error": difference.error}

    def _within(self, bound: float | None, changed: Likelihood, what: str) -> Difference:
        """The loss against the dense model. Raises ThresholdError if it passes the bound; what: how the error begins to say so."""
        difference = paired_increase(changed, self.dense_quality)
        if bound is not None and not difference.relative <= bound:
            raise ThresholdError(f"quality_drop_threshold={bound} would be passed: {what} {difference.relative:.3f}")
        return difference

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

    def evaluate(self, pruned: Transformer, test_data: Any, *, repeats: int = 9) -> dict[str, Any]:
        """The pruned model beside the dense one on data of your own: quality with its standard error, agreement, sizes and measured speed.

        It may be quantised as well; shapes and FLOPs are then left out.
        """
        samples = Calibration.of(test_data, self.seed).samples
        check_ids(samples, self.model.config.vocab_size)
        batches = masked_rows([(s.ids, s.start, s.end) for s in samples], self.model.config.mask_id, draws=self.draws, seed=self.seed + 1, batch=self.batch)
        dense, changed = likelihood(self.model, batches), likelihood(pruned, batches)
        difference = paired_increase(changed, dense)
        before, after = size_of(self.model), size_of(pruned)
        s, c = self.settings, self.model.config
        told = getattr(pruned, "report", {})
        length = told.get("length", min(s.length, c.reach))
        sizes = stored_bytes(self.model), stored_bytes(pruned)
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
            "bytes": sizes[1],
            "memory_ratio": sizes[1] / sizes[0],
            "length": length,
            **speed.compare(self.model, pruned, length=length, predicted=min(s.predicted, length), repeats=repeats),
        }
        if not any(map(packed, pruned.parameters())):
            work = [flops(c, [shape_of(layer) for layer in layers_of(m)], length, min(s.predicted, length)) for m in (self.model, pruned)]
            found |= {"flops_ratio": work[1] / work[0], "layers": [dataclasses.asdict(shape_of(layer)) for layer in layers_of(pruned)]}
        return found | {name: told[name] for name in ("target_speedup", "quality_drop_threshold") if name in told}
