"""Our parameter names in a checkpoint family's own words."""

from types import ModuleType

from mezzotint.models.config import ModelConfig


def translate(family: ModuleType, config: ModelConfig) -> dict[str, str]:
    """our parameter name -> the checkpoint's tensor name, for every parameter of the model."""
    table = {ours: theirs for ours, theirs in family.OUTER.items() if not (config.tied_head and ours == "head.weight")}
    for layer in range(config.layers):
        for ours, theirs in family.INNER.items():
            place = f"layers.{layer}.{ours}", family.LAYER.format(layer) + theirs
            if ours.endswith(".weight"):
                table[place[0]] = place[1]
                continue
            for part in ("weight", "bias") if config.qkv_bias else ("weight",):
                table[f"{place[0]}.{part}"] = f"{place[1]}.{part}"
    return table
