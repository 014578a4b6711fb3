"""What a changed model is held against: masks, and how well the dense model fills them."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from functools import cached_property

import torch

from mezzotint.evaluation.comparison import Drop, Masked, Quality, drop, judge
from mezzotint.models.transformer import Transformer


class Validation:
    """Masked versions of samples that nothing is calibrated on."""

    def __init__(self, dense: Transformer, rows: Sequence[Masked]):
        self.model, self.rows = dense, rows

    @cached_property
    def dense(self) -> Quality:
        return judge(self.model, self.rows)

    @cached_property
    def brief(self) -> "Validation":
        """One masked version of each sample, few masks of one and many of the next: the same question for a fraction of the work."""
        versions = Counter(sample for batch in self.rows for sample in batch.samples.tolist())
        seen: Counter[int] = Counter()
        some = []
        for batch in self.rows:
            chosen = []
            for row, sample in enumerate(batch.samples.tolist()):
                if seen[sample] == sample % versions[sample]:
                    chosen.append(row)
                seen[sample] += 1
            if chosen:
                some.append(Masked(*(getattr(batch, field.name)[torch.tensor(chosen)] for field in dataclasses.fields(batch))))
        return Validation(self.model, some)

    def drop(self, changed: Transformer, measure: str) -> Drop:
        """The quality that a changed model has lost."""
        return drop(judge(changed, self.rows), self.dense, measure)
