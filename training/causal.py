"""Trains the bundled model's causal twin, to be laid beside it by `mezzotint inspect --beside`: its shape, tokenizer, data and schedule, but every token told
from those before it.

    python training/causal.py --out runs/causal --minutes 20 --prose wikitext-2/valid.txt

Writes a Llama checkpoint, and resumes from what lies in --out.
"""

import argparse
import time
from pathlib import Path

import checkpoint
import torch
from data import MIX, Item, Source, prose_texts
from train import PADDING, PRESETS, advance, optimisers, scale
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

import mezzotint as mz
from mezzotint.models.config import ModelConfig

BUNDLED = Path(mz.__file__).parent / "bundled"


def twin(config: ModelConfig) -> LlamaForCausalLM:
    """Untrained weights of that shape."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            intermediate_size=config.mlp_size,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.kv_heads,
            head_dim=config.head_dim,
            rms_norm_eps=config.norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
            max_position_embeddings=config.max_length,
            tie_word_embeddings=config.tied_head,
            bos_token_id=None,
            eos_token_id=config.stop_ids[0],
            pad_token_id=config.pad_id,
        )
    )


def weights(items: list[Item]) -> torch.Tensor:
    """What each token but the first counts, (b, n - 1): text as one, padding little; 1 in all."""
    column = torch.arange(1, len(items[0].ids))[None]
    closed = torch.tensor([item.closed for item in items])[:, None]
    weight = torch.where(column < closed, 1.0, PADDING)
    return weight / weight.sum()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint")
    parser.add_argument("--minutes", type=float, default=20.0, help="training time over all runs; the schedule ends there")
    parser.add_argument("--prose", type=Path, help="more English text, one paragraph a line (e.g. WikiText-2 validation)")
    parser.add_argument("--rate", type=float, default=0.002, help="the highest learning rate")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED)
    model = twin(mz.load_model(BUNDLED).config).to(args.device)
    trainers = optimisers(model, args.rate)
    base = [group["lr"] for t in trainers for group in t.param_groups]
    state = {"step": 0, "seconds": 0.0, "tokens": 0}
    if (args.out / "state.json").exists():
        state = checkpoint.restore(args.out, model, trainers)
        print(f"resumed at step {state['step']}", flush=True)

    def progress() -> float:
        return min(1.0, state["seconds"] / (args.minutes * 60))

    shared = torch.multiprocessing.Value("d", progress())
    preset = PRESETS["cpu"]
    source = Source(tokenizer, prose_texts(args.prose), args.seed * 1_000_003 + state["step"], preset["tokens"], shared, MIX, preset["long"])
    begun = saved_at = time.monotonic()
    losses: list[float] = []
    for items in source:
        shared.value = progress()
        ids = torch.tensor([item.ids for item in items]).to(args.device)
        logits = model(ids[:, :-1]).logits.float()
        cost = torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
        loss = (cost * weights(items).to(args.device)).sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        advance(trainers, base, scale(state["step"], progress()))
        losses.append(loss.item())
        state["step"] += 1
        state["tokens"] += ids.numel()
        state["seconds"] += min(time.monotonic() - begun, 30.0)
        begun = time.monotonic()
        if state["step"] % 50 == 0:
            mean = sum(losses) / len(losses)
            print(f"step {state['step']} tokens {state['tokens'] / 1e6:.2f}M minutes {state['seconds'] / 60:.1f} loss {mean:.3f}", flush=True)
            losses.clear()
        ended = progress() >= 1
        if begun - saved_at > 180 or ended:
            checkpoint.save(args.out, model, trainers, state)
            saved_at = begun
        if ended:
            break
    model.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
    print(f"{args.out}: {model.num_parameters():,} parameters after {state['step']} steps, {state['tokens'] / 1e6:.1f}M tokens")


if __name__ == "__main__":
    main()
