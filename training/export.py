"""Writes a training run as a LLaDA checkpoint folder, weights in bf16.

python training/export.py runs/small src/mezzotint/bundled
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from mezzotint.models.families import llada
from mezzotint.models.families.names import translate

sys.path.insert(0, str(Path(__file__).parent))
from train import PRESETS, shape


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    config = shape(PRESETS[args.preset], AutoTokenizer.from_pretrained(args.run))
    weights = load_file(args.run / "weights.safetensors")
    named = {theirs: weights[ours].to(torch.bfloat16).contiguous() for ours, theirs in translate(llada, config).items()}
    save_file(named, args.out / "model.safetensors", metadata={"format": "pt"})
    official = llada.official(config) | {"torch_dtype": "bfloat16"}
    (args.out / "config.json").write_text(json.dumps(official, indent=1) + "\n")
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(args.run / file, args.out / file)
    state = json.loads((args.run / "state.json").read_text())
    print(f"{args.out}: {config.parameters():,} parameters after {state['step']} steps, {state['tokens'] / 1e6:.1f}M tokens")


if __name__ == "__main__":
    main()
