"""The subset of OTLP metrics that is needed to forward and to show them: protocol buffers, field by field. Pure.

Clients push a `MetricsData`, which is encoded like the `ExportMetricsServiceRequest` of an OTLP receiver. Labels are
added by appending a second `resource` to each `ResourceMetrics`: parsers of protocol buffers merge a message field that
occurs twice, and concatenate its attributes. Attributes with the names of labels that the client has set itself are
removed: receivers do not define which of two equal names wins, and a client must not be able to forge a label.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from struct import Struct, error

from penstock.base.dataclasses import dataclass
from penstock.wire.primitives import Buffer, Malformed

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_DOUBLE, _SFIXED64 = Struct("<d"), Struct("<q")
RESOURCE_METRICS = 1
RESOURCE, SCOPE_METRICS = 1, 2
METRICS = 2
NAME, GAUGE, SUM = 1, 5, 7
DATA_POINTS = 1
AS_DOUBLE, AS_INT, POINT_ATTRIBUTES = 4, 6, 7
ATTRIBUTES = 1
KEY, VALUE = 1, 2
STRING_VALUE, BOOL_VALUE, INT_VALUE, DOUBLE_VALUE = 1, 2, 3, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One data point of a metric."""

    name: str
    is_sum: bool
    value: float
    attributes: tuple[tuple[str, str], ...]


def with_labels(payload: Buffer, labels: Mapping[str, str]) -> bytes:
    """The metrics with these attributes on each resource, in place of its own of these names. Raises `Malformed`."""
    resource = _field(RESOURCE, b"".join(_field(ATTRIBUTES, _attribute(name, text)) for name, text in labels.items()))
    pieces = []
    for number, value in _fields(memoryview(payload)):
        if number == RESOURCE_METRICS:
            kept = [
                _field(RESOURCE, _without(labels, _message(part))) if what == RESOURCE else whole
                for what, part, whole in _raw_fields(_message(value))
            ]
            pieces.append(_field(number, b"".join(kept) + resource))
    return b"".join(pieces)


def _without(names: Container[str], resource: memoryview) -> bytes:
    """A resource without attributes of these names."""
    return b"".join(
        whole
        for number, value, whole in _raw_fields(resource)
        if number != ATTRIBUTES or _key_of(_message(value)) not in names
    )


def _key_of(attribute: memoryview) -> str:
    key = ""
    for number, value in _fields(attribute):
        if number == KEY:
            key = _text(value)
    return key


def points(payload: Buffer) -> Iterator[Point]:
    """Every data point of gauges and sums. Raises `Malformed`."""
    for of_resource in _messages(memoryview(payload), RESOURCE_METRICS):
        for of_scope in _messages(of_resource, SCOPE_METRICS):
            for metric in _messages(of_scope, METRICS):
                yield from _points(metric)


def _points(metric: memoryview) -> Iterator[Point]:
    name, found = "", []
    for number, value in _fields(metric):
        if number == NAME:
            name = _text(value)
        elif number in (GAUGE, SUM):
            found += [(number == SUM, point) for point in _messages(_message(value), DATA_POINTS)]
    for is_sum, point in found:
        number_value, attributes = 0.0, []
        for number, value in _fields(point):
            if number in (AS_DOUBLE, AS_INT):
                number_value = _number(value, _DOUBLE if number == AS_DOUBLE else _SFIXED64)
            elif number == POINT_ATTRIBUTES:
                attributes.append(_read_attribute(_message(value)))
        yield Point(name=name, is_sum=is_sum, value=number_value, attributes=tuple(attributes))


def _read_attribute(data: memoryview) -> tuple[str, str]:
    key, text = "", ""
    for number, value in _fields(data):
        if number == KEY:
            key = _text(value)
        elif number == VALUE:
            text = _any_text(_message(value))
    return key, text


def _any_text(data: memoryview) -> str:
    """A value as text; empty for lists and maps."""
    for number, value in _fields(data):
        if number == STRING_VALUE:
            return _text(value)
        if number == BOOL_VALUE:
            return "true" if value else "false"
        if number == INT_VALUE and isinstance(value, int):
            return str(value - 2**64 if value >= 2**63 else value)
        if number == DOUBLE_VALUE:
            return repr(_number(value, _DOUBLE))
    return ""


# ---- protocol buffers -----------------------------------------------------------------------------------------------

Value = int | memoryview


def _fields(data: memoryview) -> Iterator[tuple[int, Value]]:
    for number, value, _ in _raw_fields(data):
        yield number, value


def _raw_fields(data: memoryview) -> Iterator[tuple[int, Value, memoryview]]:
    """Field number, value, and encoded bytes of each field."""
    position, end = 0, len(data)
    while position < end:
        start = position
        tag, position = _varint(data, position)
        kind = tag & 7
        if kind == _VARINT:
            number, position = _varint(data, position)
            yield tag >> 3, number, data[start:position]
            continue
        if kind == _BYTES:
            size, position = _varint(data, position)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise Malformed(f"metrics have a field of wire type {kind}")
        if size > end - position:
            raise Malformed("metrics end inside a field")
        following = position + size
        yield tag >> 3, data[position:following], data[start:following]
        position = following


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    result = shift = 0
    while position < len(data) and shift < 70:
        byte = data[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 128:
            return result, position
        shift += 7
    raise Malformed("metrics end inside a number, or have one that is too long")


def _messages(data: memoryview, wanted: int) -> Iterator[memoryview]:
    for number, value in _fields(data):
        if number == wanted:
            yield _message(value)


def _message(value: Value) -> memoryview:
    if isinstance(value, int):
        raise Malformed("metrics have a number where a message should be")
    return value


def _text(value: Value) -> str:
    try:
        return str(_message(value), "utf-8")
    except UnicodeDecodeError as problem:
        raise Malformed("metrics have text that is not UTF-8") from problem


def _number(value: Value, layout: Struct) -> float:
    try:
        return float(layout.unpack(_message(value))[0])
    except error as problem:
        raise Malformed("metrics have a number of the wrong size") from problem


def _attribute(name: str, text: str) -> bytes:
    return _field(KEY, name.encode()) + _field(VALUE, _field(STRING_VALUE, text.encode()))


def _field(number: int, data: bytes) -> bytes:
    return _as_varint(number << 3 | _BYTES) + _as_varint(len(data)) + data


def _as_varint(number: int) -> bytes:
    pieces = bytearray()
    while number > 127:
        pieces.append(number & 0x7F | 0x80)
        number >>= 7
    pieces.append(number)
    return bytes(pieces)
