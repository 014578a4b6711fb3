"""Rotary position embedding (RoFormer, arXiv 2104.09864) for explicit absolute positions, and its scalings.

Scaling makes contexts beyond the trained length possible; it is always an explicit choice:
linear interpolation (2306.15595), NTK-aware, YaRN (2309.00071) and LongRoPE's per-frequency factors (2402.13753).
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

KINDS = ("linear", "ntk", "yarn", "longrope")


@dataclass(frozen=True)
class RopeScaling:
    """How frequencies change for a context `factor` times longer than `original_length` tokens.

    kind: "linear" divides every frequency by `factor`; "ntk" raises theta instead, so that high frequencies
    stay; "yarn" interpolates only slow frequencies (`beta_fast`, `beta_slow` are rotations over the original
    length) and scales attention by 0.1·ln(factor)+1; "longrope" divides frequency i by `factors[i]`.
    original_length 0 stands for the model's trained length.
    """

    kind: str
    factor: float = 1.0
    original_length: int = 0
    factors: tuple[float, ...] = ()
    beta_fast: float = 32.0
    beta_slow: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"rope scaling kind={self.kind!r} is unknown; accepted: {', '.join(KINDS)}")
        if not self.factor >= 1.0:
            raise ValueError(f"rope scaling factor={self.factor} must be at least 1")
        if self.kind == "longrope" and not self.factors:
            raise ValueError("rope scaling kind='longrope' needs factors, one per frequency (head_dim / 2 of them): give a JSON file or RopeScaling(...)")

    @staticmethod
    def parse(text: str) -> "RopeScaling":
        """`kind:factor`, e.g. `ntk:4`, `yarn:4@4096` with the trained length, or a JSON file with the fields (LongRoPE's factors)."""
        if text.endswith(".json"):
            try:
                fields = json.loads(Path(text).read_text(encoding="utf-8"))
                return RopeScaling(**fields | {"factors": tuple(fields.get("factors", ()))})
            except (TypeError, AttributeError, ValueError) as error:
                raise ValueError(f"rope_scaling={text!r} is not a JSON object with kind, factor, original_length, factors: {error}") from None
        kind, _, rest = text.partition(":")
        factor, _, original = rest.partition("@")
        try:
            return RopeScaling(kind, float(factor or 1.0), int(original or 0))
        except ValueError as error:
            raise ValueError(f"rope_scaling={text!r}: {error}; write KIND:FACTOR, e.g. ntk:4, or KIND:FACTOR@TRAINED_LENGTH") from None


def from_checkpoint(field: dict | None, trained_length: int) -> RopeScaling | None:
    """A Qwen-style `rope_scaling` field of config.json. Raises ValueError for a kind that is not supported."""
    if field is not None and not isinstance(field, dict):
        raise ValueError(f"config.json: rope_scaling={field!r} must be an object")
    if not field or field.get("rope_type", field.get("type")) == "default":
        return None
    kind = {"ntk": "ntk", "linear": "linear", "yarn": "yarn", "longrope": "longrope"}.get(field.get("rope_type", field.get("type", "")))
    if kind is None:
        raise ValueError(f"config.json: rope_scaling={field!r} is not supported; supported kinds: {', '.join(KINDS)}")
    return RopeScaling(
        kind,
        float(field.get("factor") or 1.0),
        int(field.get("original_max_position_embeddings", trained_length)),
        tuple(field.get("long_factor") or ()),
        float(field.get("beta_fast", 32.0)),
        float(field.get("beta_slow", 1.0)),
    )


def frequencies(head_dim: int, theta: float, scaling: RopeScaling | None) -> tuple[Float[Tensor, " half"], float]:
    """Inverse frequencies (radians per position, fp32) and the factor that multiplies cos and sin."""
    exponent = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
    if scaling is None:
        return theta**-exponent, 1.0
    if scaling.kind == "linear":
        return theta**-exponent / scaling.factor, 1.0
    if scaling.kind == "ntk":
        return (theta * scaling.factor ** (head_dim / (head_dim - 2))) ** -exponent, 1.0
    if scaling.kind == "longrope":
        if len(scaling.factors) != head_dim // 2:
            raise ValueError(f"rope scaling has {len(scaling.factors)} factors; this model needs head_dim / 2 = {head_dim // 2}")
        growth = math.log(scaling.factor) / math.log(scaling.original_length)
        return theta**-exponent / torch.tensor(scaling.factors), math.sqrt(1.0 + growth)
    plain = theta**-exponent

    def dimension(rotations: float) -> float:
        """The (fractional) frequency index that turns `rotations` times over the original length."""
        return head_dim * math.log(scaling.original_length / (rotations * 2 * math.pi)) / (2 * math.log(theta))

    low = max(math.floor(dimension(scaling.beta_fast)), 0)
    high = min(math.ceil(dimension(scaling.beta_slow)), head_dim - 1)
    slow = ((torch.arange(head_dim // 2) - low) / max(high - low, 1e-3)).clamp(0, 1)
    return plain * (1 - slow) + plain / scaling.factor * slow, 0.1 * math.log(scaling.factor) + 1.0


def rotate(x: Float[Tensor, "b heads rows dim"], cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate feature i with feature i + dim/2 by the row's angle; cos and sin are those of `angles`."""
    return x * cos + x.roll(x.shape[-1] // 2, -1) * sin


def angles(
    positions: Int[Tensor, "b rows"], inverse: Float[Tensor, " half"], factor: float
) -> tuple[Float[Tensor, "b 1 rows dim"], Float[Tensor, "b 1 rows dim"]]:
    """cos and sin of every row's angles, fp32, for both halves of the features; the first half's sine is negative, as it meets the other half."""
    turned = positions[:, None, :, None].float() * inverse
    cos, sin = turned.cos() * factor, turned.sin() * factor
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)
