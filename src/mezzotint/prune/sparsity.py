"""How many single weights go, and by which method."""

from dataclasses import dataclass, field, fields

from mezzotint.analysis.sinks import SinkRule
from mezzotint.fields import check
from mezzotint.prune import masks
from mezzotint.prune.calibration import NOISES

SINK = ("sink", "sink-sparsegpt")
HESSIAN = ("sparsegpt", "sink-sparsegpt")
GRADIENTS = ("movement", "taylor", "fisher")
METHODS = ("magnitude", *GRADIENTS, "wanda", "wanda-noised", "sparsegpt", *SINK)


@dataclass(frozen=True)
class Sparsity:
    """How many weights go, and which.

    method: "sink" (Wanda's score from activations in which sink positions count less; noised text, dense activations of all layers at once), "sink-sparsegpt"
        (the Hessian likewise; clean text, layer by layer), "wanda", "wanda-noised" (on the noised views that "sink" sees: the fair comparison), "sparsegpt",
        "magnitude", or from gradients of the masked-diffusion loss: "fisher", "taylor", "movement" (signed, so noisy at a trained optimum).
    ratio: share of every matrix that is pruned, in (0, 1). pattern: "none" or N:M (2:4, 4:8), which must prune the same share.
    noise: "auto" (as the released code: "steps" for LLaDA, "uniform" for Dream), "steps" or "uniform", see `Calibration`.
    rule: what a sink is. average: "per_step" or "mean" over the views of a sample, for "sink"; the paper writes the mean, its code takes each step.
    instability: weigh down only sinks that come and go. sequential: "sink" layer by layer behind pruned layers, as Wanda does it, instead of all at once.
    adaptive: Wanda's variant, rows lose the same share of their importance. early: sparser early layers: ratio + early at the first, ratio - early at the last.
    damping: of SparseGPT's Hessian, relative to its mean diagonal. batch: samples (of one length) that are run together.
    """

    method: str = "sink"
    ratio: float = 0.5
    pattern: str = "none"
    noise: str = "auto"
    rule: SinkRule = field(default_factory=SinkRule)
    average: str = "per_step"
    instability: bool = False
    sequential: bool = False
    adaptive: bool = False
    early: float = 0.0
    damping: float = 0.01
    batch: int = 1

    def __post_init__(self) -> None:
        check("sparsity", self)
        group = masks.parse_pattern(self.pattern)
        if self.method not in METHODS:
            raise ValueError(f"method={self.method!r} is unknown; accepted: {', '.join(METHODS)}")
        if not 0 < self.ratio < 1:
            raise ValueError(f"ratio={self.ratio} must lie between 0 and 1")
        if group is not None and self.ratio != group[0] / group[1]:
            raise ValueError(f"ratio={self.ratio} does not fit pattern={self.pattern}, which prunes {group[0] / group[1]:g}")
        if self.noise not in ("auto", *NOISES):
            raise ValueError(f"noise={self.noise!r} is unknown; accepted: auto, {', '.join(NOISES)}")
        if self.average not in ("per_step", "mean"):
            raise ValueError(f"average={self.average!r} is unknown; accepted: per_step, mean")
        if not 0 < self.ratio + abs(self.early) < 1 or self.ratio - abs(self.early) <= 0:
            raise ValueError(f"early={self.early} takes a layer's ratio out of (0, 1) at ratio={self.ratio}")
        if not 0 < self.damping <= 1 or self.batch < 1:
            raise ValueError(f"damping={self.damping} must lie in (0, 1] and batch={self.batch} be at least 1")
        self.refuse_unused(group)

    @property
    def dense(self) -> bool:
        """Whether what counts is asked of the dense model alone, not layer by layer behind what was pruned."""
        return self.method in ("magnitude", *GRADIENTS) or (self.method == "sink" and not self.sequential)

    def refuse_unused(self, group: tuple[int, int] | None) -> None:
        """An option that the method would ignore is an error."""
        uses = {
            "rule": self.method in SINK,
            "instability": self.method in SINK,
            "average": self.method == "sink",
            "sequential": self.method == "sink",
            "adaptive": self.method in ("wanda", "wanda-noised", "sink") and group is None,
            "early": group is None,
            "damping": self.method in HESSIAN,
            "noise": self.method in (*SINK, *GRADIENTS, "wanda-noised"),
            "batch": self.method != "magnitude",
        }
        defaults = {f.name: f.default if f.name != "rule" else SinkRule() for f in fields(self)}
        for name, used in uses.items():
            if not used and getattr(self, name) != defaults[name]:
                raise ValueError(f"{name}={getattr(self, name)!r} has no effect with method={self.method!r} and pattern={self.pattern!r}; leave it out")

    def at(self, layer: int, layers: int) -> float:
        """The ratio of one layer."""
        return self.ratio if layers < 2 else self.ratio + self.early - 2 * self.early * layer / (layers - 1)
