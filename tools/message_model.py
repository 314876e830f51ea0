"""Kafka's message schemas as the generator sees them: messages, structs, fields, versions."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from struct import calcsize
from typing import Any

LAST = 32767

FIXED = {
    "bool": "?", "int8": "b", "int16": "h", "uint16": "H", "int32": "i", "int64": "q", "float64": "d", "uuid": "16s",
}  # fmt: skip
PYTHON = {
    "bool": "bool", "int8": "int", "int16": "int", "uint16": "int", "int32": "int", "int64": "int",
    "float64": "float", "uuid": "bytes", "string": "str", "bytes": "bytes",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Versions:
    """An inclusive range of versions; empty when `low` is above `high`."""

    low: int
    high: int

    @classmethod
    def parse(cls, text: str | None) -> Versions:
        if text is None or text == "none":
            return cls(1, 0)
        if text.endswith("+"):
            return cls(int(text[:-1]), LAST)
        low, _, high = text.partition("-")
        return cls(int(low), int(high or low))

    def __contains__(self, version: int) -> bool:
        return self.low <= version <= self.high


@dataclass(slots=True)
class Struct:
    name: str
    fields: list[Field] = field(default_factory=list)

    def inside(self, version: int) -> list[Field]:
        return [item for item in self.fields if version in item.versions and version not in item.tagged]

    def tagged(self, version: int) -> list[Field]:
        return [item for item in self.fields if version in item.versions and version in item.tagged]

    def absent(self, version: int) -> list[Field]:
        return [item for item in self.fields if version not in item.versions]


@dataclass(slots=True)
class Field:
    name: str
    type: str  # Of one element, when `array`.
    array: bool
    versions: Versions
    nullable: Versions
    tagged: Versions
    tag: int
    default: str | None
    struct: Struct | None

    @property
    def maybe_tagged(self) -> bool:
        return self.tagged.low <= self.tagged.high

    @property
    def starts_null(self) -> bool:
        """Whether the default is None. A tagged struct that is not there is None, and so is one at its defaults."""
        if self.struct is not None and not self.array and self.maybe_tagged:
            return True
        return self.default == "null" or (self.type == "records" and self.default is None)

    @property
    def literal(self) -> str:
        """The default as an expression that makes a fresh value."""
        if self.starts_null:
            return "None"
        if self.array:
            return "[]"
        if self.struct is not None:
            return f"{self.struct.name}()"
        match self.type:
            case "string":
                return json.dumps(self.default or "")
            case "bytes":
                return 'b""'
            case "uuid":
                return "ZERO_UUID"
            case "bool":
                return "True" if (self.default or "").lower() == "true" else "False"
            case "float64":
                return str(float(self.default or "0"))
            case _:
                return str(int(self.default or "0", 0))

    def annotation(self, *, response: bool) -> str:
        if self.type == "records":
            return "bytes | memoryview | list[bytes | memoryview] | None" if response else "bytes | memoryview | None"
        one = self.struct.name if self.struct else PYTHON[self.type]
        whole = f"list[{one}]" if self.array else one
        nullable = self.nullable.low <= self.nullable.high or self.starts_null
        return f"{whole} | None" if nullable else whole


@dataclass(slots=True)
class Message:
    root: Struct
    versions: Versions
    flexible: Versions
    kind: str  # "request", "response" or "data"
    api_key: int | None
    latest_unstable: bool
    structs: list[Struct]


def snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def struct_names(message: dict[str, Any]) -> set[str]:
    names = set(message.get("structs", ()))

    def walk(fields: list[dict[str, Any]]) -> None:
        for item in fields:
            if "fields" in item:
                names.add(item["type"].removeprefix("[]"))
                walk(item["fields"])

    walk(message["fields"])
    for fields in message.get("structs", {}).values():
        walk(fields)
    return names


def build_message(facts: dict[str, Any], clashing: set[str]) -> Message:
    """Resolve one message. A struct name that the other direction uses too gets the message's name in front."""
    structs: dict[str, Struct] = {}

    def struct_of(name: str, fields: list[dict[str, Any]] | None) -> Struct:
        if name not in structs:
            structs[name] = Struct(facts["name"] + name if name in clashing else name)
            shared = facts.get("structs", {}).get(name)
            structs[name].fields = [field_of(item) for item in (fields if fields is not None else shared)]
        return structs[name]

    def field_of(item: dict[str, Any]) -> Field:
        kind = item["type"].removeprefix("[]")
        is_struct = kind not in FIXED and kind not in ("string", "bytes", "records")
        return Field(
            name=snake(item["name"]),
            type=kind,
            array=item["type"].startswith("[]"),
            versions=Versions.parse(item["versions"]),
            nullable=Versions.parse(item.get("nullable")),
            tagged=Versions.parse(item.get("tagged")),
            tag=item.get("tag", -1),
            default=item.get("default"),
            struct=struct_of(kind, item.get("fields")) if is_struct else None,
        )

    root = Struct(facts["name"], [field_of(item) for item in facts["fields"]])
    return Message(
        root=root,
        versions=Versions.parse(facts["versions"]),
        flexible=Versions.parse(facts["flexible"]),
        kind=facts["type"],
        api_key=facts.get("api_key"),
        latest_unstable=facts.get("latest_unstable", False),
        structs=[root, *structs.values()],
    )


def smallest(struct: Struct, version: int, flexible: bool) -> int:
    """The least number of bytes one element can take: what bounds an array's announced length."""
    size = 1 if flexible else 0
    for item in struct.inside(version):
        if not item.array and item.type in FIXED:
            size += calcsize(">" + FIXED[item.type])
        elif item.array or item.struct is None:
            size += 1 if flexible else 2 if item.type == "string" and not item.array else 4
        else:
            size += 1 if version in item.nullable else smallest(item.struct, version, flexible)
    return size
