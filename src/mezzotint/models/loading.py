"""Checkpoints from a folder or a hub id: safetensors only, memory-mapped, checked tensor by tensor; no code of theirs is ever run."""

import dataclasses
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from mezzotint.models.bitmask import MASK, VALUES, unpack
from mezzotint.models.config import ModelConfig
from mezzotint.models.families import family_of
from mezzotint.models.families.names import translate
from mezzotint.models.pruned import biases, with_shapes
from mezzotint.models.quantised import quantise, scheme_of
from mezzotint.models.rope import RopeScaling, frequencies
from mezzotint.models.transformer import Transformer

BUNDLED = Path(__file__).parent.parent / "bundled"
HUB_FILES = ["*.json", "*.safetensors", "tokenizer*", "vocab*", "merges.txt", "chat_template*"]


class CheckpointError(ValueError):
    """A checkpoint that cannot be loaded; the message names the file or tensor and what is supported."""


def folder_of(source: str | Path | None, *, weights: bool = True) -> Path:
    """A local folder for a folder, a hub id (downloaded, or found in the cache when offline), or None for the bundled model.

    weights=False fetches only the small JSON files. A hub checkpoint's family is checked before its weights are fetched.
    """
    if source is None:
        return BUNDLED
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise CheckpointError(f"model={str(source)!r} is a file; give the folder that holds config.json and *.safetensors")
    text = str(source)
    if text.count("/") != 1 or text.startswith((".", "/", "~")):
        raise CheckpointError(f"model={text!r} is neither a folder nor a hub id such as GSAI-ML/LLaDA-8B-Instruct")
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(text, allow_patterns=["*.json"]))
        if weights:
            configure(folder)
            folder = Path(snapshot_download(text, allow_patterns=HUB_FILES))
        return folder
    except CheckpointError:
        raise
    except Exception as error:  # the hub client raises many unrelated types; all mean the same to the user
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"model={text!r} is not a local folder and could not be fetched from the hub ({reason})") from None


def configure(folder: Path) -> tuple[ModuleType, ModelConfig]:
    """The family and shape of the checkpoint in a folder."""
    raw = read_config(folder)
    try:
        family = family_of(raw)
        return family, with_shapes(raw, family.configure(raw))
    except ValueError as error:
        raise CheckpointError(f"{folder}: {error}") from None


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's config.json as a dictionary."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{folder} has no config.json; it is not a checkpoint folder") from None
    except ValueError as error:
        raise CheckpointError(f"{folder / 'config.json'} is not valid JSON: {error}") from None
    if not isinstance(config, dict):
        raise CheckpointError(f"{folder / 'config.json'} must hold a JSON object")
    return config


