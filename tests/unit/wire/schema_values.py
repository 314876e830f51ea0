"""Messages with random values, made from the schema facts rather than from the generated code they test."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any

from hypothesis import settings

from penstock.wire.messages.index import APIS
from penstock.wire.primitives import Message

FACTS = json.loads((Path(__file__).parents[3] / "tools" / "kafka_messages.json").read_text())
REQUESTS = {message["api_key"]: message for message in FACTS["messages"] if message["type"] == "request"}
RESPONSES = {message["api_key"]: message for message in FACTS["messages"] if message["type"] == "response"}
EXHAUSTIVE = bool(os.environ.get("PENSTOCK_EXHAUSTIVE"))

INTEGERS = {"int8": 8, "int16": 16, "int32": 32, "int64": 64}
TEXTS = ("", "a", "orders", "größer ☂", "x" * 126, "y" * 127, "z" * 130, "w" * 17000)


def examples(count: int, exhaustive: int) -> settings:
    """The same few examples each time, many more when asked for."""
    return settings(
        max_examples=exhaustive if EXHAUSTIVE else count, deadline=None, derandomize=not EXHAUSTIVE, database=None
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One direction of one version of one API."""

    api_key: int
    version: int
    kind: str

    @property
    def facts(self) -> dict[str, Any]:
        return (REQUESTS if self.kind == "request" else RESPONSES)[self.api_key]

    @property
    def name(self) -> str:
        return APIS[self.api_key][0]


def cases(api_key: int) -> list[Case]:
    _, oldest, newest, _, _ = APIS[api_key]
    return [
        Case(api_key=api_key, version=version, kind=kind)
        for version in range(oldest, newest + 1)
        for kind in ("request", "response")
    ]


def holds(versions: str | None, version: int) -> bool:
    if versions is None or versions == "none":
        return False
    if versions.endswith("+"):
        return version >= int(versions[:-1])
    low, _, high = versions.partition("-")
    return int(low) <= version <= int(high or low)


class Values:
    """Random messages. `tame` keeps to values that kio can represent: known error codes, modest times."""

    def __init__(self, facts: dict[str, Any], module: str, version: int, random: Random, *, tame: bool) -> None:
        self._facts, self._version, self._random, self._tame = facts, version, random, tame
        self._module = import_module(f"penstock.wire.messages.{module}")

    def message(self) -> Any:
        return self._struct(self._facts["name"], self._facts["fields"], self._random.choice((0, 1, 2, 3)))

    def _struct(self, name: str, fields: list[dict[str, Any]], size: int) -> Any:
        cls = getattr(self._module, self._facts["name"] + name, None) or getattr(self._module, name)
        message = cls()
        names = list(cls.__slots__)
        assert len(names) == len(fields)
        for attribute, field in zip(names, fields, strict=True):
            if holds(field["versions"], self._version):
                setattr(message, attribute, self._field(attribute, field, size))
        return message

    def _field(self, attribute: str, field: dict[str, Any], size: int) -> Any:
        tagged = holds(field.get("tagged"), self._version)
        if tagged and self._random.random() < 0.5:
            return getattr(self._default(attribute, field), attribute)
        is_array = field["type"].startswith("[]")
        kind = field["type"].removeprefix("[]")
        if holds(field.get("nullable"), self._version) and self._random.random() < 0.3:
            return None
        if not is_array:
            value = self._value(attribute, kind, field, size)
            # A tagged struct at its defaults is not written, and what is not there reads as None.
            return None if tagged and isinstance(value, Message) and value == type(value)() else value
        count = self._random.choice((0, 1, 2, size))
        if self._random.random() < 0.01 and kind in INTEGERS:
            count = 200
        return [self._value(attribute, kind, field, max(size - 1, 0)) for _ in range(count)]

    def _default(self, attribute: str, field: dict[str, Any]) -> Any:
        for name in dir(self._module):
            cls = getattr(self._module, name)
            if attribute in getattr(cls, "__slots__", ()) and isinstance(cls, type):
                return cls()
        raise AssertionError(f"nothing has {attribute} ({field['name']})")

    def _value(self, attribute: str, kind: str, field: dict[str, Any], size: int) -> Any:
        random = self._random
        match kind:
            case "bool":
                return random.random() < 0.5
            case "int8" | "int16" | "int32" | "int64":
                return self._integer(attribute, kind)
            case "uint16":
                return random.randrange(65536)
            case "float64":
                return random.uniform(-1e6, 1e6)
            case "uuid":
                return random.randbytes(16) if random.random() < 0.9 else bytes(16)
            case "string":
                return TEXTS[-1] if random.random() < 0.005 else random.choice(TEXTS[:-1])
            case "bytes" | "records":
                return random.randbytes(random.choice((0, 1, 100, 127, 128, 3000)))
            case _:
                fields = field.get("fields") or self._facts["structs"][kind]
                return self._struct(kind, fields, size)

    def _integer(self, attribute: str, kind: str) -> int:
        bits = INTEGERS[kind]
        random = self._random
        if self._tame and attribute.endswith("error_code"):
            return random.randrange(0, 100)
        if self._tame and attribute.endswith(("_ms", "timestamp")):
            return random.randrange(0, 2**31 if bits == 32 else 2**41)
        limit = 1 << bits - 1
        return random.choice((0, 1, -1, limit - 1, -limit, random.randrange(-limit, limit)))
