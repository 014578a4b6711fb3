"""Recipes as they are written on a command line: a name or file, and fields that change it behind plus signs."""

import re
from collections.abc import Mapping, Sequence

from mezzotint.generation import fitted
from mezzotint.models.config import ModelConfig
from mezzotint.recipe import FIELDS, Recipe
from mezzotint.recipes import RECIPES, named_or_file

CHANGE = re.compile(rf"\+(?=(?:{'|'.join(FIELDS)})=)")


def changed(text: str) -> list[str]:
    """The fields that one of them changes."""
    return [change.split("=", 1)[0] for change in CHANGE.split(text)[1:]]


def chosen(texts: Sequence[str], overrides: Mapping[str, str] | None = None, config: ModelConfig | None = None) -> dict[str, Recipe]:
    """`NAME|FILE.json[+field=value...]`, e.g. `threshold+suffix=dpad:window=64+cache=dual`, by that text (files: by the name in them or the file's).

    overrides: fields that are set in all of them first; config: of the model, in whose trained blocks recipes that are named, not read from files, decode.
    Raises ValueError naming the recipe and the field that is not accepted.
    """
    found: dict[str, Recipe] = {}
    for text in texts:
        base, *changes = CHANGE.split(text)
        known = named_or_file(base)
        recipe = fitted(known.recipe, config) if base in RECIPES and config is not None else known.recipe
        fields = dict(overrides or {}) | dict(change.split("=", 1) for change in changes)
        label = "+".join([known.name or base, *changes])
        if label in found:
            raise ValueError(f"recipe={text!r} is given twice")
        try:
            found[label] = recipe.with_text(fields)
        except ValueError as error:
            raise ValueError(f"recipe={text!r}: {error}") from None
    return found
