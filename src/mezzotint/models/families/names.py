"""Our parameter names in a checkpoint family's own words."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType

from torch import Tensor

from mezzotint.models.config import ModelConfig


@dataclass(frozen=True)
class Derived:
    """One of our parameters that a checkpoint stores differently: `make` turns its tensors into ours."""

    names: tuple[str, ...]
    make: Callable[..., Tensor]


def rows(name: str, start: int, end: int, total: int) -> Derived:
    """Rows [start, end) of a tensor that holds several parameters one below the other, `total` rows in all."""

    def make(tensor: Tensor) -> Tensor:
        if tensor.shape[0] != total:
            raise ValueError(f"{name} has {tensor.shape[0]} rows, config.json asks for {total}")
        return tensor[start:end]

    return Derived((name,), make)


def translate(family: ModuleType, config: ModelConfig) -> dict[str, str]:
    """our parameter name -> the checkpoint's tensor name, for every parameter that is stored as it is."""
    table = {ours: theirs for ours, theirs in family.OUTER.items() if not (config.tied_head and ours == "head.weight")}
    table |= family.outer(config) if hasattr(family, "outer") else {}
    for layer in range(config.layers):
        for ours, theirs in inner(family, config, layer).items():
            place = f"layers.{layer}.{ours}", family.LAYER.format(layer) + theirs
            if ours.endswith((".weight", ".bias")):
                table[place[0]] = place[1]
                continue
            for part in ("weight", "bias") if config.qkv_bias else ("weight",):
                table[f"{place[0]}.{part}"] = f"{place[1]}.{part}"
    return table


def inner(family: ModuleType, config: ModelConfig, layer: int) -> dict[str, str]:
    """The names inside a layer: the same in each, or asked of the family where layers differ."""
    asked: Callable[[ModelConfig, int], dict[str, str]] | None = getattr(family, "inner", None)
    return family.INNER if asked is None else asked(config, layer)


def derived(family: ModuleType, config: ModelConfig) -> dict[str, Derived]:
    """our parameter name -> how it is made, for every parameter that is stored differently."""
    asked: Callable[[ModelConfig], dict[str, Derived]] | None = getattr(family, "derived", None)
    return {} if asked is None else asked(config)


HARMLESS = (".inv_freq", ".cos_cached", ".sin_cached")
"""How buffers end that some checkpoints store and that follow from config.json: the rotation's."""


def unread(family: ModuleType, stored: Iterable[str], read: Iterable[str]) -> list[str]:
    """The stored tensors that belong to the network, by their names, and that nothing reads: its layers and what stands beside them, and the head."""
    beside = family.LAYER.split(".{}")[0].rpartition(".")[0]
    owners = tuple({f"{name.rpartition('.')[0]}." for name in family.OUTER.values()} | {f"{beside}."})
    known = set(read) | {family.OUTER["head.weight"]}  # a tied head may be stored as well
    return sorted(name for name in stored if name.startswith(owners) and name not in known and not name.endswith(HARMLESS))


EXPERT = {"gate.weight": "gate_proj.weight", "up.weight": "up_proj.weight", "down.weight": "down_proj.weight"}
"""The names inside an expert, in every family."""


def experts(config: ModelConfig, layer: int, *, bias: str = "", shared: str = "") -> dict[str, str]:
    """The MLP's names in a layer that has experts, or the ordinary ones. bias, shared: the family's names of those two parts."""
    mixture = config.mixture
    if mixture is None or layer in mixture.dense:
        return {f"mlp.{ours}": f"mlp.{theirs}" for ours, theirs in EXPERT.items()}
    table = {"mlp.router.weight": "mlp.gate.weight"}
    table |= {f"mlp.experts.{e}.{ours}": f"mlp.experts.{e}.{theirs}" for e in range(mixture.experts) for ours, theirs in EXPERT.items()}
    if mixture.bias != "none":
        table["mlp.router.bias"] = bias
    if mixture.shared_size:
        table |= {f"mlp.shared.{ours}": f"{shared}.{theirs}" for ours, theirs in EXPERT.items()}
    return table
