"""Fill gaps written [[8]] (8 = number of masks) in a text; what is given is seen from both sides and stays.

mezzotint infill 'def count_values(numbers):
    \"""Count the values above 3.\"""
    return len([n for n in numbers if [[4]]])
'
"""

import argparse

from mezzotint.cli import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("text", nargs="?", help="the text with gaps; '-' or nothing reads stdin")
    parser.add_argument("--file", help="read the text from a file")
    parser.add_argument("--open-end", action="store_true", help="the text goes on after its end (no end token follows)")
    options.add_run(parser)


def run(args: argparse.Namespace) -> int:
    if args.early_stop not in (None, "off"):
        raise ValueError(f"--early-stop {args.early_stop} has no meaning when gaps are filled: every gap is filled to its end; leave it out")
    text = options.text_of(args.text, args.file)
    import mezzotint as mz
    from mezzotint.generation import GAP, default_recipe, gapped

    if not GAP.search(text):
        raise ValueError("the text has no gap; write one as [[8]], 8 being the number of masks")
    model, tokenizer = options.load(args)
    recipe = options.recipe_of(args, default_recipe(model), model.config)
    if args.gen_length is not None and args.block_length is None and recipe.block_length is not None and recipe.steps is None:
        raise ValueError(
            f"--gen-length {args.gen_length} has no effect when gaps are filled in blocks of {recipe.block_length}: their sizes are given; leave it out, "
            "or give --block-length or --steps"
        )
    if args.watch:
        from mezzotint.cli.watch import Watch

        canvas = gapped(model, tokenizer, text, ends=not args.open_end)[0]
        given = {p: token for p, token in enumerate(canvas.tokens[0].tolist()) if canvas.given[0, p]}
        with Watch(tokenizer, 0, (tokenizer.bos_token_id, *model.config.stop_ids), given) as watch:
            result = mz.infill(model, tokenizer, text, recipe, seed=args.seed, ends=not args.open_end, on_step=watch)
    else:
        result = mz.infill(model, tokenizer, text, recipe, seed=args.seed, ends=not args.open_end)
    if args.json:
        options.print_json(
            {
                "text": result.text,
                "fills": list(result.fills),
                "forwards": result.forwards,
                "positions_computed": result.positions_computed,
                "recall": result.recall,
                "seconds": result.seconds,
                "recipe": result.recipe.to_dict(),
                "seed": args.seed,
            }
        )
    else:
        print(result.text)
    return 0
