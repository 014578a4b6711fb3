"""Unstructured and N:M pruning: sink-aware Wanda and SparseGPT (arXiv 2602.17664) and what they are compared with.

Magnitude; movement (arXiv 2005.07683) and its Taylor and Fisher relatives at fixed weights; Wanda (arXiv 2306.11695); SparseGPT (arXiv 2301.00774).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mezzotint.evaluation.predictions import weights_digest
from mezzotint.models.transformer import Attend, Layer, Scope, Transformer
from mezzotint.prune import masks
from mezzotint.prune.calibration import Calibration, Exposure, check_samples, exposures, noise_of
from mezzotint.prune.gradients import gradient_scores
from mezzotint.prune.journal import Journal
from mezzotint.prune.matrices import NAMES, SITE_OF, SITES, Stream, inputs, layers_of, matrices, no_grad, replace, sparsity_of, twin
from mezzotint.prune.sparsegpt import BLOCK, Singular, solve
from mezzotint.prune.sparsity import GRADIENTS, HESSIAN, SINK, Sparsity


class Statistic:
    """What has been seen of the inputs of one layer's sites."""

    def __init__(self, kind: str):
        self.kind = kind
        self.values: dict[str, Tensor] = {}
        self.weight: Tensor | None = None

    def look(self, site: str, x: Float[Tensor, "b n c"]) -> None:
        if site not in SITES:
            return
        x = x.float() if self.weight is None else x.float() * self.weight[..., None]
        flat = x.flatten(0, 1)
        if self.kind == "hessian":
            seen = flat.T @ flat
        elif self.kind == "norm_sum":
            seen = torch.linalg.vector_norm(flat, dim=0)
        else:
            seen = flat.square().sum(0)
        self.values[site] = self.values[site] + seen if site in self.values else seen


@dataclass(frozen=True)
class Sparsified:
    """The pruned model (untouched tensors are shared with the dense one) and what was done: settings, sparsity, matrices that fell back."""

    model: Transformer
    report: dict[str, Any]


@no_grad
def sparsify(
    model: Transformer,
    data: Calibration | Tensor | list,
    settings: Sparsity,
    *,
    scores: Sequence[dict[str, Tensor]] | None = None,
    journal: Journal | None = None,
    report: Callable[[str, int, int], None] | None = None,
) -> Sparsified:
    """Prune every matrix of every layer. The given model stays as it is.

    data: see `Calibration.of`; magnitude does not look at it. scores: what `importances` has found for these settings, ratio and pattern aside. journal:
    keeps finished layers and, where all layers are calibrated at once, the sums so far, so an interrupted run goes on; sums of gradients, as large as the
    model, are not kept. report(stage, done, total) is called as work is done. Raises ValueError for settings that do not fit the model.
    """
    data = Calibration.of(data)
    tell = report or (lambda stage, done, total: None)
    check_samples(data.samples, model.config)
    work = Work(twin(model), model, data, settings, journal or Journal(None), tell)
    group = masks.parse_pattern(settings.pattern)
    if group is not None:
        wrong = [linear.in_features for layer in work.layers for linear in matrices(layer).values() if linear.in_features % group[1]]
        if wrong:
            raise ValueError(f"pattern={settings.pattern}: a matrix has {wrong[0]} columns, which are not a multiple of {group[1]}")
        if settings.method in HESSIAN and BLOCK % group[1]:
            raise ValueError(f"pattern={settings.pattern}: method={settings.method!r} goes by {BLOCK} columns, which are not a multiple of {group[1]}")
    said = {"sparsity": asdict(settings)} | data.identity()
    work.journal.claim("weights", said | {"weights": weights_digest(model), "dtype": str(model.dtype)})
    if settings.dense:
        for index, found in enumerate(scores or work.scores_of_all()):
            work.prune(index, found)
    elif scores is not None:
        raise ValueError(f"scores have no effect with method={settings.method!r}, which prunes layer by layer; leave them out")
    else:
        work.layer_by_layer()
    outcome = {
        "method": settings.method,
        "ratio": settings.ratio,
        "pattern": settings.pattern,
        "sparsity": sparsity_of(work.model),
        "fell_back": work.fell_back,
    }
    return Sparsified(work.model, outcome)


