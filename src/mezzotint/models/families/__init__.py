"""One file per checkpoint family: its tensor names, its quirks, its `config.json`.

A family is a module with `ARCHITECTURES` (the class names of config.json), `configure(config)` (the `ModelConfig`, or a ValueError that
names a field), `TURN_END` (the token that ends a chat turn) and the names of its tensors: `OUTER`, `LAYER`, and `INNER` or, where layers
differ, `inner(config, layer)`. What most need not say: `recognises(config)` (by its fields, where no class is known), `MASKS` (how
tokenizers call the mask), `outer(config)` and `derived(config)` (tensors that are there only sometimes, or stored differently),
`CHAT_TEMPLATE` and `TEMPLATE_VARIABLES`, `note(config)` (what no file of the checkpoint says).
"""

from types import ModuleType

from mezzotint.models.families import a2d, dream, fast_dllm, illada, llada, llada2, llada_moe, mdlm, modernbert, sdar

FAMILIES: tuple[ModuleType, ...] = (llada, dream, llada_moe, sdar, llada2, a2d, modernbert, fast_dllm, illada, mdlm)


def family_of(config: dict) -> ModuleType:
    """The family of a `config.json`: by its class, else by its fields (model_type says little: LLaDA-MoE's is `llada`).

    Raises ValueError listing what is supported.
    """
    classes = config.get("architectures") or []
    if not isinstance(classes, list):
        raise ValueError(f"config.json: architectures={classes!r} must be a list of class names")
    for family in FAMILIES:
        if any(name in classes for name in family.ARCHITECTURES):
            return family
    for family in FAMILIES:
        if hasattr(family, "recognises") and family.recognises(config):
            return family
    supported = ", ".join(name for family in FAMILIES for name in family.ARCHITECTURES)
    asked = f"architectures={config.get('architectures')!r} (model_type={config.get('model_type')!r})"
    raise ValueError(f"config.json: {asked} is not supported; supported: {supported}")
