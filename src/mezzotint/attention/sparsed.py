"""SparseD (arXiv 2509.24014): every head keeps the tiles of keys that mattered to it in the first steps, and attends to nothing else afterwards."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mezzotint.attention import budget
from mezzotint.canvas import Canvas
from mezzotint.fields import check
from mezzotint.kernels.block_mass import Mass, block_mass
from mezzotint.kernels.block_sparse import IMPLEMENTATIONS, available, block_sparse, warn_once
from mezzotint.kernels.tiles import Choice, Grid, Tiled
from mezzotint.models.transformer import Attend, Scope, dense
from mezzotint.types import Moment

COMPATIBLE = ("none", "llada", "dream")
SHARES = ("head", "group", "all")
LEAST = {"native": 1024, "reference": 2048, "flex": 8192, "triton": 8192}
"""Visible positions from which block-sparse attention has paid off; below, impl="auto" stays dense.

CUDA's leave out 4,096, where the kernel gains little on an H100 (docs/gpu.md)."""
MANY = 256
"""Rows from which the CPU kernel is also the faster one for dense attention."""


def tile_size(owner: str, block_size: int) -> None:
    """Refuse a size that no kernel can tile."""
    if block_size not in (8, 16, 32, 64, 128, 256, 512, 1024):
        raise ValueError(f"{owner} block_size={block_size} must be a power of two from 8 to 1024")


def implementation(owner: str, impl: str, block_size: int) -> None:
    if impl == "triton" and block_size < 16:
        raise ValueError(f"{owner} impl='triton' needs a block_size of at least 16, not {block_size}")
    if impl not in ("auto", *IMPLEMENTATIONS):
        raise ValueError(f"{owner} impl={impl!r} is unknown; accepted: auto, {', '.join(IMPLEMENTATIONS)}")


def least(device_type: str) -> int:
    """Visible positions from which impl="auto" may be sparse on a device."""
    if device_type != "cpu":
        return min(LEAST["flex"], LEAST["triton"])
    return LEAST["reference" if available("native", device_type) else "native"]


def choose_implementation(q: Tensor, visible: int, size: int) -> str | None:
    """The fastest implementation for these rows, None for dense attention."""
    if visible < min(LEAST.values()) or size < 32:
        return None
    impl = kernel(q, size)
    return impl if visible >= LEAST[impl] else None


def kernel(q: Tensor, size: int) -> str:
    """The fastest implementation that can run for these rows."""
    kind, dim = q.device.type, q.shape[-1]
    if kind != "cpu":
        fits = q.dtype != torch.float32 and dim >= 16 and not dim & (dim - 1) and size >= 16
        return "triton" if fits and not available("triton", kind) else "flex"
    if reason := available("native", kind):
        warn_once(f"block-sparse attention is slower here than it could be: the CPU kernel is missing, {reason}")
        return "reference"
    return "native"


