"""The input of a batch: one JSON object a line, each a question with its own settings."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mezzotint.generation import MOST_MASKS_PER_GAP
from mezzotint.recipe import FIELDS

KINDS = ("prompt", "messages", "text")
"""What a question is: a prompt or a chat to be answered, or a text whose [[8]]-style gaps are to be filled. A prompt with a `suffix` begins one."""

FIELDS_OF = {"prompt": ("suffix", "raw", "max_tokens"), "messages": ("max_tokens",), "text": ()}
"""kind -> the fields that only it has, beside those of every question."""

TYPES: dict[str, tuple[type, ...]] = {
    "prompt": (str,),
    "messages": (list,),
    "text": (str,),
    "suffix": (str,),
    "raw": (bool,),
    "seed": (int,),
    "max_tokens": (int,),
    "temperature": (int, float),
    "top_p": (int, float),
    "diffusion": (dict,),
}
"""A question's fields, beside `id`, as the server names them: `diffusion` holds `recipe`, fields of it, `gap` and `ends`."""

DIFFUSION = ("recipe", "gap", "ends", *(name for name in FIELDS if name not in TYPES or name == "suffix"))

NULLABLE = ("block_length", "steps")
"""Fields of a recipe for which null is a value."""

WORDS = {str: "text", bool: "true or false", int: "a whole number", float: "a number", list: "a list", dict: "an object"}

MOST_TOKENS = 1_000_000
LONGEST_LINE = 2**24
"""Bytes. A longer line is no question but a file of another kind."""


class Unanswerable(ValueError):
    """A line that cannot be answered; the others go on."""

    def __init__(self, number: int, id: str, reason: str):
        super().__init__(reason)
        self.number, self.id, self.reason = number, id, reason


@dataclass(frozen=True)
class Question:
    """One line: its number from 1, its id (by default the number), and its fields as they were written."""

    number: int
    id: str
    fields: dict[str, Any]

    @property
    def kind(self) -> str:
        return next(kind for kind in KINDS if kind in self.fields)

    @property
    def fills(self) -> bool:
        """Whether gaps are filled, rather than an answer given."""
        return self.kind == "text" or "suffix" in self.fields

    @property
    def diffusion(self) -> dict[str, Any]:
        return self.fields.get("diffusion", {})

    @property
    def changes(self) -> dict[str, Any]:
        """The recipe's fields that the line sets."""
        own = {name: self.fields[name] for name in ("max_tokens", "temperature", "top_p") if name in self.fields}
        return own | {name: value for name, value in self.diffusion.items() if name in FIELDS}

    def digest(self, conditions: str) -> str:
        """Tells this question, asked under these conditions, from any other."""
        return hashlib.sha256(f"{conditions}\n{json.dumps(self.fields, sort_keys=True)}".encode()).hexdigest()[:16]


def read_line(number: int, raw: bytes) -> Question:
    """A line as a question. Raises Unanswerable saying what is wrong with it."""
    id = str(number)
    try:
        if len(raw) > LONGEST_LINE:
            raise ValueError(f"the line has {len(raw):,} bytes, the limit is {LONGEST_LINE:,}")
        try:
            found = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"not JSON: {error}") from None
        if not isinstance(found, dict):
            raise ValueError("not a JSON object")
        given = found.pop("id", None)
        if given is not None and (isinstance(given, bool) or not isinstance(given, str | int)):
            raise ValueError(f"id={given!r} must be text or a whole number")
        id = id if given is None else str(given)
        check(found)
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise Unanswerable(number, id.encode("ascii", "backslashreplace").decode(), "the text is not valid Unicode") from None
    except ValueError as error:
        raise Unanswerable(number, id, " ".join(str(error).split())) from None
    return Question(number, id, found)


def check(fields: dict[str, Any]) -> None:
    """Raises ValueError naming the first field that is unknown, of a wrong type, or out of place."""
    kinds = [kind for kind in KINDS if kind in fields]
    if len(kinds) != 1:
        raise ValueError(f"{' and '.join(kinds) or 'nothing'} to answer; give one of {', '.join(KINDS)}")
    special = {name for names in FIELDS_OF.values() for name in names}
    for name, value in fields.items():
        if name not in TYPES:
            raise ValueError(f"{name} is unknown; accepted: id, {', '.join(TYPES)}")
        if not isinstance(value, TYPES[name]) or (isinstance(value, bool) and bool not in TYPES[name]):
            raise ValueError(f"{name}={value!r} must be {' or '.join(WORDS[kind] for kind in TYPES[name])}")
        if name in special and name not in FIELDS_OF[kinds[0]]:
            raise ValueError(f"{name} has no meaning beside {kinds[0]}")
    if not -(2**63) <= fields.get("seed", 0) < 2**63:
        raise ValueError(f"seed={fields['seed']} must lie between -2**63 and 2**63 - 1")
    if not 1 <= fields.get("max_tokens", 1) <= MOST_TOKENS:
        raise ValueError(f"max_tokens={fields['max_tokens']} must lie between 1 and {MOST_TOKENS:,}")
    for message in fields.get("messages", ()):
        if not isinstance(message, dict) or set(message) != {"role", "content"} or not all(isinstance(part, str) for part in message.values()):
            raise ValueError("messages must be objects of role and content, both text")
    check_diffusion(fields.get("diffusion", {}), "suffix" in fields, "text" in fields)


def check_diffusion(diffusion: dict[str, Any], suffix: bool, text: bool) -> None:
    """The same for what is inside `diffusion`; the recipe itself judges its own fields."""
    unknown = next((name for name in diffusion if name not in DIFFUSION), None)
    if unknown is not None:
        raise ValueError(f"diffusion.{unknown} is unknown; accepted: {', '.join(DIFFUSION)}")
    if not isinstance(diffusion.get("recipe", ""), str):
        raise ValueError(f"diffusion.recipe={diffusion['recipe']!r} must be a name")
    null = next((name for name in diffusion if diffusion[name] is None and name not in NULLABLE), None)
    if null is not None:
        raise ValueError(f"diffusion.{null}=null is no value; leave it out (accepted for {', '.join(NULLABLE)})")
    gap = diffusion.get("gap", "auto")
    if "gap" in diffusion and not suffix:
        raise ValueError("diffusion.gap needs a suffix")
    if gap != "auto" and (not isinstance(gap, int) or isinstance(gap, bool) or not 1 <= gap <= MOST_MASKS_PER_GAP):
        raise ValueError(f'diffusion.gap={gap!r} must be "auto" or a number of masks from 1 to {MOST_MASKS_PER_GAP}')
    if text and diffusion.get("early_stop", "off") != "off":
        raise ValueError(f"diffusion.early_stop={diffusion['early_stop']!r} has no meaning beside text: every gap is filled to its end; accepted: off")
    if "ends" in diffusion and not (suffix or text):
        raise ValueError("diffusion.ends is for texts with a gap")
    if not isinstance(diffusion.get("ends", True), bool):
        raise ValueError(f"diffusion.ends={diffusion['ends']!r} must be true or false")


def questions(path: Path) -> Iterator[Question | Unanswerable]:
    """The file's lines in order; empty ones are passed over. A line whose id stood on an earlier one is unanswerable."""
    seen: dict[str, int] = {}
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            if not raw.strip():
                continue
            try:
                question = read_line(number, raw)
                if (before := seen.setdefault(question.id, number)) != number:
                    raise Unanswerable(number, question.id, f"id {question.id!r} is that of line {before}")
            except Unanswerable as wrong:
                yield wrong
                continue
            yield question
