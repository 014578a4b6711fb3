"""Checkpoints from a folder or a hub id: safetensors only, memory-mapped, checked tensor by tensor; no code of theirs is ever run."""

import dataclasses
import json
import warnings
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from mezzotint.models import parallel
from mezzotint.models.bitmask import MASK, VALUES, unpack
from mezzotint.models.config import ModelConfig
from mezzotint.models.experts import Experts
from mezzotint.models.families import family_of
from mezzotint.models.families.names import derived, translate, unread
from mezzotint.models.int8 import Int8Linear, shrink
from mezzotint.models.pruned import biases, with_shapes
from mezzotint.models.quantised import quantise, scheme_of
from mezzotint.models.rope import RopeScaling, frequencies
from mezzotint.models.transformer import Transformer

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

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
            family_of(read_config(folder))
            folder = Path(snapshot_download(text, allow_patterns=HUB_FILES))
        return folder
    except CheckpointError:
        raise
    except Exception as error:  # the hub client raises many unrelated types; all mean the same to the user
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"model={text!r} is not a local folder and could not be fetched from the hub ({reason})") from None


def configure(folder: Path, *, mask_id: int | None = None, block_causal: int | None = None) -> tuple[ModuleType, ModelConfig]:
    """The family and shape of the checkpoint in a folder; mask_id, block_causal: as for `load_model`."""
    raw = read_config(folder)
    try:
        family = family_of(raw)
        if raw.get("quantization_config"):
            kind = raw["quantization_config"].get("quant_method", "unknown") if isinstance(raw["quantization_config"], dict) else "unknown"
            raise ValueError(f"quantization_config ({kind}) is not supported; give the checkpoint as it was before it was quantised")
        if mask_id is not None:
            raw["mask_token_id"] = mask_id
        elif raw.get("mask_token_id") is None:
            raw["mask_token_id"] = next((found for name in getattr(family, "MASKS", ()) if (found := added_tokens(folder).get(name)) is not None), None)
        return family, with_shapes(raw, in_blocks(family.configure(raw), block_causal))
    except ValueError as error:
        raise CheckpointError(f"{folder}: {error}") from None


def config_of_checkpoint(source: str | Path | None, *, mask_id: int | None = None, block_causal: int | None = None) -> ModelConfig:
    """What a checkpoint is that is not loaded here, from its small JSON files; arguments as for `load_model`."""
    return configure(folder_of(source, weights=False), mask_id=mask_id, block_causal=block_causal)[1]


def in_blocks(config: ModelConfig, length: int | None) -> ModelConfig:
    """The block length that the user gives, for families trained in blocks and for those whose config.json does not say whether they were (A2D)."""
    if length is None:
        return config
    if config.block_length is None and config.family != "a2d":
        raise ValueError(f"block_causal={length} is for models trained in blocks; {config.family} sees its whole canvas")
    if length < 0 or (length == 0 and config.family != "a2d"):
        raise ValueError(f"block_causal={length} must be a number of tokens, at least 1")
    recipe = config.recipe if config.family != "a2d" else "a2d-blocks" if length else "a2d"
    return dataclasses.replace(config, block_length=length or None, recipe=recipe)


