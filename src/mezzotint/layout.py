"""Where blocks stand and what of them is final: models that see their whole canvas, and models trained in blocks (block diffusion, arXiv 2503.09573).

A block-causal model never looks ahead. Once the tokens before a block are decided and their rows were computed as they stand, keys and values are exact
for the rest of the run: the prefix cache loses nothing, and there is no suffix to drop.
"""

from mezzotint.attention import SlidingWindow, SparseD, StreamingLLM
from mezzotint.cache import FeatureCache
from mezzotint.canvas import Block, Canvas
from mezzotint.commit import Edit
from mezzotint.models.config import ModelConfig
from mezzotint.recipe import Recipe, round_up
from mezzotint.strategies import told
from mezzotint.types import Moment, Positions, Wanted


class Free:
    """Blocks of any length after the prompt, everything seen, nothing final."""

    before: int | None = None
    """Where the trained block begins in which the active block lies; None where there are none."""

    def __init__(self, canvas: Canvas, width: int):
        self.canvas, self.width = canvas, width

    def limit(self, max_tokens: int) -> int:
        """Canvas length that holds max_tokens in every row, in whole blocks."""
        origin = self.canvas.origin
        return origin + round_up(max(self.canvas.begins) - origin + max_tokens, self.width)

    def whole(self, length: int) -> int:
        """The canvas length from `length` on at which the canvas may end."""
        return length

    def enter(self, block: Block, visible: Positions) -> Positions:
        """A block begins; what of `visible` the model sees."""
        return visible

    def carries(self, block: Block, wanted: Wanted) -> bool:
        """Whether the block's first token is decided alone, by the row before it."""
        return False

    def needed(self, moment: Moment, rows: Positions, carried: bool) -> Positions:
        """The rows that must be computed, of those the cache wants to."""
        return rows

    def computed(self, rows: Positions) -> None:
        """These rows were stored as their tokens stood."""

    def closed(self, block: Block, rows: Positions) -> None:
        """These rows of a block were stored with its last tokens."""


class Trained(Free):
    """Blocks on the model's own grid. `settled`: up to where keys and values are final."""

    before: int

    def __init__(self, canvas: Canvas, grid: int, carry: bool):
        super().__init__(canvas, grid)
        self.carry, self.settled, self.before = carry, 0, 0

    def whole(self, length: int) -> int:
        return round_up(length, self.width)

    def enter(self, block: Block, visible: Positions) -> Positions:
        self.before = block.start // self.width * self.width
        return visible[visible < self.before + self.width]

    def carries(self, block: Block, wanted: Wanted) -> bool:
        return self.carry and block.start == self.before > 0 and bool(wanted[:, 0].any())

    def needed(self, moment: Moment, rows: Positions, carried: bool) -> Positions:
        inside = self.carry and moment.block.start == self.before and not carried
        return rows[rows >= (self.settled if inside else min(self.settled, moment.first))]

    def computed(self, rows: Positions) -> None:
        self._settle(rows, self.before)

    def closed(self, block: Block, rows: Positions) -> None:
        if block.end == self.before + self.width:
            self._settle(rows, block.end)

    def _settle(self, rows: Positions, until: int) -> None:
        fresh = int(((rows >= self.settled) & (rows < until)).sum())
        if fresh == until - self.settled > 0:
            self.settled = until


def check_blocks(canvas: Canvas, recipe: Recipe, *, grows: bool) -> None:
    """Raises ValueError for strategies that this canvas has too few or too many blocks for: where gaps are filled, it is not the recipe's."""
    length = canvas.length if not grows or recipe.max_tokens is None else max(canvas.begins) + recipe.max_tokens
    recipe.check_ahead(length - canvas.start)


def lay_out(canvas: Canvas, config: ModelConfig, recipe: Recipe) -> Free:
    """Put the blocks where the model was trained to have them. Raises ValueError for a recipe that a block-causal, windowed or divided model cannot follow."""
    grid = config.block_length
    if (grid or config.window) and isinstance(recipe.cache, FeatureCache):
        raise ValueError(f"cache=feature computes different rows in every layer, which {config.family} with its masked attention cannot; choose prefix")
    if config.ranks > 1 and isinstance(recipe.cache, FeatureCache):
        raise ValueError("cache=feature compares whole value vectors, of which a rank of tensor_parallel has its own heads' part; choose another cache")
    if config.ranks > 1 and isinstance(recipe.attention, SparseD) and (recipe.attention.share == "all" or recipe.attention.compat == "llada"):
        raise ValueError(f"attention={told('attention', recipe.attention)} looks at all heads of a layer, of which a rank of tensor_parallel has a part")
    if grid is None:
        return Free(canvas, recipe.width)
    if config.carry and (isinstance(recipe.commit, Edit) or getattr(recipe.commit, "compat", "none") == "sdar"):
        raise ValueError(f"commit={told('commit', recipe.commit)} rewrites a block's first token, which {config.family} decides alone; choose at_least")
    if grid % recipe.width:
        raise ValueError(f"block_length={recipe.width} does not fit this model, which sees blocks of {grid}; give block_length={grid} or a divisor of it")
    if isinstance(recipe.attention, SparseD | SlidingWindow | StreamingLLM):
        raise ValueError(f"attention={type(recipe.attention).__name__} is for models that see their whole canvas, not blocks of {grid}; choose dense")
    if config.aligned_to_end:
        canvas.origin = canvas.start // grid * grid
    else:
        canvas.align(grid)
    return Trained(canvas, grid, config.carry)
