"""Rotary position embedding (RoFormer, arXiv 2104.09864) for explicit absolute positions, and its scalings.

Scaling makes contexts beyond the trained length possible; it is always an explicit choice:
linear interpolation (2306.15595), NTK-aware, YaRN (2309.00071) and LongRoPE's per-frequency factors (2402.13753).
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

KINDS = ("linear", "ntk", "yarn", "longrope")
USED_BY = {"original_length": KINDS[2:], "factors": KINDS[3:], "beta_fast": KINDS[2:3], "beta_slow": KINDS[2:3], "attention_factor": KINDS[2:]}
"""Which kinds use a field."""


@dataclass(frozen=True)
class RopeScaling:
    """How frequencies change for a context `factor` times longer than `original_length` tokens.

    kind: "linear" divides every frequency by `factor`; "ntk" raises theta instead, so that high frequencies
    stay; "yarn" interpolates only slow frequencies (`beta_fast`, `beta_slow` are rotations over the original
    length) and scales attention by 0.1·ln(factor)+1; "longrope" divides frequency i by `factors[i]` and scales attention by what `factor` says.
    original_length 0 stands for the model's trained length. attention_factor: what multiplies cos and sin under "yarn" and "longrope", None for the above.
    """

    kind: str
    factor: float = 1.0
    original_length: int = 0
    factors: tuple[float, ...] = ()
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"rope scaling kind={self.kind!r} is unknown; accepted: {', '.join(KINDS)}")
        if not is_number(self.factor) or self.factor < 1:
            raise ValueError(f"rope scaling factor={self.factor!r} must be a finite number of at least 1")
        length = self.original_length
        if isinstance(length, bool) or not isinstance(length, int) or length < 0 or length == 1:
            raise ValueError(f"rope scaling original_length={length!r} must be 0 (the model's trained length) or a whole number of at least 2")
        positive: dict[str, Any] = {"beta_fast": self.beta_fast, "beta_slow": self.beta_slow}
        positive |= {} if self.attention_factor is None else {"attention_factor": self.attention_factor}
        for name, value in positive.items():
            if not is_number(value) or value <= 0:
                raise ValueError(f"rope scaling {name}={value!r} must be a finite number above 0")
        wrong = [factor for factor in self.factors if not is_number(factor) or factor <= 0] if isinstance(self.factors, tuple) else [self.factors]
        if wrong:
            raise ValueError(f"rope scaling factors has {wrong[0]!r}; accepted: finite numbers above 0")
        if self.kind == "longrope" and not self.factors:
            raise ValueError("rope scaling kind='longrope' needs factors, one per frequency (head_dim / 2 of them): give a JSON file or RopeScaling(...)")
        for name in ("factors", "beta_fast", "beta_slow", "attention_factor"):
            if getattr(self, name) != getattr(RopeScaling, name):
                self._check_used(name)

    def _check_used(self, name: str) -> None:
        if self.kind not in USED_BY[name]:
            raise ValueError(
                f"rope scaling {name}={getattr(self, name)!r} has no effect with kind={self.kind!r}, only with {' or '.join(USED_BY[name])}; leave it out"
            )

    @staticmethod
    def parse(text: str) -> "RopeScaling":
        """`kind:factor`, e.g. `ntk:4`, `yarn:4@4096` with the trained length, or a JSON file with the fields (LongRoPE's factors)."""
        if text.endswith(".json"):
            try:
                fields = json.loads(Path(text).read_text(encoding="utf-8"))
                factors = fields.get("factors", ())
                return chosen(RopeScaling(**fields | {"factors": tuple(factors) if isinstance(factors, list) else factors}))
            except (TypeError, AttributeError, ValueError) as error:
                raise ValueError(f"rope_scaling={text!r} is not a JSON object with the fields {', '.join(RopeScaling.__dataclass_fields__)}: {error}") from None
        kind, _, rest = text.partition(":")
        factor, _, original = rest.partition("@")
        try:
            return chosen(RopeScaling(kind, float(factor or 1.0), int(original or 0)))
        except ValueError as error:
            raise ValueError(f"rope_scaling={text!r}: {error}; write KIND:FACTOR, e.g. ntk:4, or KIND:FACTOR@TRAINED_LENGTH") from None


def chosen(scaling: RopeScaling) -> RopeScaling:
    """A scaling that a user wrote. Raises ValueError for an original length that makes no difference."""
    if scaling.original_length:
        scaling._check_used("original_length")
    return scaling


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def from_checkpoint(field: dict | None, trained_length: int, original_length: int | None = None) -> RopeScaling | None:
    """A Qwen-style `rope_scaling` field of config.json; original_length: the one that stands beside it. Raises ValueError for what is not supported.

    LongRoPE's factor is how often the original length goes into the trained one, where it is not given.
    """
    if field is not None and not isinstance(field, dict):
        raise ValueError(f"config.json: rope_scaling={field!r} must be an object")
    if not field or field.get("rope_type", field.get("type")) == "default":
        return None
    kind = {"ntk": "ntk", "linear": "linear", "yarn": "yarn", "longrope": "longrope"}.get(field.get("rope_type", field.get("type", "")))
    if kind is None:
        raise ValueError(f"config.json: rope_scaling={field!r} is not supported; supported kinds: {', '.join(KINDS)}")
    given = {name: value for name, value in field.items() if value is not None}
    odd = next((f"{n}={given[n]!r}" for n in ("mscale", "mscale_all_dim", "truncate") if given.get(n, True) is not True), None)
    if kind == "yarn" and odd is not None:
        raise ValueError(f"config.json: rope_scaling {odd} is not supported; supported for yarn: factor, beta_fast, beta_slow, attention_factor")
    original = given.get("original_max_position_embeddings", original_length)
    factor = given.get("factor")
    if factor is None and kind == "longrope":
        if not is_number(original) or not 0 < original < trained_length:
            raise ValueError(f"config.json: rope_scaling={field!r} has neither factor nor an original_max_position_embeddings below {trained_length}")
        factor = trained_length / original
    factors = given.get("long_factor", ()) if kind == "longrope" else ()
    try:
        return RopeScaling(
            kind,
            decimal(1.0 if factor is None else factor),
            trained_length if original is None else original,
            tuple(map(decimal, factors)) if isinstance(factors, list) else factors,
            decimal(given.get("beta_fast", 32.0)) if kind == "yarn" else 32.0,
            decimal(given.get("beta_slow", 1.0)) if kind == "yarn" else 1.0,
            decimal(given.get("attention_factor")) if kind in ("yarn", "longrope") else None,
        )
    except ValueError as error:
        raise ValueError(f"config.json: rope_scaling: {error}") from None


def decimal(value: Any) -> Any:
    """A whole number as a decimal one, all else as it is."""
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


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
        growth = 0.0 if scaling.factor == 1 else math.log(scaling.factor) / math.log(scaling.original_length)
        return theta**-exponent / torch.tensor(scaling.factors), scaling.attention_factor or math.sqrt(1.0 + growth)
    plain = theta**-exponent

    def dimension(rotations: float) -> float:
        """The (fractional) frequency index that turns `rotations` times over the original length."""
        return head_dim * math.log(scaling.original_length / (rotations * 2 * math.pi)) / (2 * math.log(theta))

    low = max(math.floor(dimension(scaling.beta_fast)), 0)
    high = min(math.ceil(dimension(scaling.beta_slow)), head_dim - 1)
    slow = ((torch.arange(head_dim // 2) - low) / max(high - low, 1e-3)).clamp(0, 1)
    return plain * (1 - slow) + plain / scaling.factor * slow, scaling.attention_factor or 0.1 * math.log(scaling.factor) + 1.0


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
