"""The compiler's process: a specification and a vocabulary on stdin, the automaton's arrays (or `!` and what is wrong) on stdout."""

import io
import json
import resource
import sys

import numpy as np

from mezzotint.grammar.automaton import Automaton
from mezzotint.grammar.specification import Specification

MEMORY = 8 * 2**30
END = b"\x03"
"""What every text is taken to end with while its automaton is made: else the search for a match would stop at an answer that another one begins with."""


def main() -> None:
    asked = json.loads(sys.stdin.readline())
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    most = int(asked["seconds"]) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (most, most))
    try:
        arrays = build(asked, json.loads(sys.stdin.readline()))
    except ValueError as error:
        sys.stdout.write("!" + " ".join(str(error).split())[:500])
        return
    out = io.BytesIO()
    np.savez(out, allow_pickle=False, **arrays)
    sys.stdout.buffer.write(out.getvalue())


def build(asked: dict, vocabulary: list) -> dict[str, np.ndarray]:
    from outlines_core import Index, Vocabulary

    stop_ids = tuple(asked["stop_ids"])
    tokens: dict[bytes, list[int]] = {}
    for index, token in enumerate(vocabulary):
        if token and index not in stop_ids:
            tokens.setdefault(bytes(token), []).append(index)
    end = len(vocabulary)
    tokens[END] = [end]
    expression = Specification(asked["kind"], asked["value"]).expression()
    try:
        found = Index(f"(?:{expression}){END.decode()}", Vocabulary(stop_ids[0], tokens))
    except ValueError as error:
        raise ValueError(f"the expression cannot be compiled: {error}") from None
    transitions = found.get_transitions()
    if len(transitions) > asked["states"]:
        raise ValueError(f"the grammar has {len(transitions)} states, the limit is {asked['states']}; make it smaller")
    ended = set(found.get_final_states())
    accepting = {state for state, steps in transitions.items() if steps.get(end) in ended}
    going = {state: {token: to for token, to in steps.items() if token != end} for state, steps in transitions.items() if state not in ended}
    automaton = Automaton.build(going, found.get_initial_state(), accepting, stop_ids)
    if automaton.least[0] < 0:
        raise ValueError("the grammar matches nothing that these tokens can spell")
    return {name: getattr(automaton, name) for name in ("source", "target", "kind", "members", "bounds", "least")}


if __name__ == "__main__":
    main()
