"""From decided ids to text that never changes: whole characters only, and nothing that may turn out to belong to a stop string."""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any


class Answer:
    """The text of one choice while it grows.

    add(ids) gives the text that has become certain; end() the rest. `finish` is "stop" once a stop id or one of the stop strings has been met; `tokens` are
    then those that the text needs.
    """

    def __init__(self, tokenizer: Any, stop_ids: Sequence[int], stops: Sequence[str] = ()):
        self.tokenizer, self.stop_ids, self.stops = tokenizer, frozenset(stop_ids), stops
        self.tokens: list[int] = []
        self.text = ""
        self.finish: str | None = None
        self._sent = self._from = self._upto = 0

    def add(self, ids: Sequence[int]) -> str:
        if self.finish is not None:
            return ""
        for token in ids:
            if token in self.stop_ids:
                return self._finish("stop")
            self.tokens.append(token)
        self._decode(whole=False)
        return self._give(self._safe())

    def end(self, reason: str) -> str:
        """The run is over: what was held back."""
        return "" if self.finish is not None else self._finish(reason)

    def _finish(self, reason: str) -> str:
        self._decode(whole=True)
        end = self._stop_at()
        self.finish = reason if end is None else "stop"
        return self._give(len(self.text) if end is None else end)

    def _decode(self, whole: bool) -> None:
        """Add the text of the newest ids, once they make whole characters."""
        known = self._read(self.tokens[self._from : self._upto])
        longer = self._read(self.tokens[self._from :])
        if len(longer) > len(known) and (whole or not longer.endswith("�")):
            self.text += longer[len(known) :]
            self._from, self._upto = self._upto, len(self.tokens)

    def _read(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def _stop_at(self) -> int | None:
        """Where the first stop string begins."""
        found = [place for stop in self.stops if (place := self.text.find(stop, max(0, self._sent - len(stop)))) >= 0]
        return min(found, default=None)

    def _safe(self) -> int:
        """How much of the text is certain: up to a stop string, or to what may be the beginning of one."""
        end = self._stop_at()
        if end is not None:
            self.finish = "stop"
            return end
        fresh = len(self.text) - self._sent
        held = max((n for stop in self.stops for n in range(1, min(len(stop), fresh + 1)) if self.text.endswith(stop[:n])), default=0)
        return len(self.text) - held

    def _give(self, end: int) -> str:
        """The text from what was sent to `end`."""
        new = self.text[self._sent : end]
        self._sent = max(self._sent, end)
        if self.finish is not None and end < len(self.text):
            self.text = self.text[: self._sent]
            needed = bisect_left(range(len(self.tokens)), len(self.text), key=lambda count: len(self._read(self.tokens[:count])))
            del self.tokens[needed:]
        return new
