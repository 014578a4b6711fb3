"""Reading a checkpoint's `config.json` with errors that name the field."""

from typing import Any

from mezzotint.models.rope import from_checkpoint


class Fields:
    def __init__(self, config: dict[str, Any], family: str):
        self.config, self.family = config, family

    def _value(self, name: str, default: Any) -> Any:
        value = self.config.get(name)
        if value is None:
            value = default
        if value is None:
            raise ValueError(f"config.json has no {name!r}, which a {self.family} checkpoint needs")
        return value

    def integer(self, name: str, default: int | None = None) -> int:
        value = self._value(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ValueError(f"config.json: {name}={value!r} must be a whole number, 0 or more")
        return value

    def size(self, name: str, default: int | None = None) -> int:
        value = self.integer(name, default)
        if value == 0:
            raise ValueError(f"config.json: {name}=0 must be at least 1")
        return value

    def flag(self, name: str, default: bool) -> bool:
        value = self._value(name, default)
        if not isinstance(value, bool):
            raise ValueError(f"config.json: {name}={value!r} must be true or false")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        value = self._value(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise ValueError(f"config.json: {name}={value!r} must be a number above 0")
        return float(value)

    def mask_id(self, usual: int | None = None) -> int:
        """The mask token's id: the config's, found in the tokenizer's files, given by the user, or the one the family's checkpoints use."""
        if self.config.get("mask_token_id") is None and usual is None:
            raise ValueError(f"neither config.json nor the tokenizer's files name the mask token of this {self.family} checkpoint; give its id with mask_id")
        mask, vocabulary = self.integer("mask_token_id", usual), self.size("vocab_size")
        if mask >= vocabulary:
            raise ValueError(f"the mask token's id {mask} lies outside the vocabulary of {vocabulary}; give the right one with mask_id")
        return mask

    def tokens(self, *, mask: int | None = None, stop: int | None = None, pad: int | None = None) -> "dict[str, Any]":
        """The ids of special tokens: those given here are the ones that the family's checkpoints use, where no file says. Padding is the first stop id then."""
        ends = self.ids("eos_token_id", *(() if stop is None else (stop,)))
        return {"mask_id": self.mask_id(mask), "stop_ids": ends, "pad_id": self.token("pad_token_id", ends[0] if pad is None else pad)}

    def token(self, name: str, usual: int) -> int:
        """One id."""
        found = self.integer(name, usual)
        self.known(name, found)
        return found

    def ids(self, name: str, *usual: int) -> tuple[int, ...]:
        """One id or a list of them."""
        value = self.config.get(name)
        found = list(usual) if value is None else value if isinstance(value, list) else [value]
        if not found or any(isinstance(i, bool) or not isinstance(i, int) or i < 0 for i in found):
            raise ValueError(f"config.json: {name}={value!r} must be a token id or a list of them")
        self.known(name, *found)
        return tuple(dict.fromkeys(found))

    def known(self, name: str, *ids: int) -> None:
        """Refuse ids that config.json names and the vocabulary does not have. Those of a family's large checkpoints may well lie outside a small one's."""
        vocabulary = self.size("vocab_size")
        wrong = next((token for token in ids if token >= vocabulary), None)
        if wrong is not None and self.config.get(name) is not None:
            raise ValueError(f"config.json: {name} {wrong} lies outside the vocabulary of {vocabulary}")

    def rope(self, theta: float) -> "dict[str, Any]":
        """Rotation: theta, scaling and the share of a head's features that is rotated, at the top or under `rope_parameters`."""
        nested = self.config.get("rope_parameters") or {}
        if not isinstance(nested, dict):
            raise ValueError(f"config.json: rope_parameters={nested!r} must be an object")
        inside = Fields(self.config | {name: value for name, value in nested.items() if name in ("rope_theta", "partial_rotary_factor")}, self.family)
        scaled = nested if nested.get("rope_type", "default") != "default" else None
        share = inside.config.get("partial_rotary_factor")
        off = share is None or (isinstance(share, int | float) and not isinstance(share, bool) and share <= 0)  # LLaDA-MoE says -1 where all is rotated
        share = 1.0 if off else inside.number("partial_rotary_factor")
        if not 0 < share <= 1:
            raise ValueError(f"config.json: partial_rotary_factor={share} must lie in (0, 1]")
        length = self.size("max_position_embeddings")
        return {
            "rope_theta": inside.number("rope_theta", theta),
            "rope_scaling": from_checkpoint(self.config.get("rope_scaling") or scaled, length, self.config.get("original_max_position_embeddings")),
            "rope_full_precision": False,
            "rotary_dim": None if share == 1.0 else int(self.head_dim() * share) // 2 * 2,
            "max_length": length,
        }

    def head_dim(self) -> int:
        """The width of a head, given or the hidden width shared among them."""
        given = self.config.get("head_dim") is not None
        return self.size("head_dim") if given else self.share(self.size("hidden_size"), self.size("num_attention_heads"))

    @staticmethod
    def share(hidden: int, heads: int) -> int:
        """A head's part of the width."""
        if hidden % heads:
            raise ValueError(f"config.json: the width {hidden} is not a multiple of the {heads} heads")
        return hidden // heads

    def kv_heads(self, name: str, heads: int) -> int:
        """How many key heads there are: as many query heads share each."""
        count = self.size(name, heads)
        if heads % count:
            raise ValueError(f"config.json: {name}={count} must divide the {heads} heads")
        return count

    def shape(self, mlp: str = "intermediate_size", eps: str = "rms_norm_eps") -> "dict[str, Any]":
        """The fields that nearly every family names as Llama and Qwen do."""
        heads = self.size("num_attention_heads")
        return {
            "vocab_size": self.size("vocab_size"),
            "hidden_size": self.size("hidden_size"),
            "layers": self.size("num_hidden_layers"),
            "heads": heads,
            "kv_heads": self.kv_heads("num_key_value_heads", heads),
            "head_dim": self.head_dim(),
            "mlp_size": self.size(mlp),
            "norm_eps": self.number(eps, 1e-6),
            "tied_head": self.flag("tie_word_embeddings", False),
        }

    def demand(self, expected: dict[str, Any]) -> None:
        """Refuse a field whose value selects a network that this family's released checkpoints do not use. null is as good as false."""
        for name, value in expected.items():
            given = self.config.get(name, value)
            if given != value and not (given is None and value is False):
                raise ValueError(f"config.json: {name}={self.config[name]!r} is not supported for {self.family}; supported: {value!r}")
