"""Training checkpoints as safetensors shards of limited size: weights, optimiser state and the counters."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

SHARD_BYTES = 15 * 2**20


def flatten(model: torch.nn.Module, optimisers: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """Every weight under `weights/NAME`, every tensor of an optimiser's state under `NUMBER/KEY/NAME`."""
    names = {p: n for n, p in model.named_parameters()}
    flat = {f"weights/{n}": p.detach() for n, p in model.named_parameters()}
    for number, optimiser in enumerate(optimisers):
        for parameter, state in optimiser.state.items():
            flat |= {f"{number}/{key}/{names[parameter]}": torch.as_tensor(value) for key, value in state.items()}
    return {name: tensor.contiguous().cpu() for name, tensor in flat.items()}


def save(folder: Path, model: torch.nn.Module, optimisers: list[torch.optim.Optimizer], counters: dict) -> None:
    """Write a complete new checkpoint beside the old one, then put it in its place."""
    shards: list[dict[str, Tensor]] = [{}]
    for name, tensor in flatten(model, optimisers).items():
        if shards[-1] and sum(t.nbytes for t in shards[-1].values()) + tensor.nbytes > SHARD_BYTES:
            shards.append({})
        shards[-1][name] = tensor
    generation = counters["step"]
    files = [f"step-{generation}-{i}.safetensors" for i in range(len(shards))]
    for file, shard in zip(files, shards, strict=True):
        save_file(shard, folder / file)
    (folder / "state.new").write_text(json.dumps({"counters": counters, "files": files}))
    (folder / "state.new").replace(folder / "state.json")
    for old in folder.glob("step-*.safetensors"):
        if old.name not in files:
            old.unlink()


def read(folder: Path) -> tuple[dict[str, Tensor], dict]:
    """All tensors of the checkpoint, and the counters."""
    state = json.loads((folder / "state.json").read_text())
    flat: dict[str, Tensor] = {}
    for file in state["files"]:
        flat |= load_file(folder / file)
    return flat, state["counters"]


def restore(folder: Path, model: torch.nn.Module, optimisers: list[torch.optim.Optimizer]) -> dict:
    """Put a checkpoint back into the model and its optimisers; returns the counters."""
    flat, counters = read(folder)
    parameters = dict(model.named_parameters())
    for name, tensor in flat.items():
        place, _, rest = name.partition("/")
        if place == "weights":
            parameters[rest].data.copy_(tensor)
            continue
        key, _, owner = rest.partition("/")
        parameter = parameters[owner]
        value = tensor if key == "step" else tensor.to(parameter.device)
        optimisers[int(place)].state[parameter][key] = value
    return counters
