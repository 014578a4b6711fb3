"""Writes a training run as a LLaDA checkpoint folder, weights in bf16.

python training/export.py runs/small src/mezzotint/bundled
"""

import argparse
import json
import shutil
from pathlib import Path

import checkpoint
import torch
from safetensors.torch import save_file

from mezzotint.models.families import llada
from mezzotint.models.families.names import translate
from mezzotint.models.loading import read_config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    config = llada.configure(read_config(args.run))
    weights, counters = checkpoint.read(args.run)
    named = {theirs: weights[f"weights/{ours}"].to(torch.bfloat16).contiguous() for ours, theirs in translate(llada, config).items()}
    save_file(named, args.out / "model.safetensors", metadata={"format": "pt"})
    official = llada.official(config) | {"torch_dtype": "bfloat16"}
    (args.out / "config.json").write_text(json.dumps(official, indent=1) + "\n")
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(args.run / file, args.out / file)
    settings = json.loads((args.out / "tokenizer_config.json").read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    (args.out / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n")
    print(f"{args.out}: {config.parameters():,} parameters after {counters['step']} steps, {counters['tokens'] / 1e6:.1f}M tokens")


if __name__ == "__main__":
    main()
