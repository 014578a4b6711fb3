"""Named recipes, each with where its settings come from."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mezzotint.attention import SparseD
from mezzotint.cache import DelayedCache, DualCache, FeatureCache, GreedyCache, PrefixCache, PromptCache
from mezzotint.commit import AtLeast, Edit, EntropyBound, Factor, Linear, LocalLeap, Origin, Shuffled, Threshold, Timed
from mezzotint.recipe import Recipe
from mezzotint.suffix import DPad, NoSuffix


@dataclass(frozen=True)
class Named:
    """A recipe, where its settings come from, and the name a file gives it (those below are named by their place in `RECIPES`)."""

    recipe: Recipe
    source: str
    name: str = ""

    def to_dict(self) -> dict[str, Any]:
        """What a recipe file holds; read back by `read`."""
        return {"name": self.name, "source": self.source, "recipe": self.recipe.to_dict()}


_LLADA_TASKS = {"gsm8k": (256, 16), "math": (1024, 128), "code": (512, 32)}
"""task -> gen_length, block_length of LLaDA-1.5's evaluation."""

_DREAM = Recipe(gen_length=256, block_length=None, commit=Timed(), sampling="categorical", confidence="entropy", temperature=0.2, top_p=0.95)

_DPAD_TASKS = {
    "llada-gsm8k": (256, DPad(256, 4.0, 2.0)),
    "llada-math": (256, DPad(256, 4.0, 2.0)),
    "llada-humaneval": (512, DPad(512, 3.0, 2.3)),
    "llada-mbpp": (512, DPad(128, 3.0, 2.3)),
    "llada1.5-gsm8k": (256, DPad(256, 3.0, 1.6)),
    "llada1.5-math": (256, DPad(256, 3.0, 1.6)),
    "llada1.5-humaneval": (512, DPad(128, 3.0, 2.3)),
    "llada1.5-mbpp": (512, DPad(512, 3.0, 1.6)),
    "llada1.5-gsm8k-1024": (1024, DPad(256, 3.0, 1.6)),
}
"""model and task -> gen_length and suffix of DPad's scripts; they were tuned per task."""

_DREAM_DPAD_TASKS = {
    "dream-gsm8k": (256, DPad(256, 4.0, 1.6)),
    "dream-math": (256, DPad(128, 4.0, 1.6)),
    "dream-humaneval": (512, DPad(128, 3.0, 2.3)),
    "dream-mbpp": (512, DPad(128, 3.0, 1.6)),
    "dream-long": (1024, DPad(128, 3.0, 2.3)),
}
"""The same for Dream-Base."""

_DLLM_CACHE_TASKS = {
    "llada-gsm8k": (8, FeatureCache(50, 7)),
    "llada-math": (None, FeatureCache(50, 1)),
    "llada-gpqa": (None, FeatureCache(50, 6)),
    "llada-bbh": (None, FeatureCache(50, 6)),
    "llada-humaneval": (None, FeatureCache(50, 8)),
    "llada-mbpp": (None, FeatureCache(100, 5)),
    "llada-mmlu": (None, FeatureCache(100, 7)),
    "llada-longbench": (None, FeatureCache(100, 8)),
}
"""task -> block_length and intervals of dLLM-Cache's scripts for LLaDA-Instruct."""

_PARALLEL = Recipe(commit=Threshold(0.9))

_BLOCKS = Recipe(gen_length=256, cache=PrefixCache())
"""Block-causal models: the cache is exact for them."""

