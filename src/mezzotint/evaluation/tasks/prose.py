"""English prose for hay and perplexity: paragraphs of Python 3.11's `pydoc` topics, kept in `prose.txt` so that every Python asks the same questions.

Copyright (c) 2001-2023 Python Software Foundation, under the PSF licence; see NOTICE.
"""

import hashlib
from functools import cache
from pathlib import Path


def held_out(paragraph: str) -> bool:
    """True for the sixteenth of all paragraphs that training never sees."""
    return hashlib.sha256(paragraph.encode()).digest()[0] % 16 == 0


@cache
def paragraphs(*, evaluation: bool = False) -> list[str]:
    """Paragraphs of 80 to 600 characters of running text, one side of the split."""
    lines = Path(__file__).with_name("prose.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if held_out(line) == evaluation]
