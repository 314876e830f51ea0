"""The stored form of a classic group: its durable part in a compact binary format (`packing`). Version 1:

    group    uint8 version, uint8 state (0 Empty, 1 CompletingRebalance, 2 Stable), int32 generation, int64 since_ms,
             text protocol_type, text protocol_name, text leader, list of members
    member   text member_id, text instance_id, text client_id, text client_host, int32 rebalance_timeout_ms,
             int32 session_timeout_ms, blob assignment, list of protocols
    protocol text name, blob metadata

Members are in joining order. Derived state (static members, subscribed topics) and soft state are not stored. No group
is stored while it prepares a rebalance: after a restart it continues in the previous generation.
"""

from __future__ import annotations

from dataclasses import replace
from struct import Struct

from penstock.groups.model import ClassicGroup, ClassicMember, GroupState, with_members
from penstock.groups.packing import Unpacker, pack_blob, pack_count, pack_text, unpacked
from penstock.groups.subscriptions import subscribed_topics

_VERSION = 1
_HEAD = Struct(">BBiq")
_TIMEOUTS = Struct(">ii")
_STATES = (GroupState.EMPTY, GroupState.COMPLETING_REBALANCE, GroupState.STABLE)


def encode(group: ClassicGroup) -> bytes:
    """The durable part of a group."""
    parts = [_HEAD.pack(_VERSION, _STATES.index(group.state), group.generation, group.since_ms)]
    parts += (pack_text(text) for text in (group.protocol_type, group.protocol_name, group.leader))
    parts.append(pack_count(len(group.members)))
    for member in group.members.values():
        names = (member.member_id, member.instance_id, member.client_id, member.client_host)
        parts += (pack_text(name) for name in names)
        parts.append(_TIMEOUTS.pack(member.rebalance_timeout_ms, member.session_timeout_ms))
        parts.append(pack_blob(member.assignment))
        parts.append(pack_count(len(member.protocols)))
        for name, metadata in member.protocols:
            parts += (pack_text(name), pack_blob(metadata))
    return b"".join(parts)


def decode(stored: bytes) -> ClassicGroup:
    """The group as stored. Raises `CorruptData`."""
    group = unpacked(stored, _read_group)
    return replace(group, subscribed=subscribed_topics(group))


def _read_group(unpacker: Unpacker) -> ClassicGroup:
    version, state, generation, since_ms = unpacker.fixed(_HEAD)
    if version != _VERSION:
        raise ValueError(f"version {version} is unknown")
    protocol_type, protocol_name, leader = unpacker.text(), unpacker.text(), unpacker.text()
    by_id, instances = with_members([_read_member(unpacker) for _ in range(unpacker.count())])
    return ClassicGroup(
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


def _read_member(unpacker: Unpacker) -> ClassicMember:
    member_id, instance_id = unpacker.text() or "", unpacker.text()
    client_id, client_host = unpacker.text() or "", unpacker.text() or ""
    rebalance_timeout_ms, session_timeout_ms = unpacker.fixed(_TIMEOUTS)
    assignment = unpacker.blob() or b""
    protocols = tuple((unpacker.text() or "", unpacker.blob() or b"") for _ in range(unpacker.count()))
    return ClassicMember(
        member_id=member_id,
        instance_id=instance_id,
        client_id=client_id,
        client_host=client_host,
        rebalance_timeout_ms=rebalance_timeout_ms,
        session_timeout_ms=session_timeout_ms,
        protocols=protocols,
        assignment=assignment,
    )
