"""The same figures for an autoregressive model: any causal checkpoint that transformers knows without code of its own, beside a diffusion model."""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mezzotint.analysis.recording import Recording
from mezzotint.models.loading import CheckpointError

LONGEST = 2048
"""Tokens; all attention maps of all layers are held at once."""


def load_causal(source: str | Path) -> tuple[Any, Any]:
    """A causal model with visible attention maps, and its tokenizer; safetensors only. Raises CheckpointError."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        model = AutoModelForCausalLM.from_pretrained(source, trust_remote_code=False, use_safetensors=True, attn_implementation="eager")
        return model.eval(), AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise CheckpointError(
            f"beside={str(source)!r} is not a causal checkpoint that can be read without code of its own: {str(error).splitlines()[0]}"
        ) from None


@torch.no_grad()
def record_causal(model: Any, ids: Int[Tensor, " n"], *, steps: int = 32) -> Recording:
    """Shares while the text grows to its end, at `steps` lengths from a quarter of it on.

    Each row is taken relative to even attention over what it sees, and a column over the rows that see it: else the first positions, which few others share a
    row with, would look like sinks for no other reason.
    One forward is enough, since a row's attention does not depend on what follows it. Raises ValueError for a text too short or too long.
    """
    if not 8 <= len(ids) <= LONGEST:
        raise ValueError(f"a text of {len(ids)} tokens cannot be compared; give 8 to {LONGEST}")
    maps = torch.stack(model(ids[None], output_attentions=True, use_cache=False).attentions)[:, 0].float()
    lengths = torch.linspace(len(ids) / 4, len(ids), min(steps, len(ids) // 2)).round().long()
    return Recording(torch.stack([prefix_share(maps, int(n)) for n in lengths], dim=2)[None], lengths.float(), "prefixes")


def prefix_share(maps: Float[Tensor, "layers heads n n"], length: int) -> Float[Tensor, "layers heads n"]:
    """Shares of the first `length` positions; the others, not there yet, have none. Even attention gives even shares."""
    place = torch.arange(length)
    sums = (maps[:, :, :length, :length] * (place + 1)[:, None]).sum(2) / (length - place)
    return torch.nn.functional.pad(sums / sums.sum(-1, keepdim=True), (0, maps.shape[-1] - length))