RECIPES: dict[str, Named] = {
    "plain": Named(Recipe(), "one token per forward, the surest first, blocks of 32: what every other recipe is compared with"),
    "fast": Named(
        _PARALLEL.with_(cache=DualCache(), suffix=NoSuffix()),
        "our own choice (benchmarks/fast.py): threshold, dual cache, no masks behind the block; as often right as plain on 200 questions, in 1/23 of the time "
        "(earlier weights of the bundled model); on 1-shot questions it loses 4.5 points where dual+suffix=dpad loses 0.5 (benchmarks/headline.py)",
    ),
    "threshold": Named(_PARALLEL, "Fast-dLLM (arXiv 2505.22618): every token at least 0.9 sure"),
    "factor": Named(Recipe(commit=Factor(1.0)), "Fast-dLLM, factor 1.0: more tokens together must be surer together"),
    "entropy-bound": Named(
        Recipe(commit=EntropyBound(0.1), confidence="entropy"), "EB-Sampler (arXiv 2505.24857), gamma 0.1: as many tokens as stay jointly sure"
    ),
    "prefix": Named(_PARALLEL.with_(cache=PrefixCache()), "Fast-dLLM with its prefix cache"),
    "dual": Named(_PARALLEL.with_(cache=DualCache()), "Fast-dLLM with its dual cache"),
    "fast-dllm": Named(_PARALLEL.with_(gen_length=256, cache=PrefixCache()), "Fast-dLLM's evaluation: threshold 0.9, prefix cache, 256 tokens in blocks of 32"),
    "fast-dllm-dual": Named(_PARALLEL.with_(gen_length=256, cache=DualCache()), "the same with its dual cache"),
    "dkv": Named(Recipe(cache=DelayedCache(8)), "dKV-Cache-Decode (arXiv 2505.15781), refreshed every 8 steps as in its LLaDA tables; one row at a time"),
    "dkv-dream": Named(_DREAM.with_(cache=DelayedCache(4), reuse=False), "dKV-Cache-Decode as in its Dream tables, refreshed every 4 steps; one row at a time"),
    "dkv-prefill": Named(Recipe(cache=PromptCache()), "dKV-Cache-Prefill: the prompt is computed once"),
    "dkv-pd": Named(Recipe(cache=DelayedCache(8, prompt=True)), "dKV-Cache-PD: as dkv, and the prompt is computed once"),
    "dkv-greedy": Named(
        Recipe(commit=Shuffled(), cache=GreedyCache(2, 4)),
        "dKV-Cache-Greedy: an order drawn beforehand, refreshed every 2 steps, a window of 4; one row at a time",
    ),
    "local-leap": Named(Recipe(commit=LocalLeap()), "LocalLeap (arXiv 2510.07081): as threshold, and beside a sure token 0.75 is enough"),
    "dllm-cache": Named(Recipe(cache=FeatureCache(50, 7, 0.25)), "dLLM-Cache (arXiv 2506.06295), its LLaDA-Instruct GSM8K intervals"),
    "sparsed": Named(Recipe(attention=SparseD()), "SparseD (arXiv 2509.24014), long contexts: skip 0.2, select 0.3, tiles of 128; dense on short canvases"),
    "sparsed-mass": Named(
        Recipe(attention=SparseD(select="mass:0.95")),
        "SparseD with as many tiles as hold 0.95 of each head's attention: on the bundled model no loss on 900 questions (benchmarks/sparsed_quality.py)",
    ),
    "sparsed-short": Named(Recipe(attention=SparseD(select=0.5, block_size=32)), "SparseD's setting for short contexts: select 0.5, tiles of 32"),
    "llada": Named(Recipe(gen_length=128, block_length=32, early_stop="off"), "LLaDA generate.py defaults (arXiv 2502.09992): the whole canvas, no early stop"),
    **{
        f"llada-{task}": Named(
            Recipe(gen_length=gen_length, block_length=block_length, end_tokens="last"),
            f"LLaDA-1.5's evaluation (LLaDA EVAL.md), {task}: one token per forward, end tokens last",
        )
        for task, (gen_length, block_length) in _LLADA_TASKS.items()
    },
    "dream": Named(_DREAM, "Dream-v0-Instruct README: entropy, temperature 0.2, top-p 0.95, no top-k, one canvas without blocks"),
    "dream-greedy": Named(_DREAM.with_(temperature=0.0, top_p=1.0), "Dream's entropy order at temperature 0, top-k off"),
    "dream-maskgit": Named(
        _DREAM.with_(confidence="probability", temperature=0.05), "SparseD's Dream script: maskgit_plus, temperature 0.05, top-p 0.95; top-k off"
    ),
    "sdar": Named(
        _BLOCKS.with_(block_length=4, commit=AtLeast(0.85)), "SDAR generate.py (arXiv 2510.06303), low_confidence_dynamic, here greedy; give its blocks"
    ),
    "llada2": Named(_BLOCKS.with_(commit=AtLeast(0.95)), "LLaDA2.0's generate: threshold 0.95, blocks of 32, at least one token per forward"),
    "llada2.1-quality": Named(_BLOCKS.with_(commit=Edit(0.7, 0.5)), "LLaDA2.1's model card, quality mode: tokens of the block may be rewritten"),
    "llada2.1-speed": Named(_BLOCKS.with_(commit=Edit(0.5, 0.0)), "LLaDA2.1's model card, speed mode"),
    "a2d": Named(Recipe(commit=Linear()), "dllm's MDLM sampler as in its examples: 128 tokens, blocks of 32, one token per forward"),
    "a2d-blocks": Named(_BLOCKS.with_(gen_length=128, commit=Linear()), "dllm's BD3LM sampler, for its bd3lm checkpoints, with the exact cache"),
    "fast-dllm-v2": Named(
        _BLOCKS.with_(block_length=8, commit=AtLeast(0.9)), "Fast-dLLM v2 (arXiv 2509.26328): threshold 0.9, small blocks of 8 inside the trained ones"
    ),
    "bd3lm": Named(
        _BLOCKS.with_(block_length=4), "one token per forward, greedy; the official samplers of BD3-LM (arXiv 2503.09573) draw at random; give its blocks"
    ),
    "dream-origin": Named(
        _DREAM.with_(commit=Origin(), confidence="probability"), "Dream's origin sampler: positions unmasked at random along the time schedule"
    ),
    **{
        f"dpad:{task}": Named(
            _PARALLEL.with_(gen_length=gen_length, suffix=suffix, cache=PrefixCache(), early_stop="block"),
            "DPad's script for the model and task (arXiv 2508.14148), with threshold decoding and the prefix cache",
        )
        for task, (gen_length, suffix) in _DPAD_TASKS.items()
    },
    **{
        f"dpad:{task}": Named(
            _PARALLEL.with_(gen_length=gen_length, suffix=suffix, cache=PrefixCache(first_alone=True), sampling="categorical", early_stop="block"),
            "DPad's script for Dream-Base and the task, with threshold decoding and the prefix cache as the official code has it",
        )
        for task, (gen_length, suffix) in _DREAM_DPAD_TASKS.items()
    },
    **{
        f"dllm-cache:{task}": Named(
            Recipe(gen_length=256, block_length=block_length, cache=cache),
            "dLLM-Cache's script for LLaDA-Instruct and the task; its intervals were tuned per task",
        )
        for task, (block_length, cache) in _DLLM_CACHE_TASKS.items()
    },
}


