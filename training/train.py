"""Trains the bundled model with LLaDA's objective (arXiv 2502.09992, eq. 5 in its fixed-count form, eq. 14).

    python training/train.py --out runs/small --minutes 120 --prose wikitext-2/valid.txt

Resumes from the checkpoint in --out. Half of the answers of length L have k ~ U{1..L} tokens masked and cost the mean
cross-entropy over them; of the others everything from some token on is masked, which is the canvas that block-wise
decoding meets. Of some worked sums only results are masked, each with its copies: elsewhere a result can
be copied from the line below, and adding is never learned. The first half of the time prefers few masks: what is then asked can be
computed from what is seen, and copying and sums are learned sooner. Muon for the matrices, AdamW for the rest; the schedule follows the minutes spent.
"""

import argparse
import json
import shutil
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import checkpoint
import tokenizer as tokenizer_recipe
import torch
from data import MIX, Item, Source, prose_texts
from initial import initialise, widen
from muon import Muon
from transformers import AutoTokenizer

from mezzotint.models.config import ModelConfig
from mezzotint.models.families import llada
from mezzotint.models.loading import load_model, read_config
from mezzotint.models.transformer import Transformer

REACH = 6
"""Tokens over which the weight of masked tokens at an answer's end falls to 1/e."""
BLOCK = 16
"""Tokens after the first masked one of which decoding may have written some."""
PADDING = 0.1
"""What a masked token of the padding weighs beside one of the answer."""

PRESETS = {
    "cpu": {"hidden_size": 256, "layers": 5, "heads": 8, "mlp_size": 384, "vocab_size": 2048, "tokens": 4096, "long": 0.005},
    "gpu": {"hidden_size": 320, "layers": 8, "heads": 10, "mlp_size": 896, "vocab_size": 2048, "tokens": 65536, "long": 0.05},
}


def shape(preset: dict, tokenizer) -> ModelConfig:
    heads, hidden = preset["heads"], preset["hidden_size"]
    return ModelConfig(
        family="llada",
        vocab_size=preset["vocab_size"],
        hidden_size=hidden,
        layers=preset["layers"],
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
        mlp_size=preset["mlp_size"],
        norm_eps=1e-5,
        rope_theta=500000.0,
        max_length=4096,
        mask_id=tokenizer.mask_token_id,
        stop_ids=(tokenizer.eos_token_id,),
        pad_id=tokenizer.eos_token_id,
        tied_head=True,
    )


