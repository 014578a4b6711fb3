"""`generate --input`: a file of questions into a file of answers, here or on a Ray cluster."""

import argparse
import sys
import time
from pathlib import Path

from mezzotint.cli import options
from mezzotint.cli.progress import bar

YEAR = 365 * 86_400.0
"""Seconds. A batch has no deadline."""

SHOWN = 20
"""Most unanswerable lines that are reported one by one; --json has all."""


def run(args: argparse.Namespace) -> int:
    for name, beside in (("input", "output"), ("output", "input")):
        if getattr(args, name) is None:
            raise ValueError(f"--{beside} needs --{name}")
    for name in ("prompt", "file", "raw", "watch"):
        if getattr(args, name):
            raise ValueError(f"{'the prompt' if name == 'prompt' else f'--{name}'} is for one answer, --input for many; give one of them")
    source, target = Path(args.input), Path(args.output)
    if not source.is_file():
        raise ValueError(f"input={args.input!r} is not a file")
    if target.exists() and source.samefile(target):
        raise ValueError(f"output={args.output!r} is the input; give another file")

    from mezzotint.batch.job import Job, conditions
    from mezzotint.batch.output import Output
    from mezzotint.batch.questions import Unanswerable

    running = 32 if args.running is None else args.running
    settings = options.engine_settings(args, running=running, waiting=10**6, seconds=YEAR)
    replicas = options.replicas_of(args)
    recipe = options.recipe_unloaded(args)
    begun = time.perf_counter()

    def tell(wrong: Unanswerable) -> None:
        if len(job.tally.wrong) <= SHOWN:
            print(f"mezzotint: {source} line {wrong.number} (id {wrong.id}): {wrong.reason}", file=sys.stderr)

    with Output(target, conditions(settings, recipe, args.seed)) as output, bar() as progress:
        job = Job(source, output, lambda tally: progress.advance(shown), tell)
        left = job.survey()
        shown = progress.add_task("answers", total=left + job.tally.before, completed=job.tally.before)
        if left and args.ray:
            from mezzotint.batch.cluster import on_ray

            job.take(on_ray(job.left(), settings, recipe, args.seed, replicas))
        elif left:
            from mezzotint.batch.answering import one_by_one
            from mezzotint.engine import made

            engine = made(settings, replicas.least)
            try:
                job.take(one_by_one(engine, job.left(), recipe, args.seed))
            finally:
                engine.close()
    report(args, job.summary(), recipe.to_dict(), time.perf_counter() - begun)
    return 1 if job.tally.wrong else 0


def report(args: argparse.Namespace, summary: dict, recipe: dict, seconds: float) -> None:
    if args.json:
        options.print_json({"input": args.input, "output": args.output, **summary, "seconds": seconds, "recipe": recipe, "seed": args.seed})
        return
    if summary["unanswerable"] > SHOWN:
        print(f"mezzotint: and {summary['unanswerable'] - SHOWN} more lines that cannot be answered; --json lists them", file=sys.stderr)
    before = f", {summary['answered_before']} had one already" if summary["answered_before"] else ""
    failed = f", {summary['unanswerable']} cannot be answered" if summary["unanswerable"] else ""
    print(
        f"{summary['answered']} of {summary['lines']} lines answered in {seconds:.1f} s ({summary['completion_tokens']} tokens){before}{failed}: {args.output}"
    )
