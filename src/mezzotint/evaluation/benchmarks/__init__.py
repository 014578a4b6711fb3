"""The public benchmarks, side by side: where their items come from and how they are scored."""

from mezzotint.evaluation.benchmarks.choices import ARC, CHOICE, MMLU
from mezzotint.evaluation.benchmarks.gsm8k import GSM8K
from mezzotint.evaluation.benchmarks.programs import HUMANEVAL, MBPP
from mezzotint.evaluation.benchmarks.prose import PROSE
from mezzotint.evaluation.benchmarks.ruler import RULER
from mezzotint.evaluation.benchmarks.wikitext import BLOCKS, ELBO, SUFFIX, SUFFIXES

BENCHMARKS = {
    "prose": PROSE,
    "gsm8k": GSM8K,
    "humaneval": HUMANEVAL,
    "mbpp": MBPP,
    "ruler": RULER,
    "mmlu": MMLU,
    "arc": ARC,
    "choice": CHOICE,
    "wikitext": ELBO,
    "wikitext-masked": BLOCKS,
    "wikitext-suffix": SUFFIX,
    "suffix-ppl": SUFFIXES,
}
