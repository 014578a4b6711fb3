"""A smaller checkpoint from a trained one: heads and neurons removed for a speed, or weights zeroed, without passing a bound on quality unsaid.

An interrupted run goes on where it was when the same command is given again; calibration by gradients begins anew.
"""

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mezzotint.cli import options

if TYPE_CHECKING:
    from mezzotint.prune.calibration import Sample
    from mezzotint.prune.journal import Journal
    from mezzotint.prune.settings import Preset

STRUCTURED = ("ranking", "importance", "repair", "grouping", "allocation", "cost", "length")
SPARSE = ("method", "sparsity", "pattern")
LOST = {"nll": "likelihood bound", "ppl": "perplexity", "accuracy": "masked tokens wrong", "agreement": "masked tokens changed"}
"""What `quality_drop` is a change of, by its measure."""
AFTERWARDS = ("run", "command", "json", "out", "strict", "compact", "quantise")
"""Options that change nothing of what a run computes (`quantise` where single weights go), so an interrupted one goes on when they differ."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", metavar="MODEL", help="checkpoint folder or hub id (default: the bundled model)")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the pruned checkpoint; new or empty")
    parser.add_argument("--preset", metavar="NAME", help="conservative, balanced (default), aggressive, paper, memory, edge or ampere24")
    goal = parser.add_argument_group("structured: heads and neurons")
    goal.add_argument("--target-speedup", type=float, metavar="X", help="1.3 = a forward in 1/1.3 of the time")
    goal.add_argument("--quality-drop-threshold", type=float, metavar="SHARE", help="largest drop of quality; it wins over the speed")
    goal.add_argument(
        "--measure", help="of that drop: nll (default; relative increase of the likelihood bound), ppl (of its exponential), accuracy or agreement"
    )
    goal.add_argument("--strict", action="store_true", help="fail instead of stopping short of the speed")
    goal.add_argument("--ranking", help="instability, importance or combined")
    goal.add_argument("--importance", help="reconstruction, energy or fluctuation")
    goal.add_argument("--allocation", help="measured (by the loss of each layer) or uniform")
    goal.add_argument("--repair", help="refit, bias or none")
    goal.add_argument("--grouping", help="balanced or group, where heads share keys")
    goal.add_argument("--cost", help="measured or flops")
    goal.add_argument("--length", type=int, metavar="N", help="the canvas length the speed is meant for")
    goal.add_argument("--drop-layers", action="store_true", help="whole layers may go too")
    weights = parser.add_argument_group("unstructured: single weights")
    weights.add_argument("--method", help="sink, sink-sparsegpt, wanda, wanda-noised, sparsegpt, magnitude, fisher, taylor or movement")
    weights.add_argument("--sparsity", type=float, metavar="SHARE", help="share of the weights that go (default: 0.5)")
    weights.add_argument("--pattern", help="none, 2:4 or 4:8")
    data = parser.add_argument_group("calibration")
    data.add_argument("--calibration", metavar="FILE", help="plain text to calibrate on (default: the built-in tasks' training questions)")
    data.add_argument("--samples", type=int, default=128, metavar="N", help="calibration samples (default: 128); half as many validate")
    data.add_argument("--sample-length", type=int, default=128, metavar="N", help="their length in tokens (default: 128)")
    data.add_argument("--seed", type=options.seed, default=0)
    stored = parser.add_argument_group("what is written")
    stored.add_argument("--compact", action="store_true", help="sparse matrices as bitmasks")
    stored.add_argument("--quantise", metavar="SCHEME", help="int8-weight, int8-dynamic or int4-weight when the checkpoint is loaded (extra: quant)")
    options.add_place(parser.add_argument_group("model"))
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    import mezzotint
    from mezzotint.cli.progress import bar
    from mezzotint.models.loading import folder_of
    from mezzotint.models.quantised import quantise
    from mezzotint.prune.checkpoint import check_recorded, save
    from mezzotint.prune.journal import Journal
    from mezzotint.prune.pruner import SinkAwarePruner, ThresholdError

    preset = chosen(args)
    out = Path(args.out)
    if not out.name or out.name == "..":
        raise ValueError(f"out={args.out!r} must name a new folder")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"out={args.out!r} is there already; give a folder that is new or empty")
    for name, least in (("samples", 8), ("sample_length", 16)):
        if getattr(args, name) < least:
            raise ValueError(f"{name}={getattr(args, name)} must be at least {least}")
    model, tokenizer = options.load(args)
    check_recorded(model, folder_of(args.model, weights=False))
    if preset.quantise:
        quantise(model, preset.quantise, layers=1)  # what is not possible is said before anything is begun
    samples = calibration(args, tokenizer)
    pruner = SinkAwarePruner(model, list(samples[0]), validation_data=list(samples[1]), seed=args.seed)
    if preset.structured:
        pruner.check(preset.structured)
    identity = {k: v for k, v in vars(args).items() if k not in (*AFTERWARDS, *(["quality_drop_threshold", "measure"] if preset.sparsity else []))}
    identity |= {"version": mezzotint.__version__} | pruner.identity
    if preset.structured and preset.quantise:
        identity["quantise"] = preset.quantise  # it has its share of the bound
    journal = Journal(out.with_name(out.name + ".journal"), identity)
    with journal.held(), bar() as progress:
        tasks: dict[str, Any] = {}

        def tell(stage: str, done: int, total: int) -> None:
            tasks.setdefault(stage, progress.add_task(stage, total=total) if stage not in tasks else None)
            progress.update(tasks[stage], completed=done)

        try:
            smaller = pruner.prune(None, args.quality_drop_threshold, measure=args.measure, preset=preset, strict=args.strict, journal=journal, report=tell)
        except ThresholdError as error:
            raise ValueError(f"{error}; nothing was written{remedy(error, args, journal, bool(preset.sparsity))}") from None
    report = smaller.report | {"model": args.model or "bundled", "preset": args.preset or (None if preset.sparsity else "balanced")}
    save(smaller, out, source=args.model, report=report)
    journal.finish()
    report["out"] = str(out)
    if args.json:
        options.print_json(report)
    else:
        show(report)
    return 0


def remedy(error: Exception, args: argparse.Namespace, journal: "Journal", sparse: bool) -> str:
    """What to do about a bound that would be passed: which change of the command goes on from the journal. sparse: single weights were zeroed."""
    from mezzotint.prune.pruner import QuantisedError

    if not journal.begun:
        return "; give a larger --quality-drop-threshold" + (" or leave --quantise out" if args.quantise else "")
    if isinstance(error, QuantisedError):
        again = "" if not sparse else "without --quantise" if args.quantise else "with a looser bound"
    else:
        again = "with a looser bound" if sparse else "without --strict"
    further = f", and the same command {again} goes on from it" if again else "; delete it before another command"
    return f". {journal.folder} keeps what was computed{further}"


def chosen(args: argparse.Namespace) -> "Preset":
    """The preset, changed by the options; structured and unstructured ones do not mix."""
    from mezzotint.models.quantised import SCHEMES
    from mezzotint.prune.settings import PRESETS, Goal, Preset, Structured, preset_of
    from mezzotint.prune.sparsity import Sparsity

    if args.quantise is not None and args.quantise not in SCHEMES:
        raise ValueError(f"quantise={args.quantise!r} is unknown; accepted: {', '.join(SCHEMES)}")
    wants_sparse = [name for name in SPARSE if getattr(args, name) is not None]
    wants_structured = [name for name in (*STRUCTURED, "target_speedup") if getattr(args, name) is not None] + (["drop_layers"] if args.drop_layers else [])
    wants_structured += ["strict"] if args.strict else []
    base = preset_of(args.preset) if args.preset else Preset("", sparsity=Sparsity()) if wants_sparse else PRESETS["balanced"]
    mixed = wants_structured if base.sparsity else wants_sparse + (["compact"] if args.compact else [])
    if mixed:
        kind, name = ("weights" if base.sparsity else "heads and neurons"), mixed[0].replace("_", "-")
        cause = "--" + wants_sparse[0] if base.sparsity and not args.preset else f"preset={args.preset or 'balanced'!r}"
        raise ValueError(f"--{name} has no effect here: {cause} prunes {kind}; leave it out")
    changes: dict[str, Any] = {"quantise": args.quantise or base.quantise, "compact": args.compact or base.compact}
    asked = {name: getattr(args, name) for name in ("target_speedup", "quality_drop_threshold", "measure") if getattr(args, name) is not None}
    goal = dataclasses.replace(base.goal or Goal(), **asked)
    if base.sparsity:
        pattern = args.pattern or base.sparsity.pattern
        ratio = args.sparsity if args.sparsity is not None else base.sparsity.ratio
        if args.sparsity is None and ":" in pattern and all(part.isdigit() for part in pattern.split(":", 1)):
            n, m = (int(part) for part in pattern.split(":", 1))
            ratio = n / m if m else ratio
        changes["sparsity"] = dataclasses.replace(base.sparsity, method=args.method or base.sparsity.method, ratio=ratio, pattern=pattern)
        return dataclasses.replace(base, **changes)
    settings = base.structured or Structured()
    given = {name: getattr(args, name) for name in STRUCTURED if getattr(args, name) is not None}
    if "length" in given:
        given["predicted"] = min(settings.predicted, given["length"])
    settings = dataclasses.replace(settings, **given, drop_layers=args.drop_layers or settings.drop_layers)
    return dataclasses.replace(base, **changes, structured=settings, goal=goal)


def calibration(args: argparse.Namespace, tokenizer: Any) -> "tuple[tuple[Sample, ...], tuple[Sample, ...]]":
    """Samples to calibrate on, and others to validate on."""
    from mezzotint.prune.calibration import from_suite, from_text

    half = max(4, args.samples // 2)
    if args.calibration is None:
        length = args.sample_length
        return from_suite(tokenizer, count=args.samples, length=length, seed=args.seed), from_suite(tokenizer, count=half, length=length, seed=args.seed + 7919)
    text = options.text_of(None, args.calibration)
    cut = len(text) * 2 // 3
    return (
        from_text(tokenizer, text[:cut], count=args.samples, length=args.sample_length, seed=args.seed),
        from_text(tokenizer, text[cut:], count=half, length=args.sample_length, seed=args.seed),
    )


def show(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, box=None)
    bound = report.get("quality_drop_threshold")
    if "speedup" in report:
        how = "measured" if report["cost"] == "measured" else "by FLOPs"
        table.add_row("speed", f"{report['speedup']:.2f}× at {report['length']} tokens, {how} (target {report['target_speedup']:g}×)")
        table.add_row("parameters", f"{report['parameter_ratio']:.1%} of the dense model's")
    else:
        table.add_row("zeros", f"{report['sparsity']:.1%} of the layers' weights ({report['method']}, pattern {report['pattern']})")
    table.add_row(
        LOST[report["measure"]],
        f"{report['quality_drop']:+.2%} ± {report['quality_drop_standard_error']:.2%}" + (f" (at most {bound:+.1%})" if bound is not None else ""),
    )
    if "quality_drop_quantised" in report:
        lost = f"{report['quality_drop_quantised']:+.2%} ± {report['quality_drop_quantised_standard_error']:.2%}"
        table.add_row("once quantised", f"{lost}, {report['speedup_quantised']:.2f}× the speed")
    if bound is None:
        lost = report.get("quality_drop_quantised", report["quality_drop"])
        table.add_row("", f"the {LOST[report['measure']]} changed by {lost:+.1%}, with no limit set: give --quality-drop-threshold to set one")
    if report.get("reached") is False:
        table.add_row("", "the target was not reached within the bound on quality, which wins; this is the fastest model found that keeps it")
    table.add_row("written to", report["out"])
    Console().print(table)
