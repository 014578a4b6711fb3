"""Reading a checkpoint's `config.json` with errors that name the field."""

from typing import Any


class Fields:
    def __init__(self, config: dict[str, Any], family: str):
        self.config, self.family = config, family

    def _value(self, name: str, default: Any) -> Any:
        value = self.config.get(name)
        if value is None:
            value = default
        if value is None:
            raise ValueError(f"config.json has no {name!r}, which a {self.family} checkpoint needs")
        return value

    def integer(self, name: str, default: int | None = None) -> int:
        value = self._value(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ValueError(f"config.json: {name}={value!r} must be a whole number, 0 or more")
        return value

    def size(self, name: str, default: int | None = None) -> int:
        value = self.integer(name, default)
        if value == 0:
            raise ValueError(f"config.json: {name}=0 must be at least 1")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        value = self._value(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise ValueError(f"config.json: {name}={value!r} must be a number above 0")
        return float(value)

    def demand(self, expected: dict[str, Any]) -> None:
        """Refuse a field whose value selects a network that this family's released checkpoints do not use."""
        for name, value in expected.items():
            if self.config.get(name, value) != value:
                raise ValueError(f"config.json: {name}={self.config[name]!r} is not supported for {self.family}; supported: {value!r}")
