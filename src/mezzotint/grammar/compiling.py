"""From a specification to an automaton over the tokenizer's ids, in a process of its own: a grammar is a client's program, with limits on time and memory.

The expression is compiled by outlines-core (Willard and Louf, arXiv 2307.09702).
"""

import asyncio
import io
import json
import signal
import subprocess
import sys
from collections import OrderedDict
from typing import Any

import numpy as np

from mezzotint.grammar.automaton import Automaton
from mezzotint.grammar.specification import GrammarError, Specification

ARRAYS = ("source", "target", "kind", "members", "bounds", "least")
KEPT = 64
"""Automata that are remembered."""

KEPT_BYTES = 256 * 2**20
"""And their arrays' bytes."""

MOST_WAITING = 16
"""Grammars that may wait for the compiler."""


ENDED = (-signal.SIGTERM, -signal.SIGSEGV)
"""How a worker ends that neither its grammar nor its limits have ended."""


class CompilerBusy(RuntimeError):
    """A grammar cannot be compiled now: too many wait, or the process that compiles ended early."""


class Compiler:
    """Compiles for one tokenizer and remembers the latest. seconds: longest time for one; states: most it may have."""

    def __init__(self, tokenizer: Any, stop_ids: tuple[int, ...], seconds: float = 10.0, states: int = 20_000):
        self.tokenizer, self.stop_ids, self.seconds, self.states = tokenizer, stop_ids, seconds, states
        self.known: OrderedDict[Specification, Automaton] = OrderedDict()
        self.vocabulary: str | None = None
        self.turn = asyncio.Lock()
        self.waiting = 0

    async def compile(self, specification: Specification) -> Automaton:
        """Raises GrammarError if it is not a grammar, matches nothing, or is beyond the limits; CompilerBusy if it cannot be compiled now."""
        if specification not in self.known:
            if self.waiting >= MOST_WAITING:
                raise CompilerBusy(f"{self.waiting} grammars are being compiled already; try again later")
            self.waiting += 1
            try:
                async with self.turn:
                    if specification not in self.known:
                        self.keep(specification, await self._compile(specification))
            finally:
                self.waiting -= 1
        self.known.move_to_end(specification)
        return self.known[specification]

    def keep(self, specification: Specification, automaton: Automaton) -> None:
        """Remember it, and forget the oldest beyond the limits, but never this one."""
        self.known[specification] = automaton
        while len(self.known) > 1 and (len(self.known) > KEPT or sum(map(size_of, self.known.values())) > KEPT_BYTES):
            self.known.popitem(last=False)

    async def _compile(self, specification: Specification) -> Automaton:
        if self.vocabulary is None:
            self.vocabulary = json.dumps([None if token is None else list(token) for token in token_bytes(self.tokenizer)])
        asked = {"kind": specification.kind, "value": specification.value, "stop_ids": self.stop_ids, "states": self.states, "seconds": self.seconds}
        given = (json.dumps(asked) + "\n" + self.vocabulary).encode()
        try:  # by `subprocess`, which does not run this process's fork handlers in the child as uvloop does: libraries loaded here may not survive them
            worker = subprocess.Popen(
                [sys.executable, "-m", "mezzotint.grammar.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        except OSError:
            raise CompilerBusy("the process that compiles grammars could not be started; try again later") from None
        try:
            out, _ = await asyncio.to_thread(worker.communicate, given, self.seconds)
        except subprocess.TimeoutExpired:
            raise GrammarError(f"the grammar takes longer than {self.seconds:g} s to compile; make it smaller") from None
        finally:
            if worker.poll() is None:
                worker.kill()
                worker.wait()
        if worker.returncode in ENDED:
            raise CompilerBusy("the process that compiles grammars was ended; try again later")
        if worker.returncode != 0:
            raise GrammarError("the grammar takes more memory than it may; make it smaller")
        if out.startswith(b"!"):
            raise GrammarError(out[1:].decode())
        with np.load(io.BytesIO(out), allow_pickle=False) as arrays:
            return Automaton(*(arrays[name] for name in ARRAYS))


def size_of(automaton: Automaton) -> int:
    """Bytes of its arrays."""
    return sum(getattr(automaton, name).nbytes for name in ARRAYS)


def token_bytes(tokenizer: Any) -> list[bytes | None]:
    """The bytes every id stands for, None for special ones. Raises GrammarError for tokenizers whose tokens are not byte strings (byte-level BPE)."""
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    if "ByteLevel" not in json.dumps(rules.get("decoder")):
        raise GrammarError("response_format needs a byte-level BPE tokenizer, which this model's is not")
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {chr(byte): byte for byte in plain}
    letters.update({chr(256 + i): byte for i, byte in enumerate(b for b in range(256) if b not in plain)})
    vocabulary = tokenizer.get_vocab()
    found: list[bytes | None] = [None] * (max(vocabulary.values()) + 1)
    added = {token["id"] for token in rules.get("added_tokens", ())}
    for text, index in vocabulary.items():
        if index not in added and all(letter in letters for letter in text):
            found[index] = bytes(letters[letter] for letter in text)
    return found
