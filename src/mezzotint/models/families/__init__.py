"""One file per checkpoint family: its tensor names, its quirks, its `config.json`."""

from types import ModuleType

from mezzotint.models.families import a2d, dream, fast_dllm, illada, llada, llada2, llada_moe, mdlm, modernbert, sdar

FAMILIES: tuple[ModuleType, ...] = (llada, dream, llada_moe, sdar, llada2, a2d, modernbert, fast_dllm, illada, mdlm)


def family_of(config: dict) -> ModuleType:
    """The family that recognises a `config.json`. Raises ValueError listing what is supported."""
    for family in FAMILIES:
        if family.recognises(config):
            return family
    supported = ", ".join(name for family in FAMILIES for name in family.ARCHITECTURES)
    asked = f"architectures={config.get('architectures')!r} (model_type={config.get('model_type')!r})"
    raise ValueError(f"config.json: {asked} is not supported; supported: {supported}")