def added_tokens(folder: Path) -> dict[str, int]:
    """Special tokens and their ids, from whichever of the tokenizer's files list them."""
    found: dict[str, int] = {}
    for name in ("tokenizer.json", "tokenizer_config.json", "added_tokens.json"):
        try:
            content = json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if not isinstance(content, dict):
            continue
        listed, decoder = content.get("added_tokens"), content.get("added_tokens_decoder")
        if name == "added_tokens.json":
            found |= {token: number for token, number in content.items() if isinstance(number, int)}
        if isinstance(listed, list):
            found |= {t["content"]: t["id"] for t in listed if isinstance(t, dict) and isinstance(t.get("id"), int) and isinstance(t.get("content"), str)}
        if isinstance(decoder, dict):
            entries = ((number, t.get("content")) for number, t in decoder.items() if number.isdecimal() and isinstance(t, dict))
            found |= {content: int(number) for number, content in entries if isinstance(content, str)}
    return found


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
    mask_id: int | None = None,
    block_causal: int | None = None,
    weights: str | None = None,
    mesh: "DeviceMesh | None" = None,
) -> Transformer:
    """A model from a folder, a hub id or (None) the package itself, in evaluation mode.

    dtype: a torch dtype or its name; None keeps the checkpoint's (its embedding's, if it has several), except that the bundled model,
        stored as bf16, computes in float32 on a CPU. On a CPU with the checkpoint's own dtype the weights stay memory-mapped;
        otherwise they are converted one by one.
    rope_scaling: for contexts beyond the trained length, e.g. "ntk:4" (see `RopeScaling`).
    mask_id: the mask token's id, where neither config.json nor the tokenizer names the right one.
    block_causal: tokens per block of a model trained in blocks, where config.json does not say (A2D's bd3lm checkpoints: 32; 0: none).
    weights: "int8" keeps the weights of MLPs and experts as 8-bit integers with one scale per row, half the memory of bf16.
    mesh: this process takes its share of every layer among the mesh's ranks (`models/parallel.py`); of the rest it keeps nothing.
    Raises CheckpointError naming the file or tensor that is missing, damaged or of the wrong shape.
    """
    folder = folder_of(source)
    device = torch.device(device)
    family, config = configure(folder, mask_id=mask_id, block_causal=block_causal)
    check_weights(weights)
    if rope_scaling is not None:
        scaling = RopeScaling.parse(rope_scaling) if isinstance(rope_scaling, str) else rope_scaling
        if scaling.original_length == 0:
            scaling = dataclasses.replace(scaling, original_length=config.max_length)
        config = dataclasses.replace(config, rope_scaling=scaling)
        frequencies(config.rotary_dim or config.head_dim, config.rope_theta, scaling)
    wanted = dtype_of(dtype) or usual_dtype(folder, device)
    files = tensor_files(folder)
    if config.tied_head and (head := family.OUTER.get("head.weight")) in files:
        config = dataclasses.replace(config, tied_head=same_tensor(files, head, family.OUTER["embedding.weight"]))
    scheme = scheme_of(read_config(folder))
    if mesh is not None:
        parallel.check(config, mesh.size(), weights=weights, scheme=scheme)
    with torch.device("meta"):
        model = Transformer(config)
        if weights == "int8":
            shrink(model.layers)
    if mesh is not None:
        parallel.divide(model, mesh)
    expected = dict(model.named_parameters())
    tables = {ours: ((theirs,), None) for ours, theirs in (translate(family, config) | biases(family, config)).items()}
    tables |= {ours: (made.names, made.make) for ours, made in derived(family, config).items()}
    check_names(folder, family, files, {name for names, _ in tables.values() for name in names})
    for ours, (theirs, make) in tables.items():
        owner, _, name = ours.rpartition(".")
        module = model.get_submodule(owner)
        integer = isinstance(module, Int8Linear) and name == "weight"
        as_stored = integer or ours.endswith("router.bias")  # experts are chosen by small differences: their bias stays in fp32
        whole = integer or mesh is not None  # taken as it is stored, and only what is kept of it converted
        place, kind = torch.device("cpu") if whole else device, None if as_stored or whole else wanted
        try:
            parts = [read_weight(files, part, place, kind, tuple(expected[ours].shape)) for part in theirs]
            weight = parts[0] if make is None else make(*parts)
        except CheckpointError:
            raise
        except ValueError as error:
            raise CheckpointError(f"{folder}: {error}") from None
        wanted = wanted or weight.dtype
        if weight.shape != expected[ours].shape:
            raise CheckpointError(f"{folder}: {theirs[0]} has shape {tuple(weight.shape)}, config.json asks for {tuple(expected[ours].shape)}")
        if isinstance(module, Int8Linear) and integer:
            module.store(weight, device)
        elif mesh is not None:
            setattr(module, name, parallel.take(weight, expected[ours], device, None if as_stored else wanted))
        else:
            setattr(module, name, nn.Parameter(weight, requires_grad=False))
    if config.tied_head:
        model.head.weight = model.embedding.weight
    if scheme is not None:
        return quantise(model.eval(), scheme)
    if device.type == "cuda" and wanted == torch.bfloat16 and weights is None:
        for module in model.modules():
            if isinstance(module, Experts):
                module.stack()
    return model.eval()


