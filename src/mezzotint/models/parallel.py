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
import torch.nn.functional as F
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


class Columns(nn.Module):
    """A linear map cut by output features: each rank computes its own."""

    cut = 0

    def __init__(self, linear: nn.Linear, mesh: "DeviceMesh"):
        from torch.distributed.tensor import Replicate, Shard, distribute_tensor

        super().__init__()
        self.mesh, self.out_features = mesh, linear.out_features
        whole = [Replicate()] if self.cut else [Shard(0)]
        self.weight = nn.Parameter(distribute_tensor(linear.weight.data, mesh, [Shard(self.cut)]), requires_grad=False)
        self.bias = None if linear.bias is None else nn.Parameter(distribute_tensor(linear.bias.data, mesh, whole), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, local(self.weight), None if self.bias is None else local(self.bias))


class Rows(Columns):
    """A linear map cut by input features: the ranks' results are summed, and every rank has the sum."""

    cut = 1

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, local(self.weight))
        torch.distributed.all_reduce(y, group=self.mesh.get_group())
        return y if self.bias is None else y + local(self.bias)


class Gathered(Columns):
    """A linear map cut by output features, which every rank gets whole."""

    def forward(self, x: Tensor) -> Tensor:
        ranks = self.mesh.size()
        mine = super().forward(x)
        mine = F.pad(mine, (0, -(-self.out_features // ranks) - mine.shape[-1]))
        parts = [torch.empty_like(mine) for _ in range(ranks)]
        torch.distributed.all_gather(parts, mine, group=self.mesh.get_group())
        return torch.cat(parts, -1)[..., : self.out_features]


def local(weight: Tensor) -> Tensor:
    """What this rank has of a weight. Its products are made outside DTensor, whose dispatch costs more than a small product (docs/log.md)."""
    return cast(Any, weight).to_local()


MAPS: dict[str, type[Columns]] = {f"attention.{name}": Columns for name in ("q", "k", "v")} | {"attention.out": Rows}
MAPS |= {"mlp.gate": Columns, "mlp.up": Columns, "mlp.down": Rows}
"""A layer's linear map -> how it is divided."""


def divide(model: "Transformer", mesh: "DeviceMesh") -> None:
    """Make the linear maps of a model on the meta device this rank's shares. Its config then counts one rank's heads and neurons."""
    config, ranks = model.config, mesh.size()
    for layer in model.layers:
        for name, kind in MAPS.items():
            owner, _, last = name.rpartition(".")
            linear = getattr(layer.get_submodule(owner), last)
            if linear is not None:
                setattr(layer.get_submodule(owner), last, kind(linear, mesh))
        attention = cast(Any, layer.get_submodule("attention"))
        attention.heads, attention.kv_heads = config.heads // ranks, config.kv_heads // ranks
    if not config.tied_head:
        model.head = cast(nn.Linear, Gathered(model.head, mesh))
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
