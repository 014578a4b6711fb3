"""Models with random weights in the shape of a checkpoint, so that speed can be measured where the weights are not at hand."""

import dataclasses
from pathlib import Path

import torch
from torch import nn

from mezzotint.bench.resources import free_memory
from mezzotint.models.config import ModelConfig
from mezzotint.models.families import dream, llada
from mezzotint.models.loading import config_of_checkpoint, dtype_of
from mezzotint.models.transformer import Transformer

SHAPES: dict[str, ModelConfig] = {
    "llada-8b": llada.configure(
        {
            **llada.REQUIRED,
            "d_model": 4096,
            "n_layers": 32,
            "n_heads": 32,
            "n_kv_heads": 32,
            "mlp_hidden_size": 12288,
            "rope_theta": 500000.0,
            "max_sequence_length": 4096,
            "vocab_size": 126464,
            "mask_token_id": 126336,
            "eos_token_id": 126081,
        }
    ),
    "dream-7b": dream.configure(
        {
            **dream.REQUIRED,
            "hidden_size": 3584,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "intermediate_size": 18944,
            "rope_theta": 1e6,
            "max_position_embeddings": 131072,
            "vocab_size": 152064,
            "mask_token_id": 151666,
            "eos_token_id": 151643,
        }
    ),
}
"""The shapes of the released LLaDA-8B (Base, Instruct, 1.5) and Dream-7B (Base, Instruct) checkpoints."""


def shape_of(name: str) -> ModelConfig:
    """A named shape, or that of a checkpoint of which only config.json is read (a folder, or a hub id).

    Raises ValueError listing the names, CheckpointError for a config.json that cannot be used.
    """
    if name in SHAPES:
        return SHAPES[name]
    if "/" not in name and not Path(name).is_dir():
        raise ValueError(f"shape={name!r} is unknown; accepted: {', '.join(SHAPES)}, a folder with a config.json, or a hub id")
    return config_of_checkpoint(name)


def random_model(
    config: ModelConfig, *, device: str | torch.device = "cpu", dtype: torch.dtype | str | None = None, layers: int | None = None, seed: int = 0
) -> Transformer:
    """A model of that shape with normal weights of deviation 0.02 (dtype None: bfloat16). Its stop id lies outside the vocabulary: nothing ends by accident.

    layers: only so many of the layers, for machines that cannot hold all. Raises ValueError where the weights do not fit.
    """
    if layers is not None:
        if not 1 <= layers <= config.layers:
            raise ValueError(f"layers={layers} must lie between 1 and the shape's {config.layers}")
        config = dataclasses.replace(config, layers=layers)
    config = dataclasses.replace(config, stop_ids=(config.vocab_size,))
    device, wanted = torch.device(device), dtype_of(dtype) or torch.bfloat16
    needed, free = config.parameters() * wanted.itemsize, free_memory(device)
    if free is not None and needed > free:
        kind, gib = str(wanted).removeprefix("torch."), 2**30
        raise ValueError(
            f"{config.layers} layers of this shape need {needed / gib:.1f} GiB in {kind}, {device} has {free / gib:.1f} GiB free; "
            "give fewer --layers or a smaller --dtype"
        )
    with torch.device("meta"):
        model = Transformer(config)
    generator = torch.Generator(device).manual_seed(seed)
    for name, parameter in list(model.named_parameters()):
        weight = torch.empty(parameter.shape, dtype=wanted, device=device)
        if name.endswith("norm.weight"):
            weight.fill_(1)
        else:
            weight.normal_(0, 0.02, generator=generator)
        owner, _, last = name.rpartition(".")
        setattr(model.get_submodule(owner), last, nn.Parameter(weight, requires_grad=False))
    if config.tied_head:
        model.head.weight = model.embedding.weight
    return model.eval()