@dataclass(frozen=True)
class SparseD:
    """Dense attention while the first `skip` of the tokens are decided, then per head only the `select` most attended tiles.

    skip: share of the tokens decided before the pattern is made, in [0, 1); under a fixed schedule this is the paper's share of the steps, and
        unlike it also defined when tokens are committed in parallel. More is safer and slower.
    select: share of the prompt's tiles and of the generation's that each tile of rows keeps, in (0, 1]; or `mass:0.95`: as few tiles as hold that share
        of the head's attention. More is closer to dense attention, and slower.
    block_size: positions per tile, a power of two; the paper takes 128 for long contexts and 32 for short ones.
    rebuild: "never" (the paper: one pattern for the run), "block" (one per block, made in its first forward, for prefix columns only; the active block and
        what lies behind it stay dense, which is how the pattern meets caches and suffix dropout), a number of steps, or `recall:0.9`: as soon as the pattern
        holds less than that share of the attention mass it held when it was made, measured on the tile of rows where the block begins (which costs a
        tile's part of making the pattern) in every forward that computes what the making one did: with a cache, those that refresh it. All after the dense
        phase.
    share: "head"; "group": heads that share keys (GQA) share a pattern; or "all": all heads of a layer do.
    residual: keep what the dropped tiles gave when the pattern was made, and mix it into every later step by its share of the attention mass then
        (FlashBlock, arXiv 2602.05305). Costs one more sparse attention when the pattern is made and an output's memory per layer. Not where a forward sees
        other positions than the pattern did.
    compat: "llada" or "dream" reproduces the official code of that family: joint choice, boundary rounded up, its schedule, its scale of scores.
    impl: "auto" takes the fastest kernel, and dense attention where that is faster (short canvases, tiles below 32); or reference, native, flex, triton.

    Tiles that were not there when the pattern was made, or held fewer positions, are attended densely.
    """

    skip: float = 0.2
    select: float | str = 0.3
    block_size: int = 128
    rebuild: int | str = "never"
    share: str = "head"
    residual: bool = False
    compat: str = "none"
    impl: str = "auto"

    def __post_init__(self) -> None:
        check("sparsed", self)
        if not 0 <= self.skip < 1:
            raise ValueError(f"sparsed skip={self.skip} must lie in [0, 1)")
        if not 0 < self.amount <= 1:
            raise ValueError(f"sparsed select={self.select} must lie in (0, 1]")
        tile_size("sparsed", self.block_size)
        implementation("sparsed", self.impl, self.block_size)
        if self.rebuild not in ("never", "block") and not (isinstance(self.rebuild, int) and self.rebuild >= 1) and self.least_recall is None:
            raise ValueError(
                f"sparsed rebuild={self.rebuild!r} is not accepted; give never, block, a number of steps of at least 1, or recall:NUMBER in (0, 1]"
            )
        for name, accepted in (("share", SHARES), ("compat", COMPATIBLE)):
            if getattr(self, name) not in accepted:
                raise ValueError(f"sparsed {name}={getattr(self, name)!r} is unknown; accepted: {', '.join(accepted)}")
        if self.compat != "none" and (self.by_mass or self.amount == 1 or self.rebuild != "never" or self.share != "head" or self.residual):
            raise ValueError(f"sparsed compat={self.compat!r} is the official code, which has only skip, select below 1 and block_size")

    @property
    def by_mass(self) -> bool:
        return isinstance(self.select, str) and self.select.startswith("mass:")

    @property
    def amount(self) -> float:
        """The number in `select`. Raises ValueError if there is none."""
        if not isinstance(self.select, str):
            return self.select
        try:
            return float(self.select.removeprefix("mass:") if self.by_mass else "")
        except ValueError:
            raise ValueError(f"sparsed select={self.select!r} is not accepted; give a number in (0, 1] or mass:NUMBER") from None

    @property
    def least_recall(self) -> float | None:
        """The number in `rebuild="recall:NUMBER"`, None for anything else."""
        kind, _, number = str(self.rebuild).partition(":")
        try:
            return float(number) if kind == "recall" and 0 < float(number) <= 1 else None
        except ValueError:
            return None

    def begin(self, canvas: Canvas) -> Callable[[Moment], Attend]:
        return SparseRun(self, canvas.start)


@dataclass(frozen=True)
class Pattern:
    """What one layer keeps, between numbered tiles: chosen is (b, heads, row_tiles, key_tiles); recall, (row_tiles,) fp32, the attention mass that holds;
    sharing: how many neighbouring heads have the same."""

    rows: Tiled
    keys: Tiled
    chosen: Bool[Tensor, "b h rows keys"]
    recall: Float[Tensor, " rows"]
    sharing: int = 1

    def between(self, rows: Tiled, keys: Tiled, valid: Bool[Tensor, "b keys"] | None = None) -> Choice:
        """The choice for a forward's tiles. Tiles that the pattern does not know, or that hold more positions than it knew, are dense, and so are rows whose
        chosen tiles are all out of sight."""
        whole, lists = keys.whole(self.chosen.shape[0], valid), self.chosen[:, :: self.sharing]
        if rows is self.rows and keys is self.keys:
            return Choice.of(lists, whole)
        device = self.chosen.device
        parts, known = [], []
        for ours, theirs in ((rows, self.rows), (keys, self.keys)):
            place = torch.searchsorted(theirs.tiles, ours.tiles).clamp_max(len(theirs.tiles) - 1)
            parts.append(place.to(device))
            known.append(((theirs.tiles[place] == ours.tiles) & (ours.filled <= theirs.filled[place])).to(device))
        chosen = lists[:, :, parts[0]][..., parts[1]] | ~(known[0][:, None] & known[1])
        return Choice.of(chosen | ~chosen.any(-1, keepdim=True), whole)


