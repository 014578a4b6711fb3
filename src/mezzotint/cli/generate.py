"""Answer one prompt, or every line of a file. One prompt comes from the argument, --file or stdin.

mezzotint generate "Sort from small to large: 7 3 9 1 5"
mezzotint generate --input prompts.jsonl --output answers.jsonl
"""

import argparse
import sys
from typing import TYPE_CHECKING, Any

from mezzotint.cli import options

if TYPE_CHECKING:
    from mezzotint.models.transformer import Transformer
    from mezzotint.recipe import Recipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt", nargs="?", help="the prompt; '-' or nothing reads stdin")
    parser.add_argument("--file", help="read the prompt from a file")
    parser.add_argument("--raw", action="store_true", help="continue the text as it is, without the chat template")
    batch = parser.add_argument_group("batch", "many prompts, one JSON object a line; a run that was stopped goes on where it was")
    batch.add_argument("--input", metavar="FILE.jsonl", help="lines with prompt, messages or text, and their own settings (docs/scaling.md)")
    batch.add_argument("--output", metavar="FILE.jsonl", help="where the answers are added")
    batch.add_argument("--running", type=int, metavar="N", help="most lines in progress at once, of each replica (default: 32)")
    batch.add_argument("--ray", action="store_true", help="answer the lines on a Ray cluster (RAY_ADDRESS, or one started here)")
    options.add_replicas(batch)
    options.add_tensor_parallel(parser)
    options.add_run(parser)


def run(args: argparse.Namespace) -> int:
    if args.input is not None or args.output is not None:
        from mezzotint.cli import batch

        return batch.run(args)
    alone = next((name for name in ("running", "ray", "replicas", "cpus") if getattr(args, name)), None)
    if alone is not None:
        raise ValueError(f"--{alone} is for batches; give --input and --output")
    prompt = options.text_of(args.prompt, args.file)
    if not prompt.strip():
        raise ValueError("the prompt is empty; give some text")
    from mezzotint.generation import check_length, default_recipe, encode

    chat = False if args.raw else None
    if args.tensor_parallel == 1:
        model, tokenizer = options.load(args)
        return answer(args, model, tokenizer, options.recipe_of(args, default_recipe(model), model.config), prompt, chat)

    from mezzotint.engine.together import Leader

    ranks = Leader(options.engine_settings(args))
    try:
        recipe = options.recipe_of(args, default_recipe(ranks.model), ranks.model.config)
        ids = encode(ranks.tokenizer, prompt, chat=chat)
        check_length(ranks.model, ids)
        ranks.alongside([ids], recipe, args.seed)
        return answer(args, ranks.model, ranks.tokenizer, recipe, prompt, chat)
    finally:
        ranks.close()


def answer(args: argparse.Namespace, model: "Transformer", tokenizer: Any, recipe: "Recipe", prompt: str, chat: bool | None) -> int:
    """Print the answer as it comes, or watched, or as JSON."""
    import mezzotint as mz

    if args.watch:
        from mezzotint.cli.watch import Watch

        with Watch(tokenizer, None, model.config.stop_ids) as watch:
            result = mz.generate(model, tokenizer, prompt, recipe, seed=args.seed, chat=chat, on_step=watch)
    elif args.json:
        result = mz.generate(model, tokenizer, prompt, recipe, seed=args.seed, chat=chat)
    else:
        try:
            for piece in mz.stream(model, tokenizer, prompt, recipe, seed=args.seed, chat=chat):
                print(piece, end="", flush=True)
        except KeyboardInterrupt:
            if sys.stdout.isatty():
                print()
            raise
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
            "recall": result.recall,
            "seconds": result.seconds,
            "recipe": recipe.to_dict(),
            "seed": args.seed,
        }
    )
    return 0