def noise(items: list[Item], generator: torch.Generator, sharpness: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Which tokens are masked (b, n), and the weight of each masked token's loss, summing to 1 per row.

    Three kinds of rows. Half have everything masked from some token of the answer on, the canvas that block-wise decoding meets; in a third of those every
    other of the next BLOCK tokens is shown, as if surer ones had been written first. The first masked ones, which can be told from what is seen, weigh
    most. Others have a share of tokens masked at random: sharpness 1 draws it evenly (LLaDA's objective), above 1 prefers few masks. Of an item with
    groups whole groups are masked, rather many than few.
    """
    size, length = len(items), len(items[0].ids)
    column = torch.arange(length)[None]
    start, end, closed = (torch.tensor(ends)[:, None] for ends in zip(*((i.start, i.end, i.closed) for i in items), strict=True))
    span = (column >= start) & (column < end)
    spread = (torch.arange(size) + torch.rand(1, generator=generator)) / size
    level, place, kind = (spread[torch.randperm(size, generator=generator)][:, None] for _ in range(3))
    count = (level**sharpness * span.sum(1, keepdim=True)).floor().long() + 1
    order = torch.rand(size, length, generator=generator).masked_fill(~span, 2.0)
    masked = (order.argsort(1).argsort(1) < count) & span
    front = start + (place * (closed - start)).floor().long()
    shown = (kind < 1 / 6) & (column > front) & (column < front + BLOCK) & (torch.rand(size, length, generator=generator) < 0.5)
    masked = torch.where(kind < 1 / 2, span & (column >= front) & ~shown, masked)
    weight = torch.where(kind < 1 / 2, torch.exp(-(masked.cumsum(1) - 1) / REACH), torch.where(column < closed, 1.0, PADDING))
    for row, item in enumerate(items):
        if item.groups:
            taken = torch.randperm(len(item.groups), generator=generator)[: int(level[row] ** 0.5 * len(item.groups)) + 1].tolist()
            masked[row] = False
            weight[row] = 0.0
            for group in taken:
                masked[row, list(item.groups[group])] = True
                weight[row, list(item.groups[group])] = 1.0
                if item.hidden:
                    masked[row, list(item.hidden[group])] = True
    weight = weight * masked
    return masked, weight / weight.sum(1, keepdim=True)


def optimisers(model: torch.nn.Module, rate: float) -> list[torch.optim.Optimizer]:
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    return [
        Muon(matrices, lr=rate, weight_decay=0.02),
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def scale(step: int, progress: float) -> float:
    """The share of the highest learning rate: up over the first hundred steps, level, and down to nothing over the second half of the time."""
    return min(1.0, (step + 1) / 100) * min(1.0, max(0.0, (1 - progress) / 0.5))


def advance(trainers: list[torch.optim.Optimizer], highest: list[float], share: float) -> None:
    """One step of every optimiser, its groups at that share of their highest rates."""
    for group, rate in zip((g for t in trainers for g in t.param_groups), highest, strict=True):
        group["lr"] = rate * share
    for trainer in trainers:
        trainer.step()
        trainer.zero_grad()


def share(text: str) -> tuple[str, float]:
    """One of --mix."""
    task, _, number = text.partition("=")
    if task not in MIX:
        raise argparse.ArgumentTypeError(f"{task!r} is unknown; accepted: {', '.join(MIX)}")
    return task, float(number)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the tokenizer, checkpoints and log")
    parser.add_argument("--minutes", type=float, default=120.0, help="training time over all runs; the schedule ends there")
    parser.add_argument("--piece", type=float, default=float("inf"), metavar="MINUTES", help="stop after this long, with a checkpoint to go on from")
    parser.add_argument("--workers", type=int, default=0, help="processes that make the data (for a GPU: about one per core)")
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    parser.add_argument("--prose", type=Path, help="more English text, one paragraph a line (e.g. WikiText-2 validation)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--rate", type=float, default=0.002, help="the highest learning rate; lower to go on from weights that are good already")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mix", type=share, nargs="+", default=[], metavar="TASK=SHARE", help="other shares of some tasks than data.MIX has")
    parser.add_argument("--init", type=Path, help="start a new run from the weights and tokenizer of a checkpoint folder, e.g. src/mezzotint/bundled")
    parser.add_argument("--mlp-size", type=int, help="with --init: neurons per layer, if more than the checkpoint has")
    args = parser.parse_args()

    args.out.mkdir(parents=True, exist_ok=True)
    preset = PRESETS[args.preset]
    prose = prose_texts(args.prose)
    fresh = not (args.out / "state.json").exists()
    if args.init is not None and fresh:
        for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            shutil.copy(args.init / file, args.out / file)
    if (args.out / "tokenizer.json").exists():
        tokenizer = AutoTokenizer.from_pretrained(args.out)
    else:
        tokenizer = tokenizer_recipe.train(prose, preset["vocab_size"], args.out)
    if (args.out / "config.json").exists():
        config = llada.configure(read_config(args.out))
    elif args.init is not None:
        config = llada.configure(read_config(args.init))
        config = replace(config, mlp_size=args.mlp_size or config.mlp_size)
    else:
        config = shape(preset, tokenizer)
    (args.out / "config.json").write_text(json.dumps(llada.official(config), indent=1))
    torch.manual_seed(args.seed)
    model = Transformer(config)
    if fresh and args.init is None:
        initialise(model)
    model.to(args.device)
    if args.init is not None and fresh:
        widen(model, load_model(args.init, dtype="float32"))
    trainers = optimisers(model, args.rate)
    base = [group["lr"] for t in trainers for group in t.param_groups]
    state = {"step": 0, "seconds": 0.0, "tokens": 0}
    if not fresh:
        state = checkpoint.restore(args.out, model, trainers)
        print(f"resumed at step {state['step']}", flush=True)

    def progress() -> float:
        return min(1.0, state["seconds"] / (args.minutes * 60))

    shared = torch.multiprocessing.Value("d", progress())
    source = Source(tokenizer, prose, args.seed * 1_000_003 + state["step"], preset["tokens"], shared, MIX | dict(args.mix), preset["long"])
    batches = torch.utils.data.DataLoader(source, batch_size=None, num_workers=args.workers, prefetch_factor=4 if args.workers else None)
    generator = torch.Generator().manual_seed(args.seed * 1_000_003 + state["step"])
    compiled = torch.compile(model.hidden, dynamic=False)
    losses: dict[str, list[float]] = defaultdict(list)
    saved_at = started = begun = time.monotonic()
    for items in batches:
        shared.value = progress()
        ids = torch.tensor([i.ids for i in items])
        masked, weight = noise(items, generator, 2.0 if progress() < 0.5 else 1.0)
        ids, masked, weight = (t.to(args.device) for t in (ids, masked, weight))
        hidden = compiled if args.compile and ids.shape[1] <= 256 and len(items) * ids.shape[1] < preset["tokens"] * 1.1 else model.hidden
        inputs = ids.masked_fill(masked, config.mask_id)
        with torch.autocast(args.device, torch.bfloat16, enabled=args.device != "cpu"):
            rows = hidden(inputs)[masked]
            cost = torch.nn.functional.cross_entropy(model.head(rows).float(), ids[masked], reduction="none")
        (cost * weight[masked]).sum().div(len(items)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        advance(trainers, base, scale(state["step"], progress()))
        per_row = torch.zeros(len(items)).index_add_(0, masked.nonzero()[:, 0].cpu(), (cost.detach() * weight[masked]).cpu())
        for item, value in zip(items, per_row.tolist(), strict=True):
            losses[item.task].append(value)
        state["step"] += 1
        state["tokens"] += ids.numel()
        state["seconds"] += min(time.monotonic() - begun, 30.0)
        begun = time.monotonic()
        if state["step"] % 50 == 0:
            parts = " ".join(f"{task} {sum(v) / len(v):.3f}" for task, v in sorted(losses.items()))
            print(f"step {state['step']} tokens {state['tokens'] / 1e6:.2f}M minutes {state['seconds'] / 60:.1f} {parts}", flush=True)
            losses.clear()
        ended = progress() >= 1 or time.monotonic() - started > args.piece * 60
        if time.monotonic() - saved_at > 180 or ended:
            checkpoint.save(args.out, model, trainers, state)
            saved_at = time.monotonic()
        if ended:
            break


if __name__ == "__main__":
    main()
