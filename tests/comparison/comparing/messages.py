"""Messages from plain values and back: mappings for structs, lists, strings, numbers.

A request is written in YAML with the field names of the generated codec. What it does not give has the field's default.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import import_module
from typing import Any, get_args, get_origin, get_type_hints

from penstock.wire.api_keys import ApiKey
from penstock.wire.consumer_protocol import encode_assignment, encode_subscription
from penstock.wire.messages.consumer_protocol import (
    ConsumerProtocolAssignment,
    ConsumerProtocolAssignmentTopicPartition,
    ConsumerProtocolSubscription,
)
from penstock.wire.messages.index import APIS
from penstock.wire.primitives import Message

from .batches import batches_to_plain, build_batches

BY_TITLE = {"".join(word.capitalize() for word in APIS[key][0].split("_")): key for key in ApiKey if key in APIS}
TITLES = {key: title for title, key in BY_TITLE.items()}


def request(key: ApiKey, fields: Mapping[str, Any]) -> Message:
    """The request of an API."""
    module = import_module(f"penstock.wire.messages.{APIS[key][0]}")
    return _struct(getattr(module, TITLES[key] + "Request"), fields)


def _struct(cls: type[Message], fields: Mapping[str, Any]) -> Message:
    hints = _hints(cls)
    unknown = set(fields) - set(hints)
    if unknown:
        raise ValueError(f"{cls.__name__} has no {', '.join(sorted(unknown))}; it has {', '.join(hints)}")
    return cls(**{name: _value(hints[name], value) for name, value in fields.items()})


@cache
def _hints(cls: type[Message]) -> dict[str, Any]:
    hints = get_type_hints(cls.__init__)
    hints.pop("return", None)
    return hints


def _value(hint: Any, value: Any) -> Any:
    if isinstance(hint, types.UnionType):
        if memoryview in get_args(hint):
            return build_batches(value)
        hint = next(option for option in get_args(hint) if option is not type(None))
    if value is None:
        return None
    if get_origin(hint) is list:
        (element,) = get_args(hint)
        return [_value(element, one) for one in value]
    if isinstance(hint, type) and issubclass(hint, Message):
        return _struct(hint, value)
    if hint is bytes:
        return blob(value)
    return value


def blob(value: Any) -> bytes:
    """Opaque bytes: as they are, text, hexadecimal after 0x, or what consumers put into the classic group protocol."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, Mapping):
        ((kind, topics),) = value.items()
        if kind == "subscription":
            return encode_subscription(ConsumerProtocolSubscription(topics=list(topics)), 1)
        partitions = [
            ConsumerProtocolAssignmentTopicPartition(topic=name, partitions=list(numbers))
            for name, numbers in topics.items()
        ]
        return encode_assignment(ConsumerProtocolAssignment(assigned_partitions=partitions), 1)
    return bytes.fromhex(value[2:]) if value.startswith("0x") else value.encode()


def plain(message: Any) -> Any:
    """A message as mappings, lists and values; record data as the batches in it."""
    if isinstance(message, Message):
        return {name: _plain_field(name, getattr(message, name)) for name in message.fields()}
    return message


def _plain_field(name: str, value: Any) -> Any:
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, bytes | bytearray | memoryview) and name == "records":
        return batches_to_plain(bytes(value))
    return plain(value)


def find(answer: Any, path: str) -> Any:
    """The value at `topics.0.error_code`; None if there is none."""
    for word in _words(path):
        if answer is None:
            return None
        try:
            answer = answer[int(word)] if isinstance(answer, list) else answer[word]
        except (KeyError, IndexError, TypeError):
            return None
    return answer


def _words(path: str) -> Iterable[str]:
    return path.split(".")
