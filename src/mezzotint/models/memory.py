"""K and V of a run, stored by absolute canvas position. One memory belongs to one run, never to the model."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Memory:
    """Rotated keys and values of every layer: (layers, batch, kv_heads, capacity, head_dim).

    `at` and `over` are canvas positions kept on the host (1-D int64, sorted), so that checking them costs
    no synchronisation with the device.
    """

    def __init__(self, layers: int, batch: int, kv_heads: int, head_dim: int, capacity: int, like: Tensor):
        shape = (layers, batch, kv_heads, capacity, head_dim)
        self.keys = torch.zeros(shape, dtype=like.dtype, device=like.device)
        self.values = torch.zeros(shape, dtype=like.dtype, device=like.device)
        self.written = torch.zeros(layers, capacity, dtype=torch.bool)

    @property
    def capacity(self) -> int:
        return self.keys.shape[3]

    def grow(self, capacity: int) -> None:
        """Make room for positions up to `capacity`; what is stored stays."""
        extra = capacity - self.capacity
        if extra > 0:
            self.keys = torch.nn.functional.pad(self.keys, (0, 0, 0, extra))
            self.values = torch.nn.functional.pad(self.values, (0, 0, 0, extra))
            self.written = torch.nn.functional.pad(self.written, (0, extra))

    def write(self, layer: int, at: Int[Tensor, " rows"], keys: Float[Tensor, "b kv rows dim"], values: Tensor) -> None:
        """Store (overwrite) the rows at canvas positions `at` of one layer."""
        if int(at[-1]) >= self.capacity:
            raise IndexError(f"position {int(at[-1])} lies outside this memory of {self.capacity} positions; call grow() first")
        span = stretch(at)
        where = span or at.to(keys.device, non_blocking=True)
        self.keys[layer][:, :, where] = keys
        self.values[layer][:, :, where] = values
        self.written[layer, span or at] = True

    def read(self, layer: int, over: Int[Tensor, " visible"]) -> tuple[Tensor, Tensor]:
        """Keys and values of positions `over`, each (b, kv, visible, dim).

        Raises LookupError naming the first position that no earlier forward has written.
        """
        span = stretch(over)
        present = self.written[layer, span or over]
        if not present.all():
            missing = int(over[~present][0])
            raise LookupError(f"position {missing} of layer {layer} was never computed; it must be in `at` before it can be read")
        if span is not None:
            return self.keys[layer][:, :, span], self.values[layer][:, :, span]
        where = over.to(self.keys.device, non_blocking=True)
        return self.keys[layer].index_select(2, where), self.values[layer].index_select(2, where)


def stretch(positions: Int[Tensor, " _"]) -> slice | None:
    """Sorted positions as a slice, if they have no gap: slices are copied faster than lists of indices."""
    first, last = int(positions[0]), int(positions[-1])
    return slice(first, last + 1) if last - first + 1 == len(positions) else None
