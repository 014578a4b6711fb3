"""The `mezzotint` command: one file per subcommand. The only room that prints."""

import argparse
import difflib
import errno
import os
import signal
import sys
import warnings
from importlib import import_module
from typing import NoReturn

COMMANDS = {
    "demo": "the bundled model answers held-out questions, recipes side by side",
    "generate": "one answer to a prompt",
    "infill": "fill [[8]]-style gaps in a text",
    "eval": "quality: built-in tasks, public benchmarks, perplexity, long contexts",
    "bench": "speed side by side, and quality against seconds",
    "tune": "the fastest recipe that keeps the quality on your questions",
    "prune": "a smaller checkpoint: heads, neurons or weights removed within a bound on quality",
    "inspect": "where a model's attention goes over a run, as one HTML page",
    "serve": "an OpenAI-compatible server with a playground page",
    "recipes": "the named recipes with their sources",
    "info": "what a checkpoint is, and the memory it needs",
}


class Parser(argparse.ArgumentParser):
    """Errors are one line that names the nearest option or command, and exit code 2."""

    def __init__(self, **settings):
        super().__init__(**settings, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        known = [option for action in self._actions for option in action.option_strings] + list(COMMANDS)
        words = [word.strip("',:") for word in message.split()]
        near = [match for word in words if word not in known for match in difflib.get_close_matches(word, known, 1, cutoff=0.75)]
        remedy = f"did you mean {near[0]}?" if near else f"see `{self.prog} --help`"
        self.exit(2, f"{self.prog}: {message}; {remedy}\n")

    def parse_known_args(self, args=None, namespace=None):  # unknown options are reported by the subcommand that has their neighbours
        found, rest = super().parse_known_args(args, namespace)
        if rest:
            self.error(f"unrecognised {' '.join(rest)}")
        return found, rest


def parser() -> argparse.ArgumentParser:
    """The whole command line. Subcommands add their own options; nothing heavy is imported before one runs."""
    from mezzotint import __version__

    top = Parser(prog="mezzotint", description="Fast, training-free inference for diffusion language models.")
    top.add_argument("--version", action="version", version=f"mezzotint {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in COMMANDS.items():
        module = import_module(f"mezzotint.cli.{name}")
        sub = commands.add_parser(name, help=text, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
        module.add_arguments(sub)
        sub.set_defaults(run=module.run)
    return top


REMEDIES = {
    FileNotFoundError: "give the path of a file that exists",
    IsADirectoryError: "give a file, not a folder",
    PermissionError: "give a path that you may read and write",
}


def told(error: OSError) -> str:
    """What the system refused, and what it would accept."""
    if error.filename is not None and error.strerror:
        remedy = REMEDIES.get(type(error))
        return f"{error.filename}: {error.strerror}" + (f"; {remedy}" if remedy else "")
    try:
        sys.stdout.flush()
    except OSError:
        drop_output()
    reason = error.strerror or str(error)
    return f"the output cannot be written: {reason}" if error.errno == errno.ENOSPC else reason


def drop_output() -> None:
    """Nobody takes what is left of the output: without this Python would try, and complain, once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(argv: list[str] | None = None) -> int:
    """Run a command. Bad input ends in one line on stderr and exit code 2, Ctrl-C in 130, never in a traceback."""
    try:
        args = parser().parse_args(argv)
        warnings.showwarning = lambda message, *rest: print(f"mezzotint: warning: {message}", file=sys.stderr)
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        code = args.run(args)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        drop_output()
        return 141
    except (ValueError, OSError, LookupError) as error:
        reason = told(error) if isinstance(error, OSError) else str(error)
        print(f"mezzotint: {' '.join(reason.split())}", file=sys.stderr)
        return 2
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, RuntimeError) and not any(words in str(error) for words in ("out of memory", "can't allocate memory", "not enough memory")):
            raise
        reason = (str(error) or "the system gives no more").splitlines()[0].removeprefix("not enough memory ")
        print(f"mezzotint: not enough memory: {reason}; use a shorter canvas or a smaller dtype", file=sys.stderr)
        return 2
