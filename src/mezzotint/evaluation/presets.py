"""Published evaluation settings, per model and task, each with the figure that was published for it."""

from dataclasses import dataclass, field
from typing import Any

from mezzotint.cache import PrefixCache
from mezzotint.commit import Threshold, Timed
from mezzotint.recipe import Recipe
from mezzotint.suffix import DPad


@dataclass(frozen=True)
class Preset:
    """recipe and settings: what is asked for; published: the figure and its conditions, in words; source: where both stand."""

    recipe: Recipe
    settings: dict[str, Any] = field(default_factory=dict)
    published: str = ""
    source: str = ""

    @property
    def options(self) -> str:
        """Recipe and settings as the command line writes them."""
        values = {name: ("no", "yes")[value] if isinstance(value, bool) else value for name, value in self.settings.items()}
        return " ".join(filter(None, [str(self.recipe), *(f"--{name.replace('_', '-')} {value}" for name, value in values.items())]))


def whole(length: int, block: int | None = None, **more: Any) -> Recipe:
    """One token per forward, as LLaDA's evaluations have it; the answer's text is that of the whole canvas, the cost less."""
    return Recipe(gen_length=length, block_length=block, **more)


def dream(length: int, temperature: float, top_p: float) -> Recipe:
    return Recipe(gen_length=length, block_length=None, commit=Timed(), sampling="categorical", confidence="entropy", temperature=temperature, top_p=top_p)


def parallel(length: int, **more: Any) -> Recipe:
    return Recipe(gen_length=length, block_length=32, commit=Threshold(0.9), **more)


LLADA = "LLaDA EVAL.md (arXiv 2502.09992)"
DREAM_BASE = "Dream eval/eval_dream_gen.sh (arXiv 2508.15487)"
DREAM_INSTRUCT = "Dream eval_instruct/eval.sh (arXiv 2508.15487)"
DPAD = "DPad's scripts and README (arXiv 2508.14148), A100-PCIe-80GB"
FAST = "Fast-dLLM (arXiv 2505.22618), A100-80GB"

