"""A finite automaton over token ids, as arrays."""

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Automaton:
    """source, target, kind: (pairs,) an edge leads from state to state by any token of class `kind`; members, bounds: class c is
    members[bounds[c]:bounds[c + 1]], sorted ids; least: (states,) the fewest tokens from a state to acceptance, -1 if there is no way.

    State 0 is the start, the last one the end: reached from every accepting state (least 0) by a stop id, and left by none but stop ids.
    """

    source: np.ndarray
    target: np.ndarray
    kind: np.ndarray
    members: np.ndarray
    bounds: np.ndarray
    least: np.ndarray
    leaving: dict[int, np.ndarray] = field(default_factory=dict, compare=False, repr=False)

    @property
    def states(self) -> int:
        return len(self.least)

    @property
    def end(self) -> int:
        return len(self.least) - 1

    def pairs_of(self, state: int) -> np.ndarray:
        """The edges that leave a state."""
        if state not in self.leaving:
            self.leaving[state] = (self.source == state).nonzero()[0]
        return self.leaving[state]

    def step(self, state: int, token: int) -> int:
        """The state after a token, -1 if it may not stand here."""
        for pair in self.pairs_of(state):
            first, last = self.bounds[self.kind[pair]], self.bounds[self.kind[pair] + 1]
            place = first + np.searchsorted(self.members[first:last], token)
            if place < last and self.members[place] == token:
                return int(self.target[pair])
        return -1

    @staticmethod
    def build(transitions: dict[int, dict[int, int]], start: int, accepting: set[int], stop_ids: tuple[int, ...]) -> "Automaton":
        """From state -> token -> state. Edges that lead nowhere near acceptance are left out."""
        names = {start: 0}
        for state in transitions:
            names.setdefault(state, len(names))
        for state in accepting:
            names.setdefault(state, len(names))
        end = len(names)
        classes: dict[bytes, int] = {}
        lists: list[np.ndarray] = []
        edges: list[tuple[int, int, int]] = []

        def edge(source: int, target: int, tokens: np.ndarray) -> None:
            key = tokens.tobytes()
            if key not in classes:
                classes[key] = len(lists)
                lists.append(tokens)
            edges.append((source, target, classes[key]))

        for state, steps in transitions.items():
            tokens = np.fromiter(steps.keys(), np.int64, len(steps))
            targets = np.fromiter((names.setdefault(t, -1) for t in steps.values()), np.int64, len(steps))
            keep = (targets >= 0) & ~np.isin(tokens, stop_ids)
            for target in np.unique(targets[keep]):
                edge(names[state], int(target), np.sort(tokens[keep & (targets == target)]))
        stops = np.array(sorted(stop_ids), np.int64)
        for state in accepting:
            edge(names[state], end, stops)
        edge(end, end, stops)

        source, target, kind = np.array(edges, np.int64).T
        least = np.full(end + 1, -1, np.int64)
        least[[end, *(names[s] for s in accepting)]] = 0
        distance = 0
        while True:
            nearer = source[(least[target] == distance) & (target != end) & (least[source] < 0)]
            if not len(nearer):
                break
            distance += 1
            least[nearer] = distance
        useful = (least[source] >= 0) & (least[target] >= 0)
        return Automaton(source[useful], target[useful], kind[useful], np.concatenate(lists), np.cumsum([0, *map(len, lists)]), least)
