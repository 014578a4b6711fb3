"""Where a model's attention goes over a run: sinks, head patterns, attention to the suffix, as one HTML page that needs no network."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mezzotint.cli import options

if TYPE_CHECKING:
    from torch import Tensor


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", metavar="MODEL", help="checkpoint folder or hub id (default: the bundled model)")
    parser.add_argument("--prompt", help="what to answer (default: a built-in question)")
    parser.add_argument("--out", default="report.html", metavar="FILE", help="where the page is written (default: report.html)")
    parser.add_argument("--gen-length", type=int, default=64, metavar="N", help="masks after the prompt (default: 64)")
    parser.add_argument("--block-length", type=int, default=32, metavar="N", help="masks decoded together (default: 32)")
    parser.add_argument("--watched", type=int, default=32, metavar="N", help="steps that are looked at (default: 32)")
    parser.add_argument("--beside", metavar="MODEL", help="an autoregressive checkpoint to lay beside it")
    parser.add_argument("--seed", type=options.seed, default=0)
    options.add_place(parser.add_argument_group("model"))
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    import torch

    from mezzotint.analysis.causal import load_causal, record_causal
    from mezzotint.analysis.inspection import inspect
    from mezzotint.analysis.page import figures, page
    from mezzotint.generation import check_reach, default_recipe, encode

    out = Path(args.out)
    if out.is_dir() or not out.parent.is_dir():
        raise ValueError(f"out={args.out!r} must be a file in a folder that exists")
    if args.prompt is not None and not args.prompt.strip():
        raise ValueError(f"prompt={args.prompt!r} is empty; give a question, or leave it out for a built-in one")
    sibling = load_causal(args.beside) if args.beside else None
    model, tokenizer = options.load(args)
    ids = encode(tokenizer, question() if args.prompt is None else args.prompt)
    recipe = default_recipe(model).with_(gen_length=args.gen_length, block_length=args.block_length, steps=None, max_tokens=None, early_stop="off")
    check_reach(model.config, "the prompt with its answer", len(ids) + recipe.gen_length, 0)
    seen = inspect(model, torch.tensor(ids), recipe, watched=args.watched, seed=args.seed)
    text = tokenizer.decode(seen.tokens, skip_special_tokens=False)
    beside = None
    if sibling is not None:
        beside = str(args.beside), record_causal(sibling[0], as_read(sibling[1], tokenizer, seen.tokens, model.config.stop_ids, len(ids)))
    title = args.model or "bundled model"
    steps = f"{len(seen.blocks)} of {recipe.blocks * recipe.steps_per_block} steps"
    settings = f"{len(ids)} tokens of prompt, gen_length {recipe.gen_length}, block_length {recipe.block_length}, {steps}"
    out.write_text(page(seen, title=title, text=text, settings=settings, beside=beside), encoding="utf-8")
    if args.json:
        found = {"out": str(out), "model": title, "steps": len(seen.blocks), "figures": figures(seen.recording.whole())}
        options.print_json(found | ({"beside": figures(beside[1].whole())} if beside else {}))
    else:
        print(f"written to {out}")
    return 0


def as_read(theirs: Any, ours: Any, tokens: "Tensor", stop_ids: Sequence[int], start: int) -> "Tensor":
    """The finished canvas for an autoregressive model: the same tokens up to the first stop if it has the same vocabulary, else their text in its own."""
    from mezzotint.generation import answer_ids

    if theirs.get_vocab() == ours.get_vocab():
        kept, _ = answer_ids(tokens[start:].tolist(), stop_ids)
        return tokens[: start + len(kept)]
    return tokens.new_tensor(theirs(ours.decode(tokens, skip_special_tokens=True))["input_ids"])


def question() -> str:
    """A question that the bundled model has never seen."""
    from mezzotint.evaluation.suite import questions

    return questions("retrieval", 1)[0].prompt