def check_names(folder: Path, family: ModuleType, files: dict[str, Path], wanted: set[str]) -> None:
    """Raises CheckpointError naming a tensor that is missing, or one of the network's that would not be read. A bias of zeros changes nothing."""
    stored = {name.removesuffix(VALUES) if name.endswith(VALUES) and name.removesuffix(VALUES) + MASK in files else name for name in files}
    missing = sorted(wanted - stored)
    if missing:
        raise CheckpointError(f"{folder} has no tensor {missing[0]!r}")
    left = unread(family, stored - {name + MASK for name in stored}, wanted)
    strange = next((name for name in left if not name.endswith("bias") or read_tensor(files[name], name, torch.device("cpu"), None).any()), None)
    if strange is not None:
        raise CheckpointError(
            f"{folder}: {files[strange].name} has a tensor {strange!r} that no part of this network reads; config.json describes another network than the file "
            "holds, or one that is not supported"
        )


def read_weight(files: dict[str, Path], name: str, device: torch.device, dtype: torch.dtype | None, shape: tuple[int, ...]) -> Tensor:
    """A stored tensor, whole or as a bitmask with its values."""
    if name not in files:
        return read_sparse(files, name, shape).to(device=device, dtype=dtype)
    return read_tensor(files[name], name, device, dtype)


def read_sparse(files: dict[str, Path], name: str, shape: tuple[int, ...]) -> Tensor:
    """A matrix stored as a bitmask. Raises CheckpointError if its parts do not belong together."""
    with opened(files[name + MASK]) as masks, opened(files[name + VALUES]) as values:
        try:
            return unpack(name, masks.get_tensor(name + MASK), values.get_tensor(name + VALUES), shape)
        except (SafetensorError, ValueError) as error:
            raise CheckpointError(f"{files[name + MASK].name}: {error}") from None


def same_tensor(files: dict[str, Path], one: str, other: str) -> bool:
    """Whether a checkpoint that ties its head to its embedding, and stores both, stores the same twice; warns if it does not."""
    cpu = torch.device("cpu")
    if other in files and torch.equal(read_tensor(files[one], one, cpu, None), read_tensor(files[other], other, cpu, None)):
        return True
    warnings.warn(f"config.json ties {one} to {other}, but {files[one].name} stores a different {one}, which is used", stacklevel=3)
    return False


def check_weights(weights: str | None) -> None:
    """Raises ValueError for a way of keeping weights that there is not."""
    if weights not in (None, "int8"):
        raise ValueError(f"weights={weights!r} is unknown; accepted: int8")


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}
"""In which weights may be stored and computed with."""


def dtype_of(dtype: torch.dtype | str | None) -> torch.dtype | None:
    if dtype is None or isinstance(dtype, torch.dtype):
        return dtype
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r} is unknown; accepted: {', '.join(DTYPES)}")
    return DTYPES[dtype]


def usual_dtype(folder: Path, device: torch.device) -> torch.dtype | None:
    """In which a checkpoint computes when nobody says, None for as it is stored: the bundled model's bf16 is slow on a CPU."""
    return torch.float32 if folder == BUNDLED and device.type == "cpu" else None


def read_tensor(file: Path, name: str, device: torch.device, dtype: torch.dtype | None) -> Tensor:
    """One tensor; the file is mapped only while it is read, so that converted weights and their source never pile up."""
    with opened(file) as tensors:
        try:
            weight = tensors.get_tensor(name)
        except SafetensorError as error:
            raise CheckpointError(f"{file.name}: tensor {name!r} cannot be read: {error}") from None
        if weight.dtype not in DTYPES.values():
            raise CheckpointError(f"{file.name}: {name} is stored as {str(weight.dtype).removeprefix('torch.')}; supported: {', '.join(DTYPES)}")
        return weight.to(device=device, dtype=dtype or weight.dtype)
