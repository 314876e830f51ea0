"""How a group is stored: a compact binary form of its durable parts. Version 1, big-endian:

    group    uint8 version, uint8 state (0 Empty, 1 CompletingRebalance, 2 Stable), int32 generation, int64 since_ms,
             text protocol_type, text protocol_name, text leader, int32 count, members
    member   text member_id, text instance_id, text client_id, text client_host, int32 rebalance_timeout_ms,
             int32 session_timeout_ms, blob assignment, int32 count, protocols
    protocol text name, blob metadata
    text     int32 length in bytes (-1: null), UTF-8;   blob the same without null

Members are in the order of joining. What can be computed (static members, subscribed topics) is not stored, nor what is
soft. No group is stored while it prepares a rebalance: after a restart it goes on in the generation before.
"""

from __future__ import annotations

from dataclasses import replace
from struct import Struct, error

from penstock.base.errors import CorruptData
from penstock.groups.model import Group, GroupState, Member, with_members
from penstock.groups.subscriptions import subscribed_topics

_VERSION = 1
_HEAD = Struct(">BBiq")
_INT32 = Struct(">i")
_TIMEOUTS = Struct(">ii")
_STATES = (GroupState.EMPTY, GroupState.COMPLETING_REBALANCE, GroupState.STABLE)


def encode(group: Group) -> bytes:
    """The durable parts of a group."""
    parts = [_HEAD.pack(_VERSION, _STATES.index(group.state), group.generation, group.since_ms)]
    parts += (_text(text) for text in (group.protocol_type, group.protocol_name, group.leader))
    parts.append(_INT32.pack(len(group.members)))
    for member in group.members.values():
        names = (member.member_id, member.instance_id, member.client_id, member.client_host)
        parts += (_text(name) for name in names)
        parts.append(_TIMEOUTS.pack(member.rebalance_timeout_ms, member.session_timeout_ms))
        parts.append(_blob(member.assignment))
        parts.append(_INT32.pack(len(member.protocols)))
        for name, metadata in member.protocols:
            parts += (_text(name), _blob(metadata))
    return b"".join(parts)


def decode(stored: bytes) -> Group:
    """The group that was stored. Raises `CorruptData`."""
    try:
        group = _read_group(_Reader(stored))
    except (error, ValueError, IndexError) as problem:
        raise CorruptData(f"a stored group cannot be read: {problem}") from problem
    return replace(group, subscribed=subscribed_topics(group))


def _read_group(reader: _Reader) -> Group:
    version, state, generation, since_ms = reader.fixed(_HEAD)
    if version != _VERSION:
        raise ValueError(f"version {version} is unknown")
    protocol_type, protocol_name, leader = reader.text(), reader.text(), reader.text()
    by_id, instances = with_members([_read_member(reader) for _ in range(reader.count())])
    reader.end()
    return Group(
        state=_STATES[state],
        generation=generation,
        protocol_type=protocol_type,
        protocol_name=protocol_name,
        leader=leader,
        members=by_id,
        instances=instances,
        since_ms=since_ms,
        stored=True,
    )


def _read_member(reader: _Reader) -> Member:
    member_id, instance_id = reader.text() or "", reader.text()
    client_id, client_host = reader.text() or "", reader.text() or ""
    rebalance_timeout_ms, session_timeout_ms = reader.fixed(_TIMEOUTS)
    assignment = reader.blob() or b""
    protocols = tuple((reader.text() or "", reader.blob() or b"") for _ in range(reader.count()))
    return Member(
        member_id=member_id,
        instance_id=instance_id,
        client_id=client_id,
        client_host=client_host,
        rebalance_timeout_ms=rebalance_timeout_ms,
        session_timeout_ms=session_timeout_ms,
        protocols=protocols,
        assignment=assignment,
    )


def _text(text: str | None) -> bytes:
    return _INT32.pack(-1) if text is None else _blob(text.encode())


def _blob(blob: bytes) -> bytes:
    return _INT32.pack(len(blob)) + blob


class _Reader:
    """Reads stored bytes from the front; never past their end."""

    __slots__ = ("_position", "_stored")

    def __init__(self, stored: bytes) -> None:
        self._stored, self._position = bytes(stored), 0

    def fixed(self, layout: Struct) -> tuple[int, ...]:
        values: tuple[int, ...] = layout.unpack_from(self._stored, self._position)
        self._position += layout.size
        return values

    def count(self) -> int:
        (count,) = self.fixed(_INT32)
        if not 0 <= count <= len(self._stored):
            raise ValueError(f"impossible count {count}")
        return count

    def blob(self) -> bytes | None:
        (size,) = self.fixed(_INT32)
        if size == -1:
            return None
        start, self._position = self._position, self._position + size
        if size < 0 or self._position > len(self._stored):
            raise ValueError(f"impossible length {size}")
        return self._stored[start : self._position]

    def text(self) -> str | None:
        blob = self.blob()
        return None if blob is None else blob.decode()

    def end(self) -> None:
        if self._position != len(self._stored):
            raise ValueError("bytes are left over")