PRESETS: dict[str, dict[str, Preset]] = {
    "llada-base": {
        "gsm8k": Preset(whole(1024), {"shots": 5, "chat": False}, "70.3 (lm-eval)", LLADA),
        "humaneval": Preset(whole(1024), {"chat": False}, "35.4 (lm-eval)", LLADA),
        "mbpp": Preset(whole(1024), {"shots": 3, "chat": False}, "40.0 (lm-eval)", LLADA),
        "mmlu": Preset(Recipe(), {"shots": 5, "samples": 1}, "65.9 (lm-eval, one draw)", LLADA),
        "arc": Preset(Recipe(), {"samples": 128, "cfg_scale": 0.5}, "47.9 with guidance 0.5, 45.9 without (lm-eval, 128 draws)", LLADA),
    },
    "llada-instruct": {
        "gsm8k": Preset(whole(256, 8), {"shots": 4, "chat": True}, "78.6 (internal toolkit), 78.9 (OpenCompass)", LLADA),
        "humaneval": Preset(whole(512, end_tokens="never"), {"chat": True}, "49.4 (internal toolkit), 47.0 (OpenCompass)", LLADA),
        "mbpp": Preset(whole(256, end_tokens="last"), {"shots": 3, "chat": True}, "41.0 (internal toolkit), 39.6 (OpenCompass)", LLADA),
    },
    "llada-instruct-whole": {
        "gsm8k": Preset(
            whole(512, end_tokens="last"), {"shots": 4, "chat": True}, "69.4 (internal toolkit), 68.8 (OpenCompass): the paper's, without blocks", LLADA
        ),
    },
    "llada-1.5": {
        "gsm8k": Preset(whole(256, 16, end_tokens="last"), {"shots": 4, "chat": True}, "83.8 (internal toolkit), 83.6 (OpenCompass)", LLADA),
        "humaneval": Preset(whole(512, 32, end_tokens="last"), {"chat": True}, "52.4 (internal toolkit), 51.2 (OpenCompass)", LLADA),
        "mbpp": Preset(whole(512, 32, end_tokens="last"), {"shots": 3, "chat": True}, "42.8 (internal toolkit), 42.6 (OpenCompass)", LLADA),
    },
    "dream-base": {
        "gsm8k": Preset(dream(256, 0.0, 0.95), {"shots": 8, "chat": False}, "75.06 flexible, 74.37 strict (as DPad measured it at 256 tokens)", DREAM_BASE),
        "humaneval": Preset(dream(512, 0.2, 0.95), {"chat": False}, "51.22 (as DPad measured it at 512 tokens)", DREAM_BASE),
        "mbpp": Preset(dream(512, 0.2, 0.95), {"shots": 3, "chat": False}, "52.40 (as DPad measured it at 512 tokens)", DREAM_BASE),
    },
    "dream-instruct": {
        "gsm8k": Preset(dream(256, 0.1, 0.9), {"shots": 0, "chat": True}, "80.74 (as SparseD measured it, arXiv 2509.24014)", DREAM_INSTRUCT),
        "humaneval": Preset(dream(768, 0.1, 0.9), {"chat": True}, "53.05 (as SparseD measured it, arXiv 2509.24014)", DREAM_INSTRUCT),
        "mbpp": Preset(dream(1024, 0.1, 0.9), {"shots": 0, "chat": True}, "", DREAM_INSTRUCT),
    },
    "dpad-llada-instruct": {
        "gsm8k": Preset(
            parallel(256, suffix=DPad(256, 4.0, 2.0), early_stop="block"), {"shots": 4, "chat": True}, "79.76 flexible, 64.97 strict, 6.64 s each", DPAD
        ),
        "humaneval": Preset(parallel(512, suffix=DPad(512, 3.0, 2.3), early_stop="block"), {"chat": True}, "46.34, 9.14 s each", DPAD),
        "mbpp": Preset(parallel(512, suffix=DPad(128, 3.0, 2.3), early_stop="block"), {"shots": 3, "chat": True}, "39.40, 6.02 s each", DPAD),
    },
    "dpad-llada-1.5": {
        "gsm8k": Preset(
            parallel(256, suffix=DPad(256, 3.0, 1.6), early_stop="block"), {"shots": 4, "chat": False}, "80.89 flexible, 78.92 strict, 6.23 s each", DPAD
        ),
        "humaneval": Preset(parallel(512, suffix=DPad(128, 3.0, 2.3), early_stop="block"), {"chat": False}, "39.63, 5.26 s each", DPAD),
        "mbpp": Preset(parallel(512, suffix=DPad(512, 3.0, 1.6), early_stop="block"), {"shots": 3, "chat": False}, "41.60, 4.41 s each", DPAD),
    },
    "dpad-llada-1.5-1024": {
        "gsm8k": Preset(
            parallel(1024, suffix=DPad(256, 3.0, 1.6), cache=PrefixCache(), early_stop="block"),
            {"shots": 1, "chat": False},
            "77.10 flexible, 70.66 strict, 2.07 s each: the row behind the headline of 61.4 times",
            DPAD,
        ),
    },
    "fast-dllm-llada-instruct": {
        "gsm8k": Preset(parallel(256, cache=PrefixCache(), early_stop="off"), {"shots": 5, "chat": True}, "78.5, 54.4 tokens/s", FAST),
        "humaneval": Preset(parallel(256, cache=PrefixCache(), early_stop="off"), {"chat": True}, "43.3, 114.1 tokens/s (the prompt counted)", FAST),
        "mbpp": Preset(parallel(256, cache=PrefixCache(), early_stop="off"), {"shots": 3, "chat": True}, "28.2, 44.8 tokens/s", FAST),
    },
}
"""Whose settings -> task -> preset. LLaDA's logits_eos_inf is `end_tokens=never`, its confidence_eos_eot_inf `end_tokens=last`."""


def preset(name: str, task: str) -> Preset:
    """Raises ValueError naming what is accepted."""
    if name not in PRESETS:
        raise ValueError(f"preset={name!r} is unknown; accepted: {', '.join(PRESETS)}")
    if task not in PRESETS[name]:
        raise ValueError(f"preset={name!r} has nothing for task {task!r}; it has {', '.join(PRESETS[name])}")
    return PRESETS[name][task]
