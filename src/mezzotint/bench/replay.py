"""A replayed pace: so many tokens per forward and an answer of so many tokens, for models whose predictions mean nothing."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Bool
from torch import Tensor

from mezzotint.commit import Linear, Origin, Prediction, Quota, Sequential, Shuffled, Timed
from mezzotint.commit.rules import Accept, best
from mezzotint.denoising import Step
from mezzotint.recipe import Recipe

SCHEDULES = (Quota, Timed, Origin, Linear, Shuffled, Sequential)
"""Rules whose pace does not depend on what is predicted; they keep their own."""

WRITTEN = re.compile(r"^(?:(?P<recipe>.+):)?(?P<fields>(?:tokens_per_forward|answer)=.*)$")


@dataclass(frozen=True)
class Replay:
    """What a run with real weights did, told to one without.

    tokens_per_forward: the mean number of tokens that a forward commits under a rule which goes by confidence (threshold, factor, entropy bound), at least 1;
    answer: tokens before the stop id, for recipes that stop early; None: the canvas is decoded to its end. The model's own stop ids then end nothing.
    """

    tokens_per_forward: float | None = None
    answer: int | None = None

    def __post_init__(self) -> None:
        if self.tokens_per_forward is not None and not 1 <= self.tokens_per_forward < math.inf:
            raise ValueError(f"replay tokens_per_forward={self.tokens_per_forward} must be 1 or more")
        if self.answer is not None and self.answer < 1:
            raise ValueError(f"replay answer={self.answer} must be at least 1 token")


def parse(texts: Sequence[str]) -> dict[str | None, Replay]:
    """`tokens_per_forward=3.2,answer=197`, for every recipe (None), or behind a recipe's name and a colon for that one."""
    found: dict[str | None, Replay] = {}
    for text in texts:
        match = WRITTEN.match(text)
        if match is None:
            raise ValueError(f"replay={text!r} is not accepted; give [RECIPE:]tokens_per_forward=3.2[,answer=197]")
        values: dict[str, float] = {}
        for part in match["fields"].split(","):
            field, _, value = part.partition("=")
            try:
                values[field] = {"tokens_per_forward": float, "answer": int}[field](value)
            except (KeyError, ValueError):
                raise ValueError(f"replay={text!r}: {part!r} is not accepted; give tokens_per_forward=NUMBER or answer=WHOLE NUMBER") from None
        found[match["recipe"]] = Replay(**values)  # type: ignore[arg-type]
    return found


class Paced:
    """A commit rule that belongs to one run and keeps its mean pace over all blocks: what the end of a block cut off is made up for later."""

    def __init__(self, tokens_per_forward: float):
        self.tokens_per_forward, self.due = tokens_per_forward, 0.0

    def begin(self, steps: int, open: Bool[Tensor, "b w"]) -> Accept:
        return self.accept

    def accept(self, prediction: Prediction) -> Bool[Tensor, "b w"]:
        """The surest candidates of each row, as many as are due."""
        self.due += self.tokens_per_forward
        counts = [min(int(self.due), left) for left in prediction.open.sum(1).tolist()]
        self.due -= max(counts)
        return best(prediction, counts)


def replayed(name: str, recipe: Recipe, replay: Replay, *, meaningless: bool) -> Recipe:
    """The recipe at the replayed pace, good for one run. Raises ValueError if it goes by confidences that random weights (`meaningless`) do not have."""
    if isinstance(recipe.commit, SCHEDULES):
        return recipe
    if replay.tokens_per_forward is None:
        if meaningless:
            raise ValueError(
                f"recipe={name!r} commits by confidence ({type(recipe.commit).__name__}), which random weights do not have; "
                "give its pace with --replay tokens_per_forward=3.2"
            )
        return recipe
    return recipe.with_(commit=Paced(replay.tokens_per_forward))


def ended(step: Step, answer: int, early_stop: str) -> bool:
    """Whether a stop id behind `answer` tokens would have ended every row by now."""
    block = step.block
    places = [begin + answer - block.start for begin in step.begins]
    if early_stop == "off" or max(places) >= len(block):
        return False
    decided = step.ids >= 0
    return all(bool((row if early_stop == "block" else row[: max(0, place) + 1]).all()) for row, place in zip(decided, places, strict=True))
