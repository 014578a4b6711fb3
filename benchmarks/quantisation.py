"""int8 and int4 beside the dense model: bytes, seconds of a forward in turn with the dense one, and what it costs; the dense model and a pruned one.

python benchmarks/quantisation.py
python benchmarks/quantisation.py --quick

Needs torchao (extra `quant`). Every scheme is compared with the same model unquantised in the same type; int4 is for bfloat16 only,
and the pruned model's widths are multiples of its groups. A scheme that is not
possible here is a row that says why. On a small model embeddings, which stay as they are, are much of the memory: `layers_memory_ratio` is of the layers alone.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from asking import Asking
from machine import stamp
from rows import Rows

import mezzotint as mz
from mezzotint.evaluation.comparison import drop, judge, judge_beside, log_probabilities, masked_rows
from mezzotint.evaluation.predictions import weights_digest
from mezzotint.models.quantised import GROUP, SCHEMES, quantise, stored_bytes
from mezzotint.prune import speed
from mezzotint.prune.calibration import from_suite
from mezzotint.prune.pruner import SinkAwarePruner
from mezzotint.prune.settings import Structured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="checkpoint folder or hub id (default: the bundled model)")
    parser.add_argument("--rows", type=Path, metavar="FILE", help="keep the rows there (JSON lines) and go on from them")
    parser.add_argument("--pruned", type=float, default=1.15, metavar="X", help="speed by FLOPs that the pruned model is cut to (default: 1.15)")
    parser.add_argument("--length", type=int, default=512, help="canvas the speed is measured at (default: 512)")
    parser.add_argument("--checks", type=int, default=128, help="held-out samples for the bound (default: 128)")
    parser.add_argument("--sample-length", type=int, default=128)
    parser.add_argument("--questions", type=int, default=200, help="for exact match, all tasks together; 0 leaves it out (default: 200)")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="little of everything: shows that it works, measures nothing")
    parser.add_argument("--json", action="store_true", help="print nothing but the JSON object")
    args = parser.parse_args()
    if args.quick:
        args.length, args.checks, args.sample_length, args.questions, args.repeats = 96, 8, 48, 0, 3
    model, tokenizer = mz.load(args.model)
    settings = {k: v for k, v in vars(args).items() if k not in ("rows", "json", "quick")} | {"weights": weights_digest(model)}
    rows = Rows(args.rows, settings)
    samples = from_suite(tokenizer, count=args.checks, length=args.sample_length, seed=1, held_out=True)
    checks = masked_rows([(s.ids, s.start, s.end) for s in samples], model.config.mask_id, draws=4, seed=1, batch=32)
    reference = judge(model, checks)
    asking = Asking(tokenizer, args.questions, mz.named("dual").with_(gen_length=64))

    def row(changed: Any, beside: Any) -> dict[str, Any]:
        """changed, measured in turn with `beside`, the same model unquantised and in the same type; quality against the dense model in fp32."""
        judged, apart = judge_beside(changed, log_probabilities(model, checks), checks)
        lost = drop(judged, reference)
        sizes = {name: [stored_bytes(part(m)) for m in (changed, beside)] for name, part in (("memory", whole), ("layers_memory", layers))}
        return {
            **{f"{name}_ratio": mine / theirs for name, (mine, theirs) in sizes.items()},
            "bytes": sizes["memory"][0],
            **speed.compare(beside, changed, length=args.length, repeats=args.repeats),
            "quality_drop": lost.value,
            "quality_drop_standard_error": lost.error,
            "agreement": 1 - drop(judged, reference, "agreement").value,
            "kl": apart,
            "exact_match": asking.exact_match(changed),
        }

    def attempt(source: Any, scheme: str | None, dtype: torch.dtype) -> dict[str, Any]:
        base = source if dtype == source.dtype else typed(source, dtype)
        try:
            return row(quantise(base, scheme) if scheme else base, base)
        except ValueError as error:
            return {"not_possible": str(error)}

    found = []
    sources: dict[str, Any] = {"dense": lambda: model, f"pruned {args.pruned:g}": lambda: thinner(model, tokenizer, args)}
    for source, make in sources.items():
        names = [
            (scheme, dtype)
            for dtype in (torch.float32, torch.bfloat16)
            for scheme in (None, *SCHEMES)
            if (scheme == "int4-weight") <= (dtype == torch.bfloat16)
        ]
        some = None
        for scheme, dtype in names:
            name = f"{source} {scheme or 'not quantised'} {str(dtype).removeprefix('torch.')}"
            if name not in rows.found:
                some = some or make()
                rows.row(name, lambda m=some, s=scheme, d=dtype: attempt(m, s, d))
            found.append(rows.found[name])
            if not args.json:
                print(json.dumps(rows.found[name]), file=sys.stderr, flush=True)
    print(json.dumps({"rows": found, "decoding": str(asking.recipe), "settings": settings, "quick": args.quick, **stamp(model)}))


def whole(model: Any) -> Any:
    return model


def layers(model: Any) -> Any:
    return model.layers


def typed(model: Any, dtype: torch.dtype) -> Any:
    import copy

    return copy.deepcopy(model).to(dtype)


def thinner(model: Any, tokenizer: Any, args: argparse.Namespace) -> Any:
    data = from_suite(tokenizer, count=16 if args.quick else 192, length=args.sample_length, seed=200)
    return SinkAwarePruner(model, list(data), settings=Structured(length=args.length, cost="flops", passes=1, multiple=GROUP)).prune(args.pruned, 10.0)


if __name__ == "__main__":
    main()