@no_grad
def importances(model: Transformer, data: Calibration | Tensor | list, settings: Sparsity) -> list[dict[str, Tensor]]:
    """How much each weight of each layer counts, for methods that ask the dense model alone: several ratios and patterns then need one calibration.

    As large as the model in fp32. Raises ValueError for methods that prune layer by layer.
    """
    if not settings.dense:
        raise ValueError(f"method={settings.method!r} prunes layer by layer: what counts depends on what has gone before")
    return list(Work(twin(model), model, Calibration.of(data), settings, Journal(None), lambda stage, done, total: None).scores_of_all())


class Work:
    """One run of `sparsify`."""

    def __init__(self, model: Transformer, dense: Transformer, data: Calibration, settings: Sparsity, journal: Journal, tell: Callable[[str, int, int], None]):
        self.model, self.dense, self.data, self.settings, self.journal, self.tell = model, dense, data, settings, journal, tell
        self.layers = layers_of(model)
        self.fell_back: list[str] = []

    def exposures(self, first: int = 0) -> Iterator[tuple[int, list[Exposure]]]:
        """Calibration's forwards, the sinks found with the dense model."""
        s = self.settings
        noise = noise_of(s.noise, self.model.config)
        clean = s.method in ("wanda", *HESSIAN)
        rule = s.rule if s.method in SINK else None
        return exposures(self.dense, self.data, noise=noise, clean=clean, rule=rule, average=s.average, instability=s.instability, batch=s.batch, first=first)

    def scores_of_all(self) -> Iterator[dict[str, Tensor]]:
        """Every layer's, from the dense model."""
        if self.settings.method == "magnitude":
            yield from ({name: linear.weight.float().abs() for name, linear in matrices(layer).items()} for layer in self.layers)
        elif self.settings.method in GRADIENTS:
            samples = self.data.samples
            yield from gradient_scores(self.model, self.exposures(), samples, self.settings.method, lambda done: self.tell("calibration", done, len(samples)))
        else:
            yield from self.at_once()

    def at_once(self) -> Iterator[dict[str, Tensor]]:
        """From dense activations. The journal keeps the sums after every batch of samples."""
        done, stored = self.journal.progress("calibration")
        seen = [Statistic("norm_sum") for _ in self.layers]
        for key, value in stored.items():
            index, _, site = key.partition("/")
            seen[int(index)].values[site] = value.to(self.model.device)
        for number, batch in self.exposures(done):
            for exposure in batch:
                self.dense.hidden(exposure.tokens.to(self.model.device), through=Seeing(seen, exposure.weight))
            self.journal.advance("calibration", number, {f"{i}/{site}": v for i, s in enumerate(seen) for site, v in s.values.items()})
            self.tell("calibration", number, len(self.data.samples))
        for index, statistic in enumerate(seen):
            yield self.scores(index, statistic, 1)

    def layer_by_layer(self) -> None:
        """Each layer sees what the pruned layers before it give out."""
        restored = next((index for index in range(len(self.layers)) if not self.restore(index)), len(self.layers))
        if restored == len(self.layers):
            return
        kind = "hessian" if self.settings.method in HESSIAN else "norm_sum" if self.settings.method == "sink" else "squares"
        batches: list[Exposure] = []
        for number, batch in self.exposures():
            batches += batch
            self.tell("calibration", number, len(self.data.samples))
        stream = Stream(self.model, [exposure.tokens for exposure in batches])
        count = sum(len(exposure.tokens) for exposure in batches)
        for index, layer in enumerate(self.layers):
            if index >= restored and not self.restore(index):
                statistic = Statistic(kind)
                with inputs(layer, statistic.look):
                    for number, exposure in enumerate(batches):
                        statistic.weight = exposure.weight
                        stream.run(number)
                if kind == "hessian":
                    self.solve(index, statistic, count)
                else:
                    self.prune(index, self.scores(index, statistic, count))
            stream.advance()

    def scores(self, index: int, statistic: Statistic, count: int) -> dict[str, Tensor]:
        """|W| times how strong each input is (Wanda, eq. 1)."""
        found = {}
        for name, linear in matrices(self.layers[index]).items():
            strength = statistic.values[SITE_OF[name]]
            found[name] = linear.weight.float().abs() * (strength if statistic.kind == "norm_sum" else (strength / count).sqrt())
        return found

    def restore(self, index: int) -> bool:
        """Take a layer from the journal, if it is there."""
        stored = self.journal.get(f"layer-{index}")
        if stored is None:
            return False
        for name, linear in matrices(self.layers[index]).items():
            replace(linear, "weight", stored[name].to(linear.weight.device))
        self.fell_back += self.journal.info(f"layer-{index}").get("fell_back", [])
        self.tell("layers", index + 1, len(self.layers))
        return True

    def keep(self, index: int, weights: dict[str, Tensor], fell_back: list[str] | None = None) -> None:
        for name, linear in matrices(self.layers[index]).items():
            replace(linear, "weight", weights[name].to(linear.weight.dtype))
        self.fell_back += fell_back or []
        self.journal.put(f"layer-{index}", weights, {"fell_back": fell_back or []})
        self.tell("layers", index + 1, len(self.layers))

    def prune(self, index: int, scores: dict[str, Tensor]) -> None:
        """Zero the least important weights of a layer."""
        if self.restore(index):
            return
        ratio = self.settings.at(index, len(self.layers))
        found = {name: choose(self.settings, scores[name], ratio) for name in NAMES}
        self.keep(index, {name: linear.weight.masked_fill(found[name], 0) for name, linear in matrices(self.layers[index]).items()})

    def solve(self, index: int, statistic: Statistic, count: int) -> None:
        """SparseGPT on every matrix; one whose Hessian cannot be factored is pruned by Wanda's score from its diagonal instead, and reported."""
        ratio, pattern = self.settings.at(index, len(self.layers)), masks.parse_pattern(self.settings.pattern)
        found, fell_back = {}, []
        for name, linear in matrices(self.layers[index]).items():
            hessian = statistic.values[SITE_OF[name]] * (2 / count)
            try:
                found[name], _ = solve(linear.weight, hessian, ratio, pattern, self.settings.damping)
            except Singular:
                score = linear.weight.float().abs() * hessian.diagonal().sqrt()
                found[name] = linear.weight.masked_fill(masks.grouped(score, *pattern) if pattern else masks.per_row(score, ratio), 0)
                fell_back.append(f"layers.{index}.{name}")
            found[name] = found[name].to(linear.weight.dtype)
        self.keep(index, found, fell_back)


def choose(settings: Sparsity, score: Float[Tensor, "rows cols"], ratio: float) -> Bool[Tensor, "rows cols"]:
    """What is pruned of one matrix: per row, except that magnitude and the gradients' scores compare all weights of the matrix."""
    pattern = masks.parse_pattern(settings.pattern)
    if pattern is not None:
        return masks.grouped(score, *pattern)
    if settings.adaptive:
        return masks.adaptive(score, ratio)
    return masks.of_matrix(score, ratio) if settings.method in ("magnitude", *GRADIENTS) else masks.per_row(score, ratio)


@dataclass(frozen=True)
class Seeing:
    """Layers as they are, with what enters them shown to the statistic of each."""

    seen: list[Statistic]
    weight: Tensor | None

    def __call__(self, index: int, layer: Layer, x: Tensor, cos: Tensor, sin: Tensor, scope: Scope, attend: Attend) -> Tensor:
        self.seen[index].weight = self.weight
        with inputs(layer, self.seen[index].look):
            return layer(index, x, cos, sin, scope, attend, None)