@dataclass(frozen=True)
class Residual:
    """What the tiles that one layer dropped gave to the rows `at`: mixed (b, heads, rows, dim), and the log-sum-exp of their scores, (b, heads, rows) fp32."""

    at: Int[Tensor, " rows"]
    mixed: Float[Tensor, "b h rows d"]
    lse: Float[Tensor, "b h rows"]

    def merge(self, at: Int[Tensor, " some"], kept: Float[Tensor, "b h some d"], lse: Float[Tensor, "b h some"]) -> Tensor:
        """Attention over both, from attention over the kept tiles and its log-sum-exp, for some of the rows."""
        mixed, dropped = self.mixed, self.lse
        if at is not self.at and not torch.equal(at, self.at):
            place = torch.searchsorted(self.at, at).to(lse.device, non_blocking=True)
            mixed, dropped = mixed.index_select(2, place), dropped.index_select(2, place)
        share = torch.sigmoid(dropped - lse).nan_to_num()  # of two sums that are both empty
        return kept.lerp(mixed, share[..., None].to(kept.dtype))


class SparseRun:
    """One run's pattern: when it is made, and what it is."""

    def __init__(self, settings: SparseD, start: int):
        self.settings = settings
        self.compat = settings.compat != "none"
        self.grid = Grid(0 if self.compat else start, settings.block_size)
        self.start = start
        self.patterns: dict[int, Pattern] = {}
        self.choices: dict[int, Choice] = {}
        self.residuals: dict[int, Residual] = {}
        self.kept: dict[int, Tensor] = {}
        self.made = 0
        self.held: float | None = None
        self.scope: Scope | None = None
        self.layout: tuple[Tiled, Tiled] | None = None
        self.observed: tuple[Scope, Tiled, Tiled] | None = None

    @property
    def recall(self) -> float | None:
        """The mean share of attention mass that the pattern keeps, as it was when the pattern was made; None before."""
        if self.held is None and self.patterns:
            self.held = torch.stack([p.recall.mean() for p in self.patterns.values()]).mean().item()
        return self.held

    def __call__(self, moment: Moment) -> Attend:
        impl: str | None = None
        observing = False

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, scope: Scope) -> Tensor:
            nonlocal impl, observing
            if layer == 0:
                setting = self.settings.impl
                impl = choose_implementation(q, len(scope.over), self.settings.block_size) if setting == "auto" else setting
                observing = impl is not None and self.due(moment, scope)
                if observing:
                    self.patterns, self.choices, self.residuals, self.kept, self.made, self.held = {}, {}, {}, {}, moment.step, None
                if observing or self.patterns or impl == "native":
                    self.enter(scope, q.device)
                if observing:
                    self.observed = (scope, *self.tiled)
            if observing:
                self.patterns[layer] = self.observe(moment, q, k, scope)
                if self.settings.residual and impl is not None:
                    self.residuals[layer] = self.remember(self.patterns[layer], q, k, v, scope, impl)
            elif impl is not None and layer in self.patterns:
                if self.settings.least_recall is not None:
                    self.watch(layer, q, k, moment, scope)
                return self.sparse(layer, q, k, v, scope, impl)
            if impl == "native" and len(scope.at) >= MANY:
                return block_sparse(q, k, v, *self.tiled, None, self.settings.block_size, valid=scope.valid, impl=impl)
            return dense(layer, q, k, v, scope)

        return attend

    def sparse(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scope: Scope, impl: str) -> Tensor:
        """Attention over a layer's chosen tiles, merged with what is remembered of the others."""
        (rows, keys), pattern, residual = self.tiled, self.patterns[layer], self.residuals.get(layer)
        if layer not in self.choices:
            self.choices[layer] = pattern.between(rows, keys, scope.valid)
        remembered = residual is not None and keys is pattern.keys
        lse = q.new_empty(q.shape[:3], dtype=torch.float32) if remembered else None
        kept = block_sparse(q, k, v, rows, keys, self.choices[layer], self.settings.block_size, valid=scope.valid, impl=impl, lse=lse)
        return kept if residual is None or lse is None else residual.merge(scope.at, kept, lse)

    def due(self, moment: Moment, scope: Scope) -> bool:
        """Whether this forward, which is dense, makes a pattern. Only one that computes all it sees can."""
        if len(scope.at) < len(scope.over):
            return False
        if self.settings.rebuild == "block":
            return moment.within == 0 and moment.committed >= self.settings.skip
        if self.patterns and self.kept:
            return torch.stack(list(self.kept.values())).mean().item() < (self.settings.least_recall or 0)
        if self.patterns:
            return isinstance(self.settings.rebuild, int) and moment.step - self.made >= self.settings.rebuild
        if self.compat:
            return moment.step >= int(moment.total * self.settings.skip) + 1
        return moment.committed >= self.settings.skip

    def enter(self, scope: Scope, device: torch.device) -> None:
        """Tile a forward's rows and columns, unless they are the last one's or those that made the pattern."""
        known = [(self.scope, *self.layout)] if self.scope is not None and self.layout is not None else []
        known += [self.observed] if self.observed is not None else []
        rows = next((rows for last, rows, _ in known if torch.equal(last.at, scope.at)), None) or Tiled.of(scope.at, self.grid, device)
        keys = next((keys for last, _, keys in known if torch.equal(last.over, scope.over)), None) or Tiled.of(scope.over, self.grid, device)
        if self.layout is None or rows is not self.layout[0] or keys is not self.layout[1]:
            self.choices = {}
        self.scope, self.layout = scope, (rows, keys)

    @property
    def tiled(self) -> tuple[Tiled, Tiled]:
        assert self.layout is not None
        return self.layout

    def observe(self, moment: Moment, q: Tensor, k: Tensor, scope: Scope) -> Pattern:
        """Choose one layer's tiles from this forward's queries and keys."""
        rows, keys = self.tiled
        settings, tiles = self.settings, len(keys.tiles)
        boundary = min(-(-self.start // self.grid.size), tiles - 1) if self.compat else self.grid.prompt_tiles
        first = int((keys.tiles < boundary).sum())
        scale = q.shape[1] ** -0.5 if settings.compat == "llada" else None
        mass = block_mass(q, k, rows, keys, self.grid.size, first, valid=scope.valid, scale=scale)
        if settings.share != "head":
            groups = k.shape[1] if settings.share == "group" else 1
            mass = Mass(*(self.mean_over_groups(m, groups) for m in (mass.total, mass.within)))
        chosen = self.choose(mass, keys, moment)
        sharing = 1 if settings.share == "head" else q.shape[1] // k.shape[1]
        return Pattern(rows, keys, chosen, (mass.total * chosen).sum(-1).mean((0, 1)), sharing)

    def remember(self, pattern: Pattern, q: Tensor, k: Tensor, v: Tensor, scope: Scope, impl: str) -> Residual:
        """What this forward's dropped tiles give."""
        rows, keys = self.tiled
        lse = q.new_empty(q.shape[:3], dtype=torch.float32)
        dropped = Choice.of(~pattern.chosen[:, :: pattern.sharing], keys.whole(q.shape[0], scope.valid))
        mixed = block_sparse(q, k, v, rows, keys, dropped, self.settings.block_size, valid=scope.valid, impl=impl, lse=lse)
        return Residual(scope.at, mixed, lse)

    def watch(self, layer: int, q: Tensor, k: Tensor, moment: Moment, scope: Scope) -> None:
        """Compare the mass that a layer's pattern holds with what it held when made, for the tile of rows where the block begins; not in a forward that
        computes or sees other positions than that one."""
        pattern, (rows, keys) = self.patterns[layer], self.tiled
        place = int(torch.searchsorted(rows.tiles, self.grid.tile(moment.block.start)))
        if rows is not pattern.rows or keys is not pattern.keys:
            return
        begin = int(rows.filled[:place].sum())
        end = begin + int(rows.filled[place])
        tile = Tiled.of(scope.at[begin:end], self.grid, q.device)
        mass = block_mass(q[:, :, begin:end], k, tile, keys, self.grid.size, len(keys.tiles), valid=scope.valid)
        self.kept[layer] = (mass.total[:, :, 0] * pattern.chosen[:, :, place]).sum(-1).mean() / pattern.recall[place]

    @staticmethod
    def mean_over_groups(mass: Tensor, groups: int) -> Tensor:
        grouped = mass.unflatten(1, (groups, -1))
        return grouped.mean(2, keepdim=True).expand_as(grouped).flatten(1, 2)

    def choose(self, mass: Mass, keys: Tiled, moment: Moment) -> Bool[Tensor, "b h rows keys"]:
        settings = self.settings
        if self.compat:
            return budget.official(mass, settings.amount)
        tail = None
        if settings.rebuild == "block":
            tail = int((keys.tiles < self.grid.tile(moment.block.start)).sum())
            first = mass.total.shape[-1] - mass.within.shape[-1]
            mass = Mass(mass.total[..., :tail], mass.within[..., : max(0, tail - first)])
        chosen = budget.enough(mass.total, settings.amount) if settings.by_mass else budget.apart(mass, settings.amount)
        return chosen if tail is None else torch.nn.functional.pad(chosen, (0, len(keys.tiles) - tail), value=True)
