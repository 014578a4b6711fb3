"""The named recipes: what each sets, and where that comes from."""

import argparse

from mezzotint.cli import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from mezzotint.recipes import RECIPES

    if args.json:
        options.print_json({name: {"recipe": entry.recipe.to_dict(), "source": entry.source} for name, entry in RECIPES.items()})
        return 0
    from rich.console import Console
    from rich.table import Table

    table = Table("recipe", "sets", "source")
    for name, entry in RECIPES.items():
        table.add_row(name, str(entry.recipe) or "(the defaults)", entry.source)
    Console().print(table)
    return 0
