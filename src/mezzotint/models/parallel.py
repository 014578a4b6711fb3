"""Tensor parallel: one model over several processes, each with its share of every layer's heads and neurons (Megatron-LM, arXiv 1909.08053; torch DTensor).

Queries, keys, values, gate and up are cut by output features, the two output projections by input features, so that a layer costs two sums over the ranks;
an untied head is cut by vocabulary and its logits are gathered. Activations between layers, embeddings, norms and the memory's positions are whole on every
rank, so planners, caches and commit rules decide the same everywhere.
"""

import dataclasses
import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from mezzotint.models.config import ModelConfig

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

    from mezzotint.models.transformer import Transformer

PATIENCE = timedelta(minutes=5)
"""Longest wait for another rank inside a forward, or while models load."""


def check(config: ModelConfig, ranks: int, *, weights: str | None = None, scheme: str | None = None) -> None:
    """Raises ValueError naming what cannot be divided among so many ranks."""
    asked = f"tensor_parallel={ranks}"
    if config.mixture is not None:
        raise ValueError(f"{asked} does not divide experts, which {config.family} has; use 1, or more replicas")
    if config.shapes:
        raise ValueError(f"{asked} does not divide a pruned checkpoint, whose layers differ in size; use 1, or more replicas")
    if weights is not None or scheme is not None:
        raise ValueError(f"{asked} does not divide quantised weights ({weights or scheme}); use 1, or the checkpoint's own dtype")
    for name, what in (("heads", "heads"), ("kv_heads", "key and value heads"), ("mlp_size", "neurons of an MLP")):
        count = getattr(config, name)
        if count % ranks:
            accepted = ", ".join(str(n) for n in range(1, config.kv_heads + 1) if all(getattr(config, f) % n == 0 for f in ("heads", "kv_heads", "mlp_size")))
            raise ValueError(f"{asked} does not divide the {count} {what} of this {config.family}; accepted: {accepted}")


def divide(model: "Transformer", mesh: "DeviceMesh") -> None:
    """Make the linear maps of a model on the meta device this rank's shares. Its config then counts one rank's heads and neurons."""
    from torch.distributed.tensor import Replicate
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    config, ranks = model.config, mesh.size()
    across: dict[str, Any] = {f"attention.{name}": ColwiseParallel() for name in ("q", "k", "v")} | {"attention.out": RowwiseParallel()}
    across |= {"mlp.up": ColwiseParallel(), "mlp.down": RowwiseParallel()} | ({"mlp.gate": ColwiseParallel()} if config.gated else {})
    for layer in model.layers:
        parallelize_module(layer, mesh, across)
        attention = cast(Any, layer.get_submodule("attention"))
        attention.heads, attention.kv_heads = config.heads // ranks, config.kv_heads // ranks
    if not config.tied_head:
        parallelize_module(model.head, mesh, ColwiseParallel(output_layouts=Replicate()))
    share = {name: getattr(config, name) // ranks for name in ("heads", "kv_heads", "mlp_size")}
    model.config = dataclasses.replace(config, ranks=ranks, **share)


def take(whole: Tensor, place: Tensor, device: torch.device, dtype: torch.dtype | None) -> nn.Parameter:
    """This rank's part of a weight as it is stored, as the parameter that `place` (on the meta device) stands for. Only the part is converted and moved."""
    from torch.distributed.tensor import DTensor, Shard

    if not isinstance(place, DTensor):
        return nn.Parameter(whole.to(device=device, dtype=dtype), requires_grad=False)
    part = whole
    for cut in place.placements:
        if isinstance(cut, Shard):
            part = whole.chunk(place.device_mesh.size(), cut.dim)[place.device_mesh.get_local_rank()]
    part = part.to(device=device, dtype=dtype).contiguous()
    return nn.Parameter(
        DTensor.from_local(part, place.device_mesh, place.placements, run_check=False, shape=place.shape, stride=place.stride()), requires_grad=False
    )


def join(rank: int, ranks: int, port: int, device: torch.device) -> "DeviceMesh":
    """Enter the group of ranks of this machine: gloo on a CPU, nccl on GPUs. Rank 0 offers the meeting place at `port`."""
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh

    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    store = dist.TCPStore("127.0.0.1", port, ranks, is_master=rank == 0, timeout=PATIENCE)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", store=store, rank=rank, world_size=ranks, timeout=PATIENCE)
    return init_device_mesh(device.type, (ranks,))
