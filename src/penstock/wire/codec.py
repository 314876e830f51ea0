"""The door to Kafka's messages: bytes to message, message to frame.

The work is done by the generated modules below `penstock.wire.messages`, one pair per API, imported when the
first message of that API passes. Servers read requests and write responses; the other direction lives in
`messages/client/` and is never imported by a server.

Readers take any buffer and raise `Malformed` for every byte that is not as the protocol says; what follows a
request's last field is ignored, as Kafka does, because librdkafka sends such bytes. Strings come out as `str`, small
blobs as `bytes`, record data as a `memoryview` of the buffer. Writers give a frame as a list of buffers, size prefix
included: record data is passed on as it is (small pieces are joined with what is around them), so a list of a few
buffers goes to `writelines` or `sendmsg`.
"""

from __future__ import annotations

from importlib import import_module
from struct import Struct, error
from typing import TYPE_CHECKING, Any

from penstock.base.errors import InvalidRequest
from penstock.wire.messages.index import APIS
from penstock.wire.primitives import MAX_ELEMENTS, UNLIMITED, Malformed, Message, room, skip_tags

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.wire.primitives import Buffer

    Reader = Callable[[Buffer, int], tuple[Any, int]]
    Put = Callable[[Buffer | list[Buffer]], None]
    Writer = Callable[[Any, Callable[[Buffer], None], Put], None]

__all__ = [
    "Malformed",
    "Message",
    "RequestHeader",
    "UnsupportedVersion",
    "encode_request",
    "encode_response",
    "is_flexible",
    "read_request",
    "read_request_header",
    "read_response",
    "read_response_header",
    "versions",
]

API_VERSIONS = 18

# Record data below this many bytes is cheaper to copy into the buffer around it than to send on its own.
COPY_BELOW = 2048
# A body below this is joined with its header; above, the copy would cost more than a second buffer.
JOIN_BELOW = 65536

_REQUEST_HEADER = Struct(">hhih")
_SIZE_AND_ID = Struct(">ii")
_SIZE_ID_AND_TAGS = Struct(">iix")
_ID = Struct(">i")
_FULL_REQUEST_HEADER = Struct(">ihhih")

_BAD_BYTES = (error, IndexError, UnicodeDecodeError)

_read_request: dict[int, Reader] = {}
_write_response: dict[int, Writer] = {}
_write_request: dict[int, Writer] = {}
_read_response: dict[int, Reader] = {}


class UnsupportedVersion(InvalidRequest):
    """An API or a version of it that the codec does not know."""


class RequestHeader:
    """What stands in front of every request. `body` is the position at which the body starts."""

    __slots__ = ("api_key", "api_version", "body", "client_id", "correlation_id")

    def __init__(self, api_key: int, api_version: int, correlation_id: int, client_id: str | None, body: int) -> None:
        self.api_key = api_key
        self.api_version = api_version
        self.correlation_id = correlation_id
        self.client_id = client_id
        self.body = body

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__slots__)
        return f"RequestHeader({values})"


def versions(api_key: int) -> range:
    """Stable versions of an API; empty if it is unknown. Unstable ones can be read and written, not advertised."""
    if api_key not in APIS:
        return range(0)
    _, oldest, _, newest_stable, _ = APIS[api_key]
    return range(oldest, newest_stable + 1)


def is_flexible(api_key: int, version: int) -> bool:
    """Whether this version uses compact lengths and tag sections. Also answers for versions not known yet."""
    return api_key in APIS and version >= APIS[api_key][4]


def read_request_header(buffer: Buffer, position: int) -> RequestHeader:
    """Read the header of a request. An unknown API is taken as not flexible: its body cannot be read anyway."""
    try:
        api_key, version, correlation_id, length = _REQUEST_HEADER.unpack_from(buffer, position)
        position += 10
        client_id = None
        if length >= 0:
            client_id = str(buffer[position : position + length], "utf-8")
            position += length
        if is_flexible(api_key, version):
            position = skip_tags(buffer, position)
    except _BAD_BYTES as problem:
        raise Malformed(f"request header: {problem}") from problem
    if position > len(buffer):
        raise Malformed("request header: the client id is cut short")
    return RequestHeader(api_key, version, correlation_id, client_id, position)


def read_request(api_key: int, version: int, buffer: Buffer, position: int) -> Any:
    """Read the body of a request, from `position` on. Bytes after its last field are ignored."""
    reader = _read_request.get(api_key << 8 | version)
    if reader is None:
        reader = _load(_read_request, "", "READ_REQUEST", api_key, version)
    if len(buffer) <= MAX_ELEMENTS:  # It cannot have more elements than bytes.
        return _read(reader, "request", api_key, version, buffer, position)[0]
    room.left = MAX_ELEMENTS
    try:
        return _read(reader, "request", api_key, version, buffer, position)[0]
    finally:
        room.left = UNLIMITED


def read_short_request(api_key: int, version: int, buffer: Buffer, position: int, elements: int) -> Any | None:
    """The same for a request of no more array elements than that. None if it has more, or is malformed: who reads it
    again finds out which."""
    reader = _read_request.get(api_key << 8 | version)
    if reader is None:
        reader = _load(_read_request, "", "READ_REQUEST", api_key, version)
    room.left = elements
    try:
        message, end = reader(buffer, position)
    except (*_BAD_BYTES, Malformed):
        return None
    finally:
        room.left = UNLIMITED
    return None if end > len(buffer) else message


