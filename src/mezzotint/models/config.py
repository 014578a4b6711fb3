"""What a checkpoint's transformer looks like, and every quirk of its family, as one frozen value."""

from dataclasses import dataclass

from mezzotint.models.rope import RopeScaling
from mezzotint.models.shape import Shape


@dataclass(frozen=True)
class Mixture:
    """A mixture of experts in place of the MLP: `experts` of them, `active` per token, each of width `size`.

    score: "softmax" or "sigmoid" over the experts; bias: whether a stored vector is added to the scores, "none", for the "selection" only, or also
    in the "weights"; renormalise: the chosen weights are divided by their sum; scale: and multiplied by this. groups, kept_groups: the experts fall
    into groups, and only the best are chosen from (by the sum of their two best scores). shared_size: width of an expert that every token uses, 0 for none.
    full_precision: the router computes in fp32. dense: layers that have an ordinary MLP.
    """

    experts: int
    active: int
    size: int
    score: str = "softmax"
    bias: str = "none"
    renormalise: bool = False
    scale: float = 1.0
    groups: int = 1
    kept_groups: int = 1
    shared_size: int = 0
    full_precision: bool = False
    dense: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.active <= self.experts:
            raise ValueError(f"config.json: {self.active} active experts of {self.experts}")
        if self.groups > 1 and (self.experts % self.groups or self.experts // self.groups < 2 or self.kept_groups > self.groups):
            raise ValueError(f"config.json: {self.experts} experts do not fall into {self.groups} groups of at least two, {self.kept_groups} of them kept")


@dataclass(frozen=True)
class ModelConfig:
    """Shape and quirks of one checkpoint. Families (`models/families/`) fill it in from `config.json`.

    Lengths are in tokens, sizes in features. `shift` is how many positions to the left of a token its
    prediction is made: 0 for LLaDA (a row predicts itself), 1 for Dream (a row predicts its right neighbour).

    block_length: block-causal models see the blocks before and their own, never a later one (None: everything). Blocks stand on multiples of
        block_length from the first real token, unless `aligned_to_end`: then one begins where the prompt ends.
    carry: a block's first token is decided alone, by the row before it (Fast-dLLM v2).
    norm: "rms", "rms_fp32" (the weight is multiplied in before the cast) or "layer"; rotary_dim: how many features of a head are rotated (None: all).
    activation, gated, mlp_bias: the MLP; mixture: experts instead. window: layers that see only so far to each side, except every
        `global_every`-th; they rotate with `local_theta`. stop_text: ends an answer, for models whose end of turn is several tokens.
    recipe: the named recipe that is used when none is given.
    ranks: processes that share every layer; heads, kv_heads and mlp_size are then one rank's (`models/parallel.py`).
    shapes: the sizes of a pruned checkpoint's layers, empty for all others; heads, kv_heads and mlp_size are then those before pruning.
    """

    family: str
    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp_size: int
    norm_eps: float
    rope_theta: float
    max_length: int
    mask_id: int
    stop_ids: tuple[int, ...]
    pad_id: int
    shift: int = 0
    qkv_bias: bool = False
    tied_head: bool = False
    rope_full_precision: bool = True
    rope_scaling: RopeScaling | None = None
    block_length: int | None = None
    aligned_to_end: bool = False
    carry: bool = False
    norm: str = "rms"
    norm_bias: bool = False
    qk_norm: bool = False
    rotary_dim: int | None = None
    out_bias: bool = False
    activation: str = "silu"
    gated: bool = True
    mlp_bias: bool = False
    mixture: Mixture | None = None
    window: int | None = None
    global_every: int = 1
    local_theta: float = 10000.0
    first_norm: bool = True
    embedding_norm: bool = False
    head_transform: bool = False
    head_bias: bool = False
    stop_text: str = ""
    recipe: str = "plain"
    shapes: tuple[Shape, ...] = ()
    ranks: int = 1

    @property
    def plain(self) -> bool:
        """Full attention, whole heads rotated, no experts, nothing around the layers: LLaDA and Dream and what is built like them."""
        special = self.block_length, self.window, self.rotary_dim, self.mixture
        return all(value is None for value in special) and not (self.embedding_norm or self.head_transform)

    @property
    def reach(self) -> int:
        """The longest canvas in tokens: the trained length, or what a scaling of the rotation makes of the length it starts from."""
        scaling = self.rope_scaling
        return self.max_length if scaling is None else max(self.max_length, int(scaling.original_length * scaling.factor))

    @property
    def context(self) -> str:
        """`reach` in words."""
        return f"trained length of {self.max_length}" + ("" if self.rope_scaling is None else f", scaled to {self.reach}")

    def local(self, layer: int) -> bool:
        """Whether a layer sees only its window."""
        return self.window is not None and layer % self.global_every != 0

    def expert_layers(self) -> int:
        """How many layers have experts."""
        return 0 if self.mixture is None else self.layers - len(self.mixture.dense)

    def mlp_weights(self) -> int:
        """Weights of the linear maps inside MLPs and experts, which `weights="int8"` halves."""
        width = (3 if self.gated else 2) * self.hidden_size
        experts = 0 if self.mixture is None else self.expert_layers() * (self.mixture.experts * self.mixture.size + self.mixture.shared_size)
        neurons = sum(shape.mlp_size for shape in self.shapes) if self.shapes else (self.layers - self.expert_layers()) * self.mlp_size
        return width * (experts + neurons)

    def attention_weights(self) -> int:
        """Weights of the linear maps around attention."""
        heads = sum(shape.heads + shape.kv_heads for shape in self.shapes) if self.shapes else self.layers * (self.heads + self.kv_heads)
        return 2 * self.hidden_size * self.head_dim * heads

    def parameters(self, *, active: bool = False) -> int:
        """Number of weights, counted from the shape alone; active: those that one token meets."""
        norm = self.hidden_size * (2 if self.norm_bias else 1)
        attention = self.hidden_size * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        attention += self.head_dim * (self.heads + 2 * self.kv_heads) if self.qkv_bias else 0
        attention += (self.hidden_size if self.out_bias else 0) + (2 * self.head_dim if self.qk_norm else 0)
        width = 3 if self.gated else 2
        mlp = width * self.hidden_size * self.mlp_size + ((width - 1) * self.mlp_size + self.hidden_size if self.mlp_bias else 0)
        tables = (1 if self.tied_head else 2) * self.vocab_size * self.hidden_size + (self.vocab_size if self.head_bias else 0)
        outside = norm + (norm if self.embedding_norm else 0) + (self.hidden_size**2 + norm if self.head_transform else 0)
        sparse = 0
        if self.mixture is not None:
            m = self.mixture
            used = m.active if active else m.experts
            sparse = self.hidden_size * (3 * (used * m.size + m.shared_size) + m.experts) + (m.experts if m.bias != "none" else 0)
        layers = self.layers * (attention + 2 * norm) - (0 if self.first_norm else norm)
        return layers + (self.layers - self.expert_layers()) * mlp + self.expert_layers() * sparse + tables + outside - self.removed()

    def removed(self) -> int:
        """How many weights fewer than before pruning."""
        total = 0
        for shape in self.shapes:
            heads, kv_heads = self.heads - shape.heads, self.kv_heads - shape.kv_heads
            total += self.hidden_size * (self.head_dim * 2 * (heads + kv_heads) + 3 * (self.mlp_size - shape.mlp_size))
            total += self.head_dim * (heads + 2 * kv_heads) if self.qkv_bias else 0
            total -= 2 * self.hidden_size if shape.compensated else 0
        return total