def named(name: str) -> Recipe:
    """The recipe of that name. Raises ValueError listing the names."""
    if name not in RECIPES:
        raise ValueError(f"recipe={name!r} is unknown; accepted: {', '.join(RECIPES)}")
    return RECIPES[name].recipe


def read(path: str | Path) -> Named:
    """A recipe file: an object with `recipe` and, if wanted, `name` and `source`; or the recipe's fields alone.

    Raises ValueError naming the file and the field that is not accepted, OSError if it cannot be read.
    """
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
        whole: dict[str, Any] = values if isinstance(values, dict) and "recipe" in values else {"recipe": values}
        if not isinstance(whole["recipe"], dict):
            raise ValueError(f"a recipe must be an object of fields, not {whole['recipe']!r}")
        strange = sorted(set(whole) - {"name", "source", "recipe"})
        if strange:
            raise ValueError(f"field {strange[0]!r} is unknown; accepted beside recipe: name, source")
        for field in ("name", "source"):
            if not isinstance(whole.get(field, ""), str):
                raise ValueError(f"{field}={whole[field]!r} must be text")
        return Named(Recipe.from_dict(whole["recipe"]), whole.get("source", ""), whole.get("name") or Path(path).stem)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"recipe={str(path)!r} is not a recipe file: {error}") from None


def named_or_file(text: str) -> Named:
    """What a command line may name: one of `RECIPES`, or a file that ends in .json. `named` takes names only, so whoever serves others never reads files."""
    if text.endswith(".json"):
        return read(text)
    return Named(named(text), RECIPES[text].source, text)
