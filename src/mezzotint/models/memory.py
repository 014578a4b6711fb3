"""K and V of a run, stored by absolute canvas position. One memory belongs to one run, never to the model."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Memory:
    """Rotated keys and values of every layer: (layers, batch, kv_heads, capacity, head_dim), undefined where nothing was written.

    `at` and `over` are canvas positions kept on the host (1-D int64, sorted), so that checking them costs
    no synchronisation with the device.
    """

    places: tuple[tuple[Tensor, slice | Tensor], ...] = ()
    """Where the last two sets of positions lie, which all layers of a forward ask for."""

    def __init__(self, layers: int, batch: int, kv_heads: int, head_dim: int, capacity: int, like: Tensor):
        shape = (layers, batch, kv_heads, capacity, head_dim)
        self.keys = torch.empty(shape, dtype=like.dtype, device=like.device)
        self.values = torch.empty(shape, dtype=like.dtype, device=like.device)
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

    def place(self, positions: Int[Tensor, " _"]) -> slice | Tensor:
        """A slice for positions that follow one another, else an index on the device."""
        for known, place in self.places:
            if known is positions:
                return place
        first, last = int(positions[0]), int(positions[-1])
        if last >= self.capacity:
            raise IndexError(f"position {last} lies outside this memory of {self.capacity} positions; call grow() first")
        place = slice(first, last + 1) if last - first + 1 == len(positions) else positions.to(self.keys[0].device, non_blocking=True)
        self.places = (*self.places[-1:], (positions, place))
        return place

    def write(self, layer: int, at: Int[Tensor, " rows"], keys: Float[Tensor, "b kv rows dim"], values: Tensor) -> None:
        """Store (overwrite) the rows at canvas positions `at` of one layer."""
        place = self.place(at)
        if isinstance(place, slice):
            self.keys[layer][:, :, place] = keys
            self.values[layer][:, :, place] = values
            self.written[layer, place] = True
            return
        self.keys[layer].index_copy_(2, place, keys)
        self.values[layer].index_copy_(2, place, values)
        self.written[layer, at] = True

    def read(self, layer: int, over: Int[Tensor, " visible"]) -> tuple[Tensor, Tensor]:
        """Keys and values of positions `over`, each (b, kv, visible, dim).

        Raises LookupError naming the first position that no earlier forward has written.
        """
        place = self.place(over)
        present = self.written[layer, place if isinstance(place, slice) else over]
        if not present.all():
            missing = int(over[~present][0])
            raise LookupError(f"position {missing} of layer {layer} was never computed; it must be in `at` before it can be read")
        if isinstance(place, slice):
            return self.keys[layer][:, :, place], self.values[layer][:, :, place]
        return self.keys[layer].index_select(2, place), self.values[layer].index_select(2, place)
