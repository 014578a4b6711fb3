"""Run by test_parallel.py in processes of their own: what two gloo ranks find, beside what one process finds. `python ranks.py OUT.pt`"""

import json
import multiprocessing
import socket
import sys
from pathlib import Path

import torch

import mezzotint as mz
from mezzotint.engine.together import leave
from mezzotint.models import parallel
from mezzotint.models.config import ModelConfig
from mezzotint.models.loading import load_model
from mezzotint.models.transformer import Transformer

HERE = Path(__file__).parent / "golden"
DIVISIBLE = {
    "llada": "dpad/ckpt_llada_tiny",
    "dream": "dpad/ckpt_dream_tiny",
    "fast_dllm": "families/fast_dllm_v2/fast_dllm_v2_tiny",
    "illada": "families/illada/illada_tiny",
    "sdar": "families/sdar/sdar_tiny",
    "modernbert": "families/modernbert/modernbert_tiny",
}
"""name -> a checkpoint: shifted predictions, biases, shared keys, norms of heads, fused queries, tied heads, windows, blocks."""

CUT = ("q.weight", "k.weight", "v.weight", "out.weight", "gate.weight", "up.weight", "down.weight")


def load(folder: str, mesh=None):
    about = HERE / folder / ".." / "manifest.json"
    mask_id = json.loads(about.read_text())["mask_id"] if folder.startswith("families") else None
    return load_model(HERE / folder, dtype="float32", mask_id=mask_id, mesh=mesh)


def observed(model):
    """Logits, the tokens of a run, and the numbers of weights here and of those that a second rank would take half of."""
    tokens = torch.arange(32)[None] % (model.config.vocab_size - 8)
    with torch.inference_mode():
        logits = model(tokens)
    suffix = mz.DPad(window=16) if model.config.plain else mz.Full()
    recipe = mz.Recipe(gen_length=32, block_length=model.config.block_length or 16, steps=8, early_stop="off", cache=mz.PrefixCache(), suffix=suffix)
    weights = {name: getattr(p.data, "_local_tensor", p.data).numel() for name, p in model.named_parameters()}
    counts = sum(weights.values()), sum(n for name, n in weights.items() if name.endswith(CUT))
    return {"logits": logits, "tokens": mz.denoise_all(model, tokens[:, :20], recipe).tokens, "weights": counts, "heads": model.config.kv_heads}


def with_biases(mesh=None):
    """Logits of a model that has a bias wherever there can be one, and a vocabulary that does not divide."""
    config = ModelConfig("mdlm", 97, 32, 2, 4, 2, 8, 48, 1e-5, 1e4, 64, 96, (), 0, qkv_bias=True, out_bias=True, mlp_bias=True, gated=False, head_bias=True)
    torch.manual_seed(0)
    model = Transformer(config)
    if mesh is not None:
        with torch.device("meta"):
            share = Transformer(config)
        parallel.divide(share, mesh)
        places = dict(share.named_parameters())
        for name, weight in model.named_parameters():
            owner, _, last = name.rpartition(".")
            setattr(share.get_submodule(owner), last, parallel.take(weight.detach(), places[name], torch.device("cpu"), None))
        model = share
    with torch.inference_mode():
        return model(torch.arange(20)[None])


def both(rank: int, port: int) -> dict:
    torch.set_num_threads(1)
    mesh = parallel.join(rank, 2, port, torch.device("cpu"))
    found = {name: observed(load(folder, mesh)) for name, folder in DIVISIBLE.items()}
    found["biases"] = with_biases(mesh)
    leave()
    return found


if __name__ == "__main__":
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    other = multiprocessing.get_context("spawn").Process(target=both, args=(1, port), daemon=True)
    other.start()
    divided = both(0, port)
    other.join()
    alone = {name: observed(load(folder)) for name, folder in DIVISIBLE.items()} | {"biases": with_biases()}
    torch.save({"divided": divided, "alone": alone}, sys.argv[1])
