"""Answer one prompt. The text comes from the argument, --file or stdin."""

import argparse

from mezzotint.cli import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt", nargs="?", help="the prompt; '-' or nothing reads stdin")
    parser.add_argument("--file", help="read the prompt from a file")
    parser.add_argument("--raw", action="store_true", help="continue the text as it is, without the chat template")
    options.add_run(parser)


def run(args: argparse.Namespace) -> int:
    prompt = options.text_of(args.prompt, args.file)
    if not prompt.strip():
        raise ValueError("the prompt is empty; give some text")
    import mezzotint as mz
    from mezzotint.generation import default_recipe

    model, tokenizer = options.load(args)
    recipe = options.recipe_of(args, default_recipe(model), model.config)
    chat = False if args.raw else None
    if args.watch:
        from mezzotint.cli.watch import Watch

        with Watch(tokenizer, None, model.config.stop_ids) as watch:
            result = mz.generate(model, tokenizer, prompt, recipe, seed=args.seed, chat=chat, on_step=watch)
    elif args.json:
        result = mz.generate(model, tokenizer, prompt, recipe, seed=args.seed, chat=chat)
    else:
        for piece in mz.stream(model, tokenizer, prompt, recipe, seed=args.seed, chat=chat):
            print(piece, end="", flush=True)
        print()
        return 0
    if not args.json:
        print(result.text)
        return 0
    options.print_json(
        {
            "text": result.text,
            "tokens": result.tokens.tolist(),
            "finish_reason": result.finish_reason,
            "forwards": result.forwards,
            "positions_computed": result.positions_computed,
            "seconds": result.seconds,
            "recipe": recipe.to_dict(),
            "seed": args.seed,
        }
    )
    return 0
