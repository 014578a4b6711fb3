"""Full attention: every row sees every visible position. The null choice."""

from collections.abc import Callable
from dataclasses import dataclass

from mezzotint.canvas import Canvas
from mezzotint.models.transformer import Attend, dense
from mezzotint.types import Moment


@dataclass(frozen=True)
class Dense:
    """PyTorch's scaled dot-product attention, which picks the fastest exact kernel of the device."""

    def begin(self, canvas: Canvas) -> Callable[[Moment], Attend]:
        return lambda moment: dense
