"""English prose that every Python installation carries (the `pydoc` topics, PSF licence), by paragraph."""

import hashlib
import re
from functools import cache


def held_out(paragraph: str) -> bool:
    """True for the sixteenth of all paragraphs that training never sees."""
    return hashlib.sha256(paragraph.encode()).digest()[0] % 16 == 0


@cache
def paragraphs(*, evaluation: bool = False) -> list[str]:
    """Paragraphs of 80 to 600 characters of running text, one side of the split."""
    from pydoc_data.topics import topics

    found = []
    for topic in sorted(topics):
        for block in re.split(r"\n\s*\n", topics[topic]):
            text = " ".join(block.split()).replace('"', "")
            letters = sum(c.isalpha() or c == " " for c in text)
            if 80 <= len(text) <= 600 and letters > 0.9 * len(text) and text[-1] in ".:" and held_out(text) == evaluation:
                found.append(text)
    return sorted(set(found))
