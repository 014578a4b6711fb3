"""The checker of the tests itself: what is wrong is refused, also after a right call of the same function and in functions made anew."""

import pytest
import torch
from checker import check
from jaxtyping import Float, jaxtyped
from torch import Tensor


def adder(dtype: torch.dtype):
    @jaxtyped(typechecker=check)
    def add(x: Float[Tensor, "b n"], y: Float[Tensor, "b n"], scale: float = 1.0) -> Float[Tensor, "b n"]:
        return (x + y * scale).to(dtype)

    return add


def inner(dtype: torch.dtype):
    @jaxtyped(typechecker=check)
    def total(x: Float[Tensor, "b n"], parts: list[int]) -> Float[Tensor, " b"]:
        return x.sum(1).to(dtype)

    return total


@pytest.mark.parametrize("again", range(2))
def test_what_is_wrong_is_refused_every_time(again):
    add, right = adder(torch.float32), torch.zeros(2, 3)
    for _ in range(2):
        assert add(right, right, 2).shape == (2, 3)
        for wrong in (torch.zeros(2, 4), torch.zeros(3), torch.zeros(2, 3, dtype=torch.long), "text"):
            with pytest.raises(Exception, match="Type-check error"):
                add(right, wrong)
        with pytest.raises(Exception, match="Type-check error"):
            adder(torch.long)(right, right)


def test_containers_are_looked_into():
    total, x = inner(torch.float32), torch.zeros(2, 3)
    total(x, [1])
    with pytest.raises(Exception, match="Type-check error"):
        total(x, ["one"])
    with pytest.raises(Exception, match="Type-check error"):
        inner(torch.long)(x, [1])
    with pytest.raises(Exception, match="Type-check error"):
        inner(torch.float32)(x[0], [1])