def encode_response(
    api_key: int, version: int, correlation_id: int, message: Message, *, is_long: bool = False
) -> list[Buffer]:
    """A whole response frame. The header of ApiVersions is never flexible, so that any client can read it."""
    writer = _write_response.get(api_key << 8 | version)
    if writer is None:
        writer = _load(_write_response, "", "WRITE_RESPONSE", api_key, version)
    flexible = version >= APIS[api_key][4] and api_key != API_VERSIONS
    frame = _write_long(writer, message) if is_long else _write(writer, message)
    if flexible:
        return _with_head(_SIZE_ID_AND_TAGS.pack(_length(frame) + 5, correlation_id), frame)
    return _with_head(_SIZE_AND_ID.pack(_length(frame) + 4, correlation_id), frame)


def encode_request(
    api_key: int, version: int, correlation_id: int, client_id: str | None, message: Message
) -> list[Buffer]:
    """A whole request frame."""
    writer = _write_request.get(api_key << 8 | version)
    if writer is None:
        writer = _load(_write_request, "client.", "WRITE_REQUEST", api_key, version)
    name = b"" if client_id is None else client_id.encode()
    name_length = -1 if client_id is None else len(name)
    tags = b"\0" if is_flexible(api_key, version) else b""
    frame = _write(writer, message)
    size = 10 + len(name) + len(tags) + _length(frame)
    head = _FULL_REQUEST_HEADER.pack(size, api_key, version, correlation_id, name_length)
    return _with_head(head + name + tags, frame)


def read_response_header(api_key: int, version: int, buffer: Buffer, position: int) -> tuple[int, int]:
    """The correlation id of a response, and the position at which its body starts."""
    try:
        (correlation_id,) = _ID.unpack_from(buffer, position)
        position += 4
        if is_flexible(api_key, version) and api_key != API_VERSIONS:
            position = skip_tags(buffer, position)
    except _BAD_BYTES as problem:
        raise Malformed(f"response header: {problem}") from problem
    return correlation_id, position


def read_response(api_key: int, version: int, buffer: Buffer, position: int) -> Any:
    """Read the body of a response, from `position` to the end of the buffer."""
    reader = _read_response.get(api_key << 8 | version)
    if reader is None:
        reader = _load(_read_response, "client.", "READ_RESPONSE", api_key, version)
    message, end = _read(reader, "response", api_key, version, buffer, position)
    if end < len(buffer):
        raise Malformed(f"{APIS[api_key][0]} response v{version}: the body has {len(buffer) - end} bytes too many")
    return message


def prepare(api_key: int) -> None:
    """Import what a server needs for an API; else its first request does."""
    newest = APIS[api_key][2]
    _load(_read_request, "", "READ_REQUEST", api_key, newest)
    _load(_write_response, "", "WRITE_RESPONSE", api_key, newest)


def _load(cache: dict[int, Any], folder: str, table: str, api_key: int, version: int) -> Any:
    """Import the module of an API and remember its functions."""
    if api_key not in APIS:
        raise UnsupportedVersion(f"API key {api_key} is unknown")
    name, oldest, newest, _, _ = APIS[api_key]
    if not oldest <= version <= newest:
        raise UnsupportedVersion(f"{name} has versions {oldest} to {newest}, not {version}")
    functions = getattr(import_module(f"penstock.wire.messages.{folder}{name}"), table)
    for known, function in functions.items():
        cache[api_key << 8 | known] = function
    return functions[version]


def _read(reader: Reader, kind: str, api_key: int, version: int, buffer: Buffer, position: int) -> tuple[Any, int]:
    try:
        message, end = reader(buffer, position)
    except (*_BAD_BYTES, Malformed) as problem:
        raise Malformed(f"{APIS[api_key][0]} {kind} v{version}: {problem}") from problem
    if end > len(buffer):
        raise Malformed(f"{APIS[api_key][0]} {kind} v{version}: the body is cut short")
    return message, end


def _write(writer: Writer, message: Message) -> list[Buffer]:
    """The body as few buffers: everything small joined, record data as it is."""
    frame: list[Buffer] = []
    small: list[Buffer] = []

    def put(records: Buffer | list[Buffer]) -> None:
        pieces = records if isinstance(records, list) else (records,)
        for piece in pieces:
            if len(piece) < COPY_BELOW:
                small.append(piece)
            else:
                frame.append(b"".join(small))
                small.clear()
                frame.append(piece)

    writer(message, small.append, put)
    if small:
        frame.append(b"".join(small))
    return frame


def _write_long(writer: Writer, message: Message) -> list[Buffer]:
    """The same, for a million small pieces: joining and freeing those would hold up every thread."""
    frame: list[Buffer] = []
    small = bytearray()

    def put(records: Buffer | list[Buffer]) -> None:
        for piece in records if isinstance(records, list) else (records,):
            if len(piece) < COPY_BELOW:
                small.extend(piece)
            else:
                frame.append(bytes(small))
                small.clear()
                frame.append(piece)

    writer(message, small.extend, put)
    if small:
        frame.append(bytes(small))
    return frame


def _length(frame: list[Buffer]) -> int:
    return len(frame[0]) if len(frame) == 1 else sum(map(len, frame))


def _with_head(head: bytes, frame: list[Buffer]) -> list[Buffer]:
    if frame and len(frame[0]) < JOIN_BELOW:
        frame[0] = head + frame[0]
    else:
        frame.insert(0, head)
    return frame
