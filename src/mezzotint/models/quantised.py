"""Layers with int8 or int4 weights through torchao (extra `quant`); embeddings, norms and the head keep their type."""

import copy
import dataclasses
import logging
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from mezzotint.models.experts import Experts
from mezzotint.models.transformer import Transformer

FIELD = "mezzotint_quantised"
"""The key of config.json that says how a checkpoint is quantised when it is loaded."""

SCHEMES = ("int8-weight", "int8-dynamic", "int4-weight")

GROUP = 32
"""Weights of a row that share a scale in int4; a matrix whose inputs are no multiple of it cannot be int4."""


def scheme_of(raw: dict[str, Any]) -> str | None:
    """What config.json asks for. Raises ValueError for a scheme that is not known."""
    scheme = raw.get(FIELD)
    if scheme is not None and scheme not in SCHEMES:
        raise ValueError(f"config.json: {FIELD}={scheme!r} is unknown; accepted: {', '.join(SCHEMES)}")
    return scheme


def quantise(model: Transformer, scheme: str, layers: int | None = None) -> Transformer:
    """A model whose layers' matrices are quantised, experts included; the given one stays as it is.

    int8-weight: weights only, one scale a row; less memory, no less work. int8-dynamic: activations too, one scale a token; faster where int8 products are.
    int4-weight: groups of 32 weights; the model must be bfloat16. Prune before, never after. layers: the first so many
    only, to see whether it is possible. Raises ValueError for a scheme that is
    unknown or not possible here, and naming the extra if torchao is missing.
    """
    if scheme not in SCHEMES:
        raise ValueError(f"quantise={scheme!r} is unknown; accepted: {', '.join(SCHEMES)}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = logging.root.manager.disable
        logging.disable(max(before, logging.WARNING))
        try:
            from torchao.quantization import Int4WeightOnlyConfig, Int8DynamicActivationInt8WeightConfig, Int8WeightOnlyConfig, quantize_
        except ImportError:
            raise ValueError(f"quantise={scheme!r} needs torchao; install it with: pip install 'mezzotint[quant]'") from None
        finally:
            logging.disable(before)
        if scheme == "int8-weight":
            config: Any = Int8WeightOnlyConfig()
        elif scheme == "int8-dynamic":
            config = Int8DynamicActivationInt8WeightConfig()
        elif model.device.type == "cpu":
            config = four_bits_on_cpu(model)
        else:
            offered = {field.name for field in dataclasses.fields(Int4WeightOnlyConfig)}
            tiled = model.device.type == "cuda" and "int4_packing_format" in offered  # the default format needs a package of its own there
            packing: dict[str, Any] = {"int4_packing_format": "tile_packed_to_4d"} if tiled else {}
            config = Int4WeightOnlyConfig(group_size=GROUP, **packing)
        smaller = unstacked(model)
        if scheme == "int4-weight":
            check_groups(smaller.layers[:layers])
        try:
            quantize_(smaller.layers[:layers], config, lambda module, name: isinstance(module, nn.Linear))
        except (RuntimeError, NotImplementedError, ImportError, AssertionError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(f"quantise={scheme!r} is not possible with this model on {model.device}: {reason}") from None
    return smaller


def unstacked(model: Transformer) -> Transformer:
    """The same model with the same weights, whose modules are its own. Experts are not stacked in it: a quantised one runs on its own."""
    shared: dict[int, Any] = {id(parameter): parameter for parameter in model.parameters()}
    shared |= {id(module.stacked): {} for module in model.modules() if isinstance(module, Experts)}
    return copy.deepcopy(model, shared)


def four_bits_on_cpu(model: Transformer) -> Any:
    """torchao keeps int4 for CPUs among its prototypes."""
    if model.dtype != torch.bfloat16:
        raise ValueError(f"quantise='int4-weight' on a CPU needs a bfloat16 model, this one is {model.dtype}; load it with dtype='bfloat16'")
    try:
        from torchao.prototype.quantization.int4 import PrototypeInt4WeightOnlyConfig
    except ImportError:
        raise ValueError("quantise='int4-weight' on a CPU is not in this version of torchao; accepted here: int8-weight, int8-dynamic") from None
    return PrototypeInt4WeightOnlyConfig(group_size=GROUP)


def check_groups(layers: nn.Module) -> None:
    """Refuse what torchao would leave unquantised without a word."""
    for name, module in layers.named_modules():
        if isinstance(module, nn.Linear) and module.in_features % GROUP:
            raise ValueError(f"quantise='int4-weight' is not possible: layers.{name} has {module.in_features} inputs, which are not a multiple of {GROUP}")


def packed(weight: Tensor) -> bool:
    """Whether a tensor is one of torchao's, which hold smaller numbers than their type says."""
    return type(weight.data) is not Tensor


def stored_bytes(module: nn.Module) -> int:
    """Bytes of the parameters as they are kept, scales included, shared ones counted once."""

    def size(tensor: Tensor) -> int:
        if hasattr(tensor, "__tensor_flatten__"):
            return sum(size(getattr(tensor, name)) for name in tensor.__tensor_flatten__()[0])  # type: ignore[operator]
        return tensor.numel() * tensor.element_size()

    return sum(size(p.data) for p in {id(p): p for p in module.parameters()}.values())
