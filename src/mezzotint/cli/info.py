"""What a checkpoint is: family, attention, decoder and recipe, trained length, parameters, and the memory it needs at a length."""

import argparse
from typing import Any

from mezzotint.cli import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", metavar="MODEL", help="checkpoint folder or hub id (default: the bundled model)")
    parser.add_argument("--length", type=int, help="canvas length in tokens for the memory estimate (default: the trained length)")
    parser.add_argument("--batch", type=int, default=1, help="rows at once for the memory estimate")
    parser.add_argument("--dtype", help="float32, bfloat16 or float16 (default: the checkpoint's)")
    options.add_quirks(parser)
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from mezzotint.describing import describe

    found = describe(args.model, length=args.length, batch=args.batch, dtype=args.dtype, **options.quirks(args))
    if args.json:
        options.print_json(found)
        return 0
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, box=None)
    for name, value in found.items():
        if value not in ("", None):
            table.add_row(name.removesuffix("_bytes").replace("_", " "), shown(name, value))
    Console().print(table)
    return 0


def shown(name: str, value: Any) -> str:
    """A value as the table shows it: ids as they are, other numbers with commas."""
    if name.endswith("_bytes"):
        return f"{value / 2**20:,.1f} MiB"
    if isinstance(value, dict):
        return "; ".join(f"{part.replace('_', ' ')} {shown(part, values)}" for part, values in value.items())
    if isinstance(value, list):
        return " ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) and name != "mask_id" else str(value)
