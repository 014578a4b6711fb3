"""A model as a checkpoint folder that `load` reads back, in its family's own words; written whole or not at all."""

import dataclasses
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from mezzotint.models.bitmask import pack
from mezzotint.models.families import family_of
from mezzotint.models.families.names import translate
from mezzotint.models.loading import configure, folder_of, read_config
from mezzotint.models.pruned import biases
from mezzotint.models.quantised import FIELD as QUANTISED
from mezzotint.models.quantised import SCHEMES, packed
from mezzotint.models.shape import FIELD, write_shapes
from mezzotint.models.transformer import Transformer

LAYER_COUNTS = ("n_layers", "num_hidden_layers")
COPIED = (".json", ".jinja", ".txt", ".model")
WRITTEN = ("config.json", "model.safetensors.index.json", "pruning.json")
SHARD = 4 * 2**30


def save(
    model: Transformer,
    folder: str | Path,
    *,
    source: str | Path | None,
    compact: bool | None = None,
    quantise: str | None = None,
    report: dict[str, Any] | None = None,
) -> Path:
    """Write the model to a new folder, with the tokenizer and the other small files of the checkpoint it came from.

    source: that checkpoint, as given to `load` (None: the bundled model). compact: sparse matrices as bitmasks. quantise: a scheme that `load` applies when it
    reads the folder; the weights are stored as they are. report: written to pruning.json. What is not given is taken from a pruned model's own report.
    Raises ValueError if the folder is there already and holds anything, or for what it could not say (`check_recorded`); an interruption leaves nothing behind.
    """
    told = getattr(model, "report", {})
    report = report or told or None
    if report is not None and (kept := getattr(model, "kept", {})):
        report = report | {"kept": {str(layer): dataclasses.asdict(units) for layer, units in kept.items()}}
    quantise = quantise or told.get("quantise")
    if compact is None:
        compact = bool(told.get("compact"))
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"out={str(folder)!r} is there already; give a folder that is new or empty")
    if quantise is not None and quantise not in SCHEMES:
        raise ValueError(f"quantise={quantise!r} is unknown; accepted: {', '.join(SCHEMES)}")
    origin = folder_of(source)
    check_recorded(model, origin)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir()
        for file in sorted(origin.iterdir()):
            if file.is_file() and file.suffix in COPIED and file.name not in WRITTEN:
                shutil.copyfile(file, partial / file.name)
        raw = configuration(model, read_config(origin), quantise)
        (partial / "config.json").write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")
        if report is not None:
            (partial / "pruning.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        write_tensors(partial, stored(model, raw, compact))
        for file in partial.iterdir():
            shutil.copymode(partial / "config.json", file)
        if folder.exists():
            folder.rmdir()
        os.replace(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return folder


def check_recorded(model: Transformer, origin: Path) -> None:
    """Raises ValueError for a model that was loaded with a rope scaling or in blocks of which its checkpoint, and so what is written of it, says nothing."""
    _, there = configure(origin, mask_id=model.config.mask_id)
    for option, name in (("rope_scaling", "rope_scaling"), ("block_causal", "block_length")):
        ours, theirs = getattr(model.config, name), getattr(there, name)
        if ours != theirs:
            raise ValueError(f"{option}={ours} would be lost in what is written; accepted: the checkpoint's own ({theirs}). Give it when the folder is loaded")


def configuration(model: Transformer, raw: dict[str, Any], quantise: str | None) -> dict[str, Any]:
    """The origin's config.json, brought into line with the model."""
    raw = dict(raw)
    raw["mask_token_id"] = model.config.mask_id
    raw["torch_dtype"] = str(model.dtype).removeprefix("torch.")
    for name in LAYER_COUNTS:
        if name in raw:
            raw[name] = model.config.layers
    raw.pop(FIELD, None)
    raw.pop(QUANTISED, None)
    if model.config.shapes:
        raw[FIELD] = write_shapes(model.config.shapes)
    if quantise is not None:
        raw[QUANTISED] = quantise
    return raw


def stored(model: Transformer, raw: dict[str, Any], compact: bool) -> Iterator[tuple[str, Tensor]]:
    """Every tensor under its name in the checkpoint. compact: matrices whose zeros take more than a bit for each of their weights are stored as bitmasks."""
    family = family_of(raw)
    weights = dict(model.named_parameters(remove_duplicate=False))
    for ours, theirs in (translate(family, model.config) | biases(family, model.config)).items():
        weight = weights[ours].detach().cpu()
        if packed(weight):
            raise ValueError(f"{ours} is quantised; save the model before it is quantised and give quantise=... here")
        if compact and ours.startswith("layers.") and weight.ndim == 2 and float((weight == 0).double().mean()) > 1 / (8 * weight.element_size()):
            for ending, tensor in pack(weight).items():
                yield theirs + ending, tensor
        else:
            yield theirs, weight


def write_tensors(folder: Path, tensors: Iterator[tuple[str, Tensor]]) -> None:
    """One file, or numbered shards with an index where they exceed `SHARD` bytes."""
    shards: list[list[str]] = []
    waiting: dict[str, Tensor] = {}
    size = total = 0

    def write() -> None:
        save_file({name: tensor.contiguous() for name, tensor in waiting.items()}, folder / f"shard-{len(shards)}.safetensors", {"format": "pt"})
        shards.append(list(waiting))
        waiting.clear()

    for name, tensor in tensors:
        bytes_ = tensor.numel() * tensor.element_size()
        if waiting and size + bytes_ > SHARD:
            write()
            size = 0
        waiting[name] = tensor
        size, total = size + bytes_, total + bytes_
    write()
    if len(shards) == 1:
        os.replace(folder / "shard-0.safetensors", folder / "model.safetensors")
        return
    table = {}
    for number, names in enumerate(shards):
        file = f"model-{number + 1:05}-of-{len(shards):05}.safetensors"
        os.replace(folder / f"shard-{number}.safetensors", folder / file)
        table |= dict.fromkeys(names, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": table}), encoding="utf-8")
