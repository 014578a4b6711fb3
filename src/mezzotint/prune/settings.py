"""What structured pruning may do, and the presets."""

from dataclasses import dataclass

from mezzotint.evaluation.comparison import MEASURES
from mezzotint.fields import check
from mezzotint.models.config import ModelConfig
from mezzotint.prune.allocation import ALLOCATIONS
from mezzotint.prune.importance import IMPORTANCES, RANKINGS
from mezzotint.prune.refit import REPAIRS
from mezzotint.prune.sparsity import Sparsity
from mezzotint.prune.structure import GROUPING

COSTS = ("measured", "flops")


@dataclass(frozen=True)
class Structured:
    """Removal of heads and MLP neurons (and, on request, layers).

    ranking: which heads go first: "importance" (they add little), "instability" (they spend attention on sinks that move) or "combined" (the difference of the
        two, importance times `weight`, which only this one takes; on the bundled model importance alone loses least).
    importance: how much a head or neuron adds, "reconstruction" (what is left once the others make up for it), "energy" (sinks weighed down) or "fluctuation".
    repair: "refit" (the rest is fitted to make up for what goes), "bias" (its mean only) or "none".
    grouping: with shared keys (GQA), "balanced" takes a head of every group, "group" a key head with all that use it.
    most: the largest share of a layer's heads or neurons that may go. multiple: kept neurons are a multiple of it (0: 64 from a width of 2,048 on, else 8).
    allocation: how many go from which layer: "measured" (where the loss found by trying is least for the time it saves) or "uniform".
    drop_layers: also whole layers, those that change their input least, as long as they cost at most half the quality that may be lost.
    protect: layers that stay as they are. length, predicted: the canvas the speed is meant for (None: 512, or the model's reach if that is less),
        and the positions whose logits a step takes.
    cost: "measured" (seconds of a forward here and now, dense and pruned in turn) or "flops". passes: how often the plan may be
    revised towards the speed, and again towards the quality.
    """

    ranking: str = "importance"
    importance: str = "reconstruction"
    weight: float = 1.0
    repair: str = "refit"
    grouping: str = "balanced"
    most: float = 0.75
    multiple: int = 0
    allocation: str = "measured"
    drop_layers: bool = False
    protect: tuple[int, ...] = ()
    length: int | None = None
    predicted: int = 32
    cost: str = "measured"
    passes: int = 3

    def __post_init__(self) -> None:
        tables = {"ranking": RANKINGS, "importance": IMPORTANCES, "repair": REPAIRS, "grouping": GROUPING, "allocation": ALLOCATIONS, "cost": COSTS}
        for name, accepted in tables.items():
            if getattr(self, name) not in accepted:
                raise ValueError(f"{name}={getattr(self, name)!r} is unknown; accepted: {', '.join(accepted)}")
        check("structured", self)
        if self.weight != 1 and self.ranking != "combined":
            raise ValueError(f"weight={self.weight} has no effect with ranking={self.ranking!r}; choose ranking='combined'")
        if not 0 < self.most < 1:
            raise ValueError(f"most={self.most} must lie between 0 and 1")
        for name, least in (("length", 2), ("predicted", 1), ("passes", 1), ("multiple", 0)):
            if (given := getattr(self, name)) is not None and given < least:
                raise ValueError(f"{name}={given} must be at least {least}")
        if self.length is not None and self.predicted > self.length:
            raise ValueError(f"predicted={self.predicted} must be at most length={self.length}")

    def canvas(self, config: ModelConfig) -> tuple[int, int]:
        """`length` and `predicted` on a model. Raises ValueError if a given length is beyond its reach."""
        if self.length is not None and self.length > config.reach:
            raise ValueError(f"length={self.length} does not fit the model's {config.context}")
        length = self.length or min(512, config.reach)
        return length, min(self.predicted, length)

    def rounding(self, mlp_size: int) -> int:
        return self.multiple or (64 if mlp_size >= 2048 else 8)


@dataclass(frozen=True)
class Goal:
    """What a pruned model should reach. The quality bound wins over the speed.

    target_speedup: 1.3 = a forward takes 1/1.3 of the time; quality_drop_threshold: the largest drop of quality, as `measure` counts it: "nll" (relative
        increase of the likelihood bound per token), "ppl" (of its exponential), "accuracy" or "agreement" (shares of masked positions), see
        `evaluation.comparison.drop`.
    """

    target_speedup: float = 1.3
    quality_drop_threshold: float = 0.05
    measure: str = "nll"

    def __post_init__(self) -> None:
        check("goal", self)
        if self.measure not in MEASURES:
            raise ValueError(f"measure={self.measure!r} is unknown; accepted: {', '.join(MEASURES)}")
        if not 1 < self.target_speedup <= 10:
            raise ValueError(f"target_speedup={self.target_speedup} must lie above 1, up to 10")
        if not 0 < self.quality_drop_threshold <= 10:
            raise ValueError(f"quality_drop_threshold={self.quality_drop_threshold} must lie above 0, up to 10")

    def reached(self, speedup: float, cost: str) -> bool:
        """Whether a speed is the target's: a measured one may fall short of it by a twentieth of the gain, one by arithmetic by its rounding."""
        share = 0.95 if cost == "measured" else 1 - 1e-6
        return speedup - 1 >= share * (self.target_speedup - 1)


@dataclass(frozen=True)
class Preset:
    """A named way to prune: structured settings with a goal, or sparsity; quantisation is applied when the checkpoint is loaded."""

    about: str
    structured: Structured | None = None
    goal: Goal | None = None
    sparsity: Sparsity | None = None
    compact: bool = False
    quantise: str | None = None


PRESETS: dict[str, Preset] = {
    "conservative": Preset("heads and neurons for 1.1 times the speed, at most 2 % of the likelihood", Structured(), Goal(1.1, 0.02)),
    "balanced": Preset("heads and neurons for 1.3 times the speed, at most 5 % of the likelihood", Structured(), Goal(1.3, 0.05)),
    "aggressive": Preset("heads, neurons and layers for 1.6 times the speed, at most 10 % of the likelihood", Structured(drop_layers=True), Goal(1.6, 0.10)),
    "paper": Preset("half of all weights by the paper's sink-aware Wanda; no speed by itself, no bound on the loss", sparsity=Sparsity("sink", 0.5)),
    "memory": Preset(
        "half of all weights by sink-aware SparseGPT, stored as a bitmask; int8 weights; no bound on the loss",
        sparsity=Sparsity("sink-sparsegpt", 0.5),
        compact=True,
        quantise="int8-weight",
    ),
    "edge": Preset(
        "heads and neurons for 1.3 times the speed, at most 8 %; int8 weights and activations", Structured(), Goal(1.3, 0.08), quantise="int8-dynamic"
    ),
    "ampere24": Preset(
        "2:4 by sink-aware SparseGPT, the pattern of NVIDIA's sparse tensor cores; no bound on the loss", sparsity=Sparsity("sink-sparsegpt", 0.5, "2:4")
    ),
}


def preset_of(preset: str | Preset) -> Preset:
    """A preset by its name. Raises ValueError listing the names."""
    if isinstance(preset, Preset):
        return preset
    if preset not in PRESETS:
        raise ValueError(f"preset={preset!r} is unknown; accepted: {', '.join(PRESETS)}")
    return PRESETS[preset]
