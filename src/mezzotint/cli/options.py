"""Options that several commands share: the model, and every field of a recipe."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mezzotint.engine import EngineSettings
    from mezzotint.engine.replicas import Replicas
    from mezzotint.models.config import ModelConfig
    from mezzotint.models.transformer import Transformer
    from mezzotint.recipe import Recipe

RECIPE_FIELDS = {
    "gen_length": ("N", "masks after the prompt"),
    "block_length": ("N", "masks decoded together; 'none' for the whole canvas"),
    "steps": ("N", "forwards for the canvas, a multiple of the blocks (default: gen_length)"),
    "max_tokens": ("N", "at most N tokens; the canvas grows block by block"),
    "commit": (
        "RULE",
        "quota, timed, origin, linear, shuffled, threshold:tau=0.9, local_leap, factor:f=1, entropy_bound:gamma=0.1, at_least, sequential or edit",
    ),
    "suffix": ("NAME", "full, none, dpad:window=256,k=4,a=2 or uniform:number=64,window=256"),
    "cache": ("NAME", "none, prefix, dual, delayed:refresh=8, greedy, prompt, feature or sub_block"),
    "attention": ("NAME", "dense, sparsed:select=0.3, window or streaming"),
    "sampling": ("NAME", "gumbel (LLaDA) or categorical (Dream)"),
    "temperature": ("T", "0 is greedy"),
    "top_p": ("P", "keep the likeliest tokens up to this probability"),
    "top_k": ("K", "keep the K likeliest tokens; 0 keeps all"),
    "confidence": ("NAME", "probability, margin, entropy or random"),
    "cfg_scale": ("S", "classifier-free guidance; 0 is off"),
    "early_stop": ("WHEN", "step, block or off"),
    "end_tokens": ("WHEN", "stop ids are free, taken last, or never (the end of the text)"),
    "reuse": ("BOOL", "reuse the logits of a step that committed nothing"),
}


def add_model(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model")
    group.add_argument("--model", metavar="FOLDER|HUB_ID", help="checkpoint folder or hub id (default: the bundled model)")
    add_place(group)


def add_place(group: "argparse._ArgumentGroup") -> None:
    """Where and how a model is held."""
    group.add_argument("--device", default=None, help="cpu, cuda, cuda:1, ... (default: cuda if there is one)")
    group.add_argument("--dtype", help="float32, bfloat16 or float16 (default: the checkpoint's)")
    add_quirks(group)
    group.add_argument("--rope-scaling", metavar="KIND:FACTOR", help="beyond the trained length: linear:2, ntk:4, yarn:4, or a JSON file (LongRoPE)")


def add_quirks(group: argparse._ActionsContainer) -> None:
    """What a checkpoint's own files may not say about it."""
    group.add_argument("--mask-id", type=int, metavar="ID", help="the mask token, where neither config.json nor the tokenizer names the right one")
    group.add_argument("--block-causal", type=int, metavar="N", help="the model was trained in blocks of N (A2D's bd3lm checkpoints: 32)")
    group.add_argument("--weights", metavar="KIND", help="int8: MLP and expert weights as 8-bit integers, half the memory of bf16")


