"""Candidates of many runs in one call: sampling treats positions one by one and every run has its own generator, so a run's draws are its own."""

from collections.abc import Sequence
from dataclasses import replace

from torch.nn.utils.rnn import pad_sequence

from mezzotint.commit import Prediction, Sampler
from mezzotint.denoising import Draw


def draw_all(draws: Sequence[Draw]) -> list[Prediction | Exception]:
    """Every draw's candidates, or what went wrong. Draws of one row by equal samplers are made together, filled up to the widest."""
    found: list[Prediction | Exception] = [RuntimeError("not drawn")] * len(draws)
    alike: dict[object, list[int]] = {}
    for index, draw in enumerate(draws):
        together = isinstance(draw.sampler, Sampler) and len(draw.logits) == 1
        alike.setdefault(draw.sampler if together else id(draw), []).append(index)
    for members in alike.values():
        try:
            drawn = draw_together([draws[i] for i in members])
        except Exception as error:  # it ends the runs it belongs to, not the engine
            drawn = [error] * len(members)
        for index, prediction in zip(members, drawn, strict=True):
            found[index] = prediction
    return found


def draw_together(draws: Sequence[Draw]) -> list[Prediction]:
    if len(draws) == 1:
        return [draws[0].answer()]
    logits = pad_sequence([draw.logits[0] for draw in draws], batch_first=True)
    open = pad_sequence([draw.open[0] for draw in draws], batch_first=True)
    generators = [draw.generators[0] for draw in draws]
    every = draws[0].sampler(logits, open, generators)
    return [
        replace(every, tokens=every.tokens[i : i + 1, :width], confidence=every.confidence[i : i + 1, :width], open=draw.open, generators=draw.generators)
        for i, draw in enumerate(draws)
        for width in (draw.logits.shape[1],)
    ]
