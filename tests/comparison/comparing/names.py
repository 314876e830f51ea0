"""What stands for `$name` in a sequence, for one broker: names made up, ids and epochs that this broker gave."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

ZERO_ID, UNKNOWN_ID = bytes(16), bytes.fromhex("11" * 16)
_WHOLE = re.compile(r"\$(\w+(?:\.\w+)?)([+-]\d+)?")
_INSIDE = re.compile(r"\$\{(\w+(?:\.\w+)?)\}")


class Names:
    """Values by name; a name without a value is a word with the sequence's tag in front."""

    def __init__(self, tag: str, now_ms: int, parameters: Mapping[str, Any]) -> None:
        self._tag = tag
        self._parameters = parameters
        self.values: dict[str, Any] = {
            "now": now_ms, "zero.id": ZERO_ID, "unknown.id": UNKNOWN_ID, "long": "x" * 5000, "name250": "x" * 250,
        }  # fmt: skip

    def resolve(self, value: Any) -> Any:
        """The value with every name in it replaced."""
        if isinstance(value, Mapping):
            return {self.resolve(name): self.resolve(one) for name, one in value.items()}
        if isinstance(value, list):
            return [self.resolve(one) for one in value]
        if not isinstance(value, str) or "$" not in value:
            return value
        whole = _WHOLE.fullmatch(value)
        if whole is None:
            return _INSIDE.sub(lambda found: str(self.value(found[1])), value)
        known = self.value(whole[1])
        return known + int(whole[2]) if whole[2] else known

    def value(self, name: str) -> Any:
        """What stands for this name. Parameters may themselves name something, and have parts."""
        if name in self.values:
            return self.values[name]
        whole, _, part = name.partition(".")
        if whole in self._parameters:
            value = self._parameters[whole]
            return self.resolve(value[part] if part else value)
        if part:
            raise KeyError(f"nothing is known as ${name}")
        return f"{self._tag}-{name}"

    @property
    def ids(self) -> dict[bytes, str]:
        """Topic ids that have a name."""
        return {value: f"${name}" for name, value in self.values.items() if isinstance(value, bytes) and value}