def add_recipe(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("recipe", "a named recipe, and fields that override it")
    group.add_argument("--recipe", metavar="NAME|FILE.json", help="a named recipe (see `mezzotint recipes`) or a recipe file")
    add_fields(group)


def add_fields(group: "argparse._ArgumentGroup") -> None:
    """An option for every field of a recipe."""
    for field, (metavar, text) in RECIPE_FIELDS.items():
        group.add_argument(f"--{field.replace('_', '-')}", metavar=metavar, help=text)


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout and nothing else")


def seed(text: str) -> int:
    """The type of --seed: what a random generator takes."""
    number = int(text)
    if not -(2**63) <= number < 2**63:
        raise argparse.ArgumentTypeError(f"{text} must lie between -2**63 and 2**63 - 1")
    return number


def add_run(parser: argparse.ArgumentParser) -> None:
    """What a single run takes: seed, watching, and all of the above."""
    parser.add_argument("--seed", type=seed, default=0, help="of every random draw (default: 0)")
    parser.add_argument("--watch", action="store_true", help="draw the canvas while it is uncovered")
    add_json(parser)
    add_model(parser)
    add_recipe(parser)


def add_tensor_parallel(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--tensor-parallel", type=int, default=1, metavar="N", help="processes that share every layer, one GPU each if there are GPUs (default: 1)"
    )


def add_replicas(group: argparse._ActionsContainer) -> None:
    """How many engines are to run."""
    group.add_argument(
        "--replicas", metavar="N|MIN:MAX", help="processes, each with an engine, its part of the cores or its own GPU; a range needs --ray (default: 1)"
    )
    group.add_argument("--cpus", type=float, metavar="N", help="with --ray: CPU cores reserved for each replica (default: 1)")


def replicas_of(args: argparse.Namespace) -> "Replicas":
    """How many replicas the options ask for, and what each takes."""
    from mezzotint.engine.replicas import Replicas

    gpus = args.tensor_parallel if device_of(args).startswith("cuda") else 0
    found = Replicas.parse(args.replicas or "1", args.cpus or 1.0, gpus)
    if not args.ray and not found.fixed:
        raise ValueError(f"--replicas={args.replicas}: a range needs --ray; without it give a number")
    if not args.ray and args.cpus:
        raise ValueError("--cpus needs --ray")
    return found


def engine_settings(args: argparse.Namespace, **limits: Any) -> "EngineSettings":
    """The replica that the options describe. limits: fields of EngineSettings."""
    from mezzotint.engine import EngineSettings

    model = {"model": args.model, "device": device_of(args), "dtype": args.dtype, "rope_scaling": args.rope_scaling}
    return EngineSettings(**model, **quirks(args), tensor_parallel=args.tensor_parallel, **limits)


def load(args: argparse.Namespace) -> "tuple[Transformer, Any]":
    """The model and tokenizer the options name."""
    import mezzotint as mz

    return mz.load(args.model, device=device_of(args), dtype=args.dtype, rope_scaling=args.rope_scaling, **quirks(args))


def quirks(args: argparse.Namespace) -> dict[str, Any]:
    """What `add_quirks` was given, as `mz.load` takes it."""
    return {"mask_id": args.mask_id, "block_causal": args.block_causal, "weights": args.weights}


def device_of(args: argparse.Namespace) -> str:
    """The device the options name, or the best there is. Raises ValueError if it is not there."""
    import torch

    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.zeros(1, device=device).item()  # which those without memory (meta) refuse
    except (RuntimeError, AssertionError):
        raise ValueError(f"device={device!r} is not available here; accepted: cpu" + (", cuda" if torch.cuda.is_available() else "")) from None
    return device


def recipe_of(args: argparse.Namespace, default: "Recipe", config: "ModelConfig | None" = None) -> "Recipe":
    """The named recipe (or the default), changed by whatever fields were given. A recipe that is named, not read from a file, has the model's blocks."""
    from mezzotint.generation import fitted
    from mezzotint.recipes import RECIPES, named_or_file

    base = named_or_file(args.recipe).recipe if args.recipe else default
    if args.recipe in RECIPES and config is not None:
        base = fitted(base, config)
    return base.with_text(fields_of(args))


def recipe_unloaded(args: argparse.Namespace) -> "Recipe":
    """`recipe_of` for a model that other processes load: what is asked of it is read from its JSON files."""
    from mezzotint.generation import fitted
    from mezzotint.models.loading import config_of_checkpoint
    from mezzotint.recipes import named

    config = config_of_checkpoint(args.model, mask_id=args.mask_id, block_causal=args.block_causal)
    return recipe_of(args, fitted(named(config.recipe), config), config)


def fields_of(args: argparse.Namespace) -> dict[str, str]:
    """The recipe fields that were given, as text."""
    return {field: value for field in RECIPE_FIELDS if (value := getattr(args, field)) is not None}


def text_of(argument: str | None, file: str | None) -> str:
    """Text from the argument, a file, or stdin ('-', or nothing on a terminal that is piped into)."""
    if argument is not None and file is not None:
        raise ValueError("give the text or --file, not both")
    if file is not None:
        try:
            return Path(file).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise ValueError(f"file={file!r} is not UTF-8 text") from None
    if argument is None and sys.stdin.isatty():
        raise ValueError("there is no text; give it as an argument, with --file, or on stdin")
    text = sys.stdin.read() if argument in (None, "-") else argument
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("the text is not valid UTF-8") from None
    return text


def print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value, ensure_ascii=False), flush=True)