def tensor_files(folder: Path) -> dict[str, Path]:
    """tensor name -> the safetensors file that holds it."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        try:
            table = dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
        except (ValueError, KeyError, TypeError):
            raise CheckpointError(f"{index} is not a safetensors index: it needs a 'weight_map' of tensor names to files") from None
        strange = next((f for f in table.values() if not isinstance(f, str) or Path(f).name != f), None)
        if strange is not None:
            raise CheckpointError(f"{index.name} names {strange!r}, which is not a file of the same folder")
        missing = sorted({f for f in table.values() if not (folder / f).exists()})
        if missing:
            raise CheckpointError(f"{folder} lacks the shard {missing[0]} that {index.name} names ({len(missing)} missing in all)")
        return {name: folder / file for name, file in table.items()}
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickles = sorted(p.name for p in (*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")))
        found = f"; {pickles[0]} is a pickle, which is never read: convert it to safetensors" if pickles else ""
        raise CheckpointError(f"{folder} has no *.safetensors{found}")
    found_in: dict[str, Path] = {}
    for file in files:
        with opened(file) as tensors:
            found_in.update(dict.fromkeys(tensors.keys(), file))
    return found_in


def opened(file: Path):
    """A memory-mapped safetensors file. Raises CheckpointError if it is truncated or damaged."""
    try:
        return safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} cannot be read as safetensors (truncated or damaged): {error}") from None


def load_model(
    source: str | Path | None = None,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | str | None = None,
    rope_scaling: RopeScaling | str | None = None,
) -> Transformer:
    """A model from a folder, a hub id or (None) the package itself, in evaluation mode.

    dtype: a torch dtype or its name; None keeps the checkpoint's (its embedding's, if it has several), except that the bundled model,
        stored as bf16, computes in float32 on a CPU. On a CPU with the checkpoint's own dtype the weights stay memory-mapped;
        otherwise they are converted one by one.
    rope_scaling: for contexts beyond the trained length, e.g. "ntk:4" (see `RopeScaling`).
    Raises CheckpointError naming the file or tensor that is missing, damaged or of the wrong shape.
    """
    folder = folder_of(source)
    device = torch.device(device)
    family, config = configure(folder)
    if rope_scaling is not None:
        scaling = RopeScaling.parse(rope_scaling) if isinstance(rope_scaling, str) else rope_scaling
        if scaling.original_length == 0:
            scaling = dataclasses.replace(scaling, original_length=config.max_length)
        config = dataclasses.replace(config, rope_scaling=scaling)
        frequencies(config.head_dim, config.rope_theta, scaling)
    wanted = dtype_of(dtype)
    if wanted is None and folder == BUNDLED and device.type == "cpu":
        wanted = torch.float32
    with torch.device("meta"):
        model = Transformer(config)
    files = tensor_files(folder)
    expected = dict(model.named_parameters())
    for ours, theirs in (translate(family, config) | biases(family, config)).items():
        if theirs + MASK in files and theirs + VALUES in files:
            weight = read_sparse(files, theirs, tuple(expected[ours].shape)).to(device=device, dtype=wanted)
            wanted = wanted or weight.dtype
            place(model, ours, weight)
            continue
        if theirs not in files:
            raise CheckpointError(f"{folder} has no tensor {theirs!r}")
        weight = read_tensor(files[theirs], theirs, device, wanted)
        wanted = wanted or weight.dtype
        if weight.shape != expected[ours].shape:
            raise CheckpointError(f"{files[theirs].name}: {theirs} has shape {tuple(weight.shape)}, config.json asks for {tuple(expected[ours].shape)}")
        place(model, ours, weight)
    if config.tied_head:
        model.head.weight = model.embedding.weight
    scheme = scheme_of(read_config(folder))
    return model.eval() if scheme is None else quantise(model.eval(), scheme)


def place(model: Transformer, name: str, weight: Tensor) -> None:
    owner, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(owner), leaf, nn.Parameter(weight, requires_grad=False))


def read_sparse(files: dict[str, Path], name: str, shape: tuple[int, ...]) -> Tensor:
    """A matrix stored as a bitmask. Raises CheckpointError if its parts do not belong together."""
    with opened(files[name + MASK]) as masks, opened(files[name + VALUES]) as values:
        try:
            return unpack(name, masks.get_tensor(name + MASK), values.get_tensor(name + VALUES), shape)
        except (SafetensorError, ValueError) as error:
            raise CheckpointError(f"{files[name + MASK].name}: {error}") from None


def dtype_of(dtype: torch.dtype | str | None) -> torch.dtype | None:
    if dtype is None or isinstance(dtype, torch.dtype):
        return dtype
    found = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}
    if dtype not in found:
        raise ValueError(f"dtype={dtype!r} is unknown; accepted: {', '.join(found)}")
    return found[dtype]


def read_tensor(file: Path, name: str, device: torch.device, dtype: torch.dtype | None) -> Tensor:
    """One tensor; the file is mapped only while it is read, so that converted weights and their source never pile up."""
    with opened(file) as tensors:
        try:
            weight = tensors.get_tensor(name)
        except SafetensorError as error:
            raise CheckpointError(f"{file.name}: tensor {name!r} cannot be read: {error}") from None
        if not weight.is_floating_point():
            raise CheckpointError(f"{file.name}: {name} is stored as {weight.dtype}; supported: floating point")
        return weight.to(device=device, dtype=dtype or weight.dtype)
