"""MDLM (arXiv 2406.07524) and BD3-LM (arXiv 2503.09573) on OpenWebText: mdlm-owt, bd3lm-owt-block_size4, 8, 16. A DiT without time.

`time_conditioning` is false in every checkpoint, so what the DiT derives from time is constant and folded into the weights when they are read:
shift and scale into the norms, gates into the maps that follow them.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from mezzotint.models.config import ModelConfig
from mezzotint.models.families.fields import Fields
from mezzotint.models.families.names import Derived

ARCHITECTURES = ("BD3LM", "MDLM")
TURN_END = "<|endoftext|>"
REQUIRED = {"adaln": True, "time_conditioning": False, "causal": False}

OUTER = {
    "embedding.weight": "backbone.vocab_embed.embedding",
    "head.weight": "backbone.output_layer.linear.weight",
    "head.bias": "backbone.output_layer.linear.bias",
}
LAYER = "backbone.blocks.{}."
INNER = {"mlp.up.weight": "mlp.0.weight", "mlp.up.bias": "mlp.0.bias"}

TIME = tuple(f"backbone.sigma_map.mlp.{part}" for part in ("0.weight", "0.bias", "2.weight", "2.bias"))
FREQUENCIES = 256


def recognises(config: dict) -> bool:
    return config.get("model_type") in ("bd3lm", "mdlm")


def modulation(first: Tensor, first_bias: Tensor, second: Tensor, second_bias: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """What a layer's adaLN gives at time 0: its parts (shift, scale, gate, ...) one behind the other, in fp32."""
    zero = torch.cat((torch.ones(FREQUENCIES // 2), torch.zeros(FREQUENCIES // 2))).to(weight.device)
    hidden = F.silu(F.linear(zero, first.float(), first_bias.float()))
    return F.linear(F.silu(F.linear(hidden, second.float(), second_bias.float())), weight.float(), bias.float())


def folded(names: tuple[str, ...], layer: str, fold: Callable[[tuple[Tensor, ...], list[Tensor]], Tensor], parts: int) -> Derived:
    """A parameter made from the tensors `names` and the `parts` of the adaLN of `layer`."""

    def make(*tensors: Tensor) -> Tensor:
        own, time = tensors[: len(names)], tensors[len(names) :]
        like = time[0]
        return fold(own, list(modulation(*time).chunk(parts))).to(like.dtype)

    return Derived((*names, *TIME, f"{layer}adaLN_modulation.weight", f"{layer}adaLN_modulation.bias"), make)


def scaled(own: tuple[Tensor, ...], parts: list[Tensor], *, scale: int) -> Tensor:
    """A norm's weight times 1 + scale."""
    return own[0].float() * (1 + parts[scale])


def shifted(own: tuple[Tensor, ...], parts: list[Tensor], *, shift: int) -> Tensor:
    return parts[shift]


def gated(own: tuple[Tensor, ...], parts: list[Tensor], *, gate: int) -> Tensor:
    """A linear map's rows (or its bias) times the gate."""
    return own[0].float() * (parts[gate][:, None] if own[0].ndim == 2 else parts[gate])


def third(own: Tensor, *, index: int) -> Tensor:
    """Queries, keys or values of the tensor that holds all three."""
    return own.chunk(3)[index]


def derived(config: ModelConfig) -> dict[str, Derived]:
    table = {}
    for number in range(config.layers):
        ours, stored = f"layers.{number}.", LAYER.format(number)
        for index, part in enumerate("qkv"):
            table[f"{ours}attention.{part}.weight"] = Derived((f"{stored}attn_qkv.weight",), partial(third, index=index))
        for place, name, shift in (("attention_norm", "norm1", 0), ("mlp_norm", "norm2", 3)):
            table[f"{ours}{place}.weight"] = folded((f"{stored}{name}.weight",), stored, partial(scaled, scale=shift + 1), 6)
            table[f"{ours}{place}.bias"] = folded((), stored, partial(shifted, shift=shift), 6)
        table[f"{ours}attention.out.weight"] = folded((f"{stored}attn_out.weight",), stored, partial(gated, gate=2), 6)
        for part in ("weight", "bias"):
            table[f"{ours}mlp.down.{part}"] = folded((f"{stored}mlp.2.{part}",), stored, partial(gated, gate=5), 6)
    last = "backbone.output_layer."
    table["norm.weight"] = folded((f"{last}norm_final.weight",), last, partial(scaled, scale=1), 2)
    table["norm.bias"] = folded((), last, partial(shifted, shift=0), 2)
    return table


def configure(config: dict) -> ModelConfig:
    """The model's shape from the DiT's `config.json`. Raises ValueError naming a field that is missing or unsupported."""
    fields = Fields(config, "MDLM")
    fields.demand(REQUIRED)
    heads, hidden, vocabulary = fields.size("n_heads"), fields.size("hidden_dim"), fields.size("vocab_size")
    blocks = config.get("model_type") == "bd3lm" and config.get("cross_attn", True)
    end = min(50256, vocabulary - 1)
    return ModelConfig(
        family="mdlm",
        vocab_size=vocabulary,
        hidden_size=hidden,
        layers=fields.size("n_blocks"),
        heads=heads,
        kv_heads=heads,
        head_dim=fields.share(hidden, heads),
        mlp_size=4 * hidden,
        norm_eps=1e-5,
        rope_theta=10000.0,
        rope_full_precision=True,
        max_length=fields.size("model_length"),
        norm="layer",
        norm_bias=True,
        activation="gelu_tanh",
        gated=False,
        mlp_bias=True,
        head_bias=True,
        mask_id=fields.mask_id(vocabulary - 1),
        stop_ids=(end,),
        pad_id=end,
        block_length=fields.size("block_size") if blocks else None,
        recipe="bd3lm" if blocks else "plain",
    )
