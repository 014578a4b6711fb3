"""What a server is, as one frozen value: its replica, its address, who may use it and how much one client may ask for."""

import dataclasses
from dataclasses import dataclass, field

from mezzotint.engine import EngineSettings
from mezzotint.recipe import Recipe


@dataclass(frozen=True)
class ServerSettings:
    """engine: the replica; name: what the model is called in requests; recipe: for requests that name none (None: the family's plain decoding);
    keys: accepted API keys, empty for a server open to all who reach it;
    body: most bytes of a request; choices: most answers one request may ask for (prompts × n); stops: most stop strings;
    read_seconds, write_seconds: longest time to send a request, and to take the next piece of an answer; drain_seconds: longest wait for answers at hand
    when the server ends; grammar_seconds: longest time to compile a response_format; grammar_states: most states it may have; grammar_work: most states
    times positions of a block, which every step of such an answer keeps; grammar_edges: most edges times positions of a block times answers, which is what
    their steps compute.
    """

    engine: EngineSettings = field(default_factory=EngineSettings)
    name: str = "mezzotint"
    recipe: Recipe | None = None
    keys: tuple[str, ...] = ()
    body: int = 2**20
    choices: int = 16
    stops: int = 16
    read_seconds: float = 30.0
    write_seconds: float = 30.0
    drain_seconds: float = 30.0
    grammar_seconds: float = 10.0
    grammar_states: int = 20_000
    grammar_work: int = 2**21
    grammar_edges: int = 2**20

    def __post_init__(self) -> None:
        if not self.name or any(not key for key in self.keys):
            raise ValueError("the model's name and every API key must have at least one character")
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if isinstance(value, (int, float)) and value <= 0:
                raise ValueError(f"{f.name}={value!r} must be above 0")
